from __future__ import annotations

import random
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.compare import compare
from reconciler.core.model import FIRST, LAST, UNKNOWN_ORG, Event, Finding, Lifecycle, Observed, Recorded
from reconciler.core.reasons import Reason
from reconciler.db import candidates
from reconciler.db.candidates import (
    MAX_SKILLS,
    Candidates,
    Renewed,
    RepeatedTenant,
    TenantSpool,
    find_candidates,
    stage,
)
from reconciler.db.connection import transaction
from reconciler.db.queries import query
from reconciler.db.spool import BLOCK_BYTES, SpoolFault
from tests.support.comparison import BORN, DAY, HOUR, NASTY, live_tenant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Connection = psycopg.Connection[Any]

WITHIN = settings(max_examples=25)


@contextmanager
def spooled(tenants: Iterable[Observed]) -> Iterator[TenantSpool]:
    with TenantSpool() as spool:
        for tenant in tenants:
            spool.add(tenant)
        yield spool


def recalled(ledger: Connection, tenants: Iterable[Observed], **how: Any) -> Candidates:
    """Look at these tenants beside the ledger, in a transaction of its own."""
    with spooled(tenants) as spool, transaction(ledger) as cursor:
        return find_candidates(cursor, stage(cursor, spool), **how)


def drift(found: Candidates) -> dict[str, list[Finding]]:
    """Return what compare finds of the tenants that came back, where it finds anything."""
    findings = {pair.recorded.name: list(compare(*pair, as_of=found.as_of, settle=SETTLE)) for pair in found.candidates}
    return {name: some for name, some in findings.items() if some}


# Any ledger, any cluster: what a seed makes of them, and what recall must say of them.

SETTLE = HOUR

TIMES = {
    "-infinity": FIRST,
    "infinity": LAST,
    "0044-03-15 12:00:00+00 BC": FIRST,
    "0001-01-01 00:00:00+00": FIRST,
    "9999-12-31 00:00:00+00": LAST,
    "294276-12-31 23:59:59+00": LAST,
}
"""Times that are no Python datetime or no past, and what they are brought to."""


def _instant(text: str) -> datetime:
    return TIMES[text] if text in TIMES else datetime.fromisoformat(text)


