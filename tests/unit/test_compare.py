from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given

from reconciler.core.compare import RULES, compare
from reconciler.core.model import FIRST, LAST, UNKNOWN_ORG, Action, Event, Finding, Observed, Recorded
from reconciler.core.reasons import CORRECTING, Reason
from tests.support.comparison import (
    BORN,
    DAY,
    DISABLED,
    ENABLED,
    HOUR,
    NOW,
    RESUMED,
    SECOND,
    SUSPENDED,
    lifecycle_row,
    live_tenant,
    observed_and_recorded,
    recorded_tenant,
)

ACTION = {
    Reason.TENANT_UNRECORDED: Action.INSERT,
    Reason.TENANT_RECREATED: Action.REPORT,
    Reason.CREATION_MISRECORDED: Action.REPORT,
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
    Reason.HISTORY_CONTRADICTS: Action.REPORT,
    Reason.CLOSED_MONTH_CHANGED: Action.REPORT,
    Reason.CORRECTION_SUPERSEDED: Action.APPEND,
    Reason.RECORDED: Action.APPEND,
    Reason.RETRACTED: Action.APPEND,
    Reason.REOPENED: Action.UPDATE,
    Reason.TENANT_RESTLESS: Action.REPORT,
    Reason.TENANT_PARKED: Action.REPORT,
}

STATES = {
    Reason.TENANT_UNRECORDED: ("absent", "open"),
    Reason.DELETION_UNRECORDED: ("open", "deleted"),
    Reason.DELETION_CONTRADICTED: ("deleted", "live"),
    Reason.SKILL_ENABLE_UNRECORDED: ("disabled", "enabled"),
    Reason.SKILL_DISABLE_UNRECORDED: ("enabled", "disabled"),
    Reason.SKILL_OPEN_AFTER_DELETION: ("enabled", "disabled"),
    Reason.SUSPENSION_UNRECORDED: ("running", "suspended"),
    Reason.RESUMPTION_UNRECORDED: ("suspended", "running"),
    Reason.EVENTS_WITHOUT_TENANT: ("events", "absent"),
}

RECREATED_STATES = {("deleted", "recreated"), ("open", "recreated")}
"""The one reason that has two."""

SETTLE = timedelta(minutes=1)
GONE = None
"""What the whole list shows of a tenant that is not in it."""
DELETING = live_tenant(deleting_at=NOW - HOUR)
PROBLEM = "Expected array, got str - at spec.packages"
UNREADABLE = Observed(name="acme", problem=PROBLEM)
CLOSED = lifecycle_row(deleted_at=NOW - DAY)
NEW = live_tenant(created_at=NOW - HOUR)
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


def closed(skill: str, supersedes: Event | None = None, **fields: Any) -> Finding:
    return found(Reason.SKILL_OPEN_AFTER_DELETION, subject=skill, supersedes=supersedes, **fields)


def unreadable(recorded: str, observed: str = PROBLEM, **fields: Any) -> Finding:
    return found(Reason.TENANT_UNREADABLE, recorded=recorded, observed=observed, **fields)


def unlabelled(recorded: str | None) -> Finding:
    return found(Reason.ORG_UNLABELLED, org=UNKNOWN_ORG, recorded=recorded, observed=None)


def misrecorded(recorded: str, **fields: Any) -> Finding:
    return found(Reason.CREATION_MISRECORDED, recorded=recorded, observed="2026-05-01T08:00:00Z", **fields)


def untimely(event: Event, subject: str | None = None, **fields: Any) -> Finding:
    said = f"{event.kind} at {event.occurred_at:%Y-%m-%dT%H:%M:%SZ}"
    return found(Reason.EVENT_TIME_INVALID, subject=subject, supersedes=event, recorded=said, observed=None, **fields)


INSERT = found(Reason.TENANT_UNRECORDED)
STAMP = found(Reason.DELETION_UNRECORDED)
RECREATED = found(Reason.TENANT_RECREATED, recorded="deleted", observed="recreated")
RECREATED_UNSEEN = found(Reason.TENANT_RECREATED, recorded="open", observed="recreated")
CONTRADICTED = found(Reason.DELETION_CONTRADICTED)

