"""A message for people: to Slack, Teams, mail and whatever else apprise knows, in words that can be acted on.

apprise is optional (`pip install 'reconciler[notify]'`), and is only loaded where there is somebody to be told.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

from reconciler.alerts import Undelivered
from reconciler.alerts.http import WrongAddress
from reconciler.alerts.wording import listed, shortened, visible, worth
from reconciler.core.errors import Failure
from reconciler.core.model import Action, Result
from reconciler.core.reasons import RUNBOOK, Reason
from reconciler.views.terminal import plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.model import Finding, Outcome

LONGEST_TITLE = 200
LONGEST_BODY = 3500
"""Characters: what the usual services take in one message."""
LONGEST_FAILURE = 1200
"""Characters of what a failure says, and of its remedy."""
DETAILS = ((10, True), (5, True), (3, True), (1, True), (3, False), (1, False), (0, False))
"""How many findings of each reason are named, and whether the runbook is quoted: the first that fits is sent."""


class AppriseMissing(Failure):
    """The package that sends messages is not installed."""

    exit_code = 64


class Notify:
    """Sends one message a run to one service.

    Args:
        url: the service as an apprise URL, which is a secret: https://appriseit.com/services/.
        name: what tells it from other services, for what it was told already.

    Raises:
        AppriseMissing: apprise is not installed.
        WrongAddress: apprise knows no such service.
    """

    deduplicates = False

    def __init__(self, url: str, name: str = "notify") -> None:
        self.name = name
        try:
            import apprise
        except ImportError:
            raise AppriseMissing(
                "Messages are asked for, and the package that sends them is not installed.",
                "Install it with `pip install 'reconciler[notify]'`.",
            ) from None
        # it logs what a service said, in words that may quote the URL
        logging.getLogger("apprise").propagate = False
        # in this thread, which is bounded already: its own pool would have to be waited for at the end of the process
        asset = apprise.AppriseAsset(
            app_id="reconciler",
            app_desc="billing reconciler",
            async_mode=False,
            service_timeout=0,
            default_service_retry=1,
        )
        given: dict[str, Any] = apprise.plugins.url_to_dict(url.strip()) or {}  # type: ignore[no-untyped-call]
        # a service that takes less at once gets the message in parts
        service = apprise.Apprise.instantiate({"overflow": "split"} | given, asset=asset) if given else None
        if service is None:
            raise WrongAddress(
                "An address for messages is none that apprise knows, so that nobody would be told.",
                "Write it as https://appriseit.com/services/ says, and try it with `apprise -vv -b test URL`.",
            )
        self._schema = given["schema"]
        self._apprise = apprise.Apprise(service, asset=asset)

    def tell(self, outcome: Outcome) -> None:
        """Send the message about a pass.

        Raises:
            Undelivered: the service did not take it.
        """
        sent = self._apprise.notify(
            title=title(outcome), body=body(outcome), notify_type=severity(outcome), body_format="text"
        )
        if not sent:
            raise Undelivered(f"{self._schema} did not take the message; `apprise -vv -b test URL` shows why.")


def severity(outcome: Outcome) -> str:
    """Return how bad it is: `failure`, `warning` where a person has to look, `info` where all was corrected."""
    if outcome.failure:
        return "failure"
    return "warning" if any(finding.action is Action.REPORT for finding in outcome.findings) else "info"


def title(outcome: Outcome) -> str:
    """Return the message in one line: what, how many, and worth how much."""
    line = _failed(outcome, outcome.failure) if outcome.failure else _counted(outcome)
    return _calling_nobody(shortened(line, LONGEST_TITLE))


def body(outcome: Outcome) -> str:
    """Return the message itself, in plain text: as much as fits of what, for whom, since when, and what to do."""
    if outcome.failure:
        return _calling_nobody("\n\n".join(_stopped(outcome, outcome.failure)))
    text = ""
    for limit, quoted in DETAILS:
        text = "\n\n".join(_drift(outcome, limit, quoted=quoted))
        if len(text) <= LONGEST_BODY:
            break
    return _calling_nobody(shortened(text, LONGEST_BODY))


def _calling_nobody(text: str) -> str:
    """Return text that mentions nobody: some services call everyone of a channel for `@everyone`."""
    return text.replace("@", "＠")  # noqa: RUF001 - that it looks the same is the point


def _failed(outcome: Outcome, failure: Failure) -> str:
    how = "was refused" if outcome.result is Result.BLOCKED else "failed"
    return f"reconciler: the run {how}: {visible(str(failure), LONGEST_TITLE)}"


def _counted(outcome: Outcome) -> str:
    reports = sum(finding.action is Action.REPORT for finding in outcome.findings)
    corrections = sum(finding.action.writes for finding in outcome.findings)
    tenants = len({finding.tenant for finding in outcome.findings})
    parts = [f"{reports} to look at"] * bool(reports) + [f"{corrections} corrected"] * bool(corrections)
    said = f"reconciler: {', '.join(parts)}, on {plural(tenants, 'tenant')}"
    return "; ".join([said, *worth(outcome.findings)])


def _stopped(outcome: Outcome, failure: Failure) -> Iterator[str]:
    advice = RUNBOOK[outcome.result]
    yield visible(str(failure), LONGEST_FAILURE)
    if failure.remedy:
        yield f"To do: {visible(failure.remedy, LONGEST_FAILURE)}"
    yield f"{advice.meaning} {advice.remedy}"
    yield f"`reconciler status` shows the last runs. {_run(outcome)}"


def _drift(outcome: Outcome, limit: int, *, quoted: bool) -> Iterator[str]:
    """Yield what waits for a person first, then what was corrected, then both together."""
    order = list(Reason)
    for reports in (True, False):
        of_kind = [f for f in outcome.findings if (f.action is Action.REPORT) is reports]
        for reason in sorted({finding.reason for finding in of_kind}, key=order.index):
            yield _paragraph(reason, [f for f in of_kind if f.reason is reason], limit, quoted=quoted)
    yield "\n".join(_together(outcome))


def _paragraph(reason: Reason, findings: list[Finding], limit: int, *, quoted: bool) -> str:
    advice = RUNBOOK[reason]
    done = "to look at" if findings[0].action is Action.REPORT else "corrected"
    lines = [
        "; ".join([f"{reason}: {len(findings)} {done}", *worth(findings)]),
        *([advice.meaning] if quoted else []),
        *(f"- {line}" for line in listed(findings, limit)),
        *([f"To do: {advice.remedy}"] if quoted else []),
    ]
    return "\n".join(lines)


def _together(outcome: Outcome) -> Iterator[str]:
    reasons = Counter(finding.reason for finding in outcome.findings)
    if len(reasons) > 1 and (sums := worth(outcome.findings)):
        yield f"Together: {', '.join(sums)}."
    if closed := sum(finding.closed_period for finding in outcome.findings):
        rows = plural(closed, "correction")
        yield f"{rows} in a closed period, which is invoiced already: finance owes an adjustment."
    yield f"`reconciler explain TENANT` shows a tenant's history, `reconciler status` what is open. {_run(outcome)}"


def _run(outcome: Outcome) -> str:
    began = f", begun at {outcome.observed_at:%Y-%m-%d %H:%M} UTC" if outcome.observed_at else ""
    return f"This is run {outcome.run_id}{began}."