@dataclass(kw_only=True)
class Ledger:
    """The rows of a ledger, times as PostgreSQL writes them, and the resources of a cluster."""

    observed: list[Observed] = field(default_factory=list)
    lifecycle: list[tuple[str, str, str, str | None]] = field(default_factory=list)
    skills: list[tuple[int, str, str, str, str, str]] = field(default_factory=list)
    suspensions: list[tuple[int, str, str, str, str]] = field(default_factory=list)
    payers: list[tuple[str, str, int, int | None]] = field(default_factory=list)
    """The organisations that pay for days, from today on: the tenant, who, and from when until when."""
    continues: dict[str, bool] = field(default_factory=dict)
    """The uids of names that had another one before, and whether each was taken for the same tenant."""

    @property
    def renewed(self) -> Renewed:
        """Every second of them, as the list shows them; `write` has the others remembered."""
        following = tuple(self.continues)[::2]
        return Renewed("cluster", following, tuple(uid for uid in following if self.continues[uid]))

    def write(self, ledger: Connection) -> None:
        with ledger.transaction(), ledger.cursor() as cursor:
            cursor.execute(
                "TRUNCATE public.tenant_billing_lifecycle, public.tenant_skill_events, "
                "public.tenant_suspension_events, reconciler.tenants, reconciler.payers"
            )
            cursor.executemany(
                "INSERT INTO reconciler.payers "
                "SELECT '', %s, 1, %s, day + %s::int, coalesce(day + %s::int, 'infinity') "
                "FROM (SELECT (now() AT TIME ZONE 'UTC')::date) AS today (day)",
                self.payers,
            )
            cursor.executemany(
                "INSERT INTO reconciler.tenants (source, uid, tenant_name, resource_version, packages, suspended, "
                "suspend_is_set, created_at, since, follows, continues) "
                "VALUES (%s, %s, '', '1', '{}', false, true, now(), now(), %s, %s)",
                [
                    *(("cluster", uid, "before", self.continues[uid]) for uid in [*self.continues][1::2]),
                    # what this list shows counts, and neither another cluster nor who follows nobody
                    *(("cluster", uid, "before", not self.continues[uid]) for uid in self.renewed.following),
                    *(("other", tenant.uid, "before", False) for tenant in self.observed if tenant.uid),
                    *(
                        ("cluster", tenant.uid, None, False)
                        for tenant in self.observed
                        if tenant.uid and tenant.uid not in self.continues
                    ),
                ],
            )
            for statement, rows in (
                ("COPY public.tenant_billing_lifecycle FROM STDIN", self.lifecycle),
                ("COPY public.tenant_skill_events FROM STDIN", self.skills),
                ("COPY public.tenant_suspension_events FROM STDIN", self.suspensions),
            ):
                with cursor.copy(statement) as copy:
                    for row in rows:
                        copy.write_row(row)

    def pairs(self) -> dict[str, tuple[Observed | None, Recorded]]:
        """Return both sides of every tenant, worked out without a database."""
        skills: dict[str, dict[str, Event]] = {}
        suspensions: dict[str, Event] = {}
        for id_, tenant, _, skill, kind, at in sorted(self.skills, key=lambda event: (_order(event[-1]), event[0])):
            skills.setdefault(tenant, {})[skill] = Event(id_, kind, _instant(at))
        for id_, tenant, _, kind, at in sorted(self.suspensions, key=lambda event: (_order(event[-1]), event[0])):
            suspensions[tenant] = Event(id_, kind, _instant(at))
        lifecycles = {
            tenant: Lifecycle(org=org, created_at=_instant(born), deleted_at=None if gone is None else _instant(gone))
            for tenant, org, born, gone in self.lifecycle
        }
        observed = {tenant.name: tenant for tenant in self.observed}
        paid = {name: org for name, org, first, until in self.payers if first <= 0 < (1 if until is None else until)}
        renewed = {tenant.name: self.continues.get(tenant.uid or "") for tenant in self.observed}
        return {
            name: (
                observed.get(name),
                Recorded(
                    name=name,
                    lifecycle=lifecycles.get(name),
                    skills=skills.get(name, {}),
                    suspension=suspensions.get(name),
                    follows=renewed.get(name) is False,
                    continues=renewed.get(name) is True,
                    payer=paid.get(name),
                ),
            )
            for name in {*observed, *lifecycles, *skills, *suspensions}
        }


def _order(text: str) -> tuple[int, datetime]:
    """Return where PostgreSQL sorts a time: two that are brought to the same instant may differ there."""
    known = list(TIMES)
    ranks = {text: number for number, text in enumerate((known[0], known[2], known[3], "", *known[4:], known[1]))}
    return ranks.get(text, ranks[""]), _instant(text)


def _begins_apart(row: Lifecycle | None, tenant: Observed) -> bool:
    """True if there is a row, and it does not begin when the resource was created, or was asked to go."""
    times = [time for time in (tenant.created_at, tenant.deleting_at) if time]
    return row is not None and bool(times) and row.created_at != max(times)


