"""Forty days of a world in which rows come late or never, tenants come and go, and runs see only some of it.

Unlike the world of `simulator.py` nothing strikes a run: what is at stake is what happens between two of them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import stamina

from reconciler.core.model import Mode
from reconciler.core.plan import Limits
from reconciler.db.connection import snapshot
from reconciler.deadline import Deadline
from reconciler.job import Job, RunOptions
from reconciler.run import reconcile
from reconciler.sources.api_client import Api, CustomResource
from reconciler.sources.cluster import Cluster
from tests.simulation.logs import drawn_style, treat_log
from tests.simulation.portal import CLOCK, SETTLE, SKILLS, Clock, Portal
from tests.simulation.proof import Verdict, judge
from tests.support.api_state import tenant
from tests.support.fake_api import FakeApi

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from reconciler.core.model import Outcome
    from tests.support.api_state import Object

DAYS = 40
UNLIMITED = Limits(count=1000)
MAX_LIVING = 7
QUIET_BEFORE_A_CHECK = 4 * SETTLE
"""Then no row is on its way, and nothing is deferred."""


class Ways(NamedTuple):
    """How one tenant is treated: by the portal, which loses its rows, and by who suspends it."""

    loss: float = 0.0
    late: float = 0.0
    suspends: str = "boolean"
    """boolean: spec.suspend is always set; status: never; mixed: now and then."""


class Seen(NamedTuple):
    """One tenant as a run listed it, by the API server's own truth."""

    uid: str
    version: int
    generation: int
    is_deleting: bool
    suspend_is_set: bool

    @property
    def is_as_created(self) -> bool:
        """True if its spec was not changed yet."""
        return self.generation == 1 + self.is_deleting


class Backup(NamedTuple):
    """A cluster as it was."""

    at: datetime
    version: int
    objects: tuple[Object, ...]

    @classmethod
    def of(cls, api: FakeApi, at: datetime) -> Backup:
        """Take one."""
        return cls(at, api.resource_version, tuple(found for name in api.names() if (found := api.get(name))))

    def restore(self, api: FakeApi) -> None:
        """Make the cluster what it was, versions included."""
        api.reset()
        for kept in sorted(self.objects, key=_version):
            api.resource_version = _version(kept) - 1
            api.plant(kept)
        api.resource_version = self.version
        api.compact()
        api.forget()


def _version(found: Object) -> int:
    return int(found["metadata"]["resourceVersion"])


