"""A tenant whose rows come, come late, or never, runs that see only some of it, and people who decide about its past.

What truly happened is kept beside it. Beside the tenant lives another one, whose rows are lost too: nothing that is
decided of the first one may keep a run from correcting the second.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from reconciler.core.billing import lines
from reconciler.core.errors import Failure
from reconciler.core.plan import Limits
from reconciler.core.reasons import ACCEPTABLE
from reconciler.core.replay import NOTHING, state_at
from reconciler.db import decisions, lifetimes, payers, put_right
from reconciler.db.apply import Author
from reconciler.db.connection import brief_transaction, snapshot
from reconciler.db.put_right import ClusterNeeded
from reconciler.db.usage import history, prices, statement
from reconciler.deadline import Deadline
from reconciler.job import Job, RunOptions
from reconciler.run import reconcile
from reconciler.sources.api_client import Api, CustomResource
from reconciler.sources.cluster import Cluster
from reconciler.sources.lookup import look_up
from tests.simulation.portal import SETTLE, Clock
from tests.support.api_state import ORG_LABEL, tenant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from reconciler.core.decisions import Lookup
    from reconciler.core.model import Outcome
    from tests.support.fake_api import FakeApi

START = datetime(2026, 4, 20, 9, tzinfo=UTC)
BEFORE = START - timedelta(days=3)
NAME, OTHER = "acme", "other"
ORG, WRONG_ORG = "2871", "2899"
SKILLS = ("mail", "wiki")
KEYS = (*SKILLS, None)
"""What can be recorded: a skill, or the suspension."""
ON = {True: ("enabled", "suspended"), False: ("disabled", "resumed")}
AUTHOR = Author("m.keller", "the customer's log")
INSTANT = timedelta(microseconds=1)
TABLES = """
SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c
WHERE relkind = 'r' AND relnamespace IN ('public'::regnamespace, 'reconciler'::regnamespace)
      AND c.oid <> 'reconciler.migrations'::regclass
"""
SKILL_ROW = """
INSERT INTO public.tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at)
VALUES (%(tenant)s, %(org)s, %(skill)s, %(kind)s, %(at)s)
"""
SUSPENSION_ROW = """
INSERT INTO public.tenant_suspension_events (tenant_name, zitadel_org_id, event_kind, occurred_at)
VALUES (%(tenant)s, %(org)s, %(kind)s, %(at)s)
"""
BILLED = """
SELECT 'skill', id, skill_id, event_kind, occurred_at::text FROM public.tenant_skill_events
UNION ALL SELECT 'suspension', id, NULL, event_kind, occurred_at::text FROM public.tenant_suspension_events
UNION ALL SELECT 'row', 0, tenant_name, created_at::text, deleted_at::text FROM public.tenant_billing_lifecycle
UNION ALL SELECT 'earlier', 0, tenant_name, created_at::text, deleted_at::text FROM reconciler.earlier_lifetimes
ORDER BY 1, 2, 4
"""
FIRST_ROW = "SELECT event_id FROM reconciler.corrections WHERE number = %s ORDER BY id LIMIT 1"
NUMBER_OF = """
SELECT number FROM reconciler.corrections
WHERE number::text = %(target)s
      OR replace(replace(event_table, 'tenant_', ''), '_events', ':') || event_id = %(target)s
"""
KEY_ROWS = """
SELECT e.id, e.event_kind IN ('enabled', 'suspended'), e.occurred_at, coalesce(c.number::text, ''), e.target
FROM (
  SELECT 'tenant_skill_events' AS event_table, id, event_kind, occurred_at, 'skill:' || id AS target
  FROM public.tenant_skill_events WHERE tenant_name = 'acme' AND skill_id = %(skill)s
  UNION ALL
  SELECT 'tenant_suspension_events', id, event_kind, occurred_at, 'suspension:' || id
  FROM public.tenant_suspension_events WHERE tenant_name = 'acme' AND %(skill)s::text IS NULL
) e
LEFT JOIN reconciler.corrections c ON (c.event_table, c.event_id) = (e.event_table, e.id)
WHERE c.id IS NULL
      OR c.reason NOT IN ('recorded', 'retracted', 'correction_superseded')
         AND NOT EXISTS (SELECT FROM reconciler.corrections b
                         WHERE b.id = c.taken_back_by AND b.reason = 'correction_superseded')