class Author:
    """Makes a ledger and a cluster that mostly agree, as a seed has it."""

    def __init__(self, seed: int, now: datetime) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a seed, so that a failure can be seen again
        self.now = now
        self.ids = list(range(1, 20_000))
        self.random.shuffle(self.ids)
        self.books = Ledger()
        self.odd = 0.02

    def often(self, share: float) -> bool:
        return self.random.random() < share

    def time(self) -> str:
        """Return a time that is mostly past; seldom enough apart from another that ties are frequent."""
        if self.often(self.odd):
            return self.random.choice([*TIMES, (self.now + timedelta(days=self.random.choice([1, 400]))).isoformat()])
        return (BORN + timedelta(hours=self.random.randrange(6))).isoformat()

    def text(self, prefix: str) -> str:
        return prefix + (self.random.choice(NASTY) if self.often(0.3) else "")

    def write(self, tenants: int) -> Ledger:
        for number in range(tenants):
            self.tenant(self.text(f"t{number}") if self.often(0.5) else self.text("") + str(number))
        return self.books

    def tenant(self, name: str) -> None:
        org = self.random.choice(["1", "2", self.text("o")])
        packages = {self.text(self.random.choice("abcdef")) for _ in range(self.random.randrange(4))}
        suspended = self.often(0.2)
        fate = self.random.choices(["live", "gone", "deleting", "unrecorded", "events"], [80, 8, 4, 4, 4])[0]
        if fate != "unrecorded":
            self.events(name, org, packages if fate == "live" or self.often(0.1) else set(), suspended=suspended)
        if fate not in {"unrecorded", "events"}:
            deleted = fate != "live" if self.often(0.9) else fate == "live"
            recorded_org = UNKNOWN_ORG if self.often(0.03) else "moved" if self.often(0.03) else org
            began = self.time() if self.often(0.2) else BORN.isoformat()
            self.books.lifecycle.append((name, recorded_org, began, self.time() if deleted else None))
            if self.often(0.1):
                who = self.random.choice([org, "moved"])
                self.books.payers.append((name, who, self.random.choice([-9, 0, 1]), self.random.choice([None, 9])))
                if self.often(0.2):
                    self.books.payers[-1] = (name, who, -9, self.random.choice([0, 1]))
            if self.often(0.1):
                self.books.continues[f"u-{name}"] = self.often(0.5)
        if fate not in {"gone", "events"}:
            self.books.observed.append(self.resource(name, org, packages, fate, suspended=suspended))

    def events(self, name: str, org: str, on: set[str], *, suspended: bool) -> None:
        """Append a history that mostly ends as it should."""
        for skill in on | {self.text("off")}:
            kinds = self.random.choices(["enabled", "disabled"], k=self.random.randrange(4))
            times = sorted((self.time() for _ in range(1 + len(kinds))), key=_order)
            for kind, time in zip([*kinds, "enabled" if skill in on else "disabled"], times, strict=True):
                self.books.skills.append((self.ids.pop(), name, org, skill, kind, time))
        if suspended or self.often(0.3):
            times = sorted((self.time() for _ in range(2)), key=_order)
            for kind, time in zip(["resumed", "suspended" if suspended else "resumed"], times, strict=True):
                self.books.suspensions.append((self.ids.pop(), name, org, kind, time))

    def resource(self, name: str, org: str, packages: set[str], fate: str, *, suspended: bool) -> Observed:
        if self.often(0.03):
            return Observed(name=name, problem=self.text("it is"))
        moved = {self.text("new")} if self.often(0.05) else set()
        return Observed(
            name=name,
            uid=f"u-{name}",
            org=None if self.often(0.03) else org,
            created_at=self.now + DAY if self.often(0.02) else BORN,
            deleting_at=(self.now + self.random.choice([DAY, -DAY])) if fate == "deleting" else None,
            generation=self.random.choice([None, 1, 2, 2**63 - 1]),
            packages=tuple(sorted(packages | moved)),
            suspended=suspended is not self.often(0.05),
            last_modified_at=self.random.choice([None, self.now]),
        )


def _now(ledger: Connection) -> datetime:
    (now,) = ledger.execute(query("clock")).fetchone() or (None,)
    assert isinstance(now, datetime)
    return now


@pytest.mark.parametrize("seed", range(4))
def test_what_comes_back_is_the_latest_state_of_every_tenant_that_differs(ledger: Connection, seed: int) -> None:
    books = Author(seed, _now(ledger)).write(300)
    books.write(ledger)
    all_sinks = recalled(ledger, books.observed, everyone=True, settle=SETTLE, renewed=books.renewed)
    some = recalled(ledger, books.observed, settle=SETTLE, renewed=books.renewed)
    assert {pair.recorded.name: pair for pair in all_sinks.candidates} == books.pairs()
    assert drift(some) == drift(all_sinks)
    assert 0 < len(drift(all_sinks)) < len(some.candidates) + 1 < len(all_sinks.candidates)
    assert all_sinks[1:3] == some[1:3] == (len(books.observed), sum(gone is None for *_, gone in books.lifecycle))
    names = [pair.recorded.name for pair in all_sinks.candidates]
    assert names == sorted(names)


@pytest.mark.parametrize("seed", range(2))
def test_nobody_comes_back_who_is_plainly_true(ledger: Connection, seed: int) -> None:
    """Where no time is odd, the filter lets nobody through without a finding."""
    author = Author(seed, _now(ledger))
    author.odd = 0
    books = author.write(300)
    books.write(ledger)
    some = recalled(ledger, books.observed, settle=SETTLE, renewed=books.renewed)
    assert {pair.recorded.name for pair in some.candidates} == set(drift(some))


