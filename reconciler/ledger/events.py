"""What happened to a tenant's skills and when it was suspended: the two tables of events, which only grow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from psycopg.rows import class_row

from reconciler.ledger.arguments import (
    InvalidArgument,
    valid_id,
    valid_ids,
    valid_instant,
    valid_moment_or_now,
    valid_org,
    valid_period,
    valid_selection,
)
from reconciler.ledger.rows import fetch_rows

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from reconciler.ledger.rows import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class SkillEvent:
    """A row of tenant_skill_events."""

    id: int
    tenant: str
    org: str
    skill: str
    kind: Literal["enabled", "disabled"]
    occurred_at: datetime

    @property
    def enabled(self) -> bool:
        """True if the skill is on from then."""
        return self.kind == "enabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspensionEvent:
    """A row of tenant_suspension_events."""

    id: int
    tenant: str
    org: str
    kind: Literal["suspended", "resumed"]
    occurred_at: datetime

    @property
    def suspended(self) -> bool:
        """True if the tenant is suspended from then."""
        return self.kind == "suspended"


def record_skills(
    connection: Connection,
    tenant: str,
    org: str | None,
    *,
    enabled: Iterable[str] = (),
    disabled: Iterable[str] = (),
    occurred_at: datetime | None = None,
) -> list[SkillEvent]:
    """Record that skills were turned on and off, all at one time and in one statement.

    Events are only appended: recording one twice adds two rows, which changes no state. A time ahead of the database's
    clock is accepted, but the reconciler reports it and leaves that skill alone.

    Args:
        connection: the write is part of its transaction.
        tenant: the name of the custom resource.
        org: the organisation that pays; None or empty means unknown.
        enabled: the ids of the skills that were turned on.
        disabled: the ids of those that were turned off.
        occurred_at: when, in UTC; None means when the transaction began, by the database's clock.

    Returns:
        One event per skill, in the order of the skills and of their own ids. Empty if no skill is given.

    Raises:
        InvalidArgument: an id is empty or not text, a skill is given on both sides, or the time is naive or not in UTC.
    """
    on, off = valid_ids("enabled", enabled), valid_ids("disabled", disabled)
    if both := sorted(on & off):
        raise InvalidArgument(
            f"{', '.join(both)}: a skill cannot be turned on and off at the same time.",
            "Nothing was written. Give each skill once.",
        )
    return fetch_rows(
        connection,
        class_row(SkillEvent),
        "record_skill_events",
        tenant=valid_id("tenant", tenant),
        org=valid_org(org),
        enabled=sorted(on),
        disabled=sorted(off),
        occurred_at=valid_moment_or_now("occurred_at", occurred_at),
    )


def record_suspension(
    connection: Connection, tenant: str, org: str | None, occurred_at: datetime | None = None
) -> SuspensionEvent:
    """Record that a tenant was suspended.

    Args:
        connection: the write is part of its transaction.
        tenant: the name of the custom resource.
        org: the organisation that pays; None or empty means unknown.
        occurred_at: when, in UTC; None means when the transaction began, by the database's clock.

    Returns:
        The event.

    Raises:
        InvalidArgument: the name is empty or not text, or the time is naive or not in UTC.
    """
    return _record_suspension_event(connection, tenant, org, "suspended", occurred_at)


def record_resumption(
    connection: Connection, tenant: str, org: str | None, occurred_at: datetime | None = None
) -> SuspensionEvent:
    """Record that a suspended tenant runs again.

    Args:
        connection: the write is part of its transaction.
        tenant: the name of the custom resource.
        org: the organisation that pays; None or empty means unknown.
        occurred_at: when, in UTC; None means when the transaction began, by the database's clock.

    Returns:
        The event.

    Raises:
        InvalidArgument: the name is empty or not text, or the time is naive or not in UTC.
    """
    return _record_suspension_event(connection, tenant, org, "resumed", occurred_at)


def _record_suspension_event(
    connection: Connection, tenant: str, org: str | None, kind: str, occurred_at: datetime | None
) -> SuspensionEvent:
    (event,) = fetch_rows(
        connection,
        class_row(SuspensionEvent),
        "record_suspension_event",
        tenant=valid_id("tenant", tenant),
        org=valid_org(org),
        kind=kind,
        occurred_at=valid_moment_or_now("occurred_at", occurred_at),
    )
    return event


def skill_state_at(connection: Connection, tenant: str, instant: datetime) -> dict[str, SkillEvent]:
    """Read which skills of a tenant were on at an instant.

    Args:
        connection: the read is part of its transaction.
        tenant: the name of the custom resource.
        instant: in UTC; an event at exactly that instant counts.

    Returns:
        The latest event of each skill by its id: the greatest `occurred_at` up to the instant, and of two at the same
        time the higher id. A skill that is missing had no event yet, and was off.

    Raises:
        InvalidArgument: the name is empty or not text, or the instant is naive or not in UTC.
    """
    events = fetch_rows(
        connection,
        class_row(SkillEvent),
        "read_skill_state",
        tenant=valid_id("tenant", tenant),
        instant=valid_instant("instant", instant),
    )
    return {event.skill: event for event in events}


def suspension_state_at(connection: Connection, tenant: str, instant: datetime) -> SuspensionEvent | None:
    """Read whether a tenant was suspended at an instant.

    Args:
        connection: the read is part of its transaction.
        tenant: the name of the custom resource.
        instant: in UTC; an event at exactly that instant counts.

    Returns:
        The latest event, chosen as in `skill_state_at`; None if there was no event yet and the tenant was running.

    Raises:
        InvalidArgument: the name is empty or not text, or the instant is naive or not in UTC.
    """
    found = fetch_rows(
        connection,
        class_row(SuspensionEvent),
        "read_suspension_state",
        tenant=valid_id("tenant", tenant),
        instant=valid_instant("instant", instant),
    )
    return found[0] if found else None


def skill_events(
    connection: Connection, since: datetime, until: datetime, *, tenant: str | None = None, org: str | None = None
) -> list[SkillEvent]:
    """Read the skill events of a tenant, of an organisation, or of a tenant while that organisation paid.

    Args:
        connection: the read is part of its transaction.
        since: the start, in UTC; an event at exactly that instant counts.
        until: the end, in UTC; an event at exactly that instant does not count.
        tenant: the name of the custom resource; None means every tenant of the organisation.
        org: the organisation on the events; None means any, empty means unknown.

    Returns:
        The events by `occurred_at`, and at the same time by id.

    Raises:
        InvalidArgument: neither a tenant nor an organisation is given, a time is naive or not in UTC, or the end is
            before the start.
    """
    selected = valid_period(since, until) | valid_selection(tenant, org)
    return fetch_rows(connection, class_row(SkillEvent), "read_skill_events", **selected)


def suspension_events(
    connection: Connection, since: datetime, until: datetime, *, tenant: str | None = None, org: str | None = None
) -> list[SuspensionEvent]:
    """Read the suspension events of a tenant, of an organisation, or of a tenant while that organisation paid.

    Args:
        connection: the read is part of its transaction.
        since: the start, in UTC; an event at exactly that instant counts.
        until: the end, in UTC; an event at exactly that instant does not count.
        tenant: the name of the custom resource; None means every tenant of the organisation.
        org: the organisation on the events; None means any, empty means unknown.

    Returns:
        The events by `occurred_at`, and at the same time by id.

    Raises:
        InvalidArgument: neither a tenant nor an organisation is given, a time is naive or not in UTC, or the end is
            before the start.
    """
    selected = valid_period(since, until) | valid_selection(tenant, org)
    return fetch_rows(connection, class_row(SuspensionEvent), "read_suspension_events", **selected)
