from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.history import (
    UNREADABLE,
    Position,
    Remembered,
    RestoredSource,
    Unproven,
    is_as_created,
    is_as_remembered,
    is_older,
    is_restored,
    known_since,
    left_unwritten,
    restored,
    unproven,
)
from reconciler.core.model import Action, Finding
from reconciler.core.reasons import Reason
from tests.support.comparison import BORN, DAY, HOUR, NOW, live_tenant

if TYPE_CHECKING:
    from reconciler.core.model import Observed

LISTED_AT = datetime(2026, 6, 15, 11, 59, tzinfo=UTC)
LAST = Position("200", NOW - HOUR)
"""The list before: every tenant was remembered from it."""


def remembered(**fields: Any) -> Remembered:
    """Return a live, running tenant without packages, as a list showed it."""
    tenant = Remembered(
        uid="u1",
        name="acme",
        resource_version="150",
        generation=4,
        org="2871",
        packages=(),
        suspended=False,
        suspend_is_set=True,
        created_at=BORN,
        deleting_at=None,
        since=BORN,
    )
    return tenant._replace(**fields)


def listed(**fields: Any) -> Observed:
    """Return the same tenant, as the next list shows it: something about it was written."""
    return live_tenant(resource_version="250", suspend_is_set=True)._replace(**fields)


PROBLEM = "Expected array, got str - at spec.packages"
OTHER = "u2"

Row = tuple[Remembered, "Observed | None", str | None, Unproven | None]
"""The tenant before and now, who has its name if it is gone, and why it is not proven what happened."""

PROVEN: dict[str, Row] = {
    "the same resourceVersion": (remembered(), listed(resource_version="150"), None, None),
    "the same resourceVersion, whatever else is said": (
        remembered(suspend_is_set=False, generation=None),
        listed(resource_version="150", suspend_is_set=False, generation=9),
        None,
        None,
    ),
    "the same resourceVersion, and unreadable by now": (
        remembered(),
        listed(resource_version="150", problem=PROBLEM),
        None,
        None,
    ),
    "the same generation: a status, a label": (remembered(), listed(org="2872"), None, None),
    "one generation more: one change": (remembered(), listed(generation=5, packages=("a",)), None, None),
    "one generation more: the deletion": (remembered(), listed(generation=5, deleting_at=NOW), None, None),
    "it was being deleted, and was written": (remembered(deleting_at=NOW - DAY), listed(generation=9), None, None),
    "it was being deleted, and is gone": (remembered(deleting_at=NOW - DAY), None, None, None),
    "it was being deleted, and another one has its name": (remembered(deleting_at=NOW - DAY), None, OTHER, None),
    "it was being deleted, and is unreadable": (
        remembered(deleting_at=NOW - DAY),
        listed(problem=PROBLEM),
        None,
        None,
    ),
    "it was being deleted, and whose name it is cannot be read": (
        remembered(deleting_at=NOW - DAY),
        None,
        UNREADABLE,
        None,
    ),
}
NOT_PROVEN: dict[str, Row] = {
    "it is unreadable": (remembered(), listed(problem=PROBLEM), None, Unproven.UNREADABLE),
    "it is unreadable, without a version": (
        remembered(),
        live_tenant(problem=PROBLEM),
        None,
        Unproven.UNREADABLE,
    ),
    "the resource of its name has no uid": (remembered(), None, UNREADABLE, Unproven.UNREADABLE),
    "it is gone, and another one has its name": (remembered(), None, OTHER, Unproven.RECREATED),
    "it is gone": (remembered(), None, None, Unproven.VANISHED),
    "suspend was not set before": (remembered(suspend_is_set=False), listed(), None, Unproven.SUSPEND_UNSET),
    "suspend is not set now": (remembered(), listed(suspend_is_set=False), None, Unproven.SUSPEND_UNSET),
    "suspend is not set, nor was it": (
        remembered(suspend_is_set=False),
        listed(suspend_is_set=False, generation=9),
        None,
        Unproven.SUSPEND_UNSET,
    ),
    "suspend was not set before it was asked to go": (
        remembered(suspend_is_set=False),
        listed(generation=5, deleting_at=NOW),
        None,
        Unproven.SUSPEND_UNSET,
    ),
    "two generations more": (remembered(), listed(generation=6), None, Unproven.CHANGED_OFTEN),
    "two generations more, the deletion among them": (
        remembered(),
        listed(generation=6, deleting_at=NOW),
        None,
        Unproven.CHANGED_OFTEN,
    ),
    "a generation less": (remembered(), listed(generation=3), None, Unproven.CHANGED_OFTEN),
    "no generation before": (remembered(generation=None), listed(), None, Unproven.CHANGED_OFTEN),
    "no generation now": (remembered(), listed(generation=None), None, Unproven.CHANGED_OFTEN),
    "no generation at all": (remembered(generation=None), listed(generation=None), None, Unproven.CHANGED_OFTEN),
    "no resourceVersion now": (
        remembered(),
        listed(resource_version=None, generation=6),
        None,
        Unproven.CHANGED_OFTEN,
    ),
}


