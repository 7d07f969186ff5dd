"""One tenant, a portal and runs, on a clock that only the test moves: what happens to the second."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from reconciler.core.model import FallbackDating
from reconciler.core.plan import Limits
from reconciler.deadline import Deadline
from reconciler.job import Job, RunOptions
from reconciler.run import reconcile
from reconciler.sources.api_client import Api, CustomResource
from reconciler.sources.cluster import Cluster
from tests.simulation.portal import CLOCK, Clock
from tests.support.api_state import ORG_LABEL, tenant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from reconciler.core.model import Outcome
    from tests.support.fake_api import FakeApi

DAY = datetime(2026, 5, 10, tzinfo=UTC)
SKILL_ROW = """
INSERT INTO public.tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at)
VALUES (%(tenant)s, %(org)s, %(skill)s, %(kind)s, %(at)s)
"""
SUSPENSION_ROW = """
INSERT INTO public.tenant_suspension_events (tenant_name, zitadel_org_id, event_kind, occurred_at)
VALUES (%(tenant)s, %(org)s, %(kind)s, %(at)s)
"""
EVENTS = """
SELECT event_kind, occurred_at FROM public.tenant_skill_events WHERE skill_id = %(skill)s
UNION ALL SELECT event_kind, occurred_at FROM public.tenant_suspension_events WHERE %(skill)s::text IS NULL
ORDER BY 2
"""


@dataclass
class World:
    """A cluster and a ledger of one time; times of the day are `hours:minutes:seconds`."""

    api: FakeApi
    clock: Clock
    url: str
    kubeconfig: str
    name: str = "acme"
    settle: timedelta = timedelta(seconds=60)
    fallback: FallbackDating = FallbackDating.CUSTOMER
    slept: list[float] = field(default_factory=list)

    def time(self, at: str) -> datetime:
        """The instant of that time of the day."""
        hours, minutes, seconds = at.split(":")
        return DAY + timedelta(hours=int(hours), minutes=int(minutes), seconds=float(seconds))

    def at(self, at: str) -> World:
        """Let it be that time."""
        self.clock.turn(self.time(at))
        return self

    def create(self, *packages: str, **fields: Any) -> None:
        """Create the tenant."""
        self.api.create(tenant(self.name, packages, **{"suspend": False, **fields}))

    def packages(self, *packages: str) -> None:
        """Let these packages be on."""
        self.api.patch(self.name, {"spec": {"packages": [*packages]}})

    def suspend(self) -> None:
        """Suspend it."""
        self.api.patch(self.name, {"spec": {"suspend": True}})

    def unset_suspend(self) -> None:
        """Take the field away, as kubectl does."""
        self.api.patch(self.name, {"spec": {"suspend": None}})

    def delete(self) -> None:
        """Delete it."""
        self.api.delete(self.name)

    def row(self, kind: str, at: str, skill: str = "mail", org: str = "2871") -> None:
        """Write the portal's row of an event, which says when it was."""
        values = {"tenant": self.name, "org": org, "kind": kind, "at": self.time(at), "skill": skill}
        if kind in {"enabled", "disabled"}:
            self.ledger.execute(SKILL_ROW, values)
        else:
            self.ledger.execute(SUSPENSION_ROW, values)

    def born(self, at: str, org: str = "2871") -> None:
        """Write the portal's row of the creation."""
        values = [self.name, org, self.time(at)]
        self.ledger.execute("INSERT INTO public.tenant_billing_lifecycle VALUES (%s, %s, %s)", values)

    def stamp(self, at: str) -> None:
        """Write the portal's stamp of the deletion."""
        self.ledger.execute("UPDATE public.tenant_billing_lifecycle SET deleted_at = %s", [self.time(at)])

    def run(self, at: str, **options: Any) -> Outcome:
        """Run at that time."""
        self.at(at)
        deadline = Deadline.after(60)
        given: dict[str, Any] = {
            "settle": self.settle,
            "fallback": self.fallback,
            "limits": Limits(count=100),
        } | options
        job = Job(
            database_url=self.url,
            source=self.source(deadline),
            options=RunOptions(**given),
            deadline=deadline,
            sleep=self._sleep,
        )
        outcome = reconcile(job)
        if outcome.failure and not options:
            raise outcome.failure
        return outcome

    def source(self, deadline: Deadline | None = None) -> Cluster:
        """The cluster, as a run or a person looks at it."""
        api = Api(kubeconfig=self.kubeconfig, context=None, deadline=deadline or Deadline.after(60))
        resource = CustomResource(api=api, group="pieced.ch", plural="piecedtenants")
        return Cluster(resource=resource, org_label=ORG_LABEL, page_size=2)

    @property
    def ledger(self) -> psycopg.Connection[Any]:
        """A connection of the owner's."""
        return self.clock.ledger

    def events(self, skill: str | None = "mail") -> list[tuple[str, str]]:
        """The events of a key, by their time: kind and time of the day, to the millisecond."""
        rows = self.ledger.execute(EVENTS, {"skill": skill})
        return [(kind, _shown(at)) for kind, at in rows]

    def lifetime(self) -> tuple[str, str | None]:
        """When it began and ended, by its row."""
        rows = "SELECT created_at, deleted_at FROM public.tenant_billing_lifecycle WHERE tenant_name = %s"
        ((began, ended),) = self.ledger.execute(rows, [self.name])
        return _shown(began), ended and _shown(ended)

    def column(self, statement: str) -> list[Any]:
        """The first column of what a query returns."""
        return [row[0] for row in self.ledger.execute(statement.encode())]

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)


def _shown(at: datetime) -> str:
    at = at.astimezone(UTC)
    return f"{at:%H:%M:%S.%f}".rstrip("0").rstrip(".") if at.date() == DAY.date() else f"{at:%m-%d %H:%M:%S}"


@pytest.fixture
def world(api: FakeApi, ledger_url: str, tmp_path: Path) -> Iterator[World]:
    """A world at midnight, of which no run has seen anything."""
    with psycopg.connect(ledger_url, autocommit=True) as ledger:
        ledger.execute(CLOCK)
    clock = Clock(psycopg.connect(ledger_url, autocommit=True, options="-c timezone=UTC"))
    clock.turn(DAY)
    api.clock = clock.server
    yield World(api, clock, ledger_url, str(api.kubeconfig(tmp_path / "kubeconfig")))
    clock.ledger.close()
