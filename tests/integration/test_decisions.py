"""What people decide: which reports are accepted for a time, and which tenants begin a new lifetime."""

from __future__ import annotations

import getpass
import re
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core import compare
from reconciler.core.decisions import NotPutRight, PutRight
from reconciler.core.errors import Failure
from reconciler.core.model import SNAPSHOT, UNKNOWN_ORG, Outcome
from reconciler.core.reasons import REPORTING, Reason
from reconciler.db import connection as database
from reconciler.db import decisions, lifetimes
from reconciler.db.apply import Author
from reconciler.db.connection import LedgerDenied, LedgerUnreachable, transaction
from reconciler.db.decisions import DecisionDenied
from reconciler.sources.api_client import Api, CustomResource
from reconciler.sources.cluster import Cluster
from reconciler.sources.file import FileSource
from reconciler.sources.lookup import look_up
from reconciler.views.findings import counts
from tests.support.api_state import ORG_LABEL, tenant
from tests.support.command import Ran, invoke
from tests.support.fake_api import SOURCE_UID, FakeApi
from tests.support.ledger_rows import all_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psycopg

    from tests.support.system import System

ORG: Final = "2871"
BORN, ENDED, BORN_AGAIN = timedelta(days=-30), timedelta(days=-20), timedelta(days=-10)
"""The two lifetimes of acme, from now."""
SETTLE: Final = timedelta(seconds=60)
Command = Callable[..., Ran]


# --- the scene ---------------------------------------------------------------------------------------------------


def to_second(system: System, at: timedelta) -> datetime:
    """Return an instant as Kubernetes writes it, to the second."""
    return (system.now + at).replace(microsecond=0)


def make_cluster(system: System) -> Cluster:
    """Return the cluster as a command sees it."""
    api = Api(kubeconfig=system.kubeconfig, context=None, deadline=system.deadline)
    return Cluster(
        resource=CustomResource(api=api, group="pieced.ch", plural="piecedtenants"), org_label=ORG_LABEL, page_size=2
    )


def reopen(system: System, name: str = "acme", *, url: str | None = None, ended_at: datetime | None = None) -> PutRight:
    """Reopen a tenant as the command does."""
    with closing(database.connect(url or system.url)) as ledger:
        lookup = look_up(make_cluster(system), name)
        with transaction(ledger) as cursor:
            return lifetimes.reopen(
                cursor, name, ended_at=ended_at, settle=SETTLE, author=Author("elena", "it came back"), lookup=lookup
            )


def record_event(system: System, skill: str | None, kind: str, at: timedelta) -> None:
    """Write an event of acme as the portal does."""
    table, columns = ("tenant_skill_events", "skill_id, ") if skill is not None else ("tenant_suspension_events", "")
    values = [skill] if skill is not None else []
    system.ledger.execute(
        f"INSERT INTO {table} (tenant_name, zitadel_org_id, {columns}event_kind, occurred_at) "  # noqa: S608 - of two
        f"VALUES ('acme', '{ORG}', {'%s, ' * len(values)}%s, %s)".encode(),
        [*values, kind, system.now + at],
    )


def record_closed_lifetime(system: System, **times: timedelta) -> None:
    """Record acme's first lifetime in a ledger that belongs to the cluster."""
    system.ledger.execute(
        "INSERT INTO tenant_billing_lifecycle VALUES ('acme', %s, %s, %s)",
        [ORG, system.now + times.get("born", BORN), system.now + times.get("ended", ENDED)],
    )
    system.ledger.execute("INSERT INTO reconciler.source (identity) VALUES (%s)", [SOURCE_UID])


def move_runs_to(system: System, at: timedelta) -> None:
    """Move all runs so far to an instant."""
    system.ledger.execute(
        "UPDATE reconciler.runs SET started_at = %(at)s, observed_at = %(at)s", {"at": system.now + at}
    )


def read_lifecycle(system: System) -> tuple[Any, ...]:
    """Return acme's row: organisation, creation, deletion."""
    ((org, created_at, deleted_at),) = system.ledger.execute(
        "SELECT zitadel_org_id, created_at, deleted_at FROM tenant_billing_lifecycle WHERE tenant_name = 'acme'"
    ).fetchall()
    return org, created_at, deleted_at


def corrections_of(outcome: Outcome) -> list[tuple[str, str | None, datetime | None]]:
    """Return what a run corrected: reason, skill, moment."""
    assert outcome.failure is None, outcome.failure
    return [
        (one.reason, one.subject, one.moment.occurred_at if one.moment else None)
        for one in outcome.findings
        if one.action.writes
    ]


