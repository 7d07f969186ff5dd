"""Every reason, once: what is done about it, what it means, and what is left for a person to do.

A reason is one entry of `Reason`. Its action, table and event kind decide what a run writes; its texts stand in the
alerts, the runbook and `reconciler explain`. Logs, metrics, the database and the output spell it the same.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

from reconciler.core.model import Action, Result, Table

if TYPE_CHECKING:
    from collections.abc import Mapping


class Advice(NamedTuple):
    """What people read about something they are notified of."""

    meaning: str
    """What is wrong, and what the run did about it."""
    remedy: str
    """What is left for a person to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """What a member of `Reason` is declared by."""

    name: str
    action: Action
    table: Table | None = None
    event_kind: str | None = None
    summary: str
    meaning: str
    remedy: str


class Reason(enum.StrEnum):
    """Why a finding exists: a closed set.

    Attributes:
        action: what a run does about it, unless it is deferred.
        table: where it is corrected; None where it is left to a person.
        event_kind: of the event that corrects it; None where none is appended.
        summary: one sentence for somebody who has never seen the cluster.
        advice: what it means and what is left to do.
    """

    action: Action
    table: Table | None
    event_kind: str | None
    summary: str
    advice: Advice

    def __new__(cls, entry: _Entry | str) -> Self:
        """Make the member that an entry declares; by its name alone a member is looked up."""
        assert isinstance(entry, _Entry)  # noqa: S101 - a look-up never comes here
        member = str.__new__(cls, entry.name)
        member._value_ = entry.name
        member.action, member.table, member.event_kind = entry.action, entry.table, entry.event_kind
        member.summary, member.advice = entry.summary, Advice(entry.meaning, entry.remedy)
        return member

    TENANT_UNRECORDED = _Entry(
        name="tenant_unrecorded",
        action=Action.INSERT,
        table=Table.LIFECYCLE,
        summary="The tenant existed, and was not recorded.",
        meaning="The tenant is in the cluster, and the ledger had no row of it: it was not invoiced at all. The row "
        "was inserted, dated to the tenant's creation.",
        remedy="Nothing. If it comes back with other tenants, the portal is losing its rows: look into the portal's "
        "log.",
    )
    TENANT_RECREATED = _Entry(
        name="tenant_recreated",
        action=Action.REPORT,
        summary="The tenant was deleted and created anew, and is recorded as deleted.",
        meaning="The tenant was deleted, and a new one was created under its name. The ledger still says deleted, "
        "so that the new one is not invoiced. Nothing was written.",
        remedy="Have the owner of the ledger run `reconciler reopen TENANT`: it keeps the closed life, and opens "
        "the row at the new creation.",
    )
    TENANT_UNREADABLE = _Entry(
        name="tenant_unreadable",
        action=Action.REPORT,
        summary="The custom resource cannot be read.",
        meaning="A field of the custom resource has a shape that cannot be read. The tenant was left alone: it "
        "counts neither as deleted nor as without skills, and none of its changes reach the ledger.",
        remedy="Mend the field that the finding names. If two namespaces have a tenant of this name, one of them "
        "must go.",
    )
    DELETION_UNRECORDED = _Entry(
        name="deletion_unrecorded",
        action=Action.STAMP,
        table=Table.LIFECYCLE,
        summary="The tenant was deleted, and recorded as open.",
        meaning="The tenant is gone from the cluster, or is being deleted, and the ledger still had it open: its "
        "customer was being charged. The deletion was stamped.",
        remedy="Was it meant to be deleted? If not, restore it: the next run then reports `tenant_recreated`, and "
        "`reconciler reopen TENANT` opens its row again.",
    )
    DELETION_CONTRADICTED = _Entry(
        name="deletion_contradicted",
        action=Action.REPORT,
        summary="The tenant lives, and is recorded as deleted.",
        meaning="The ledger says that the tenant was deleted, and yet it lives: it was created before that and "
        "never went. It is not invoiced. Nothing was written.",
        remedy="Find out who stamped the deletion, and why. If the tenant is to go, delete it; if it is to stay, "
        "the owner of the ledger has to set `deleted_at` in `tenant_billing_lifecycle` to null.",
    )
    SKILL_ENABLE_UNRECORDED = _Entry(
        name="skill_enable_unrecorded",
        action=Action.APPEND,
        table=Table.SKILL_EVENTS,
        event_kind="enabled",
        summary="The skill was on, and recorded as off.",
        meaning="The skill is on, and the ledger did not say so: it was used and not invoiced. The missing event "
        "was appended.",
        remedy="Nothing. `reconciler explain TENANT` shows how its moment was found.",
    )
    SKILL_DISABLE_UNRECORDED = _Entry(
        name="skill_disable_unrecorded",
        action=Action.APPEND,
        table=Table.SKILL_EVENTS,
        event_kind="disabled",
        summary="The skill was off, and recorded as on.",
        meaning="The skill is off, and the ledger still had it on: the customer was being charged for it. The "
        "missing event was appended.",
        remedy="Nothing. `reconciler explain TENANT` shows how its moment was found.",
    )
    SKILL_OPEN_AFTER_DELETION = _Entry(
        name="skill_open_after_deletion",
        action=Action.APPEND,
        table=Table.SKILL_EVENTS,
        event_kind="disabled",
        summary="The tenant was deleted, and the skill recorded as on.",
        meaning="The tenant is deleted, and the ledger still had the skill on. The closing event was appended, at "
        "the moment of the deletion.",
        remedy="Nothing: a skill costs nothing after the deletion.",
    )
    SUSPENSION_UNRECORDED = _Entry(
        name="suspension_unrecorded",
        action=Action.APPEND,
        table=Table.SUSPENSION_EVENTS,
        event_kind="suspended",
        summary="The tenant was suspended, and recorded as running.",
        meaning="The tenant is suspended, and the ledger had it running: its customer was being charged the monthly "
        "fee. The missing event was appended.",
        remedy="Nothing. `reconciler explain TENANT` shows how its moment was found.",
    )
    RESUMPTION_UNRECORDED = _Entry(
        name="resumption_unrecorded",
        action=Action.APPEND,
        table=Table.SUSPENSION_EVENTS,
        event_kind="resumed",
        summary="The tenant was running, and recorded as suspended.",
        meaning="The tenant runs, and the ledger had it suspended: its monthly fee was not invoiced. The missing "
        "event was appended.",
        remedy="Nothing. `reconciler explain TENANT` shows how its moment was found.",
    )
    ORG_RESOLVED = _Entry(
        name="org_resolved",
        action=Action.UPDATE,
        table=Table.LIFECYCLE,
        summary="The organisation was not known when the row was written.",
        meaning="The tenant was recorded under the organisation `unknown`, and now carries a label. Its row was "
        "given that organisation.",
        remedy="Its earlier events still say `unknown`, as events are never rewritten: see to it that those days "
        "are invoiced.",
    )
    ORG_UNLABELLED = _Entry(
        name="org_unlabelled",
        action=Action.REPORT,
        summary="The custom resource does not say which organisation pays.",
        meaning="The tenant carries no organisation label, so that nobody is invoiced for it: what is written about "
        "it says `unknown`.",
        remedy="Put the label of the paying organisation on the custom resource. The next run fills it in.",
    )
    ORG_MOVED = _Entry(
        name="org_moved",
        action=Action.REPORT,
        summary="The custom resource names another organisation than the ledger.",
        meaning="The label names another organisation than the ledger's row. New events carry the label, and the "
        "row was left alone, so that the two are invoiced to different customers.",
        remedy="Find out who pays, and from when. If the label is wrong, put it back; if it is right, the owner of "
        "the ledger has to set `zitadel_org_id` in `tenant_billing_lifecycle`.",
    )
    EVENTS_WITHOUT_TENANT = _Entry(
        name="events_without_tenant",
        action=Action.REPORT,
        summary="There are events, and neither a custom resource nor a row.",
        meaning="The ledger has events of a tenant that neither the cluster nor the table of lifecycles knows: its "
        "row was lost, and it is gone. Nothing was written.",
        remedy="Find out when it lived. The owner of the ledger can insert the row; where nothing is owed, accept "
        "it with `reconciler except TENANT events_without_tenant`.",
    )
    EVENT_TIME_INVALID = _Entry(
        name="event_time_invalid",
        action=Action.REPORT,
        summary="The latest event lies in the future: nothing can follow it.",
        meaning="The latest event lies after now, or infinitely far away, so that nothing written now could follow "
        "it. What it is about was left alone, and may be invoiced wrongly.",
        remedy="Find out what wrote it: usually a machine with a wrong clock. The owner of the ledger has to "
        "correct its time by hand.",
    )

    @property
    def corrects(self) -> bool:
        """True if a run writes to the ledger for it, False if it leaves it to a person."""
        return self.table is not None


STOPPED: dict[Result, Advice] = {
    Result.BLOCKED: Advice(
        "A safety rule refused the run, as what it was about to write looks like a fault of what it saw. "
        "Nothing was written, and no drift is corrected until a person has decided.",
        "Do what the message says. `reconciler plan` shows what the run would write, and writes nothing.",
    ),
    Result.FAILED: Advice(
        "The run did not come to its end, so that drift is not corrected. The message says whether anything "
        "was written.",
        "Do what the message says; the log has the rest. To run again is safe, and the next run starts anew.",
    ),
}
"""What a run that was refused or failed means, and what is left to do."""

RUNBOOK: Mapping[Reason | Result, Advice] = {
    what: what.advice if isinstance(what, Reason) else STOPPED[what] for what in (*Reason, *STOPPED)
}
"""What people read about everything that they are notified of."""

CORRECTING = tuple(reason for reason in Reason if reason.corrects)
"""The reasons for which a run writes."""
REPORTING = tuple(reason for reason in Reason if not reason.corrects)
"""The reasons that are left to a person."""
