"""What is recorded of a tenant: who pays for it from when until when, and what happened to its skills and suspension.

The first is its row in tenant_billing_lifecycle, the rest are the two tables of events, which only grow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from psycopg.rows import class_row, tuple_row

from reconciler.core.model import Lifecycle
from reconciler.ledger.calls import (
    InvalidArgument,
    NotRecorded,
    fetch_rows,
    valid_id,
    valid_ids,
    valid_instant,
    valid_moment,
    valid_moment_or_now,
    valid_org,
    valid_selection,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from reconciler.db.connection import Connection


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


def record_creation(connection: Connection, tenant: str, org: str | None, created_at: datetime) -> bool:
    """Record that a tenant was created and is billed from then on; return False if it was recorded before.

    `created_at` is its creationTimestamp. A tenant that is already recorded stays as it is, even if it is recorded as
    deleted. The reconciler reports what differs.
    """
    at = valid_moment("created_at", created_at)
    row = {"tenant": valid_id("tenant", tenant), "org": valid_org(org), "created_at": at}
    return bool(fetch_rows(connection, tuple_row, "record_creation", **row))


def record_deletion(connection: Connection, tenant: str, deleted_at: datetime | None = None) -> bool:
    """Record that a tenant was deleted and is billed until then; return False if it was recorded as deleted before.

    A `deleted_at` of None means when the transaction began, by the database's clock. The first recorded deletion stays.
    Skills that are on are recorded as disabled with `record_skills`, at the same time.

    Raises:
        NotRecorded: the ledger has no row of the tenant.
        InvalidArgument: also if the time is before the tenant's creation.
    """
    at = valid_moment_or_now("deleted_at", deleted_at)
    found = fetch_rows(connection, tuple_row, "record_deletion", tenant=valid_id("tenant", tenant), deleted_at=at)
    if not found:
        raise NotRecorded(
            f"The ledger has no tenant {tenant}: its creation was never recorded.",
            "Record its creation first, or leave both to the reconciler.",
        )
    ((stamped, created_at),) = found
    if at and at < created_at:
        raise InvalidArgument(
            f"deleted_at, {at}, is before {created_at}, when {tenant} was created: it would never have been billed.",
            "Nothing was written. Give the time of its deletion.",
        )
    return bool(stamped)


def lifecycle(connection: Connection, tenant: str) -> Lifecycle | None:
    """Read who pays for a tenant, and from when until when; None if the ledger has no row of it."""
    found = fetch_rows(connection, class_row(Lifecycle), "read_lifecycle", tenant=valid_id("tenant", tenant))
    return found[0] if found else None


def lifecycles(connection: Connection, org: str | None) -> dict[str, Lifecycle]:
    """Read the tenants that an organisation pays or paid for, including deleted ones, by name in code point order."""
    rows = fetch_rows(connection, tuple_row, "read_lifecycles", org=valid_org(org))
    return {name: Lifecycle(org=payer, created_at=start, deleted_at=end) for name, payer, start, end in rows}


def record_skills(
    connection: Connection,
    tenant: str,
    org: str | None,
    *,
    enabled: Iterable[str] = (),
    disabled: Iterable[str] = (),
    occurred_at: datetime | None = None,
) -> list[SkillEvent]:
    """Record that the skills `enabled` were turned on and `disabled` off, all at one time and in one statement.

    One event per skill is returned, in the order of the skills and of the events' ids. Events are only appended:
    recording one twice adds two rows, which changes no state. A time ahead of the database's clock is accepted, but the
    reconciler reports it and leaves that skill alone.

    Raises:
        InvalidArgument: also if a skill is given on both sides.
    """
    on, off = valid_ids("enabled", enabled), valid_ids("disabled", disabled)
    if both := sorted(on & off):
        raise InvalidArgument(
            f"{', '.join(both)}: a skill cannot be turned on and off at the same time.",
            "Nothing was written. Give each skill once.",
        )
    event = _valid_event(tenant, org, occurred_at)
    skills = {"enabled": sorted(on), "disabled": sorted(off)}
    return fetch_rows(connection, class_row(SkillEvent), "record_skill_events", **event, **skills)


def record_suspension(
    connection: Connection, tenant: str, org: str | None, occurred_at: datetime | None = None
) -> SuspensionEvent:
    """Record that a tenant was suspended, and return the event."""
    return _record_suspension_event(connection, "suspended", _valid_event(tenant, org, occurred_at))


def record_resumption(
    connection: Connection, tenant: str, org: str | None, occurred_at: datetime | None = None
) -> SuspensionEvent:
    """Record that a suspended tenant runs again, and return the event."""
    return _record_suspension_event(connection, "resumed", _valid_event(tenant, org, occurred_at))


def _record_suspension_event(connection: Connection, kind: str, event: dict[str, Any]) -> SuspensionEvent:
    (recorded,) = fetch_rows(connection, class_row(SuspensionEvent), "record_suspension_event", kind=kind, **event)
    return recorded


def _valid_event(tenant: str, org: str | None, occurred_at: datetime | None) -> dict[str, Any]:
    at = valid_moment_or_now("occurred_at", occurred_at)
    return {"tenant": valid_id("tenant", tenant), "org": valid_org(org), "occurred_at": at}


def skill_state_at(connection: Connection, tenant: str, instant: datetime) -> dict[str, SkillEvent]:
    """Read the latest event of each skill of a tenant at an instant, by the skill's id.

    It is the one with the greatest `occurred_at` up to the instant, and of two at the same time the one with the higher
    id. A skill that is missing had no event yet, and was off.
    """
    at = {"tenant": valid_id("tenant", tenant), "instant": valid_instant("instant", instant)}
    return {event.skill: event for event in fetch_rows(connection, class_row(SkillEvent), "read_skill_state", **at)}


def suspension_state_at(connection: Connection, tenant: str, instant: datetime) -> SuspensionEvent | None:
    """Read the latest suspension event of a tenant, chosen as in `skill_state_at`; None if it had none yet, and ran."""
    at = {"tenant": valid_id("tenant", tenant), "instant": valid_instant("instant", instant)}
    found = fetch_rows(connection, class_row(SuspensionEvent), "read_suspension_state", **at)
    return found[0] if found else None


def skill_events(
    connection: Connection, since: datetime, until: datetime, *, tenant: str | None = None, org: str | None = None
) -> list[SkillEvent]:
    """Read the skill events of a tenant, of an organisation, or of a tenant while that organisation paid.

    An event at exactly `since` counts, one at exactly `until` does not. A `tenant` of None means every tenant, an `org`
    of None any organisation. The events come by `occurred_at`, and at the same time by id.

    Raises:
        InvalidArgument: also if neither a tenant nor an organisation is given, or the end is before the start.
    """
    selected = valid_selection(since, until, tenant, org)
    return fetch_rows(connection, class_row(SkillEvent), "read_skill_events", **selected)


def suspension_events(
    connection: Connection, since: datetime, until: datetime, *, tenant: str | None = None, org: str | None = None
) -> list[SuspensionEvent]:
    """Read suspension events; `since`, `until`, the selection, the order and the errors are those of `skill_events`."""
    selected = valid_selection(since, until, tenant, org)
    return fetch_rows(connection, class_row(SuspensionEvent), "read_suspension_events", **selected)
