"""The metrics of runs, for Prometheus: scraped from `serve`, or pushed by a single run.

A run updates some metrics and leaves the others as they were: a failed run says nothing about the ledger, so the last
success and its findings stay. `RunMetrics` merges metrics by name, as a Pushgateway merges what is posted to it, so
that both ways show the same.

No metric has a tenant or an organisation as a label: metrics say how many, the database says who.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

from reconciler import __version__
from reconciler.core.model import Action, LogRead, Mode, Result
from reconciler.core.plan import TooMuchDrift
from reconciler.core.reasons import CORRECTING, REPORTING, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import timedelta
    from decimal import Decimal

    from prometheus_client import Metric

    from reconciler.core.model import Outcome

    Value = float | Mapping[Any, float | Decimal]
    """Of a metric without labels, or by the tuple of its labels' values."""

SUCCEEDED = frozenset({Result.CLEAN, Result.CORRECTED, Result.DRIFT})
"""The results of a run that has compared the ledger with the cluster: the whole, or what has changed."""

LOGS = (LogRead.REACHED, LogRead.PARTLY, LogRead.LOST)
"""How far a run over a cluster can read the change log."""

SIGNS = "Positive: revenue that was being lost. Negative: what customers were being overcharged, as a positive amount."

DOCUMENTATION = {
    "reconciler_period_seconds": "The configured time from one run to the next, in seconds.",
    "reconciler_last_run_timestamp_seconds": "When the last run ended, whatever its outcome, in seconds "
    "since the epoch.",
    "reconciler_last_run_duration_seconds": "How long the last run took, in seconds.",
    "reconciler_last_run_outcome": "The outcome of the last run: 1 for the one that it had, 0 for the others.",
    "reconciler_last_run_impact_chf": f"Impact of the last run's corrections, in CHF before VAT. {SIGNS}",
    "reconciler_last_success_timestamp_seconds": "When the last run ended that was neither refused nor failed, in "
    "seconds since the epoch.",
    "reconciler_verified_until_timestamp_seconds": "Up to when the ledger is verified, except for the tenants that are "
    "reported or deferred, in seconds since the epoch by the clock of the database.",
    "reconciler_tenants_observed": "Tenants in the cluster as of the last successful run.",
    "reconciler_tenants_recorded": "Tenants that were open in the ledger before the last successful run that "
    "compared all.",
    "reconciler_findings": "Differences between cluster and ledger in the last successful run, by reason and by what "
    "was done; accepted reports are not counted.",
    "reconciler_findings_accepted": "Reports in the last successful run that are accepted for a time.",
    "reconciler_corrections_total": "Corrections of the ledger by all runs so far.",
    "reconciler_impact_chf_total": f"Impact of the corrections of all runs, in CHF before VAT. {SIGNS}",
    "reconciler_history_log": "How far the last run over the cluster could read the change log: 1 for what it reached, "
    "0 for the others.",
    "reconciler_history_gaps": "Tenants of which the last run over the cluster could not prove what happened since the "
    "run before it.",
    "reconciler_history_corrections_total": "Rows that all runs so far have written because of what they learned of "
    "the past: what the change log showed, and corrections that were taken back.",
    "reconciler_notifications_owed": "Earlier runs whose corrections a receiver had not been notified of before the "
    "last run.",
    "reconciler_alerts_undelivered_total": "Messages about runs that could not be delivered since this process "
    "started, by receiver.",
}
"""A name ends in its unit; one that ends in `_total` is a counter."""
LABELS = {
    "reconciler_last_run_outcome": ["outcome"],
    "reconciler_last_run_impact_chf": ["sign"],
    "reconciler_findings": ["reason", "action"],
    "reconciler_findings_accepted": ["reason"],
    "reconciler_corrections_total": ["reason"],
    "reconciler_impact_chf_total": ["sign"],
    "reconciler_history_log": ["log"],
    "reconciler_history_corrections_total": ["reason"],
    "reconciler_alerts_undelivered_total": ["sink"],
}