@pytest.fixture
def command(system: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line over the system, for an account that is called elena."""

    def run(*arguments: str, **environment: str) -> Ran:
        known = {"DATABASE_URL": system.url, "RECONCILER_KUBECONFIG": system.kubeconfig, "LOGNAME": "elena"}
        return invoke(monkeypatch, capsys, *arguments, environment=known | environment)

    return run


WAITING: Final = (
    "FROM pg_locks JOIN pg_database d ON d.oid = database "
    "WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
)


class HeldLock:
    """The lock that all runs share, held while others wait for it."""

    def __init__(self, system: System, holder: psycopg.Connection[Any]) -> None:
        self.system = system
        self.holder = holder

    def call(
        self, action: Callable[[], object], times: int = 1, meanwhile: Callable[[], object] | None = None
    ) -> list[object]:
        """Call something several times at once, let all of them wait, and return how each call ended."""
        ended: list[object] = []

        def attempt() -> None:
            try:
                ended.append(action())
            except Failure as failure:
                ended.append(failure)

        self.holder.execute("SELECT pg_advisory_lock(7234897103)")
        threads = [threading.Thread(target=attempt) for _ in range(times)]
        for thread in threads:
            thread.start()
        while len(self.system.ledger.execute(f"SELECT {WAITING}".encode()).fetchall()) < times:
            assert all(thread.is_alive() for thread in threads), ended
            time.sleep(0.01)
        if meanwhile:
            meanwhile()
        self.holder.execute("SELECT pg_advisory_unlock(7234897103)")
        for thread in threads:
            thread.join()
        return ended


@pytest.fixture
def held(system: System) -> Iterator[HeldLock]:
    with closing(database.connect(system.url)) as holder:
        yield HeldLock(system, holder)


# --- except ------------------------------------------------------------------------------------------------------


def read_exceptions(system: System) -> list[tuple[Any, ...]]:
    """Return every exception."""
    return system.ledger.execute(
        "SELECT tenant_name, reason, note, created_by, expires_at FROM reconciler.exceptions"
    ).fetchall()


def test_exactly_the_reported_reasons_can_be_accepted() -> None:
    table = (compare.__doc__ or "").split("\n")
    reported = {re.search(r"(\w+)\s+report$", line).group(1) for line in table if line.endswith("  report")}  # type: ignore[union-attr]
    assert {*REPORTING} - reported == {Reason.HISTORY_CONTRADICTS, Reason.CLOSED_MONTH_CHANGED}


def test_an_exception_says_who_accepted_what_until_when_and_why(system: System, command: Command) -> None:
    system.record("acme", BORN)

    ran = command("except", "acme", "org_moved", "--until", "2999-12-31", "--note", "moves in January")

    assert ran.code == 0
    assert read_exceptions(system) == [
        ("acme", "org_moved", "moves in January", "elena", datetime(3000, 1, 1, tzinfo=UTC)),
    ]
    ((age,),) = system.ledger.execute("SELECT now() - created_at FROM reconciler.exceptions").fetchall()
    assert timedelta() <= age < timedelta(minutes=1)


def test_a_day_is_accepted_to_its_end_an_instant_exactly(system: System, command: Command) -> None:
    system.record("acme", BORN)
    for until, expires_at, said in (
        ("2999-12-31", datetime(3000, 1, 1, tzinfo=UTC), "until the end of 2999-12-31, in UTC"),
        ("2999-12-31T18:00+02:00", datetime(2999, 12, 31, 16, tzinfo=UTC), "until 2999-12-31 16:00:00, in UTC"),
    ):
        ran = command("except", "acme", "org_moved", "--until", until, "--note", "known")
        assert read_exceptions(system)[0][-1] == expires_at
        assert said in ran.out
        assert f"notified of it again from {expires_at:%Y-%m-%d %H:%M:%S} UTC on" in ran.out


def test_today_can_be_accepted_to_its_end(system: System, command: Command) -> None:
    system.record("acme", BORN)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert command("except", "acme", "org_moved", "--until", today, "--note", "known").code == 0


def test_what_was_accepted_before_is_replaced_and_said(system: System, command: Command) -> None:
    system.record("acme", BORN)
    command("except", "acme", "org_moved", "--until", "2999-01-01", "--note", "first")

    ran = command("except", "acme", "org_moved", "--until", "2999-12-31", "--note", "second", "--by", "marco")

    assert [row[2:4] for row in read_exceptions(system)] == [("second", "marco")]
    assert "It was accepted until 2999-01-02 00:00:00 UTC before." in ran.out


def test_it_is_said_whether_the_report_is_open(system: System, command: Command) -> None:
    system.api.create(tenant("acme", org=None), at=system.now + BORN)
    system.run()
    ((since,),) = system.ledger.execute("SELECT since FROM reconciler.reports").fetchall()
    arguments = ("--until", "2999-12-31", "--note", "known")
    assert f"is open since {since:%Y-%m-%d %H:%M:%S} UTC" in command("except", "acme", "org_unlabelled", *arguments).out
    assert "No such report is open now" in command("except", "acme", "org_moved", *arguments).out


def test_the_next_run_shows_accepted_reports_without_calling_them_drift(system: System, command: Command) -> None:
    system.api.create(tenant("acme", org=None), at=system.now + BORN)
    system.run()

    command("except", "acme", "org_unlabelled", "--until", "2999-12-31", "--note", "known")
    (finding,) = system.run().findings
    assert (finding.reason, finding.is_drift) == (Reason.ORG_UNLABELLED, False)

    command("except", "acme", "org_unlabelled", "--revoke")
    (finding,) = system.run().findings
    assert finding.is_drift


@pytest.mark.parametrize(
    "known",
    [
        "INSERT INTO tenant_billing_lifecycle VALUES ('acme', '1', now())",
        "INSERT INTO tenant_skill_events VALUES (1, 'acme', '1', 's', 'enabled')",
        "INSERT INTO tenant_suspension_events VALUES (1, 'acme', '1', 'suspended')",
        "INSERT INTO reconciler.reports (tenant_name, reason) VALUES ('acme', 'tenant_unreadable')",
    ],
)
def test_a_tenant_may_be_known_from_anywhere(system: System, command: Command, known: str) -> None:
    system.ledger.execute(known.encode())
    assert command("except", "acme", "org_moved", "--until", "2999-12-31", "--note", "known").code == 0


def test_a_misspelt_tenant_is_refused_with_a_suggestion(system: System, command: Command) -> None:
    system.record("hotel-seeblick", BORN)
    system.ledger.execute("INSERT INTO reconciler.reports (tenant_name, reason) VALUES ('', 'failed')")

    ran = command("except", "hotel-seblick", "org_moved", "--until", "2999-12-31", "--note", "known")

    assert (ran.code, ran.out, read_exceptions(system)) == (3, "", [])
    assert 'no tenant "hotel-seblick"' in ran.complaint["error"]
    assert ran.complaint["remedy"] == "Nothing was changed. Did you mean hotel-seeblick?"


def test_a_time_past_by_the_ledgers_clock_is_wrong_usage(system: System, command: Command) -> None:
    system.record("acme", BORN)
    yesterday = f"{system.now - timedelta(days=1):%Y-%m-%d}"

    ran = command("except", "acme", "org_moved", "--until", yesterday, "--note", "known")

    assert (ran.code, read_exceptions(system)) == (64, [])
    assert "is past: by the ledger's clock it is" in ran.complaint["error"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["org_moved", "--until", "soon", "--note", "n"], "'soon' is not a time"),
        (["org_moved", "--until", "2999-12-31T18:00", "--note", "n"], "has no offset; write it as"),
        (["org_moved", "--until", "9999-12-31", "--note", "n"], "is not a time"),
        (["org_moved", "--until", "2999-12-31", "--note", " "], "it is empty"),
        (["org_moved", "--until", "2999-12-31", "--note", "\udcff"], "is not text in UTF-8"),
        (["org_moved", "--until", "2999-12-31"], "Give either both --until and --note, or --revoke"),
        (["org_moved", "--note", "n"], "Give either both --until and --note, or --revoke"),
        (["org_moved", "--revoke", "--note", "n"], "takes neither --until nor --note"),
        (["skill_enable_unrecorded", "--until", "2999-12-31", "--note", "n"], "is not one of"),
    ],
)
def test_wrong_usage_changes_nothing(system: System, command: Command, arguments: list[str], says: str) -> None:
    system.record("acme", BORN)
    ran = command("except", "acme", *arguments)
    assert (ran.code, ran.out, read_exceptions(system)) == (64, "", [])
    assert says in " ".join(ran.err.split())


def test_an_account_without_a_name_must_say_who_decides(
    system: System, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.record("acme", BORN)

    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    arguments = ("except", "acme", "org_moved", "--until", "2999-12-31", "--note", "known")

    ran = command(*arguments)
    assert (ran.code, read_exceptions(system)) == (64, [])
    assert "Give --by" in ran.complaint["remedy"]
    assert command(*arguments, "--by", "marco").code == 0


def test_a_revoked_exception_ends_at_once_and_stays_on_record(system: System, command: Command) -> None:
    system.record("acme", BORN)
    command("except", "acme", "org_moved", "--until", "2999-12-31", "--note", "known")

    ran = command("except", "acme", "org_moved", "--revoke", "--by", "marco")

    assert (ran.code, ran.out.splitlines()[0]) == (0, "No longer accepted: org_moved of acme")
    ((*_, note, by, expires_at),) = read_exceptions(system)
    assert (note, by) == ("known", "elena")
    assert expires_at <= datetime.now(UTC)
    assert [line["by"] for line in ran.logged] == ["marco"]


def test_what_is_not_accepted_cannot_be_revoked(system: System, command: Command) -> None:
    system.record("acme", BORN)
    command("except", "acme", "org_moved", "--until", "2999-12-31", "--note", "known")
    command("except", "acme", "org_moved", "--revoke")
    for reason in ("org_moved", "org_unlabelled"):
        ran = command("except", "acme", reason, "--revoke")
        assert ran.code == 3
        assert f"{reason} of acme is not accepted" in ran.complaint["error"]


def test_what_could_steer_a_terminal_is_made_visible(system: System, command: Command) -> None:
    system.record("acme\x1b[2J", BORN)
    ran = command("except", "acme\x1b[2J", "org_moved", "--until", "2999-12-31", "--note", "a\x1bc")
    assert ran.code == 0
    assert "\x1b" not in ran.out
    assert r"acme\x1b[2J" in ran.out


def test_the_role_of_the_runs_may_accept_and_revoke(system: System, command: Command, role_url: str) -> None:
    system.record("acme", BORN)
    accept = ("except", "acme", "org_moved", "--until", "2999-12-31", "--note", "known")
    assert command(*accept, DATABASE_URL=role_url).code == 0
    assert command("except", "acme", "org_moved", "--revoke", DATABASE_URL=role_url).code == 0


def test_an_unreachable_ledger_fails_without_showing_the_password(command: Command) -> None:
    arguments = ("except", "acme", "org_moved", "--until", "2999-12-31", "--note", "known")
    ran = command(*arguments, DATABASE_URL="postgresql://portal:sesame@127.0.0.1:1/billing")
    assert ran.code == 1
    assert "No connection to the ledger" in ran.complaint["error"]
    assert "sesame" not in ran.err


def test_two_who_accept_at_once_leave_one_exception(system: System) -> None:
    system.record("acme", BORN)
    together = threading.Barrier(4)

    def accept(by: int) -> None:
        with closing(database.connect(system.url)) as ledger, transaction(ledger) as cursor:
            together.wait()
            until = datetime(2999, 1, 1, tzinfo=UTC)
            decisions.accept(cursor, "acme", Reason.ORG_MOVED, until=until, note=f"{by}", by=f"{by}")

    threads = [threading.Thread(target=accept, args=[by]) for by in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    ((_, _, note, by, _),) = read_exceptions(system)
    assert note == by


def test_waiting_for_a_locked_exception_has_a_limit(
    system: System, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.record("acme", BORN)
    command("except", "acme", "org_moved", "--until", "2999-01-01", "--note", "first")
    before = read_exceptions(system)
    monkeypatch.setattr(database, "LOCK_TIMEOUT", 0.2)
    with closing(database.connect(system.url)) as other, other.transaction():
        other.execute("UPDATE reconciler.exceptions SET note = 'theirs'")
        ran = command("except", "acme", "org_moved", "--until", "2999-12-31", "--note", "second")
        assert (ran.code, ran.out) == (1, "")
        assert read_exceptions(system) == before


# --- reopen a row that is open: the deletion was lost ------------------------------------------------------------


@pytest.fixture
def recreated(system: System) -> System:
    """Acme was recreated, and both rows of the portal's were lost; a run proved it before that."""
    system.api.create(tenant("acme", ["mail"]), at=system.now + BORN)
    system.run()
    move_runs_to(system, ENDED - timedelta(days=1))
    system.api.delete("acme", at=system.now + ENDED)
    system.api.create(tenant("acme", ["mail"]), at=system.now + BORN_AGAIN)
    (report,) = system.run().findings
    assert (report.reason, report.recorded, report.observed) == ("tenant_recreated", "open", "recreated")
    return system


@pytest.mark.usefixtures("lost_log")
def test_reopening_ends_an_open_lifetime_when_a_person_says(recreated: System, command: Command) -> None:
    at = to_second(recreated, ENDED)
    ran = command("reopen", "acme", "--ended", f"{at:%Y-%m-%dT%H:%M:%SZ}", "--note", "n")
    assert ran.code == 0, ran.err
    assert read_closed_lifetimes(recreated) == [(to_second(recreated, BORN), at)]
    assert read_lifecycle(recreated)[1:] == (to_second(recreated, BORN_AGAIN), None)
    assert recreated.run().findings == ()


@pytest.mark.usefixtures("lost_log")
@pytest.mark.parametrize(
    ("packages", "expected"),
    [
        pytest.param(["mail"], [("disabled", ENDED), ("enabled", BORN_AGAIN)], id="on again - goes on"),
        pytest.param([], [("disabled", ENDED)], id="off - stays off"),
    ],
)
def test_what_was_on_goes_off_where_a_lost_lifetime_ends(
    recreated: System, packages: list[str], expected: list[tuple[str, timedelta]]
) -> None:
    recreated.api.patch("acme", {"spec": {"packages": packages}}, at=recreated.now + BORN_AGAIN)
    reopen(recreated, ended_at=to_second(recreated, ENDED))
    number = read_number(recreated)
    assert recreated.ledger.execute(
        "SELECT observed, occurred_at FROM reconciler.corrections WHERE number = %s AND subject = 'mail' ORDER BY id",
        [number],
    ).fetchall() == [(kind, to_second(recreated, at)) for kind, at in expected]
    assert recreated.run().findings == ()


@pytest.mark.usefixtures("lost_log")
def test_an_open_lifetime_ends_with_its_last_proof(recreated: System, command: Command) -> None:
    ran = command("reopen", "acme", "--note", "n")
    assert ran.code == 0, ran.err
    assert "as far as runs have proved it" in ran.out
    ((_, ended),) = read_closed_lifetimes(recreated)
    assert ended < recreated.now + ENDED
    assert ended > recreated.now + ENDED - timedelta(days=1, minutes=5)
    assert recreated.run().findings == ()


@pytest.mark.usefixtures("lost_log")
@pytest.mark.parametrize("ended", [BORN, BORN_AGAIN + timedelta(seconds=2)], ids=["at its start", "after the new one"])
def test_an_end_outside_its_lifetime_is_refused(recreated: System, command: Command, ended: timedelta) -> None:
    before = all_rows(recreated.url)
    at = recreated.now + ended
    ran = command("reopen", "acme", "--ended", f"{at:%Y-%m-%dT%H:%M:%SZ}", "--note", "n")
    assert ran.code == 3
    assert "cannot have ended" in ran.complaint["error"]
    assert all_rows(recreated.url) == before


def test_an_end_is_not_given_to_a_stamped_row(system: System, command: Command) -> None:
    record_closed_lifetime(system)
    system.api.create(tenant("acme"), at=system.now + BORN_AGAIN)
    ran = command("reopen", "acme", "--ended", "2026-01-01", "--note", "n")
    assert ran.code == 3
    assert "has stamped the deletion" in ran.complaint["error"]


def read_closed_lifetimes(system: System) -> list[tuple[datetime, datetime]]:
    """Return the lifetimes that are over."""
    return system.ledger.execute("SELECT created_at, deleted_at FROM reconciler.closed_lives ORDER BY 1").fetchall()


# --- reopen ------------------------------------------------------------------------------------------------------


def test_the_whole_story_of_a_tenant_that_comes_back(system: System, command: Command) -> None:
    """Created, deleted, recreated, reported, reopened, corrected, deleted again, and once more from the start."""
    api = system.api
    api.create(tenant("acme", ["mail"], finalizers=["f"]), at=system.now + BORN)
    system.run()
    move_runs_to(system, BORN + timedelta(hours=1))
    api.delete("acme", at=system.now + ENDED)
    assert [reason for reason, *_ in corrections_of(system.run())] == [
        "deletion_unrecorded",
        "skill_open_after_deletion",
    ]
    first = read_lifecycle(system)
    assert first == (ORG, to_second(system, BORN), to_second(system, ENDED))
    api.finalize("acme")
    move_runs_to(system, ENDED + timedelta(hours=1))
    assert corrections_of(system.run()) == []
    move_runs_to(system, ENDED + timedelta(hours=2))
    api.create(tenant("acme", ["mail", "wiki"], org="2872", suspend=True, finalizers=["f"]), at=system.now + BORN_AGAIN)

    reported = system.run()
    assert [one.reason for one in reported.findings] == ["tenant_recreated"]
    assert read_lifecycle(system) == first

    ran = command("reopen", "acme", "--note", "the customer came back")
    assert ran.code == 0, ran.err
    assert read_lifecycle(system) == ("2872", to_second(system, BORN_AGAIN), None)
    assert system.ledger.execute(
        "SELECT tenant_name, zitadel_org_id, created_at, deleted_at, reopened_by, note FROM reconciler.closed_lives"
    ).fetchall() == [("acme", *first, "elena", "the customer came back")]

    corrected = corrections_of(system.run())
    assert corrected == [
        ("skill_enable_unrecorded", "mail", to_second(system, BORN_AGAIN)),
        ("skill_enable_unrecorded", "wiki", to_second(system, BORN_AGAIN)),
        ("suspension_unrecorded", None, to_second(system, BORN_AGAIN)),
    ]
    again = system.run()
    assert (corrections_of(again), again.result) == ([], "clean")
    assert system.ledger.execute("SELECT FROM reconciler.reports").fetchall() == []

    move_runs_to(system, timedelta(days=-6))
    api.delete("acme", at=system.now + timedelta(days=-5))
    ended = corrections_of(system.run())
    assert [reason for reason, *_ in ended] == ["deletion_unrecorded", *["skill_open_after_deletion"] * 2]
    assert read_lifecycle(system) == ("2872", to_second(system, BORN_AGAIN), to_second(system, timedelta(days=-5)))

    api.finalize("acme")
    move_runs_to(system, timedelta(days=-4))
    api.create(tenant("acme", ["mail"]), at=system.now + timedelta(days=-3))
    assert [one.reason for one in system.run().findings] == ["tenant_recreated"]
    assert command("reopen", "acme", "--note", "and again").code == 0
    assert len(system.ledger.execute("SELECT FROM reconciler.earlier_lifetimes").fetchall()) == 2
    assert {reason for reason, *_ in corrections_of(system.run())} == {
        "skill_enable_unrecorded",
        "resumption_unrecorded",
    }
    assert corrections_of(system.run()) == []


def test_reopening_names_both_lifetimes(system: System, command: Command) -> None:
    record_closed_lifetime(system)
    system.api.create(tenant("acme", org="2872"), at=system.now + BORN_AGAIN)
    ran = command("reopen", "acme", "--note", "n")
    began, ended, again = (f"{system.now + at:%Y-%m-%d %H:%M:%S}" for at in (BORN, ENDED, BORN_AGAIN))
    number = read_number(system)
    assert ran.out.splitlines()[:4] == [
        f"Number {number}: acme was gone from {ended} to {again} UTC,",
        "by elena: n",
        f"It is billed to 2872 from {again} UTC on, when it was recreated.",
        f"Its lifetime before is kept: {ORG}, {began} to {ended} UTC.",
    ]
    assert [(line["event"], line["number"], line["by"]) for line in ran.logged] == [
        ("decision.written", number, "elena")
    ]


def read_number(system: System) -> int:
    """Return the number of the only decision."""
    ((number,),) = system.ledger.execute(
        "SELECT DISTINCT number FROM reconciler.corrections WHERE evidence = 'decided'"
    ).fetchall()
    return int(number)


def test_reopening_leaves_its_proof(system: System, command: Command) -> None:
    record_closed_lifetime(system)
    system.api.create(tenant("acme", org="2872"), at=system.now + BORN_AGAIN)
    assert command("reopen", "acme", "--note", "it came back").code == 0
    ended, again = system.now + ENDED, to_second(system, BORN_AGAIN)
    assert system.ledger.execute(
        "SELECT reason, action, zitadel_org_id, occurred_at, not_before, not_after, evidence, run_id, by, note, "
        "role = current_user, impact_chf IS NOT NULL FROM reconciler.corrections"
    ).fetchall() == [
        ("reopened", "update", "2872", again, ended, again, "decided", None, "elena", "it came back", True, True)
    ]
    shown = command("explain", "acme").out
    assert "(reopened)" in shown
    assert "by elena" in shown
    assert shown.count("◆") == 3, "in the legend, in the picture, and at the creation: the stamp is the portal's"


def test_a_dry_run_of_a_reopening_shows_its_worth_by_payer(system: System, command: Command) -> None:
    system.ledger.execute("UPDATE platform_pricing SET tenant_monthly_fee_chf = 31")
    record_closed_lifetime(system)
    system.api.create(tenant("acme", org="2872"), at=system.now + BORN_AGAIN)
    before = all_rows(system.url)
    shown = command("reopen", "acme", "--note", "n", "--dry-run", "--output", "json").document
    assert all_rows(system.url) == before
    assert (shown["number"], shown["state"], shown["org"]) == (None, "gone", "2872")
    assert {(line["org"], line["item"], line["days_before"]) for line in shown["lines"]} == {("2872", None, 0)}
    assert sum(line["days_after"] for line in shown["lines"]) == -BORN_AGAIN.days + 1
    done = command("reopen", "acme", "--note", "n", "--output", "json").document
    assert (done["lines"], done["number"]) == (shown["lines"], read_number(system))


def test_a_new_lifetime_without_a_label_has_an_unknown_organisation(system: System) -> None:
    record_closed_lifetime(system)
    system.api.create(tenant("acme", org=None), at=system.now + BORN_AGAIN)
    reopen(system)
    assert read_lifecycle(system)[0] == UNKNOWN_ORG


def test_a_ledger_of_files_is_reopened_from_a_file(system: System, command: Command, tmp_path: Path) -> None:
    record_closed_lifetime(system)
    system.ledger.execute("UPDATE reconciler.source SET identity = %s", [SNAPSHOT])
    system.api.create(tenant("acme"), at=system.now + BORN_AGAIN)
    file = tmp_path / "tenants.json"
    file.write_bytes(system.api.encoded("acme") or b"")
    assert command("reopen", "acme", "--note", "n", "--tenants", str(file)).code == 0
    assert read_lifecycle(system)[2] is None


# what is refused

_REFUSED: list[Any] = []


def _refused(sentence: str, says: str) -> Callable[[Callable[[System], None]], Callable[[System], None]]:
    def entered(arrange: Callable[[System], None]) -> Callable[[System], None]:
        _REFUSED.append(pytest.param(arrange, says, id=sentence))
        return arrange

    return entered


@_refused("a tenant that the ledger does not know", "has no lifetime of acme")
def _unknown(system: System) -> None:
    record_closed_lifetime(system)
    system.ledger.execute("UPDATE tenant_billing_lifecycle SET tenant_name = 'acne'")
    system.api.create(tenant("acme"), at=system.now + BORN_AGAIN)


@_refused("a tenant that was never deleted", "acme is open already: it is billed from")
def _open(system: System) -> None:
    system.record("acme", BORN)
    system.ledger.execute("INSERT INTO reconciler.source (identity) VALUES (%s)", [SOURCE_UID])
    system.api.create(tenant("acme"), at=system.now + BORN)


@_refused("a tenant that is reopened already, and by whom", "by elena: it came back")
def _reopened(system: System) -> None:
    record_closed_lifetime(system)
    system.api.create(tenant("acme"), at=system.now + BORN_AGAIN)
    reopen(system)


@_refused("a tenant that lived when its deletion was recorded", "whose deletion is recorded wrongly")
def _contradicted(system: System) -> None:
    record_closed_lifetime(system)
    system.api.create(tenant("acme"), at=system.now + BORN)


@_refused("a tenant that was created in the instant of the deletion", "whose deletion is recorded wrongly")
def _at_once(system: System) -> None:
    record_closed_lifetime(system)
    system.ledger.execute("UPDATE tenant_billing_lifecycle SET deleted_at = %s", [to_second(system, BORN_AGAIN)])
    system.api.create(tenant("acme"), at=system.now + BORN_AGAIN)


@_refused("a tenant whose recorded lifetime began no earlier", "whose deletion is recorded wrongly")
def _of_the_same_second(system: System) -> None:
    record_closed_lifetime(system)
    system.ledger.execute("UPDATE tenant_billing_lifecycle SET created_at = %s", [to_second(system, BORN_AGAIN)])
    system.api.create(tenant("acme"), at=system.now + BORN_AGAIN)


@_refused("a tenant that is deleted at the end of time", "whose deletion is recorded wrongly")
def _indefinitely(system: System) -> None:
    record_closed_lifetime(system)
    system.ledger.execute("UPDATE tenant_billing_lifecycle SET deleted_at = 'infinity'")
    system.api.create(tenant("acme"), at=system.now + BORN_AGAIN)


@_refused("a tenant that is not there", "There is no acme: it was deleted, as the ledger says")
def _absent(system: System) -> None:
    record_closed_lifetime(system)
    system.api.create(tenant("other"))


@_refused("a tenant that is being deleted again", "acme is being deleted, since")
def _leaving(system: System) -> None:
    record_closed_lifetime(system)
    system.api.create(tenant("acme", finalizers=["f"]), at=system.now + BORN_AGAIN)
    system.api.delete("acme")


@_refused("a tenant that cannot be read", "acme cannot be read: ")
def _unreadable(system: System) -> None:
    record_closed_lifetime(system)
    system.api.create(tenant("acme", "mail"), at=system.now + BORN_AGAIN)


@_refused("a tenant that was created in the future", "metadata.creationTimestamp lies in the future")
def _unborn(system: System) -> None:
    record_closed_lifetime(system)
    system.api.create(tenant("acme"), at=system.now + timedelta(hours=1))


@_refused("a tenant of another cluster", "and this is another-cluster")
def _elsewhere(system: System) -> None:
    record_closed_lifetime(system)
    system.api.source_uid = "another-cluster"
    system.api.create(tenant("acme"), at=system.now + BORN_AGAIN)


@_refused("a tenant of a ledger without any run", "There has been no run yet")
def _unpinned(system: System) -> None:
    record_closed_lifetime(system)
    system.ledger.execute("DELETE FROM reconciler.source")
    system.api.create(tenant("acme"), at=system.now + BORN_AGAIN)


@_refused("a list that begins in one cluster and ends in another", "led to two clusters")
def _moving(system: System) -> None:
    record_closed_lifetime(system)
    system.api.create(tenant("acme"), at=system.now + BORN_AGAIN)

    def move(request: Any) -> None:
        if request.verb == "list":
            system.api.source_uid = "another-cluster"

    system.api.on_request = move


@pytest.mark.parametrize(("arrange", "says"), _REFUSED)
def test_refused(system: System, command: Command, arrange: Callable[[System], None], says: str) -> None:
    """Nothing is written, the exit code is that of a refusal, and the remedy says what to do."""
    arrange(system)
    before = all_rows(system.url)

    ran = command("reopen", "acme", "--note", "n")

    assert (ran.code, ran.out) == (3, "")
    assert says in ran.complaint["error"]
    assert ran.complaint["remedy"].startswith("Nothing was written")
    assert all_rows(system.url) == before


def test_a_name_in_two_namespaces_is_not_reopened(system: System, tmp_path: Path) -> None:
    record_closed_lifetime(system)
    with FakeApi(namespaced=True) as api:
        for namespace in ("a", "b"):
            api.create(tenant("acme", namespace=namespace), at=system.now + BORN_AGAIN)
        system.kubeconfig = str(api.kubeconfig(tmp_path / "namespaced"))
        with pytest.raises(NotPutRight, match="stands in more than one namespace: a, b"):
            reopen(system)


def test_a_file_does_not_stand_in_for_the_cluster(system: System, tmp_path: Path) -> None:
    record_closed_lifetime(system)
    system.api.create(tenant("acme"), at=system.now + BORN_AGAIN)
    file = tmp_path / "tenants.json"
    file.write_bytes(system.api.encoded("acme") or b"")
    lookup = look_up(FileSource(path=str(file), group="pieced.ch", org_label=ORG_LABEL), "acme")
    with pytest.raises(NotPutRight, match="and this is snapshot"), transaction(system.ledger) as cursor:
        lifetimes.reopen(cursor, "acme", settle=SETTLE, author=Author("elena", "n"), lookup=lookup)


def test_a_lifetime_of_this_second_counts_despite_a_slow_ledger_clock(system: System) -> None:
    record_closed_lifetime(system)
    system.api.clock = lambda: datetime.now(UTC) + timedelta(seconds=30)
    system.api.create(tenant("acme"))
    reopen(system)
    assert read_lifecycle(system)[2] is None


def test_the_role_of_the_runs_learns_who_may_reopen(system: System, command: Command, role_url: str) -> None:
    record_closed_lifetime(system)
    system.api.create(tenant("acme"), at=system.now + BORN_AGAIN)
    before = all_rows(system.url)

    ran = command("reopen", "acme", "--note", "n", DATABASE_URL=role_url)

    assert (ran.code, ran.out) == (1, "")
    assert "permission denied for sequence corrections_id_seq" in ran.complaint["error"]
    assert "DATABASE_URL of the owner" in ran.complaint["remedy"]
    assert all_rows(system.url) == before


def test_a_denied_reopening_is_not_a_missing_grant(system: System, role_url: str) -> None:
    record_closed_lifetime(system)
    system.api.create(tenant("acme"), at=system.now + BORN_AGAIN)
    with pytest.raises(DecisionDenied) as raised:
        reopen(system, url=role_url)
    assert not isinstance(raised.value, LedgerDenied)


def test_a_note_is_needed(system: System, command: Command) -> None:
    record_closed_lifetime(system)
    assert command("reopen", "acme").code == 64


# faults, and others at the same time


def test_of_two_who_reopen_at_once_one_is_refused(system: System, held: HeldLock) -> None:
    record_closed_lifetime(system)
    system.api.create(tenant("acme"), at=system.now + BORN_AGAIN)

    ended = held.call(lambda: reopen(system), 2)

    assert sorted(type(one).__name__ for one in ended) == ["NotPutRight", "PutRight"]
    (refused,) = (one for one in ended if isinstance(one, NotPutRight))
    assert "acme is open already" in str(refused)
    assert len(system.ledger.execute("SELECT FROM reconciler.closed_lives").fetchall()) == 1


def test_reopening_without_the_lock_in_time_writes_nothing(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    record_closed_lifetime(system)
    system.api.create(tenant("acme"), at=system.now + BORN_AGAIN)
    monkeypatch.setattr(database, "LOCK_TIMEOUT", 0.2)
    system.ledger.execute("SELECT pg_advisory_lock(7234897103)")
    before = all_rows(system.url)
    with pytest.raises(LedgerUnreachable):
        reopen(system)
    assert all_rows(system.url) == before


def test_a_lost_connection_writes_nothing_and_a_retry_succeeds(system: System, held: HeldLock) -> None:
    record_closed_lifetime(system)
    system.api.create(tenant("acme"), at=system.now + BORN_AGAIN)
    before = all_rows(system.url)

    def lost() -> None:
        system.ledger.execute(f"SELECT pg_terminate_backend(pid) {WAITING}".encode())

    (ended,) = held.call(lambda: reopen(system), meanwhile=lost)

    assert isinstance(ended, LedgerUnreachable)
    assert all_rows(system.url) == before
    assert (done := reopen(system).reopening)
    assert done.closed.org == ORG


def test_a_row_opened_by_hand_meanwhile_is_open_already(system: System) -> None:
    record_closed_lifetime(system)
    system.api.create(tenant("acme"), at=system.now + BORN_AGAIN)
    ended: list[object] = []

    def attempt() -> None:
        try:
            ended.append(reopen(system))
        except NotPutRight as refused:
            ended.append(refused)

    waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with closing(database.connect(system.url)) as owner:
        with owner.transaction():
            owner.execute(
                "UPDATE tenant_billing_lifecycle SET deleted_at = NULL, created_at = %s",
                [to_second(system, BORN_AGAIN)],
            )
            thread = threading.Thread(target=attempt)
            thread.start()
            while thread.is_alive() and not system.ledger.execute(waits).fetchall():
                time.sleep(0.01)
        thread.join()

    assert "acme is open already" in str(ended[0])
    assert system.ledger.execute("SELECT FROM reconciler.closed_lives").fetchall() == []


@pytest.mark.parametrize("table", ["tenant_billing_lifecycle", "reconciler.closed_lives"])
def test_where_one_of_the_two_writes_fails_neither_is_kept(system: System, table: str) -> None:
    record_closed_lifetime(system)
    system.api.create(tenant("acme"), at=system.now + BORN_AGAIN)
    system.ledger.execute(
        f"CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END'; "
        f"CREATE TRIGGER broken BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION broken()".encode()
    )
    before = all_rows(system.url)
    with pytest.raises(database.LedgerFault):
        reopen(system)
    assert all_rows(system.url) == before


def test_a_run_defers_what_was_reopened_meanwhile(system: System, held: HeldLock) -> None:
    """It would have closed a skill of the lifetime before, in a tenant that is open again."""
    record_closed_lifetime(system)
    record_event(system, "mail", "enabled", BORN)
    system.api.create(tenant("other"), at=system.now + BORN)
    system.api.create(tenant("acme", ["mail"], finalizers=["f"]), at=system.now + BORN)
    system.api.delete("acme", at=system.now + ENDED)

    def comes_back() -> None:
        system.api.finalize("acme")
        system.api.create(tenant("acme", ["mail"]), at=system.now + BORN_AGAIN)
        with transaction(held.holder) as cursor:
            lookup = look_up(make_cluster(system), "acme")
            lifetimes.reopen(cursor, "acme", settle=SETTLE, author=Author("elena", "n"), lookup=lookup)

    (outcome,) = held.call(system.run, meanwhile=comes_back)

    assert isinstance(outcome, Outcome)
    assert outcome.failure is None, outcome.failure
    assert [(one.reason, one.action) for one in outcome.findings if one.tenant == "acme"] == [
        ("skill_open_after_deletion", "defer")
    ]
    assert read_lifecycle(system) == (ORG, to_second(system, BORN_AGAIN), None)


# the lifetime before does no harm


@pytest.mark.parametrize("kind", ["enabled", "disabled"])
@pytest.mark.parametrize("packages", [["mail"], []])
def test_an_event_between_lifetimes_does_not_change_the_new_one(system: System, kind: str, packages: list[str]) -> None:
    """The portal wrote late. What is on is on from the new creation, what is off costs nothing."""
    record_closed_lifetime(system)
    record_event(system, "mail", "enabled", BORN)
    record_event(system, "mail", kind, ENDED + timedelta(days=1))
    system.api.create(tenant("acme", packages), at=system.now + BORN_AGAIN)
    reopen(system)

    outcome = system.run()

    expected = {
        ("enabled", 1): [],
        ("disabled", 1): [("skill_enable_unrecorded", "mail", to_second(system, BORN_AGAIN))],
        ("enabled", 0): [("skill_disable_unrecorded", "mail", to_second(system, BORN_AGAIN))],
        ("disabled", 0): [],
    }
    assert corrections_of(outcome) == expected[kind, len(packages)]
    assert corrections_of(system.run()) == []


def test_a_future_event_of_the_lifetime_before_is_only_reported(system: System) -> None:
    record_closed_lifetime(system)
    record_event(system, "mail", "disabled", timedelta(days=1))
    system.api.create(tenant("acme", ["mail"]), at=system.now + BORN_AGAIN)
    reopen(system)
    outcome = system.run()
    assert [(one.reason, one.action) for one in outcome.findings] == [("event_time_invalid", "report")]


def _days(first: timedelta, last: timedelta) -> st.SearchStrategy[timedelta]:
    return st.integers(first.days * 24, last.days * 24).map(lambda hours: timedelta(hours=hours))


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["mail", "wiki", None]),
        st.booleans(),
        st.one_of(_days(BORN, ENDED), _days(ENDED, BORN_AGAIN), st.just(ENDED), _days(BORN_AGAIN, timedelta(days=-1))),
    ),
    max_size=8,
)
"""What the portal wrote of acme: the skill or its suspension, whether it goes on or off, and when."""


