from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.compare import compare
from reconciler.core.dating import Dating
from reconciler.core.model import (
    Action,
    Event,
    Evidence,
    FallbackDating,
    Finding,
    Moment,
    Observed,
    Recorded,
)
from reconciler.core.reasons import Reason
from tests.support.comparison import (
    BORN,
    DAY,
    DISABLED,
    ENABLED,
    HOUR,
    NOW,
    SECOND,
    SUSPENDED,
    lifecycle_row,
    live_tenant,
    observed_and_recorded,
    recorded_tenant,
)

Candidate = tuple[Observed | None, Recorded]

CREATED = Reason.TENANT_UNRECORDED
DELETED = Reason.DELETION_UNRECORDED
ENABLE = Reason.SKILL_ENABLE_UNRECORDED
DISABLE = Reason.SKILL_DISABLE_UNRECORDED
CLOSE = Reason.SKILL_OPEN_AFTER_DELETION
SUSPEND = Reason.SUSPENSION_UNRECORDED
RESUME = Reason.RESUMPTION_UNRECORDED

STARTS_TO_COST = {ENABLE, RESUME}
STOPS_COSTING = {DELETED, DISABLE, CLOSE, SUSPEND}
CUSTOMER, DETECTED = FallbackDating.CUSTOMER, FallbackDating.DETECTED

VERIFIED = BORN + 20 * DAY
WRITTEN = BORN + 30 * DAY
INSTANT = timedelta(microseconds=1)


def dated(observed: Observed | None, recorded: Recorded, dating: Dating = Dating(observed_at=NOW)) -> list[Finding]:  # noqa: B008 - it is frozen
    """Return what a run finds of a tenant, with the moments."""
    return list(dating.dated(compare(observed, recorded, as_of=NOW, tolerance=dating.tolerance), observed, recorded))


def moment(reason: Reason, observed: Observed | None, recorded: Recorded, **dating: object) -> Moment | None:
    """Return the moment of the one finding of this reason."""
    findings = dated(observed, recorded, replace(Dating(observed_at=NOW), **dating))  # type: ignore[arg-type]
    (found,) = [finding for finding in findings if finding.reason is reason]
    return found.moment


def exactly(evidence: Evidence, at: datetime) -> Moment:
    return Moment(at, at, at, evidence)


def proved(evidence: Evidence, at: datetime, not_before: datetime) -> Moment:
    """Return what an upper bound proves: the change came no later, and is dated there."""
    return Moment(at, not_before, at, evidence)


class Drift(NamedTuple):
    """A correction of an open tenant's key, and the resource's time that could prove it."""

    observed: Observed
    recorded: Recorded
    field: str
    evidence: Evidence


DRIFTS = {
    ENABLE: Drift(live_tenant(packages=("a",)), recorded_tenant(), "packages_written_at", Evidence.FIELD_MANAGER),
    DISABLE: Drift(
        live_tenant(), recorded_tenant(skills={"a": ENABLED}), "packages_written_at", Evidence.FIELD_MANAGER
    ),
    SUSPEND: Drift(live_tenant(suspended=True), recorded_tenant(), "suspend_written_at", Evidence.FIELD_MANAGER),
    RESUME: Drift(live_tenant(), recorded_tenant(suspension=SUSPENDED), "suspend_written_at", Evidence.FIELD_MANAGER),
}
DRIFTS_OF = pytest.mark.parametrize("reason", DRIFTS)


@pytest.mark.parametrize("generation", [None, 1, 7])
def test_a_tenant_is_recorded_from_its_creation(generation: int | None) -> None:
    observed = live_tenant(generation=generation)
    assert moment(CREATED, observed, recorded_tenant(None)) == exactly(Evidence.CREATION, BORN)


def test_a_creation_in_the_future_is_dated_at_the_observation() -> None:
    observed = live_tenant(created_at=NOW + HOUR)
    assert moment(CREATED, observed, recorded_tenant(None), tolerance=HOUR) == exactly(Evidence.CREATION, NOW)


