"""Is the ledger true yet: what `reconciler status` finds, and how people and programs read it."""

from __future__ import annotations

import io
import json
from collections import Counter
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb
from rich.console import Console

from reconciler.core.certificate import Cause, Certificate, Doubt
from reconciler.core.model import HistoryRead, LogRead
from reconciler.core.status import (
    Corrected,
    Decided,
    Exemption,
    LastDay,
    OpenReport,
    OwedNotification,
    Run,
    Status,
    TakenBack,
    Unverified,
)
from reconciler.db import certificate, queries, status
from reconciler.db import connection as database
from reconciler.db.connection import transaction
from reconciler.db.status import read_status
from reconciler.views import status as view
from reconciler.views.status import document, show
from tests.support.command import Ran, invoke
from tests.support.pages import PAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import psycopg

    Connection = psycopg.Connection[Any]

SETTLE: Final = timedelta(seconds=60)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
NOW: Final = datetime(2026, 6, 10, 3, 0, tzinfo=UTC)
"""When made-up statuses are printed."""


# --- the history -------------------------------------------------------------------------------------------------


class StatusLedger:
    """A ledger, and the rows in it about runs, tenants, reports and exceptions."""

    def __init__(self, ledger: Connection) -> None:
        self.ledger = ledger
        ((now,),) = ledger.execute("SELECT now()").fetchall()
        self.now: datetime = now.astimezone(UTC)

    def run(
        self,
        ago: timedelta,
        outcome: str = "clean",
        *,
        unverified: Iterable[str] = (),
        mode: str = "run",
        source: str | None = "cluster",
        error: str | None = None,
        counts: dict[str, dict[str, int]] | None = None,
        settle: timedelta | None = SETTLE,
        history: HistoryRead | None = None,
    ) -> datetime:
        """Record a run, and return when it began."""
        run_id, at = uuid4(), self.now - ago
        self.ledger.execute(
            "INSERT INTO reconciler.runs (id, started_at, observed_at, finished_at, mode, outcome, version, source, "
            "tenants_observed, counts, unverified, error, settle, history) "
            "VALUES (%s, %s, %s, %s, %s, %s, '1', %s, 7, %s, %s, %s, %s, %s)",
            [
                *(run_id, at, at, at + timedelta(seconds=2), mode, outcome, source),
                *(Jsonb(counts or {}), sorted(unverified), error, settle, Jsonb((history or HistoryRead())._asdict())),
            ],
        )
        return at

    def tenant(self, name: str, ago: timedelta = 300 * DAY) -> None:
        """Record a tenant."""
        self.ledger.execute("INSERT INTO tenant_billing_lifecycle VALUES (%s, '1', %s)", [name, self.now - ago])

    def report(self, name: str, reason: str = "org_unlabelled", ago: timedelta = DAY, subject: str = "") -> None:
        """Open a report."""
        self.ledger.execute(
            "INSERT INTO reconciler.reports (tenant_name, reason, subject, since) VALUES (%s, %s, %s, %s)",
            [name, reason, subject, self.now - ago],
        )

    def correct(self, name: str, subject: str | None = "mail") -> None:
        """Record a correction of the last run whose event is not there."""
        self.ledger.execute(
            "INSERT INTO reconciler.corrections "
            "(run_id, reason, tenant_name, zitadel_org_id, subject, action, observed, event_table, event_id) "
            "SELECT id, 'skill_enable_unrecorded', %s, '1', %s, 'append', 'enabled', 'tenant_skill_events', 1 "
            "FROM reconciler.runs ORDER BY started_at DESC LIMIT 1",
            [name, subject],
        )

    def accept(self, name: str, reason: str = "org_unlabelled", until: timedelta | str = DAY) -> None:
        """Accept a report."""
        expires_at = self.now + until if isinstance(until, timedelta) else until
        self.ledger.execute(
            "INSERT INTO reconciler.exceptions (tenant_name, reason, note, created_by, expires_at) "
            "VALUES (%s, %s, 'known', 'elena', %s)",
            [name, reason, expires_at],
        )

    def status(self) -> Status:
        """Read how things stand."""
        with transaction(self.ledger) as cursor:
            return read_status(cursor, settle=SETTLE)


@pytest.fixture
def history(ledger: Connection) -> StatusLedger:
    return StatusLedger(ledger)


