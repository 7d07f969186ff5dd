"""Write who pays for which days of a tenant. No row of the ledger changes: see `reconciler.core.billing.Lifetime`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

from reconciler.core.billing import Payer, with_payer
from reconciler.core.decisions import NotPutRight, PutRight, line_changes
from reconciler.core.model import LAST
from reconciler.db.decisions import deciding
from reconciler.db.explain import unknown_tenant
from reconciler.db.put_right import begin, with_billed, write
from reconciler.db.queries import query
from reconciler.db.usage import history, prices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.core.billing import Lifetime
    from reconciler.db.apply import Author
    from reconciler.db.connection import Cursor


def record_payer(
    cursor: Cursor, tenant: str, org: str, *, since: date, until: date | None, author: Author, dry_run: bool = False
) -> PutRight:
    """Record that an organisation pays for a tenant from one UTC day until the day before another.

    Without `until` it pays until the end of the lifetime that `since` lies in. With `dry_run` nothing is written.

    Raises:
        NotPutRight: the days do not lie inside one lifetime, or after today.
        UnknownTenant: the ledger does not know the tenant.
    """
    now = begin(cursor)
    before = history(cursor, tenant)
    lived = before.lifetimes
    if not lived:
        raise unknown_tenant(cursor, tenant, refused=True)
    ends = _end(tenant, lived, since, until, now)
    last = (ends or LAST.date()).toordinal() - (1 if ends else 0)
    paid = with_payer(lived[0].payers, Payer(org, since.toordinal(), last))
    payer = next(share for share, *_ in lived[0].shares(since.toordinal(), since.toordinal()))
    after = replace(before, lifetimes=tuple(one._replace(payers=paid) for one in lived))
    changes = tuple(line_changes(tenant, before, after, prices(cursor), now))
    begins_at = datetime.combine(since, time(), UTC)
    ends_at = datetime.combine(ends, time(), UTC) if ends else LAST
    said = f"paid for by {org}"
    done = with_billed(cursor, PutRight(None, tenant, None, said, begins_at, ends_at, None, (), changes, *author))
    if dry_run:
        return done
    done = write(cursor, done)
    row = {"number": done.number, "tenant": tenant, "org": org, "before": payer, "since": since, "until": ends}
    moment = {"begins_at": begins_at, "ends_at": ends_at if ends else None, "closed": bool(done.billed)}
    with deciding():
        cursor.execute(query("keep_payer"), row)
        cursor.execute(query("prove_payer"), {**row, **moment, **author._asdict()})
    return done


def _end(tenant: str, lived: Sequence[Lifetime], since: date, until: date | None, now: datetime) -> date | None:
    """Return the day after the last one that is paid; None while the lifetime is open."""
    tomorrow = (now.astimezone(UTC) + timedelta(days=1)).date()
    if since >= tomorrow or (until and until > tomorrow):
        raise NotPutRight(
            f"Today is {tomorrow - timedelta(days=1)} in UTC, by the ledger's clock: who pays later is not known.",
            "Nothing was written. Give days up to today; without --to it pays until the lifetime ends.",
        )
    spans = [
        (
            one.began_at.astimezone(UTC).date(),
            one.ended_at and (one.ended_at - timedelta.resolution).astimezone(UTC).date() + timedelta(days=1),
        )
        for one in lived
    ]
    begins, ends = next(((a, b) for a, b in reversed(spans) if a <= since and (not b or since < b)), (None, None))
    if begins is None or (until and (until <= since or (ends and until > ends))):
        known = ", ".join(f"{a} to {b - timedelta(days=1) if b else 'today'}" for a, b in spans)
        raise NotPutRight(
            f"{since} to {until or 'the end'} are not days of one lifetime of {tenant}: it existed {known}.",
            "Nothing was written. Give --from a day of a lifetime, and --to a later day, up to the one after its last.",
        )
    return until or ends
