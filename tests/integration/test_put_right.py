"""People put right how it was: what is recorded, what is taken back, and what later runs do about it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from reconciler.core.decisions import Lookup, NotPutRight
from reconciler.core.lifetimes import edited
from reconciler.core.model import Listing, Result
from reconciler.core.reasons import Reason
from reconciler.db import lifetimes
from reconciler.db.apply import Author
from reconciler.db.connection import brief_transaction
from reconciler.db.put_right import ClusterNeeded, record, retract
from reconciler.db.usage import statement
from tests.support.api_state import tenant
from tests.support.command import Ran, invoke
from tests.support.ledger_rows import all_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from reconciler.core.decisions import PutRight
    from reconciler.db.connection import Cursor
    from tests.conftest import Psql
    from tests.support.system import System

AUTHOR = Author("m.keller", "the customer showed the log")
FROM, UNTIL = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)


def may(day: float) -> datetime:
    return FROM + timedelta(days=day - 1)


class Ledger:
    """The ledger of acme, which exists since 1 April 2026: fee 31.00 a month, mail 1.00 a day."""

    def __init__(self, system: System, *, packages: tuple[str, ...] = ()) -> None:
        self.system = system
        self.execute = system.ledger.execute
        self.kubeconfig = ("--kubeconfig", system.kubeconfig)
        created = datetime(2026, 4, 1, tzinfo=UTC)
        self.execute("UPDATE platform_pricing SET tenant_monthly_fee_chf = 31")
        self.execute("INSERT INTO skill_pricing VALUES ('mail', 1)")
        self.execute("INSERT INTO tenant_billing_lifecycle VALUES ('acme', '2871', %s)", [created])
        self.show(*packages)

    def show(self, *packages: str) -> None:
        """Let the cluster show acme with these packages, changed last in May."""
        if self.system.api.names():
            self.system.api.patch("acme", {"spec": {"packages": [*packages]}}, at=may(1))
        else:
            self.system.api.create(tenant("acme", [*packages]), at=may(-29))

    def delete(self, day: float) -> None:
        """Let a deletion be asked for that nobody recorded, and let a run stamp it."""
        self.system.api.patch("acme", {"metadata": {"finalizers": ["backup"]}}, at=may(1))
        self.system.api.delete("acme", at=may(day))
        self.system.run()

    def says(self, day: float, kind: str, skill: str = "mail", tenant: str = "acme") -> int:
        """Write a row of the portal's."""
        ((number,),) = self.execute(
            "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at) "
            "VALUES (%s, '2871', %s, %s, %s) RETURNING id",
            [tenant, skill, kind, may(day)],
        ).fetchall()
        return int(number)

    def says_suspended(self, day: float, tenant: str = "acme") -> int:
        """Write a row of the portal's about the suspension."""
        ((number,),) = self.execute(
            "INSERT INTO tenant_suspension_events (tenant_name, zitadel_org_id, event_kind, occurred_at) "
            "VALUES (%s, '2871', 'suspended', %s) RETURNING id",
            [tenant, may(day)],
        ).fetchall()
        return int(number)

    def record(self, kind: str, since: float, until: float | None = None, skill: str | None = "mail") -> PutRight:
        with brief_transaction(self.system.url) as cursor:
            end = None if until is None else may(until)
            return record(cursor, "acme", skill, kind, since=may(since), until=end, author=AUTHOR)

    def retract(self, target: int | str, **options: Any) -> PutRight:
        with brief_transaction(self.system.url) as cursor:
            return retract(cursor, str(target), author=AUTHOR, **options)

    def source(self) -> str:
        """Return what the ledger belongs to."""
        ((identity,),) = self.execute("SELECT identity FROM reconciler.source").fetchall()
        return str(identity)

    def mail(self) -> int:
        """Return on how many days of May mail is billed."""
        return self._days("mail")

    def wiki(self) -> int:
        """Return on how many days of May wiki is billed."""
        return self._days("wiki")

    def fee(self) -> int:
        """Return on how many days of May the fee is billed."""
        return self._days(None)

    def _days(self, item: str | None) -> int:
        with brief_transaction(self.system.url) as cursor:
            billed = statement(cursor, FROM.date(), UNTIL.date())
        return sum(line.days for line in billed.lines if line.item == item)


@pytest.fixture
def acme(system: System) -> Ledger:
    return Ledger(system)


# --- record ------------------------------------------------------------------------------------------------------


def test_off_for_ten_days_changes_only_these(acme: Ledger) -> None:
    acme.says(-29, "enabled")
    acme.says(30, "disabled")
    acme.record("disabled", 10, 20)
    assert acme.mail() == 19


def test_without_an_end_it_holds_until_the_next_row(acme: Ledger) -> None:
    acme.says(10, "enabled")
    acme.says(12, "disabled")
    done = acme.record("enabled", 4)
    assert (done.until, acme.mail()) == (may(10), 8)


@pytest.mark.parametrize(
    ("since", "days"),
    [
        pytest.param(5, 5 + 10, id="before a decision - until it begins"),
        pytest.param(25, 10 + 2, id="after it - until the portal's row"),
        pytest.param(12, 10, id="inside it - until it ends"),
    ],
)
def test_without_an_end_it_leaves_what_was_decided_after_it(acme: Ledger, since: int, days: int) -> None:
    acme.says(27, "disabled")
    acme.record("enabled", 10, 20)
    acme.record("enabled", since)
    assert acme.mail() == days


def test_without_an_end_rows_taken_back_are_passed(acme: Ledger) -> None:
    taken_back = acme.record("enabled", 10, 20)
    acme.retract(taken_back.number or 0)
    acme.says(27, "disabled")
    acme.record("enabled", 5)
    assert acme.mail() == 22


def test_without_an_end_it_holds_until_the_lifetime_ends(acme: Ledger) -> None:
    acme.execute("UPDATE tenant_billing_lifecycle SET deleted_at = %s", [may(10)])
    done = acme.record("enabled", 4)
    assert (done.until, acme.mail()) == (may(10), 6)


