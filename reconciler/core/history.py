"""What happened between two runs: what a list proves of the time since the one before.

Invoices are computed from what happened, and a list shows only how things stand. So each run remembers every tenant as
its list showed it, and the next one compares. Kubernetes adds one to the generation for every change of the spec, and
one when the deletion is asked for. Pure; a rule is one row of this table, the first that applies counts:

    the tenant                                         since the list before
    -------------------------------------------------  --------------------------------------
    was being deleted before                           nothing that is billed
    has the same resourceVersion                       nothing happened
    is unreadable now                                  not proven: unreadable
    is gone, and another one has its name              not proven: recreated
    is gone                                            not proven: vanished
    spec.suspend is not a boolean, now or before       not proven: suspend_unset
    the generation is the same                         nothing happened to the spec
    the generation is higher by one, and the ledger    the one change that the two show
    agreed with the list before
    all else                                           not proven: changed_often

A list that shows a tenant older than it was is of a copy of the cluster, and refused (`is_restored`); where a person
accepts it, the time before it is proven of no tenant: restored.

What is not proven is a gap: nobody knows what happened in it. What came and went between two lists can be seen in
neither: that is a gap under the name `*`. All of this is for where the change log is lost; what it shows is proven, see
`reconciler.core.changes`.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.errors import Refusal
from reconciler.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from reconciler.core.model import Finding, Observed

ANY_TENANT = "*"
"""The name of the gaps that are about tenants of which nobody knows."""
UNCOMPARED = frozenset(
    {Reason.TENANT_RECREATED, Reason.DELETION_CONTRADICTED, Reason.EVENT_TIME_INVALID, Reason.TENANT_PARKED}
)
"""The reports about tenants of which nothing else, or not everything, is compared or written."""
UNREADABLE = ""
"""In place of the uid of a resource that has none that can be read."""


class RestoredSource(Refusal):
    """The list shows a tenant as it was before the last list: it is of a copy of the cluster."""


class Unproven(enum.StrEnum):
    """Why nobody knows what happened in a gap."""

    UNREADABLE = "unreadable"
    RECREATED = "recreated"
    VANISHED = "vanished"
    SUSPEND_UNSET = "suspend_unset"
    CHANGED_OFTEN = "changed_often"
    RESTORED = "restored"
    LOG_LOST = "log_lost"


class Remembered(NamedTuple):
    """One tenant as the last list showed it."""

    uid: str
    name: str
    resource_version: str
    generation: int | None
    org: str | None
    packages: tuple[str, ...]
    suspended: bool
    suspend_is_set: bool
    created_at: datetime
    deleting_at: datetime | None
    since: datetime
    """From when its history is known, but for its gaps."""
    is_current: bool = True
    """False if the last list showed it, and could not be read."""
    gone_at: datetime | None = None
    """When a list first lacked it."""
    unwritten_since: datetime | None = None
    """Since when it has a change that is not in the ledger; None if the ledger agreed with the list."""


class Gap(NamedTuple):
    """Time of which nobody knows what happened."""

    tenant: str
    from_at: datetime
    until_at: datetime
    why: Unproven
    manager: str | None = None
    """The field manager that wrote last, where the generation moved too far."""


class Position(NamedTuple):
    """Up to where it is known what happened: the remembered tenants are as they stood there."""

    resource_version: str | None
    at: datetime
    """When the run began whose list the change log reached last, by the database's clock."""
    whole_at: datetime | None = None
    """When the run began whose list showed no known tenant otherwise than the change log."""
    listed_at: datetime | None = None
    """When the run began that listed all tenants last: only such a list shows what a restored cluster has undone."""

    def doubted_from(self, at: datetime, *, is_restored: bool) -> datetime:
        """Return from when time is in doubt: this instant, or where the cluster is restored, the last list of all."""
        return min(at, self.listed_at or at) if is_restored else at

    @property
    def known_at(self) -> datetime:
        """Up to when it is known what happened to the tenants that are known."""
        return max(self.at, self.whole_at or self.at)


