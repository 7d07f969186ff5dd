"""When a tenant lived, as a person says it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from reconciler.core.billing import Lifetime
from reconciler.core.decisions import NotPutRight
from reconciler.core.lifetimes import ALIVE, GONE, Gap, edited, gaps, next_end, removed_ends


def may(day: int) -> datetime:
    return datetime(2026, 5, 1, tzinfo=UTC) + timedelta(days=day - 1)


def lived(*spans: tuple[int, int | None]) -> tuple[Lifetime, ...]:
    return tuple(Lifetime("A", may(a), None if b is None else may(b)) for a, b in spans)


@pytest.mark.parametrize(
    ("before", "said", "since", "until", "after"),
    [
        pytest.param([], ALIVE, 1, 10, [(1, 10)], id="nothing, alive - one"),
        pytest.param([(1, 10)], ALIVE, 20, 31, [(1, 10), (20, 31)], id="alive apart - one more"),
        pytest.param([(1, 20)], ALIVE, 10, 30, [(1, 30)], id="alive beyond the end - a later end"),
        pytest.param([(5, None)], ALIVE, 1, 5, [(1, None)], id="alive before the beginning - an earlier one"),
        pytest.param([(1, 20)], ALIVE, 20, None, [(1, None)], id="alive on from the end - open"),
        pytest.param([(1, 10), (20, 30)], ALIVE, 10, 20, [(1, 30)], id="alive in between - one"),
        pytest.param([(1, 20)], GONE, 10, 20, [(1, 10)], id="gone to the end - an earlier end"),
        pytest.param([(1, 20)], GONE, 1, 5, [(5, 20)], id="gone from the beginning - a later beginning"),
        pytest.param([(1, None)], GONE, 10, 15, [(1, 10), (15, None)], id="gone inside - two"),
        pytest.param([(1, None)], GONE, 10, None, [(1, 10)], id="gone on - closed"),
        pytest.param([(1, 5), (8, 20)], GONE, 1, 5, [(8, 20)], id="gone all of the first - the second"),
        pytest.param([(1, 5)], GONE, 1, 9, [(1, 1)], id="gone all of the only one - no time at all"),
    ],
)
def test_what_is_said_moves_the_ends(
    before: list[tuple[int, int | None]],
    said: str,
    since: int,
    until: int | None,
    after: list[tuple[int, int | None]],
) -> None:
    new = Lifetime("A", may(since))
    assert edited(lived(*before), said, may(since), None if until is None else may(until), new) == lived(*after)


@pytest.mark.parametrize(
    ("before", "said", "since", "until"),
    [
        pytest.param([(1, 20)], ALIVE, 5, 10, id="alive while alive - refused"),
        pytest.param([(1, 20)], GONE, 20, 25, id="gone while gone - refused"),
    ],
)
def test_what_the_ledger_says_already_is_refused(
    before: list[tuple[int, int | None]], said: str, since: int, until: int
) -> None:
    with pytest.raises(NotPutRight, match="says that already"):
        edited(lived(*before), said, may(since), may(until), None)


def test_lifetimes_of_two_organisations_are_not_joined() -> None:
    with pytest.raises(NotPutRight, match="organisations A, B"):
        edited((*lived((1, 10)), Lifetime("B", may(20))), ALIVE, may(9), may(21), None)


def test_the_first_lifetime_needs_an_organisation() -> None:
    with pytest.raises(NotPutRight, match="nobody knows which organisation pays"):
        edited((), ALIVE, may(1), may(2), None)


def test_new_ends_and_removed_ends_are_told_apart() -> None:
    before, after = lived((1, 20)), lived((1, 10), (15, 30))
    assert gaps(before, after) == (Gap(may(10), may(15)), Gap(may(30), None))
    assert removed_ends(before, after) == {may(20)}


def test_the_next_end_may_be_of_a_later_lifetime() -> None:
    assert [next_end(lived((1, 10), (15, None)), may(day)) for day in (5, 12)] == [may(10), None]


SPANS = st.lists(st.integers(1, 30), min_size=2, max_size=6, unique=True).map(sorted)


@given(SPANS, st.sampled_from([ALIVE, GONE]), st.integers(1, 29), st.integers(1, 10))
def test_inside_it_is_as_said_and_outside_as_before(days: list[int], said: str, since: int, length: int) -> None:
    before = lived(*zip(days[::2], days[1::2], strict=False))
    until = since + length

    def is_alive(those: tuple[Lifetime, ...], day: int) -> bool:
        return any(one.began_at <= may(day) < (one.ended_at or may(99)) for one in those)

    try:
        after = edited(before, said, may(since), may(until), Lifetime("A", may(since)))
    except NotPutRight:
        reject()
    for day in range(1, 45):
        expected = said == ALIVE if since <= day < until else is_alive(before, day)
        assert is_alive(after, day) == expected
    assert list(after) == sorted(after, key=lambda one: one.began_at)
