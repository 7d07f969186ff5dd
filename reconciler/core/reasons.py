"""Every reason, declared once: what a run does about it, what it means, and what is left for a person to do.

To add a reason, add one entry to `Reason`. Its action, table and event kind decide what a run writes; its texts appear
in alerts, in the runbook and in `reconciler explain`. Logs, metrics, the database and the output use the same name.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

from reconciler.core.model import Action, Result, Table

if TYPE_CHECKING:
    from collections.abc import Mapping


class Advice(NamedTuple):
    """The explanation that goes with a notification."""

    meaning: str
    """What is wrong, and what the run did about it."""
    remedy: str
    """What is left for a person to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """The declaration of one member of `Reason`. What writes nothing is reported, and left to a person."""

    name: str
    writes: tuple[Action, Table | None, str | None] = (Action.REPORT, None, None)
    summary: str
    meaning: str
    remedy: str = "Nothing. `reconciler explain TENANT` shows how its time was determined."


class Reason(enum.StrEnum):
    """Why a finding exists: a closed set."""

    action: Action
    """What a run does about it, unless it is deferred."""
    table: Table | None
    """The table that the correction is written to; None if it is left to a person. See `Finding.table`."""
    event_kind: str | None
    """The kind of the event that corrects it; None if none is appended, or if it depends: see `Finding.event_kind`."""
    summary: str
    """One sentence for somebody who has never seen the cluster."""
    advice: Advice

    def __new__(cls, entry: _Entry | str) -> Self:
        """Create the member that an entry declares. `Reason("org_moved")` looks a member up and never gets here."""
        assert isinstance(entry, _Entry)  # noqa: S101 - str is in the signature for the type checker
        member = str.__new__(cls, entry.name)
        member._value_ = entry.name
        member.action, member.table, member.event_kind = entry.writes
        member.summary, member.advice = entry.summary, Advice(entry.meaning, entry.remedy)
        return member

    TENANT_UNRECORDED = _Entry(
        name="tenant_unrecorded",
        writes=(Action.INSERT, Table.LIFECYCLE, None),
        summary="The tenant existed but was not recorded.",
        meaning="The tenant exists in the cluster, or did for a time, but had no row in the ledger, so it was not "
        "invoiced at all. The row was inserted, dated to the tenant's creation.",
        remedy="Nothing. If this recurs with other tenants, the portal is losing rows: check the portal's log.",
    )
    TENANT_RECREATED = _Entry(
        name="tenant_recreated",
        summary="The tenant was deleted and recreated, and its row is still that of the tenant before.",
        meaning="The tenant was deleted, and a new one was created under the same name. If the ledger says deleted, "
        "the new tenant is not invoiced; if it says open, the deletion was lost, and the days in between are invoiced "
        "too. Nothing was written.",
        remedy="Run `reconciler reopen TENANT` as the role for decisions, with `--ended TIME` if the ledger does "
        "not know the deletion. Many at once mean that the cluster was restored from a backup: then run once with "
        "--accept-source.",
    )
    CREATION_MISRECORDED = _Entry(
        name="creation_misrecorded",
        summary="The tenant is older than the ledger says.",
        meaning="The tenant was created before its row in the ledger begins, so the days in between are not invoiced. "
        "Nothing was written: the start of a row never moves by itself.",
        remedy="Find out from when the tenant is owed. If from its creation, `reconciler record TENANT alive --from "
        "TIME --note WHY`; if from the row's start, accept the report with `reconciler except TENANT "
        "creation_misrecorded --until DAY --note WHY`.",
    )
    TENANT_UNREADABLE = _Entry(
        name="tenant_unreadable",
        summary="The custom resource cannot be read.",
        meaning="A field of the custom resource has a form that the reconciler cannot read. The tenant was left "
        "alone: it does not count as deleted or as having no skills, and none of its changes reach the ledger.",
        remedy="Fix the field named in the finding. If two namespaces have a tenant with this name, remove one of the "
        "two.",
    )
    DELETION_UNRECORDED = _Entry(
        name="deletion_unrecorded",
        writes=(Action.STAMP, Table.LIFECYCLE, None),
        summary="The tenant was deleted but recorded as open.",
        meaning="The tenant is gone from the cluster or is being deleted, but the ledger still had it open: its "
        "customer was being charged. The deletion was stamped.",
        remedy="Check that the deletion was intended. If it was not, restore the tenant: the next run then reports "
        "`tenant_recreated`, and `reconciler reopen TENANT` opens its row again.",
    )
    DELETION_CONTRADICTED = _Entry(
        name="deletion_contradicted",
        summary="The tenant exists but is recorded as deleted.",
        meaning="The ledger says that the tenant was deleted, but it still exists, or did so on a later day: it was "
        "created before that time and not removed then. It is not invoiced since. Nothing was written.",
        remedy="Find out who stamped the deletion, and why. If the tenant should go, delete it; if it should stay, "
        "`reconciler record TENANT alive --from TIME --note WHY`, with the time of the stamp. If it went on a later "
        "day, add `--to TIME` where that time is owed, or accept the report with `reconciler except`.",
    )
    SKILL_ENABLE_UNRECORDED = _Entry(
        name="skill_enable_unrecorded",
        writes=(Action.APPEND, Table.SKILL_EVENTS, "enabled"),
        summary="The skill was on but recorded as off.",
        meaning="The skill is on, or was for a time, but the ledger did not say so: it was used and not invoiced. The "
        "missing event was appended.",
    )
    SKILL_DISABLE_UNRECORDED = _Entry(
        name="skill_disable_unrecorded",
        writes=(Action.APPEND, Table.SKILL_EVENTS, "disabled"),
        summary="The skill was off but recorded as on.",
        meaning="The skill is off, or was for a time, but the ledger still had it on: the customer was being charged "
        "for it. The missing event was appended.",
    )
    SKILL_OPEN_AFTER_DELETION = _Entry(
        name="skill_open_after_deletion",
        writes=(Action.APPEND, Table.SKILL_EVENTS, "disabled"),
        summary="The tenant was deleted, but the skill was recorded as on.",
        meaning="The tenant is deleted, but the ledger still had the skill on. The closing event was appended, dated "
        "to the deletion.",
        remedy="Nothing: a skill costs nothing after the deletion.",
    )
    SUSPENSION_UNRECORDED = _Entry(
        name="suspension_unrecorded",
        writes=(Action.APPEND, Table.SUSPENSION_EVENTS, "suspended"),
        summary="The tenant was suspended but recorded as running.",
        meaning="The tenant is suspended, or was for a time, but the ledger had it running: its customer was being "
        "charged the monthly fee. The missing event was appended.",
    )
    RESUMPTION_UNRECORDED = _Entry(
        name="resumption_unrecorded",
        writes=(Action.APPEND, Table.SUSPENSION_EVENTS, "resumed"),
        summary="The tenant was running but recorded as suspended.",
        meaning="The tenant is running, or was for a time, but the ledger had it suspended: its monthly fee was not "
        "invoiced. The missing event was appended.",
    )
    ORG_RESOLVED = _Entry(
        name="org_resolved",
        writes=(Action.UPDATE, Table.LIFECYCLE, None),
        summary="The organisation was not known when the row was written.",
        meaning="The tenant was recorded under the organisation `unknown` and now carries a label. Its row was given "
        "the organisation on the label.",
        remedy="Its earlier days are now billed to that organisation. If one of those months is already invoiced to "
        "it, invoice them by hand. The earlier events still say `unknown`, because events are never rewritten.",
    )
    ORG_UNLABELLED = _Entry(
        name="org_unlabelled",
        summary="The custom resource does not say which organisation pays.",
        meaning="The tenant carries no organisation label, so nobody is invoiced for it: its rows are written with "
        "the organisation `unknown`.",
        remedy="Add the label of the paying organisation to the custom resource. The next run fills it in.",
    )
    ORG_MOVED = _Entry(
        name="org_moved",
        summary="The custom resource names a different organisation than the ledger.",
        meaning="The label names a different organisation than the one that pays today. New events carry the label; "
        "who pays was left alone.",
        remedy="Find out who pays. If the label is wrong, restore it. If it is right, say from which day on: "
        "`reconciler record TENANT payer ORG --from DAY --note WHY`. It moves no day that came before.",
    )
    EVENTS_WITHOUT_TENANT = _Entry(
        name="events_without_tenant",
        summary="There are events, but neither a custom resource nor a lifecycle row.",
        meaning="The ledger has events for a tenant that has neither a custom resource nor a row in "
        "`tenant_billing_lifecycle`: its row was lost and the tenant is gone. Nothing was written.",
        remedy="Find out when the tenant existed: `reconciler record TENANT alive --from TIME --to TIME --org ORG "
        "--note WHY`. Rows that are wrong are taken back: `reconciler retract skill:ID`. If nothing is owed, accept: "
        "`reconciler except TENANT events_without_tenant --until DAY --note WHY`.",
    )
    EVENT_TIME_INVALID = _Entry(
        name="event_time_invalid",
        summary="The latest event lies in the future, so nothing can follow it.",
        meaning="The latest event lies in the future or is infinite, so nothing written now could follow it. Its "
        "skill or suspension was left alone and may be invoiced wrongly.",
        remedy="Find out what wrote it, usually a machine with a wrong clock. `reconciler retract skill:ID` (or "
        "`suspension:ID`, with the id that `reconciler explain TENANT` shows) takes it back: it then counts nowhere.",
    )
    HISTORY_CONTRADICTS = _Entry(
        name="history_contradicts",
        summary="The recorded events contradict each other, so that one of them was lost.",
        meaning="Two recorded events contradict each other, and no run can prove what happened between them; or one "
        "lies outside of every lifetime, or under an organisation that never paid. The invoices may be wrong. Nothing "
        "was written.",
        remedy="`reconciler explain TENANT` shows the events. Say how it was with `reconciler record TENANT STATE`, or "
        "take a wrong row back with `reconciler retract`. If nothing is wrong, accept the report with `reconciler "
        "except TENANT history_contradicts --until DAY --note WHY`.",
    )
    CLOSED_MONTH_CHANGED = _Entry(
        name="closed_month_changed",
        summary="A line of a closed month is not what was closed.",
        meaning="Rows, decisions or payers that came after a month was closed change what is billed for it. The ledger "
        "holds what is true; the invoice of that month does not have the difference yet.",
        remedy="`reconciler usage --month MONTH --changes` shows the lines. If they are right, take them in with "
        "`reconciler close MONTH --note WHY` and invoice the difference. If not, put the rows right with `reconciler "
        "record` or `retract`.",
    )
    CORRECTION_SUPERSEDED = _Entry(
        name="correction_superseded",
        writes=(Action.APPEND, Table.SKILL_EVENTS, None),
        summary="The portal's own row came after the correction, and shows the true moment.",
        meaning="A correction was dated by policy, because nothing proved its moment. Then the portal's row of the "
        "same change came. The correction was taken back: an event was appended at its instant that says what the "
        "other rows say there.",
    )
    RECORDED = _Entry(
        name="recorded",
        writes=(Action.APPEND, Table.SKILL_EVENTS, None),
        summary="A person said how it was, and the ledger said otherwise.",
        meaning="A person recorded a state from one time to another. Where the ledger said otherwise in that time, be "
        "it by a row that came later, the decided state was appended at the instant of that row.",
    )
    RETRACTED = _Entry(
        name="retracted",
        writes=(Action.APPEND, Table.SKILL_EVENTS, None),
        summary="A person took a row back, and the ledger still read as if it counted.",
        meaning="A person took a row, a correction or a decision back. Where the ledger read otherwise than it would "
        "without that, the right state was appended.",
    )
    REOPENED = _Entry(
        name="reopened",
        writes=(Action.UPDATE, Table.LIFECYCLE, None),
        summary="A person said that the tenant was recreated, and its row begins again.",
        meaning="The tenant was deleted and recreated under its name. A person reopened it: the lifetime before was "
        "appended to the earlier ones, billed as before, and the row begins again at the new creation.",
    )
    TENANT_RESTLESS = _Entry(
        name="tenant_restless",
        summary="The tenant kept changing, so its drift was not corrected.",
        meaning="The ledger differs from the tenant, but in every run of the last hour the tenant changed between the "
        "two looks at it. Such drift is deferred: nothing about the change was written, and the tenant may be "
        "invoiced wrongly.",
        remedy="Find out what keeps changing its packages or its suspension, usually two controllers that undo each "
        "other: `kubectl get --show-managed-fields` names who wrote them last. The first run that finds it the same "
        "at both looks corrects it.",
    )
    TENANT_PARKED = _Entry(
        name="tenant_parked",
        summary="Something about the tenant cannot be written.",
        meaning="The ledger refused or changed what the run was to write about this tenant, or its record is too long. "
        "Nothing of it was written, so the tenant is invoiced as the ledger stands. Every other tenant went on, and "
        "each run tries again.",
        remedy="The finding says what stood in the way: a trigger, a rule or a policy on the table, a missing "
        "partition, a value too large for its column, more skills than a run can hold. Remove it, and the next run "
        "writes what is due; `reconciler plan` shows that.",
    )

    @property
    def corrects(self) -> bool:
        """True if a run corrects the ledger, False if it only reports."""
        return self.table is not None

    @property
    def is_of_lifetime(self) -> bool:
        """True if it is of the beginning or the end of a lifetime."""
        return self.action in {Action.INSERT, Action.STAMP}

    @property
    def is_of_change(self) -> bool:
        """True if it is of something that happened to a tenant, which the change log shows, too."""
        return self.is_of_lifetime or self.event_kind is not None


