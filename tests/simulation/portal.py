"""A portal that behaves like the real one, on a clock that only the simulation moves.

It changes a custom resource first and writes its row up to `settle` later, or never. What truly happened, and when, is
kept beside it.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.support.api_state import ORG_LABEL, tenant

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    import psycopg

    from tests.support.fake_api import FakeApi

START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
SETTLE = timedelta(seconds=60)
SKILLS = ("bexio", "mail", "search", "threema", "wiki")

CLOCK = """
CREATE SCHEMA sim;
CREATE TABLE sim.clock (at timestamptz NOT NULL);
INSERT INTO sim.clock VALUES (now());
ALTER FUNCTION pg_catalog.now() RENAME TO real_now;
ALTER FUNCTION pg_catalog.clock_timestamp() RENAME TO real_clock_timestamp;
CREATE FUNCTION pg_catalog.now() RETURNS timestamptz STABLE LANGUAGE sql AS 'SELECT at FROM sim.clock';
CREATE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz STABLE LANGUAGE sql AS 'SELECT at FROM sim.clock';
"""
"""Puts a clock of ours in the place of PostgreSQL's, in this database and its copies alone.

A run looks its functions up in pg_catalog, whatever search_path says; and what is renamed is no longer found by name.
"""


@dataclass
class Clock:
    """The one time of the whole world."""

    ledger: psycopg.Connection[Any]
    now: datetime = START
    ahead: timedelta = timedelta()
    """How far the API server's clock is ahead of the ledger's."""
    hold: bool = False
    """Whether what is due waits, for a world that stands still."""
    _due: list[tuple[datetime, int, Callable[[], None]]] = field(default_factory=list)
    _number: itertools.count[int] = field(default_factory=itertools.count)

    def server(self) -> datetime:
        """What the API server's clock shows."""
        return self.now + self.ahead

    def at(self, when: datetime, act: Callable[[], None]) -> None:
        """Do it when the time has come."""
        heapq.heappush(self._due, (when, next(self._number), act))

    def advance(self, seconds: float) -> None:
        """Let time pass, and what is due meanwhile happen at its own time."""
        end = self.now + timedelta(seconds=seconds)
        while not self.hold and self._due and self._due[0][0] <= end:
            when, _, act = heapq.heappop(self._due)
            self.turn(max(when, self.now))
            act()
        self.turn(end)

    def turn(self, now: datetime) -> None:
        """Set the clock."""
        self.now = now
        self.ledger.execute("UPDATE sim.clock SET at = %s", [now])


@dataclass
class Truth:
    """What truly became of one name: each change of each key, with its time."""

    skills: dict[str, list[tuple[datetime, bool]]] = field(default_factory=dict)
    suspended: list[tuple[datetime, bool]] = field(default_factory=list)
    lifetimes: list[tuple[datetime, bool]] = field(default_factory=list)

    def turn(self, key: list[tuple[datetime, bool]], now: datetime, *, on: bool) -> None:
        """Note a state from now on, where it is another one."""
        if (key[-1][1] if key else False) is not on:
            key.append((now, on))

    def turn_skills(self, on: set[str], now: datetime) -> None:
        """Note which skills are on from now on."""
        for skill in self.skills.keys() | on:
            self.turn(self.skills.setdefault(skill, []), now, on=skill in on)


def became(key: list[tuple[datetime, bool]], *, on: bool, by: datetime) -> datetime | None:
    """When the key last took that state, up to an instant; None where it was never otherwise."""
    return max((at for at, state in key if state is on and at <= by), default=None)