LIFECYCLES: dict[str, Row] = {
    "a live tenant without a row is inserted": (live_tenant(), recorded_tenant(None), [INSERT]),
    "a live tenant without a row is inserted, then compared as if it were open": (
        live_tenant(packages=("a", "b"), suspended=True),
        recorded_tenant(None),
        [INSERT, enabled("a"), enabled("b"), found(Reason.SUSPENSION_UNRECORDED)],
    ),
    "a live tenant without a row keeps what its events say already": (
        live_tenant(packages=("a", "b"), suspended=False),
        recorded_tenant(None, skills={"a": ENABLED, "c": ENABLED}, suspension=SUSPENDED),
        [
            INSERT,
            enabled("b"),
            disabled("c", ENABLED),
            found(Reason.RESUMPTION_UNRECORDED, supersedes=SUSPENDED),
        ],
    ),
    "a live tenant with an open row is as recorded": (live_tenant(), recorded_tenant(), []),
    "a live tenant with all its state recorded is as recorded": (
        live_tenant(packages=("a",), suspended=True),
        recorded_tenant(skills={"a": ENABLED, "b": DISABLED}, suspension=SUSPENDED),
        [],
    ),
    "a live tenant that began after its row was closed is reported as recreated": (
        NEW,
        recorded_tenant(CLOSED),
        [RECREATED],
    ),
    "a live tenant that began before its row was closed contradicts the deletion": (
        live_tenant(),
        recorded_tenant(CLOSED),
        [CONTRADICTED],
    ),
    "a live tenant that began when its row was closed contradicts the deletion": (
        live_tenant(created_at=NOW - DAY),
        recorded_tenant(CLOSED),
        [CONTRADICTED],
    ),
    "a live tenant whose row was closed infinitely late contradicts the deletion": (
        live_tenant(),
        recorded_tenant(lifecycle_row(deleted_at=LAST)),
        [CONTRADICTED],
    ),
    "a live tenant whose row is closed is not compared any further": (
        live_tenant(packages=("a",), suspended=True, org="other"),
        recorded_tenant(CLOSED, skills={"b": ENABLED}),
        [CONTRADICTED._replace(org="other")],
    ),
    "a recreated tenant is not compared any further": (
        live_tenant(created_at=NOW - HOUR, packages=("a",)),
        recorded_tenant(CLOSED, skills={"b": ENABLED}, suspension=SUSPENDED),
        [RECREATED],
    ),
    "a tenant being deleted without a row is inserted and stamped": (DELETING, recorded_tenant(None), [INSERT, STAMP]),
    "a tenant being deleted without a row is closed at once, with the skills that its events left on": (
        DELETING,
        recorded_tenant(None, skills={"a": ENABLED, "b": DISABLED}),
        [INSERT, STAMP, closed("a", ENABLED)],
    ),
    "a tenant being deleted with an open row is stamped": (DELETING, recorded_tenant(), [STAMP]),
    "an absent tenant with an open row is stamped": (GONE, recorded_tenant(), [STAMP]),
    "an absent tenant with a closed row is as recorded": (GONE, recorded_tenant(CLOSED), []),
    "a tenant being deleted with a closed row is as recorded": (DELETING, recorded_tenant(CLOSED), []),
    "an unreadable tenant without a row is reported": (
        UNREADABLE,
        recorded_tenant(None),
        [unreadable("absent", org="unknown")],
    ),
    "an unreadable tenant with an open row is reported": (UNREADABLE, recorded_tenant(), [unreadable("open")]),
    "an unreadable tenant with a closed row is reported": (
        UNREADABLE,
        recorded_tenant(CLOSED),
        [unreadable("deleted")],
    ),
    "events without resource and row are reported": (
        GONE,
        recorded_tenant(None, skills={"a": ENABLED}),
        [found(Reason.EVENTS_WITHOUT_TENANT, org=UNKNOWN_ORG)],
    ),
    "a suspension without resource and row is reported": (
        GONE,
        recorded_tenant(None, suspension=RESUMED),
        [found(Reason.EVENTS_WITHOUT_TENANT, org=UNKNOWN_ORG)],
    ),
}