@settings(max_examples=25)
@given(events=EVENTS, packages=st.sets(st.sampled_from(["mail", "wiki", "voice"])), suspended=st.booleans())
def test_one_run_makes_any_new_lifetime_true_from_its_beginning(
    system: System,
    events: list[tuple[str | None, bool, timedelta]],
    packages: set[str],
    suspended: bool,  # noqa: FBT001 - drawn
) -> None:
    for table in (
        *("tenant_billing_lifecycle", "tenant_skill_events", "tenant_suspension_events"),
        *("reconciler.corrections", "reconciler.runs", "reconciler.source", "reconciler.closed_lives"),
    ):
        system.ledger.execute(f"DELETE FROM {table}".encode())  # noqa: S608 - of these
    system.api.reset()
    record_closed_lifetime(system)
    for skill, on, at in events:
        kinds = ("disabled", "enabled") if skill else ("resumed", "suspended")
        record_event(system, skill, kinds[on], at)
    system.api.create(tenant("acme", sorted(packages), suspend=suspended), at=system.now + BORN_AGAIN)
    reported = system.run()
    assert corrections_of(reported) == []
    reopen(system)

    outcome = system.run()

    assert all(at and at >= to_second(system, BORN_AGAIN) for _, _, at in corrections_of(outcome))
    enabled = system.ledger.execute(
        "SELECT skill_id FROM (SELECT DISTINCT ON (skill_id) * FROM tenant_skill_events "
        "ORDER BY skill_id, occurred_at DESC, id DESC) latest WHERE event_kind = 'enabled'"
    ).fetchall()
    assert {skill for (skill,) in enabled} == packages
    last = system.ledger.execute(
        "SELECT event_kind FROM tenant_suspension_events ORDER BY occurred_at DESC, id DESC LIMIT 1"
    ).fetchone()
    assert (last == ("suspended",)) is suspended
    again = system.run()
    assert corrections_of(again) == []
    # what the portal recorded first may turn off what was never on
    assert {finding.reason for finding in again.findings} <= {Reason.HISTORY_CONTRADICTS}
    assert not any(counts(again).values())


