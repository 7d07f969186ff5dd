"""What a run reads and writes grows with the tenants, and not with their square."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from reconciler.core.plan import Limits
from reconciler.deadline import Deadline
from reconciler.job import Job, RunOptions
from reconciler.run import reconcile
from reconciler.sources.file import FileSource
from tests.support.api_state import ORG_LABEL, tenant

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

TENANTS: Final = 1000
MOST: Final = 100
"""Rows that are read for one that is written. Where one is looked for among all of them, it is a thousand and more."""
SKILLS: Final = ["mail", "wiki"]
BORN: Final = "2026-05-01T00:00:00Z"

RECORDED: Final = b"""
INSERT INTO tenant_billing_lifecycle
SELECT 'tenant-' || n, '2871', '2026-05-01T00:00:00Z' FROM generate_series(1, 1000) n
"""
ENABLED: Final = b"""
INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at)
SELECT tenant_name, '2871', unnest(ARRAY['mail', 'wiki']), 'enabled', created_at FROM tenant_billing_lifecycle
"""
COUNTED: Final = """
CREATE TABLE counted (rows bigint);
CREATE FUNCTION count_rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO counted SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_all_tables;
  RETURN NULL;
END $$;
CREATE TRIGGER count_rows AFTER INSERT ON reconciler.runs FOR EACH ROW EXECUTE FUNCTION count_rows()
"""
"""A run's row is the last that it writes: so many rows its transaction has read until then, those of its own tables
among them."""


@pytest.mark.parametrize(
    ("statements", "shown", "written"),
    [
        pytest.param([], TENANTS, 3 * TENANTS, id="no tenant is recorded"),
        pytest.param([RECORDED], TENANTS, 2 * TENANTS, id="no event is recorded"),
        pytest.param([RECORDED, ENABLED], 1, 3 * (TENANTS - 1), id="all but one tenant are gone"),
    ],
)
def test_what_a_run_reads_grows_with_what_it_writes(
    ledger: psycopg.Connection[Any], ledger_url: str, tmp_path: Path, statements: list[bytes], shown: int, written: int
) -> None:
    ledger.execute(COUNTED)
    for statement in statements:
        ledger.execute(statement)
    items = [tenant(f"tenant-{number}", SKILLS, suspend=False) for number in range(1, shown + 1)]
    for item in items:
        item["metadata"] |= {"creationTimestamp": BORN, "uid": item["metadata"]["name"]}
    file = tmp_path / "tenants.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    source = FileSource(path=str(file), group="pieced.ch", org_label=ORG_LABEL)
    options = RunOptions(limits=Limits(percent=100))

    outcome = reconcile(Job(database_url=ledger_url, source=source, options=options, deadline=Deadline.after(300)))

    ((rows,),) = ledger.execute("SELECT rows FROM counted").fetchall()
    assert sum(finding.action.writes for finding in outcome.findings) == written
    assert rows / written < MOST