STARTS: dict[str, Row] = {
    "a live tenant created later than its row by settle and the tolerance is the row's own": (
        live_tenant(created_at=BORN + SETTLE + SECOND),
        recorded_tenant(),
        [],
    ),
    "a live tenant created later than its row by more than settle is reported as recreated": (
        live_tenant(created_at=BORN + SETTLE + 2 * SECOND),
        recorded_tenant(),
        [RECREATED_UNSEEN],
    ),
    "a live tenant created when its row begins is the row's own, whoever had its name before": (
        live_tenant(),
        recorded_tenant(follows=True),
        [],
    ),
    "a live tenant whose name had another uid before is reported as recreated": (
        live_tenant(created_at=BORN + SECOND),
        recorded_tenant(follows=True),
        [RECREATED_UNSEEN],
    ),
    "a live tenant whose name had another uid before its row was closed is reported as such": (
        NEW,
        recorded_tenant(CLOSED, follows=True),
        [RECREATED],
    ),
    "a live tenant whose name had another uid before, and no row, is inserted": (
        live_tenant(),
        recorded_tenant(None, follows=True),
        [INSERT],
    ),
    "a live tenant that was taken for the one of its row is compared, however late it was created": (
        live_tenant(created_at=NOW - HOUR, packages=("a",)),
        recorded_tenant(continues=True),
        [enabled("a")],
    ),
    "a recreated tenant whose row is open is not compared any further": (
        live_tenant(created_at=NOW - HOUR, packages=("a",), suspended=True, org="2872"),
        recorded_tenant(skills={"b": ENABLED}),
        [RECREATED_UNSEEN._replace(org="2872")],
    ),
    "a recreated tenant whose row is open and of an unknown organisation is not resolved": (
        live_tenant(created_at=NOW - HOUR),
        recorded_tenant(lifecycle_row(org=UNKNOWN_ORG), suspension=SUSPENDED),
        [RECREATED_UNSEEN],
    ),
    "a live tenant created earlier than its row by settle and the tolerance is as recorded": (
        live_tenant(),
        recorded_tenant(lifecycle_row(created_at=BORN + SETTLE + SECOND)),
        [],
    ),
    "a live tenant created earlier than its row by more than settle is reported, and compared": (
        live_tenant(packages=("a",)),
        recorded_tenant(lifecycle_row(created_at=BORN + SETTLE + 2 * SECOND)),
        [enabled("a"), misrecorded("2026-05-01T08:01:02Z")],
    ),
    "a live tenant of another uid than before is not reported as older, too": (
        live_tenant(),
        recorded_tenant(lifecycle_row(created_at=BORN + HOUR), follows=True),
        [RECREATED_UNSEEN],
    ),
    "a live tenant created earlier than its row is reported with the organisation of its label": (
        live_tenant(org=None),
        recorded_tenant(lifecycle_row(created_at=BORN + HOUR)),
        [unlabelled("2871"), misrecorded("2026-05-01T09:00:00Z", org=UNKNOWN_ORG)],
    ),
    "a live tenant created earlier than its closed row contradicts the deletion alone": (
        live_tenant(),
        recorded_tenant(lifecycle_row(created_at=BORN + HOUR, deleted_at=NOW - DAY)),
        [CONTRADICTED],
    ),
    "a recreated tenant that is being deleted is reported, and not stamped": (
        live_tenant(created_at=NOW - DAY, deleting_at=NOW - HOUR, packages=("a",)),
        recorded_tenant(skills={"b": ENABLED}),
        [RECREATED_UNSEEN],
    ),
    "a tenant being deleted whose name had another uid before is reported, and not stamped": (
        live_tenant(created_at=BORN + SECOND, deleting_at=NOW - HOUR),
        recorded_tenant(follows=True),
        [RECREATED_UNSEEN],
    ),
    "a tenant being deleted that was reopened is stamped": (
        DELETING,
        recorded_tenant(follows=True),
        [STAMP],
    ),
    "a tenant being deleted that was created earlier than its row is stamped": (
        DELETING,
        recorded_tenant(lifecycle_row(created_at=BORN + HOUR)),
        [STAMP],
    ),
    "an absent tenant whose name had another uid before is stamped": (GONE, recorded_tenant(follows=True), [STAMP]),
}