@pytest.fixture
def command(ledger_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """`reconciler status` over the ledger."""

    def run(*arguments: str, **environment: str) -> Ran:
        known = {"DATABASE_URL": ledger_url}
        return invoke(monkeypatch, capsys, "status", *arguments, environment=known | environment)

    return run


def render(shown: Status, width: int = 80) -> str:
    """Return the status as a terminal of that width gets it."""
    console = Console(file=io.StringIO(), width=width, highlight=False, color_system=None)
    with console.capture() as captured:
        show(shown, console)
    return captured.get()


# --- up to when it is verified -----------------------------------------------------------------------------------


def test_verified_up_to_the_last_succeeded_run_less_settle(history: StatusLedger) -> None:
    history.run(2 * HOUR)
    at = history.run(HOUR, "corrected")
    assert history.status().verified_until == at - SETTLE


@pytest.mark.parametrize(
    "nothing_proved",
    [
        {"outcome": "failed", "source": None},
        {"outcome": "blocked"},
        {"outcome": "drift", "mode": "plan"},
        {"outcome": "clean", "source": "snapshot"},
        {"outcome": "clean", "ago": -365 * DAY},
    ],
    ids=str,
)
def test_a_run_that_proved_nothing_moves_nothing(history: StatusLedger, nothing_proved: dict[str, Any]) -> None:
    history.tenant("acme")
    earlier = history.run(2 * HOUR)
    at = history.run(HOUR, "drift", unverified=["acme"])
    history.run(**{"ago": timedelta()} | nothing_proved)
    shown = history.status()
    assert (shown.verified_until, shown.unverified) == (at - SETTLE, (Unverified("acme", earlier - SETTLE),))


def test_runs_of_the_future_are_counted_and_warned_about(history: StatusLedger) -> None:
    history.run(HOUR)
    assert (history.status().future_runs, history.status().future_runs_until) == (0, None)
    assert "clock" not in render(history.status())
    history.run(-DAY)
    last = history.run(-2 * DAY, "failed")

    shown = history.status()

    assert (shown.future_runs, shown.future_runs_until) == (2, last)
    assert [run.started_at for run in shown.runs] == [history.now - HOUR]
    said = render(shown)
    assert f"2 runs observed after now, until {last:%Y-%m-%d %H:%M} UTC: the database's clock was ahead." in said
    assert "The last run, 60 min ago, had nothing to correct" in said
    content = json.loads(document(shown))
    assert (content["future_runs"], content["future_runs_until"]) == (2, f"{last.isoformat()[:-6]}Z")


def test_what_the_warning_says_to_do_ends_it(history: StatusLedger) -> None:
    history.run(-DAY)
    remedy = render(history.status(), 400).split("run: ")[1].split(". ")[0]
    history.ledger.execute(remedy.encode())
    assert history.status().future_runs == 0


@pytest.mark.parametrize(
    ("own", "asked", "counts"),
    [
        pytest.param(5 * SETTLE, timedelta(), 5 * SETTLE, id="the run's own is longer - it counts"),
        pytest.param(timedelta(), SETTLE, SETTLE, id="what is asked is longer - it counts"),
        pytest.param(None, timedelta(), SETTLE, id="an earlier version's run, asked for none - the default counts"),
        pytest.param(None, 5 * SETTLE, 5 * SETTLE, id="an earlier version's run, asked for more - it counts"),
    ],
)
def test_the_longer_settle_of_run_and_question_counts(
    history: StatusLedger, own: timedelta | None, asked: timedelta, counts: timedelta
) -> None:
    history.tenant("acme")
    earlier = history.run(2 * HOUR, settle=own)
    at = history.run(HOUR, "drift", unverified=["acme"], settle=own)
    with transaction(history.ledger) as cursor:
        found = read_status(cursor, settle=asked)
    assert (found.verified_until, found.unverified) == (at - counts, (Unverified("acme", earlier - counts),))


def test_without_a_run_nothing_is_verified(history: StatusLedger) -> None:
    shown = history.status()
    assert (shown.verified_until, shown.unverified, shown.runs) == (None, (), ())
    assert render(shown).splitlines()[:2] == [
        "No run over the cluster has succeeded yet: nothing is verified.",
        "No run is on record.",
    ]


def test_an_unverified_tenant_is_verified_up_to_an_earlier_run(history: StatusLedger) -> None:
    history.tenant("acme")
    history.run(5 * HOUR)
    at = history.run(4 * HOUR, unverified=["other"])
    history.run(3 * HOUR, "drift", unverified=["acme"])
    history.run(2 * HOUR, "failed", source=None)
    history.run(HOUR, "drift", unverified=["acme"])
    assert history.status().unverified == (Unverified("acme", at - SETTLE),)


def test_a_tenant_that_is_verified_again_is_not_listed(history: StatusLedger) -> None:
    history.run(2 * HOUR, "drift", unverified=["acme"])
    history.run(HOUR)
    assert history.status().unverified == ()


def test_a_run_before_its_lifetime_proves_nothing_about_a_tenant(history: StatusLedger) -> None:
    history.run(2 * HOUR)
    history.tenant("young", ago=HOUR)
    history.run(timedelta(minutes=5), "drift", unverified=["unrecorded", "young"])
    assert history.status().unverified == (Unverified("unrecorded", None), Unverified("young", None))


def test_the_search_begins_where_the_report_does_however_old(
    history: StatusLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate, "MAX_RUNS_SEARCHED", 3)
    history.tenant("reported")
    history.tenant("deferred")
    at = history.run(20 * HOUR)
    for ago in range(19, 0, -1):
        history.run(ago * HOUR, "drift", unverified=["reported", "deferred"])
    history.report("reported", ago=19 * HOUR - timedelta(seconds=1))
    assert history.status().unverified == (Unverified("deferred", None), Unverified("reported", at - SETTLE))


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["clean", "corrected", "drift", "blocked", "failed"]),
            st.sampled_from(["cluster", "snapshot", None]),
            st.sets(st.sampled_from(["a", "b", "c"])),
        ),
        max_size=12,
    )
)
def test_every_unverified_tenant_is_what_each_run_shows(
    history: StatusLedger, runs: list[tuple[str, str | None, set[str]]]
) -> None:
    history.ledger.execute("TRUNCATE reconciler.runs, tenant_billing_lifecycle CASCADE")
    for name in "abc":
        history.tenant(name)
    began = [
        (history.run((len(runs) - number) * HOUR, outcome, source=source, unverified=unverified), unverified)
        for number, (outcome, source, unverified) in enumerate(runs)
        if (outcome in {"clean", "corrected", "drift"} and source == "cluster")
        or history.run((len(runs) - number) * HOUR, outcome, source=source, unverified=unverified) is None
    ]

    shown = history.status()

    assert shown.verified_until == (began[-1][0] - SETTLE if began else None)
    assert shown.unverified == tuple(
        Unverified(name, max((at - SETTLE for at, unverified in began if name not in unverified), default=None))
        for name in sorted(began[-1][1] if began else [])
    )
    assert shown.unverified_count == len(shown.unverified)