@pytest.mark.parametrize(("before", "now", "heir", "why"), PROVEN.values(), ids=PROVEN)
def test_it_is_proven_what_happened(
    before: Remembered, now: Observed | None, heir: str | None, why: Unproven | None
) -> None:
    assert unproven(before, now, heir=heir) is why


@pytest.mark.parametrize(("before", "now", "heir", "why"), NOT_PROVEN.values(), ids=NOT_PROVEN)
def test_it_is_not_proven_what_happened(
    before: Remembered, now: Observed | None, heir: str | None, why: Unproven | None
) -> None:
    assert unproven(before, now, heir=heir) is why


def test_every_cause_that_two_lists_show_has_a_row() -> None:
    shown_by_more_than_a_tenant = {Unproven.RESTORED, Unproven.LOG_LOST}
    assert {why for *_, why in NOT_PROVEN.values()} == set(Unproven) - shown_by_more_than_a_tenant


_generations = st.none() | st.integers(1, 6)
_tenants_before = st.builds(
    remembered,
    resource_version=st.sampled_from(["149", "150"]),
    generation=_generations,
    suspend_is_set=st.booleans(),
    deleting_at=st.none() | st.just(NOW - HOUR),
)
_tenants_now = st.none() | st.builds(
    listed,
    resource_version=st.sampled_from(["150", "151"]),
    generation=_generations,
    suspend_is_set=st.booleans(),
    problem=st.none() | st.just(PROBLEM),
    packages=st.sampled_from([(), ("a",)]),
)


@given(_tenants_before, _tenants_now, st.sampled_from([None, OTHER, UNREADABLE]))
def test_only_one_change_at_most_is_proven(before: Remembered, now: Observed | None, heir: str | None) -> None:
    heir = None if now else heir
    if unproven(before, now, heir=heir) is None and before.deleting_at is None:
        assert now is not None
        if now.resource_version != before.resource_version:
            assert now.problem is None
            assert before.generation
            assert now.generation in {before.generation, before.generation + 1}
            assert before.suspend_is_set
            assert now.suspend_is_set


@pytest.mark.parametrize(
    ("tenant", "since"),
    [
        pytest.param({"generation": 1}, BORN, id="as created"),
        pytest.param({"generation": 2}, LISTED_AT, id="changed once"),
        pytest.param({"generation": None}, LISTED_AT, id="without a generation"),
        pytest.param({"generation": 1, "suspend_is_set": False}, LISTED_AT, id="as created, but suspend is not set"),
        pytest.param({"generation": 2, "deleting_at": NOW}, BORN, id="as created, and asked to go"),
        pytest.param({"generation": 1, "deleting_at": NOW}, BORN, id="asked to go by an old server"),
        pytest.param({"generation": 3, "deleting_at": NOW}, LISTED_AT, id="changed once, and asked to go"),
    ],
)
def test_a_history_is_known_since_the_creation_or_the_list(tenant: dict[str, Any], since: datetime) -> None:
    assert known_since(listed(**tenant), LISTED_AT) == since


@given(st.integers(1, 5), st.booleans(), st.booleans())
def test_a_history_is_known_since_creation_only_if_unchanged(generation: int, is_set: bool, goes: bool) -> None:  # noqa: FBT001 - drawn
    first = listed(generation=generation, suspend_is_set=is_set, deleting_at=NOW if goes else None)
    assert (known_since(first, LISTED_AT) == BORN) is (is_set and is_as_created(first))


@pytest.mark.parametrize(
    ("now", "same"),
    [
        ({}, True),
        ({"uid": OTHER, "created_at": NOW, "generation": 1, "resource_version": "9"}, True),
        ({"packages": ("a",)}, False),
        ({"suspended": True}, False),
        ({"org": "2872"}, False),
        ({"org": None}, False),
    ],
    ids=lambda value: ", ".join(value) or "nothing" if isinstance(value, dict) else None,
)
def test_a_tenant_is_as_remembered_if_it_is_billed_alike(now: dict[str, Any], *, same: bool) -> None:
    assert is_as_remembered(remembered(), listed(**now)) is same


@pytest.mark.parametrize(
    ("before", "now", "restored"),
    [
        pytest.param("150", "150", False, id="not written"),
        pytest.param("150", "201", False, id="written after the last list"),
        pytest.param("150", "149", True, id="older than it was"),
        pytest.param("150", "151", True, id="written before the last list, which did not show it"),
        pytest.param("150", "200", True, id="written at the last list's own version"),
        pytest.param("200", "200", False, id="not written, at the last list's own version"),
        pytest.param("150", "99", True, id="older as a number, not as a text"),
        pytest.param("150", "1000", False, id="younger as a number, not as a text"),
        pytest.param("150", "abc", False, id="not comparable"),
        pytest.param("150", None, False, id="without a version"),
    ],
)
def test_a_copy_shows_a_tenant_as_it_was(before: str, now: str | None, *, restored: bool) -> None:
    tenant = remembered(resource_version=before)
    assert is_restored(tenant, listed(resource_version=now), LAST) is restored