def test_an_earlier_run_does_not_move_a_creation() -> None:
    """A run of another cluster, say: the tenant is inserted with its own creationTimestamp."""
    observed = live_tenant(packages=("a",), generation=1)
    recorded = recorded_tenant(None, verified_at=VERIFIED)
    assert moment(CREATED, observed, recorded) == exactly(Evidence.CREATION, BORN)
    assert moment(ENABLE, observed, recorded) == exactly(Evidence.CREATION, BORN)


def test_the_backfill_dates_every_package_at_the_creation() -> None:
    findings = dated(live_tenant(packages=("a", "b"), generation=1), recorded_tenant(None))
    assert [finding.moment for finding in findings] == 3 * [exactly(Evidence.CREATION, BORN)]


def test_the_backfill_says_until_when_a_package_may_have_been_added() -> None:
    observed = live_tenant(packages=("a",), generation=2)
    assert moment(ENABLE, observed, recorded_tenant(None)) == Moment(BORN, BORN, NOW, Evidence.CREATION)
    observed = live_tenant(packages=("a",), generation=2, packages_written_at=WRITTEN)
    assert moment(ENABLE, observed, recorded_tenant(None)) == Moment(BORN, BORN, WRITTEN, Evidence.CREATION)
    observed = live_tenant(packages=("a",), generation=None)
    assert moment(ENABLE, observed, recorded_tenant(None)) == Moment(BORN, BORN, NOW, Evidence.CREATION)


BACKFILLED = {
    "a package of generation 1 - not on since its last event": (ENABLE, {"generation": 1}, None),
    "a package that was changed since - not on since its last event": (ENABLE, {"generation": 4}, None),
    "a package whose field was written later - on by then": (ENABLE, {"packages_written_at": WRITTEN}, WRITTEN),
    "a resumption - not since the suspension": (RESUME, {}, None),
    "a resumption whose field was written later - by then": (RESUME, {"suspend_written_at": WRITTEN}, WRITTEN),
}


@pytest.mark.parametrize(("reason", "fields", "written"), BACKFILLED.values(), ids=BACKFILLED)
def test_the_backfill_dates_a_key_with_events_by_other_evidence(
    reason: Reason, fields: dict[str, object], written: datetime | None
) -> None:
    recorded = recorded_tenant(None, skills={"a": DISABLED}, suspension=SUSPENDED)
    event = DISABLED if reason is ENABLE else SUSPENDED
    found = moment(reason, live_tenant(packages=("a",), **fields), recorded)
    if written:
        assert found == proved(Evidence.FIELD_MANAGER, written, event.occurred_at)
    else:
        assert found == Moment(NOW, event.occurred_at, NOW, Evidence.NONE)


def test_the_backfill_starts_at_the_creation_despite_earlier_events() -> None:
    """They are of an earlier tenant of that name, whose row was lost too."""
    recorded = recorded_tenant(
        None,
        skills={"a": DISABLED._replace(occurred_at=BORN - DAY)},
        suspension=SUSPENDED._replace(occurred_at=BORN - DAY),
    )
    observed = live_tenant(packages=("a",), generation=1)
    assert moment(ENABLE, observed, recorded) == exactly(Evidence.CREATION, BORN)
    assert moment(RESUME, observed, recorded) == Moment(BORN, BORN, NOW, Evidence.CREATION)


def test_the_backfill_suspends_when_the_operator_saw_it() -> None:
    observed = live_tenant(suspended=True, suspended_at=WRITTEN)
    assert moment(SUSPEND, observed, recorded_tenant(None)) == Moment(WRITTEN, BORN, NOW, Evidence.SUSPENDED_AT)


