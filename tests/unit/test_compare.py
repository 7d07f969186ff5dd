from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from reconciler.core.compare import RULES, compare
from reconciler.core.model import FIRST, LAST, UNKNOWN_ORG, Action, Event, Finding, Observed, Recorded
from reconciler.core.reasons import CORRECTING, Reason
from tests.support.sides import (
    BORN,
    DAY,
    DISABLED,
    ENABLED,
    HOUR,
    NOW,
    RESUMED,
    SECOND,
    SUSPENDED,
    ledger,
    live,
    pairs,
    row,
)

ACTION = {
    Reason.TENANT_UNRECORDED: Action.INSERT,
    Reason.TENANT_RECREATED: Action.REPORT,
    Reason.TENANT_UNREADABLE: Action.REPORT,
    Reason.DELETION_UNRECORDED: Action.STAMP,
    Reason.DELETION_CONTRADICTED: Action.REPORT,
    Reason.SKILL_ENABLE_UNRECORDED: Action.APPEND,
    Reason.SKILL_DISABLE_UNRECORDED: Action.APPEND,
    Reason.SKILL_OPEN_AFTER_DELETION: Action.APPEND,
    Reason.SUSPENSION_UNRECORDED: Action.APPEND,
    Reason.RESUMPTION_UNRECORDED: Action.APPEND,
    Reason.ORG_RESOLVED: Action.UPDATE,
    Reason.ORG_UNLABELLED: Action.REPORT,
    Reason.ORG_MOVED: Action.REPORT,
    Reason.EVENTS_WITHOUT_TENANT: Action.REPORT,
    Reason.EVENT_TIME_INVALID: Action.REPORT,
}

STATES = {
    Reason.TENANT_UNRECORDED: ("absent", "open"),
    Reason.TENANT_RECREATED: ("deleted", "recreated"),
    Reason.DELETION_UNRECORDED: ("open", "deleted"),
    Reason.DELETION_CONTRADICTED: ("deleted", "live"),
    Reason.SKILL_ENABLE_UNRECORDED: ("disabled", "enabled"),
    Reason.SKILL_DISABLE_UNRECORDED: ("enabled", "disabled"),
    Reason.SKILL_OPEN_AFTER_DELETION: ("enabled", "disabled"),
    Reason.SUSPENSION_UNRECORDED: ("running", "suspended"),
    Reason.RESUMPTION_UNRECORDED: ("suspended", "running"),
    Reason.EVENTS_WITHOUT_TENANT: ("events", "absent"),
}

GONE = None
"""What the whole list shows of a tenant that is not in it."""
DELETING = live(deleting_at=NOW - HOUR)
PROBLEM = "Expected array, got str - at spec.packages"
UNREADABLE = Observed(name="acme", problem=PROBLEM)
CLOSED = row(deleted_at=NOW - DAY)
NEW = live(created_at=NOW - HOUR)
FUTURE = Event(9, "enabled", NOW + SECOND)

Row = tuple[Observed | None, Recorded, list[Finding]]


def found(reason: Reason, *, org: str = "2871", **fields: Any) -> Finding:
    """Return the finding that the table names for a reason."""
    recorded, observed = STATES.get(reason, (None, None))
    states = {"recorded": recorded, "observed": observed}
    return Finding(reason=reason, tenant="acme", org=org, action=ACTION[reason], **states | fields)


def enabled(skill: str, supersedes: Event | None = None, **fields: Any) -> Finding:
    return found(Reason.SKILL_ENABLE_UNRECORDED, subject=skill, supersedes=supersedes, **fields)


def disabled(skill: str, supersedes: Event, **fields: Any) -> Finding:
    return found(Reason.SKILL_DISABLE_UNRECORDED, subject=skill, supersedes=supersedes, **fields)


def closed(skill: str, supersedes: Event, **fields: Any) -> Finding:
    return found(Reason.SKILL_OPEN_AFTER_DELETION, subject=skill, supersedes=supersedes, **fields)


def unreadable(recorded: str, observed: str = PROBLEM, **fields: Any) -> Finding:
    return found(Reason.TENANT_UNREADABLE, recorded=recorded, observed=observed, **fields)


def unlabelled(recorded: str | None) -> Finding:
    return found(Reason.ORG_UNLABELLED, org=UNKNOWN_ORG, recorded=recorded, observed=None)


def untimely(event: Event, subject: str | None = None, **fields: Any) -> Finding:
    said = f"{event.kind} at {event.occurred_at:%Y-%m-%dT%H:%M:%SZ}"
    return found(Reason.EVENT_TIME_INVALID, subject=subject, supersedes=event, recorded=said, observed=None, **fields)


