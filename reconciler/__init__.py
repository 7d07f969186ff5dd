"""Keeps PieCed's billing ledger true to the PiecedTenants in the cluster."""

__version__ = "0.2.0"