RUNBOOK: Mapping[Reason | Result, Advice] = {
    **{reason: reason.advice for reason in Reason},
    Result.BLOCKED: Advice(
        "A safety rule refused the run, because the changes that it was about to make look like an error in its input. "
        "Nothing was written, and no drift is corrected until a person has decided.",
        "Do what the message says. `reconciler plan` shows what the run would write, and writes nothing. If that is "
        "wrong, check the cluster and the address of the ledger, and let nothing pass.",
    ),
    Result.FAILED: Advice(
        "The run did not complete, so drift is not corrected. The message says whether anything was written.",
        "Do what the message says; the log has the details. Running again is safe: the next run starts from scratch.",
    ),
}
"""The advice for everything that people are notified of: every reason, and a run that was refused or failed."""

CORRECTING = tuple(reason for reason in Reason if reason.corrects)
"""The reasons that a run corrects."""
REPORTING = tuple(reason for reason in Reason if not reason.corrects)
"""The reasons that a run only reports."""
HISTORY_UNPROVEN = "history_unproven"
"""No reason of a finding: that nobody can prove what happened to a tenant. It is accepted like a report."""
ACCEPTABLE = (*(reason.value for reason in REPORTING), HISTORY_UNPROVEN)
"""What people can accept of a tenant."""