def test_the_backfill_stamps_a_tenant_that_is_being_deleted() -> None:
    findings = dated(live_tenant(deleting_at=WRITTEN), recorded_tenant(None))
    assert [(f.action, f.moment) for f in findings] == [
        (Action.INSERT, exactly(Evidence.CREATION, BORN)),
        (Action.STAMP, exactly(Evidence.DELETION, WRITTEN)),
    ]


def test_a_package_of_generation_1_is_on_since_creation() -> None:
    observed = live_tenant(packages=("a",), generation=1)
    assert moment(ENABLE, observed, recorded_tenant()) == exactly(Evidence.CREATION, BORN)


def test_a_package_of_generation_1_is_not_on_before_billing_starts() -> None:
    observed = live_tenant(packages=("a",), generation=1)
    recorded = recorded_tenant(lifecycle_row(created_at=BORN + HOUR))
    assert moment(ENABLE, observed, recorded) == exactly(Evidence.CREATION, BORN + HOUR)


def test_generation_1_proves_nothing_where_an_event_says_otherwise() -> None:
    observed = live_tenant(packages=("a",), generation=1)
    recorded = recorded_tenant(skills={"a": DISABLED})
    assert moment(ENABLE, observed, recorded) == Moment(NOW, DISABLED.occurred_at, NOW, Evidence.NONE)


def test_generation_1_proves_nothing_where_a_run_has_found_the_tenant_true() -> None:
    observed = live_tenant(packages=("a",), generation=1)
    recorded = recorded_tenant(verified_at=VERIFIED)
    assert moment(ENABLE, observed, recorded) == Moment(NOW, VERIFIED, NOW, Evidence.NONE)


@pytest.mark.parametrize("generation", [None, 0, 2])
def test_another_generation_proves_nothing(generation: int | None) -> None:
    observed = live_tenant(packages=("a",), generation=generation)
    assert moment(ENABLE, observed, recorded_tenant()) == Moment(NOW, BORN, NOW, Evidence.NONE)


def test_a_deletion_is_stamped_at_its_timestamp() -> None:
    assert moment(DELETED, live_tenant(deleting_at=WRITTEN), recorded_tenant()) == exactly(Evidence.DELETION, WRITTEN)


def test_a_deletion_that_takes_effect_later_is_stamped_at_the_observation() -> None:
    observed = live_tenant(deleting_at=NOW + HOUR)
    assert moment(DELETED, observed, recorded_tenant(), tolerance=HOUR) == exactly(Evidence.DELETION, NOW)


def test_a_deletion_is_not_stamped_before_the_creation() -> None:
    observed = live_tenant(deleting_at=BORN)
    start = BORN + HOUR
    found = moment(DELETED, observed, recorded_tenant(lifecycle_row(created_at=start)))
    assert found == Moment(start + SECOND, start, start + SECOND, Evidence.DELETION)


def test_a_lifetime_only_now_recorded_lasts_a_second_too() -> None:
    (_, stamp) = dated(live_tenant(deleting_at=BORN), recorded_tenant(None))
    assert stamp.moment == Moment(BORN + SECOND, BORN, BORN + SECOND, Evidence.DELETION)


def test_a_lifetime_lasts_at_least_a_second() -> None:
    """Also the events that it closes are dated at its end."""
    recorded = recorded_tenant(skills={"a": Event(9, "enabled", BORN)})
    assert [f.moment.occurred_at for f in dated(live_tenant(deleting_at=BORN), recorded) if f.moment] == [
        BORN + SECOND,
        BORN + SECOND,
    ]


def test_an_absence_is_stamped_by_policy() -> None:
    recorded = recorded_tenant(verified_at=VERIFIED)
    assert moment(DELETED, None, recorded) == Moment(VERIFIED, VERIFIED, NOW, Evidence.NONE)
    assert moment(DELETED, None, recorded, fallback=DETECTED) == Moment(NOW, VERIFIED, NOW, Evidence.NONE)
    assert moment(DELETED, None, recorded_tenant()) == Moment(BORN + SECOND, BORN, NOW, Evidence.NONE)