# --- can the month be invoiced? ----------------------------------------------------------------------------------

JUNE: Final = datetime(2026, 6, 1, tzinfo=UTC)


def doubted(*tenants: str, cause: Cause = Cause.GAP, ended: datetime = JUNE) -> Certificate:
    """Return what is known of the month that ended then: these tenants are not proven, empty for all."""
    doubts = tuple(Doubt(tenant, cause if tenant else Cause.UNVERIFIED) for tenant in tenants)
    return Certificate(first=(ended - DAY).replace(day=1), until=ended, doubts=doubts)


def told(last_month: Certificate, as_of: datetime = NOW, **known: Any) -> Status:
    """Return a status in which nothing but this is known."""
    return Status(as_of=as_of, last_month=last_month, **known)


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        (
            told(doubted(), verified_until=NOW - HOUR),
            "May 2026 can be invoiced: it is proven to its end.",
        ),
        (
            told(doubted(""), verified_until=JUNE - timedelta(minutes=5)),
            "May 2026 cannot be invoiced yet: it is verified only up to 2026-05-31 23:55 UTC.",
        ),
        (
            told(doubted("")),
            "May 2026 cannot be invoiced yet: it is not verified.",
        ),
        (
            told(doubted("late", "never", "late"), verified_until=NOW - HOUR),
            "May 2026 can be invoiced except for 2 tenants: late, never.",
        ),
        (
            told(doubted(*"abcdefghi", cause=Cause.REPORTED), verified_until=NOW - HOUR),
            "May 2026 can be invoiced except for 9 tenants: a, b, c, d, e and 4 more.",
        ),
        (
            told(doubted(ended=datetime(2026, 1, 1, tzinfo=UTC)), datetime(2026, 1, 9, tzinfo=UTC), verified_until=NOW),
            "December 2025 can be invoiced: it is proven to its end.",
        ),
    ],
)
def test_the_last_month_can_be_invoiced_if_verified_to_its_end(shown: Status, sentence: str) -> None:
    assert render(shown).splitlines()[2] == sentence


# --- the change log ----------------------------------------------------------------------------------------------


def read(log: LogRead, seconds: int | None = 300, waiting: int = 0) -> HistoryRead:
    """Return what a run learned of the time since the run before."""
    return HistoryRead(log, seconds, waiting=waiting)


def test_runs_of_the_last_day_are_counted_by_their_log(history: StatusLedger) -> None:
    for number, log in enumerate([*[LogRead.REACHED] * 4, *[LogRead.PARTLY] * 2, LogRead.LOST], 1):
        history.run(number * HOUR, history=read(log, 60 * number, waiting=number + 1))
    history.run(25 * HOUR, history=read(LogRead.LOST, 9000))
    history.run(-HOUR, history=read(LogRead.LOST, 9000))
    assert history.status().history == LastDay(7, 4, 2, 1, seconds=240, most_seconds=420, waiting=2)


def test_runs_that_had_no_log_to_read_do_not_count(history: StatusLedger) -> None:
    history.run(HOUR, source="snapshot")
    history.run(2 * HOUR, history=read(LogRead.LOST, seconds=None))
    history.run(3 * HOUR)
    history.ledger.execute("UPDATE reconciler.runs SET history = '{}' WHERE started_at < now() - interval '150 min'")
    shown = history.status()
    assert shown.history == LastDay()
    assert "change log" not in render(shown)


