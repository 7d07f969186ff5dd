"""What must hold after every run, whatever struck it. Each check is named after what it claims."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from reconciler.core.model import Evidence, Result
from reconciler.core.reasons import Reason
from tests.simulation.portal import SETTLE, START, became

if TYPE_CHECKING:
    import psycopg

    from reconciler.core.model import Observed, Outcome
    from tests.simulation.boundaries import Looks
    from tests.simulation.portal import Portal, Truth

ROUNDING = timedelta(seconds=1)
"""Kubernetes cuts its times to whole seconds."""

TABLES = {
    "lifecycle": "SELECT tenant_name, zitadel_org_id, created_at, deleted_at FROM public.tenant_billing_lifecycle",
    "skills": "SELECT id, tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at "
    "FROM public.tenant_skill_events",
    "suspensions": "SELECT id, tenant_name, zitadel_org_id, event_kind, occurred_at "
    "FROM public.tenant_suspension_events",
    "corrections": "SELECT id, run_id, reason, tenant_name, subject, occurred_at, not_before, not_after, evidence, "
    "event_table, event_id, supersedes_event_id, uid FROM reconciler.corrections",
    "runs": "SELECT id, outcome, error FROM reconciler.runs",
    "remembered": "SELECT uid, resource_version, packages::text, suspended, deleting_at, follows, gone_at IS NULL "
    "FROM reconciler.tenants",
    "gaps": "SELECT tenant_name, from_at, why, manager FROM reconciler.gaps",
    "changes": "SELECT uid, resource_version, kind, skill, not_before, not_after, at FROM reconciler.changes",
}


MEMORY = {"runs", "remembered", "gaps", "changes"}


@dataclass(frozen=True)
class Ledger:
    """Every row of the ledger at one instant."""

    rows: dict[str, frozenset[tuple[Any, ...]]]

    @classmethod
    def read(cls, connection: psycopg.Connection[Any]) -> Ledger:
        """Read it all."""
        return cls({name: frozenset(connection.execute(query.encode()).fetchall()) for name, query in TABLES.items()})

    def billed(self) -> dict[str, frozenset[tuple[Any, ...]]]:
        """What invoices are computed from, and why: neither the runs nor what they remember."""
        return {name: rows for name, rows in self.rows.items() if name not in MEMORY}

    def content(self) -> dict[str, list[tuple[Any, ...]]]:
        """What is billed and what is remembered, without ids: fit to be compared with another ledger."""
        return {
            "lifecycle": sorted(self.rows["lifecycle"], key=str),
            "skills": sorted((row[1:] for row in self.rows["skills"]), key=str),
            "suspensions": sorted((row[1:] for row in self.rows["suspensions"]), key=str),
            "remembered": sorted(self.rows["remembered"], key=str),
            "gaps": sorted(self.rows["gaps"], key=str),
            "changes": sorted(self.rows["changes"], key=str),
        }


def fail_closed(outcome: Outcome, before: Ledger, after: Ledger, portal: Portal) -> None:
    """I2, I8: a run that failed or was refused has written nothing that is billed."""
    if outcome.failure:
        assert after.rows["corrections"] == before.rows["corrections"], "a run that did not succeed has corrected"
        assert _ours(after, portal) == _ours(before, portal), "a run that did not succeed has written"


def accounted_for(after: Ledger, portal: Portal) -> None:
    """I4: every event that the portal did not write stands in a correction, once."""
    corrected = sorted((row[9], row[10]) for row in after.rows["corrections"] if row[10] is not None)
    assert corrected == sorted(_ours(after, portal)), "an event has no correction, or two"


def _ours(ledger: Ledger, portal: Portal) -> set[tuple[str, int]]:
    events = {("tenant_skill_events", row[0]) for row in ledger.rows["skills"]}
    events |= {("tenant_suspension_events", row[0]) for row in ledger.rows["suspensions"]}
    return events - portal.written


def append_only(before: Ledger, after: Ledger) -> None:
    """I3: no event is changed or removed; deleted_at goes once from null to a value; created_at never moves."""
    for name in ("skills", "suspensions", "corrections"):
        assert before.rows[name] <= after.rows[name], f"a row of {name} was changed or removed"
    then = {row[0]: row for row in before.rows["lifecycle"]}
    now = {row[0]: row for row in after.rows["lifecycle"]}
    assert then.keys() <= now.keys(), "a lifecycle row was removed"
    for name, (_, _, created_at, deleted_at) in then.items():
        assert now[name][2] == created_at, f"created_at of {name} moved"
        assert deleted_at is None or now[name][3] == deleted_at, f"deleted_at of {name} moved"


def corrections_of(outcome: Outcome | None, before: Ledger, after: Ledger) -> list[tuple[Any, ...]]:
    """Return the corrections that one run wrote; of one that was killed, all that nobody else accounts for."""
    new = after.rows["corrections"] - before.rows["corrections"]
    return sorted((row for row in new if outcome is None or row[1] == outcome.run_id), key=str)


def proved_absent(corrections: list[tuple[Any, ...]], looks: Looks) -> None:
    """I1: a deletion is stamped only after a whole list and a second look both missed it, or showed it in deletion."""
    for correction in corrections:
        if correction[2] != Reason.DELETION_UNRECORDED or correction[8] == Evidence.CHANGE_LOG:
            continue
        seen = looks.of(correction[3])
        if seen[0] is None:
            assert len(seen) > 1, f"{correction[3]} was absent once, and stamped"
            assert seen[-1] is None, f"{correction[3]} was there at the recheck, and stamped"
        else:
            assert all(look and look.deleting_at for look in seen), f"{correction[3]} was stamped while it lived"


def justified(corrections: list[tuple[Any, ...]], looks: Looks, portal: Portal) -> None:
    """I4: every row states what the resource showed at every look, and what could still move was rechecked."""
    for correction in corrections:
        reason, name, subject = correction[2:5]
        if reason == Reason.CORRECTION_SUPERSEDED or correction[8] == Evidence.CHANGE_LOG or correction[12]:
            continue  # the ledger's own rows show it, or the change log: see `shown_by_the_log`
        seen = looks.of(name)
        assert all(_shows(look, reason, subject) for look in seen), f"{reason} of {name} {subject} was not shown"
        changed_at = _truly(portal.truth[name], reason, subject, looks.began) if looks.began else None
        if changed_at and looks.began and changed_at > looks.began - SETTLE:
            assert len(seen) > 1, f"{reason} of {name} {subject}: its row may still have been on its way"


def _shows(look: Observed | None, reason: str, skill: str | None) -> bool:
    live = look is not None and look.problem is None and look.deleting_at is None
    match reason:
        case Reason.TENANT_UNRECORDED:
            return look is not None and look.problem is None
        case Reason.DELETION_UNRECORDED | Reason.SKILL_OPEN_AFTER_DELETION:
            return not live
        case Reason.SKILL_ENABLE_UNRECORDED:
            # one that is being deleted shows what was on until then
            return look is not None and look.problem is None and skill in look.packages
        case Reason.SKILL_DISABLE_UNRECORDED:
            return live and look is not None and skill not in look.packages
        case Reason.SUSPENSION_UNRECORDED | Reason.RESUMPTION_UNRECORDED:
            return live and look is not None and look.suspended is (reason == Reason.SUSPENSION_UNRECORDED)
        case _:
            return live and look is not None and look.org is not None


def within_the_interval(corrections: list[tuple[Any, ...]], after: Ledger, portal: Portal, looks: Looks) -> None:
    """I5, I6: moment and truth lie in the interval, after what is superseded, and not to the customer's harm."""
    superseded = {("tenant_skill_events", row[0]): row[5] for row in after.rows["skills"]}
    superseded |= {("tenant_suspension_events", row[0]): row[4] for row in after.rows["suspensions"]}
    rows = {row[0]: row for row in after.rows["lifecycle"]}
    stamped = {name for _, _, reason, name, *_ in corrections if reason == Reason.DELETION_UNRECORDED}
    for correction in corrections:
        _, _, reason, name, skill, occurred_at, not_before, not_after, evidence, table, _, old, _ = correction
        if reason in {Reason.ORG_RESOLVED, Reason.CORRECTION_SUPERSEDED} or evidence == Evidence.CHANGE_LOG:
            continue
        where = f"{reason} of {name} {skill or ''} [{not_before} {occurred_at} {not_after} {evidence}]"
        assert not_before <= occurred_at <= not_after <= portal.clock.now, f"{where}: out of order"
        assert old is None or superseded[table, old] <= occurred_at, f"{where}: before what it supersedes"
        # what counts was the same at both looks, whatever happened between them
        looked_at = looks.first_of(name)
        truly = _truly(portal.truth[name], reason, skill, looked_at)
        if truly is None and len(looks.of(name)) > 1:
            truly = _truly(portal.truth[name], reason, skill, portal.clock.now)  # it came and went between the looks
        assert truly is not None, f"{where}: never happened"
        if reason == Reason.SKILL_OPEN_AFTER_DELETION and name not in stamped:
            # what counts is the end that the row tells of, however that was dated
            assert occurred_at >= rows[name][3], f"{where}: before the end"
            continue
        truly = max(truly, rows[name][2])  # what was before the start of billing is not billed
        slack = ROUNDING + abs(portal.clock.ahead)
        late = reason == Reason.SKILL_OPEN_AFTER_DELETION and old is not None and truly < superseded[table, old]
        if not late:
            assert not_before - slack <= truly <= not_after + slack, f"{where}: the truth is {truly}"
        if evidence == "none" and reason in {Reason.SKILL_ENABLE_UNRECORDED, Reason.RESUMPTION_UNRECORDED}:
            assert occurred_at >= truly - slack, f"{where}: bills from before {truly}"
        elif evidence == "none" and not late:
            assert occurred_at <= truly + slack, f"{where}: bills beyond {truly}"