SKILLS: dict[str, Row] = {
    "a package that is on without any event is recorded as enabled": (
        live_tenant(packages=("a",)),
        recorded_tenant(),
        [enabled("a")],
    ),
    "a package that is on after a disabled event is recorded as enabled": (
        live_tenant(packages=("a",)),
        recorded_tenant(skills={"a": DISABLED}),
        [enabled("a", DISABLED)],
    ),
    "a package that is off after an enabled event is recorded as disabled": (
        live_tenant(),
        recorded_tenant(skills={"a": ENABLED}),
        [disabled("a", ENABLED)],
    ),
    "a package that is off after a disabled event is as recorded": (
        live_tenant(),
        recorded_tenant(skills={"a": DISABLED}),
        [],
    ),
    "skills are told apart by every character": (
        live_tenant(packages=("A", "a ")),
        recorded_tenant(skills={"a": ENABLED, "a ": ENABLED}),
        [enabled("A"), disabled("a", ENABLED)],
    ),
    "a suspended tenant keeps its skills": (
        live_tenant(packages=("a",), suspended=True),
        recorded_tenant(suspension=SUSPENDED),
        [enabled("a")],
    ),
    "a skill left on by an absent tenant that is stamped now is closed": (
        GONE,
        recorded_tenant(skills={"a": ENABLED, "b": DISABLED, "c": ENABLED}),
        [STAMP, closed("a", ENABLED), closed("c", ENABLED)],
    ),
    "a skill left on by a tenant being deleted is closed, whatever its packages say": (
        DELETING,
        recorded_tenant(skills={"a": ENABLED}),
        [STAMP, closed("a", ENABLED)],
    ),
    "a package of a tenant being deleted that was never recorded is enabled and closed": (
        DELETING._replace(packages=("a", "b", "c")),
        recorded_tenant(skills={"a": ENABLED}),
        [STAMP, enabled("b"), closed("b"), enabled("c"), closed("c"), closed("a", ENABLED)],
    ),
    "a package of a tenant being deleted that was recorded as off stays off": (
        DELETING._replace(packages=("a",)),
        recorded_tenant(skills={"a": DISABLED}),
        [STAMP],
    ),
    "a package of a tenant being deleted that was stamped before is not enabled": (
        DELETING._replace(packages=("a",)),
        recorded_tenant(CLOSED),
        [],
    ),
    "a package of a tenant being deleted without a row is enabled and closed": (
        DELETING._replace(packages=("a",)),
        recorded_tenant(None),
        [INSERT, STAMP, enabled("a"), closed("a")],
    ),
    "a skill left on by an absent tenant that was stamped before is closed": (
        GONE,
        recorded_tenant(CLOSED, skills={"a": ENABLED}),
        [closed("a", ENABLED)],
    ),
    "a skill left on by a tenant being deleted that was stamped before is closed": (
        DELETING,
        recorded_tenant(CLOSED, skills={"a": ENABLED}),
        [closed("a", ENABLED)],
    ),
    "a skill of a tenant that is gone without a row is not closed": (
        GONE,
        recorded_tenant(None, skills={"a": ENABLED}),
        [found(Reason.EVENTS_WITHOUT_TENANT, org=UNKNOWN_ORG)],
    ),
}

SUSPENSIONS: dict[str, Row] = {
    "a suspension without any event is recorded": (
        live_tenant(suspended=True),
        recorded_tenant(),
        [found(Reason.SUSPENSION_UNRECORDED)],
    ),
    "a suspension after a resumption is recorded": (
        live_tenant(suspended=True),
        recorded_tenant(suspension=RESUMED),
        [found(Reason.SUSPENSION_UNRECORDED, supersedes=RESUMED)],
    ),
    "a suspension after a suspension is as recorded": (
        live_tenant(suspended=True),
        recorded_tenant(suspension=SUSPENDED),
        [],
    ),
    "a running tenant without any event is as recorded": (live_tenant(), recorded_tenant(), []),
    "a running tenant after a resumption is as recorded": (live_tenant(), recorded_tenant(suspension=RESUMED), []),
    "a running tenant after a suspension is recorded as resumed": (
        live_tenant(),
        recorded_tenant(suspension=SUSPENDED),
        [found(Reason.RESUMPTION_UNRECORDED, supersedes=SUSPENDED)],
    ),
    "a tenant that is gone is not resumed": (GONE, recorded_tenant(suspension=SUSPENDED), [STAMP]),
    "a tenant being deleted is not suspended": (DELETING._replace(suspended=True), recorded_tenant(), [STAMP]),
}