@pytest.mark.parametrize(
    ("day", "said"),
    [
        (
            LastDay(288, 288, seconds=300, most_seconds=300),
            "The change log proves what happened before 288 of the 288 runs of the last 24 h.\nThey were 5 min apart.",
        ),
        (
            LastDay(200, 178, 2, 20, seconds=300, most_seconds=7200, waiting=3),
            (
                "The change log proves what happened before 178 of the 200 runs of the last 24 h.\n"
                "They were 5 min apart, at most 2 h. 3 changes may still get the portal's row."
            ),
        ),
        (
            LastDay(19, 17, 0, 2, seconds=90, most_seconds=90, waiting=1),
            (
                "The change log proves what happened before 17 of the 19 runs of the last 24 h.\n"
                "They were 90 s apart. 1 change may still get the portal's row.\n"
                "2 runs lost it, because the API server keeps it for a short time only. A run every minute helps, and "
                "the account of the runs must be allowed to `watch` the tenants."
            ),
        ),
    ],
)
def test_what_the_log_proved_is_said_and_what_helps(day: LastDay, said: str) -> None:
    answers, _, _ = render(told(doubted(), history=day), 1000).partition("\n\n")
    assert answers.splitlines()[3:] == said.splitlines()


# --- reports and exceptions --------------------------------------------------------------------------------------


def test_reports_about_runs_come_first_and_accepted_ones_last(history: StatusLedger) -> None:
    history.report("old", ago=9 * DAY)
    history.report("new", ago=HOUR)
    history.report("accepted", ago=timedelta(minutes=1))
    history.accept("accepted")
    history.report("", "failed", ago=30 * DAY)
    shown = history.status()
    assert [one.tenant for one in shown.reports] == ["", "new", "old", "accepted"]
    assert [one.accepted_until for one in shown.reports] == [None, None, None, history.now + DAY]


def test_other_reasons_and_expired_exceptions_accept_no_report(history: StatusLedger) -> None:
    history.report("acme", "org_moved")
    history.report("acme", "event_time_invalid", subject="mail")
    history.accept("acme", "org_unlabelled")
    history.accept("acme", "event_time_invalid", until=-HOUR)
    assert {one.accepted_until for one in history.status().reports} == {None}


def test_how_long_a_report_is_open_is_said(history: StatusLedger) -> None:
    history.report("acme", ago=3 * DAY + HOUR)
    line = next(line for line in render(history.status(), 200).splitlines() if line.startswith("!"))
    assert "  3 d  " in line


def test_an_expired_exception_is_marked_while_it_is_missed(history: StatusLedger) -> None:
    history.accept("in-force", until=DAY)
    history.accept("expired-lately", until=-DAY)
    history.accept("expired-long-ago", until=-400 * DAY)
    history.accept("expired-and-reported", until=-401 * DAY)
    history.report("expired-and-reported")
    shown = history.status()
    assert [(one.tenant, one.expired) for one in shown.exceptions] == [
        ("expired-and-reported", True),
        ("expired-lately", True),
        ("in-force", False),
    ]
    lines = render(shown, 200).splitlines()
    (marked,) = (line for line in lines if line.startswith("expired-lately"))
    assert "expired 24 h ago" in marked
    assert "expired" not in next(line for line in lines if line.startswith("in-force"))


def test_an_indefinite_exception_is_shown(history: StatusLedger) -> None:
    history.report("acme")
    history.accept("acme", until="infinity")
    shown = history.status()
    assert shown.reports[0].accepted_until == shown.exceptions[0].expires_at == datetime(9999, 12, 30, tzinfo=UTC)


def test_an_exception_shows_its_last_day_who_and_why(history: StatusLedger) -> None:
    history.accept("acme", until="2999-01-01T00:00Z")
    lines = render(history.status(), 120).splitlines()
    assert lines[lines.index("ACCEPTED REPORTS") + 2].split() == [
        "acme",
        "org_unlabelled",
        "2998-12-31",
        "elena",
        "known",
    ]


def test_more_than_are_read_are_counted(history: StatusLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "MAX_ROWS", 3)
    monkeypatch.setattr(view, "MAX_ROWS", 2)
    names = [f"t{number}" for number in range(5)]
    for name in names:
        history.tenant(name)
        history.report(name)
        history.accept(name)
    history.run(HOUR, "drift", unverified=names)
    for name in names:
        history.correct(name)
    history.ledger.execute("UPDATE reconciler.runs SET notified = %s", [Jsonb(dict.fromkeys(names))])
    shown = history.status()
    lists = (shown.unverified, shown.reports, shown.exceptions, shown.taken_back, shown.owed)
    assert [len(each) for each in lists] == [3] * len(lists)
    assert [shown.unverified_count, shown.reports_count, shown.exceptions_count] == [5, 5, 5]
    assert [shown.taken_back_count, shown.owed_count] == [5, 5]
    assert len(shown.last_month.tenants) == 5
    assert render(shown).count("… and 3 more; --output json shows 3") == len(lists)


# --- corrections and runs ----------------------------------------------------------------------------------------