def _at_once(ledger: Connection) -> None:
    """Have this connection see each form of parallel work as worthwhile, even over a small ledger."""
    ledger.execute("ANALYZE public.tenant_skill_events")
    for cost in ("parallel_setup_cost", "parallel_tuple_cost"):
        ledger.execute("SELECT set_config(%s, '0', false)", [cost])


def _plan(ledger: Connection, tenants: Iterable[Observed]) -> str:
    """Return how PostgreSQL ran the query that finds the tenants that could differ."""
    with spooled(tenants) as spool, transaction(ledger) as cursor:
        find_candidates(cursor, stage(cursor, spool))
        ((*_, middle, _),) = cursor.execute(query("counts"), {"observed": None, "recorded": None}).fetchall()
        cursor.execute(
            b"EXPLAIN (ANALYZE) " + query("find_candidates"),
            {
                "names": None,
                "everyone": False,
                "settle": HOUR,
                "first": FIRST,
                "last": LAST,
                "middle": middle,
                "source": None,
            }
            | {"max_skills": MAX_SKILLS, "source": None, "following": [], "continuing": []}
            | {"left_out_skills": [], "left_out_suspensions": []},
        )
        return "\n".join(line for (line,) in cursor)


def test_a_record_too_long_to_hold_is_a_problem(ledger: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "MAX_SKILLS", 2)
    ledger.execute("INSERT INTO tenant_billing_lifecycle VALUES ('acme', '2871', now() - interval '1 day')")
    ledger.execute(
        "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind) "
        "SELECT 'acme', '2871', 's' || number, 'enabled' FROM generate_series(1, 3) AS number"
    )
    ((found,), *_) = recalled(ledger, [])
    assert (found.recorded.problem, found.recorded.skills) == (
        "More than 2 skills are on or were just turned off.",
        {},
    )


@pytest.mark.parametrize("workers", [0, 8])
def test_two_halves_read_at_once_or_in_turn_are_the_whole(ledger: Connection, workers: int) -> None:
    books = Author(5, _now(ledger)).write(300)
    books.write(ledger)
    _at_once(ledger)
    # how many workers there are is known only when the plan is executed: it is the same where there is none
    ledger.execute("SELECT set_config('max_parallel_workers', %s, false)", [str(workers)])
    plan = _plan(ledger, books.observed)
    assert "Parallel Append" in plan
    assert ("Workers Launched: 0" in plan) is (workers == 0)
    now = {"settle": SETTLE, "renewed": books.renewed}
    all_sinks = recalled(ledger, books.observed, everyone=True, **now)
    assert {pair.recorded.name: pair for pair in all_sinks.candidates} == books.pairs()
    assert drift(recalled(ledger, books.observed, **now)) == drift(all_sinks)
    some = [*books.pairs()][::7]
    assert {pair.recorded.name for pair in recalled(ledger, books.observed, everyone=True, names=some).candidates} == {
        *some
    }


@pytest.mark.parametrize("analyzed", [False, True])
def test_the_events_halve_where_the_servers_statistics_say(ledger: Connection, *, analyzed: bool) -> None:
    """Without them the lower half is empty, and nobody is missing: the tests above are of that kind."""
    at = BORN.isoformat()
    ledger.execute("ALTER TABLE public.tenant_skill_events SET (autovacuum_enabled = false)")
    Ledger(skills=[(n, f"t{n:04}", "1", "a", "enabled", at) for n in range(1, 2001)]).write(ledger)
    if analyzed:
        ledger.execute("ANALYZE public.tenant_skill_events")
    with spooled([]) as spool, transaction(ledger) as cursor:
        find_candidates(cursor, stage(cursor, spool))
        (counts,) = cursor.execute(query("counts"), {"observed": None, "recorded": None}).fetchall()
    assert "t0980" < counts[4] < "t1020" if analyzed else counts[4] == ""


@pytest.mark.parametrize("start", [*TIMES, "4714-11-24 00:00:00+00 BC"])
def test_a_row_out_of_time_never_hides_its_tenant(ledger: Connection, start: str) -> None:
    Ledger(lifecycle=[("acme", "2871", start, None)]).write(ledger)
    (reason,) = [finding.reason for (finding,) in drift(recalled(ledger, [live_tenant()], settle=SETTLE)).values()]
    is_past = TIMES.get(start, FIRST) == FIRST
    assert reason is (Reason.TENANT_RECREATED if is_past else Reason.CREATION_MISRECORDED)