def test_a_suspension_that_nobody_recorded_is_not_charged(acme: Ledger) -> None:
    acme.record("suspended", 11, 21, skill=None)
    assert acme.fee() == 21


def test_a_decision_has_one_number_an_author_and_a_reason(acme: Ledger) -> None:
    done = acme.record("enabled", 10, 20)
    rows = acme.execute(
        "SELECT number, run_id, reason, evidence, by, note, role = current_user, observed, occurred_at, not_before, "
        "not_after, impact_chf FROM reconciler.corrections ORDER BY id"
    ).fetchall()
    said = (done.number, None, "recorded", "decided", AUTHOR.by, AUTHOR.note, True)
    assert rows == [
        (*said, "enabled", may(10), may(10), may(20), Decimal("10.00")),
        (*said, "disabled", may(20), may(10), may(20), None),
    ]


def test_it_says_what_changes_by_month_and_organisation(acme: Ledger) -> None:
    done = acme.record("enabled", 30, 33)
    assert [(line.month.month, line.org, line.days_after, line.difference_chf) for line in done.changes] == [
        (5, "2871", 2, Decimal("2.00")),
        (6, "2871", 1, Decimal("1.00")),
    ]


def test_a_dry_run_shows_the_same_and_writes_nothing(acme: Ledger) -> None:
    before = all_rows(acme.system.url)
    with brief_transaction(acme.system.url) as cursor:
        shown = record(cursor, "acme", "mail", "enabled", since=may(10), until=may(20), author=AUTHOR, dry_run=True)
    assert all_rows(acme.system.url) == before
    done = acme.record("enabled", 10, 20)
    assert (shown.number, shown.changes, shown.difference_chf) == (None, done.changes, Decimal("10.00"))


@pytest.mark.parametrize(
    ("since", "until", "said"),
    [
        pytest.param(-40, -35, "did not exist", id="before the lifetime - refused"),
        pytest.param(5, 700, "what comes after that is not known", id="until after now - refused"),
        pytest.param(700, None, "what comes after that is not known", id="from after now - refused"),
        pytest.param(5, 5, "is not after --from", id="no time at all - refused"),
        pytest.param(5, 3, "is not after --from", id="backwards - refused"),
    ],
)
def test_what_cannot_have_been_is_refused(acme: Ledger, since: float, until: float | None, said: str) -> None:
    with pytest.raises(NotPutRight, match=said):
        acme.record("enabled", since, until)
    assert acme.execute("SELECT FROM reconciler.corrections").fetchall() == []


def test_a_time_in_two_lifetimes_is_refused(acme: Ledger) -> None:
    acme.execute(
        "INSERT INTO reconciler.closed_lives VALUES ('acme', '2871', %s, %s, now(), 'me', 'why')", [may(-90), may(-60)]
    )
    with pytest.raises(NotPutRight, match="inside one lifetime"):
        acme.record("enabled", -70, 3)


# --- later rows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("day", [pytest.param(10, id="at its beginning"), pytest.param(15, id="inside")])
def test_a_row_that_comes_later_inside_does_not_overrule_it(acme: Ledger, day: int) -> None:
    acme.show("mail")
    acme.says(1, "enabled")
    acme.record("disabled", 10, 20)
    acme.says(day, "enabled")
    assert acme.system.run().result is Result.CORRECTED
    assert acme.mail() == 21
    assert acme.system.run().result is Result.CLEAN


def test_a_row_that_upholds_a_decision_has_its_number(acme: Ledger) -> None:
    acme.show("mail")
    acme.says(1, "enabled")
    done = acme.record("disabled", 10, 20)
    acme.says(15, "enabled")
    ran = acme.system.run()
    assert acme.execute(
        "SELECT number, run_id, reason, by FROM reconciler.corrections WHERE run_id IS NOT NULL"
    ).fetchall() == [(done.number, ran.run_id, "recorded", None)]


def test_a_late_row_before_a_decision_leaves_the_decided_days(acme: Ledger) -> None:
    acme.show("mail")
    acme.says(1, "enabled")
    acme.record("enabled", 5, 15)
    acme.says(3, "disabled")
    acme.system.run()
    assert acme.mail() == 29


def test_ten_runs_after_a_decision_change_nothing(acme: Ledger) -> None:
    acme.show("mail")
    acme.says(1, "enabled")
    acme.record("disabled", 10, 20)
    acme.record("suspended", 3, 9, skill=None)
    acme.retract(acme.record("enabled", 12, 14).number or 0)
    before = all_rows(acme.system.url, ("public",))
    for _ in range(10):
        assert acme.system.run().result is Result.CLEAN
    assert all_rows(acme.system.url, ("public",)) == before


# --- retract -----------------------------------------------------------------------------------------------------


def test_a_guess_that_is_taken_back_leaves_the_portals_days(acme: Ledger) -> None:
    guess = acme.says(10, "enabled")
    acme.says(3, "enabled")
    acme.retract(f"skill:{guess}")
    assert acme.mail() == 29


def test_what_is_taken_back_takes_its_decisions_end_with_it(acme: Ledger) -> None:
    wrong = acme.says(1, "enabled")
    acme.record("disabled", 10, 12)
    acme.says(22, "disabled")
    acme.retract(f"skill:{wrong}")
    assert acme.mail() == 0


def test_a_decision_that_is_taken_back_was_never_made(acme: Ledger) -> None:
    acme.says(1, "enabled")
    acme.says(25, "disabled")
    done = acme.record("disabled", 10, 20)
    acme.retract(done.number or 0)
    assert acme.mail() == 24


def test_each_is_taken_back_once(acme: Ledger) -> None:
    row = acme.says(10, "enabled")
    acme.says(20, "disabled")
    number = acme.retract(f"skill:{row}").number
    with pytest.raises(NotPutRight, match=f"taken back already, by number {number}"):
        acme.retract(f"skill:{row}")
    with pytest.raises(NotPutRight, match="took a row back itself"):
        acme.retract(number or 0)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        pytest.param("999999", "no correction and no decision", id="unknown number - refused"),
        pytest.param("skill:999999", "no row skill:999999", id="unknown row - refused"),
        pytest.param("mail", "names nothing", id="no number - refused"),
        pytest.param("invoice:1", "names nothing", id="another table - refused"),
        pytest.param("9" * 40, "names nothing", id="too many digits - refused"),
    ],
)
def test_what_is_not_there_cannot_be_taken_back(acme: Ledger, target: str, said: str) -> None:
    with pytest.raises(NotPutRight, match=said):
        acme.retract(target)