def test_corrections_are_counted_by_utc_day_over_four_weeks(history: StatusLedger) -> None:
    """Neither reports and deferrals count, nor what a stopped run would have written."""
    midnight = history.now.replace(hour=0, minute=0, second=0, microsecond=0)
    for ago, events, stamps in (
        (history.now - midnight, 2, 0),
        (history.now - midnight + timedelta(seconds=1), 1, 2),
        (history.now - (midnight - DAY), 0, 4),
        (history.now - (midnight - 27 * DAY), 5, 0),
        (history.now - (midnight - 27 * DAY) + timedelta(seconds=1), 6, 0),
    ):
        counts = {
            "skill_disable_unrecorded": {"append": events, "defer": 8},
            "deletion_unrecorded": {"stamp": stamps},
            "org_moved": {"report": 9},
        }
        history.run(ago, "corrected", counts=counts)
        history.run(ago, "blocked", counts=counts)
    counted = history.status().corrections
    assert [one.day for one in counted] == [(midnight - number * DAY).date() for number in range(27, -1, -1)]
    assert [one.corrections for one in counted] == [5, *[0] * 25, 7, 2]


def test_one_correction_shows_beside_a_backfill() -> None:
    days = [date(2026, 5, 14) + number * DAY for number in range(28)]
    many = {3: 1, 4: 2, 5: 3, 6: 4, 7: 127, 8: 128, 9: 180_000}
    corrections = tuple(Corrected(day, many.get(number, 0)) for number, day in enumerate(days))
    lines = render(told(doubted(), corrections=corrections)).splitlines()
    at = lines.index("CORRECTIONS A DAY (UTC)")
    assert lines[at + 1].split() == [*"···▁▂▂▃▇██", *"·" * 18]
    assert lines[at + 2] == "05-14         05-21         05-28         06-04"
    assert lines[at + 3] == "180265 in 28 days; most on 2026-05-23: 180000"


def test_four_weeks_without_a_correction_take_one_line(history: StatusLedger) -> None:
    lines = render(history.status()).splitlines()
    assert lines[lines.index("CORRECTIONS A DAY (UTC)") + 1] == "none in the last 28 days"


def test_the_last_runs_are_shown_latest_first_whatever_their_outcome(history: StatusLedger) -> None:
    outcomes = [*["clean"] * 5, "corrected", "drift", "blocked", "failed", *["clean"] * 3]
    for number, outcome in enumerate(outcomes):
        history.run((len(outcomes) - number) * HOUR, outcome)
    runs = history.status().runs
    assert [run.outcome for run in runs] == outcomes[:1:-1]
    assert {run.seconds for run in runs} == {2}


def test_only_what_a_run_really_did_is_counted(history: StatusLedger) -> None:
    counts = {"skill_enable_unrecorded": {"append": 2, "defer": 1}, "org_resolved": {"update": 1}, "x": {"report": 4}}
    history.run(2 * HOUR, "blocked", counts=counts, error="too much")
    history.run(HOUR, "corrected", counts=counts)
    lines = render(history.status()).splitlines()
    at = lines.index("LAST RUNS")
    assert lines[at + 2].split()[2:] == ["corrected", "7", "3", "4", "1", "2.0", "s"]
    assert lines[at + 3].split()[2:] == ["blocked", "-", "-", "-", "-", "2.0", "s"]


def test_the_last_run_is_said_in_a_sentence(history: StatusLedger) -> None:
    history.run(2 * HOUR, "corrected", counts={"org_resolved": {"update": 2}, "org_moved": {"report": 1}})
    assert "The last run, 2 h ago, corrected 2 rows and left 1 report." in render(history.status())
    history.run(HOUR)
    assert "The last run, 60 min ago, had nothing to correct and left 0 reports." in render(history.status())


def test_stopped_runs_are_reported_first_with_cause_and_beginning(history: StatusLedger) -> None:
    history.run(5 * HOUR)
    for ago in (3, 2, 1):
        history.run(ago * HOUR, "failed", source=None, error="The API server\ndid not answer.")
    history.report("", "failed", ago=3 * HOUR)
    shown = render(history.status(), 200)
    assert "The last run, 60 min ago, failed: The API server did not answer." in shown.splitlines()[1]
    assert shown.splitlines()[2].startswith(
        f"It has been so since {history.now - 3 * HOUR:%Y-%m-%d %H:%M} UTC, for 3 h"
    )
    # once in the sentence, once for the three runs that it stopped
    assert shown.count("The API server did not answer.") == 2


def test_a_run_that_was_refused_is_said_to_be(history: StatusLedger) -> None:
    history.run(HOUR, "blocked", error="The list is empty.")
    assert "The last run, 60 min ago, was refused: The list is empty." in render(history.status())


def test_a_run_over_a_file_is_marked(history: StatusLedger) -> None:
    history.run(HOUR, source="snapshot")
    assert render(history.status()).splitlines()[-1].endswith("  file")


# --- how it reads ------------------------------------------------------------------------------------------------