@pytest.mark.parametrize("table", ["skills", "suspensions"])
def test_an_event_out_of_time_never_hides_behind_a_state_that_agrees(ledger: Connection, table: str) -> None:
    hidden = []
    for time in TIMES:
        books = Ledger(
            observed=[live_tenant(packages=("a",) if table == "skills" else (), suspended=table == "suspensions")],
            lifecycle=[("acme", "2871", BORN.isoformat(), None)],
        )
        if table == "skills":
            books.skills = [(1, "acme", "2871", "a", "enabled", time)]
        else:
            books.suspensions = [(1, "acme", "2871", "suspended", time)]
        books.write(ledger)
        all_sinks = drift(recalled(ledger, books.observed, everyone=True))
        assert [finding.reason for finding in all_sinks["acme"]] == [Reason.EVENT_TIME_INVALID]
        if drift(recalled(ledger, books.observed)) != all_sinks:
            hidden.append(time)
    assert hidden == []


def test_an_old_event_in_the_future_leaves_a_tenant_true(ledger: Connection) -> None:
    Ledger(
        lifecycle=[("acme", "2871", BORN.isoformat(), None)],
        skills=[
            (1, "acme", "2871", "a", "disabled", "-infinity"),
            (2, "acme", "2871", "a", "enabled", BORN.isoformat()),
        ],
    ).write(ledger)
    assert drift(recalled(ledger, [live_tenant(packages=("a",))], everyone=True)) == {}


LATEST: list[tuple[list[tuple[int, int, str]], tuple[int, str]]] = [
    ([(1, 0, "enabled"), (2, 0, "disabled")], (2, "disabled")),
    ([(2, 0, "enabled"), (1, 0, "disabled")], (2, "enabled")),
    ([(9, 0, "enabled"), (3, 1, "disabled")], (3, "disabled")),
    ([(3, 1, "disabled"), (9, 0, "enabled"), (5, 1, "enabled")], (5, "enabled")),
]
"""Ids, hours and kinds in the order in which they were inserted; and which of them is the latest."""


def test_the_latest_event_has_the_latest_time_then_the_highest_id(ledger: Connection) -> None:
    kinds = {"enabled": "suspended", "disabled": "resumed"}
    for events, (id_, kind) in LATEST:
        rows = [(number, kind, (BORN + hours * HOUR).isoformat()) for number, hours, kind in events]
        Ledger(
            skills=[(number, "acme", "1", "a", kind, at) for number, kind, at in rows],
            suspensions=[(number, "acme", "1", kinds[kind], at) for number, kind, at in rows],
        ).write(ledger)
        (pair,) = recalled(ledger, []).candidates
        assert pair.recorded.skills["a"][:2] == (id_, kind)
        assert pair.recorded.suspension is not None
        assert pair.recorded.suspension[:2] == (id_, kinds[kind])


def test_an_event_finer_than_a_second_is_told_apart(ledger: Connection) -> None:
    at = BORN + timedelta(microseconds=1)
    Ledger(
        skills=[
            (2, "acme", "1", "a", "enabled", BORN.isoformat()),
            (1, "acme", "1", "a", "disabled", at.isoformat()),
        ]
    ).write(ledger)
    (pair,) = recalled(ledger, []).candidates
    assert pair.recorded.skills == {"a": Event(1, "disabled", at)}


_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6)
_ids = _texts | st.sampled_from(NASTY) | st.lists(st.sampled_from(NASTY), min_size=1, max_size=4).map("".join)
_instants = st.none() | st.datetimes(timezones=st.just(UTC))
_tenants = st.builds(
    Observed,
    name=_ids,
    namespace=st.just("") | _ids,
    uid=st.none(),
    problem=st.none() | _ids,
    org=st.none() | _ids,
    created_at=_instants,
    deleting_at=_instants,
    generation=st.none() | st.integers(-(2**63), 2**63 - 1),
    packages=st.sets(_ids, max_size=4).map(lambda ids: tuple(sorted(ids))),
    suspended=st.booleans(),
    suspended_at=_instants,
    last_modified_at=_instants,
    packages_written_at=_instants,
    suspend_written_at=_instants,
    suspend_is_set=st.booleans(),
    last_modified_by=st.none() | _ids,
    resource_version=st.none() | _ids,
)