@pytest.mark.parametrize(
    ("now", "restored"),
    [
        pytest.param("149", True, id="older than when it was last read"),
        pytest.param("150", False, id="as it was last read"),
        pytest.param("180", False, id="written when it could not be read"),
        pytest.param("200", False, id="written at the list that could not read it"),
        pytest.param("250", False, id="written since"),
    ],
)
def test_an_unreadable_tenant_may_have_changed_then(now: str, *, restored: bool) -> None:
    assert is_restored(remembered(is_current=False), listed(resource_version=now), LAST) is restored


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        pytest.param(4, None, id="written otherwise - proven"),
        pytest.param(5, Unproven.CHANGED_OFTEN, id="changed once more - two changes"),
    ],
)
def test_a_change_after_an_unwritten_one_is_not_proven(generation: int, expected: Unproven | None) -> None:
    before = remembered(unwritten_since=NOW)
    assert unproven(before, listed(resource_version="201", generation=generation)) is expected


UNWRITTEN: Final = [
    pytest.param(Finding(Reason.SKILL_ENABLE_UNRECORDED, "acme", "1", Action.APPEND), False, id="corrected - written"),
    pytest.param(
        Finding(Reason.SKILL_ENABLE_UNRECORDED, "acme", "1", Action.APPEND).deferred(),
        False,
        id="its row came meanwhile - written",
    ),
    pytest.param(
        Finding(Reason.SKILL_ENABLE_UNRECORDED, "acme", "1", Action.APPEND).deferred(changing=True),
        True,
        id="changed between the looks - not",
    ),
    pytest.param(Finding(Reason.TENANT_RECREATED, "acme", "1", Action.REPORT), True, id="recreated - not compared"),
    pytest.param(Finding(Reason.TENANT_PARKED, "acme", "1", Action.REPORT), True, id="parked - not written"),
    pytest.param(Finding(Reason.ORG_UNLABELLED, "acme", "1", Action.REPORT), False, id="unlabelled - compared"),
]


@pytest.mark.parametrize(("finding", "is_left"), UNWRITTEN)
def test_what_a_run_leaves_unwritten(finding: Finding, *, is_left: bool) -> None:
    assert left_unwritten([finding]) == ({"acme"} if is_left else set())


def test_a_blocked_run_leaves_its_corrections_unwritten() -> None:
    correction = Finding(Reason.SKILL_ENABLE_UNRECORDED, "acme", "1", Action.APPEND)
    assert left_unwritten([correction], is_blocked=True) == {"acme"}


@pytest.mark.parametrize("version", ["150", "201"], ids=["as it was", "written after the last list"])
def test_a_uid_that_is_gone_never_comes_back(version: str) -> None:
    assert is_restored(remembered(gone_at=NOW), listed(resource_version=version), LAST)


@pytest.mark.parametrize("position", [None, Position(None, NOW)], ids=["no list", "a list without a version"])
@pytest.mark.parametrize(("now", "restored"), [("149", True), ("151", False)])
def test_without_a_position_only_an_older_tenant_is_restored(
    position: Position | None, now: str, *, restored: bool
) -> None:
    assert is_restored(remembered(), listed(resource_version=now), position) is restored


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_a_living_cluster_is_never_taken_for_a_copy(first: int, written: int, later: int) -> None:
    """The list shows what was there; then the tenant is written, or not."""
    position = first + written
    before = remembered(resource_version=str(first))
    for now in (first, position + 1 + later):
        assert not is_restored(before, listed(resource_version=str(now)), Position(str(position), NOW))


def test_the_refusal_names_the_tenant_and_the_versions() -> None:
    refusal = restored(remembered(), listed(resource_version="149"), LAST)
    assert isinstance(refusal, RestoredSource)
    assert str(refusal) == ("The list shows acme at resourceVersion 149; the last run saw it at 150, in a list at 200.")
    assert "--accept-source" in refusal.remedy


@pytest.mark.parametrize(
    ("version", "than", "older"),
    [
        ("9", "10", True),
        ("10", "9", False),
        ("10", "10", False),
        ("18446744073709551615", "18446744073709551616", True),
        (None, "10", False),
        ("10", None, False),
        (None, None, False),
        ("", "10", False),
        ("9", "", False),
        ("9", "abc", False),
        ("a", "b", False),
        ("-1", "10", False),
        ("9.5", "10", False),
        ("٩", "10", False),
        ("²", "10", False),
    ],
)
def test_only_numbers_tell_which_version_is_older(version: str | None, than: str | None, *, older: bool) -> None:
    assert is_older(version, than) is older


@given(st.text(max_size=5) | st.integers(0).map(str), st.text(max_size=5) | st.integers(0).map(str))
def test_of_two_versions_at_most_one_is_older(version: str, other: str) -> None:
    assert not (is_older(version, other) and is_older(other, version))
    assert not is_older(version, version)