INSERT = found(Reason.TENANT_UNRECORDED)
STAMP = found(Reason.DELETION_UNRECORDED)
RECREATED = found(Reason.TENANT_RECREATED)
CONTRADICTED = found(Reason.DELETION_CONTRADICTED)

LIFECYCLES: dict[str, Row] = {
    "a live tenant without a row is inserted": (live(), ledger(None), [INSERT]),
    "a live tenant without a row is inserted, then compared as if it were open": (
        live(packages=("a", "b"), suspended=True),
        ledger(None),
        [INSERT, enabled("a"), enabled("b"), found(Reason.SUSPENSION_UNRECORDED)],
    ),
    "a live tenant without a row keeps what its events say already": (
        live(packages=("a", "b"), suspended=False),
        ledger(None, skills={"a": ENABLED, "c": ENABLED}, suspension=SUSPENDED),
        [
            INSERT,
            enabled("b"),
            disabled("c", ENABLED),
            found(Reason.RESUMPTION_UNRECORDED, supersedes=SUSPENDED),
        ],
    ),
    "a live tenant with an open row is as recorded": (live(), ledger(), []),
    "a live tenant with all its state recorded is as recorded": (
        live(packages=("a",), suspended=True),
        ledger(skills={"a": ENABLED, "b": DISABLED}, suspension=SUSPENDED),
        [],
    ),
    "a live tenant that began after its row was closed is reported as recreated": (NEW, ledger(CLOSED), [RECREATED]),
    "a live tenant that began before its row was closed contradicts the deletion": (
        live(),
        ledger(CLOSED),
        [CONTRADICTED],
    ),
    "a live tenant that began when its row was closed contradicts the deletion": (
        live(created_at=NOW - DAY),
        ledger(CLOSED),
        [CONTRADICTED],
    ),
    "a live tenant whose row was closed infinitely late contradicts the deletion": (
        live(),
        ledger(row(deleted_at=LAST)),
        [CONTRADICTED],
    ),
    "a live tenant whose row is closed is not compared any further": (
        live(packages=("a",), suspended=True, org="other"),
        ledger(CLOSED, skills={"b": ENABLED}),
        [CONTRADICTED._replace(org="other")],
    ),
    "a recreated tenant is not compared any further": (
        live(created_at=NOW - HOUR, packages=("a",)),
        ledger(CLOSED, skills={"b": ENABLED}, suspension=SUSPENDED),
        [RECREATED],
    ),
    "a tenant being deleted without a row is inserted and stamped": (DELETING, ledger(None), [INSERT, STAMP]),
    "a tenant being deleted without a row is closed at once, with the skills that its events left on": (
        DELETING,
        ledger(None, skills={"a": ENABLED, "b": DISABLED}),
        [INSERT, STAMP, closed("a", ENABLED)],
    ),
    "a tenant being deleted with an open row is stamped": (DELETING, ledger(), [STAMP]),
    "an absent tenant with an open row is stamped": (GONE, ledger(), [STAMP]),
    "an absent tenant with a closed row is as recorded": (GONE, ledger(CLOSED), []),
    "a tenant being deleted with a closed row is as recorded": (DELETING, ledger(CLOSED), []),
    "an unreadable tenant without a row is reported": (UNREADABLE, ledger(None), [unreadable("absent", org="unknown")]),
    "an unreadable tenant with an open row is reported": (UNREADABLE, ledger(), [unreadable("open")]),
    "an unreadable tenant with a closed row is reported": (UNREADABLE, ledger(CLOSED), [unreadable("deleted")]),
    "events without resource and row are reported": (
        GONE,
        ledger(None, skills={"a": ENABLED}),
        [found(Reason.EVENTS_WITHOUT_TENANT, org=UNKNOWN_ORG)],
    ),
    "a suspension without resource and row is reported": (
        GONE,
        ledger(None, suspension=RESUMED),
        [found(Reason.EVENTS_WITHOUT_TENANT, org=UNKNOWN_ORG)],
    ),
}

