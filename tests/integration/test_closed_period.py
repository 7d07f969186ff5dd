"""A correction that changes a day which is invoiced already is written at its true time, and marked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from tests.support.api_state import tenant

if TYPE_CHECKING:
    from tests.support.system import System

CREATED = datetime(2026, 3, 10, 9, tzinfo=UTC)
CHANGED = datetime(2026, 4, 30, 23, 59, 59, tzinfo=UTC)
APRIL = ("2026-04-01", "2026-04-30")
MARCH = ("2026-03-01", "2026-03-31")
MAY = ("2026-05-01", "2026-05-31")


@pytest.mark.parametrize(
    ("org", "month", "status", "closed"),
    [
        *(("2871", APRIL, status, True) for status in ("open", "paid", "overdue", "uncollectible")),
        *(("2871", APRIL, status, False) for status in ("draft", "void")),
        ("2871", MAY, "open", True),
        ("2871", MARCH, "open", False),
        ("2872", APRIL, "open", False),
    ],
)
def test_a_correction_is_marked_where_it_changes_an_invoiced_day(
    system: System,
    org: str,
    month: tuple[str, str],
    status: str,
    closed: bool,  # noqa: FBT001 - of the table above
) -> None:
    """The last second of a month belongs to it, in UTC; what was turned on then is on in the next one, too."""
    system.api.create(tenant("acme", ["search"]), at=CREATED)
    system.record("acme", CREATED - system.now, search=CREATED - system.now)
    system.api.patch("acme", {"spec": {"packages": ["mail", "search"]}}, at=CHANGED)
    system.ledger.execute(
        "INSERT INTO invoices (invoice_number, zitadel_org_id, period_start, period_end, due_at, subtotal_chf, "
        "vat_rate, vat_amount_chf, total_chf, status, billing_snapshot, payment_method) "
        "VALUES ('2026-1', %s, %s, %s, '2026-07-01', 0, 8.10, 0, 0, %s, '{}', 'invoice')",
        [org, *month, status],
    )

    outcome = system.run()

    (finding,) = outcome.findings
    assert finding.moment
    assert (finding.subject, finding.moment.occurred_at, finding.closed_period) == ("mail", CHANGED, closed)
    written = system.ledger.execute("SELECT occurred_at, closed_period FROM reconciler.corrections").fetchall()
    assert written == [(CHANGED, closed)]