def test_the_latest_state_needs_a_look_at_the_cluster(acme: Ledger) -> None:
    row = acme.says(10, "enabled")
    with pytest.raises(ClusterNeeded) as caught:
        acme.retract(f"skill:{row}")
    assert caught.value.tenant == "acme"


def test_a_tenant_of_which_all_rows_are_taken_back_is_not_reported(acme: Ledger) -> None:
    rows = [acme.says(1, "enabled", tenant="ghost"), acme.says(5, "disabled", tenant="ghost")]
    suspended = acme.says_suspended(3, tenant="ghost")
    reported = [("ghost", Reason.EVENTS_WITHOUT_TENANT)]
    assert [(each.tenant, each.reason) for each in acme.system.run().findings] == reported
    for target in (f"skill:{rows[0]}", f"skill:{rows[1]}"):
        acme.retract(target)
    assert [(each.tenant, each.reason) for each in acme.system.run().findings] == reported
    acme.retract(f"suspension:{suspended}", lookup=Lookup("ghost", Listing(acme.source()), None))
    assert [acme.system.run().result for _ in range(2)] == [Result.CLEAN] * 2
    assert acme.execute("SELECT reason FROM reconciler.reports").fetchall() == []


def test_a_row_in_the_future_is_left_out_everywhere(acme: Ledger) -> None:
    acme.show("mail")
    acme.says(1, "enabled")
    row = acme.says(5_000, "disabled")
    assert acme.system.run().result is Result.DRIFT
    assert [(one.event_kind, one.takes_back) for one in acme.retract(f"skill:{row}").appended] == [(None, row)]
    assert acme.system.run().result is Result.CLEAN
    assert acme.execute("SELECT reason FROM reconciler.reports").fetchall() == []


@pytest.mark.parametrize(
    ("kind", "skill", "target", "billed"),
    [
        pytest.param("disabled", "mail", "skill:{}", (28, 31), id="of a skill"),
        pytest.param("suspended", None, "suspension:{}", (31, 28), id="of the suspension"),
    ],
)
def test_a_row_left_out_stays_so_when_its_time_comes(
    acme: Ledger, kind: str, skill: str | None, target: str, billed: tuple[int, int]
) -> None:
    acme.show("mail")
    acme.says(1, "enabled")
    row = acme.says(27_000, "disabled") if skill else acme.says_suspended(27_000)
    acme.retract(target.format(row))
    acme.execute("UPDATE tenant_skill_events SET occurred_at = %s WHERE occurred_at > now()", [may(20)])
    acme.execute("UPDATE tenant_suspension_events SET occurred_at = %s WHERE occurred_at > now()", [may(20)])
    assert acme.system.run().result is Result.CLEAN
    acme.record(kind, 24, 27, skill)
    assert acme.system.run().result is Result.CLEAN
    assert (acme.mail(), acme.fee()) == billed


# --- the commands ------------------------------------------------------------------------------------------------