SKILLS: dict[str, Row] = {
    "a package that is on without any event is recorded as enabled": (
        live(packages=("a",)),
        ledger(),
        [enabled("a")],
    ),
    "a package that is on after a disabled event is recorded as enabled": (
        live(packages=("a",)),
        ledger(skills={"a": DISABLED}),
        [enabled("a", DISABLED)],
    ),
    "a package that is off after an enabled event is recorded as disabled": (
        live(),
        ledger(skills={"a": ENABLED}),
        [disabled("a", ENABLED)],
    ),
    "a package that is off after a disabled event is as recorded": (live(), ledger(skills={"a": DISABLED}), []),
    "skills are told apart by every character": (
        live(packages=("A", "a ")),
        ledger(skills={"a": ENABLED, "a ": ENABLED}),
        [enabled("A"), disabled("a", ENABLED)],
    ),
    "a suspended tenant keeps its skills": (
        live(packages=("a",), suspended=True),
        ledger(suspension=SUSPENDED),
        [enabled("a")],
    ),
    "a skill left on by an absent tenant that is stamped now is closed": (
        GONE,
        ledger(skills={"a": ENABLED, "b": DISABLED, "c": ENABLED}),
        [STAMP, closed("a", ENABLED), closed("c", ENABLED)],
    ),
    "a skill left on by a tenant being deleted is closed, whatever its packages say": (
        DELETING._replace(packages=("a", "b")),
        ledger(skills={"a": ENABLED}),
        [STAMP, closed("a", ENABLED)],
    ),
    "a skill left on by an absent tenant that was stamped before is closed": (
        GONE,
        ledger(CLOSED, skills={"a": ENABLED}),
        [closed("a", ENABLED)],
    ),
    "a skill left on by a tenant being deleted that was stamped before is closed": (
        DELETING,
        ledger(CLOSED, skills={"a": ENABLED}),
        [closed("a", ENABLED)],
    ),
    "a skill of a tenant that is gone without a row is not closed": (
        GONE,
        ledger(None, skills={"a": ENABLED}),
        [found(Reason.EVENTS_WITHOUT_TENANT, org=UNKNOWN_ORG)],
    ),
}

SUSPENSIONS: dict[str, Row] = {
    "a suspension without any event is recorded": (
        live(suspended=True),
        ledger(),
        [found(Reason.SUSPENSION_UNRECORDED)],
    ),
    "a suspension after a resumption is recorded": (
        live(suspended=True),
        ledger(suspension=RESUMED),
        [found(Reason.SUSPENSION_UNRECORDED, supersedes=RESUMED)],
    ),
    "a suspension after a suspension is as recorded": (live(suspended=True), ledger(suspension=SUSPENDED), []),
    "a running tenant without any event is as recorded": (live(), ledger(), []),
    "a running tenant after a resumption is as recorded": (live(), ledger(suspension=RESUMED), []),
    "a running tenant after a suspension is recorded as resumed": (
        live(),
        ledger(suspension=SUSPENDED),
        [found(Reason.RESUMPTION_UNRECORDED, supersedes=SUSPENDED)],
    ),
    "a tenant that is gone is not resumed": (GONE, ledger(suspension=SUSPENDED), [STAMP]),
    "a tenant being deleted is not suspended": (DELETING._replace(suspended=True), ledger(), [STAMP]),
}

ORGS: dict[str, Row] = {
    "a row of an unknown organisation is resolved by the label": (
        live(),
        ledger(row(org=UNKNOWN_ORG)),
        [found(Reason.ORG_RESOLVED, recorded=UNKNOWN_ORG, observed="2871")],
    ),
    "a live tenant without a label is reported": (live(org=None), ledger(), [unlabelled("2871")]),
    "a live tenant without a label and of an unknown organisation is reported": (
        live(org=None),
        ledger(row(org=UNKNOWN_ORG)),
        [unlabelled(UNKNOWN_ORG)],
    ),
    "a live tenant without a label and without a row is inserted with an unknown organisation": (
        live(org=None, packages=("a",)),
        ledger(None),
        [INSERT._replace(org=UNKNOWN_ORG), unlabelled(None), enabled("a", org=UNKNOWN_ORG)],
    ),
    "a live tenant without a label whose row is closed is reported twice": (
        live(org=None),
        ledger(CLOSED),
        [unlabelled("2871"), CONTRADICTED._replace(org=UNKNOWN_ORG)],
    ),
    "a label that differs from the row is reported, and new events carry the label": (
        live(org="2872", packages=("a",)),
        ledger(),
        [
            found(Reason.ORG_MOVED, org="2872", recorded="2871", observed="2872"),
            enabled("a", org="2872"),
        ],
    ),
    "a label that differs from a closed row is not reported": (
        live(org="2872"),
        ledger(CLOSED),
        [CONTRADICTED._replace(org="2872")],
    ),
    "a tenant being deleted without a label is not reported": (DELETING._replace(org=None), ledger(), [STAMP]),
    "a tenant being deleted without a label and without a row is inserted with an unknown organisation": (
        DELETING._replace(org=None),
        ledger(None),
        [INSERT._replace(org=UNKNOWN_ORG), STAMP._replace(org=UNKNOWN_ORG)],
    ),
    "the rows of a tenant that is gone carry the organisation of its row": (
        DELETING._replace(org="2872"),
        ledger(skills={"a": ENABLED}),
        [STAMP, closed("a", ENABLED)],
    ),
    "the rows of an absent tenant of an unknown organisation stay unknown": (
        GONE,
        ledger(row(org=UNKNOWN_ORG), skills={"a": ENABLED}),
        [STAMP._replace(org=UNKNOWN_ORG), closed("a", ENABLED, org=UNKNOWN_ORG)],
    ),
}