@pytest.mark.parametrize(
    "recorded",
    [
        recorded_tenant(skills={"a": Event(9, "enabled", WRITTEN)}),
        recorded_tenant(skills={"a": Event(9, "disabled", WRITTEN)}),
        recorded_tenant(suspension=Event(9, "resumed", WRITTEN)),
    ],
    ids=["enabled", "disabled", "resumed"],
)
def test_an_absence_is_not_stamped_before_the_last_event(recorded: Recorded) -> None:
    """A tenant that enabled a skill in June was not gone in May: that is a month of revenue."""
    assert moment(DELETED, None, recorded) == Moment(WRITTEN, WRITTEN, NOW, Evidence.NONE)


def test_a_closing_event_has_the_moment_of_the_stamp() -> None:
    recorded = recorded_tenant(skills={"a": ENABLED})
    assert moment(CLOSE, live_tenant(deleting_at=WRITTEN), recorded) == exactly(Evidence.DELETION, WRITTEN)


DELETED_AT = WRITTEN + DAY
LISTED = live_tenant(packages=("a",), deleting_at=DELETED_AT)
BEFORE_DELETION = DELETED_AT - INSTANT
ON_UNTIL_DELETION = {
    "nothing known - on as late as possible": (LISTED, recorded_tenant(), (BEFORE_DELETION, BORN, BEFORE_DELETION)),
    "a run found it true - on since then": (
        LISTED,
        recorded_tenant(verified_at=VERIFIED),
        (BEFORE_DELETION, VERIFIED, BEFORE_DELETION),
    ),
    "its field was written - on by then": (
        LISTED._replace(packages_written_at=WRITTEN),
        recorded_tenant(),
        (WRITTEN, BORN, WRITTEN),
    ),
    "its field was written after the deletion - that proves nothing": (
        LISTED._replace(packages_written_at=DELETED_AT + HOUR),
        recorded_tenant(),
        (BEFORE_DELETION, BORN, BEFORE_DELETION),
    ),
    "only the deletion moved the generation - on since the creation": (
        LISTED._replace(generation=2),
        recorded_tenant(),
        (BORN, BORN, BORN),
    ),
    "without a row - on since the creation": (LISTED, recorded_tenant(None), (BORN, BORN, BEFORE_DELETION)),
    "without a row, only the deletion moved the generation - exactly": (
        LISTED._replace(generation=2),
        recorded_tenant(None),
        (BORN, BORN, BORN),
    ),
}


@pytest.mark.parametrize(("observed", "recorded", "on"), ON_UNTIL_DELETION.values(), ids=ON_UNTIL_DELETION)
@pytest.mark.parametrize("uncertain", FallbackDating)
def test_a_lost_enable_lies_before_the_deletion_that_closes_it(
    observed: Observed, recorded: Recorded, on: tuple[datetime, datetime, datetime], uncertain: FallbackDating
) -> None:
    found = moment(ENABLE, observed, recorded, fallback=uncertain)
    assert found is not None
    assert found[:3] == on
    assert moment(CLOSE, observed, recorded, fallback=uncertain) == exactly(Evidence.DELETION, DELETED_AT)


def test_a_closing_event_follows_an_enable_at_the_deletion() -> None:
    """A run found the tenant true at the very second of the deletion."""
    recorded = recorded_tenant(verified_at=DELETED_AT)
    assert moment(ENABLE, LISTED, recorded) == Moment(DELETED_AT, DELETED_AT, DELETED_AT, Evidence.NONE)
    closing = moment(CLOSE, LISTED, recorded)
    assert closing == Moment(DELETED_AT + INSTANT, DELETED_AT, DELETED_AT + INSTANT, Evidence.DELETION)


