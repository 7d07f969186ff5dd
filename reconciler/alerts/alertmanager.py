"""A Prometheus Alertmanager, by its API v2: one alert for each class of drift, and one for passes that are stopped.

The labels of an alert never change from pass to pass, so that Alertmanager knows it again and tells people once; counts
and names are in its annotations. Each pass sends its alerts anew, to end three periods later: an alert outlives the
next pass, but not the reconciler itself. What a pass no longer finds it ends; a correction ends by itself.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from reconciler.alerts import Undelivered
from reconciler.alerts.http import Endpoint
from reconciler.alerts.wording import listed, visible, worth
from reconciler.core.model import Action, Mode, Result
from reconciler.core.reasons import RUNBOOK
from reconciler.deadline import Deadline, DeadlineExceeded
from reconciler.views.terminal import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from reconciler.core.errors import Failure
    from reconciler.core.model import Finding, Outcome

PERIODS = 3
"""How many periods an alert lasts that no pass renews."""
SECONDS = 13.0
"""How long all of it may take, with every Alertmanager at the same time."""
LARGEST_ANSWER = 2**20
"""Bytes of a list of our own alerts, of which there are some thirty at most."""
LONGEST_LIST = 10
"""Findings that an alert names; the rest are counted."""
LONGEST_SUMMARY = 200
LONGEST_FAILURE = 1000
"""Characters of what a failure says."""

CORRECTED = "BillingDriftCorrected"
REPORTED = "BillingDriftReported"
STOPPED = {Result.BLOCKED: "ReconcilerBlocked", Result.FAILED: "ReconcilerFailed"}

UNDECIDED = {
    Result.BLOCKED: {REPORTED},
    Result.FAILED: {REPORTED, STOPPED[Result.BLOCKED]},
}
"""What a pass that was stopped does not know to be over: those alerts are not ended but renewed."""


class Alert(msgspec.Struct, frozen=True, rename="camel"):
    """An alert as it is posted."""

    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: datetime
    ends_at: datetime


class Active(msgspec.Struct, frozen=True, rename="camel"):
    """An alert as Alertmanager shows it."""

    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: datetime
    updated_at: datetime
    generator_url: str = msgspec.field(name="generatorURL", default="")
    """Where it comes from: Prometheus says so, and the reconciler does not."""


class Alertmanager:
    """Tells one or more Alertmanagers what there is, and what is over.

    Args:
        urls: their addresses; each instance of a cluster is to be named, and is told on its own. What follows the host,
            such as a route prefix, comes before `/api/v2`.
        period: seconds from one pass to the next.
        now: returns the time, aware.
        job: what sets the alerts of this reconciler apart from those of another one on the same Alertmanager.

    Raises:
        WrongAddress: an address is none.
    """

    name: ClassVar[str] = "alertmanager"
    deduplicates: ClassVar[bool] = True

    def __init__(
        self, urls: Sequence[str], *, period: float, now: Callable[[], datetime], job: str = "reconciler"
    ) -> None:
        self._endpoints = [Endpoint.at(url, "Alertmanager") for url in urls]
        self._lasting = timedelta(seconds=PERIODS * period)
        self._now = now
        self._job = job

    def tell(self, outcome: Outcome) -> None:
        """Send the alerts of a run, and end those that it no longer finds. Of a plan nothing is sent.

        Raises:
            Undelivered: an Alertmanager could not be told; the others were.
        """
        if outcome.mode is Mode.PLAN:
            return
        now = self._now()
        alerts = self._alerts(outcome, now)
        deadline = Deadline.after(SECONDS)
        deliveries = [
            (endpoint, deadline.start(partial(self._tell, endpoint, alerts, outcome.result, now)))
            for endpoint in self._endpoints
        ]
        failures = []
        for endpoint, delivery in deliveries:
            try:
                delivery()
            except Undelivered as error:
                failures.append(str(error))
            except DeadlineExceeded:
                failures.append(f"{endpoint.origin} did not answer within {SECONDS:g} s.")
        if failures:
            raise Undelivered(" ".join(failures))

    def _tell(self, endpoint: Endpoint, alerts: list[Alert], result: Result, now: datetime) -> None:
        # what there is comes first: it is told even where what is over cannot be found out
        self._post(endpoint, alerts)
        sent = [alert.labels for alert in alerts]
        # a correction is over with its pass: ended now, its alert might never have been sent
        others = [
            active
            for active in self._active(endpoint)
            if active.labels not in sent and active.labels["alertname"] != CORRECTED
        ]
        kept = UNDECIDED.get(result, set())
        self._post(
            endpoint,
            [
                Alert(
                    labels=active.labels,
                    annotations=active.annotations,
                    starts_at=active.starts_at,
                    ends_at=now + self._lasting if active.labels["alertname"] in kept else _over(active),
                )
                for active in others
            ],
        )

    def _post(self, endpoint: Endpoint, alerts: list[Alert]) -> None:
        if alerts:
            endpoint.send("POST", "/api/v2/alerts", body=msgspec.json.encode(alerts), content_type="application/json")

    def _active(self, endpoint: Endpoint) -> list[Active]:
        """Return the alerts of ours that an Alertmanager holds, those that are silenced or inhibited among them.

        A rule of Prometheus may alert under the same name: whatever it has sent is not ours.
        """
        names = {CORRECTED, REPORTED, *STOPPED.values()}
        matchers = [f"job={_quoted(self._job)}", f'alertname=~"{"|".join(sorted(names))}"']
        body = endpoint.send(
            "GET", "/api/v2/alerts", query=[("filter", matcher) for matcher in matchers], largest=LARGEST_ANSWER
        )
        try:
            active = msgspec.json.decode(body, type=list[Active])
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            raise Undelivered(f"{endpoint.origin} answered with something else than a list of alerts.") from None
        return [
            alert
            for alert in active
            if alert.labels.get("job") == self._job
            and alert.labels.get("alertname") in names
            and not alert.generator_url
        ]

    def _alerts(self, outcome: Outcome, now: datetime) -> list[Alert]:
        """Return the alerts that a run gives rise to."""
        alert = partial(self._alert, starts_at=min(outcome.observed_at or now, now), ends_at=now + self._lasting)
        if outcome.failure:
            return [
                alert(
                    {"alertname": STOPPED[outcome.result], "severity": "critical"},
                    _stopped(outcome.result, outcome.failure, outcome),
                )
            ]

        def kind(finding: Finding) -> tuple[bool, str]:
            return finding.action is Action.REPORT, finding.reason.value

        drift = sorted((finding for finding in outcome.findings if finding.is_drift), key=kind)
        return [
            alert(
                {"alertname": REPORTED if reported else CORRECTED, "severity": "warning", "reason": reason},
                _drift([*findings], outcome),
            )
            for (reported, reason), findings in groupby(drift, kind)
        ]

    def _alert(self, labels: dict[str, str], annotations: dict[str, str], **times: Any) -> Alert:
        return Alert(labels=labels | {"job": self._job}, annotations=annotations, **times)


def _over(active: Active) -> datetime:
    """Return when an alert ended that is over: when it was last sent.

    By the Alertmanager's own clock, which may be behind ours: an end that lies ahead of it would not count.
    """
    return max(active.starts_at, active.updated_at)


def _stopped(result: Result, failure: Failure, outcome: Outcome) -> dict[str, str]:
    advice = RUNBOOK[result]
    said = visible(f"{failure} {failure.remedy}".strip(), LONGEST_FAILURE)
    how = "was refused" if result is Result.BLOCKED else "failed"
    return {
        "summary": visible(f"The run {how}: {failure}", LONGEST_SUMMARY),
        "description": f"{said}\n{advice.meaning} {advice.remedy}\nRun {outcome.run_id}.",
    }


def _drift(findings: Collection[Finding], outcome: Outcome) -> dict[str, str]:
    reason = next(iter(findings)).reason
    reported = next(iter(findings)).action is Action.REPORT
    tenants = plural(len({finding.tenant for finding in findings}), "tenant")
    counted = f"{len(findings)} {'to look at' if reported else 'corrected'}, on {tenants}"
    advice = RUNBOOK[reason]
    lines = [
        f"{'; '.join([counted, *worth(findings)])}.",
        advice.meaning,
        *(f"- {line}" for line in listed(findings, LONGEST_LIST)),
        f"To do: {advice.remedy}",
        f"Run {outcome.run_id}.",
    ]
    return {"summary": f"{reason}: {counted}", "description": "\n".join(lines)}


def _quoted(value: str) -> str:
    """Return the value of a matcher (https://prometheus.io/docs/alerting/latest/configuration/#matcher)."""
    escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'"{escaped}"'
