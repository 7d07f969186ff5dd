"""A run and all that it needs, made from the settings."""

from __future__ import annotations

import os
import socket
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from reconciler.alerts import Alerts
from reconciler.alerts.addresses import Proxies
from reconciler.alerts.log import Log
from reconciler.cli.options import WrongSettings
from reconciler.core.plan import Limits
from reconciler.deadline import Deadline
from reconciler.job import Job, RunOptions
from reconciler.run import reconcile

if TYPE_CHECKING:
    from collections.abc import Callable

    from reconciler.alerts import Sink
    from reconciler.cli.options import AlertSettings, ClusterSettings, Overrides, SafetySettings
    from reconciler.core.model import Mode, Outcome, Source


def run_once(
    mode: Mode,
    database_url: str,
    *,
    cluster: ClusterSettings,
    safety: SafetySettings,
    tenants: str | None = None,
    overrides: Overrides | None = None,
    alerts: AlertSettings | None = None,
    undelivered: Callable[[str], object] | None = None,
) -> Outcome:
    """Reconcile once; `tenants`, a file or folder, replaces the cluster, and without `alerts` nobody is notified.

    `undelivered` is called with the name of each sink that could not be notified.
    """
    deadline = Deadline.after(safety.deadline.total_seconds())
    source = make_source(cluster, deadline, tenants)
    allow_mass = frozenset(overrides.allow_mass if overrides else ())
    limits = Limits(count=safety.limit_count, percent=safety.limit_percent, allow_mass=allow_mass)
    options = RunOptions(
        mode=mode,
        settle=safety.settle,
        fallback=safety.uncertain,
        full_every=safety.full_every,
        limits=limits,
        accept_source=overrides is not None and overrides.accept_source,
    )
    notified = make_alerts(alerts, source, undelivered) if alerts else Alerts()
    return reconcile(Job(database_url=database_url, source=source, options=options, deadline=deadline, alerts=notified))


def make_source(settings: ClusterSettings, deadline: Deadline, tenants: str | None = None) -> Source:
    """Return the source of the tenants: a file if one is given, otherwise the cluster."""
    if tenants is not None:
        from reconciler.sources.file import FileSource

        if not tenants:
            raise WrongSettings(
                "--tenants is empty, and would name whatever folder this is.",
                "Nothing was read. Name a file or folder, or leave the option out: then the cluster is listed.",
            )
        return FileSource(path=tenants, group=settings.group, org_label=settings.org_label)
    from reconciler.sources.api_client import Api, CustomResource
    from reconciler.sources.cluster import Cluster

    api = Api(
        kubeconfig=settings.kubeconfig,
        context=settings.context,
        in_pod="KUBERNETES_SERVICE_HOST" in os.environ,
        deadline=deadline,
    )
    resource = CustomResource(api=api, group=settings.group, plural=settings.plural)
    return Cluster(resource=resource, org_label=settings.org_label, page_size=settings.page_size)


def make_alerts(
    settings: AlertSettings, source: Source | None, undelivered: Callable[[str], object] | None = None
) -> Alerts:
    """Return everyone who is notified of a run over this source."""
    from reconciler.sources.cluster import Cluster

    now, proxies = partial(datetime.now, UTC), Proxies()
    if settings.alertmanager or settings.pushgateway or settings.heartbeat_url:
        proxies = Proxies.named(settings.proxies)
    sinks: list[Sink] = [Log()]
    if settings.events and isinstance(source, Cluster):
        from reconciler.alerts.events import Events

        sinks.append(Events(resource=source.resource, instance=socket.gethostname() or "reconciler", now=now))
    if settings.alertmanager:
        from reconciler.alerts.alertmanager import Alertmanager

        seconds = settings.every.total_seconds()
        addresses = settings.alertmanager
        sinks.append(Alertmanager(addresses, job=settings.job_name, period=seconds, now=now, proxies=proxies))
    if settings.pushgateway:
        from reconciler.alerts.pushgateway import Pushgateway

        url, job = settings.pushgateway, settings.job_name
        sinks.append(Pushgateway(url=url, job=job, period=settings.every, now=time.time, proxies=proxies))
    if settings.notify_urls:
        from reconciler.alerts.notify import Messenger

        # the ledger stores the sink's name, which must not reveal the URL
        sinks += [Messenger(url, f"notify-{number}") for number, url in enumerate(settings.notify_urls, start=1)]
    if not settings.heartbeat_url:
        return Alerts(sinks=tuple(sinks), undelivered=undelivered)
    from reconciler.alerts.heartbeat import Heartbeat

    return Alerts(sinks=tuple(sinks), heartbeat=Heartbeat(settings.heartbeat_url, proxies), undelivered=undelivered)
