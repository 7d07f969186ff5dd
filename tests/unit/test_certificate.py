"""Whether a period is proven: the table of core/certificate.py, row by row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from reconciler.core.certificate import (
    HELP,
    Cause,
    Doubt,
    Facts,
    OpenGap,
    Question,
    Reported,
    Stay,
    certify,
)
from reconciler.core.history import ANY_TENANT

SETTLE: Final = timedelta(seconds=60)
SECOND: Final = timedelta(seconds=1)
HOUR: Final = timedelta(hours=1)
MAY: Final = datetime(2026, 5, 1, tzinfo=UTC)
JUNE: Final = datetime(2026, 6, 1, tzinfo=UTC)
QUESTION: Final = Question(MAY, JUNE, SETTLE)


def on(day: int, month: int = 5) -> datetime:
    """Return noon of a day of 2026."""
    return datetime(2026, month, day, 12, tzinfo=UTC)


JANUARY: Final = on(1, 1)


def lived(began_at: datetime = JANUARY, ended_at: datetime | None = None) -> tuple[Stay, ...]:
    """Return the lifetime that the ledger has."""
    return (Stay(began_at, ended_at),)


def seen(since: datetime, created_at: datetime = JANUARY, gone_at: datetime | None = None) -> tuple[Stay, ...]:
    """Return the resource that runs saw."""
    return (Stay(created_at, gone_at, since),)


def doubts(facts: Facts) -> list[tuple[Cause, bool]]:
    """Return what is in doubt about a tenant in May, and whether that is accepted."""
    found = certify(QUESTION, JUNE, [facts]).doubts
    return [(doubt.cause, doubt.accepted) for doubt in found]


KNOWN: Final = [(Cause.KNOWN_SINCE, False)]
UNRECORDED: Final = [(Cause.UNRECORDED, False)]
TAKEN_OVER: Final = Stay(on(5), None, on(1, 2), continues=True)
AGAIN: Final = seen(on(1, 2), gone_at=on(3)) + seen(on(5), on(5), on(20))
"""Seen, gone, recreated, and gone again."""
TABLE: Final = {
    "known since before the period": (lived(), seen(on(3, 4)), []),
    "known from the period's first instant": (lived(), seen(MAY), []),
    "known from settle after the period's start": (lived(), seen(MAY + SETTLE), []),
    "known from later in the period": (lived(), seen(MAY + SETTLE + SECOND), KNOWN),
    "known from after the period": (lived(), seen(on(3, 6)), KNOWN),
    "never seen": (lived(), (), KNOWN),
    "created in the period, known from the creation": (lived(on(9)), seen(on(9), on(9)), []),
    "created in the period, seen within settle of the row": (lived(on(9)), seen(on(9) + SETTLE, on(9)), []),
    "created in the period, known only later": (lived(on(9)), seen(on(9) + SETTLE + SECOND, on(9)), KNOWN),
    "over before the period": (lived(ended_at=MAY), (), []),
    "over a moment after the period's start": (lived(ended_at=MAY + SECOND), (), KNOWN),
    "began after the period": (lived(JUNE), (), []),
    "only another lifetime of its name was seen": (lived(ended_at=on(9)), seen(on(20), on(20)), KNOWN + UNRECORDED),
    "two lifetimes, both seen": (
        lived(ended_at=on(3)) + lived(on(20)),
        seen(on(1, 2), gone_at=on(3)) + seen(on(20), on(20)),
        [],
    ),
    "recreated, and only the first lifetime recorded": (lived(ended_at=on(3)), AGAIN, UNRECORDED),
    "recreated, and its end recorded as that of the first": (lived(ended_at=on(20)), AGAIN, UNRECORDED),
    "recreated, and both lifetimes recorded": (lived(ended_at=on(3)) + lived(on(5), on(20)), AGAIN, []),
    "seen, and never recorded": ((), seen(on(5), on(5), on(20)), UNRECORDED),
    "seen, gone before the period and never recorded": ((), seen(on(5, 3), on(5, 3), on(20, 3)), []),
    "restored under another uid": (lived(), (*seen(on(1, 2), gone_at=on(3)), TAKEN_OVER), []),
    "two lifetimes, the first never seen": (lived(ended_at=on(3)) + lived(on(20)), seen(on(20), on(20)), KNOWN),
}


@pytest.mark.parametrize(("lifetimes", "resources", "expected"), TABLE.values(), ids=TABLE)
def test_a_lifetime_is_known_from_its_start(
    lifetimes: tuple[Stay, ...], resources: tuple[Stay, ...], expected: list[tuple[Cause, bool]]
) -> None:
    assert doubts(Facts("acme", lifetimes, resources)) == expected


@pytest.mark.parametrize(
    ("from_at", "until_at", "accepted_at", "expected"),
    [
        pytest.param(on(3), on(4), None, [(Cause.GAP, False)], id="inside the period"),
        pytest.param(on(3, 4), MAY, None, [], id="over when it begins"),
        pytest.param(on(3, 4), MAY + SECOND, None, [(Cause.GAP, False)], id="over just after it begins"),
        pytest.param(JUNE, on(4, 6), None, [], id="begins when it ends"),
        pytest.param(JUNE - SECOND, on(4, 6), None, [(Cause.GAP, False)], id="begins just before it ends"),
        pytest.param(on(3), on(4), on(4), [(Cause.GAP, True)], id="accepted at its end"),
        pytest.param(on(3), on(4), on(4) - SECOND, [(Cause.GAP, False)], id="accepted before its end"),
    ],
)
def test_a_gap_in_the_period_is_in_doubt(
    from_at: datetime, until_at: datetime, accepted_at: datetime | None, expected: list[tuple[Cause, bool]]
) -> None:
    gap = OpenGap(from_at, until_at, "vanished")
    assert doubts(Facts("acme", lived(), seen(on(1, 2)), (gap,), accepted_at=accepted_at)) == expected


@pytest.mark.parametrize(
    ("from_at", "until_at", "expected"),
    [
        pytest.param(on(3), on(3) + 11 * HOUR, [], id="within a day"),
        pytest.param(on(3), on(4) - 12 * HOUR, [], id="to the end of its day"),
        pytest.param(on(3), on(4), [(Cause.ASSUMED, False)], id="on one of two days"),
        pytest.param(on(3, 4), on(4, 4), [], id="before the period"),
        pytest.param(on(30, 4), on(1), [(Cause.ASSUMED, False)], id="before the period, or in it"),
    ],
)
def test_a_moment_by_policy_is_in_doubt_across_days(
    from_at: datetime, until_at: datetime, expected: list[tuple[Cause, bool]]
) -> None:
    interval = OpenGap(from_at, until_at, "skill_enable_unrecorded")
    assert doubts(Facts("acme", lived(), seen(on(1, 2)), assumed=(interval,))) == expected


def test_gaps_of_nobody_known_are_named_and_pass() -> None:
    found = certify(QUESTION, JUNE, [Facts(ANY_TENANT, gaps=(OpenGap(on(3), on(4), "log_lost"),))])
    assert found.is_proven
    assert [doubt.tenant for doubt in found.accepted] == [ANY_TENANT]


@pytest.mark.parametrize(
    ("reports", "is_unverified", "verified_until", "expected"),
    [
        pytest.param([("org_moved", False)], True, None, [(Cause.REPORTED, False)], id="reported, never proved"),
        pytest.param([("org_moved", False)], True, JUNE - SECOND, [(Cause.REPORTED, False)], id="proved too early"),
        pytest.param([("org_moved", False)], True, JUNE, [], id="proved since the period ended"),
        pytest.param([("org_moved", True)], True, None, [(Cause.REPORTED, True)], id="reported and accepted"),
        pytest.param(
            [("org_moved", True), ("event_time_invalid", False)],
            True,
            None,
            [(Cause.REPORTED, True), (Cause.REPORTED, False)],
            id="one of two accepted",
        ),
        pytest.param([("history_contradicts", False)], True, JUNE, [(Cause.REPORTED, False)], id="about the past"),
        pytest.param([("history_contradicts", True)], True, JUNE, [(Cause.REPORTED, True)], id="the past, accepted"),
        pytest.param([("closed_month_changed", False)], True, None, [], id="about a closed month"),
        pytest.param([], True, None, [(Cause.DEFERRED, False)], id="deferred, never proved"),
        pytest.param([], True, JUNE, [], id="deferred, proved since the period ended"),
        pytest.param([], False, None, [], id="proved by the last run"),
    ],
)
def test_what_no_run_has_proved_since_is_in_doubt(
    *,
    reports: list[tuple[str, bool]],
    is_unverified: bool,
    verified_until: datetime | None,
    expected: list[tuple[Cause, bool]],
) -> None:
    facts = Facts(
        "acme",
        lived(),
        seen(on(1, 2)),
        reports=tuple(Reported(*report) for report in reports),
        is_unverified=is_unverified,
        verified_until=verified_until,
    )
    assert doubts(facts) == expected


@pytest.mark.parametrize(
    ("verified_until", "expected"),
    [
        pytest.param(None, [Doubt("", Cause.UNVERIFIED)], id="by no run"),
        pytest.param(JUNE - SECOND, [Doubt("", Cause.UNVERIFIED, from_at=JUNE - SECOND)], id="a second too early"),
        pytest.param(JUNE, [], id="to its end"),
    ],
)
def test_the_ledger_is_verified_to_the_end(verified_until: datetime | None, expected: list[Doubt]) -> None:
    assert [*certify(QUESTION, verified_until, []).doubts] == expected


def test_a_tenant_is_named_once() -> None:
    gaps = (OpenGap(on(3), on(4), "vanished"), OpenGap(on(8), on(9), "changed_often"))
    assert certify(QUESTION, JUNE, [Facts("acme", lived(), (), gaps)]).tenants == ("acme",)


def test_every_cause_says_what_would_help() -> None:
    assert set(HELP) == set(Cause)
