"""Many clusters with one ledger, simulated as docs/adr/0006-many-clusters-owned-by-name.md describes."""

from __future__ import annotations

from tests.bench.clusters import Rule, play


def test_a_job_that_ignores_other_clusters_stamps_their_tenants() -> None:
    assert play(Rule.ABSENT, 0)["wrong"] > 0


def test_a_tenant_missing_from_every_cluster_was_deleted() -> None:
    """That no tenant is stamped wrongly or missed is asserted at the end of the simulation."""
    assert play(Rule.HEARD, 0)["found"] > 0