def test_a_stamp_for_the_lifetime_before_spares_the_new_one(system: System, held: HeldLock) -> None:
    """The portal recorded the deletion itself, the tenant came back and was reopened, all while the run waited."""
    record_closed_lifetime(system)
    system.ledger.execute("UPDATE tenant_billing_lifecycle SET deleted_at = NULL")
    system.api.create(tenant("other"), at=system.now + BORN)

    def comes_back() -> None:
        system.ledger.execute("UPDATE tenant_billing_lifecycle SET deleted_at = %s", [system.now + ENDED])
        system.api.create(tenant("acme"), at=system.now + BORN_AGAIN)
        with transaction(held.holder) as cursor:
            lookup = look_up(make_cluster(system), "acme")
            lifetimes.reopen(cursor, "acme", settle=SETTLE, author=Author("elena", "n"), lookup=lookup)

    (outcome,) = held.call(system.run, meanwhile=comes_back)

    assert isinstance(outcome, Outcome)
    assert outcome.failure is None, outcome.failure
    assert [one.action for one in outcome.findings if one.tenant == "acme"] == ["defer"]
    assert read_lifecycle(system) == (ORG, to_second(system, BORN_AGAIN), None)


def test_a_suspension_ends_with_its_lifetime(system: System) -> None:
    """It runs from its creation, and is billed from then: nobody has suspended it."""
    record_closed_lifetime(system)
    record_event(system, None, "suspended", BORN)
    system.api.create(tenant("acme"), at=system.now + BORN_AGAIN)
    reopen(system)
    assert corrections_of(system.run()) == [("resumption_unrecorded", None, to_second(system, BORN_AGAIN))]
