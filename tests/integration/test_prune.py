"""Old clean runs are folded into one row a day, and no answer changes."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from operator import attrgetter
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from reconciler.db import prune as pruning
from reconciler.db.certificate import MAX_RUNS_SEARCHED, read_certificate
from reconciler.db.connection import Ledger, connect, transaction
from reconciler.db.prune import prune
from reconciler.db.queries import query
from reconciler.db.status import LAST_RUNS, read_status
from tests.support.command import Ran, invoke

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from reconciler.core.folding import Folded

    Connection = psycopg.Connection[Any]

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SETTLE: Final = MINUTE
AGE: Final = 90 * DAY
TENANTS: Final = "abc"
LONG_AGO: Final = 100
"""Days before today, on which the runs are that may go."""
INSERT: Final = """
INSERT INTO reconciler.runs (id, started_at, observed_at, mode, outcome, version, source, resource_version,
                             unverified, settle, counts, history, compared)
VALUES (%(id)s, %(at)s, %(at)s, 'run', %(outcome)s, '1', %(source)s, '7', %(unverified)s, %(settle)s, %(counts)s,
        %(history)s, %(compared)s)
"""


CLOSE: Final = """
INSERT INTO reconciler.closings (source, month, number, by, note, run_id, prices, accepted, total_chf,
                                 corrections_seen, skill_events_seen, suspension_events_seen)
