"""The metrics of runs, for Prometheus: scraped from `serve`, or pushed by a single run.

A run updates some metrics and leaves the others as they were: a failed run says nothing about the ledger, so the last
success and its findings stay. `RunMetrics` merges metrics by name, as a Pushgateway merges what is posted to it, so
that both ways show the same.

No metric has a tenant or an organisation as a label: metrics say how many, the database says who.
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
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import timedelta
    from decimal import Decimal
    from typing import TypeVar

    from prometheus_client import Metric

    from reconciler.core.model import Finding, Outcome

    _Family = TypeVar("_Family", CounterMetricFamily, GaugeMetricFamily)

SUCCEEDED = frozenset({Result.CLEAN, Result.CORRECTED, Result.DRIFT})
"""The results of a run that has compared the whole ledger with the cluster."""

_LAST_SUCCESS = "reconciler_last_success_timestamp_seconds"


class RunMetrics:
    """A collector of the metrics of runs. Any thread may read it while another one makes the next run."""

    def __init__(self, *, period: timedelta, sinks: Iterable[str] = ()) -> None:
        """Start with the metrics that need no run.

        Args:
            period: the configured time from one run to the next.
            sinks: the names of the sinks: each is counted from 0, so that its first failure is seen as an increase.
        """
        self._lock = Lock()
        self._undelivered = dict.fromkeys(sinks, 0)
        self._metrics = _by_name(_static_metrics(period))

    @property
    def last_success_at(self) -> float | None:
        """Return when the last successful run ended, in seconds since the epoch; None before the first."""
        success = self._metrics.get(_LAST_SUCCESS)
        return success.samples[0].value if success else None

    def record(self, outcome: Outcome, ended_at: float) -> None:
        """Update the metrics after a run.

        Args:
            outcome: how the run ended.
            ended_at: when it ended, in seconds since the epoch.
        """
        updated = _by_name(_updated_metrics(outcome, ended_at))
        with self._lock:
            self._metrics = self._metrics | updated

    def undelivered(self, sink: str) -> None:
        """Count a message that this sink could not deliver."""
        with self._lock:
            self._undelivered[sink] = self._undelivered.get(sink, 0) + 1

    def collect(self) -> Iterator[Metric]:
        """Yield the current metrics, all of the same run."""
        with self._lock:
            metrics, undelivered = self._metrics, dict(self._undelivered)
        yield from metrics.values()
        if undelivered:
            yield _labelled(
                CounterMetricFamily(
                    "reconciler_alerts_undelivered_total",
                    "Messages about runs that could not be delivered since this process started, by receiver.",
                    labels=["sink"],
                ),
                {(sink,): count for sink, count in undelivered.items()},
            )


def _updated_metrics(outcome: Outcome, ended_at: float) -> Iterator[Metric]:
    """Yield the metrics that a run updates. A plan updates none, because it corrects nothing.

    Args:
        outcome: how the run ended.
        ended_at: when it ended, in seconds since the epoch.
    """
    if outcome.mode is Mode.PLAN:
        return
    succeeded = outcome.result in SUCCEEDED
    yield from _last_run_metrics(outcome, ended_at)
    if succeeded:
        yield from _ledger_metrics(outcome, ended_at)
    # The totals of a successful run are complete: a reason that is missing was never corrected. Otherwise they may be
    # unknown, and a counter must not fall to 0 because of that.
    if succeeded or outcome.totals:
        yield from _total_metrics(outcome.totals)


def _static_metrics(period: timedelta) -> Iterator[Metric]:
    """Yield the metrics that need no run."""
    yield InfoMetricFamily("reconciler_build", "The version of the reconciler.", {"version": __version__})
    yield GaugeMetricFamily(
        "reconciler_period_seconds",
        "The configured time from one run to the next, in seconds.",
        period.total_seconds(),
        unit="seconds",
    )


def _last_run_metrics(outcome: Outcome, ended_at: float) -> Iterator[Metric]:
    """Yield the metrics that every run updates, however it ended."""
    yield GaugeMetricFamily(
        "reconciler_last_run_timestamp_seconds",
        "When the last run ended, whatever its outcome, in seconds since the epoch.",
        ended_at,
        unit="seconds",
    )
    yield GaugeMetricFamily(
        "reconciler_last_run_duration_seconds",
        "How long the last run took, in seconds.",
        outcome.seconds,
        unit="seconds",
    )
    yield _labelled(
        GaugeMetricFamily(
            "reconciler_last_run_outcome",
            "The outcome of the last run: 1 for the one that it had, 0 for the others.",
            labels=["outcome"],
        ),
        {(result,): result is outcome.result for result in Result},
    )
    # the findings of a refused run are what it would have written
    written = [f.impact_chf or 0 for f in outcome.findings if f.action.writes] if outcome.failure is None else []
    yield _labelled(
        GaugeMetricFamily(
            "reconciler_last_run_impact_chf",
            "Impact of the last run's corrections, in CHF before VAT. Positive: revenue that was being lost. "
            "Negative: what customers were being overcharged, as a positive amount.",
            labels=["sign"],
            unit="chf",
        ),
        {
            ("positive",): sum(chf for chf in written if chf > 0),
            ("negative",): -sum(chf for chf in written if chf < 0),
        },
    )


def _ledger_metrics(outcome: Outcome, ended_at: float) -> Iterator[Metric]:
    """Yield the metrics that only a successful run updates."""
    yield GaugeMetricFamily(
        _LAST_SUCCESS,
        "When the last run ended that was neither refused nor failed, in seconds since the epoch.",
        ended_at,
        unit="seconds",
    )
    if outcome.verified_until:
        yield GaugeMetricFamily(
            "reconciler_verified_until_timestamp_seconds",
            "Up to when the ledger is verified, except for the tenants that are reported or deferred, in seconds since "
            "the epoch by the clock of the database.",
            outcome.verified_until.timestamp(),
            unit="seconds",
        )
    yield GaugeMetricFamily(
        "reconciler_tenants_observed",
        "Tenants in the cluster as of the last successful run.",
        outcome.tenants_observed,
    )
    yield GaugeMetricFamily(
        "reconciler_tenants_recorded",
        "Tenants that were open in the ledger before the last successful run.",
        outcome.tenants_recorded,
    )
    yield from _finding_metrics(outcome.findings)


def _finding_metrics(findings: Sequence[Finding]) -> Iterator[Metric]:
    """Yield the counts of findings; those that did not occur are 0."""
    found = Counter({(reason, action): 0 for reason in Reason for action in (reason.action, Action.DEFER)})
    found.update((finding.reason, finding.action) for finding in findings if finding.accepted_until is None)
    yield _labelled(
        GaugeMetricFamily(
            "reconciler_findings",
            "Differences between cluster and ledger in the last successful run, by reason and by what was done; "
            "accepted reports are not counted.",
            labels=["reason", "action"],
        ),
        found,
    )
    accepted = Counter({(reason,): 0 for reason in REPORTING})
    accepted.update((finding.reason,) for finding in findings if finding.accepted_until is not None)
    yield _labelled(
        GaugeMetricFamily(
            "reconciler_findings_accepted",
            "Reports in the last successful run that are accepted for a time.",
            labels=["reason"],
        ),
        accepted,
    )


def _total_metrics(totals: Mapping[Reason, Total]) -> Iterator[Metric]:
    """Yield the totals of all runs. The ledger keeps them, so that they continue after a restart."""
    yield _labelled(
        CounterMetricFamily(
            "reconciler_corrections_total",
            "Corrections of the ledger by all runs so far.",
            labels=["reason"],
        ),
        {(reason,): 0 for reason in CORRECTING} | {(reason,): total.corrections for reason, total in totals.items()},
    )
    yield _labelled(
        CounterMetricFamily(
            "reconciler_impact_chf_total",
            "Impact of the corrections of all runs, in CHF before VAT. Positive: revenue that was being lost. "
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
        family.add_metric(labels, float(value))  # Prometheus has no other type of number
    return family


def _by_name(metrics: Iterable[Metric]) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}
