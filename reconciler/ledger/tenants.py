"""A tenant's row in tenant_billing_lifecycle: who pays for it, from when until when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.rows import class_row, tuple_row

from reconciler.core.model import Lifecycle
from reconciler.ledger.arguments import InvalidArgument, valid_id, valid_moment, valid_moment_or_now, valid_org
from reconciler.ledger.rows import NotRecorded, fetch_rows

if TYPE_CHECKING:
    from datetime import datetime

    from reconciler.ledger.rows import Connection


def record_creation(connection: Connection, tenant: str, org: str | None, created_at: datetime) -> bool:
    """Record that a tenant was created at its creationTimestamp, `created_at`, and is billed from then on.

    A tenant that is already recorded stays as it is, even if it is recorded as deleted. The reconciler reports what
    differs.

    Returns:
        True if it was written, False if the tenant was recorded before.
    """
    row = {
        "tenant": valid_id("tenant", tenant),
        "org": valid_org(org),
        "created_at": valid_moment("created_at", created_at),
    }
    return bool(fetch_rows(connection, tuple_row, "record_creation", **row))


def record_deletion(connection: Connection, tenant: str, deleted_at: datetime | None = None) -> bool:
    """Record that a tenant was deleted and is billed until then.

    A `deleted_at` of None means when the transaction began, by the database's clock. The first recorded deletion stays.
    Skills that are on are recorded as disabled with `record_skills`, at the same time.

    Returns:
        True if it was written, False if the tenant was recorded as deleted before.

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