_SUSPENDED_AT_THE_END = Event(9, "suspended", LAST)
_ENABLED_BEFORE_TIME = Event(9, "enabled", FIRST)

TIMES: dict[str, Row] = {
    "an event of this very instant is believed": (
        live(packages=("a",)),
        ledger(skills={"a": Event(9, "enabled", NOW)}),
        [],
    ),
    "a future event that agrees with the resource is reported": (
        live(packages=("a",)),
        ledger(skills={"a": FUTURE}),
        [untimely(FUTURE, "a")],
    ),
    "a future event is left alone while the other keys are corrected": (
        live(packages=("b",), suspended=True),
        ledger(skills={"a": FUTURE, "c": ENABLED}),
        [
            enabled("b"),
            disabled("c", ENABLED),
            found(Reason.SUSPENSION_UNRECORDED),
            untimely(FUTURE, "a"),
        ],
    ),
    "a future disabled event is left alone while its package is on": (
        live(packages=("a",)),
        ledger(skills={"a": FUTURE._replace(kind="disabled")}),
        [untimely(FUTURE._replace(kind="disabled"), "a")],
    ),
    "an infinite suspension is left alone while the skills are corrected": (
        live(packages=("a",)),
        ledger(suspension=_SUSPENDED_AT_THE_END),
        [enabled("a"), untimely(_SUSPENDED_AT_THE_END)],
    ),
    "an event infinitely long ago is left alone": (
        live(),
        ledger(skills={"a": _ENABLED_BEFORE_TIME}),
        [untimely(_ENABLED_BEFORE_TIME, "a")],
    ),
    "a future event of an absent tenant is left alone while the tenant and its other skills are closed": (
        GONE,
        ledger(skills={"a": FUTURE, "b": ENABLED}),
        [STAMP, closed("b", ENABLED), untimely(FUTURE, "a")],
    ),
    "a future event of a tenant deleted long ago is reported": (
        GONE,
        ledger(CLOSED, skills={"a": FUTURE}),
        [untimely(FUTURE, "a")],
    ),
    "a future event of a tenant without resource and row is reported too": (
        GONE,
        ledger(None, skills={"a": FUTURE}),
        [
            found(Reason.EVENTS_WITHOUT_TENANT, org=UNKNOWN_ORG),
            untimely(FUTURE, "a", org=UNKNOWN_ORG),
        ],
    ),
    "a future event of a live tenant whose row is closed is reported too": (
        live(),
        ledger(CLOSED, skills={"a": FUTURE}),
        [CONTRADICTED, untimely(FUTURE, "a")],
    ),
    "a future event of an unreadable tenant is reported beside it": (
        UNREADABLE,
        ledger(skills={"a": FUTURE}),
        [unreadable("open"), untimely(FUTURE, "a")],
    ),
    "a resource from the future is unreadable": (
        live(created_at=NOW + 2 * SECOND, packages=("a",)),
        ledger(),
        [unreadable("open", "metadata.creationTimestamp lies in the future: 2026-06-15T12:00:02Z")],
    ),
    "a deletion in the future is unreadable": (
        live(deleting_at=NOW + HOUR),
        ledger(),
        [unreadable("open", "metadata.deletionTimestamp lies in the future: 2026-06-15T13:00:00Z")],
    ),
    "a resource ahead by no more than the clocks are apart is read": (
        live(created_at=NOW + SECOND),
        ledger(None),
        [INSERT],
    ),
}

UNREADABLE_BEATS: dict[str, Row] = {
    f"unreadable beats: {name}": (
        (observed or live())._replace(problem=PROBLEM),
        recorded,
        [
            unreadable(
                "absent" if recorded.lifecycle is None else "deleted" if recorded.lifecycle.deleted_at else "open",
                org=recorded.lifecycle.org if recorded.lifecycle else UNKNOWN_ORG,
            )
        ],
    )
    for name, (observed, recorded, _) in (LIFECYCLES | SKILLS | SUSPENSIONS | ORGS).items()
}