@WITHIN
@given(st.lists(_tenants, max_size=12, unique_by=lambda tenant: tenant.name))
def test_a_tenant_comes_back_as_it_was_observed(ledger: Connection, tenants: list[Observed]) -> None:
    tenants = [tenant._replace(uid=f"{number}\n{tenant.name}") for number, tenant in enumerate(tenants)]
    found = recalled(ledger, tenants, everyone=True)
    assert [pair.observed for pair in found.candidates] == sorted(tenants, key=lambda tenant: tenant.name)
    assert {pair.recorded for pair in found.candidates if pair.recorded != Recorded(name=pair.recorded.name)} == set()
    assert found.tenants_observed == len(tenants)


def test_a_nasty_text_is_the_same_on_both_sides(ledger: Connection) -> None:
    at = BORN.isoformat()
    Ledger(
        lifecycle=[(text, text, at, None) for text in NASTY],
        skills=[(number, text, text, text, "enabled", at) for number, text in enumerate(NASTY)],
    ).write(ledger)
    tenants = {text: live_tenant(name=text, uid=text, org=text, packages=(text,)) for text in NASTY}
    assert recalled(ledger, tenants.values()).candidates == []
    assert {pair.recorded.name: pair for pair in recalled(ledger, tenants.values(), everyone=True).candidates} == {
        text: (
            tenants[text],
            Recorded(
                name=text,
                lifecycle=Lifecycle(org=text, created_at=BORN),
                skills={text: Event(number, "enabled", BORN)},
            ),
        )
        for number, text in enumerate(NASTY)
    }


def test_a_name_in_two_namespaces_is_unreadable_and_counts_once(ledger: Connection) -> None:
    Ledger(lifecycle=[("acme", "2871", BORN.isoformat(), None)]).write(ledger)
    found = recalled(
        ledger,
        [
            live_tenant(uid="1", namespace="b", packages=("x",)),
            live_tenant(uid="2", namespace="a, c", deleting_at=BORN),
            live_tenant(uid="3", namespace="a", problem="it is"),
            live_tenant(uid="4", name="beta"),
        ],
    )
    problem = "the name stands in more than one namespace: a, a, c, b"
    assert [pair.observed for pair in found.candidates] == [
        Observed(name="acme", problem=problem),
        live_tenant(uid="4", name="beta"),
    ]
    assert found.tenants_observed == 2
    assert [finding.reason for finding in drift(found)["acme"]] == [Reason.TENANT_UNREADABLE]


REPEATED = [
    ([live_tenant(uid="1"), live_tenant(uid="2")], "acme"),
    ([live_tenant(uid=None), live_tenant(uid=None)], "acme"),
    ([live_tenant(uid="1", namespace="shop"), live_tenant(uid="2", namespace="shop")], "shop/acme"),
    ([live_tenant(uid="1"), live_tenant(uid="1", name="beta")], "acme"),
    ([live_tenant(uid="1", namespace="a"), live_tenant(uid="1", namespace="b")], "a/acme"),
    ([live_tenant(uid="1"), live_tenant(uid="1", problem="it is")], "acme"),
]


def test_a_list_that_names_a_resource_twice_is_not_believed(ledger: Connection) -> None:
    for tenants, named in REPEATED:
        with pytest.raises(RepeatedTenant, match=f"names {named} twice") as repeated:
            recalled(ledger, tenants)
        assert "Nothing was written" in repeated.value.remedy
        assert repeated.value.exit_code == 1


def test_tenants_without_a_uid_are_not_the_same(ledger: Connection) -> None:
    assert recalled(ledger, [live_tenant(uid=None), live_tenant(uid=None, name="beta")]).tenants_observed == 2


