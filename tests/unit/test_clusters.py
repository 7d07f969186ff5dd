"""Many clusters with one ledger, played as docs/adr/0006-many-clusters-owned-by-name.md describes it."""

from __future__ import annotations

from tests.bench.clusters import Rule, play


def test_a_job_that_knows_no_other_cluster_stamps_what_lives_there() -> None:
    assert play(Rule.ABSENT, 0)["wrong"] > 0


def test_a_tenant_that_every_cluster_was_heard_to_miss_was_deleted() -> None:
    """That none is stamped wrongly, and none missed, is asserted where the world ends."""
    assert play(Rule.HEARD, 0)["found"] > 0