TABLE = LIFECYCLES | SKILLS | SUSPENSIONS | ORGS | TIMES | UNREADABLE_BEATS


@pytest.mark.parametrize(("observed", "recorded", "expected"), TABLE.values(), ids=TABLE)
def test_the_truth_table(observed: Observed | None, recorded: Recorded, expected: list[Finding]) -> None:
    assert list(compare(observed, recorded, as_of=NOW, tolerance=SECOND)) == expected


def test_every_reason_has_a_row() -> None:
    assert {finding.reason for _, _, expected in TABLE.values() for finding in expected} == set(Reason)


def test_a_reason_that_is_corrected_knows_its_table_and_no_other_does() -> None:
    assert {reason for reason, action in ACTION.items() if action.writes} == set(CORRECTING)


def test_every_rule_says_what_the_fault_is() -> None:
    assert all(rule.__doc__ for rule in RULES)
    assert len({rule.__name__ for rule in RULES}) == len(RULES)


@given(pairs())
def test_every_finding_is_about_its_tenant_and_does_what_its_reason_allows(
    pair: tuple[Observed | None, Recorded],
) -> None:
    for finding in compare(*pair, as_of=NOW):
        assert finding.tenant == "acme"
        assert finding.action is ACTION[finding.reason]
        assert finding.moment is None
        assert (finding.recorded, finding.observed) == STATES.get(finding.reason, (finding.recorded, finding.observed))


@given(pairs())
def test_a_key_is_corrected_once_and_never_after_a_future_event(
    pair: tuple[Observed | None, Recorded],
) -> None:
    findings = list(compare(*pair, as_of=NOW))
    written = [(f.reason.table, f.action, f.subject) for f in findings if f.action.writes]
    assert len(written) == len(set(written))
    for finding in findings:
        if finding.action.writes and finding.supersedes:
            assert FIRST < finding.supersedes.occurred_at <= NOW


@given(pairs())
def test_an_unreadable_tenant_gets_no_other_findings_but_invalid_events(
    pair: tuple[Observed | None, Recorded],
) -> None:
    observed, recorded = pair
    findings = list(compare((observed or live())._replace(problem=PROBLEM), recorded, as_of=NOW))
    assert findings[0].reason is Reason.TENANT_UNREADABLE
    assert {finding.reason for finding in findings[1:]} <= {Reason.EVENT_TIME_INVALID}


@given(pairs())
def test_once_the_findings_are_applied_the_reports_alone_are_left(pair: tuple[Observed | None, Recorded]) -> None:
    observed, recorded = pair
    before = list(compare(observed, recorded, as_of=NOW, tolerance=2 * HOUR))
    after = list(compare(observed, _applied(observed, recorded, before), as_of=NOW, tolerance=2 * HOUR))
    reports = [(finding.reason, finding.subject) for finding in before if not finding.action.writes]
    assert [(finding.reason, finding.subject) for finding in after] == reports


def _applied(observed: Observed | None, recorded: Recorded, findings: list[Finding]) -> Recorded:
    """Return the record as it is once a run has written its corrections."""
    kinds = {
        Reason.SKILL_ENABLE_UNRECORDED: "enabled",
        Reason.SKILL_DISABLE_UNRECORDED: "disabled",
        Reason.SKILL_OPEN_AFTER_DELETION: "disabled",
        Reason.SUSPENSION_UNRECORDED: "suspended",
        Reason.RESUMPTION_UNRECORDED: "resumed",
    }
    for number, finding in enumerate(findings, 100):
        lifecycle = recorded.lifecycle
        match finding.action:
            case Action.INSERT:
                created_at = (observed and observed.created_at) or BORN
                recorded = replace(recorded, lifecycle=row(org=finding.org, created_at=created_at))
            case Action.STAMP if lifecycle:
                recorded = replace(recorded, lifecycle=replace(lifecycle, deleted_at=NOW))
            case Action.UPDATE if lifecycle:
                recorded = replace(recorded, lifecycle=replace(lifecycle, org=finding.org))
            case Action.APPEND:
                event = Event(number, kinds[finding.reason], NOW)
                if finding.subject is None:
                    recorded = replace(recorded, suspension=event)
                else:
                    recorded = replace(recorded, skills={**recorded.skills, finding.subject: event})
    return recorded