@dataclass
class LoosePortal(Portal):
    """A portal whose rows come on time, late by up to days, twice, or never."""

    ways: dict[str, Ways] = field(default_factory=dict)
    unsound: dict[str, list[datetime]] = field(default_factory=dict)
    """When something about a tenant happened that no ledger can be sure of: a row lost or late, a label moved."""

    def act(self) -> None:
        """Do one thing that somebody asks for."""
        living = [name for name in self.living() if self._is_free(name)]
        gone = [name for name in self.truth if name not in self.api.names() and self._is_free(name)]
        deeds = [(3 if len(living) < MAX_LIVING else 0.3, self._create_new)]
        if gone:
            deeds.append((1, lambda: self._create(self.random.choice(gone))))
        if living:
            name = self.random.choice(living)
            deeds += [
                (8, lambda: self._toggle(name)),
                (2, lambda: self._on_and_off(name)),
                (0.5, lambda: self._race(name)),
                (4, lambda: self._suspend(name)),
                (0.1, lambda: self._relabel(name)),
                (1, lambda: self._touch(name)),
            ]
            # an empty list is refused
            if len(self.living()) > 2:
                deeds += [(1.5, lambda: self._delete(name)), (0.2, lambda: self._restore(name))]
        weights, acts = zip(*deeds, strict=True)
        self.random.choices(acts, weights)[0]()

    def living(self) -> list[str]:
        """The tenants that are there and are not being deleted."""
        return [name for name in self.api.names() if "deletionTimestamp" not in self._get(name)["metadata"]]

    def note_everything(self) -> None:
        """Keep what is true of everybody from now on."""
        for name in {*self.truth, *self.api.names()}:
            self._note(name)

    # deeds

    def _create(self, name: str) -> None:
        if name not in self.ways:
            self.ways[name] = self._drawn_ways()
        packages = self.random.sample(SKILLS, self.random.randrange(len(SKILLS)))
        org = self.random.choice(["2871", "2872", "2873"])
        finalizers = ["pieced.ch/cleanup"] if self.random.random() < 0.8 else []
        style = self.ways[name].suspends
        suspend = {"boolean": False, "status": None, "mixed": self.random.choice([None, False, True])}[style]
        made = self.api.create(tenant(name, packages, org=org, finalizers=finalizers, suspend=suspend))
        now, born = self.clock.now, made["metadata"]["creationTimestamp"]
        self._note(name)
        self._row(
            name,
            "INSERT INTO public.tenant_billing_lifecycle (tenant_name, zitadel_org_id, created_at) "
            "VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            [name, org, born],
        )
        for package in packages:
            self._skill_row(name, package, now, on=True)
        if suspend:
            self._suspension_row(name, now, on=True)
            self._report_suspension(name, suspended=True)

    def _drawn_ways(self) -> Ways:
        if self.random.random() < 0.5:
            return Ways()
        suspends = self.random.choice(["boolean", "boolean", "status", "mixed"])
        return Ways(self.random.choice([0.0, 0.3, 1.0, 1.0]), self.random.choice([0.0, 0.2, 0.5]), suspends)

    def _on_and_off(self, name: str) -> None:
        """Change one's mind: all is as it was, and days of it may be owed."""
        skill = self.random.choice([*SKILLS, None, None, None, None])
        self._turn(name, skill)
        self.clock.advance(self.random.choice([20, 20_000, 60_000]) * self.random.random())
        if name in self.living():
            self._turn(name, skill)

    def _turn(self, name: str, skill: str | None) -> None:
        """Turn a skill on or off; None suspends or resumes."""
        if skill is None:
            self._suspend(name)
            return
        packages = {*(self._get(name)["spec"].get("packages") or [])}
        self._set_packages(name, packages ^ {skill})
        self._skill_row(name, skill, self.clock.now, on=skill not in packages)

    def _suspend(self, name: str) -> None:
        current, now = self._get(name), self.clock.now
        match self.ways[name].suspends:
            case "status":
                suspended = not current.get("status", {}).get("suspendedAt")
                seen = self.clock.server().strftime("%Y-%m-%dT%H:%M:%SZ") if suspended else None
                self.api.set_status(name, {"suspendedAt": seen})
                self._note(name)
                self._suspension_row(name, now, on=suspended)
            case "boolean":
                suspended = not current["spec"].get("suspend")
                self.api.patch(name, {"spec": {"suspend": suspended}})
                self._note(name)
                self._suspension_row(name, now, on=suspended)
                self._report_suspension(name, suspended=suspended)
            case _:
                super()._suspend(name)

    def _delete(self, name: str) -> None:
        super()._delete(name)
        if self.api.get(name):
            later = self.random.choice([600, 200_000]) * self.random.random()
            self.clock.at(self.clock.now + timedelta(seconds=later), lambda: self._take_finalizers(name))

    def _take_finalizers(self, name: str) -> None:
        super()._finalized(name)

    def _finalized(self, name: str) -> None:
        """Do nothing: here the operator may take days, and `_delete` says how long."""

    def _relabel(self, name: str) -> None:
        self.unsound.setdefault(name, []).append(self.clock.now)
        super()._relabel(name)

    def _race(self, name: str) -> None:
        """Undo what somebody else has done, of which nobody writes a row."""
        self.unsound.setdefault(name, []).append(self.clock.now)
        super()._race(name)

    def _restore(self, name: str) -> None:
        """Delete it and create it again from a backup, past the portal: another uid, and no status."""
        kept = self._get(name)
        self.api.delete(name)
        if self.api.get(name):
            self.api.finalize(name)
        self._note(name)
        self.unsound.setdefault(name, []).append(self.clock.now)
        later = self.clock.now + timedelta(seconds=self.random.choice([5, 3_000, 40_000]) * self.random.random())

        def create() -> None:
            if not self.api.get(name):
                self.api.create(kept)
                self._note(name)

        self._busy_until[name] = later
        self.clock.at(later, create)

    # what follows

    def _row(self, name: str, statement: str, values: list[Any]) -> None:
        """Write a row: on time, or days late, or never; and at times twice."""
        ways, chance = self.ways[name], self.random.random()
        if chance < ways.loss:
            self.unsound.setdefault(name, []).append(self.clock.now)
            return
        when = self.clock.now + SETTLE * self.random.choice([0.0, self.random.random()]) * 0.98
        if chance < ways.loss + ways.late * (1 - ways.loss):
            # from when it happened until it is there, nobody can be sure
            when += timedelta(seconds=self.random.choice([300, 8_000, 300_000]) * self.random.random())
            self.unsound.setdefault(name, []).extend([self.clock.now, when])
        else:
            self._busy_until[name] = max(when, self._busy_until.get(name, when))
        for _ in range(1 + (self.random.random() < 0.05)):
            self.clock.at(when, lambda: self._write(statement, values))