@pytest.mark.parametrize("uncertain", FallbackDating)
def test_a_closing_event_of_an_absent_tenant_has_the_stamps_moment(uncertain: FallbackDating) -> None:
    recorded = recorded_tenant(skills={"a": ENABLED}, verified_at=VERIFIED)
    stamp = moment(DELETED, None, recorded, fallback=uncertain)
    assert moment(CLOSE, None, recorded, fallback=uncertain) == stamp
    assert stamp is not None
    assert stamp.evidence is Evidence.NONE


def test_a_closing_event_is_dated_at_an_earlier_stamp() -> None:
    recorded = recorded_tenant(lifecycle_row(deleted_at=WRITTEN), skills={"a": ENABLED})
    assert moment(CLOSE, None, recorded) == exactly(Evidence.DELETION, WRITTEN)


def test_a_later_true_run_does_not_move_a_closing_event() -> None:
    """The portal's event came late, after a run had found the deleted tenant true."""
    recorded = recorded_tenant(lifecycle_row(deleted_at=WRITTEN), skills={"a": ENABLED}, verified_at=WRITTEN + DAY)
    assert moment(CLOSE, None, recorded) == exactly(Evidence.DELETION, WRITTEN)


def test_a_closing_event_of_a_future_stamp_is_dated_at_observation() -> None:
    recorded = recorded_tenant(lifecycle_row(deleted_at=NOW + DAY), skills={"a": ENABLED})
    assert moment(CLOSE, None, recorded) == exactly(Evidence.DELETION, NOW)


def test_a_closing_event_never_precedes_the_event_that_it_closes() -> None:
    late = Event(9, "enabled", WRITTEN + DAY)
    recorded = recorded_tenant(lifecycle_row(deleted_at=WRITTEN), skills={"a": late})
    end = late.occurred_at + INSTANT
    assert moment(CLOSE, None, recorded) == Moment(end, late.occurred_at, end, Evidence.DELETION)


def test_a_closing_event_after_a_late_event_moves_no_stamp() -> None:
    late = Event(9, "enabled", WRITTEN + DAY)
    recorded = recorded_tenant(skills={"a": late, "b": ENABLED})
    findings = dated(live_tenant(deleting_at=WRITTEN), recorded)
    end = late.occurred_at + INSTANT
    assert [(f.reason, f.subject, f.moment) for f in findings] == [
        (DELETED, None, exactly(Evidence.DELETION, WRITTEN)),
        (CLOSE, "a", Moment(end, late.occurred_at, end, Evidence.DELETION)),
        (CLOSE, "b", exactly(Evidence.DELETION, WRITTEN)),
    ]


def test_a_suspension_is_dated_when_the_operator_saw_it() -> None:
    observed = live_tenant(suspended=True, suspended_at=WRITTEN, suspend_written_at=WRITTEN - HOUR)
    assert moment(SUSPEND, observed, recorded_tenant()) == proved(Evidence.SUSPENDED_AT, WRITTEN, BORN)


def test_a_later_spec_may_be_another_suspension() -> None:
    observed = live_tenant(suspended=True, suspended_at=WRITTEN, suspend_written_at=WRITTEN + HOUR)
    assert moment(SUSPEND, observed, recorded_tenant()) == Moment(WRITTEN, BORN, WRITTEN + HOUR, Evidence.SUSPENDED_AT)


@pytest.mark.parametrize(
    ("suspended_at", "clipped"), [(VERIFIED - SECOND, VERIFIED), (VERIFIED - 2 * SECOND, None), (NOW + SECOND, NOW)]
)
def test_when_the_operator_saw_a_suspension_counts_within_the_tolerance(
    suspended_at: datetime, clipped: datetime | None
) -> None:
    observed = live_tenant(suspended=True, suspended_at=suspended_at)
    expected = Moment(VERIFIED, VERIFIED, NOW, Evidence.NONE)
    if clipped:
        expected = Moment(clipped, VERIFIED, NOW, Evidence.SUSPENDED_AT)
    assert moment(SUSPEND, observed, recorded_tenant(verified_at=VERIFIED)) == expected