def make_full_status(name: str = "hotel-seeblick") -> Status:
    """Return a status with something of everything."""
    return told(
        doubted(name, "young", cause=Cause.REPORTED),
        verified_until=NOW - HOUR,
        history=LastDay(288, 200, 8, 80, seconds=300, most_seconds=3600, waiting=4),
        unverified=(Unverified(name, JUNE - DAY), Unverified("young", None)),
        unverified_count=2,
        reports=(
            OpenReport("", "failed", "", None, None, "SourceFault", NOW - HOUR, None),
            OpenReport(
                *(name, "event_time_invalid", "searxng-local-search", "287100000000000011"),
                *("enabled at 2062-05-01T00:00:00Z", None, NOW - 40 * DAY, JUNE + 30 * DAY),
            ),
        ),
        reports_count=2,
        exceptions=(
            Exemption("young", "tenant_recreated", "until Friday", "elena", NOW - 9 * DAY, NOW - 2 * DAY, expired=True),
        ),
        exceptions_count=1,
        taken_back=(
            TakenBack(7, name, "deletion_unrecorded", None, NOW - 3 * DAY, NOW - DAY, None),
            TakenBack(
                *(8, name, "skill_enable_unrecorded", "searxng-local-search", NOW - 3 * DAY, None),
                "its event was changed: event_kind is disabled, not enabled",
            ),
        ),
        taken_back_count=2,
        owed=(OwedNotification(UUID(int=3), "alertmanager", NOW - HOUR),),
        owed_count=1,
        corrections=tuple(Corrected(date(2026, 5, 14) + number * DAY, number) for number in range(28)),
        runs=(
            Run(*(UUID(int=1), NOW - HOUR, NOW - HOUR + SETTLE, "failed", None, 0, 0, {}, "No answer. " * 20)),
            Run(*(UUID(int=2), NOW - 2 * HOUR, NOW - 2 * HOUR + SETTLE, "drift", "cluster", 212, 209, {}, None)),
        ),
    )


@pytest.mark.parametrize("width", [60, 80, 100, 120, 10_000])
def test_no_name_is_folded_however_narrow_the_terminal_is(width: int) -> None:
    name = "a-tenant-with-a-name-of-" + "sixty-characters-" * 2
    shown = render(make_full_status(name), width)
    for word in (name, "event_time_invalid", "searxng-local-search", "2026-06-08 03:00"):
        assert word in shown


@pytest.mark.parametrize("width", [80, 120])
def test_lists_fit_a_terminal(width: int) -> None:
    """Only the sentences above them are left to the terminal to fold."""
    lines = render(make_full_status(), width).splitlines()
    assert max(len(line.rstrip()) for line in lines[lines.index("NOT VERIFIED") :]) <= width


def test_a_file_gets_the_whole_cause_of_a_stopped_run(history: StatusLedger, command: Callable[..., Ran]) -> None:
    history.run(HOUR, "failed", source=None, error="No answer. " * 50)
    ran = command()
    assert ran.out.count("No answer. " * 49 + "No answer.") == 2
    assert "\x1b" not in ran.out
    assert [line for line in ran.out.splitlines() if line != line.rstrip()] == []


def test_what_could_steer_a_terminal_is_made_visible(history: StatusLedger) -> None:
    evil = "evil\x1b[2J\n"
    history.tenant(evil)
    history.report(evil, "org_moved", subject=evil)
    history.accept(evil)
    history.ledger.execute("UPDATE reconciler.exceptions SET note = %(evil)s, created_by = %(evil)s", {"evil": evil})
    history.run(HOUR, "failed", error=evil)
    history.run(2 * HOUR, "drift", unverified=[evil])
    history.correct(evil, subject=evil)
    history.ledger.execute("UPDATE reconciler.runs SET notified = %s", [Jsonb({evil: None})])
    for width in (60, 10_000):
        shown = render(history.status(), width)
        assert "\x1b" not in shown
        assert r"evil\x1b[2J\n" in shown


def test_programs_read_one_document(history: StatusLedger, command: Callable[..., Ran]) -> None:
    history.tenant("acme")
    counts = {"org_unlabelled": {"report": 1}}
    known = read(LogRead.REACHED, waiting=1)
    at = history.run(HOUR, "drift", unverified=["acme"], counts=counts, settle=timedelta(), history=known)
    history.report("acme")
    history.report("", "failed")
    history.accept("acme")

    ran = command("--output", "json", "--settle", "0s")

    assert (ran.code, ran.err) == (0, "")
    found = ran.document
    assert list(found) == [
        *("as_of", "verified_until", "changes_until", "unverified_count", "unverified", "last_month", "history"),
        *("reports_count", "reports"),
        *("exceptions_count", "exceptions", "taken_back_count", "taken_back"),
        *("decisions_count", "decisions", "owed_count", "owed"),
        *("closed_months", "corrections", "runs", "future_runs", "future_runs_until"),
    ]
    assert found["verified_until"] == f"{at:%Y-%m-%dT%H:%M:%S.%fZ}"
    assert found["unverified"] == [{"tenant": "acme", "verified_until": None}]
    assert found["last_month"]["but_for"] == ["acme"]
    assert found["history"] == {
        "runs": 1,
        "reached": 1,
        "partly": 0,
        "lost": 0,
        "seconds": 300,
        "most_seconds": 300,
        "waiting": 1,
    }
    assert [(one["tenant"], one["subject"]) for one in found["reports"]] == [(None, None), ("acme", None)]
    assert found["exceptions"][0]["expired"] is False
    assert len(found["corrections"]) == 28
    assert found["runs"][0]["counts"] == {"org_unlabelled": {"report": 1}}
    assert found["runs"][0]["seconds"] == 2


