"""A Prometheus Alertmanager (API v2): one alert for each reason, and one for a run that was refused or failed.

The labels of an alert never change between runs, so Alertmanager recognises it and notifies people once; counts and
names are in its annotations. Each run sends its alerts again, to end three periods later: an alert survives a lost run,
but not the end of the reconciler. A run ends the alerts that it no longer finds; an alert of a correction expires.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar

import msgspec

from reconciler.alerts import PartlyDelivered, Undelivered
from reconciler.alerts.http import Endpoint
from reconciler.alerts.wording import STOP_HEADLINES, impact_texts, one_line, owed_lines, paragraph
from reconciler.core.model import Action, Mode, Result
from reconciler.core.reasons import RUNBOOK
from reconciler.deadline import Deadline, DeadlineExceeded
from reconciler.views.terminal import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reconciler.alerts.addresses import Proxies
    from reconciler.core.errors import Failure
    from reconciler.core.model import Finding, Outcome

PERIODS = 3
"""How many periods an alert lasts unless a run renews it."""
MAX_SECONDS = 13.0
"""How long everything may take, for all Alertmanagers at the same time."""
MAX_ANSWER = 2**20
"""Bytes of a list of our own alerts, of which there are some thirty at most."""
MAX_DESCRIBED = 10
"""Findings that an alert describes; the rest are counted."""
MAX_SUMMARY = 200
MAX_FAILURE = 1000
"""Characters of an error message with its remedy."""

CORRECTED = "BillingDriftCorrected"
REPORTED = "BillingDriftReported"
STOPPED = {Result.BLOCKED: "ReconcilerBlocked", Result.FAILED: "ReconcilerFailed"}

RENEWED = {Result.BLOCKED: {REPORTED}, Result.FAILED: {REPORTED, STOPPED[Result.BLOCKED]}}
"""The alerts that a refused or failed run renews, because it cannot know whether they have ended."""


class Alert(msgspec.Struct, frozen=True, rename="camel"):
    """An alert as it is posted to Alertmanager."""

    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: datetime
    ends_at: datetime


class Active(msgspec.Struct, frozen=True, rename="camel"):
    """An alert as Alertmanager lists it."""

    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: datetime
    updated_at: datetime
    generator_url: str = msgspec.field(name="generatorURL", default="")
    """Set by Prometheus, whose rules may use the same alert name, and not by the reconciler."""


class Alertmanager:
    """Starts, renews and ends alerts in one or more Alertmanagers, each of which is notified on its own.

    The path of an address, such as a route prefix, goes before `/api/v2`; `period` is in seconds. The label `job` tells
    the alerts of this reconciler from those of others on the same Alertmanager. Raises `WrongAddress`.
    """

    name: ClassVar[str] = "alertmanager"
    deduplicates: ClassVar[bool] = True

    def __init__(
        self,
        urls: Sequence[str],
        *,
        period: float,
        now: Callable[[], datetime],
        job: str = "reconciler",
        proxies: Proxies | None = None,
    ) -> None:
        self._endpoints = [Endpoint.at(url, "Alertmanager", proxies) for url in urls]
        self._duration = timedelta(seconds=PERIODS * period)
        self._now = now
        self._job = job

    def notify(self, outcome: Outcome) -> None:
        """Send the alerts of a run and end those that it no longer finds. Nothing is sent for a plan."""
        if outcome.mode is Mode.PLAN:
            return
        now = self._now()
        alerts = self._alerts(outcome, now)
        deadline = Deadline.after(MAX_SECONDS)
        deliveries = [
            (endpoint, deadline.start(partial(self._update, endpoint, alerts, outcome.result, now)))
            for endpoint in self._endpoints
        ]
        failures = []
        for endpoint, delivery in deliveries:
            try:
                delivery()
            except Undelivered as error:
                failures.append(str(error))
            except DeadlineExceeded:
                failures.append(f"{endpoint.origin} did not answer within {MAX_SECONDS:g} s.")
        if failures:
            # one of a cluster is enough: it tells the others
            kind = PartlyDelivered if len(failures) < len(self._endpoints) else Undelivered
            raise kind(" ".join(failures))

    def _update(self, endpoint: Endpoint, alerts: list[Alert], result: Result, now: datetime) -> None:
        """Send the alerts, then renew or end the other active ones."""
        # in this order: the alerts are sent even if the active ones cannot be listed
        self._post(endpoint, alerts)
        sent = [alert.labels for alert in alerts]
        renewed = RENEWED.get(result, set())
        others = [
            Alert(
                labels=active.labels,
                annotations=active.annotations,
                starts_at=active.starts_at,
                # ended when it was last sent, by the Alertmanager's own clock: a time ahead of that would not end it
                ends_at=now + self._duration
                if active.labels["alertname"] in renewed
                else max(active.starts_at, active.updated_at),
            )
            for active in self._active(endpoint)
            # if the alert of a correction were ended by the next run, it might never have been sent to people
            if active.labels not in sent and active.labels["alertname"] != CORRECTED
        ]
        self._post(endpoint, others)

    def _post(self, endpoint: Endpoint, alerts: list[Alert]) -> None:
        if alerts:
            endpoint.send("POST", "/api/v2/alerts", body=msgspec.json.encode(alerts), content_type="application/json")

    def _active(self, endpoint: Endpoint) -> list[Active]:
        """Return our own active alerts, silenced and inhibited ones included, and none of Prometheus's own rules."""
        names = {CORRECTED, REPORTED, *STOPPED.values()}
        matchers = [f"job={_quoted(self._job)}", f'alertname=~"{"|".join(sorted(names))}"']
        query = [("filter", matcher) for matcher in matchers]
        body = endpoint.send("GET", "/api/v2/alerts", query=query, max_bytes=MAX_ANSWER)
        try:
            active = msgspec.json.decode(body, type=list[Active])
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            raise Undelivered(
                f"{endpoint.origin} did not answer with a list of alerts: is it an Alertmanager?"
            ) from None
        return [
            alert
            for alert in active
            if alert.labels.get("job") == self._job
            and alert.labels.get("alertname") in names
            and not alert.generator_url
        ]

    def _alerts(self, outcome: Outcome, now: datetime) -> list[Alert]:
        """Return the alerts of a run: one for each reason, and one if it was refused or failed."""
        starts_at, ends_at = min(outcome.observed_at or now, now), now + self._duration

        def alert(labels: dict[str, str], annotations: dict[str, str]) -> Alert:
            return Alert(labels | {"job": self._job}, annotations, starts_at, ends_at)

        stopped = (
            [alert({"alertname": STOPPED[outcome.result], "severity": "critical"}, _stopped(outcome, outcome.failure))]
            if outcome.failure
            else []
        )

        def kind(finding: Finding) -> tuple[bool, str]:
            return finding.action is Action.REPORT, finding.reason.value

        drift = sorted((finding for finding in outcome.news if finding.is_drift), key=kind)
        return stopped + [
            alert(
                {"alertname": REPORTED if reported else CORRECTED, "severity": "warning", "reason": reason},
                _drift([*findings], outcome),
            )
            for (reported, reason), findings in groupby(drift, kind)
        ]


