"""A pass and everything around it, made from the settings as they were given."""

from __future__ import annotations

import os
import socket
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from reconciler.alerts import Alerts
from reconciler.alerts.log import Log
from reconciler.cli import options as settings
from reconciler.core.model import FallbackDating, Mode
from reconciler.core.plan import Limits
from reconciler.core.reasons import Reason
from reconciler.deadline import Deadline
from reconciler.run import Job, RunOptions, reconcile

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from reconciler.alerts import Sink
    from reconciler.core.model import Outcome, Source


def made(mode: Mode, database_url: str, *, deadline: timedelta, **given: Any) -> Outcome:
    """Make one pass."""
    ends = Deadline.after(deadline.total_seconds())
    seen = source(ends, **given)
    job = Job(
        database_url=database_url,
        source=seen,
        deadline=ends,
        alerts=Alerts() if mode is Mode.PLAN else alerts(seen, **given),
        options=RunOptions(
            mode=mode,
            settle=given["settle"],
            fallback=FallbackDating(given["uncertain"]),
            limits=Limits(
                count=given["limit_count"],
                percent=given["limit_percent"],
                allow_mass=frozenset(Reason(reason) for reason in given.get("allow_mass", ())),
            ),
            accept_source=given.get("accept_source", False),
        ),
    )
    return reconcile(job)


def source(
    deadline: Deadline,
    *,
    tenants: str | None,
    kubeconfig: str | None,
    context: str | None,
    group: str,
    plural: str,
    org_label: str,
    page_size: int,
    **_: Any,
) -> Source:
    """Return where the tenants are observed."""
    if tenants is not None:
        from reconciler.sources.file import FileSource

        return FileSource(path=tenants, group=group, org_label=org_label)
    from reconciler.sources import api_client as wire
    from reconciler.sources.cluster import Cluster

    api = wire.Api(kubeconfig=kubeconfig, context=context, deadline=deadline)
    return Cluster(api=api, group=group, plural=plural, org_label=org_label, page_size=page_size)


def alerts(
    seen: Source | None,
    *,
    every: timedelta,
    job_name: str,
    alertmanager: tuple[str, ...],
    pushgateway: str | None,
    events: bool,
    undelivered: Callable[[str], object] | None = None,
    **_: Any,
) -> Alerts:
    """Return everybody who is told of passes."""
    from reconciler.sources.cluster import Cluster

    def now() -> datetime:
        return datetime.now(UTC)

    sinks: list[Sink] = [Log()]
    if events and isinstance(seen, Cluster):
        from reconciler.alerts.events import Events

        sinks.append(Events(cluster=seen, instance=socket.gethostname() or "reconciler", now=now))
    if alertmanager:
        from reconciler.alerts.alertmanager import Alertmanager

        sinks.append(Alertmanager(urls=alertmanager, job=job_name, period=every.total_seconds(), now=now))
    if pushgateway:
        from reconciler.alerts.pushgateway import Pushgateway

        sinks.append(Pushgateway(url=pushgateway, job=job_name, period=every, now=time.time))
    if urls := os.environ.get(settings.NOTIFY_URLS, "").split():
        from reconciler.alerts.notify import Messenger

        # each is remembered by its name, which must not tell its URL
        sinks += [Messenger(url, f"notify-{number}") for number, url in enumerate(urls, start=1)]
    heartbeat = None
    if url := os.environ.get(settings.HEARTBEAT_URL):
        from reconciler.alerts.heartbeat import Heartbeat

        heartbeat = Heartbeat(url)
    return Alerts(sinks=tuple(sinks), heartbeat=heartbeat, undelivered=undelivered)