def test_the_document_of_a_ledger_without_runs_is_complete(history: StatusLedger) -> None:
    found = json.loads(document(history.status()))
    assert (found["verified_until"], found["runs"], found["last_month"]["verified"]) == (None, [], False)


def test_the_docs_show_what_is_printed() -> None:
    at = datetime(2026, 6, 2, 3, 15, 8, tzinfo=UTC)
    recreated = ("velo-stadler", "tenant_recreated")
    counts = {"tenant_recreated": {"report": 1}, "event_time_invalid": {"report": 1}}
    corrected = counts | {"resumption_unrecorded": {"append": 1}}
    days = [0, 0, 2, 1, 4, 0, 2, 1, 9, 2, 1, 3, 5, 0, 1, 2, 2, 1, 0, 1, 0, 0, 2, 1, 12, 2, 3, 1]
    shown = told(
        Certificate(
            first=datetime(2026, 5, 1, tzinfo=UTC),
            until=JUNE,
            doubts=(
                Doubt("*", Cause.GAP, "log_lost", at - 17 * DAY, at - 17 * DAY + 12 * SETTLE, accepted=True),
                Doubt("hotel-seeblick", Cause.REPORTED, "event_time_invalid"),
                Doubt(
                    *("praxis-hofer", Cause.GAP, "changed_often", at - 9 * DAY, at - 9 * DAY + 6 * SETTLE),
                    manager="branding-controller",
                ),
                Doubt("velo-stadler", Cause.REPORTED, "tenant_recreated", accepted=True),
            ),
        ),
        at,
        verified_until=at - timedelta(seconds=61),
        history=LastDay(288, 287, 0, 1, seconds=300, most_seconds=720, waiting=1),
        unverified=(Unverified("hotel-seeblick", at - 7 * HOUR - 6 * SETTLE), Unverified(recreated[0], at - 19 * DAY)),
        unverified_count=2,
        reports=(
            OpenReport(
                *("hotel-seeblick", "event_time_invalid", "bexio-accounting", "287100000000000006"),
                *("enabled at 2062-05-01T00:00:00Z", None, at - 7 * HOUR, None),
            ),
            OpenReport(
                *(*recreated, "", "287100000000000011", "deleted", "recreated"),
                *(at - 19 * DAY + 6 * SETTLE, datetime(2026, 6, 6, tzinfo=UTC)),
            ),
        ),
        reports_count=2,
        exceptions=(
            Exemption(
                *(*recreated, "the customer decides by Friday", "elena"),
                *(at - 18 * DAY, datetime(2026, 6, 6, tzinfo=UTC), False),
            ),
        ),
        exceptions_count=1,
        taken_back=(
            TakenBack(
                *(214, "hotel-seeblick", "skill_enable_unrecorded", "bexio-accounting", at - 4 * DAY, None),
                "its event is gone",
            ),
            TakenBack(198, "praxis-hofer", "deletion_unrecorded", None, at - 9 * DAY, at - 2 * DAY, None),
        ),
        taken_back_count=2,
        decisions=(
            Decided(
                *(1218, "hotel-seeblick", None, "recorded", "paid for by 287100000000000013", JUNE - 17 * DAY, None),
                *("elena", at - DAY, "sold to Seeblick AG", 0, None),
            ),
            Decided(
                *(1204, "hotel-seeblick", "mail", "recorded", "disabled", JUNE - 22 * DAY, JUNE - 12 * DAY),
                *("m.keller", at - 2 * DAY, "the customer's log", 1, None),
            ),
        ),
        decisions_count=2,
        owed=(OwedNotification(UUID("c2b9a3d4-0a55-4e0e-8f52-6f9a1f1d7e20"), "alertmanager", at - 301 * SETTLE / 60),),
        owed_count=1,
        corrections=tuple(Corrected(date(2026, 5, 6) + number * DAY, n) for number, n in enumerate(days)),
        runs=tuple(
            Run(UUID(int=number), began, began + took, outcome, "cluster", 212, 211, done, None)
            for number, (began, took, outcome, done) in enumerate(
                [
                    (at - timedelta(seconds=1), timedelta(seconds=0.9), "drift", counts),
                    (at - timedelta(seconds=301), timedelta(seconds=1.2), "corrected", corrected),
                ]
            )
        ),
    )
    printed = "\n".join(line.rstrip() for line in render(shown).splitlines())
    assert f"```text\n{printed}\n```\n" in PAGES["docs/explain-and-status.md"], printed


# --- the command -------------------------------------------------------------------------------------------------


def test_the_command_succeeds_though_the_last_run_failed(history: StatusLedger, command: Callable[..., Ran]) -> None:
    history.run(HOUR, "failed", error="No answer.")
    history.report("", "failed")
    assert command().code == 0


def test_a_ledger_that_is_not_migrated_is_a_failure(empty_url: str, command: Callable[..., Ran]) -> None:
    ran = command(DATABASE_URL=empty_url)
    assert (ran.code, ran.out) == (1, "")
    assert "reconciler migrate" in ran.complaint["remedy"]


