"""What each finding means and what to do about it, for whoever is woken by it and for whoever must defend it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.model import Reason, Result

if TYPE_CHECKING:
    from collections.abc import Mapping


class Advice(NamedTuple):
    """One entry of the runbook."""

    meaning: str
    """What is wrong, and what the run did about it."""
    remedy: str
    """What is left for a person to do."""


RUNBOOK: Mapping[Reason | Result, Advice] = {
    Reason.TENANT_UNRECORDED: Advice(
        "The tenant is in the cluster, and the ledger had no row of it: it was not invoiced at all. The row was "
        "inserted, dated to the tenant's creation.",
        "Nothing. If it comes back with other tenants, the portal is losing its rows: look into the portal's log.",
    ),
    Reason.TENANT_RECREATED: Advice(
        "The tenant was deleted, and a new one was created under its name. The ledger still says deleted, so that the "
        "new one is not invoiced. Nothing was written.",
        "Have the owner of the ledger run `reconciler reopen TENANT`: it keeps the closed life, and opens the row at "
        "the new creation.",
    ),
    Reason.TENANT_UNREADABLE: Advice(
        "A field of the custom resource has a shape that cannot be read. The tenant was left alone: it counts neither "
        "as deleted nor as without skills, and none of its changes reach the ledger.",
        "Mend the field that the finding names. If two namespaces have a tenant of this name, one of them must go.",
    ),
    Reason.DELETION_UNRECORDED: Advice(
        "The tenant is gone from the cluster, or is being deleted, and the ledger still had it open: its customer was "
        "being charged. The deletion was stamped.",
        "Was it meant to be deleted? If not, restore it: the next run then reports `tenant_recreated`, and "
        "`reconciler reopen TENANT` opens its row again.",
    ),
    Reason.DELETION_CONTRADICTED: Advice(
        "The ledger says that the tenant was deleted, and yet it lives: it was created before that and never went. It "
        "is not invoiced. Nothing was written.",
        "Find out who stamped the deletion, and why. If the tenant is to go, delete it; if it is to stay, the owner of "
        "the ledger has to set `deleted_at` in `tenant_billing_lifecycle` to null.",
    ),
    Reason.SKILL_ENABLE_UNRECORDED: Advice(
        "The skill is on, and the ledger did not say so: it was used and not invoiced. The missing event was appended.",
        "Nothing. `reconciler explain TENANT` shows how its moment was found.",
    ),
    Reason.SKILL_DISABLE_UNRECORDED: Advice(
        "The skill is off, and the ledger still had it on: the customer was being charged for it. The missing event "
        "was appended.",
        "Nothing. `reconciler explain TENANT` shows how its moment was found.",
    ),
    Reason.SKILL_OPEN_AFTER_DELETION: Advice(
        "The tenant is deleted, and the ledger still had the skill on. The closing event was appended, at the moment "
        "of the deletion.",
        "Nothing: a skill costs nothing after the deletion.",
    ),
    Reason.SUSPENSION_UNRECORDED: Advice(
        "The tenant is suspended, and the ledger had it running: its customer was being charged the monthly fee. The "
        "missing event was appended.",
        "Nothing. `reconciler explain TENANT` shows how its moment was found.",
    ),
    Reason.RESUMPTION_UNRECORDED: Advice(
        "The tenant runs, and the ledger had it suspended: its monthly fee was not invoiced. The missing event was "
        "appended.",
        "Nothing. `reconciler explain TENANT` shows how its moment was found.",
    ),
    Reason.ORG_RESOLVED: Advice(
        "The tenant was recorded under the organisation `unknown`, and now carries a label. Its row was given that "
        "organisation.",
        "Its earlier events still say `unknown`, as events are never rewritten: see to it that those days are "
        "invoiced.",
    ),
    Reason.ORG_UNLABELLED: Advice(
        "The tenant carries no organisation label, so that nobody is invoiced for it: what is written about it says "
        "`unknown`.",
        "Put the label of the paying organisation on the custom resource. The next run fills it in.",
    ),
    Reason.ORG_MOVED: Advice(
        "The label names another organisation than the ledger's row. New events carry the label, and the row was left "
        "alone, so that the two are invoiced to different customers.",
        "Find out who pays, and from when. If the label is wrong, put it back; if it is right, the owner of the ledger "
        "has to set `zitadel_org_id` in `tenant_billing_lifecycle`.",
    ),
    Reason.EVENTS_WITHOUT_TENANT: Advice(
        "The ledger has events of a tenant that neither the cluster nor the table of lifecycles knows: its row was "
        "lost, and it is gone. Nothing was written.",
        "Find out when it lived. The owner of the ledger can insert the row; where nothing is owed, accept it with "
        "`reconciler except TENANT events_without_tenant`.",
    ),
    Reason.EVENT_TIME_INVALID: Advice(
        "The latest event lies after now, or infinitely far away, so that nothing written now could follow it. What it "
        "is about was left alone, and may be invoiced wrongly.",
        "Find out what wrote it: usually a machine with a wrong clock. The owner of the ledger has to correct its time "
        "by hand.",
    ),
    Result.BLOCKED: Advice(
        "A safety rule refused the run, as what it was about to write looks like a fault of what it saw. Nothing was "
        "written, and no drift is corrected until a person has decided.",
        "Do what the message says. `reconciler plan` shows what the run would write, and writes nothing.",
    ),
    Result.FAILED: Advice(
        "The run did not come to its end, so that drift is not corrected. The message says whether anything was "
        "written.",
        "Do what the message says; the log has the rest. To run again is safe, and the next run starts anew.",
    ),
}
"""For every reason, and for a run that was refused or failed."""
