"""What the versions of a tenant say that happened, and when: row by row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.changes import Change, Kind, Seen, changes, first_changes
from reconciler.core.history import Remembered
from reconciler.core.model import Observed, Version, VersionKind

NOON = datetime(2026, 5, 10, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LISTED_AT = NOON + timedelta(minutes=10)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def version(number: int, *packages: str, kind: VersionKind = VersionKind.MODIFIED, **fields: Any) -> Version:
    """A version of acme, which was created an hour before noon."""
    given: dict[str, Any] = {
        "name": "acme",
        "uid": "1",
        "org": "2871",
        "created_at": at(-3600),
        "generation": 2,
        "packages": packages,
        "suspend_is_set": True,
        "resource_version": str(number),
    }
    return Version(kind, Observed(**given | fields))


def wrote(seconds: float) -> dict[str, Any]:
    """The packages were written then, and nothing later."""
    return {"packages_written_at": at(seconds), "last_modified_at": at(seconds)}


def suspended(seconds: float, *, value: bool = True) -> dict[str, Any]:
    return {"suspended": value, "suspend_written_at": at(seconds), "last_modified_at": at(seconds)}


def remembered(*packages: str, **fields: Any) -> Remembered:
    """Acme as the list before noon showed it."""
    given: dict[str, Any] = {
        "uid": "1",
        "name": "acme",
        "resource_version": "100",
        "generation": 1,
        "org": "2871",
        "packages": packages,
        "suspended": False,
        "suspend_is_set": True,
        "created_at": at(-3600),
        "deleting_at": None,
        "since": at(-3600),
    }
    return Remembered(**given | fields)


class Case(NamedTuple):
    """What the log showed, and what that says: kind, skill, not before, not after and its own time, in seconds."""

    claim: str
    versions: list[Version]
    said: list[tuple[str, str | None, float, float, float | None]]
    before: Remembered | None = remembered()
    lists: tuple[Seen, ...] = (Seen(100, NOON),)


ADDED, MODIFIED, DELETED = VersionKind
CASES = [
    Case("nothing", [], []),
    Case("a package more", [version(101, "mail", **wrote(5))], [("enabled", "mail", 0, 5, 5)]),
    Case(
        "on and off again",
        [version(101, "mail", **wrote(5)), version(102, last_modified_at=at(9))],
        [("enabled", "mail", 0, 5, 5), ("disabled", "mail", 5, 600, None)],
    ),
    Case(
        "two at once",
        [version(101, "mail", "wiki", **wrote(5))],
        [("enabled", "mail", 0, 5, 5), ("enabled", "wiki", 0, 5, 5)],
    ),
    Case(
        "another order of the packages",
        [version(101, "wiki", "mail", **wrote(5))],
        [],
        before=remembered("mail", "wiki"),
    ),
    Case("a status that was written", [version(101, last_modified_at=at(5))], []),
    Case("suspended", [version(101, **suspended(5))], [("suspended", None, 0, 5, 5)]),
    Case(
        "suspended, and the field taken away",
        [version(101, **suspended(5)), version(102, suspend_is_set=False, last_modified_at=at(5))],
        [("suspended", None, 0, 5, 5), ("resumed", None, 5, 600, None)],
    ),
    Case(
        "after changes that were not shown, when the owner wrote last",
        [version(101, "mail", **wrote(5) | suspended(5), generation=3)],
        [("enabled", "mail", 0, 5, None), ("suspended", None, 0, 5, None)],
    ),
    Case(
        "no time of its own, and a later version that moved one",
        [version(101, "mail"), version(102, "mail", last_modified_at=at(7))],
        [("enabled", "mail", 0, 7, None)],
    ),
    Case(
        "no time of its own, and a later version that moved none",
        [version(101, "mail", last_modified_at=at(3)), version(102, "mail", last_modified_at=at(3))],
        [("enabled", "mail", 0, 600, None)],
    ),
    Case(
        "a time before its interval is another write's",
        [version(101, "mail", **wrote(-30))],
        [("enabled", "mail", 0, 600, None)],
    ),
    Case(
        "a time that Kubernetes has cut is clipped",
        [version(101, "mail", **wrote(-1))],
        [("enabled", "mail", 0, 0, 0)],
    ),
    Case(
        "not before the last list that does not show it",
        [version(150, "mail")],
        [("enabled", "mail", 60, 600, None)],
        lists=(Seen(100, NOON), Seen(140, at(60)), Seen(150, at(120))),
    ),
    Case(
        "deleted without finalizers",
        [version(101, kind=DELETED)],
        [("deleted", None, 0, 600, None)],
    ),
    Case(
        "deleted with finalizers",
        [version(101, deleting_at=at(5), generation=3), version(102, kind=DELETED, deleting_at=at(5))],
        [("deleted", None, 0, 5, 5)],
    ),
    Case(
        "edited while it was being deleted",
        [version(101, deleting_at=at(5)), version(102, "mail", deleting_at=at(5), packages_written_at=at(6))],
        [("deleted", None, 0, 5, 5)],
    ),
    Case(
        "was being deleted before",
        [version(101, kind=DELETED, deleting_at=at(-5))],
        [],
        before=remembered(deleting_at=at(-5)),
    ),
    Case(
        "created with a package",
        [version(101, "mail", kind=ADDED, created_at=at(5), generation=1)],
        [("created", None, 5, 5, 5), ("enabled", "mail", 5, 5, 5)],
        before=None,
    ),
    Case(
        "created suspended, and deleted a second later",
        [
            version(101, kind=ADDED, created_at=at(5), generation=1, suspended=True),
            version(102, kind=DELETED, created_at=at(5), generation=1, suspended=True),
        ],
        [("created", None, 5, 5, 5), ("suspended", None, 5, 5, 5), ("deleted", None, 5, 600, None)],
        before=None,
    ),
    Case(
        "a list that lacks what was there does not bound it",
        [version(101, "mail", packages_written_at=at(-60)), version(102, "mail", "wiki", **wrote(5))],
        [("created", None, -3600, -3600, -3600), ("enabled", "mail", -3600, -60, None), ("enabled", "wiki", 0, 5, 5)],
        before=None,
    ),
    Case(
        "but the end of it",
        [version(101, "mail", kind=DELETED)],
        [
            ("created", None, -3600, -3600, -3600),
            ("enabled", "mail", -3600, 600, None),
            ("deleted", None, 0, 600, None),
        ],
        before=None,
    ),
    Case(
        "a version that cannot be read says nothing",
        [version(101, problem="spec.packages is a number"), version(102, "mail", **wrote(5))],
        [("enabled", "mail", 0, 5, 5)],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.claim for case in CASES])
def test_what_the_versions_say(case: Case) -> None:
    found = [*changes(case.before, case.versions, case.lists, LISTED_AT, SECOND)]
    shown = [
        (
            change.kind,
            change.skill,
            (change.not_before - NOON).total_seconds(),
            (change.not_after - NOON).total_seconds(),
            change.at and (change.at - NOON).total_seconds(),
        )
        for change in found
    ]
    assert shown == case.said
    assert [*found] == sorted(found, key=lambda change: change.order)


def test_what_was_before_the_first_list_is_by_its_creation() -> None:
    found = [*first_changes(remembered("mail"), [], NOON, SECOND)]
    assert [(change.kind, change.at) for change in found] == [
        (Kind.CREATED, at(-3600)),
        (Kind.ENABLED, at(-3600)),
    ]


def test_what_was_turned_on_later_was_not_on_at_first() -> None:
    later = Change("1", "acme", "101", Kind.ENABLED, "mail", None, NOON, NOON, None, at(-3600))
    assert [change.kind for change in first_changes(remembered("mail"), [later], NOON, SECOND)] == [Kind.CREATED]


@given(st.lists(st.tuples(st.frozensets(st.sampled_from(["mail", "wiki"])), st.booleans()), max_size=8))
def test_the_changes_lead_from_each_state_to_the_next(states: list[tuple[frozenset[str], bool]]) -> None:
    versions = [
        version(101 + number, *sorted(packages), suspended=is_suspended)
        for number, (packages, is_suspended) in enumerate(states)
    ]
    on: set[str] = set()
    is_suspended = False
    for change in changes(remembered(), versions, (Seen(100, NOON),), LISTED_AT, SECOND):
        assert change.not_before <= change.not_after
        if change.skill:
            assert (change.skill in on) is (change.kind is Kind.DISABLED)
            on ^= {change.skill}
        else:
            assert is_suspended is (change.kind is Kind.RESUMED)
            is_suspended = not is_suspended
    assert (frozenset(on), is_suspended) == (states[-1] if states else (frozenset(), False))