def test_a_suspension_seen_before_the_last_resumption_proves_nothing() -> None:
    observed = live_tenant(suspended=True, suspended_at=WRITTEN, suspend_written_at=WRITTEN + 2 * HOUR)
    recorded = recorded_tenant(suspension=Event(4, "resumed", WRITTEN + HOUR))
    expected = proved(Evidence.FIELD_MANAGER, WRITTEN + 2 * HOUR, WRITTEN + HOUR)
    assert moment(SUSPEND, observed, recorded) == expected
    expected = Moment(WRITTEN + HOUR + INSTANT, WRITTEN + HOUR, NOW, Evidence.NONE)
    assert moment(SUSPEND, observed._replace(suspend_written_at=None), recorded) == expected


@DRIFTS_OF
def test_a_change_is_dated_when_the_fields_owner_last_wrote(reason: Reason) -> None:
    observed, recorded, field, evidence = DRIFTS[reason]
    found = moment(reason, observed._replace(**{field: WRITTEN}), recorded)  # type: ignore[arg-type]
    assert found is not None
    assert found == proved(evidence, WRITTEN, found.not_before)
    assert found.not_before == max([BORN, *(e.occurred_at for e in (recorded.suspension,) if e)])


PART = timedelta(milliseconds=400)


@pytest.mark.parametrize(
    ("event_at", "written_at", "proves"),
    [
        (WRITTEN + PART, WRITTEN, False),  # the portal wrote the resource, and then the row
        (WRITTEN, WRITTEN, False),  # a correction dated by that very write
        (WRITTEN + SECOND - timedelta(microseconds=1), WRITTEN, False),
        (WRITTEN + PART, WRITTEN + SECOND, True),
        (WRITTEN - PART, WRITTEN, True),
        (WRITTEN + SECOND, WRITTEN, True),  # another second: within the clocks' tolerance
    ],
)
@pytest.mark.parametrize("reason", DRIFTS)
def test_a_write_in_the_corrected_events_second_proves_nothing(
    reason: Reason, event_at: datetime, written_at: datetime, *, proves: bool
) -> None:
    """Kubernetes cuts its times to seconds: the write may be the event's own."""
    observed, _, field, evidence = DRIFTS[reason]
    opposite = {ENABLE: "disabled", DISABLE: "enabled", SUSPEND: "resumed", RESUME: "suspended"}[reason]
    event = Event(9, opposite, event_at)
    recorded = (
        recorded_tenant(skills={"a": event}) if reason in {ENABLE, DISABLE} else recorded_tenant(suspension=event)
    )

    found = moment(reason, observed._replace(**{field: written_at}), recorded)  # type: ignore[arg-type]

    assert found is not None
    assert found.evidence is (evidence if proves else Evidence.NONE)
    if proves:
        at = max(written_at, event_at + INSTANT)
        assert found == Moment(at, event_at, at, evidence)
    else:
        assert (found.not_before, found.not_after) == (event_at, NOW)


CLIPPED = {
    "at the start": (timedelta(), VERIFIED, VERIFIED),
    "at the end": (timedelta(), NOW, NOW),
    "a moment too early": (SECOND, VERIFIED - SECOND, VERIFIED),
    "a moment too late": (SECOND, NOW + SECOND, NOW),
    "as early as the clocks are apart": (HOUR, VERIFIED - HOUR, VERIFIED),
    "as late as the clocks are apart": (HOUR, NOW + HOUR, NOW),
}
MISSED = {
    "earlier than the clocks are apart": (SECOND, VERIFIED - 2 * SECOND),
    "later than the clocks are apart": (SECOND, NOW + 2 * SECOND),
    "too early by nothing, where the clocks agree": (timedelta(), VERIFIED - timedelta(microseconds=1)),
}


