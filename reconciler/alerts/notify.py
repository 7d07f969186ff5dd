"""A message for people, through Slack, Teams, mail or any other service that apprise supports.

apprise is optional (`pip install '.[notify]'`) and is only loaded if a service is configured.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from reconciler.alerts import Undelivered
from reconciler.alerts.addresses import WrongAddress
from reconciler.alerts.wording import STOP_HEADLINES, impact_texts, one_line, owed_lines, paragraph, shortened
from reconciler.core.errors import Failure
from reconciler.core.model import Action
from reconciler.core.reasons import RUNBOOK, Reason
from reconciler.views.terminal import plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.model import Outcome

MAX_TITLE = 200
MAX_BODY = 3500
"""Characters that the usual services accept in one message."""
MAX_FAILURE = 1200
"""Characters of an error message, and of its remedy."""
DETAILS = ((10, True), (5, True), (3, True), (1, True), (3, False), (1, False), (0, False))
"""How many findings of each reason are described, and whether the advice is added: the first that fits is sent."""


class AppriseMissing(Failure):
    """The package that sends messages is not installed."""

    exit_code = 64


class Messenger:
    """Sends one message a run to one service, whose apprise URL is a secret: https://appriseit.com/services/.

    The reports that the service has seen are remembered by its name. Raises `AppriseMissing` without apprise, and
    `WrongAddress` if apprise does not support such a service.
    """

    deduplicates = False

    def __init__(self, url: str, name: str = "notify") -> None:
        self.name = name
        try:
            import apprise
        except ImportError:
            raise AppriseMissing(
                "A service for messages is configured, but the package that sends them is not installed.",
                "Install it from the checkout: pip install '.[notify]'",
            ) from None
        # apprise logs the answers of a service, which may quote the URL
        logging.getLogger("apprise").propagate = False
        # not async: this thread is bounded already, and the process would wait for apprise's own pool when it ends
        asset = apprise.AppriseAsset(
            app_id="reconciler",
            app_desc="billing reconciler",
            async_mode=False,
            service_timeout=0,
            default_service_retry=1,
        )
        fields: dict[str, Any] = apprise.plugins.url_to_dict(url.strip()) or {}  # type: ignore[no-untyped-call]
        # a service with a lower limit gets the message in parts
        service = apprise.Apprise.instantiate({"overflow": "split"} | fields, asset=asset) if fields else None
        if service is None:
            raise WrongAddress(
                "An address for messages is not one that apprise supports, so nobody would be notified.",
                "Write it as https://appriseit.com/services/ says, and try it with `apprise -vv -b test URL`.",
            )
        self._schema = fields["schema"]
        self._apprise = apprise.Apprise(service, asset=asset)

    def notify(self, outcome: Outcome) -> None:
        """Send the message about a run."""
        sent = self._apprise.notify(
            title=title(outcome), body=body(outcome), notify_type=severity(outcome), body_format="text"
        )
        if not sent:
            raise Undelivered(f"{self._schema} did not accept the message; `apprise -vv -b test URL` shows why.")


def severity(outcome: Outcome) -> str:
    """Return `failure` if the run was refused or failed, `warning` if a person has to look, `info` if all is fixed."""
    if outcome.failure:
        return "failure"
    return "warning" if any(finding.action is Action.REPORT for finding in outcome.news) else "info"


def title(outcome: Outcome) -> str:
    """Return the message in one line: what happened, how often, and the impact."""
    if outcome.failure:
        line = f"reconciler: {STOP_HEADLINES[outcome.result]}: {one_line(str(outcome.failure), MAX_TITLE)}"
    else:
        line = _counted(outcome)
    return _without_mentions(shortened(line, MAX_TITLE))


def body(outcome: Outcome) -> str:
    """Return the message in plain text, with as many findings and as much advice as fit."""
    stopped = [*_stopped(outcome, outcome.failure)] if outcome.failure else []
    if not outcome.news:
        return _without_mentions("\n\n".join(stopped))
    text = ""
    for limit, advice in DETAILS:
        text = "\n\n".join([*stopped, *_drift(outcome, limit, advice=advice)])
        if len(text) <= MAX_BODY:
            break
    return _without_mentions(shortened(text, MAX_BODY))


def _without_mentions(text: str) -> str:
    """Return text that mentions nobody: some services notify a whole channel of `@everyone`."""
    return text.replace("@", "＠")  # noqa: RUF001 - that it looks the same is the point


def _counted(outcome: Outcome) -> str:
    reports = sum(finding.action is Action.REPORT for finding in outcome.news)
    corrections = sum(finding.action.writes for finding in outcome.news)
    tenants = len({finding.tenant for finding in outcome.news})
    parts = [f"{reports} to look at"] * bool(reports) + [f"{corrections} corrected"] * bool(corrections)
    line = f"reconciler: {', '.join(parts)}, on {plural(tenants, 'tenant')}"
    return "; ".join([line, *impact_texts(outcome.news)])


def _stopped(outcome: Outcome, failure: Failure) -> Iterator[str]:
    advice = RUNBOOK[outcome.result]
    yield one_line(str(failure), MAX_FAILURE)
    if failure.remedy:
        yield f"To do: {one_line(failure.remedy, MAX_FAILURE)}"
    yield f"{advice.meaning} {advice.remedy}"
    yield f"`reconciler status` shows the last runs. {_run(outcome)}"


def _drift(outcome: Outcome, limit: int, *, advice: bool) -> Iterator[str]:
    """Yield a paragraph for each reason, those that wait for a person first, and one for all together."""
    order = list(Reason)
    for reports, done in ((True, "to look at"), (False, "corrected")):
        of_kind = [f for f in outcome.news if (f.action is Action.REPORT) is reports]
        for reason in sorted({finding.reason for finding in of_kind}, key=order.index):
            findings = [f for f in of_kind if f.reason is reason]
            headline = "; ".join([f"{reason}: {len(findings)} {done}", *impact_texts(findings)])
            yield paragraph(headline, findings, limit, advice=advice)
    yield "\n".join(_closing_lines(outcome))


def _closing_lines(outcome: Outcome) -> Iterator[str]:
    reasons = {finding.reason for finding in outcome.news}
    if len(reasons) > 1 and (sums := impact_texts(outcome.news)):
        yield f"Together: {', '.join(sums)}."
    if closed := sum(finding.closed_period for finding in outcome.news):
        rows = plural(closed, "correction")
        yield f"{rows} of months that were closed or invoiced already: finance owes an adjustment."
    yield from owed_lines(outcome, set(outcome.news))
    yield f"`reconciler explain TENANT` shows a tenant's history, `reconciler status` what is open. {_run(outcome)}"


def _run(outcome: Outcome) -> str:
    began = f", started at {outcome.observed_at:%Y-%m-%d %H:%M} UTC" if outcome.observed_at else ""
    return f"This is run {outcome.run_id}{began}."