@dataclass
class HistoryWorld:
    """One seed's world."""

    seed: int
    url: str
    api: FakeApi
    kubeconfig: Path

    def __post_init__(self) -> None:
        """Set the clock to some day of some month."""
        self.random = random.Random(self.seed)  # noqa: S311 - a replayable world, not a secret
        with psycopg.connect(self.url, autocommit=True) as ledger:
            ledger.execute(CLOCK)
        self.clock = Clock(psycopg.connect(self.url, autocommit=True, options="-c timezone=UTC"))
        self.clock.ahead = timedelta(seconds=self.random.choice([0, 0, 0, 2.5, -2.5]))
        start = date(2026, self.random.choice([1, 3, 4]), self.random.randrange(1, 28))
        self.clock.turn(datetime.combine(start, time(self.random.randrange(24)), UTC))
        self.ends_at = self.clock.now + timedelta(days=DAYS)
        self.api.clock = self.clock.server
        self.portal = LoosePortal(self.api, self.clock, self.random, loss=0.0)
        self.log: list[str] = []
        self.was_copied = False
        """Whether a copy of the cluster was looked at, after which the log begins anew here."""
        self.gaps = 0
        """Tenants with a gap, in all runs."""
        self.runs: list[tuple[datetime, dict[str, Seen]]] = []
        """Every run that remembered what it saw: when it began, and what it saw."""
        self.list_version = 0
        """Of the last one of them."""
        self.restored_at: list[datetime] = []
        self.log_style = drawn_style(self.random)
        # a stream of its own: a world is the same however often all are listed
        lists = random.Random(f"lists {self.seed}")  # noqa: S311 - a replayable world
        self.full_every = timedelta(hours=lists.choice([0, 6, 48]))
        """What the API server shows of its change log."""
        self.verdicts: list[Verdict] = []
        self._backup: Backup | None = None
        self._checked: set[date] = set()

    def play(self) -> None:
        """Let the world go on, with runs in it, and hold every month to the truth."""
        try:
            for _ in range(self.random.randrange(4, 12)):
                # before anybody looks
                self.portal.act()
                self.clock.advance(self.random.choice([30, 50_000]) * self.random.random())
            self._run()
            while self.clock.now < self.ends_at:
                self._live()
                self._disaster()
                self._run()
                self._check_months()
            self.clock.advance(QUIET_BEFORE_A_CHECK.total_seconds())
            self._run()
            self._check_months(again=True)
        finally:
            self.clock.ledger.close()

    def _live(self) -> None:
        minutes, deeds = self.random.choice([(20, [0, 1, 1]), (300, [0, 1, 2]), (2_500, [0, 1, 2]), (4_000, [1, 2, 3])])
        left = 60.0 * minutes * self.random.uniform(0.1, 1)
        for _ in range(self.random.choice(deeds)):
            step = left * self.random.random()
            left -= step
            self.clock.advance(step)
            if self.random.random() < 0.1:
                self._near_midnight()
            self.portal.act()
            self.api.pass_by(self.random.randrange(3))
            self._note("deed")
        month = self._month_to_check()
        self.clock.advance(max(left, QUIET_BEFORE_A_CHECK.total_seconds() if month else 0.0))

    def _near_midnight(self) -> None:
        """Wait until shortly before a UTC day ends, or until it has just begun."""
        ahead = (_midnight(self.clock.now.date() + timedelta(days=1)) - self.clock.now).total_seconds()
        self.clock.advance(max(0.0, ahead + self.random.uniform(-600, 600)))

    def _disaster(self) -> None:
        """Look at a copy of the cluster, or lose it and go on with a copy, now and then."""
        if self._backup is None or self.random.random() < 0.05:
            if not self._backup or self.random.random() < 0.5:
                self._backup = Backup.of(self.api, self.clock.now)
            return
        if not self._is_past(self._backup):
            return
        if self.random.random() < 0.03:
            now = Backup.of(self.api, self.clock.now)
            self._backup.restore(self.api)
            if self.random.random() < 0.5 and self._shows_older(self._backup):
                # a copy that lives on has versions of its own
                self.api.resource_version = now.version + self.random.randrange(50)
            self._run(refused=True)
            now.restore(self.api)
            self.was_copied = True
        elif self.random.random() < 0.006:
            self._backup.restore(self.api)
            self._run(refused=True)
            self.portal.note_everything()
            self.restored_at.append(self.clock.now)
            self._run(accept=True)
            self._backup = None

    def _is_past(self, backup: Backup) -> bool:
        """Whether the last list was of a later version."""
        return self.list_version > backup.version

    def _shows_older(self, backup: Backup) -> bool:
        """Whether it shows a tenant at a lower version than is remembered: where the change log was read up to."""
        rows = self.clock.ledger.execute("SELECT uid, resource_version::int FROM reconciler.tenants")
        remembered = dict(rows.fetchall())
        return any(remembered.get(kept["metadata"]["uid"], 0) > _version(kept) for kept in backup.objects)

    def _run(self, *, refused: bool = False, accept: bool = False) -> None:
        """Make one run."""
        self._treat_log()
        began, seen, version = self.clock.now, dict(self._seen()), self.api.resource_version
        outcome = self._reconcile(accept=accept, refused=refused)
        found = "; ".join(f"{one.tenant} {one.reason} {one.subject or ''} {one.action}" for one in outcome.findings)
        ended = f"{outcome.result}, compared {outcome.compared} {outcome.failure or ''}"
        self._note(f"run from {began:%H:%M:%S} -> {ended} {found}")
        assert bool(outcome.failure) is refused, f"refused is {bool(outcome.failure)}: {outcome.failure}"
        if not refused:
            self.gaps += outcome.history.gaps
            self.runs.append((began, seen))
            self.list_version = version

    def _treat_log(self) -> None:
        """Let the API server show of its change log what it does in this world."""
        self.api.faults.clear()
        treat_log(self.api, self.log_style, self.random)

    @property
    def is_whole(self) -> bool:
        """Whether every run could read all that had happened since the one before."""
        return self.log_style == "whole" and self.api.bookmarks and not (self.restored_at or self.was_copied)

    def _seen(self) -> Iterator[tuple[str, Seen]]:
        for name in self.api.names():
            found = self.api.get(name)
            assert found
            metadata = found["metadata"]
            is_set = isinstance(found["spec"].get("suspend"), bool)
            yield (
                name,
                Seen(metadata["uid"], _version(found), metadata["generation"], "deletionTimestamp" in metadata, is_set),
            )

    def _reconcile(self, *, accept: bool, refused: bool) -> Outcome:
        deadline = Deadline.after(600)
        api = Api(kubeconfig=str(self.kubeconfig), context=None, deadline=deadline)
        source = Cluster(
            resource=CustomResource(api=api, group="pieced.ch", plural="piecedtenants"),
            org_label="pieced.ch/zitadel-org-id",
            page_size=500,
        )
        # only a list of all tenants verifies a month, or what there is of the last one, and shows a copy
        is_due = refused or (self.runs and self._month_to_check()) or self.clock.now >= self.ends_at
        full_every = timedelta() if is_due else self.full_every
        options = RunOptions(
            mode=Mode.RUN, settle=SETTLE, limits=UNLIMITED, accept_source=accept, full_every=full_every
        )
        job = Job(database_url=self.url, source=source, options=options, deadline=deadline, sleep=self.clock.advance)
        return reconcile(job)

    # what is held to the truth

    def _month_to_check(self) -> date | None:
        """The first day of the month before this one, if nobody has looked at it yet."""
        first = (self.clock.now.date().replace(day=1) - timedelta(days=1)).replace(day=1)
        return first if first not in self._checked and self.runs[0][0].date() < _next(first) else None

    def _check_months(self, *, again: bool = False) -> None:
        """Check the month that is over; at the end all of them, and what there is of the last one."""
        # the last run proves no more than settle before it began
        today = (self.runs[-1][0] - SETTLE).date()
        if again:
            first = self.runs[0][0].date().replace(day=1)
            while first < today:
                self._check(first, min(_next(first), today))
                first = _next(first)
        elif (month := self._month_to_check()) and self.runs[-1][0] > _midnight(_next(month)) + 2 * SETTLE:
            self._checked.add(month)
            self._check(month, _next(month))

    def _check(self, first: date, until: date) -> None:
        with snapshot(self.url) as cursor:
            self.verdicts.extend(judge(cursor, self, first, until))

    def _note(self, what: str) -> None:
        self.log.append(f"{self.clock.now:%m-%d %H:%M:%S} {what}")


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _next(first: date) -> date:
    return (first + timedelta(days=31)).replace(day=1)


def play(seed: int, url: str, kubeconfig_folder: Path) -> HistoryWorld:
    """Play one seed on a fresh migrated ledger.

    Raises:
        AssertionError: a run was refused that should not be, or the other way round; or a bill contradicts itself.
    """
    chance = random.Random(seed)  # noqa: S311 - a replayable world
    with (
        stamina.set_testing(testing=True, attempts=3),
        FakeApi(set_lists=chance.random() < 0.25, legacy_times=chance.random() < 0.2) as api,
    ):
        world = HistoryWorld(seed, url, api, api.kubeconfig(kubeconfig_folder / "kubeconfig"))
        try:
            world.play()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}\n" + "\n".join(world.log)) from error
    return world