@DRIFTS_OF
@pytest.mark.parametrize(("tolerance", "written", "clipped"), CLIPPED.values(), ids=CLIPPED)
def test_evidence_within_the_tolerance_is_clipped_to_the_interval(
    reason: Reason, tolerance: timedelta, written: datetime, clipped: datetime
) -> None:
    observed, recorded, field, evidence = DRIFTS[reason]
    observed = observed._replace(**{field: written})  # type: ignore[arg-type]
    recorded = replace(recorded, verified_at=VERIFIED)
    assert moment(reason, observed, recorded, tolerance=tolerance) == proved(evidence, clipped, VERIFIED)


@DRIFTS_OF
@pytest.mark.parametrize(("tolerance", "written"), MISSED.values(), ids=MISSED)
def test_evidence_outside_its_interval_proves_nothing(reason: Reason, tolerance: timedelta, written: datetime) -> None:
    observed, recorded, field, _ = DRIFTS[reason]
    observed = observed._replace(suspended_at=written, **{field: written})  # type: ignore[arg-type]
    found = moment(reason, observed, replace(recorded, verified_at=VERIFIED), tolerance=tolerance)
    assert found is not None
    assert (found.not_before, found.not_after, found.evidence) == (VERIFIED, NOW, Evidence.NONE)


BY_POLICY = {
    (ENABLE, CUSTOMER): NOW,
    (ENABLE, DETECTED): NOW,
    (DISABLE, CUSTOMER): VERIFIED,
    (DISABLE, DETECTED): NOW,
    (SUSPEND, CUSTOMER): VERIFIED,
    (SUSPEND, DETECTED): NOW,
    (RESUME, CUSTOMER): NOW,
    (RESUME, DETECTED): NOW,
}


@pytest.mark.parametrize(
    ("reason", "uncertain", "expected"), [(*key, at) for key, at in BY_POLICY.items()], ids=map(str, BY_POLICY)
)
def test_without_evidence_the_policy_decides(reason: Reason, uncertain: FallbackDating, expected: datetime) -> None:
    observed, recorded, *_ = DRIFTS[reason]
    found = moment(reason, observed, replace(recorded, verified_at=VERIFIED), fallback=uncertain)
    assert found == Moment(expected, VERIFIED, NOW, Evidence.NONE)


def test_the_interval_begins_at_the_latest_of_what_is_known() -> None:
    observed = live_tenant()
    enabled = Event(9, "enabled", VERIFIED)
    for created_at, verified_at, expected in (
        (BORN, None, VERIFIED),
        (BORN, VERIFIED - DAY, VERIFIED),
        (BORN, VERIFIED + DAY, VERIFIED + DAY),
        (VERIFIED + 2 * DAY, VERIFIED + DAY, VERIFIED + 2 * DAY),
    ):
        recorded = recorded_tenant(lifecycle_row(created_at=created_at), skills={"a": enabled}, verified_at=verified_at)
        at = max(expected, VERIFIED + INSTANT)
        assert moment(DISABLE, observed, recorded) == Moment(at, expected, NOW, Evidence.NONE)


def test_a_future_start_of_billing_moves_no_correction() -> None:
    recorded = recorded_tenant(lifecycle_row(created_at=NOW + DAY))
    assert moment(ENABLE, live_tenant(packages=("a",)), recorded) == exactly(Evidence.NONE, NOW)


def test_a_correction_follows_an_event_after_the_observation_began() -> None:
    observed_at = NOW - HOUR
    event = Event(9, "enabled", NOW - SECOND)
    found = moment(DISABLE, live_tenant(), recorded_tenant(skills={"a": event}), observed_at=observed_at)
    end = event.occurred_at + INSTANT
    assert found == Moment(end, event.occurred_at, end, Evidence.NONE)