@pytest.fixture
def command(acme: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def run(*arguments: str) -> Ran:
        return invoke(monkeypatch, capsys, *arguments, environment={"DATABASE_URL": acme.system.url})

    return run


def test_record_prints_its_rows_and_what_they_are_worth(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.says(1, "enabled")
    acme.says(31, "disabled")
    given = ["--from", "2026-05-10", "--to", "2026-05-20", "--by", "m.keller", "--note", "the log says so"]
    ran = command("record", "acme", "off", "mail", *given)
    assert ran.code == 0
    assert "the skill mail of acme was disabled from 2026-05-10 00:00:00 to 2026-05-20 00:00:00 UTC" in ran.out
    assert (
        "Together CHF -10.00 before VAT, at today's prices, in closed months at theirs: it is owed to the customer."
        in ran.out
    )
    assert acme.mail() == 20


def test_record_as_json_has_numbers_rows_and_lines(command: Callable[..., Ran]) -> None:
    ran = command(
        *("record", "acme", "suspended", "--from", "2026-05-11", "--to", "2026-05-21", "--note", "why", "--by", "me"),
        *("--output", "json", "--dry-run"),
    )
    shown = ran.document
    assert (shown["number"], shown["state"], shown["impact_chf"]) == (None, "suspended", "-10.00")
    assert [row["event_kind"] for row in shown["rows"]] == ["suspended", "resumed"]
    assert shown["lines"][0]["month"] == "2026-05-01"


def test_retract_takes_back_what_the_cluster_confirms(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.system.run()
    row = acme.says(10, "enabled")
    ran = command("retract", f"skill:{row}", "--note", "another tenant's row", "--by", "me", *acme.kubeconfig)
    assert (ran.code, acme.mail()) == (0, 0)
    assert acme.system.run().result is Result.CLEAN


def test_retract_against_the_cluster_is_refused(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.show("mail")
    row = acme.says(10, "enabled")
    acme.system.run()
    ran = command("retract", f"skill:{row}", "--note", "why", "--by", "me", *acme.kubeconfig)
    assert (ran.code, acme.mail()) == (3, 22)
    assert "the cluster shows it enabled" in ran.err


def test_retract_of_another_tenant_of_the_name_is_refused(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.system.run()
    row = acme.says(10, "enabled")
    acme.system.api.delete("acme", at=may(3))
    acme.show()
    ran = command("retract", f"skill:{row}", "--note", "why", "--by", "me", *acme.kubeconfig)
    assert ran.code == 3
    assert "it was recreated" in ran.err


def test_explain_names_the_number_and_who_decided(acme: Ledger, command: Callable[..., Ran]) -> None:
    done = acme.record("enabled", 10, 20)
    shown = command("explain", "acme").out
    assert f"`reconciler retract {done.number}` takes it back" in shown
    assert "m.keller" in shown
    assert "the customer showed the log" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["on"], id="on without a skill"),
        pytest.param(["suspended", "mail"], id="suspended with a skill"),
    ],
)
def test_a_state_without_its_skill_is_wrong_usage(command: Callable[..., Ran], arguments: list[str]) -> None:
    assert command("record", "acme", *arguments, "--from", "2026-05-10", "--note", "why").code == 64


# --- any history -------------------------------------------------------------------------------------------------

DAYS = st.integers(1, 28)
ROWS = st.lists(st.tuples(DAYS, st.sampled_from(["enabled", "disabled"])), max_size=5)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, ROWS, st.sampled_from(["enabled", "disabled"]), DAYS, st.integers(1, 9))
def test_a_decision_holds_whatever_rows_there_are_and_come(
    acme: Ledger,
    before: list[tuple[int, str]],
    after: list[tuple[int, str]],
    kind: str,
    since: int,
    length: int,
) -> None:
    acme.execute("TRUNCATE tenant_skill_events, reconciler.corrections, reconciler.reports")
    acme.says(38, "disabled")
    for day, says in before:
        acme.says(day, says)
    held = days_on(acme)
    done = acme.record(kind, since, since + length)
    inside = set(range(since, since + length))
    assert days_on(acme) == (held | inside if kind == "enabled" else held - inside)
    for day, says in after:
        acme.says(day, says)
    acme.retract(done.number or 0)
    with_late_rows = days_on(acme)
    acme.execute("TRUNCATE tenant_skill_events, reconciler.corrections")
    acme.says(38, "disabled")
    for day, says in (*before, *after):
        acme.says(day, says)
    assert with_late_rows == days_on(acme)


def days_on(acme: Ledger) -> set[int]:
    """Return the days of May (and of June, from 32 on) on which mail is billed."""
    with brief_transaction(acme.system.url) as cursor:
        return _days_within(cursor, 1, 40)


def _days_within(cursor: Cursor, first: int, end: int) -> set[int]:
    """Ask for a whole period at once, and for its halves only where some of its days are billed and some are not."""
    lines = statement(cursor, may(first).date(), may(end).date()).lines
    billed = sum(line.days for line in lines if line.item == "mail")
    if billed == 0:
        return set()
    if billed == end - first:
        return set(range(first, end))
    middle = (first + end) // 2
    return _days_within(cursor, first, middle) | _days_within(cursor, middle, end)


# --- payers ------------------------------------------------------------------------------------------------------

OTHER = "2872"


def paid(acme: Ledger) -> dict[str, tuple[int, Decimal]]:
    """Return the days and CHF of the fee that each organisation owes for May."""
    with brief_transaction(acme.system.url) as cursor:
        billed = statement(cursor, FROM.date(), UNTIL.date())
    return {line.org: (line.days, line.amount_chf) for line in billed.lines if line.item is None}


def test_who_pays_from_the_middle_of_a_month_divides_it(acme: Ledger, command: Callable[..., Ran]) -> None:
    ran = command("record", "acme", "payer", OTHER, "--from", "2026-05-15", "--note", "sold", "--by", "m.keller")
    assert (ran.code, paid(acme)) == (0, {"2871": (14, Decimal("14.00")), OTHER: (17, Decimal("17.00"))})
    assert "acme was paid for by 2872 from 2026-05-15 00:00:00 on,\nby m.keller: sold" in ran.out
    assert "Together CHF +0.00 before VAT" in ran.out


def test_a_later_payer_of_the_same_days_replaces_an_earlier_one(acme: Ledger, command: Callable[..., Ran]) -> None:
    command("record", "acme", "payer", OTHER, "--from", "2026-05-01", "--note", "why", "--by", "me")
    command(
        "record", "acme", "payer", "2873", "--from", "2026-05-11", "--to", "2026-05-21", "--note", "y", "--by", "me"
    )
    assert {org: days for org, (days, _) in paid(acme).items()} == {OTHER: 21, "2873": 10}


def test_a_dry_run_of_a_payer_shows_the_lines_that_follow(acme: Ledger, command: Callable[..., Ran]) -> None:
    days = ["--from", "2026-05-15", "--to", "2026-06-01", "--note", "why", "--by", "me", "--output", "json"]
    acme.says(1, "enabled")
    acme.says(31, "disabled")
    shown = command("record", "acme", "payer", OTHER, *days, "--dry-run").document
    assert paid(acme) == {"2871": (31, Decimal("31.00"))}
    assert command("record", "acme", "payer", OTHER, *days).document["lines"] == shown["lines"]
    assert [(line["org"], line["item"], line["days_after"]) for line in shown["lines"]] == [
        ("2871", None, 14),
        ("2871", "mail", 14),
        (OTHER, None, 17),
        (OTHER, "mail", 16),
    ]


@pytest.mark.usefixtures("acme")
def test_explain_shows_who_pays_and_who_decided_it(command: Callable[..., Ran]) -> None:
    command("record", "acme", "payer", OTHER, "--from", "2026-05-15", "--note", "sold", "--by", "m.keller")
    shown = command("explain", "acme").out
    assert "payer: 2871 → 2872" in shown
    assert "by m.keller" in shown
    assert "taken back" not in shown


@pytest.mark.parametrize(
    ("days", "code"),
    [
        pytest.param(["--from", "2026-05-15T10:00Z"], 64, id="part of a day - wrong usage"),
        pytest.param(["--from", "2026-03-15"], 3, id="before the lifetime - refused"),
        pytest.param(["--from", "2028-03-15"], 3, id="after today - refused"),
        pytest.param(["--from", "2026-05-15", "--to", "2026-05-15"], 3, id="no day at all - refused"),
    ],
)
def test_days_that_cannot_be_paid_are_refused(command: Callable[..., Ran], days: list[str], code: int) -> None:
    assert command("record", "acme", "payer", OTHER, *days, "--note", "why", "--by", "me").code == code


def test_a_payer_ends_with_its_lifetime(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.system.run()
    command("record", "acme", "payer", OTHER, "--from", "2026-05-15", "--note", "sold", "--by", "me")
    acme.execute("UPDATE tenant_billing_lifecycle SET deleted_at = %s WHERE tenant_name = 'acme'", [may(20)])
    acme.system.api.delete("acme", at=may(20))
    acme.system.api.create(tenant("acme"), at=may(25))
    acme.system.run()
    assert command("reopen", "acme", "--note", "back", "--by", "me", *acme.kubeconfig).code == 0
    assert {org: days for org, (days, _) in paid(acme).items()} == {"2871": 14 + 7, OTHER: 5}


def test_whoever_pays_for_both_lifetimes_is_named_once(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.system.run()
    command("record", "acme", "payer", OTHER, "--from", "2026-05-15", "--note", "sold", "--by", "me")
    acme.system.api.delete("acme", at=may(20))
    acme.system.api.create(tenant("acme", org=OTHER), at=may(25))
    again = ("--ended", "2026-05-20T00:00Z", "--note", "back", "--by", "me", *acme.kubeconfig)
    assert command("reopen", "acme", *again).code == 0
    assert command("explain", "acme").out.count("paid for by") == 1
    assert {org: days for org, (days, _) in paid(acme).items()} == {"2871": 14, OTHER: 5 + 7}


# --- lifetimes ---------------------------------------------------------------------------------------------------


def life(acme: Ledger, command: Callable[..., Ran], state: str, *arguments: str) -> Ran:
    return command("record", "acme", state, *arguments, "--note", "why", "--by", "me", *acme.kubeconfig)


def test_a_wrong_deletion_takes_its_closing_rows_with_it(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.show("mail")
    acme.says(1, "enabled")
    acme.delete(13)
    assert (acme.mail(), acme.fee()) == (12, 12)
    assert life(acme, command, "alive", "--from", "2026-05-13", "--to", "2026-05-31").code == 0
    assert (acme.mail(), acme.fee()) == (30, 30)


def test_an_earlier_end_closes_the_skills_there(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.show("mail")
    acme.says(1, "enabled")
    acme.delete(20)
    assert life(acme, command, "gone", "--from", "2026-05-10").code == 0
    assert (acme.mail(), acme.fee()) == (9, 9)
    assert life(acme, command, "alive", "--from", "2026-05-15", "--to", "2026-05-30").code == 0
    assert acme.fee() == 24


@pytest.mark.parametrize(
    "decided",
    [
        pytest.param((), id="its lifetime is longer - refused"),
        pytest.param(("payer", OTHER, "--from", "2026-04-15"), id="another one was decided - refused"),
    ],
)
def test_an_organisation_that_would_not_pay_is_refused(
    acme: Ledger, command: Callable[..., Ran], decided: tuple[str, ...]
) -> None:
    apart = "2026-06-10" if decided else "2026-05-31"
    if decided:
        assert life(acme, command, *decided).code == 0
    acme.delete(31)
    said = ("alive", "--from", apart, "--to", "2026-06-20")
    refused = life(acme, command, *said, "--org", "3000")
    assert (refused.code, refused.complaint["error"]) == (
        3,
        f"{OTHER if decided else '2871'} pays for that time, and not 3000.",
    )
    assert life(acme, command, *said).code == 0


def test_nobody_stamps_a_row_while_its_lifetime_is_decided(
    acme: Ledger, command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[type[Exception]] = []

    def stamp(*arguments: Any) -> Any:
        acme.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable) as caught:
            acme.execute("UPDATE tenant_billing_lifecycle SET deleted_at = %s", [may(29)])
        held.append(caught.type)
        return edited(*arguments)

    monkeypatch.setattr(lifetimes, "edited", stamp)
    assert life(acme, command, "alive", "--from", "2026-03-10").code == 0
    assert held == [psycopg.errors.LockNotAvailable]


def test_what_an_end_closes_is_named_by_its_skill(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.show("mail", "wiki")
    acme.says(1, "enabled")
    acme.says(1, "enabled", "wiki")
    said = ("gone", "--from", "2026-05-10", "--to", "2026-05-20", "--dry-run")
    assert re.findall(r"05-10 00:00:00  (\S+) +disabled", life(acme, command, *said).out) == ["mail", "wiki"]
    rows = life(acme, command, *said, "--output", "json").document["rows"]
    assert [row["subject"] for row in rows] == ["mail", "mail", "wiki", "wiki"]


def test_gone_inside_a_lifetime_splits_it_and_changes_nothing_else(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.show("mail")
    acme.says(1, "enabled")
    assert life(acme, command, "gone", "--from", "2026-05-10", "--to", "2026-05-20").code == 0
    assert (acme.mail(), acme.fee()) == (21, 21)
    acme.system.run()
    before = all_rows(acme.system.url, ("public",))
    for _ in range(3):
        acme.system.run()
    assert (all_rows(acme.system.url, ("public",)), acme.mail()) == (before, 21)


def test_two_lifetimes_that_nobody_recorded_are_both_reached(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.execute("DELETE FROM tenant_billing_lifecycle")
    acme.system.api.delete("acme", at=may(31))
    assert life(acme, command, "alive", "--from", "2026-05-01", "--to", "2026-05-11", "--org", "2871").code == 0
    assert life(acme, command, "alive", "--from", "2026-05-20", "--to", "2026-06-01").code == 0
    assert acme.fee() == 10 + 12


def test_a_first_lifetime_without_an_organisation_is_refused(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.execute("DELETE FROM tenant_billing_lifecycle")
    assert life(acme, command, "alive", "--from", "2026-05-01", "--to", "2026-05-11").code == 3


@pytest.mark.parametrize(
    ("state", "said"),
    [
        pytest.param("gone", "the cluster shows it alive", id="gone now, and it lives - refused"),
    ],
)
def test_the_cluster_is_right_about_now(acme: Ledger, command: Callable[..., Ran], state: str, said: str) -> None:
    acme.system.run()
    ran = life(acme, command, state, "--from", "2026-05-10")
    assert (ran.code, acme.fee()) == (3, 31)
    assert said in ran.err


def test_alive_now_while_the_cluster_shows_it_gone_is_refused(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.delete(13)
    ran = life(acme, command, "alive", "--from", "2026-05-13")
    assert (ran.code, acme.fee()) == (3, 12)
    assert "the cluster shows it gone" in ran.err


def test_a_start_that_a_person_decided_is_not_reported(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.execute("UPDATE tenant_billing_lifecycle SET created_at = %s", [may(10)])
    assert [each.reason for each in acme.system.run().findings] == ["creation_misrecorded"]
    assert life(acme, command, "alive", "--from", "2026-04-20").code == 0
    assert acme.system.run().result is Result.CLEAN
    assert acme.fee() == 31


def test_a_recreated_tenant_is_reported_whatever_was_decided_before(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.execute("UPDATE tenant_billing_lifecycle SET created_at = %s", [may(10)])
    acme.system.run()
    life(acme, command, "alive", "--from", "2026-04-20")
    acme.system.api.delete("acme", at=may(29))
    acme.system.api.create(tenant("acme"), at=may(30))
    assert "tenant_recreated" in [each.reason for each in acme.system.run().findings]


@pytest.mark.usefixtures("lost_log")
def test_a_lifetime_besides_the_row_does_not_decide_whose_the_row_is(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.system.run()
    acme.system.api.delete("acme", at=may(10))
    acme.system.api.create(tenant("acme"), at=may(20))
    assert "tenant_recreated" in [each.reason for each in acme.system.run().findings]
    assert life(acme, command, "alive", "--from", "2026-03-01", "--to", "2026-03-11").code == 0
    assert "tenant_recreated" in [each.reason for each in acme.system.run().findings]


def test_a_split_at_a_recreation_decides_whose_the_row_is(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.system.run()
    acme.system.api.delete("acme", at=may(10))
    acme.system.api.create(tenant("acme"), at=may(20))
    acme.system.run()
    assert life(acme, command, "gone", "--from", "2026-05-10", "--to", "2026-05-20").code == 0
    assert acme.system.run().result is Result.CLEAN
    assert acme.fee() == 21


def test_what_a_person_said_of_a_skill_stays_where_an_end_moves(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.says(1, "enabled")
    acme.record("disabled", 10, 20)
    acme.delete(31)
    assert life(acme, command, "gone", "--from", "2026-05-10").code == 0
    assert life(acme, command, "alive", "--from", "2026-05-10", "--to", "2026-05-31").code == 0
    assert acme.mail() == 20


def test_a_gap_that_shrinks_closes_skills_in_what_is_left(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.show("mail")
    acme.says(1, "enabled")
    acme.system.run()
    assert life(acme, command, "gone", "--from", "2026-05-10", "--to", "2026-05-20").code == 0
    assert life(acme, command, "alive", "--from", "2026-05-15", "--to", "2026-05-20").code == 0
    assert (acme.fee(), acme.mail()) == (26, 26)
    acme.says(16, "disabled")
    acme.says(17, "enabled")
    acme.says(18, "disabled")
    acme.says(25, "enabled")
    acme.system.run()
    assert acme.mail() == 9 + 1 + 1 + 7
    acme.system.run()
    assert acme.execute("SELECT reason, recorded, observed FROM reconciler.reports").fetchall() == []


def test_a_lifetime_that_was_never_stands_in_no_others_way(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.delete(5)
    assert life(acme, command, "gone", "--from", "2026-03-01").code == 0
    given = ["--from", "2026-03-20", "--to", "2026-04-11", "--org", OTHER]
    assert life(acme, command, "alive", *given).code == 0
    lived = acme.execute("SELECT zitadel_org_id, created_at, deleted_at FROM tenant_billing_lifecycle").fetchall()
    assert lived == [(OTHER, may(-41), may(-19))]


@pytest.fixture
def returned(acme: Ledger, command: Callable[..., Ran]) -> Ledger:
    """Deleted on 10 May and recreated on the 20th, with mail and no more with wiki; both lifetimes are recorded."""
    acme.show("mail", "wiki")
    acme.says(1, "enabled")
    acme.says(1, "enabled", "wiki")
    acme.delete(10)
    acme.system.api.finalize("acme")
    acme.system.api.create(tenant("acme", ["mail"]), at=may(20))
    acme.system.run()
    assert command("reopen", "acme", "--note", "why", *acme.kubeconfig).code == 0
    acme.system.run()
    assert (acme.mail(), acme.wiki(), acme.fee()) == (9 + 12, 9, 9 + 12)
    return acme


@pytest.mark.parametrize(
    ("said", "billed"),
    [
        pytest.param(("alive", "--from", "2026-05-10", "--to", "2026-05-20"), (31, 19, 31), id="it lived on"),
        pytest.param(("alive", "--from", "2026-05-10", "--to", "2026-05-25"), (31, 19, 31), id="said of more"),
        pytest.param(("gone", "--from", "2026-05-05"), (4 + 12, 4, 4 + 12), id="it ended earlier"),
        pytest.param(("gone", "--from", "2026-04-01"), (12, 0, 12), id="it was never there before"),
        pytest.param(
            ("alive", "--from", "2026-05-10", "--to", "2026-05-15"), (14 + 12, 14, 14 + 12), id="it ended later"
        ),
    ],
)
def test_a_skill_stays_off_in_the_lifetime_after_a_moved_end(
    returned: Ledger, command: Callable[..., Ran], said: tuple[str, ...], billed: tuple[int, int, int]
) -> None:
    assert life(returned, command, *said).code == 0
    assert (returned.mail(), returned.wiki(), returned.fee()) == billed
    assert life(returned, command, "gone", "--from", "2026-06-10", "--to", "2026-06-12").code == 0
    assert {returned.system.run().result for _ in range(2)} <= {Result.CLEAN, Result.DRIFT}
    assert (returned.mail(), returned.wiki(), returned.fee()) == billed


def test_a_tenant_that_was_recreated_at_once_keeps_its_skills(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.says(1, "enabled")
    acme.says(1, "enabled", "wiki")
    acme.system.api.delete("acme", at=may(10))
    acme.system.api.create(tenant("acme", ["mail"]), at=may(10) + timedelta(hours=10))
    acme.system.run()
    assert command("reopen", "acme", "--ended", "2026-05-10T10:00Z", "--note", "why", *acme.kubeconfig).code == 0
    assert (acme.mail(), acme.wiki(), acme.fee()) == (31, 10, 31)
    assert acme.system.run().result is Result.CLEAN


def test_a_tenant_whose_start_was_decided_is_open_already(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.system.run()
    assert life(acme, command, "alive", "--from", "2026-03-20").code == 0
    ran = command("reopen", "acme", "--note", "why", *acme.kubeconfig)
    assert (ran.code, ran.complaint["error"]) == (
        3,
        "acme is open already: it is billed from 2026-03-20 00:00:00 UTC on.",
    )


@pytest.fixture
def restored(acme: Ledger, command: Callable[..., Ran]) -> Ledger:
    """Deleted and stamped on 13 May, restored at once, and a person said that it lived on."""
    acme.show("mail")
    acme.says(1, "enabled")
    acme.delete(13)
    acme.system.api.finalize("acme")
    acme.system.api.create(tenant("acme", ["mail", "wiki"], finalizers=["backup"]), at=may(13) + timedelta(minutes=15))
    assert [each.reason for each in acme.system.run().findings] == ["tenant_recreated"]
    assert life(acme, command, "alive", "--from", "2026-05-13").code == 0
    return acme


def test_a_restored_tenant_that_lived_on_is_one_tenant(restored: Ledger) -> None:
    (appended,) = restored.system.run().findings
    assert (appended.subject, appended.observed) == ("wiki", "enabled")
    assert appended.moment
    assert appended.moment.occurred_at == may(13) + timedelta(minutes=15)
    assert [restored.system.run().result for _ in range(3)] == [Result.CLEAN] * 3
    assert (restored.mail(), restored.fee()) == (31, 31)


def test_the_deletion_before_a_restoration_is_not_stamped_again(restored: Ledger) -> None:
    """The change log has shown it minutes ago, so that its change is still kept."""
    restored.execute(
        "INSERT INTO reconciler.changes (source, uid, tenant_name, resource_version, kind, not_before, not_after, at, "
        "created_at) SELECT source, uid, 'acme', '2', 'deleted', %(at)s, %(at)s, %(at)s, created_at "
        "FROM reconciler.tenants WHERE gone_at IS NOT NULL",
        {"at": may(13)},
    )
    restored.system.run()
    assert restored.execute("SELECT deleted_at FROM tenant_billing_lifecycle").fetchall() == [(None,)]


def test_later_changes_of_a_restored_tenant_wait_for_the_portal(restored: Ledger) -> None:
    restored.system.run()
    restored.system.api.patch("acme", {"spec": {"packages": ["wiki"]}})
    assert [(each.action, each.subject) for each in restored.system.run().findings] == [("defer", "mail")]
    restored.says((restored.system.now - FROM) / timedelta(days=1) + 1, "disabled")
    assert restored.system.run().result is Result.CLEAN


def test_a_lifetime_leaves_one_number_with_its_proof(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.says(1, "enabled")
    life(acme, command, "gone", "--from", "2026-05-10", "--to", "2026-05-20")
    numbers = acme.execute("SELECT DISTINCT number FROM reconciler.corrections WHERE by = 'me'").fetchall()
    assert len(numbers) == 1
    shown = command("explain", "acme").out
    assert shown.count("decided   by me") == 3
    assert "unknown hand" not in shown
    assert "lifetime: 2026-04-01 00:00:00 to now" in shown
    assert "tenant  deleted   ◆" in shown
    assert "retract" not in shown
    with pytest.raises(NotPutRight, match="is about a lifetime or who pays"):
        acme.retract(numbers[0][0])


# --- who may, and what must not stop a run -----------------------------------------------------------------------


@pytest.fixture
def login(acme: Ledger, psql: Psql) -> Iterator[Callable[[str], str]]:
    """Returns the ledger's address for a new login with one of the two roles, `run` or `decide`."""
    names = {role: f"{role}_{uuid4().hex}" for role in ("run", "decide")}
    psql(acme.system.url, "roles.sql", role=names["run"], decider=names["decide"])
    for name in names.values():
        acme.execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD 'plain'").format(sql.Identifier(name)))

    def address(role: str) -> str:
        parts = urlsplit(acme.system.url)
        return parts._replace(netloc=f"{names[role]}:plain@{parts.netloc.rpartition('@')[2]}").geturl()

    yield address
    for name in names.values():
        acme.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


EVENING = [
    pytest.param(("record", "acme", "off", "mail", "--from", "2026-05-10", "--to", "2026-05-20"), id="record off"),
    pytest.param(("record", "acme", "suspended", "--from", "2026-05-10", "--to", "2026-05-20"), id="record suspended"),
    pytest.param(("record", "acme", "payer", "2872", "--from", "2026-05-10"), id="record payer"),
    pytest.param(("record", "acme", "gone", "--from", "2026-05-10", "--to", "2026-05-20"), id="record gone"),
    pytest.param(("record", "acme", "alive", "--from", "2026-03-10"), id="record alive"),
    pytest.param(("retract", "skill:1"), id="retract"),
]


@pytest.mark.parametrize("arguments", EVENING)
def test_each_decision_works_with_its_own_role_alone(
    acme: Ledger,
    login: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    acme.execute("ALTER SEQUENCE tenant_skill_events_id_seq RESTART WITH 1")
    acme.says(1, "enabled")
    acme.says(30, "disabled")
    acme.system.run()
    before = all_rows(acme.system.url)

    def decide(role: str) -> Ran:
        said = [*arguments, "--note", "why", "--by", "me", *acme.kubeconfig]
        return invoke(monkeypatch, capsys, *said, environment={"DATABASE_URL": login(role)})

    denied = decide("run")
    assert (denied.code, all_rows(acme.system.url)) == (1, before)
    assert "The role of the runs may not decide" in denied.complaint["error"]
    assert decide("decide").code == 0


def test_reopening_with_another_payer_needs_the_role_for_decisions_alone(
    acme: Ledger, login: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    acme.show("mail")
    acme.says(1, "enabled")
    acme.system.run()
    said = ("record", "acme", "payer", OTHER, "--from", "2026-05-10", "--note", "sold", "--by", "me")
    acme.system.api.delete("acme", at=may(20))
    acme.system.api.create(tenant("acme", ["mail"]), at=may(25))
    again = ("reopen", "acme", "--ended", "2026-05-20T00:00Z", "--note", "back", "--by", "me", *acme.kubeconfig)
    for arguments in (said, again):
        ran = invoke(monkeypatch, capsys, *arguments, environment={"DATABASE_URL": login("decide")})
        assert ran.code == 0, ran.err
    assert {org: days for org, (days, _) in paid(acme).items()} == {"2871": 9 + 7, OTHER: 10}
    assert acme.mail() == 19 + 7


def test_a_name_that_nobody_knows_was_not_gone(command: Callable[..., Ran], acme: Ledger) -> None:
    ran = command("record", "acne", "gone", "--from", "2026-05-10", "--note", "why", "--by", "me")
    assert (ran.code, acme.fee()) == (3, 31)
    assert "Did you mean acme?" in ran.complaint["remedy"]


def test_a_row_left_out_was_undone_by_no_unknown_hand(acme: Ledger, command: Callable[..., Ran]) -> None:
    row = acme.says(5_000, "enabled")
    acme.retract(f"skill:{row}")
    assert "unknown hand" not in command("explain", "acme").out
    assert "taken back" not in command("status").out.lower()


def test_a_decision_taken_out_by_hand_stops_no_run(acme: Ledger) -> None:
    acme.record("enabled", 10, 20)
    acme.retract(acme.record("disabled", 12, 14).number or 0)
    acme.execute("DELETE FROM tenant_skill_events")
    acme.system.api.create(tenant("other"), at=may(1))
    ran = acme.system.run()
    assert (ran.failure, [each.tenant for each in ran.findings]) == (None, ["other"])
    assert acme.mail() == 0


def test_what_an_unknown_hand_undid_is_not_taken_back_again(acme: Ledger) -> None:
    number = acme.record("enabled", 10, 20).number
    acme.execute("UPDATE reconciler.corrections SET taken_back_at = now()")
    with pytest.raises(NotPutRight, match="was taken back already, by an unknown hand"):
        acme.retract(number or 0)


def test_in_json_what_holds_on_and_on_has_no_end(command: Callable[..., Ran]) -> None:
    given = ["--from", "2026-05-15", "--note", "sold", "--by", "me", "--output", "json"]
    assert command("record", "acme", "payer", OTHER, *given).document["to"] is None


# --- what explain and status say of it ---------------------------------------------------------------------------


def test_status_lists_decisions_and_what_became_of_them(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.show("mail")
    acme.says(1, "enabled")
    upheld = acme.record("disabled", 10, 20).number
    acme.says(15, "enabled")
    acme.system.run()
    undone = acme.record("suspended", 3, 9, skill=None).number
    back = acme.retract(undone or 0).number
    command("record", "acme", "payer", OTHER, "--from", "2026-05-15", "--note", "sold", "--by", "me")
    life(acme, command, "gone", "--from", "2026-05-24", "--to", "2026-05-26")
    shown = command("status", "--output", "json").document
    assert shown["decisions_count"] == 5
    assert [
        (one["number"], one["subject"], one["said"], one["until_at"], one["upheld"], one["taken_back"])
        for one in shown["decisions"][2:]
    ] == [
        (back, None, f"number {undone}", "2026-05-03T00:00:00Z", 0, None),
        (undone, None, "suspended", "2026-05-09T00:00:00Z", 0, f"number {back}"),
        (upheld, "mail", "disabled", "2026-05-20T00:00:00Z", 1, None),
    ]
    assert [(one["said"], one["until_at"]) for one in shown["decisions"][:2]] == [
        (
            "lived 2026-04-01 00:00:00 to 2026-05-24 00:00:00; 2026-05-26 00:00:00 to now",
            "2026-05-26T00:00:00Z",
        ),
        (f"paid for by {OTHER}", None),
    ]
    text = command("status").out
    assert f"takes back number {undone}" in text
    assert "upheld by 1 row" in text


def test_status_names_the_row_that_was_taken_back(acme: Ledger, command: Callable[..., Ran]) -> None:
    row = acme.says(10, "enabled")
    acme.says(12, "disabled")
    acme.retract(f"skill:{row}")
    assert [one["said"] for one in command("status", "--output", "json").document["decisions"]] == [f"skill:{row}"]


def test_a_decision_of_long_ago_is_in_explain_alone(acme: Ledger, command: Callable[..., Ran]) -> None:
    acme.record("enabled", 10, 20)
    acme.execute("UPDATE reconciler.corrections SET decided_at = now() - interval '29 days'")
    assert command("status", "--output", "json").document["decisions"] == []
    assert "by m.keller" in command("explain", "acme").out


@pytest.mark.parametrize(
    ("until", "text", "last"),
    [
        pytest.param((), "on", None, id="on and on - null"),
        pytest.param(("--to", "2026-05-21"), "to 2026-05-20", "2026-05-20", id="up to a day - the last one"),
    ],
)
@pytest.mark.usefixtures("acme")
def test_explain_says_who_pays_for_which_days(
    command: Callable[..., Ran], until: tuple[str, ...], text: str, last: str | None
) -> None:
    command("record", "acme", "payer", OTHER, "--from", "2026-05-15", *until, "--note", "sold", "--by", "m.keller")
    assert f"paid for by {OTHER} from 2026-05-15 {text}\n" in command("explain", "acme").out
    assert command("explain", "acme", "--output", "json").document["payers"] == [
        {"org": OTHER, "from_day": "2026-05-15", "to_day": last}
    ]
