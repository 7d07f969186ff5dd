"""Does a correction still stand? What the ledger shows of its row, if somebody changed that by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.model import UNKNOWN_ORG, Action, Table, event_kind
from reconciler.core.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator


class Written(NamedTuple):
    """What a correction wrote."""

    tenant: str
    org: str
    subject: str | None
    reason: str
    action: str
    occurred_at: datetime | None
    observed: str | None = None


class Shown(NamedTuple):
    """The row that it wrote, as the ledger shows it now: an event, or a lifetime."""

    tenant: str
    org: str
    skill: str | None
    kind: str | None
    at: datetime
    """When the event occurred, or the lifetime began."""
    deleted_at: datetime | None


def difference(written: Written, shown: Shown | None) -> str | None:
    """Return what the ledger shows in place of what a correction wrote; None while that stands.

    The lifetime may have ended since, or begun anew. Another organisation is a later decision of its owner, but
    `unknown` is not: the next run would write the organisation once more.
    """
    row = "event" if written.action == Action.APPEND else "row"
    if shown is None:
        return f"its {row} is gone"
    changed = [
        f"{column} is {_text(found)}, not {_text(wanted)}"
        for column, wanted, found in _columns(written, shown)
        if found != wanted
    ]
    return f"its {row} was changed: {', '.join(changed)}" if changed else None


def _columns(written: Written, shown: Shown) -> Iterator[tuple[str, object, object]]:
    """Yield the columns that a correction decided, each with what was written and what is found."""
    if written.action == Action.APPEND:
        reason = Reason(written.reason) if written.reason in set(Reason) else None
        yield "tenant_name", written.tenant, shown.tenant
        yield "zitadel_org_id", written.org, shown.org
        if reason is None or reason.table is Table.SKILL_EVENTS:
            yield "skill_id", written.subject, shown.skill
        if reason:
            yield "event_kind", event_kind(reason, written.observed), shown.kind
        yield "occurred_at", written.occurred_at, shown.at
        return
    if written.action == Action.INSERT:
        yield "created_at", written.occurred_at, shown.at
    if written.action == Action.STAMP:
        yield "deleted_at", written.occurred_at, shown.deleted_at
    elif shown.org == UNKNOWN_ORG:
        yield "zitadel_org_id", written.org, shown.org


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return "empty" if value is None else str(value)
