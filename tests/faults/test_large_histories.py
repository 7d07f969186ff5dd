"""Whatever was recorded of one tenant, a command takes no more memory than for any other.

Each line of the table is a ledger, a command over it, and what comes out: `pytest --collect-only -q` prints it. The
same with a million events is measured by `tests/bench/large.py`.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from reconciler.core.reasons import Reason
from tests.bench import metered
from tests.support.api_state import tenant

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import psycopg

EVENTS: Final = 50_000
MAX_BYTES: Final = 16_000_000
"""What so many events may add. Where a command holds them, they add 22 to 100 MB."""
PLAN: Final = ("plan", "--tenants", "{file}", "--output", "json", *(f"--allow-mass={reason}" for reason in Reason))
EXPLAIN: Final = ("explain", "long")
USAGE: Final = ("usage", "--month")

ROWS: Final = """
INSERT INTO tenant_billing_lifecycle
SELECT name, 'unknown', '2020-01-01'
FROM (SELECT unnest(ARRAY['long', 'short']) UNION ALL SELECT 'long-' || generate_series(1, 99)) named (name);
INSERT INTO skill_pricing VALUES ('mail', 0.50), ('wiki', 1);
UPDATE platform_pricing SET tenant_monthly_fee_chf = 31;
"""
SKILL_EVENTS: Final = """
INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at)
SELECT {tenant}, '1', {skill}, {kind}, timestamptz '2020-01-01' + n * interval '2000 days' / {number}
FROM generate_series(0, {number} - 1) n
"""
SUSPENSIONS: Final = """
INSERT INTO tenant_suspension_events (tenant_name, zitadel_org_id, event_kind, occurred_at)
SELECT tenant_name, '1', CASE event_kind WHEN 'enabled' THEN 'suspended' ELSE 'resumed' END, occurred_at
FROM tenant_skill_events;
DELETE FROM tenant_skill_events
"""
TURNS: Final = "CASE n % 2 WHEN 0 THEN 'enabled' ELSE 'disabled' END"


def events(*, tenant: str = "'long'", skill: str = "'mail'", kind: str = TURNS) -> str:
    """Return the statement that records so many events; the arguments are expressions of their number, n."""
    return SKILL_EVENTS.format(tenant=tenant, skill=skill, kind=kind, number=EVENTS)


def impacts(output: Sequence[str]) -> dict[tuple[str, str, str | None], Any]:
    """Return the impact of each finding of a plan, by tenant, reason and subject."""
    found = json.loads("\n".join(output))["findings"]
    return {(one["tenant"], one["reason"], one["subject"]): one["impact_chf"] for one in found}


def all_are_corrected(output: Sequence[str]) -> None:
    found = impacts(output)
    assert {(name, "org_resolved") for name in ("long", "short", "long-99")} <= {key[:2] for key in found}
    assert None not in found.values()


def only_the_long_one_is_left_alone(output: Sequence[str]) -> None:
    found = impacts(output)
    assert [key for key in found if key[0] == "long"] == [("long", "tenant_parked", None)]
    assert found["short", "org_resolved", None] == "0.00"


def every_event_is_in_the_document(output: Sequence[str]) -> None:
    assert len(json.loads("\n".join(output))["events"]) == EVENTS + 1


def every_event_has_its_line(output: Sequence[str]) -> None:
    assert len(output[output.index("Events: everything that happened, by the ledger") :]) == 1 + EVENTS + 1


def what_is_left_out_is_named(output: Sequence[str]) -> None:
    assert any(line.startswith("More skills than 200 have events") for line in output)
    assert output[-1] == f"{EVENTS + 1} events, 0 of them corrections; --all-events lists them"


def every_day_is_billed(output: Sequence[str]) -> None:
    assert [line.split() for line in output if " mail " in line] == [["mail", "2025-05", "31", "0.50000", "15.50"]]


def every_skill_is_billed(output: Sequence[str]) -> None:
    assert sum(",long,s" in line for line in output) == EVENTS


@pytest.fixture(scope="module")
def usual() -> int:
    """The memory of a process that has started, in bytes."""
    modules = (
        "reconciler.cli.main, rich.console, rich.table, reconciler.run, reconciler.db.explain, reconciler.views.explain"
    )
    code = f"import {modules}"
    return metered.run([sys.executable, "-c", code], {}).use.peak


@pytest.mark.parametrize(
    ("history", "command", "holds"),
    [
        pytest.param(events(), PLAN, all_are_corrected, id="one skill, a plan - all are corrected"),
        pytest.param(
            events(skill="'s' || n", kind="'disabled'"),
            PLAN,
            all_are_corrected,
            id="each skill turned off once, a plan - all are corrected",
        ),
        pytest.param(
            events(skill="'s' || n", kind="'enabled'"),
            PLAN,
            only_the_long_one_is_left_alone,
            id="each skill turned on once, a plan - that tenant alone is left",
        ),
        pytest.param(
            f"{events()}; {SUSPENSIONS}", PLAN, all_are_corrected, id="suspensions, a plan - all are corrected"
        ),
        pytest.param(
            events(tenant="'long-' || 1 + n % 99", skill="'s' || n / 99 % 3"),
            PLAN,
            all_are_corrected,
            id="a hundred long histories, a plan - all are corrected",
        ),
        pytest.param(
            events(), (*EXPLAIN, "--output", "json"), every_event_is_in_the_document, id="explain, JSON - every event"
        ),
        pytest.param(events(), (*EXPLAIN, "--all-events"), every_event_has_its_line, id="explain, all - every event"),
        pytest.param(
            events(skill="'s' || n"), EXPLAIN, what_is_left_out_is_named, id="explain, many skills - what is left out"
        ),
        pytest.param(events(), (*USAGE, "2025-05"), every_day_is_billed, id="usage of a month - every day is billed"),
        pytest.param(
            events(skill="'s' || n", kind="'enabled'"),
            (*USAGE, "2025-12", "--output", "csv"),
            every_skill_is_billed,
            id="usage, many skills, CSV - every skill is billed",
        ),
    ],
)
def test_memory_does_not_grow_with_a_history(
    ledger: psycopg.Connection[Any],
    ledger_url: str,
    usual: int,
    tmp_path: Path,
    history: str,
    command: Sequence[str],
    holds: Callable[[Sequence[str]], None],
) -> None:
    ledger.execute(f"{ROWS}; {history}; ANALYZE".encode())
    names = ["long", "short", *(f"long-{number}" for number in range(1, 100))]
    items = [tenant(name, ["mail"], org="1") | {"metadata": metadata(name)} for name in names]
    (tmp_path / "tenants.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    words = [word.format(file=tmp_path / "tenants.json") for word in command]
    ran = metered.run([sys.executable, "-m", "reconciler", *words], {"DATABASE_URL": ledger_url})
    holds(ran.output)
    assert ran.use.peak < usual + MAX_BYTES


def metadata(name: str) -> dict[str, Any]:
    """Return what a tenant that was created in 2020 is known by."""
    labels = {"pieced.ch/zitadel-org-id": "1"}
    return {"name": name, "uid": name, "creationTimestamp": "2020-01-01T00:00:00Z", "labels": labels}