"""
SKILL_IDS = "SELECT id FROM tenant_skill_events WHERE tenant_name = %s ORDER BY id"
SUSPENSION_IDS = "SELECT id FROM tenant_suspension_events WHERE tenant_name = %s ORDER BY id"
HANDS = (
    "DELETE FROM tenant_skill_events WHERE id = %(skill)s",
    "DELETE FROM tenant_suspension_events WHERE id = %(suspension)s",
    "UPDATE tenant_skill_events SET occurred_at = %(at)s WHERE id = %(skill)s",
    "UPDATE tenant_suspension_events SET occurred_at = %(at)s WHERE id = %(suspension)s",
    "UPDATE tenant_billing_lifecycle SET deleted_at = NULL WHERE tenant_name = %(name)s",
    "DELETE FROM tenant_billing_lifecycle WHERE tenant_name = %(name)s",
    "DELETE FROM tenant_skill_events WHERE tenant_name = %(name)s",
)
"""What people change in the ledger by hand, in SQL."""
REPORTS = "SELECT tenant_name, reason, subject, recorded, observed FROM reconciler.reports ORDER BY 1, 2, 3"


class Step(NamedTuple):
    """Something that happens after some hours; the numbers say which, from when, until when."""

    hours: int
    verb: str
    one: int = 0
    two: int = 0
    three: int = 0


@dataclass
class Life:
    """A lifetime as it truly was."""

    began_at: datetime
    ended_at: datetime | None = None
    on: dict[str | None, list[tuple[datetime, bool]]] = field(default_factory=lambda: {key: [] for key in KEYS})

    def was_on(self, key: str | None, at: datetime) -> bool:
        """Whether a skill was on, or the tenant suspended."""
        return next((on for since, on in reversed(self.on[key]) if since <= at), False)

    def stretches(self, key: str | None, now: datetime) -> Iterator[tuple[datetime, datetime, bool]]:
        """Yield from when until when it was on, or off."""
        ends = self.ended_at or now
        edges = [(self.began_at, False), *self.on[key], (ends, False)]
        for (since, on), (until, _) in pairwise(edges):
            if since < until:
                yield since, until, on


class Read(NamedTuple):
    """What the ledger says of the tenant."""

    lived: tuple[tuple[datetime, datetime | None], ...]
    events: dict[str | None, tuple[Any, ...]]

    def is_on(self, key: str | None, at: datetime) -> bool:
        """Whether a skill is on, or the tenant suspended, and whether it lives."""
        kind = state_at(self.events.get(key, ()), at, NOTHING[key is not None])
        return kind in ON[True]

    def lives(self, at: datetime) -> bool:
        """Whether it lives."""
        return any(since <= at and (until is None or at < until) for since, until in self.lived)


class Said(NamedTuple):
    """What a person said of a key, under which number; `place` is the id of its first row."""

    number: int
    key: str | None
    since: datetime
    until: datetime
    on: bool
    place: int


@dataclass
class DecidedWorld:
    """One example."""

    api: FakeApi
    ledger: psycopg.Connection[Any]
    url: str
    kubeconfig: str
    log: list[str] = field(default_factory=list)
    lives: list[Life] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    """What stands of what people said of keys."""
    taken_back: set[str] = field(default_factory=set)
    """The numbers and the rows that people took back."""
    is_simple: bool = True
    """Whether no lifetime was decided, and nothing changed by hand."""

    def __post_init__(self) -> None:
        """Begin with two tenants, of which nothing is recorded."""
        ((tables,),) = self.ledger.execute(TABLES).fetchall()
        self.ledger.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE".encode())
        self.ledger.execute("INSERT INTO platform_pricing (id, tenant_monthly_fee_chf) VALUES (1, 31)")
        self.ledger.execute("INSERT INTO skill_pricing VALUES ('mail', 1), ('wiki', 0.33333)")
        self.clock = Clock(self.ledger)
        self.clock.turn(START)
        self.api.clock = self.clock.server
        self.api.reset()
        self.api.forget()
        self.api.create(tenant(OTHER, [], suspend=False))

    # what happens

    def play(self, steps: list[Step]) -> None:
        """Let it happen."""
        for step in steps:
            self.clock.advance(3600 * step.hours + 61)
            deed: Callable[..., None] = getattr(self, f"_{step.verb}")
            self.log.append(f"{self.clock.now:%m-%d %H:%M:%S} {step.verb} {step.one} {step.two} {step.three}")
            deed(*step[2:])

    def _create(self, fate: int, packages: int, _: int) -> None:
        if self.api.get(NAME):
            return
        skills = [skill for number, skill in enumerate(SKILLS) if packages >> number & 1]
        self.api.create(tenant(NAME, skills, suspend=False, finalizers=["backup"] if packages & 4 else []))
        now = self.clock.now
        life = Life(now)
        for skill in skills:
            life.on[skill].append((now, True))
            self._row(skill, fate, on=True)
        self.lives.append(life)
        values = [NAME, WRONG_ORG if fate & 8 else ORG, now]
        self._later(fate, "INSERT INTO tenant_billing_lifecycle VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", values)

    def _toggle(self, number: int, fate: int, _: int) -> None:
        if not (found := self._living()):
            return
        skill = SKILLS[number % len(SKILLS)]
        packages = {*found["spec"]["packages"]} ^ {skill}
        self.api.patch(NAME, {"spec": {"packages": sorted(packages)}})
        self._turn(skill, fate, on=skill in packages)

    def _suspend(self, _: int, fate: int, __: int) -> None:
        if not (found := self._living()):
            return
        is_on = not found["spec"]["suspend"]
        self.api.patch(NAME, {"spec": {"suspend": is_on}})
        self._turn(None, fate, on=is_on)

    def _turn(self, key: str | None, fate: int, *, on: bool) -> None:
        self.lives[-1].on[key].append((self.clock.now, on))
        self._row(key, fate, on=on)

    def _delete(self, fate: int, _: int, __: int) -> None:
        if not self._living():
            if self.api.get(NAME):
                self.api.finalize(NAME)
            return
        self.api.delete(NAME)
        now = self.lives[-1].ended_at = self.clock.now
        stamp = "UPDATE tenant_billing_lifecycle SET deleted_at = %s WHERE tenant_name = %s AND deleted_at IS NULL"
        self._later(fate, stamp, [now, NAME])
        for skill in SKILLS:
            if self.lives[-1].was_on(skill, now):
                self._row(skill, fate, on=False)

    def _wrong(self, number: int, when: int, kind: int) -> None:
        """Write a row of the portal's that is of another customer."""
        self._insert(KEYS[number % 3], self._instant(when), on=bool(kind & 1))

    def _run(self, lose: int, _: int, __: int) -> None:
        if lose % 4 == 3:
            self.api.forget()
        self.run()

    def run(self) -> Outcome:
        """Run once, and hold it to what no run may do."""
        deadline = Deadline.after(600)
        options = RunOptions(settle=SETTLE, limits=Limits(count=100))
        source = self._source(deadline)
        job = Job(database_url=self.url, source=source, options=options, deadline=deadline, sleep=self.clock.advance)
        outcome = reconcile(job)
        said = "; ".join(
            f"{one.tenant} {one.reason} {one.subject or ''} {one.action} {one.recorded}->{one.observed} "
            f"{one.moment.occurred_at if one.moment else ''}"
            for one in outcome.findings
        )
        self.log.append(f"{self.clock.now:%m-%d %H:%M:%S} -> {outcome.result} {outcome.failure or ''} {said}")
        assert outcome.failure is None, outcome.failure
        parked = [one for one in outcome.findings if one.reason == "tenant_parked"]
        assert not parked, parked
        return outcome

    # what people do

    def _record(self, number: int, since: int, until: int) -> None:
        key, kind = KEYS[number % 3], bool(number // 3 % 2)
        begins, ends = self._instant(since), None if until == 0 else self._instant(until)
        self.record(key, begins, ends, on=kind)

    def record(self, key: str | None, since: datetime, until: datetime | None, *, on: bool) -> bool:
        """Say how a key was, and hold what follows to it; return whether it was refused."""
        kind = ON[on][key is None]
        before = self.read()
        done = self._decide(
            f"record {key} {kind} {since} {until}",
            lambda cursor, _: put_right.record(cursor, NAME, key, kind, since=since, until=until, author=AUTHOR),
        )
        after = self.read()
        if done is None:
            assert before == after
            return False
        ((place,),) = self.ledger.execute(FIRST_ROW, [done.number]).fetchall()
        self.said.append(Said(done.number, key, since, done.until, on, place))
        for at in self._instants_of(before, after, {since, done.until}):
            wanted = on if since <= at < done.until else before.is_on(key, at)
            assert after.is_on(key, at) == wanted, f"{key} at {at} is {after.is_on(key, at)}, not {wanted}"
        others = [each for each in KEYS if each != key]
        assert [after.events.get(each) for each in others] == [before.events.get(each) for each in others]
        return True

    def _alive(self, since: int, until: int, _: int) -> None:
        self.live("alive", self._instant(since), None if until == 0 else self._instant(until))

    def _gone(self, since: int, until: int, _: int) -> None:
        self.live("gone", self._instant(since), None if until == 0 else self._instant(until))

    def live(self, said: str, since: datetime, until: datetime | None) -> bool:
        """Say when it lived, and hold what follows to it; return whether it was written."""
        before = self.read()
        org = None if before.lived else ORG
        done = self._decide(
            f"record {said} {since} {until}",
            lambda cursor, lookup: lifetimes.record_lifetime(
                cursor, NAME, said, since=since, until=until, org=org, author=AUTHOR, lookup=lookup
            ),
        )
        after = self.read()
        if done is None:
            assert before == after
            return False
        self.is_simple = False
        now = self.clock.now
        for at in self._instants_of(before, after, {since, done.until}):
            if at >= now:
                continue
            inside = since <= at < done.until
            lives = said == "alive" if inside else before.lives(at)
            assert after.lives(at) == lives, f"it lives at {at}: {after.lives(at)}, not {lives}"
            for key in SKILLS if not inside and lives else ():
                assert after.is_on(key, at) == before.is_on(key, at), f"{key} at {at} was {before.is_on(key, at)}"
        return True

    def _payer(self, org: int, since: int, until: int) -> None:
        self.pay(WRONG_ORG if org & 1 else ORG, self._instant(since), None if until == 0 else self._instant(until))

    def pay(self, org: str, since: datetime, until: datetime | None) -> bool:
        """Say who paid; return whether it was written."""
        first, last = since.date(), until.date() if until else None
        return bool(
            self._decide(
                f"record payer {org} {first} {last}",
                lambda cursor, _: payers.record_payer(cursor, NAME, org, since=first, until=last, author=AUTHOR),
            )
        )

    def _retract(self, number: int, _: int, __: int) -> None:
        rows = self.ledger.execute(
            "SELECT number::text FROM reconciler.corrections WHERE tenant_name = %(name)s "
            "UNION SELECT 'skill:' || id FROM tenant_skill_events WHERE tenant_name = %(name)s "
            "UNION SELECT 'suspension:' || id FROM tenant_suspension_events WHERE tenant_name = %(name)s ORDER BY 1",
            {"name": NAME},
        ).fetchall()
        if not rows:
            return
        target = rows[number % len(rows)][0]
        found = self.ledger.execute(NUMBER_OF, {"target": target}).fetchone()
        if self._decide(
            f"retract {target}",
            lambda cursor, lookup: put_right.retract(cursor, target, author=AUTHOR, lookup=lookup),
        ):
            self.taken_back.add(str(found[0]) if found else target)
            self.said = [one for one in self.said if str(one.number) not in self.taken_back]

    def _reopen(self, _: int, __: int, ___: int) -> None:
        def decide(cursor: Any, lookup: Lookup | None) -> Any:
            return lifetimes.reopen(cursor, NAME, settle=SETTLE, author=AUTHOR, lookup=lookup)

        if self._decide("reopen", decide):
            self.is_simple = False

    def _except(self, number: int, _: int, __: int) -> None:
        until = self.clock.now + timedelta(days=3)
        reason = ACCEPTABLE[number % len(ACCEPTABLE)]
        self._decide(
            f"except {reason}",
            lambda cursor, _: decisions.accept(cursor, NAME, reason, until=until, note="why", by="me"),
        )

    def _hand(self, what: int, number: int, _: int) -> None:
        """Change the ledger by hand, in SQL."""
        self.is_simple = False
        values: dict[str, Any] = {"at": self._instant(number), "name": NAME}
        for table, of_table in (("skill", SKILL_IDS), ("suspension", SUSPENSION_IDS)):
            ids = [row[0] for row in self.ledger.execute(of_table, [NAME])]
            values[table] = ids[number % len(ids)] if ids else 0
        self.ledger.execute(HANDS[what % len(HANDS)].encode(), values)

    def _decide(self, words: str, decide: Callable[[Any, Lookup | None], Any]) -> Any:
        """Return what was decided; None if it was refused."""
        try:
            try:
                with brief_transaction(self.url) as cursor:
                    done = decide(cursor, None)
            except ClusterNeeded:
                lookup = look_up(self._source(Deadline.after(60)), NAME)
                with brief_transaction(self.url) as cursor:
                    done = decide(cursor, lookup)
        except Failure as refusal:
            self.log.append(f"   {words}: refused, {refusal}")
            return None
        self.log.append(f"   {words}: {getattr(done, 'number', '')}")
        return done

    # the truth

    def tell_all(self, style: int) -> None:
        """Say how everything was, as a person does who knows it, by `record` alone."""
        now = self.clock.now
        spans = [(life.began_at, life.ended_at) for life in self.lives]
        if style & 1:
            self.live("gone", BEFORE, now - INSTANT)
        edges = [BEFORE, *(at for span in spans for at in span if at)]
        if spans and spans[-1][1] is None:
            edges.append(now)
        for said in ("alive", "gone") if style & 2 else ("gone", "alive"):
            if said == "alive":
                for since, until in spans:
                    self.live("alive", since, until or now - INSTANT)
                    if until is None:
                        self.live("alive", now - INSTANT, None)
            else:
                for since, until in zip(edges[::2], edges[1::2], strict=False):
                    if since < until:
                        self.live("gone", since, until)
                if spans and spans[-1][1]:
                    self.live("gone", spans[-1][1], None)

    def tell_keys(self) -> None:
        """Say how each skill and the suspension was, and who paid."""
        now = self.clock.now
        for life in self.lives:
            for key in KEYS:
                for since, until, on in life.stretches(key, now):
                    assert self.record(key, since, until, on=on)
            assert self.pay(ORG, life.began_at, None)

    def hold_to_truth(self) -> None:
        """Hold what is billed to what truly happened."""
        read, now = self.read(), self.clock.now
        edges = {
            at
            for life in self.lives
            for key in KEYS
            for since, until, _ in life.stretches(key, now)
            for at in (since, until)
        }
        for at in self._instants_of(read, read, edges):
            if at >= now:
                continue
            life = next(
                (one for one in self.lives if one.began_at <= at and (not one.ended_at or at < one.ended_at)), None
            )
            assert read.lives(at) == bool(life), f"at {at} it lives: {read.lives(at)}"
            for key in KEYS:
                assert not life or read.is_on(key, at) == life.was_on(key, at), (
                    f"{key} at {at} is {read.is_on(key, at)}"
                )
        assert {line.org for line in self.lines()} <= {ORG}

    def hold_to_word(self) -> None:
        """Hold the ledger to what stands of what people said, and to the rows without what they took back."""
        read, now = self.read(), self.clock.now
        for at in self._instants_of(read, read, {edge for one in self.said for edge in (one.since, one.until)}):
            for key in KEYS if read.lives(at) and at < now else ():
                held = [one for one in self.said if one.key == key and one.since <= at < one.until]
                if held:
                    assert read.is_on(key, at) == held[-1].on, f"{key} at {at} is not as number {held[-1].number} says"
                if self.is_simple:
                    wanted = self._replayed(key, at)
                    assert read.is_on(key, at) == wanted, f"{key} at {at} is {read.is_on(key, at)}, replayed {wanted}"

    def _replayed(self, key: str | None, at: datetime) -> bool:
        """Whether a key is on, as its rows say it without those that people or runs took back."""
        rows = self.ledger.execute(KEY_ROWS, {"skill": key}).fetchall()
        said = [one for one in self.said if one.key == key]
        kept = [row for row in rows if not ({row[3], row[4]} & self.taken_back)]
        steps = sorted(
            [*((row[0], row) for row in kept), *((one.place, one) for one in said)], key=lambda step: step[0]
        )
        settings: dict[datetime, bool] = {}

        def state(until: datetime) -> bool:
            return max(((each, on) for each, on in settings.items() if each <= until), default=(until, False))[1]

        for place, step in steps:
            if isinstance(step, Said):
                after = state(step.until)
                settings = {each: on for each, on in settings.items() if not step.since <= each < step.until}
                settings |= {step.until: after, step.since: step.on}
            else:
                held = [one for one in said if one.place < place and one.since <= step[2] < one.until]
                settings[step[2]] = held[-1].on if held else step[1]
        return state(at)

    def lines(self) -> list[Any]:
        """What is billed of the tenant, by the query and by the rules."""
        first, until = BEFORE.date(), (self.clock.now + timedelta(days=1)).date()
        with snapshot(self.url) as cursor:
            billed = [*statement(cursor, first, until, tenant=NAME).lines]
            ruled = lines(NAME, history(cursor, NAME), prices(cursor), first=first, until=until, as_of=self.clock.now)
        assert sorted(map(str, billed)) == sorted(map(str, ruled))
        return billed

    # what is read

    def read(self) -> Read:
        """Read what the ledger says of the tenant."""
        with snapshot(self.url) as cursor:
            found = history(cursor, NAME)
        lived = tuple((one.began_at, one.ended_at) for one in found.lifetimes if one.began_at != one.ended_at)
        return Read(lived, found.items)

    def billed(self) -> list[Any]:
        """Every row that invoices are computed from."""
        return self.ledger.execute(BILLED).fetchall()

    def reports(self) -> list[Any]:
        """The open reports."""
        return self.ledger.execute(REPORTS).fetchall()

    @staticmethod
    def _instants_of(before: Read, after: Read, more: set[datetime]) -> list[datetime]:
        at = {BEFORE, *more}
        for read in (before, after):
            at |= {each for span in read.lived for each in span if each}
            at |= {event.occurred_at for events in read.events.values() for event in events}
        return sorted(near for each in at for near in (each, *([each - INSTANT] if each.year > 1 else [])))

    def _instant(self, number: int) -> datetime:
        """Return an instant that matters, or a midnight, or any other."""
        read, now = self.read(), self.clock.now
        days = [datetime.combine((START + timedelta(days=day)).date(), time(), UTC) for day in range(-2, 30)]
        matters = {*self._instants_of(read, read, set()), *(life.began_at for life in self.lives)}
        matters |= {at for life in self.lives for key in KEYS for at, _ in life.on[key]}
        if number & 1:
            matters |= {*days}
        past = sorted(at.astimezone(UTC) for at in matters if BEFORE <= at < now)
        return past[number // 2 % len(past)]

    def _living(self) -> dict[str, Any] | None:
        found = self.api.get(NAME)
        return found if found and "deletionTimestamp" not in found["metadata"] else None

    def _row(self, key: str | None, fate: int, *, on: bool) -> None:
        now = self.clock.now
        if fate % 3 == 0:
            self._insert(key, now, on=on)
        elif fate % 3 == 1:
            self.clock.at(now + timedelta(hours=1 + 7 * fate), lambda: self._insert(key, now, on=on))

    def _insert(self, key: str | None, at: datetime, *, on: bool) -> None:
        values = {"tenant": NAME, "org": ORG, "skill": key, "kind": ON[on][key is None], "at": at}
        self.ledger.execute(SKILL_ROW if key else SUSPENSION_ROW, values)

    def _later(self, fate: int, statement: str, values: list[Any]) -> None:
        if fate % 3 == 0:
            self.ledger.execute(statement.encode(), values)
        elif fate % 3 == 1:
            self.clock.at(self.clock.now + timedelta(hours=1 + 7 * fate), lambda: self._write(statement, values))

    def _write(self, statement: str, values: list[Any]) -> None:
        self.ledger.execute(statement.encode(), values)

    def _source(self, deadline: Deadline) -> Cluster:
        api = Api(kubeconfig=self.kubeconfig, context=None, deadline=deadline)
        resource = CustomResource(api=api, group="pieced.ch", plural="piecedtenants")
        return Cluster(resource=resource, org_label=ORG_LABEL, page_size=500)

    # another tenant

    def touch_other(self) -> bool:
        """Turn a skill of the other tenant, of which no row is written; return whether it is on."""
        found = self.api.get(OTHER)
        assert found
        packages = {*found["spec"]["packages"]} ^ {"mail"}
        self.api.patch(OTHER, {"spec": {"packages": sorted(packages)}})
        return "mail" in packages

    def other_is_on(self) -> bool:
        """Whether the ledger says that the other tenant's skill is on."""
        with snapshot(self.url) as cursor:
            found = history(cursor, OTHER)
        return state_at(found.skills.get("mail", ()), self.clock.now, "disabled") == "enabled"