VALUES ('', '2026-01-01', %s, 'me', 'why', %s, '{}', '[]', 0, 0, 0, 0)
"""
ACCEPTED: Final = {"org_unlabelled": {"report": 1}}
CLOSED_AFTER: Final = """
SELECT c.number, r.observed_at FROM reconciler.closings c LEFT JOIN reconciler.runs r ON r.id = c.run_id ORDER BY 1
"""


class Past(NamedTuple):
    """A run of long ago: on which day, and in which minute of it."""

    day: int
    minute: int
    outcome: str = "clean"
    source: str = "cluster"
    unverified: frozenset[str] = frozenset()
    settle: timedelta = SETTLE
    counts: dict[str, Any] = {}  # noqa: RUF012 - never changed
    gaps: int = 0
    compared: str = "all"

    @property
    def at(self) -> datetime:
        today = datetime.combine(datetime.now(UTC), time(), UTC)
        return today - (LONG_AGO - self.day) * DAY + self.minute * MINUTE


def record(ledger: Connection, *runs: Past, lately: frozenset[str] = frozenset()) -> list[Any]:
    """Write these runs and as many recent ones as `status` lists; return the ids of these."""
    recent = [
        {**_columns(Past(0, 0, unverified=lately)), "at": datetime.now(UTC) - (number + 1) * HOUR}
        for number in range(LAST_RUNS)
    ]
    rows = [_columns(run) for run in runs]
    with ledger.cursor() as cursor:
        cursor.executemany(INSERT, rows + recent)
    return [row["id"] for row in rows]


def _columns(run: Past) -> dict[str, Any]:
    history = Jsonb({"log": "reached", "seconds": 60, "changes": 0, "waiting": 0, "gaps": run.gaps})
    names = {**run._asdict(), "unverified": sorted(run.unverified), "counts": Jsonb(run.counts)}
    return {**names, "id": uuid4(), "at": run.at, "history": history}


def fold(url: str, age: timedelta = AGE, *, dry_run: bool = False) -> Folded:
    with Ledger(url) as ledger:
        return prune(ledger, age, dry_run=dry_run)


def left(ledger: Connection) -> list[tuple[int, str, int]]:
    """Return the rows of long ago: the hour of the day, the outcome, and how many runs were folded into each."""
    return ledger.execute(
        "SELECT extract(hour FROM observed_at AT TIME ZONE 'UTC')::int, outcome, folded FROM reconciler.runs "
        "WHERE observed_at < now() - interval '90 days' ORDER BY observed_at"
    ).fetchall()


# --- what is proven ----------------------------------------------------------------------------------------------

histories = st.fixed_dictionaries(
    {
        "runs": st.lists(
            st.builds(
                Past,
                day=st.integers(0, 1),
                minute=st.integers(0, 7).map(lambda part: part * 180),
                outcome=st.sampled_from(["clean"] * 6 + ["corrected", "drift", "blocked", "failed"]),
                source=st.sampled_from(["cluster"] * 4 + ["other", "snapshot"]),
                unverified=st.frozensets(st.sampled_from(TENANTS)),
                settle=st.sampled_from([timedelta(), SETTLE, 5 * HOUR]),
                counts=st.sampled_from([{}] * 4 + [ACCEPTED, {"skill_enable_unrecorded": {"defer": 1}}]),
                gaps=st.sampled_from([0] * 5 + [1]),
                compared=st.sampled_from(["all", "changed"]),
            ),
            max_size=14,
            unique_by=attrgetter("day", "minute"),
        ),
        "lately": st.frozensets(st.sampled_from(TENANTS)),
        "reports": st.dictionaries(st.sampled_from(TENANTS), st.integers(0, 16)),
        "closed": st.sets(st.integers(0, 13), max_size=2),
        "position": st.sampled_from([None, 0, 1, 50, 99]),
    }
)


def write(ledger: Connection, history: dict[str, Any]) -> None:
    """Write a history into an empty ledger."""
    ledger.execute(
        "TRUNCATE reconciler.runs, reconciler.reports, reconciler.source, reconciler.closings, reconciler.tenants, "
        "tenant_billing_lifecycle CASCADE"
    )
    ids = record(ledger, *history["runs"], lately=history["lately"])
    born = Past(0, 90).at
    for name in TENANTS:
        ledger.execute("INSERT INTO tenant_billing_lifecycle VALUES (%s, '1', %s)", [name, born])
        ledger.execute(
            "INSERT INTO reconciler.tenants (source, uid, tenant_name, resource_version, packages, suspended, "
            "suspend_is_set, created_at, since) VALUES ('cluster', %s, %s, '1', '{}', false, true, %s, %s)",
            [name, name, born, born],
        )
    for name, part in history["reports"].items():
        at = Past(0, 180 * part).at
        ledger.execute("INSERT INTO reconciler.reports (tenant_name, reason, since) VALUES (%s, 'r', %s)", [name, at])
    for number in history["closed"]:
        ledger.execute(CLOSE, [number + 1, ids[number] if number < len(ids) else uuid4()])
    position = None if history["position"] is None else Past(history["position"], 200).at
    ledger.execute(
        "INSERT INTO reconciler.source (identity, resource_version, position, position_at) "
        "VALUES ('cluster', '7', '7', %s)",
        [position],
    )


def answers(ledger: Connection) -> list[Any]:
    """Return what the certificate, `status`, `explain`, a run and a decision read of the runs."""
    first = Past(0, 0).at.date()
    with transaction(ledger) as cursor:
        found: list[Any] = [replace(read_status(cursor, settle=SETTLE), as_of=Past(0, 0).at)]
        for settle in (SETTLE, 3 * HOUR):
            found += [read_certificate(cursor, first, first + days * DAY, settle=settle) for days in (1, 60)]
            for name in TENANTS:
                asked = {"tenant": name, "uid": name, "settle": settle, "max_runs": MAX_RUNS_SEARCHED}
                found += [cursor.execute(query(one), asked).fetchall() for one in ("known_of_row", "explain_verified")]
        found += cursor.execute(CLOSED_AFTER).fetchall()
        ((at,),) = cursor.execute("SELECT position_at FROM reconciler.source").fetchall()
        lists = {"source": "cluster", "last_at": at, "max_runs": MAX_RUNS_SEARCHED}
        found += cursor.execute(query("earlier_lists"), lists).fetchall()
    return found


@settings(max_examples=50)
@given(histories)
def test_no_answer_changes_whatever_the_history(ledger: Connection, ledger_url: str, history: dict[str, Any]) -> None:
    write(ledger, history)
    counted = "SELECT outcome, count(*), sum(1 + folded) FROM reconciler.runs GROUP BY outcome ORDER BY outcome"
    before, runs = answers(ledger), ledger.execute(counted).fetchall()

    done = fold(ledger_url)

    assert answers(ledger) == before
    after = ledger.execute(counted).fetchall()
    assert [(outcome, number) for outcome, _, number in after] == [(outcome, number) for outcome, _, number in runs]
    assert sum(number for _, number, _ in runs) - sum(number for _, number, _ in after) == done.runs
    assert fold(ledger_url).runs == 0


# --- what stays --------------------------------------------------------------------------------------------------


def test_a_day_of_clean_runs_becomes_its_last_one(ledger: Connection, ledger_url: str) -> None:
    record(ledger, *(Past(day, hour * 60) for day in (0, 1) for hour in range(24)))
    done = fold(ledger_url)
    assert (done.runs, done.days) == (46, 2)
    assert left(ledger) == [(23, "clean", 23)] * 2


def test_a_report_that_people_accept_is_no_hindrance(ledger: Connection, ledger_url: str) -> None:
    record(ledger, *(Past(0, minute, unverified=frozenset("a"), counts=ACCEPTED) for minute in range(5)))
    assert fold(ledger_url).runs == 4


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(Past(0, 60, "drift"), id="drift"),
        pytest.param(Past(0, 60, "blocked"), id="refused"),
        pytest.param(Past(0, 60, "failed"), id="failed"),
        pytest.param(
            Past(0, 60, counts={"skill_enable_unrecorded": {"defer": 1}}), id="clean, with something deferred"
        ),
        pytest.param(Past(0, 60, counts=ACCEPTED), id="clean, with an accepted report that was closed that day"),
        pytest.param(Past(0, 60, gaps=1), id="clean, with time not proven"),
        pytest.param(Past(0, 60, source="snapshot"), id="clean, over a file"),
    ],
)
def test_a_run_that_says_more_stays(ledger: Connection, ledger_url: str, run: Past) -> None:
    record(ledger, Past(0, 0), run, Past(0, 120))
    assert fold(ledger_url).runs == 1
    assert [hour for hour, _, _ in left(ledger)] == [1, 2]


def test_the_run_that_a_closing_names_stays(ledger: Connection, ledger_url: str) -> None:
    _, named, _ = record(ledger, Past(0, 0), Past(0, 60), Past(0, 120))
    ledger.execute(CLOSE, [1, named])
    assert fold(ledger_url).runs == 1
    assert [hour for hour, _, _ in left(ledger)] == [1, 2]


def test_the_lists_since_the_position_stay(ledger: Connection, ledger_url: str) -> None:
    """Their log was never reached: a change that it shows one day is dated by them."""
    record(ledger, *(Past(day, minute) for day in range(3) for minute in range(2)))
    ledger.execute(
        "INSERT INTO reconciler.source (identity, position, position_at) VALUES ('cluster', '7', %s)", [Past(1, 0).at]
    )
    assert (fold(ledger_url).runs, len(left(ledger))) == (1, 5)


@pytest.mark.parametrize(
    ("days", "went"), [pytest.param(LONG_AGO - 1, 1, id="ended before"), pytest.param(LONG_AGO, 0, id="ends then")]
)
def test_only_days_that_ended_before_the_age_are_folded(
    ledger: Connection, ledger_url: str, days: int, went: int
) -> None:
    record(ledger, Past(0, 0), Past(0, 1))
    assert fold(ledger_url, days * DAY).runs == went


def test_the_runs_that_status_lists_stay(ledger: Connection, ledger_url: str) -> None:
    """Nobody has run it for three months."""
    record(ledger, *(Past(0, minute) for minute in range(LAST_RUNS)))
    ledger.execute("DELETE FROM reconciler.runs WHERE observed_at > now() - interval '1 day'")
    assert fold(ledger_url).runs == 0


# --- how it goes about it ----------------------------------------------------------------------------------------


def test_an_interrupted_fold_goes_on_where_it_was(
    ledger: Connection, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(ledger, *(Past(day, minute) for day in range(3) for minute in range(4)))
    fold_day, seen = pruning._fold_day, []  # noqa: SLF001 - it ends in the middle

    def interrupted(cursor: Any, day: datetime, *, dry_run: bool) -> int:
        seen.append(day)
        went = fold_day(cursor, day, dry_run=dry_run)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return went

    with monkeypatch.context() as patch:
        patch.setattr(pruning, "_fold_day", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fold(ledger_url)
    assert [folded for _, _, folded in left(ledger)] == [3, *[0] * 8]
    assert fold(ledger_url).runs == 6
    assert [folded for _, _, folded in left(ledger)] == [3, 3, 3]


def test_two_at_once_count_each_run_once(ledger: Connection, ledger_url: str) -> None:
    record(ledger, *(Past(day, minute) for day in range(5) for minute in range(40)))
    both = [Thread(target=fold, args=[ledger_url]) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert [folded for _, _, folded in left(ledger)] == [39] * 5


def test_it_waits_for_a_run_that_writes(ledger: Connection, ledger_url: str) -> None:
    record(ledger, Past(0, 0), Past(0, 1))
    with closing(connect(ledger_url)) as writing:
        with writing.transaction():
            writing.execute(query("lock"))
            waiting = Thread(target=fold, args=[ledger_url])
            waiting.start()
            waiting.join(0.5)
            assert waiting.is_alive()
            assert len(left(ledger)) == 2
        waiting.join()
    assert len(left(ledger)) == 1


# --- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def command(ledger_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """`reconciler prune` over the ledger."""

    def run(*arguments: str, url: str = ledger_url) -> Ran:
        return invoke(monkeypatch, capsys, "prune", *arguments, environment={"DATABASE_URL": url})

    return run


def test_the_command_says_what_went(ledger: Connection, command: Callable[..., Ran]) -> None:
    record(ledger, Past(0, 0), Past(0, 1), Past(1, 0), Past(1, 1), Past(1, 2))
    shown = command("--dry-run")
    assert shown.code == 0
    assert re.fullmatch(r"3 clean runs of 2 days before .* would be folded; nothing was written.\n", shown.out)
    assert len(left(ledger)) == 5
    done = command()
    assert (done.code, "3 clean runs of 2 days before" in done.out) == (0, True)
    assert "VACUUM FULL reconciler.runs" in done.out
    assert len(left(ledger)) == 2
    assert "Nothing to fold" in command().out


def test_fewer_days_than_status_looks_back_are_refused(command: Callable[..., Ran]) -> None:
    assert command("--keep-days", "29").code == 64


@pytest.mark.parametrize("arguments", [(), ("--dry-run",)])
def test_the_role_of_the_runs_may_only_look(
    ledger: Connection, command: Callable[..., Ran], role_url: str, arguments: tuple[str, ...]
) -> None:
    record(ledger, Past(0, 0), Past(0, 1))
    done = command(*arguments, url=role_url)
    if arguments:
        assert (done.code, "1 clean run of 1 day" in done.out) == (0, True)
    else:
        assert (done.code, "the owner of the ledger's tables" in done.complaint["remedy"]) == (1, True)
    assert len(left(ledger)) == 2