ORGS: dict[str, Row] = {
    "a row of an unknown organisation is resolved by the label": (
        live_tenant(),
        recorded_tenant(lifecycle_row(org=UNKNOWN_ORG)),
        [found(Reason.ORG_RESOLVED, recorded=UNKNOWN_ORG, observed="2871")],
    ),
    "a live tenant without a label is reported": (live_tenant(org=None), recorded_tenant(), [unlabelled("2871")]),
    "a live tenant without a label and of an unknown organisation is reported": (
        live_tenant(org=None),
        recorded_tenant(lifecycle_row(org=UNKNOWN_ORG)),
        [unlabelled(UNKNOWN_ORG)],
    ),
    "a live tenant without a label and without a row is inserted with an unknown organisation": (
        live_tenant(org=None, packages=("a",)),
        recorded_tenant(None),
        [INSERT._replace(org=UNKNOWN_ORG), unlabelled(None), enabled("a", org=UNKNOWN_ORG)],
    ),
    "a live tenant without a label whose row is closed is reported twice": (
        live_tenant(org=None),
        recorded_tenant(CLOSED),
        [unlabelled("2871"), CONTRADICTED._replace(org=UNKNOWN_ORG)],
    ),
    "a label that differs from the row is reported, and new events carry the label": (
        live_tenant(org="2872", packages=("a",)),
        recorded_tenant(),
        [
            found(Reason.ORG_MOVED, org="2872", recorded="2871", observed="2872"),
            enabled("a", org="2872"),
        ],
    ),
    "a label that differs from a row without an organisation is reported": (
        live_tenant(org="2872"),
        recorded_tenant(lifecycle_row(org="")),
        [found(Reason.ORG_MOVED, org="2872", recorded="", observed="2872")],
    ),
    "a label of whom a person decided that it pays today is not reported": (
        live_tenant(org="2872", packages=("a",)),
        recorded_tenant(payer="2872"),
        [enabled("a", org="2872")],
    ),
    "a label that differs from whom a person decided on is reported": (
        live_tenant(),
        recorded_tenant(payer="2872"),
        [found(Reason.ORG_MOVED, recorded="2872", observed="2871")],
    ),
    "a row without a known organisation is resolved, whoever pays today": (
        live_tenant(),
        recorded_tenant(lifecycle_row(org=UNKNOWN_ORG), payer="2871"),
        [found(Reason.ORG_RESOLVED, recorded=UNKNOWN_ORG, observed="2871")],
    ),
    "a row without a known organisation is resolved, and whoever else pays today is reported": (
        live_tenant(),
        recorded_tenant(lifecycle_row(org=UNKNOWN_ORG), payer="2872"),
        [
            found(Reason.ORG_RESOLVED, recorded=UNKNOWN_ORG, observed="2871"),
            found(Reason.ORG_MOVED, recorded="2872", observed="2871"),
        ],
    ),
    "a label that differs from a closed row is not reported": (
        live_tenant(org="2872"),
        recorded_tenant(CLOSED),
        [CONTRADICTED._replace(org="2872")],
    ),
    "a tenant being deleted without a label is not reported": (DELETING._replace(org=None), recorded_tenant(), [STAMP]),
    "a tenant being deleted without a label and without a row is inserted with an unknown organisation": (
        DELETING._replace(org=None),
        recorded_tenant(None),
        [INSERT._replace(org=UNKNOWN_ORG), STAMP._replace(org=UNKNOWN_ORG)],
    ),
    "the rows of a tenant that is gone carry the organisation of its row": (
        DELETING._replace(org="2872"),
        recorded_tenant(skills={"a": ENABLED}),
        [STAMP, closed("a", ENABLED)],
    ),
    "the rows of an absent tenant of an unknown organisation stay unknown": (
        GONE,
        recorded_tenant(lifecycle_row(org=UNKNOWN_ORG), skills={"a": ENABLED}),
        [STAMP._replace(org=UNKNOWN_ORG), closed("a", ENABLED, org=UNKNOWN_ORG)],
    ),
}