def test_a_report_and_an_organisation_have_no_moment() -> None:
    future = Event(9, "enabled", NOW + DAY)
    findings = [
        *dated(live_tenant(), recorded_tenant(lifecycle_row(deleted_at=VERIFIED, created_at=BORN - DAY))),
        *dated(live_tenant(org=None), recorded_tenant(skills={"a": future})),
        *dated(live_tenant(), recorded_tenant(lifecycle_row(org="unknown"))),
        *dated(live_tenant(), recorded_tenant(lifecycle_row(org="other"))),
        *dated(None, recorded_tenant(None, skills={"a": ENABLED})),
        *dated(Observed(name="acme", problem="it is"), recorded_tenant()),
    ]
    assert len(findings) == 7
    assert {finding.moment for finding in findings} == {None}


def test_dating_changes_nothing_but_the_moment() -> None:
    observed, recorded = live_tenant(packages=("a",), suspended=True), recorded_tenant(None)
    undated = [finding._replace(moment=None) for finding in dated(observed, recorded)]
    assert undated == list(compare(observed, recorded, as_of=NOW))


_datings = st.builds(
    Dating,
    observed_at=st.sampled_from([NOW, NOW - SECOND, NOW - HOUR]),
    tolerance=st.sampled_from([timedelta(), SECOND, 2 * HOUR]),
    fallback=st.sampled_from(FallbackDating),
)


@given(observed_and_recorded(), _datings)
def test_a_moment_lies_in_its_interval_and_not_before_what_it_corrects(pair: Candidate, dating: Dating) -> None:
    for finding in dated(*pair, dating):
        if finding.moment is None:
            assert finding.action in {Action.REPORT, Action.UPDATE}
            continue
        # what a start that is recorded too late costs is counted from the creation
        is_misrecorded = finding.reason is Reason.CREATION_MISRECORDED
        assert finding.action in ({Action.REPORT} if is_misrecorded else {Action.INSERT, Action.APPEND, Action.STAMP})
        assert not is_misrecorded or finding.moment.occurred_at == (pair[0] and pair[0].created_at)
        occurred_at, not_before, not_after, _ = finding.moment
        superseded = finding.supersedes.occurred_at if finding.supersedes else not_before
        assert not_before <= occurred_at <= not_after
        assert superseded < occurred_at or not finding.supersedes
        assert superseded <= not_before
        assert not_after <= max(dating.observed_at, superseded) + SECOND


@given(observed_and_recorded(), _datings)
def test_without_evidence_a_cost_starts_late_and_stops_early(pair: Candidate, dating: Dating) -> None:
    customer = dated(*pair, replace(dating, fallback=CUSTOMER))
    detected = dated(*pair, replace(dating, fallback=DETECTED))
    for favoured, neutral in zip(customer, detected, strict=True):
        if not favoured.moment or not neutral.moment:
            continue
        assert favoured.moment[1:] == neutral.moment[1:]
        if favoured.moment.evidence is not Evidence.NONE:
            assert favoured.moment == neutral.moment
            continue
        assert neutral.moment.occurred_at == neutral.moment.not_after
        if favoured.reason in STARTS_TO_COST:
            assert favoured.moment.occurred_at == favoured.moment.not_after
        else:
            assert favoured.reason in STOPS_COSTING
            assert favoured.moment.occurred_at <= favoured.moment.not_before + SECOND


@given(observed_and_recorded(), _datings)
def test_a_closing_event_is_dated_at_deletion_or_its_event(pair: Candidate, dating: Dating) -> None:
    findings = dated(*pair, dating)
    lifecycle = pair[1].lifecycle
    stamps = [finding.moment.occurred_at for finding in findings if finding.reason is DELETED and finding.moment]
    for finding in findings:
        if finding.reason is CLOSE and finding.moment and finding.supersedes:
            assert lifecycle or stamps
            stamped = lifecycle.deleted_at if lifecycle else None
            deleted_at = stamps[0] if stamps else stamped
            assert deleted_at is not None
            deleted_at = deleted_at if stamps else min(deleted_at, dating.observed_at)
            assert finding.moment.occurred_at == max(deleted_at, finding.supersedes.occurred_at + INSTANT)
