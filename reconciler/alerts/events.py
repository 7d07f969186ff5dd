"""Kubernetes Events on the tenants: `kubectl describe piecedtenant acme` shows what was corrected, and why.

An object without a namespace, such as a cluster-scoped tenant, has none in `regarding` either, because kubectl looks
for exactly that. Its Events are stored in `default`; API servers before 1.22 accept them only in `kube-system`
(https://github.com/kubernetes/kubernetes/pull/100125). An Event expires after an hour, so it is never the only alert.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from urllib.parse import quote
from uuid import uuid5

from reconciler.alerts import NOTIFY_SECONDS, PartlyDelivered, Undelivered
from reconciler.alerts.wording import impact_texts, one_line
from reconciler.core.errors import Failure, SourceFault
from reconciler.core.model import Action, Evidence
from reconciler.core.reasons import RUNBOOK
from reconciler.deadline import Deadline, DeadlineExceeded
from reconciler.sources.api_client import ClusterDenied, NotFound, Rejected
from reconciler.views.terminal import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from uuid import UUID

    from reconciler.core.model import Finding, Moment, Outcome
    from reconciler.core.reasons import Reason
    from reconciler.sources.api_client import CustomResource, ServedKind

MAX_EVENTS = 100
"""Findings that get an Event each; the rest get one for each reason."""
MAX_NAMES = 5
"""Tenants that are named in an Event about many."""
MAX_NOTE_BYTES = 1024
"""The API server's limit."""
MAX_INSTANCE = 128
"""Characters: the API server's limit."""
MAX_STATE = 250
"""Characters of a recorded or observed state: the problem of an unreadable resource may be long."""
IN_DEFAULT = (1, 22)
"""The first Kubernetes version that accepts an Event about an object without a namespace in `default`."""
REPORTER = "pieced.ch/reconciler"


@dataclass(frozen=True, kw_only=True)
class Events:
    """A sink that creates Events on the tenants."""

    name: ClassVar[str] = "events"
    deduplicates: ClassVar[bool] = False

    resource: CustomResource
    instance: str
    """The reporting instance: the pod's or the machine's name; not empty."""
    now: Callable[[], datetime]

    def notify(self, outcome: Outcome) -> None:
        """Create an Event for each finding, or one for a run that was refused or failed. Existing Events stay."""
        if isinstance(outcome.failure, SourceFault):
            if outcome.owed:
                raise Undelivered("The API server is at fault: what is owed goes along with the next run.")
            return
        # the deadline of the run may be over already
        resource = replace(self.resource, api=replace(self.resource.api, deadline=Deadline.after(NOTIFY_SECONDS)))
        rejected = []
        try:
            events = [*self._events(outcome, resource.discover())]
            for event in events:
                namespace = quote(event["metadata"]["namespace"], safe="")
                try:
                    resource.api.post(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", event)
                except Rejected as error:
                    rejected.append(error)
        except DeadlineExceeded:
            raise Undelivered(f"The API server did not accept the Events within {NOTIFY_SECONDS:g} s.") from None
        except NotFound as error:
            raise Undelivered(f"The API server has no events.k8s.io/v1, which came with 1.19: {error}.") from None
        except ClusterDenied as failure:
            raise Undelivered(f"{failure} {failure.remedy}") from None
        except Failure as failure:
            raise Undelivered(str(failure)) from None
        if rejected:
            kind = PartlyDelivered if len(rejected) < len(events) else Undelivered
            raise kind(f"The API server refused {len(rejected)} of {len(events)} Events: {rejected[0]}.")

    def _events(self, outcome: Outcome, kind: ServedKind) -> Iterator[dict[str, Any]]:
        """Yield the Events of a run as they are posted."""
        now = f"{self.now().astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        fallback = "default" if kind.server >= IN_DEFAULT else "kube-system"
        for entry in _entries(outcome, kind, f"{self.resource.plural}.{self.resource.group}"):
            key = entry.regarding["kind"], entry.regarding["name"], entry.reason, entry.action, entry.subject
            yield {
                "apiVersion": "events.k8s.io/v1",
                "kind": "Event",
                "metadata": {
                    # the same finding of the same run has the same name, so that a retry adds no second Event
                    "name": f"reconciler.{uuid5(outcome.run_id, repr(key))}",
                    "namespace": entry.regarding.get("namespace", fallback),
                },
                "eventTime": now,
                "type": "Warning",
                "reason": entry.reason,
                "action": entry.action,
                "regarding": entry.regarding,
                "note": _cut(entry.note),
                "reportingController": REPORTER,
                "reportingInstance": self.instance[:MAX_INSTANCE],
            }


class _Entry(NamedTuple):
    """The content of one Event."""

    regarding: dict[str, str]
    reason: str
    action: str
    note: str
    subject: str = ""


def _entries(outcome: Outcome, kind: ServedKind, resource: str) -> Iterator[_Entry]:
    """Yield an entry on each tenant, and those about many tenants on their CustomResourceDefinition."""
    tenants = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "name": resource}
    if failure := outcome.failure:
        yield _Entry(tenants, outcome.result.value, Action.REPORT.value, f"{failure} {failure.remedy}")
    for finding in outcome.news[:MAX_EVENTS]:
        tenant = {"apiVersion": kind.api_version, "kind": kind.name, "name": finding.tenant}
        if observed := outcome.observed.get(finding.tenant):
            known = {"namespace": observed.namespace, "uid": observed.uid}
            tenant |= {name: value for name, value in known.items() if value}
        yield _Entry(tenant, finding.reason.value, finding.action.value, _note(finding), finding.subject or "")
    rest: dict[tuple[Reason, Action], list[Finding]] = {}
    for finding in outcome.news[MAX_EVENTS:]:
        rest.setdefault((finding.reason, finding.action), []).append(finding)
    for (reason, action), findings in rest.items():
        yield _Entry(tenants, reason.value, action.value, _summary(findings, outcome.run_id))


