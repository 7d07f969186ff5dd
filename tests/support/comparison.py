"""Both sides of a comparison: a true tenant to change one fact of, and any tenant that Hypothesis can think of."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from reconciler.core.model import FIRST, LAST, UNKNOWN_ORG, Event, Lifecycle, Observed, Recorded

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
BORN = datetime(2026, 5, 1, 8, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

ENABLED = Event(7, "enabled", BORN)
DISABLED = Event(8, "disabled", BORN + 2 * DAY)
SUSPENDED = Event(3, "suspended", BORN + 3 * DAY)
RESUMED = Event(4, "resumed", BORN + 4 * DAY)

NASTY = (
    "'",
    '"',
    "\\",
    "\\.",
    "\\N",
    "{}",
    "{a,b}",
    "a,b",
    "NULL",
    "null",
    "a\nb",
    "\n\\.\n",
    "a\r\nb",
    "\r",
    "\t",
    " ",
    " a ",
    "😀",
    "é",
    "e\u0301",
    "\u2028",
    "\ufeff",
    "%s",
    "$1",
    "--",
    "ÿ",
    "\U0010ffff",
    "\x01",
    "\x7f",
)
"""Texts that a file format, a quoting or a sort order might trip over."""


def live_tenant(**fields: Any) -> Observed:
    """Return a live, running tenant without packages."""
    true = Observed(name="acme", uid="u1", org="2871", created_at=BORN, generation=4, last_modified_at=BORN)
    return true._replace(**fields)


def lifecycle_row(**fields: Any) -> Lifecycle:
    """Return the lifecycle row that is true of `live_tenant()`."""
    return replace(Lifecycle(org="2871", created_at=BORN), **fields)


def recorded_tenant(lifecycle: Lifecycle | None = lifecycle_row(), **fields: Any) -> Recorded:  # noqa: B008 - it is frozen
    """Return the record that is true of `live_tenant()`."""
    return Recorded(name="acme", lifecycle=lifecycle, **fields)


_moments = st.integers(-50, 0).map(lambda days: NOW + days * DAY) | st.datetimes(
    BORN.replace(tzinfo=None), NOW.replace(tzinfo=None), timezones=st.just(UTC)
)
_recorded_moments = st.one_of(_moments, _moments, st.sampled_from([NOW, NOW + SECOND, NOW + 400 * DAY, FIRST, LAST]))
_orgs = st.sampled_from(["2871", "2872"])
_skills = st.sampled_from(["a", "b", "c", "d"])


@st.composite
def resources(draw: st.DrawFn) -> Observed:
    """Draw a custom resource as a source could show it."""
    if draw(st.integers(0, 9)) == 0:
        return Observed(name="acme", problem="Expected array, got str - at spec.packages")
    created_at = draw(_moments)
    return Observed(
        name="acme",
        org=draw(st.none() | _orgs),
        created_at=created_at,
        deleting_at=draw(st.none() | st.none() | _moments | st.just(NOW + HOUR)),
        generation=draw(st.none() | st.integers(1, 3)),
        packages=tuple(sorted(draw(st.sets(_skills)))),
        suspended=draw(st.booleans()),
        suspended_at=draw(st.none() | _moments),
        last_modified_at=draw(st.none() | _moments),
        packages_written_at=draw(st.none() | _moments),
        suspend_written_at=draw(st.none() | _moments),
    )


def _events(*kinds: str) -> st.SearchStrategy[Event]:
    return st.builds(Event, st.integers(1, 99), st.sampled_from(kinds), _recorded_moments)


@st.composite
def records(draw: st.DrawFn, *, certain: bool = False) -> Recorded:
    """Draw what a ledger could say of a tenant; `certain`: it says something."""
    lifecycle = draw(
        st.none()
        | st.builds(
            Lifecycle,
            org=st.just(UNKNOWN_ORG) | _orgs,
            created_at=_recorded_moments,
            deleted_at=st.none() | _recorded_moments,
        )
    )
    skills = draw(
        st.dictionaries(_skills, _events("enabled", "disabled"), min_size=1 if certain and lifecycle is None else 0)
    )
    follows, continues = draw(st.sampled_from([(False, False), (False, False), (True, False), (False, True)]))
    return Recorded(
        name="acme",
        lifecycle=lifecycle,
        skills=skills,
        follows=follows,
        continues=continues,
        payer=draw(st.none() | st.none() | _orgs),
        suspension=draw(st.none() | _events("suspended", "resumed")),
        verified_at=draw(st.none() | _moments),
    )


@st.composite
def observed_and_recorded(draw: st.DrawFn) -> tuple[Observed | None, Recorded]:
    """Draw a tenant of which at least one side knows something."""
    resource = draw(st.none() | resources())
    return resource, draw(records(certain=resource is None))