def test_an_unreachable_ledger_fails_without_showing_the_password(command: Callable[..., Ran]) -> None:
    ran = command(DATABASE_URL="postgresql://portal:sesame@127.0.0.1:1/billing")
    assert (ran.code, ran.out) == (1, "")
    assert "sesame" not in ran.err


def test_the_role_of_the_runs_may_read_the_status(
    history: StatusLedger, command: Callable[..., Ran], role_url: str
) -> None:
    history.run(HOUR)
    assert command(DATABASE_URL=role_url).code == 0


def test_the_status_is_of_one_moment_and_writes_nothing(
    history: StatusLedger, command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, ledger_url: str
) -> None:
    """A run that commits between two of its queries is in none of the answers."""
    history.tenant("acme")
    history.run(2 * HOUR)

    def interrupted(cursor: psycopg.Cursor[Any], *, settle: timedelta) -> Status:
        before = read_status(cursor, settle=settle)
        history.run(HOUR, "drift", unverified=["acme"])
        history.report("acme")
        again = read_status(cursor, settle=settle)
        assert cursor.connection.read_only
        assert (again.unverified, again.reports, again.runs) == (before.unverified, before.reports, before.runs)
        return again

    monkeypatch.setattr(status, "read_status", interrupted)
    assert command().code == 0
    with closing(database.connect(ledger_url)) as other:
        assert StatusLedger(other).status().reports_count == 1


# --- however long the history is ---------------------------------------------------------------------------------


def visited(plan: dict[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Yield how a plan reads each table, and how many of its rows it visits."""
    if "Relation Name" in plan:
        rows = (
            plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Index Recheck", 0)
        )
        yield plan["Node Type"], plan["Relation Name"], rows * plan["Actual Loops"]
    for inner in plan.get("Plans", ()):
        yield from visited(inner)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("last_proof", 30),
        ("unverified", 3 * (certificate.MAX_RUNS_SEARCHED + 10)),
        ("status_corrections", 28 * 288 * 3),
        ("status_runs", status.LAST_RUNS + 1),
        ("status_owed", status.LAST_RUNS + 1),
        ("status_future_runs", 288),
        ("status_last_day", 288),
    ],
)
def test_the_history_is_not_read_as_a_whole(history: StatusLedger, name: str, most: int) -> None:
    """A run every five minutes for four months, three tenants that none of them could verify."""
    history.ledger.execute(
        "INSERT INTO reconciler.runs "
        "(id, started_at, observed_at, finished_at, mode, outcome, version, source, unverified) "
        "SELECT gen_random_uuid(), at, at, at, 'run', CASE WHEN i % 5 = 0 THEN 'corrected' ELSE 'drift' END, "
        "'1', 'cluster', '{a,b,c}' "
        "FROM generate_series(40000, 1, -1) i, LATERAL (SELECT now() - i * interval '5 min' AS at) t"
    )
    history.ledger.execute("ANALYZE reconciler.runs")
    bounds = {
        "settle": SETTLE,
        "max_runs": certificate.MAX_RUNS_SEARCHED,
        "max_rows": status.LAST_RUNS,
        "since": history.now - 27 * DAY,
    }

    ((plan,),) = history.ledger.execute(b"EXPLAIN (ANALYZE, FORMAT JSON) " + queries.query(name), bounds).fetchall()

    reads = [(how, rows) for how, table, rows in visited(plan[0]["Plan"]) if table == "runs"]
    assert reads
    assert [how for how, _ in reads if how == "Seq Scan"] == []
    assert sum(rows for _, rows in reads) <= most


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("status_latest_corrections", {"corrections": 1}),
        ("written_rows", {"corrections": 1, "runs": 1, "tenant_skill_events": 1}),
    ],
)
def test_a_thousand_corrections_of_many_are_looked_up(history: StatusLedger, name: str, tables: dict[str, int]) -> None:
    history.run(HOUR, "corrected")
    history.ledger.execute(
        "INSERT INTO tenant_skill_events SELECT i, 't' || i, '1', 'mail', 'enabled' FROM generate_series(1, 30000) i"
    )
    history.ledger.execute(
        "INSERT INTO reconciler.corrections (run_id, reason, tenant_name, zitadel_org_id, subject, action, observed, "
        "occurred_at, event_table, event_id) SELECT r.id, 'skill_enable_unrecorded', tenant_name, '1', 'mail', "
        "'append', 'enabled', occurred_at, 'tenant_skill_events', e.id FROM tenant_skill_events e, reconciler.runs r"
    )
    history.ledger.execute("ANALYZE tenant_skill_events, reconciler.corrections, reconciler.runs")
    bounds = {"max_rows": 1000, "ids": [*range(29_001, 30_001)]}

    ((plan,),) = history.ledger.execute(b"EXPLAIN (ANALYZE, FORMAT JSON) " + queries.query(name), bounds).fetchall()

    read = Counter[str]()
    for _, table, rows in visited(plan[0]["Plan"]):
        read[table] += int(rows)
    assert {table: rows for table, rows in read.items() if rows} == {
        table: 1000 * rows for table, rows in tables.items()
    }