def test_names_are_looked_at_alone(ledger: Connection) -> None:
    books = Ledger(
        observed=[live_tenant(name=name, uid=name) for name in ("acme", "beta", "new")],
        lifecycle=[(name, "2871", BORN.isoformat(), None) for name in ("acme", "beta", "gone")],
        skills=[(n, name, "1", "a", "enabled", BORN.isoformat()) for n, name in enumerate(["acme", "gone", "lost"])],
        suspensions=[(n, name, "1", "suspended", BORN.isoformat()) for n, name in enumerate(["beta", "lost", "sus"])],
    )
    books.write(ledger)
    whole = {pair.recorded.name: pair for pair in recalled(ledger, books.observed, everyone=True).candidates}
    assert set(whole) == {"acme", "beta", "gone", "lost", "new", "sus"}
    for names in ([], ["acme"], ["gone", "new"], ["lost"], ["sus", "beta", "nobody"], [*whole]):
        found = recalled(ledger, books.observed, everyone=True, names=names)
        assert {pair.recorded.name: pair for pair in found.candidates} == {n: whole[n] for n in names if n in whole}


def test_an_empty_ledger_and_one_of_closed_tenants_are_told_apart(ledger: Connection) -> None:
    empty = recalled(ledger, [live_tenant()])
    assert (empty.tenants_observed, empty.tenants_recorded, empty.ledger_is_empty) == (1, 0, True)
    Ledger(lifecycle=[("acme", "1", BORN.isoformat(), BORN.isoformat())]).write(ledger)
    closed = recalled(ledger, [])
    assert (closed.tenants_observed, closed.tenants_recorded, closed.ledger_is_empty) == (0, 0, False)
    assert closed.candidates == []


def test_it_is_compared_as_of_the_transactions_own_clock(ledger: Connection) -> None:
    before = _now(ledger)
    found = recalled(ledger, [])
    assert before <= found.as_of <= _now(ledger)
    assert found.as_of.utcoffset() == timedelta()


def test_the_staged_tenants_are_gone_with_the_transaction(ledger: Connection) -> None:
    recalled(ledger, [live_tenant()])
    assert recalled(ledger, []).tenants_observed == 0
    assert ledger.execute("SELECT to_regclass('staged')").fetchone() == (None,)


def test_times_are_utc_whatever_the_sessions_time_zone(ledger: Connection) -> None:
    ledger.execute("SET timezone TO 'Asia/Kolkata'")
    Ledger(
        lifecycle=[("acme", "2871", "infinity", "-infinity")],
        skills=[(1, "acme", "1", "a", "enabled", "294276-12-31 23:59:59+00")],
        suspensions=[(1, "acme", "1", "suspended", BORN.isoformat())],
    ).write(ledger)
    (pair,) = recalled(ledger, [live_tenant()]).candidates
    assert pair.recorded == Recorded(
        name="acme",
        lifecycle=Lifecycle(org="2871", created_at=LAST, deleted_at=FIRST),
        skills={"a": Event(1, "enabled", LAST)},
        suspension=Event(1, "suspended", BORN),
    )


def _run(ledger: Connection, hours: int, **columns: Any) -> None:
    row = {
        "observed_at": BORN + hours * HOUR,
        "mode": "run",
        "outcome": "clean",
        "source": "uid",
        "unverified": [],
        "settle": timedelta(),
    } | columns
    ledger.execute(
        "INSERT INTO reconciler.runs (id, started_at, version, observed_at, mode, outcome, source, unverified, settle) "
        "VALUES (gen_random_uuid(), now(), '1', %(observed_at)s, %(mode)s, %(outcome)s, %(source)s, %(unverified)s, "
        "%(settle)s)",
        row,
    )


MINUTE = timedelta(minutes=1)
UNVERIFYING: list[dict[str, Any]] = [
    {"outcome": "failed"},
    {"outcome": "blocked"},
    {"mode": "plan"},
    {"source": "snapshot"},
    {"unverified": ["beta", "acme"]},
]


def test_the_last_run_that_found_a_tenant_true_verifies_it(ledger: Connection) -> None:
    Ledger(lifecycle=[("acme", "2871", BORN.isoformat(), None)]).write(ledger)
    for columns in UNVERIFYING:
        _run(ledger, 9, **columns)
    _run(ledger, 24 * 365 * 10)  # while the database's clock was ahead
    assert recalled(ledger, []).candidates[0].recorded.verified_at is None
    for hours, outcome in enumerate(("clean", "drift", "corrected"), 1):
        _run(ledger, hours, outcome=outcome, unverified=["beta"])
        assert recalled(ledger, []).candidates[0].recorded.verified_at == BORN + hours * HOUR