_SUSPENDED_AT_THE_END = Event(9, "suspended", LAST)
_ENABLED_BEFORE_TIME = Event(9, "enabled", FIRST)

TIMES: dict[str, Row] = {
    "an event of this very instant is believed": (
        live_tenant(packages=("a",)),
        recorded_tenant(skills={"a": Event(9, "enabled", NOW)}),
        [],
    ),
    "a future event that agrees with the resource is reported": (
        live_tenant(packages=("a",)),
        recorded_tenant(skills={"a": FUTURE}),
        [untimely(FUTURE, "a")],
    ),
    "a future event is left alone while the other keys are corrected": (
        live_tenant(packages=("b",), suspended=True),
        recorded_tenant(skills={"a": FUTURE, "c": ENABLED}),
        [
            enabled("b"),
            disabled("c", ENABLED),
            found(Reason.SUSPENSION_UNRECORDED),
            untimely(FUTURE, "a"),
        ],
    ),
    "a future disabled event is left alone while its package is on": (
        live_tenant(packages=("a",)),
        recorded_tenant(skills={"a": FUTURE._replace(kind="disabled")}),
        [untimely(FUTURE._replace(kind="disabled"), "a")],
    ),
    "an infinite suspension is left alone while the skills are corrected": (
        live_tenant(packages=("a",)),
        recorded_tenant(suspension=_SUSPENDED_AT_THE_END),
        [enabled("a"), untimely(_SUSPENDED_AT_THE_END)],
    ),
    "an event infinitely long ago is left alone": (
        live_tenant(),
        recorded_tenant(skills={"a": _ENABLED_BEFORE_TIME}),
        [untimely(_ENABLED_BEFORE_TIME, "a")],
    ),
    "a future event of an absent tenant is left alone while the tenant and its other skills are closed": (
        GONE,
        recorded_tenant(skills={"a": FUTURE, "b": ENABLED}),
        [STAMP, closed("b", ENABLED), untimely(FUTURE, "a")],
    ),
    "a future event of a tenant deleted long ago is reported": (
        GONE,
        recorded_tenant(CLOSED, skills={"a": FUTURE}),
        [untimely(FUTURE, "a")],
    ),
    "a future event of a tenant without resource and row is reported too": (
        GONE,
        recorded_tenant(None, skills={"a": FUTURE}),
        [
            found(Reason.EVENTS_WITHOUT_TENANT, org=UNKNOWN_ORG),
            untimely(FUTURE, "a", org=UNKNOWN_ORG),
        ],
    ),
    "a future event of a live tenant whose row is closed is reported too": (
        live_tenant(),
        recorded_tenant(CLOSED, skills={"a": FUTURE}),
        [CONTRADICTED, untimely(FUTURE, "a")],
    ),
    "a future event of an unreadable tenant is reported beside it": (
        UNREADABLE,
        recorded_tenant(skills={"a": FUTURE}),
        [unreadable("open"), untimely(FUTURE, "a")],
    ),
    "a resource from the future is unreadable": (
        live_tenant(created_at=NOW + 2 * SECOND, packages=("a",)),
        recorded_tenant(),
        [unreadable("open", "metadata.creationTimestamp lies in the future: 2026-06-15T12:00:02Z")],
    ),
    "a deletion in the future is unreadable": (
        live_tenant(deleting_at=NOW + HOUR),
        recorded_tenant(),
        [unreadable("open", "metadata.deletionTimestamp lies in the future: 2026-06-15T13:00:00Z")],
    ),
    "a resource ahead by no more than the clocks are apart is read": (
        live_tenant(created_at=NOW + SECOND),
        recorded_tenant(None),
        [INSERT],
    ),
}

TOO_LONG: dict[str, Row] = {
    "a record that is too long parks its tenant, and is all that is found": (
        live_tenant(packages=("a",), org=None, problem=PROBLEM),
        replace(recorded_tenant(), problem="it is too long"),
        [Finding(Reason.TENANT_PARKED, "acme", "2871", Action.REPORT, observed="it is too long")],
    ),
}