def _note(finding: Finding) -> str:
    """Return the states, the time and the impact of a finding, then what it means and what is left to do."""
    states = (one_line(state or "-", MAX_STATE) for state in (finding.recorded, finding.observed))
    facts = [" ".join([*([one_line(finding.subject)] if finding.subject else []), " → ".join(states)])]
    if finding.moment:
        facts.append(_dated(finding.moment))
    facts += impact_texts([finding])
    if finding.closed_period:
        facts.append("in a month that is closed or invoiced already")
    advice = RUNBOOK[finding.reason]
    remedy = "" if finding.action.writes else advice.remedy.replace("TENANT", one_line(finding.tenant))
    return f"{', '.join(facts)}. {advice.meaning} {remedy}"


def _dated(moment: Moment) -> str:
    evidence = "no evidence" if moment.evidence is Evidence.NONE else f"evidence {moment.evidence}"
    first, last = moment.not_before, moment.not_after
    between = "" if first == last else f", between {first:%Y-%m-%d %H:%M:%S} and {last:%Y-%m-%d %H:%M:%S}"
    return f"dated {moment.occurred_at:%Y-%m-%d %H:%M:%S} UTC ({evidence}{between})"


def _summary(findings: list[Finding], run_id: UUID) -> str:
    """Return how many more findings of a reason there are, where to see them, and the first few tenants."""
    if findings[0].action.writes:
        where = f"corrections are in reconciler.corrections under the run {run_id}"
    else:
        where = "reports are shown by `reconciler status`"
    tenants = list(dict.fromkeys(finding.tenant for finding in findings))
    names = [one_line(tenant) for tenant in tenants[:MAX_NAMES]] + ["…"] * (len(tenants) > MAX_NAMES)
    meaning = RUNBOOK[findings[0].reason].meaning
    return f"{len(findings)} more {where}, about {plural(len(tenants), 'tenant')}: {', '.join(names)}. {meaning}"


def _cut(note: str) -> str:
    """Return the note on one line, within the API server's limit."""
    encoded = one_line(note.strip(), MAX_NOTE_BYTES).encode()
    if len(encoded) <= MAX_NOTE_BYTES:
        return encoded.decode()
    return encoded[: MAX_NOTE_BYTES - len("…".encode())].decode(errors="ignore") + "…"
