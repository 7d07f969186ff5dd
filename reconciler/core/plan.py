"""A plan is a value: what a run would do, in order, and whether the safety limits allow it. Pure."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

from reconciler.core.errors import Refusal
from reconciler.core.model import Action, Finding, Mode, Result
from reconciler.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from reconciler.core.compare import Comparison
    from reconciler.core.model import Observed, Outcome

_ORDER = {reason: number for number, reason in enumerate(Reason)}


class EmptyList(Refusal):
    """The list is empty, and the ledger has open tenants."""


class TooMuchDrift(Refusal):
    """A run would correct more tenants for one reason than the limit allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many tenants a run may correct for one reason: a count or a share of the open ones, whichever allows more."""

    count: int = 3
    percent: float = 10
    allow_mass: frozenset[Reason] = frozenset()
    """Reasons that the operator has exempted from the limit."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every finding of a run, sorted by tenant, reason and subject. The counts are those of `Comparison`."""

    findings: tuple[Finding, ...]
    tenants_observed: int
    tenants_recorded: int
    ledger_is_empty: bool

    @cached_property
    def corrections(self) -> tuple[Finding, ...]:
        """The findings that a run writes."""
        return tuple(finding for finding in self.findings if finding.action.writes)

    def result(self, mode: Mode) -> Result:
        """Return how a run ends that shows or has written this plan. What is deferred or accepted is not drift."""
        if mode is Mode.RUN and self.corrections:
            return Result.CORRECTED
        return Result.DRIFT if any(finding.is_drift for finding in self.findings) else Result.CLEAN

    @property
    def changing(self) -> list[str]:
        """The tenants that kept changing, so that something about them is deferred, sorted."""
        return sorted({finding.tenant for finding in self.findings if finding.changing})

    def known(self, outcome: Outcome, observed: Mapping[str, Observed | None]) -> Outcome:
        """Return what is known of a run that has this plan; `observed` has the resources by name."""
        return replace(
            outcome,
            findings=self.findings,
            tenants_observed=self.tenants_observed,
            tenants_recorded=self.tenants_recorded,
            observed={f.tenant: seen for f in self.findings if (seen := observed.get(f.tenant))},
        )

    def marked(self, accepted: Mapping[tuple[str, str], datetime]) -> Plan:
        """Return the plan with the accepted reports marked; until when they are is by tenant and reason."""
        if not accepted:
            return self
        return replace(self, findings=tuple(_mark(finding, accepted) for finding in self.findings))

    def limit(self, limits: Limits) -> int:
        """Return how many tenants a run over this ledger may correct for one reason."""
        return max(limits.count, math.floor(self.tenants_recorded * Fraction(str(limits.percent)) / 100))

    def parking_limit(self, limits: Limits) -> int:
        """Return how many tenants a run may leave out because they cannot be written; all of a backfill count."""
        of = self.tenants_observed if self.ledger_is_empty else self.tenants_recorded
        return replace(self, tenants_recorded=of).limit(limits)

    def with_findings(self, found: Iterable[Finding]) -> Plan:
        """Return the plan with these findings too."""
        return replace(self, findings=_sorted([*self.findings, *more])) if (more := [*found]) else self

    def with_restless(self, tenants: Collection[str]) -> Plan:
        """Return the plan with a report of each of these tenants beside what is deferred of it."""
        orgs = {finding.tenant: finding.org for finding in self.findings if finding.tenant in tenants}
        reports = [
            Finding(Reason.TENANT_RESTLESS, tenant, org, Reason.TENANT_RESTLESS.action, observed="changing")
            for tenant, org in orgs.items()
        ]
        return replace(self, findings=_sorted([*self.findings, *reports])) if reports else self

    def parked(self, causes: Mapping[str, str], accepted: Mapping[tuple[str, str], datetime]) -> Plan:
        """Return the plan without the corrections of the tenants that cannot be written, and a report of each.

        Why they cannot is by tenant; until when reports are accepted is by tenant and reason.
        """
        orgs = {finding.tenant: finding.org for finding in self.corrections if finding.tenant in causes}
        reports = [
            Finding(Reason.TENANT_PARKED, tenant, org, Reason.TENANT_PARKED.action, observed=causes[tenant])
            for tenant, org in orgs.items()
        ]
        kept = (f.deferred() if f.tenant in orgs and f.action.writes else f for f in self.findings)
        return replace(self, findings=_sorted([*kept, *(_mark(report, accepted) for report in reports)]))

    def raise_if_unsafe(self, limits: Limits) -> None:
        """Refuse a plan that looks like a fault of what was observed, not of the ledger.

        The limit holds for each reason and counts tenants.

        Raises:
            EmptyList: see `refuse_empty`.
            TooMuchDrift: more tenants would be corrected for a reason than `limits` allows.
        """
        refuse_empty(self.tenants_observed, self.tenants_recorded)
        allowed = self.limit(limits)
        # the backfill: an empty ledger has nothing that could become wrong
        unseen = {f.tenant for f in self.corrections if f.action is Action.INSERT} if self.ledger_is_empty else set()
        # what a person decided follows from no list: rows that come later for many tenants must not stop all others
        corrected = {(f.reason, f.tenant) for f in self.corrections if f.tenant not in unseen and f.decision is None}
        tenants = Counter(reason for reason, _ in corrected)
        over = {reason: n for reason, n in tenants.items() if n > allowed and reason not in limits.allow_mass}
        if over:
            exceeded = ", ".join(f"{reason} on {n} tenants" for reason, n in sorted(over.items()))
            options = " ".join(f"--allow-mass {reason}" for reason in sorted(over))
            raise TooMuchDrift(
                f"This run would correct {exceeded}; the limit is {allowed} of {self.tenants_recorded} open tenants "
                "for each reason.",
                "Nothing was written. `reconciler plan` shows it. If it is wrong, check the cluster, or the file of "
                f"tenants; if it is right, allow it once with {options}.",
            )


def refuse_empty(tenants_observed: int, tenants_recorded: int) -> None:
    """Raise `EmptyList` if the list is empty and the ledger has open tenants, whatever the limits are."""
    if not tenants_observed and tenants_recorded:
        raise EmptyList(
            f"The list of tenants is empty, and the ledger has {tenants_recorded} open.",
            "Nothing was written. Is it the right cluster or file? "
            "If the last tenant of a cluster is really gone, say when: "
            "`reconciler record TENANT gone --from TIME --note WHY`.",
        )


def build_plan(findings: Iterable[Finding], first: Comparison) -> Plan:
    """Return the plan of the findings that survived the recheck, with the counts of the first comparison."""
    return Plan(
        findings=_sorted(findings),
        tenants_observed=first.tenants_observed,
        tenants_recorded=first.tenants_recorded,
        ledger_is_empty=first.ledger_is_empty,
    )


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda f: (f.tenant, _ORDER[f.reason], f.subject or "")))


def _mark(finding: Finding, accepted: Mapping[tuple[str, str], datetime]) -> Finding:
    if finding.action is Action.REPORT:
        return finding._replace(accepted_until=accepted.get((finding.tenant, finding.reason)))
    return finding