@dataclass
class Portal:
    """The portal, the operator that sets the status, and everybody else who touches the tenants."""

    api: FakeApi
    clock: Clock
    random: random.Random
    loss: float
    truth: dict[str, Truth] = field(default_factory=dict)
    written: set[tuple[str, int]] = field(default_factory=set)
    """The events that it wrote: table and id."""
    frozen: bool = False
    _busy_until: dict[str, datetime] = field(default_factory=dict)
    _names: itertools.count[int] = field(default_factory=itertools.count)

    def act(self) -> None:
        """Do one thing that a customer asks for."""
        if self.frozen:
            return
        free = [name for name in self.api.names() if self._busy_until.get(name, START) <= self.clock.now]
        living = [name for name in free if "deletionTimestamp" not in self._get(name)["metadata"]]
        gone = [name for name in self.truth if name not in self.api.names() and self._is_free(name)]
        deeds: list[tuple[int, Callable[[], None]]] = [(3, self._create_new)]
        if gone:
            deeds.append((1, lambda: self._create(self.random.choice(gone))))
        if living:
            name = self.random.choice(living)
            deeds += [
                (8, lambda: self._toggle(name)),
                (2, lambda: self._race(name)),
                (3, lambda: self._suspend(name)),
                (2, lambda: self._delete(name)),
                (1, lambda: self._relabel(name)),
                (1, lambda: self._touch(name)),
            ]
        weights, acts = zip(*deeds, strict=True)
        self.random.choices(acts, weights)[0]()

    def settle_down(self) -> None:
        """Change nothing any more; what is on its way still comes."""
        self.frozen = True
        for name in self.api.names():
            if "deletionTimestamp" in self._get(name)["metadata"] and self.random.random() < 0.5:
                self._finalized(name)

    # deeds

    def _create_new(self) -> None:
        self._create(f"tenant-{next(self._names)}")

    def _create(self, name: str) -> None:
        packages = self.random.sample(SKILLS, self.random.randrange(len(SKILLS)))
        org = self.random.choice(["2871", "2872", None])
        finalizers = ["pieced.ch/cleanup"] if self.random.random() < 0.4 else []
        suspend = self.random.choice([None, None, False, True])
        made = self.api.create(tenant(name, packages, org=org, finalizers=finalizers, suspend=suspend))
        now, born = self.clock.now, made["metadata"]["creationTimestamp"]
        self._note(name)
        self._row(
            name,
            "INSERT INTO public.tenant_billing_lifecycle (tenant_name, zitadel_org_id, created_at) "
            "VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            [name, org or "unknown", born],
        )
        for package in packages:
            self._skill_row(name, package, now, on=True)
        if suspend:
            self._suspension_row(name, now, on=True)
            self._report_suspension(name, suspended=True)

    def _toggle(self, name: str) -> None:
        packages = set(self._get(name)["spec"].get("packages") or [])
        skill = self.random.choice(SKILLS)
        self._set_packages(name, packages ^ {skill})
        self._skill_row(name, skill, self.clock.now, on=skill not in packages)

    def _race(self, name: str) -> None:
        """Two people change the list at once: the second has not seen the first, and undoes it."""
        packages = set(self._get(name)["spec"].get("packages") or [])
        first, second = self.random.sample(SKILLS, 2)
        self._set_packages(name, packages ^ {first})
        self._skill_row(name, first, self.clock.now, on=first not in packages)
        self.clock.advance(self.random.uniform(0.01, 1.5))
        if self._get(name):
            self._set_packages(name, packages ^ {second})
            self._skill_row(name, second, self.clock.now, on=second not in packages)

    def _suspend(self, name: str) -> None:
        current = self._get(name)
        suspended = not current["spec"].get("suspend")
        # to resume by taking the field away moves no time on the resource; and a status that stays would still suspend
        value = suspended or (False if current.get("status", {}).get("suspendedAt") else None)
        self.api.patch(name, {"spec": {"suspend": value}})
        self._note(name)
        self._suspension_row(name, self.clock.now, on=suspended)
        self._report_suspension(name, suspended=suspended)

    def _delete(self, name: str) -> None:
        on = sorted(self._get(name)["spec"].get("packages") or [])
        self.api.delete(name)
        self._note(name)
        now = self.clock.now
        if self.api.get(name) and self.random.random() < 0.7:
            self.clock.at(now + timedelta(seconds=self.random.uniform(5, 900)), lambda: self._finalized(name))
        self._row(
            name,
            "UPDATE public.tenant_billing_lifecycle SET deleted_at = %s WHERE tenant_name = %s AND deleted_at IS NULL",
            [now, name],
        )
        for skill in on:
            self._skill_row(name, skill, now, on=False)

    def _relabel(self, name: str) -> None:
        self.api.patch(name, {"metadata": {"labels": {ORG_LABEL: self.random.choice(["2871", "2872"])}}})

    def _touch(self, name: str) -> None:
        self.api.patch(name, {"spec": {"displayName": f"{name} {self.random.random()}"}}, manager="kubectl")

    # what follows

    def _note(self, name: str) -> None:
        """Keep what is true from now on."""
        current, truth, now = self.api.get(name), self.truth.setdefault(name, Truth()), self.clock.now
        living = current if current and "deletionTimestamp" not in current["metadata"] else None
        truth.turn(truth.lifetimes, now, on=living is not None)
        truth.turn_skills(set(living["spec"].get("packages") or []) if living else set(), now)
        suspend = living["spec"].get("suspend") if living else False
        reported = bool(living and living.get("status", {}).get("suspendedAt"))
        truth.turn(truth.suspended, now, on=reported if suspend is None else suspend)

    def _set_packages(self, name: str, packages: set[str]) -> None:
        self.api.patch(name, {"spec": {"packages": sorted(packages)}})
        self._note(name)

    def _report_suspension(self, name: str, *, suspended: bool) -> None:
        def report() -> None:
            current = self.api.get(name)
            if current and bool(current["spec"].get("suspend")) is suspended:
                seen = self.clock.server().strftime("%Y-%m-%dT%H:%M:%SZ") if suspended else None
                self.api.set_status(name, {"suspendedAt": seen})
                self._note(name)

        if self.random.random() < 0.8:
            self.clock.at(self.clock.now + timedelta(seconds=self.random.uniform(0, 20)), report)

    def _finalized(self, name: str) -> None:
        current = self.api.get(name)
        if current and "deletionTimestamp" in current["metadata"]:
            self.api.finalize(name)

    def _skill_row(self, name: str, skill: str, now: datetime, *, on: bool) -> None:
        self._row(
            name,
            "INSERT INTO public.tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at) "
            "VALUES (%s, %s, %s, %s, %s) RETURNING id",
            [name, self._org(name), skill, "enabled" if on else "disabled", now],
        )

    def _suspension_row(self, name: str, now: datetime, *, on: bool) -> None:
        self._row(
            name,
            "INSERT INTO public.tenant_suspension_events (tenant_name, zitadel_org_id, event_kind, occurred_at) "
            "VALUES (%s, %s, %s, %s) RETURNING id",
            [name, self._org(name), "suspended" if on else "resumed", now],
        )

    def _row(self, name: str, statement: str, values: list[Any]) -> None:
        """Write a row up to `settle` later; or the insert fails, and the portal goes on."""
        when = self.clock.now + SETTLE * self.random.choice([0.0, self.random.random()]) * 0.98
        self._busy_until[name] = max(when, self._busy_until.get(name, START))
        if self.random.random() >= self.loss:
            self.clock.at(when, lambda: self._write(statement, values))

    def _write(self, statement: str, values: list[Any]) -> None:
        written = self.clock.ledger.execute(statement.encode(), values)
        if written.description:
            (id_,) = written.fetchall()[0]
            self.written.add(
                ("tenant_skill_events" if "skill_events" in statement else "tenant_suspension_events", id_)
            )

    def _org(self, name: str) -> str:
        current = self.api.get(name)
        return str((current or {}).get("metadata", {}).get("labels", {}).get(ORG_LABEL) or "unknown")

    def _get(self, name: str) -> dict[str, Any]:
        return self.api.get(name) or {}

    def _is_free(self, name: str) -> bool:
        return self._busy_until.get(name, START) <= self.clock.now