def _stopped(outcome: Outcome, failure: Failure) -> dict[str, str]:
    advice = RUNBOOK[outcome.result]
    message = one_line(f"{failure} {failure.remedy}".strip(), MAX_FAILURE)
    return {
        "summary": one_line(f"{STOP_HEADLINES[outcome.result].capitalize()}: {failure}", MAX_SUMMARY),
        "description": f"{message}\n{advice.meaning} {advice.remedy}\nRun {outcome.run_id}.",
    }


def _drift(findings: Sequence[Finding], outcome: Outcome) -> dict[str, str]:
    first = findings[0]
    tenants = plural(len({finding.tenant for finding in findings}), "tenant")
    counted = f"{len(findings)} {'to look at' if first.action is Action.REPORT else 'corrected'}, on {tenants}"
    headline = f"{'; '.join([counted, *impact_texts(findings)])}."
    return {
        "summary": f"{first.reason}: {counted}",
        "description": "\n".join(
            [
                paragraph(headline, findings, MAX_DESCRIBED),
                *owed_lines(outcome, set(findings)),
                f"Run {outcome.run_id}.",
            ]
        ),
    }


def _quoted(value: str) -> str:
    """Return a quoted matcher value (https://prometheus.io/docs/alerting/latest/configuration/#matcher)."""
    escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'"{escaped}"'