class RunMetrics:
    """A collector of the metrics of runs. Any thread may read it while another one makes the next run.

    Each of the `sinks` is counted from 0, so that its first failure is seen as an increase.
    """

    def __init__(self, *, period: timedelta, sinks: Iterable[str] = ()) -> None:
        self._lock = Lock()
        self._undelivered = Counter({(sink,): 0 for sink in sinks})
        self._values: dict[str, Value] = {"reconciler_period_seconds": period.total_seconds()}

    def record(self, outcome: Outcome, ended_at: float) -> None:
        """Update the metrics after a run that ended at this time, in seconds since the epoch."""
        updated = _updated(outcome, ended_at)
        with self._lock:
            self._values = self._values | updated

    def undelivered(self, sink: str) -> None:
        """Count a message that this sink could not deliver."""
        with self._lock:
            self._undelivered[sink,] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield the current metrics, all of the same run."""
        with self._lock:
            values, undelivered = self._values, dict(self._undelivered)
        yield InfoMetricFamily("reconciler_build", "The version of the reconciler.", {"version": __version__})
        for name, value in values.items():
            yield _metric(name, value)
        if undelivered:
            yield _metric("reconciler_alerts_undelivered_total", undelivered)


def _updated(outcome: Outcome, ended_at: float) -> dict[str, Value]:
    """Return what a run updates. A plan updates nothing, because it corrects nothing."""
    if outcome.mode is Mode.PLAN:
        return {}
    succeeded = outcome.result in SUCCEEDED
    # the findings of a refused run are what it would have written
    written = [f.impact_chf or 0 for f in outcome.findings if f.action.writes] if outcome.failure is None else []
    values: dict[str, Value] = {
        "reconciler_last_run_timestamp_seconds": ended_at,
        "reconciler_last_run_duration_seconds": outcome.seconds,
        "reconciler_last_run_outcome": {(result,): result is outcome.result for result in Result},
        "reconciler_last_run_impact_chf": {
            ("positive",): sum(chf for chf in written if chf > 0),
            ("negative",): -sum(chf for chf in written if chf < 0),
        },
    }
    if outcome.recorded:
        values["reconciler_notifications_owed"] = len(outcome.owed)
    # of the runs that were stopped, only this one keeps what its list proved
    is_kept = succeeded or (outcome.recorded and isinstance(outcome.failure, TooMuchDrift))
    if is_kept and outcome.history.log is not LogRead.NONE:
        values["reconciler_history_gaps"] = outcome.history.gaps
        values["reconciler_history_log"] = {(log,): log is outcome.history.log for log in LOGS}
    if succeeded:
        values |= _of_the_ledger(outcome, ended_at)
    # The totals of a successful run are complete: a reason that is missing was never corrected. Otherwise they may be
    # unknown, and a counter must not fall to 0 because of that. The ledger keeps them, so they survive a restart.
    if succeeded or outcome.totals:
        corrections = dict.fromkeys(CORRECTING, 0) | {r: total.corrections for r, total in outcome.totals.items()}
        values["reconciler_corrections_total"] = {(r,): n for r, n in corrections.items()}
        from_past = dict.fromkeys(CORRECTING, 0) | {r: total.from_log for r, total in outcome.totals.items()}
        # all of these are about the past, whatever showed it
        from_past[Reason.CORRECTION_SUPERSEDED] = corrections[Reason.CORRECTION_SUPERSEDED]
        values["reconciler_history_corrections_total"] = {(r,): n for r, n in from_past.items()}
        values["reconciler_impact_chf_total"] = {
            ("positive",): sum(total.positive_chf for total in outcome.totals.values()),
            ("negative",): -sum(total.negative_chf for total in outcome.totals.values()),
        }
    return values


def _of_the_ledger(outcome: Outcome, ended_at: float) -> dict[str, Value]:
    """Return what only a successful run updates. Findings that did not occur are 0."""
    until = outcome.verified_until
    found = Counter({(reason, action): 0 for reason in Reason for action in (reason.action, Action.DEFER)})
    found.update((finding.reason, finding.action) for finding in outcome.findings if finding.accepted_until is None)
    accepted = Counter({(reason,): 0 for reason in REPORTING})
    accepted.update((finding.reason,) for finding in outcome.findings if finding.accepted_until is not None)
    return {
        "reconciler_last_success_timestamp_seconds": ended_at,
        **({"reconciler_verified_until_timestamp_seconds": until.timestamp()} if until else {}),
        "reconciler_tenants_observed": outcome.tenants_observed,
        "reconciler_tenants_recorded": outcome.tenants_recorded,
        "reconciler_findings": found,
        "reconciler_findings_accepted": accepted,
    }


def _metric(name: str, value: Value) -> Metric:
    """Return the metric of that name, with a sample for each tuple of label values."""
    family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    unit = name.removesuffix("_total").rpartition("_")[2]
    metric = family(
        name, DOCUMENTATION[name], labels=LABELS.get(name, []), unit=unit if unit in {"seconds", "chf"} else ""
    )
    for of, number in value.items() if isinstance(value, Mapping) else [((), value)]:
        metric.add_metric(of, float(number))  # Prometheus has no other type of number
    return metric
