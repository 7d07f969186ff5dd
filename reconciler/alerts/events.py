"""Kubernetes Events on the tenants: `kubectl describe piecedtenant acme` tells what was corrected, and why.

What is in no namespace, such as a tenant of a cluster-wide kind, has none in `regarding` either: kubectl looks for just
that. Its Events are kept in `default`; API servers before 1.22 refuse that, and take them in `kube-system` alone
(https://github.com/kubernetes/kubernetes/pull/100125). An Event lives for an hour: it is never the only alert.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from urllib.parse import quote
from uuid import uuid5

from reconciler.alerts import TELLING, Undelivered
from reconciler.alerts.wording import visible, worth
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
    from reconciler.sources.api_client import CustomResource, Kind

MOST = 100
"""Findings that get an Event each; of the rest, every reason gets one."""
NAMED = 5
"""Tenants that are named where there is one Event for many."""
LONGEST_NOTE = 1024
"""Bytes; the API server takes no more."""
LONGEST_INSTANCE = 128
"""Likewise."""
LONGEST_STATE = 250
"""Characters of what was recorded or observed: why a resource cannot be read may take some."""
IN_DEFAULT = (1, 22)
"""The first Kubernetes that takes an Event about what is in no namespace in `default`."""
REPORTER = "pieced.ch/reconciler"


@dataclass(frozen=True, kw_only=True)
class Events:
    """A sink that leaves Events on the tenants.

    Attributes:
        resource: the tenants' custom resource.
        instance: who reports: the pod's or the machine's name; not empty.
        now: returns the time, aware.
    """

    name: ClassVar[str] = "events"
    deduplicates: ClassVar[bool] = False

    resource: CustomResource
    instance: str
    now: Callable[[], datetime]

    def tell(self, outcome: Outcome) -> None:
        """Create an Event for each finding, or one for a pass that was stopped; those that are there already stay.

        Raises:
            Undelivered: the API server did not take them, or not all of them, or not in time.
        """
        if isinstance(outcome.failure, SourceFault):
            return  # whoever stopped the pass need not be told, and could not be
        # the pass's own time may be over
        resource = replace(self.resource, api=replace(self.resource.api, deadline=Deadline.after(TELLING)))
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
            raise Undelivered(f"The API server did not take the Events within {TELLING:g} s.") from None
        except NotFound as error:
            raise Undelivered(f"The API server has no events.k8s.io/v1, which came with 1.19: {error}.") from None
        except ClusterDenied as failure:
            raise Undelivered(f"{failure} {failure.remedy}") from None
        except Failure as failure:
            raise Undelivered(str(failure)) from None
        if rejected:
            raise Undelivered(f"The API server refused {len(rejected)} of {len(events)} Events: {rejected[0]}.")

    def _events(self, outcome: Outcome, kind: Kind) -> Iterator[dict[str, Any]]:
        """Yield the Events of a pass, as they are posted."""
        now = f"{self.now().astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        elsewhere = "default" if kind.server >= IN_DEFAULT else "kube-system"
        for told in _told(outcome, kind, f"{self.resource.plural}.{self.resource.group}"):
            about = told.regarding["kind"], told.regarding["name"], told.reason, told.action, told.subject
            yield {
                "apiVersion": "events.k8s.io/v1",
                "kind": "Event",
                "metadata": {
                    # the same for the same finding of the same run, whatever its tenant is called
                    "name": f"reconciler.{uuid5(outcome.run_id, repr(about))}",
                    "namespace": told.regarding.get("namespace", elsewhere),
                },
                "eventTime": now,
                "type": "Warning",
                "reason": told.reason,
                "action": told.action,
                "regarding": told.regarding,
                "note": _cut(told.note),
                "reportingController": REPORTER,
                "reportingInstance": self.instance[:LONGEST_INSTANCE],
            }


class _Told(NamedTuple):
    """What one Event tells."""

    regarding: dict[str, str]
    reason: str
    action: str
    note: str
    subject: str = ""


def _told(outcome: Outcome, kind: Kind, resource: str) -> Iterator[_Told]:
    """Yield what there is to tell: of each tenant, and of all of them by their CustomResourceDefinition."""
    tenants = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "name": resource}
    if failure := outcome.failure:
        yield _Told(tenants, outcome.result.value, Action.REPORT.value, f"{failure} {failure.remedy}")
        return
    for finding in outcome.findings[:MOST]:
        tenant = {"apiVersion": kind.api_version, "kind": kind.name, "name": finding.tenant}
        if observed := outcome.observed.get(finding.tenant):
            known = {"namespace": observed.namespace, "uid": observed.uid}
            tenant |= {name: value for name, value in known.items() if value}
        yield _Told(tenant, finding.reason.value, finding.action.value, _note(finding), finding.subject or "")
    rest: dict[tuple[Reason, Action], list[Finding]] = {}
    for finding in outcome.findings[MOST:]:
        rest.setdefault((finding.reason, finding.action), []).append(finding)
    for (reason, action), findings in rest.items():
        yield _Told(tenants, reason.value, action.value, _summary(findings, outcome.run_id))


def _note(finding: Finding) -> str:
    """Return what was found, when that happened and what it is worth; then what it means, and what is left to do."""
    states = (visible(state or "-", LONGEST_STATE) for state in (finding.recorded, finding.observed))
    facts = [" ".join([*([visible(finding.subject)] if finding.subject else []), " → ".join(states)])]
    if finding.moment:
        facts.append(_dated(finding.moment))
    facts += worth([finding])
    if finding.closed_period:
        facts.append("in a month that is invoiced already")
    advice = RUNBOOK[finding.reason]
    left = "" if finding.action.writes else advice.remedy.replace("TENANT", visible(finding.tenant))
    return f"{', '.join(facts)}. {advice.meaning} {left}"


def _dated(moment: Moment) -> str:
    evidence = "no evidence" if moment.evidence is Evidence.NONE else f"evidence {moment.evidence}"
    first, last = moment.not_before, moment.not_after
    between = "" if first == last else f", between {first:%Y-%m-%d %H:%M:%S} and {last:%Y-%m-%d %H:%M:%S}"
    return f"dated {moment.occurred_at:%Y-%m-%d %H:%M:%S} UTC ({evidence}{between})"


def _summary(findings: list[Finding], run_id: UUID) -> str:
    """Return how many more there are of a reason, where they are to be seen, and the first of them."""
    if findings[0].action.writes:
        where = f"corrections stand in reconciler.corrections under the run {run_id}"
    else:
        where = "reports are shown by `reconciler status`"
    tenants = list(dict.fromkeys(finding.tenant for finding in findings))
    names = [visible(tenant) for tenant in tenants[:NAMED]] + ["…"] * (len(tenants) > NAMED)
    meaning = RUNBOOK[findings[0].reason].meaning
    return f"{len(findings)} more {where}. Of {plural(len(tenants), 'tenant')}: {', '.join(names)}. {meaning}"


def _cut(note: str) -> str:
    """Return the note on one line, as long as it may be."""
    encoded = visible(note.strip(), LONGEST_NOTE).encode()
    if len(encoded) <= LONGEST_NOTE:
        return encoded.decode()
    return encoded[: LONGEST_NOTE - len("…".encode())].decode(errors="ignore") + "…"
