"""A cluster, a ledger, and runs over the two, for tests that need no more."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.alerts import Alerts
from reconciler.core.model import Mode
from reconciler.deadline import Deadline
from reconciler.job import Job, RunOptions
from reconciler.run import reconcile
from reconciler.sources.api_client import Api, CustomResource
from reconciler.sources.cluster import Cluster
from tests.support.api_state import ORG_LABEL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import psycopg

    from reconciler.core.model import Outcome
    from tests.support.fake_api import FakeApi


@dataclass
class System:
    """A cluster, a ledger that is true to it, and runs over the two in which waiting takes no time."""

    api: FakeApi
    ledger: psycopg.Connection[Any]
    url: str
    kubeconfig: str
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    slept: list[float] = field(default_factory=list)
    deadline: Deadline = field(default_factory=lambda: Deadline.after(60))
    alerts: Alerts = field(default_factory=Alerts)
    on_sleep: Callable[[], object] | None = None

    def record(self, name: str, at: timedelta, **skills: timedelta) -> None:
        """Write what the portal wrote: the tenant, and when each skill was enabled."""
        self.ledger.execute("INSERT INTO tenant_billing_lifecycle VALUES (%s, '2871', %s)", [name, self.now + at])
        for skill, enabled in skills.items():
            self.record_skill(name, skill, enabled)

    def record_skill(self, name: str, skill: str, at: timedelta) -> None:
        """Write that a skill was enabled."""
        self.ledger.execute(
            "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at) "
            "VALUES (%s, '2871', %s, 'enabled', %s)",
            [name, skill, self.now + at],
        )

    def run(self, mode: Mode = Mode.RUN, **options: Any) -> Outcome:
        """Run once, with these options."""
        api = Api(kubeconfig=self.kubeconfig, context=None, deadline=self.deadline)
        source = Cluster(
            resource=CustomResource(api=api, group="pieced.ch", plural="piecedtenants"),
            org_label=ORG_LABEL,
            page_size=2,
        )
        job = Job(
            database_url=self.url,
            source=source,
            options=RunOptions(mode=mode, **options),
            deadline=self.deadline,
            alerts=self.alerts,
            sleep=self._sleep,
        )
        return reconcile(job)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.on_sleep:
            self.on_sleep()


@pytest.fixture
def system(api: FakeApi, ledger: psycopg.Connection[Any], ledger_url: str, tmp_path: Path) -> System:
    return System(api, ledger, ledger_url, str(api.kubeconfig(tmp_path / "kubeconfig")))