@pytest.mark.parametrize(
    ("own", "asked", "counts"),
    [
        pytest.param(HOUR, MINUTE, HOUR, id="the run that proved it waited longer"),
        pytest.param(MINUTE, HOUR, HOUR, id="this run waits longer"),
        pytest.param(None, timedelta(), MINUTE, id="a run of an earlier version"),
    ],
)
def test_a_tenant_is_verified_up_to_the_longer_settle(
    ledger: Connection, own: timedelta | None, asked: timedelta, counts: timedelta
) -> None:
    Ledger(lifecycle=[("acme", "2871", BORN.isoformat(), None)]).write(ledger)
    _run(ledger, 5, settle=own)
    with spooled([]) as spool, transaction(ledger) as cursor:
        (found, *_), *_ = find_candidates(cursor, stage(cursor, spool), settle=asked)
    assert found.recorded.verified_at == BORN + 5 * HOUR - counts


def test_a_tenant_whose_report_is_open_is_verified_by_no_run_since(ledger: Connection) -> None:
    """So the search need not go through all the runs that a report has outlasted."""
    Ledger(lifecycle=[(name, "2871", BORN.isoformat(), None) for name in ("acme", "beta")]).write(ledger)
    for hours, unverified in ((1, []), (2, ["acme"]), (3, ["acme"]), (4, [])):
        _run(ledger, hours, unverified=unverified)
    for reason, hours in (("org_moved", 3), ("org_unlabelled", 2)):
        ledger.execute(
            "INSERT INTO reconciler.reports (tenant_name, reason, since) VALUES ('acme', %s, %s)",
            [reason, BORN + hours * HOUR + timedelta(minutes=1)],
        )
    verified = {pair.recorded.name: pair.recorded.verified_at for pair in recalled(ledger, []).candidates}
    assert verified == {"acme": BORN + HOUR, "beta": BORN + 4 * HOUR}


def test_a_spool_that_starts_again_forgets_what_it_took(ledger: Connection) -> None:
    with TenantSpool() as spool, transaction(ledger) as cursor:
        for number in range(5000):
            spool.add(live_tenant(name=f"é-{number}", uid=None))
        spool.restart()
        spool.add(live_tenant(name="acme"))
        spool.restart()
        spool.restart()
        spool.add(live_tenant(name="b"))
        found = find_candidates(cursor, stage(cursor, spool))
    assert [pair.observed for pair in found.candidates] == [live_tenant(name="b")]


def test_a_spool_is_handed_on_in_blocks() -> None:
    with spooled(live_tenant(name=f"tenant-{number}", org="x" * 200) for number in range(6000)) as spool:
        blocks = list(spool.blocks())
        assert [len(block) for block in blocks[:-1]] == [BLOCK_BYTES] * (len(blocks) - 1)
        assert len(blocks) > 1
        assert b"".join(blocks).count(b"\n") == 6000
        assert list(spool.blocks()) == blocks


def _on(device: str) -> Any:
    def temporary_file(*, buffering: int) -> IO[bytes]:
        return Path(device).open("w+b", buffering)

    return temporary_file


def test_a_full_disk_is_said_where_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", _on("/dev/full"))
    tenants = (live_tenant(name=f"tenant-{number}") for number in range(20_000))
    with pytest.raises(SpoolFault, match="No space left on device") as full, spooled(tenants):
        pytest.fail("it was noticed too late")
    assert "TMPDIR" in full.value.remedy
    assert tempfile.gettempdir() in str(full.value)
    assert full.value.exit_code == 1


def test_a_disk_that_is_full_at_the_end_is_said_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", _on("/dev/full"))
    with pytest.raises(SpoolFault, match="No space left on device"), spooled([live_tenant()]) as spool:
        list(spool.blocks())
    with pytest.raises(SpoolFault, match="No space left on device"), spooled([live_tenant()]) as spool:
        spool.restart()


def test_no_folder_to_write_in_is_said_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod whose root is read-only and that was given no volume for /tmp."""

    def gettempdir() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/var/tmp', '/usr/tmp', '/']")

    monkeypatch.setattr(tempfile, "gettempdir", gettempdir)
    with pytest.raises(SpoolFault, match="No usable temporary directory") as nowhere:
        TenantSpool()
    assert "TMPDIR" in nowhere.value.remedy
