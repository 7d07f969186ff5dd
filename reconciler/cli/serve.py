"""The command that runs on a schedule."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import click

from reconciler.cli import options as settings
from reconciler.cli.options import AlertSettings, ClusterSettings, SafetySettings, ScheduleSettings
from reconciler.cli.output import log_end
from reconciler.core.errors import as_failure
from reconciler.core.model import Mode, Outcome, Result

if TYPE_CHECKING:
    from collections.abc import Callable

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@click.command()
@settings.options(cluster=ClusterSettings, safety=SafetySettings, alerts=AlertSettings, schedule=ScheduleSettings)
def serve(
    *, cluster: ClusterSettings, safety: SafetySettings, alerts: AlertSettings, schedule: ScheduleSettings
) -> None:
    """Run on a schedule, with /metrics and /healthz, until SIGTERM or SIGINT.

    A run in progress is completed first; a second signal ends the process immediately.
    """
    from reconciler.cli.assemble import make_alerts, run_once
    from reconciler.cli.schedule import longest_wait, make_trigger
    from reconciler.cli.service import Service
    from reconciler.metrics import RunMetrics

    now = partial(datetime.now, schedule.time_zone)
    try:
        trigger = make_trigger(
            every=alerts.every, cron=schedule.cron, timezone=schedule.time_zone, jitter=schedule.jitter
        )
        period = longest_wait(trigger, now())
    except ValueError as error:
        raise click.BadParameter(f"{schedule.cron!r} is not a schedule: {error}.", param_hint="'--cron'") from None
    url = settings.database_url()
    by_period = replace(alerts, every=period)
    # built once before the first run, so that wrong settings are reported immediately
    metrics = RunMetrics(period=period, sinks=[sink.name for sink in make_alerts(by_period, None).all_sinks])

    def run() -> Outcome:
        try:
            outcome = run_once(
                Mode.RUN, url, cluster=cluster, safety=safety, alerts=by_period, undelivered=metrics.undelivered
            )
        except Exception as error:  # noqa: BLE001 - metrics and log know of it, and the next run follows
            outcome = Outcome(run_id=uuid4(), mode=Mode.RUN, result=Result.FAILED, failure=as_failure(error))
        metrics.record(outcome, time.time())
        log_end(outcome)
        return outcome

    service = Service(
        run_once=run, trigger=trigger, period=period, metrics=metrics, now=now, starts_at_once=schedule.cron is None
    )
    service.run(*schedule.listen, _wait_for_signal())


def _wait_for_signal() -> Callable[[], object]:
    """Return a function that waits for the first signal; the second one meets its default action.

    It reads from a pipe: any thread may receive a signal, and one that waits for a lock sleeps on then.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)

    def handle(*_: object) -> None:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    for number in STOP_SIGNALS:
        signal.signal(number, handle)
    return partial(os.read, reader, 1)