def shown_by_the_log(corrections: list[tuple[Any, ...]], portal: Portal, looks: Looks) -> None:
    """I4, I5: what the log showed had happened in its interval, and its row was not on its way any more."""
    slack = ROUNDING + abs(portal.clock.ahead)
    for correction in corrections:
        _, _, reason, name, skill, occurred_at, not_before, not_after, evidence, *_, uid = correction
        if evidence != Evidence.CHANGE_LOG:
            continue
        where = f"{reason} of {name} {skill or ''} [{not_before} {occurred_at} {not_after} by the log]"
        assert not_before <= occurred_at <= not_after <= portal.clock.now + slack, f"{where}: out of order"
        key, on = _key(portal.truth[name], reason, skill)
        if uid is None and reason != Reason.SKILL_OPEN_AFTER_DELETION:
            # the opposite of a row that no change explains
            state = next((state for at, state in reversed(key) if at <= occurred_at + slack), False)
            assert state is on, f"{where}: it was otherwise then"
            continue
        happened = [at for at, state in key if state is on and not_before - slack <= at <= not_after + slack]
        assert happened, f"{where}: never happened, but {key}"
        assert looks.began is None or happened[0] <= looks.began - SETTLE, f"{where}: its row may be on its way"


def _key(truth: Truth, reason: str, skill: str | None) -> tuple[list[tuple[datetime, bool]], bool]:
    """Return the changes of what a correction is about, and the state that it says."""
    match reason:
        case Reason.TENANT_UNRECORDED | Reason.DELETION_UNRECORDED:
            return truth.lifetimes, reason == Reason.TENANT_UNRECORDED
        case Reason.SKILL_OPEN_AFTER_DELETION:
            return truth.lifetimes, False
        case Reason.SUSPENSION_UNRECORDED | Reason.RESUMPTION_UNRECORDED:
            return truth.suspended, reason == Reason.SUSPENSION_UNRECORDED
        case _:
            return truth.skills[skill or ""], reason == Reason.SKILL_ENABLE_UNRECORDED


