"""What is measured of passes, for Prometheus: scraped from a process that makes them, or pushed by a single one.

A pass determines some metrics and leaves the others as they were: one that failed says nothing of the ledger, so the
last success, and what was found then, stay. `Passes` merges metrics by name, as a Pushgateway does with what is posted
to it; so both ways show the same.

No metric is labelled with a tenant or an organisation: metrics say how many, the database says who.
"""

from __future__ import annotations

from collections import Counter
from threading import Lock
from typing import TYPE_CHECKING, Any

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

from reconciler import __version__
from reconciler.core.model import Action, Mode, Result, Total
from reconciler.core.reasons import CORRECTING, REPORTING, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import timedelta
    from decimal import Decimal
    from typing import TypeVar

    from prometheus_client import Metric

    from reconciler.core.model import Outcome

    _Family = TypeVar("_Family", CounterMetricFamily, GaugeMetricFamily)

SUCCEEDED = frozenset({Result.CLEAN, Result.CORRECTED, Result.DRIFT})
"""How a pass ends that has held the whole ledger against the cluster."""

_LAST_SUCCESS = "reconciler_last_success_timestamp_seconds"


class RunMetrics:
    """A collector of the passes that were made. Any thread may read it while another makes the next pass."""

    def __init__(self, *, period: timedelta, sinks: Iterable[str] = ()) -> None:
        """Begin before the first pass.

        Args:
            period: the time from one pass to the next, as it is meant to be.
            sinks: the names of those who are told of passes: each is counted from 0, so that its first failure shows.
        """
        self._lock = Lock()
        self._undelivered = dict.fromkeys(sinks, 0)
        self._metrics = _by_name(_standing(period))

    @property
    def last_success_at(self) -> float | None:
        """When the last pass that succeeded ended, in seconds since the epoch; None before the first."""
        success = self._metrics.get(_LAST_SUCCESS)
        return success.samples[0].value if success else None

    def take(self, outcome: Outcome, ended_at: float) -> None:
        """Take what a pass determines.

        Args:
            outcome: of the pass.
            ended_at: when it ended, in seconds since the epoch.
        """
        news = _by_name(determined(outcome, ended_at))
        with self._lock:
            self._metrics = self._metrics | news

    def undelivered(self, sink: str) -> None:
        """Count a message that this sink could not deliver."""
        with self._lock:
            self._undelivered[sink] = self._undelivered.get(sink, 0) + 1

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now, all of the same pass."""
        with self._lock:
            metrics, undelivered = self._metrics, dict(self._undelivered)
        yield from metrics.values()
        if undelivered:
            yield _labelled(
                CounterMetricFamily(
                    "reconciler_alerts_undelivered_total",
                    "Messages about passes that could not be delivered since this process began, by receiver.",
                    labels=["sink"],
                ),
                {(sink,): count for sink, count in undelivered.items()},
            )


def determined(outcome: Outcome, ended_at: float) -> Iterator[Metric]:
    """Yield the metrics that a pass determines. A plan determines none: it corrects nothing.

    Args:
        outcome: of the pass.
        ended_at: when it ended, in seconds since the epoch.
    """
    if outcome.mode is Mode.PLAN:
        return
    succeeded = outcome.result in SUCCEEDED
    yield from _of_the_run(outcome, ended_at)
    if succeeded:
        yield from _of_the_ledger(outcome, ended_at)
    # The totals of a pass that succeeded are whole: what is not among them was never corrected. Without a success they
    # may not be known, and a counter must not fall to 0 for that.
    if succeeded or outcome.totals:
        yield from _of_all_runs(outcome.totals)


def _standing(period: timedelta) -> Iterator[Metric]:
    """Yield what holds without any pass."""
    yield InfoMetricFamily("reconciler_build", "The version of the reconciler.", {"version": __version__})
    yield GaugeMetricFamily(
        "reconciler_period_seconds",
        "The time from one pass to the next, as it is meant to be, in seconds.",
        period.total_seconds(),
        unit="seconds",
    )


def _of_the_run(outcome: Outcome, ended_at: float) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "reconciler_last_run_timestamp_seconds",
        "When the last pass ended, however it ended, in seconds since the epoch.",
        ended_at,
        unit="seconds",
    )
    yield GaugeMetricFamily(
        "reconciler_last_run_duration_seconds",
        "How long the last pass took, in seconds.",
        outcome.seconds,
        unit="seconds",
    )
    yield _labelled(
        GaugeMetricFamily(
            "reconciler_last_run_outcome",
            "How the last pass ended: 1 for its outcome, 0 for the others.",
            labels=["outcome"],
        ),
        {(result,): result is outcome.result for result in Result},
    )
    # among the findings of a refused pass is what it would have written
    written = [f.impact_chf or 0 for f in outcome.findings if f.action.writes] if outcome.failure is None else []
    yield _labelled(
        GaugeMetricFamily(
            "reconciler_last_run_impact_chf",
            "What the corrections of the last pass are worth, in CHF before VAT. Positive: revenue that was being "
            "lost. Negative: what customers were being overcharged, as a positive amount.",
            labels=["sign"],
            unit="chf",
        ),
        {
            ("positive",): sum(chf for chf in written if chf > 0),
            ("negative",): -sum(chf for chf in written if chf < 0),
        },
    )


def _of_the_ledger(outcome: Outcome, ended_at: float) -> Iterator[Metric]:
    """Yield what only a pass that succeeded can say."""
    yield GaugeMetricFamily(
        _LAST_SUCCESS,
        "When the last pass ended that was neither refused nor failed, in seconds since the epoch.",
        ended_at,
        unit="seconds",
    )
    if outcome.verified_until:
        yield GaugeMetricFamily(
            "reconciler_verified_until_timestamp_seconds",
            "Up to when the ledger is proved, but for the tenants that are reported or deferred, in seconds since the "
            "epoch by the clock of the database.",
            outcome.verified_until.timestamp(),
            unit="seconds",
        )
    yield GaugeMetricFamily(
        "reconciler_tenants_observed",
        "Tenants in the cluster, as the last pass that succeeded saw them.",
        outcome.tenants_observed,
    )
    yield GaugeMetricFamily(
        "reconciler_tenants_recorded",
        "Tenants that were open in the ledger before the last pass that succeeded.",
        outcome.tenants_recorded,
    )
    found = Counter({(reason, action): 0 for reason in Reason for action in (reason.action, Action.DEFER)})
    found.update((finding.reason, finding.action) for finding in outcome.findings if finding.accepted_until is None)
    yield _labelled(
        GaugeMetricFamily(
            "reconciler_findings",
            "Differences between cluster and ledger in the last pass that succeeded, by what was done about them; "
            "without the reports that are accepted.",
            labels=["reason", "action"],
        ),
        found,
    )
    accepted = Counter({(reason,): 0 for reason in REPORTING})
    accepted.update((finding.reason,) for finding in outcome.findings if finding.accepted_until is not None)
    yield _labelled(
        GaugeMetricFamily(
            "reconciler_findings_accepted",
            "Reports in the last pass that succeeded that people know about and accept for a time.",
            labels=["reason"],
        ),
        accepted,
    )


def _of_all_runs(totals: Mapping[Reason, Total]) -> Iterator[Metric]:
    """Yield what was ever corrected: the ledger keeps count, so it goes on where another process left off."""
    yield _labelled(
        CounterMetricFamily(
            "reconciler_corrections_total",
            "Corrections of the ledger by all passes ever made.",
            labels=["reason"],
        ),
        {(reason,): 0 for reason in CORRECTING} | {(reason,): total.corrections for reason, total in totals.items()},
    )
    yield _labelled(
        CounterMetricFamily(
            "reconciler_impact_chf_total",
            "What the corrections of all passes are worth, in CHF before VAT. Positive: revenue that was being lost. "
            "Negative: what customers were being overcharged, as a positive amount.",
            labels=["sign"],
            unit="chf",
        ),
        {
            ("positive",): sum(total.positive_chf for total in totals.values()),
            ("negative",): -sum(total.negative_chf for total in totals.values()),
        },
    )


def _labelled(family: _Family, values: Mapping[Any, Decimal | float]) -> _Family:
    """Return the family with a sample for each tuple of label values."""
    for labels, value in values.items():
        family.add_metric(labels, float(value))  # Prometheus knows no other number
    return family


def _by_name(metrics: Iterable[Metric]) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}