def unproven(before: Remembered, now: Observed | None, *, heir: str | None = None) -> Unproven | None:
    """Return why it is not proven what happened to a tenant between two lists; None if it is.

    `now` is the resource of the same uid; where there is none, `heir` is the uid that has its name.
    """
    if before.deleting_at or (now and now.resource_version == before.resource_version):
        return None
    if heir == UNREADABLE or (now and now.problem):
        return Unproven.UNREADABLE
    if now is None:
        return Unproven.VANISHED if heir is None else Unproven.RECREATED
    if not (before.suspend_is_set and now.suspend_is_set):
        # the status, which moves no generation, may have decided whether it is suspended
        return Unproven.SUSPEND_UNSET
    moved = (now.generation - before.generation) if now.generation and before.generation else None
    # what an earlier list showed, and no run has written, is a change before this one
    return None if moved in ({0} if before.unwritten_since else {0, 1}) else Unproven.CHANGED_OFTEN


def left_unwritten(findings: Iterable[Finding], *, is_blocked: bool = False) -> set[str]:
    """Return the tenants of which the ledger does not hold what the list showed, by what a run found.

    They changed between its two looks, or are reported and therefore not compared, or the run was blocked.
    """
    return {
        finding.tenant
        for finding in findings
        if finding.changing or finding.reason in UNCOMPARED or (is_blocked and finding.action.writes)
    }


def known_since(first: Observed, listed_at: datetime) -> datetime:
    """Return from when the history of a tenant is known that was first seen at `listed_at`: if it can be, its creation.

    Raises nothing: a tenant that can be read has a creation time.
    """
    is_known = is_as_created(first) and first.suspend_is_set and first.created_at
    return first.created_at if is_known and first.created_at else listed_at


def is_as_created(observed: Observed) -> bool:
    """True if the spec was not changed since the creation. To ask for the deletion moves the generation by one."""
    return observed.generation in ((1, 2) if observed.deleting_at else (1,))


def is_as_remembered(before: Remembered, now: Observed) -> bool:
    """True if what is billed of a resource is what was remembered: the same tenant, restored under another uid."""
    return (before.org, before.packages, before.suspended) == (now.org, now.packages, now.suspended)


def is_restored(before: Remembered, now: Observed, position: Position | None) -> bool:
    """True if a list shows a tenant as no list of the same cluster after the last one can.

    A uid that is gone never comes back. A resourceVersion grows with every write, and no write of the tenant lies
    between the one that is remembered and the last list's own.
    """
    last = position and position.resource_version
    has_changed = now.resource_version != before.resource_version
    is_of_before = now.resource_version == last or is_older(now.resource_version, last)
    return (
        bool(before.gone_at)
        or is_older(now.resource_version, before.resource_version)
        or (before.is_current and has_changed and is_of_before)
    )


def incomplete(names: Sequence[str]) -> RestoredSource:
    """Return the refusal of a list that lacks tenants whose deletion the change log does not show."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return RestoredSource(
        f"The list lacks {names[0]}{more}, and the change log up to that list shows no deletion.",
        "Nothing was written. The list was not whole, or it is of a copy of the cluster. Check which cluster this is; "
        "if the ledger is to follow it, say so once with --accept-source.",
    )


def restored(before: Remembered, now: Observed, position: Position | None) -> RestoredSource:
    """Return the refusal of such a list."""
    seen = (
        f"lacked it since {before.gone_at:%Y-%m-%d %H:%M} UTC"
        if before.gone_at
        else f"saw it at {before.resource_version}, in a list at {position and position.resource_version}"
    )
    return RestoredSource(
        f"The list shows {now.name} at resourceVersion {now.resource_version}; the last run {seen}.",
        "Nothing was written. No later list of the same cluster can show that: this is a copy of it, or it was "
        "restored from a backup. Check which cluster this is; if the ledger is to follow it, say so once with "
        "--accept-source.",
    )


def is_older(version: str | None, than: str | None) -> bool:
    """True if a resourceVersion is known to be older than another one.

    They are comparable as integers: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
    """
    return bool(version and than and _is_number(version) and _is_number(than) and int(version) < int(than))


def _is_number(version: str) -> bool:
    return version.isascii() and version.isdigit()