def _truly(truth: Truth, reason: str, skill: str | None, by: datetime) -> datetime | None:
    match reason:
        case Reason.TENANT_UNRECORDED:
            return became(truth.lifetimes, on=True, by=by)
        case Reason.DELETION_UNRECORDED | Reason.SKILL_OPEN_AFTER_DELETION:
            return became(truth.lifetimes, on=False, by=by)
        case Reason.SUSPENSION_UNRECORDED | Reason.RESUMPTION_UNRECORDED:
            return became(truth.suspended, on=reason == Reason.SUSPENSION_UNRECORDED, by=by)
        case Reason.ORG_RESOLVED:
            return None
        case _:
            return became(truth.skills[skill or ""], on=reason == Reason.SKILL_ENABLE_UNRECORDED, by=by)


def has_an_end(outcome: Outcome | None, before: Ledger, after: Ledger) -> None:
    """I10: a run that was not killed ends with an outcome and a row of its own, unless the ledger could not be had."""
    if outcome is None:
        return
    new = {row[0]: row for row in after.rows["runs"] - before.rows["runs"]}
    if outcome.run_id in new:
        assert new[outcome.run_id][1] == outcome.result, "the run's row says otherwise"
    else:
        assert outcome.failure, "a run succeeded without a row"
    if outcome.result is Result.CORRECTED:
        assert outcome.run_id in new, "a run wrote without a row"