UNREADABLE_BEATS: dict[str, Row] = {
    f"unreadable beats: {name}": (
        (observed or live_tenant())._replace(problem=PROBLEM),
        recorded,
        [
            unreadable(
                "absent" if recorded.lifecycle is None else "deleted" if recorded.lifecycle.deleted_at else "open",
                org=recorded.lifecycle.org if recorded.lifecycle else UNKNOWN_ORG,
            )
        ],
    )
    for name, (observed, recorded, _) in (LIFECYCLES | STARTS | SKILLS | SUSPENSIONS | ORGS).items()
}

TABLE = LIFECYCLES | STARTS | SKILLS | SUSPENSIONS | ORGS | TIMES | TOO_LONG | UNREADABLE_BEATS


@pytest.mark.parametrize(("observed", "recorded", "expected"), TABLE.values(), ids=TABLE)
def test_the_truth_table(observed: Observed | None, recorded: Recorded, expected: list[Finding]) -> None:
    assert list(compare(observed, recorded, as_of=NOW, tolerance=SECOND, settle=SETTLE)) == expected


def test_every_reason_has_a_row() -> None:
    found_later = {Reason.TENANT_RESTLESS, Reason.HISTORY_CONTRADICTS, Reason.CORRECTION_SUPERSEDED}
    found_later.add(Reason.CLOSED_MONTH_CHANGED)
    found_by_a_look = set(Reason) - found_later - {Reason.RECORDED, Reason.RETRACTED, Reason.REOPENED}
    assert {finding.reason for _, _, expected in TABLE.values() for finding in expected} == found_by_a_look


def test_a_reason_that_is_corrected_knows_its_table_and_no_other_does() -> None:
    assert {reason for reason, action in ACTION.items() if action.writes} == set(CORRECTING)


def test_every_rule_says_what_the_fault_is() -> None:
    assert all(rule.__doc__ for rule in RULES)
    assert len({rule.__name__ for rule in RULES}) == len(RULES)


@given(observed_and_recorded())
def test_every_finding_is_about_its_tenant_and_does_what_its_reason_allows(
    pair: tuple[Observed | None, Recorded],
) -> None:
    for finding in compare(*pair, as_of=NOW):
        assert finding.tenant == "acme"
        assert finding.action is ACTION[finding.reason]
        assert finding.moment is None
        states = finding.recorded, finding.observed
        if finding.reason is Reason.TENANT_RECREATED:
            assert states in RECREATED_STATES
        else:
            assert states == STATES.get(finding.reason, states)


@given(observed_and_recorded())
def test_a_key_is_corrected_once_and_never_after_a_future_event(
    pair: tuple[Observed | None, Recorded],
) -> None:
    findings = list(compare(*pair, as_of=NOW))
    written = [(f.reason.table, f.action, f.subject, f.observed) for f in findings if f.action.writes]
    assert len(written) == len(set(written))
    for finding in findings:
        if finding.action.writes and finding.supersedes:
            assert FIRST < finding.supersedes.occurred_at <= NOW


@given(observed_and_recorded())
def test_an_unreadable_tenant_gets_no_other_findings_but_invalid_events(
    pair: tuple[Observed | None, Recorded],
) -> None:
    observed, recorded = pair
    findings = list(compare((observed or live_tenant())._replace(problem=PROBLEM), recorded, as_of=NOW))
    assert findings[0].reason is Reason.TENANT_UNREADABLE
    assert {finding.reason for finding in findings[1:]} <= {Reason.EVENT_TIME_INVALID}


@given(observed_and_recorded())
def test_nothing_is_written_about_a_recreated_tenant(
    pair: tuple[Observed | None, Recorded],
) -> None:
    findings = list(compare(*pair, as_of=NOW, settle=SETTLE))
    if Reason.TENANT_RECREATED in {finding.reason for finding in findings}:
        assert not any(finding.action.writes for finding in findings)


@given(observed_and_recorded())
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
                recorded = replace(
                    recorded, lifecycle=lifecycle_row(org=finding.org, created_at=created_at), follows=False
                )
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
