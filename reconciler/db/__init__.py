"""The ledger in PostgreSQL: what is read of it, and what is written to it.

A function that takes a cursor works in its open transaction, see `connection.transaction`: times come in UTC, and
nothing is committed. `settle` is how long after a change of the resource the portal may still write its row.
"""