def rightly_reported(portal: Portal, after: Ledger, outcome: Outcome) -> set[str]:
    """I9: who is reported as recreated was, and who is reported as recorded too late was created earlier.

    Returns:
        The tenants that are reported as recreated.
    """
    rows = {row[0]: row for row in after.rows["lifecycle"]}
    recreated = set()
    for finding in outcome.findings:
        if finding.reason not in {Reason.TENANT_RECREATED, Reason.CREATION_MISRECORDED}:
            continue
        name, lifetimes = finding.tenant, portal.truth[finding.tenant].lifetimes
        began_at, ended_at = rows[name][2:4]
        births = [at + portal.clock.ahead for at, alive in lifetimes if alive]
        if finding.reason is Reason.TENANT_RECREATED:
            recreated.add(name)
            assert len(births) > 1, f"{name} is reported as recreated, and has had one lifetime"
            # of a life that came and went under its name, only the change log knows
            is_there = lifetimes[-1][1] or portal.api.get(name) is not None
            assert is_there or finding.observed == "gone", f"{name} is reported as recreated, and is gone"
            nearest = min(births, key=lambda at: abs(at - began_at))
            is_of_row = not ended_at and nearest == births[-1]
            assert not is_of_row or finding.observed == "gone", (
                f"{name} is reported as recreated, and its row is its own"
            )
        else:
            assert births[-1] < began_at - SETTLE + ROUNDING, f"{name} is reported as created before its row"
    return recreated


def stable(portal: Portal, after: Ledger, outcome: Outcome) -> None:
    """I9: the ledger equals the cluster for every tenant, but for those that were recreated: these are reported."""
    lifecycle = {row[0]: row for row in after.rows["lifecycle"]}
    recreated = rightly_reported(portal, after, outcome)
    skills: dict[tuple[str, str], tuple[datetime, int, str]] = {}
    for id_, name, _, skill, kind, at in after.rows["skills"]:
        skills[name, skill] = max(skills.get((name, skill), (START.replace(year=1), 0, "")), (at, id_, kind))
    suspensions: dict[str, tuple[datetime, int, str]] = {}
    for id_, name, _, kind, at in after.rows["suspensions"]:
        suspensions[name] = max(suspensions.get(name, (START.replace(year=1), 0, "")), (at, id_, kind))
    for name in portal.truth:
        current = portal.api.get(name)
        recorded = {skill for (tenant, skill), event in skills.items() if tenant == name and event[2] == "enabled"}
        row = lifecycle.get(name)
        if current and name in recreated and "deletionTimestamp" in current["metadata"]:
            continue  # the stamp would be that of another lifetime
        if current is None or "deletionTimestamp" in current["metadata"]:
            assert row is None or row[3] is not None, f"{name} is gone, and its row is open"
            assert row is None or not recorded, f"{name} is gone, and {recorded} is on"
        else:
            assert row is not None, f"{name} lives, and has no row"
            if row[3] is None and name not in recreated:
                observed = set(current["spec"].get("packages") or [])
                assert recorded == observed, f"{name} shows {observed}, and {recorded} is recorded"
                suspend = current["spec"].get("suspend")
                suspended = suspend if suspend is not None else bool(current.get("status", {}).get("suspendedAt"))
                kind = suspensions.get(name, (None, None, "resumed"))[2]
                assert suspended is (kind == "suspended"), f"{name}: suspended is {suspended}, {kind} is recorded"
