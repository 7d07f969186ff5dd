"""Read whether a period is proven, and for whom it is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from reconciler.core.certificate import (
    HELP,
    Cause,
    Certificate,
    Doubt,
    Facts,
    OpenGap,
    Question,
    Reported,
    Stay,
    certify,
)
from reconciler.core.closing import Accepted, accepted
from reconciler.core.errors import Refusal
from reconciler.core.status import Unverified
from reconciler.db.connection import server_cursor
from reconciler.db.queries import query

if TYPE_CHECKING:
    from reconciler.db.connection import Cursor

ROWS_BATCH = 2_000
"""Tenants whose facts are in memory at a time."""
MAX_NAMES = 5
"""Tenants that a message names for each cause."""
MAX_RUNS_SEARCHED = 2_000
"""Runs that compared all tenants, weeks of them, among which the one is searched that last proved a tenant."""

_decode_stays = msgspec.json.Decoder(tuple[Stay, ...]).decode
_decode_gaps = msgspec.json.Decoder(tuple[OpenGap, ...]).decode
_decode_reports = msgspec.json.Decoder(tuple[Reported, ...]).decode


class NotVerified(Refusal):
    """It is not proven what happened in the period, or a later run may still date a correction inside it."""


def read_certificate(
    cursor: Cursor,
    first: date,
    until: date,
    *,
    settle: timedelta,
    org: str | None = None,
    tenant: str | None = None,
) -> Certificate:
    """Return whether a period is proven: UTC days, `until` is the day after its last one.

    `org` restricts it to what this organisation may have to pay, `tenant` to this tenant. What the closings of a month
    accept of it is accepted, of that month only. The transaction must be one
    of `reconciler.db.connection.snapshot`.
    """
    begins, ends = (datetime.combine(day, time(), UTC) for day in (first, until))
    proof = read_verification(cursor, settle=settle)
    # what is asked must not widen what may be missing at the start of a lifetime
    question = Question(begins, ends, proof.settle)
    proofs = {one.tenant: one.verified_until for one in read_unverified(cursor, settle=settle)}
    asked = {"first": begins, "until": ends, "settle": proof.settle, "org": org, "tenant": tenant}
    with server_cursor(cursor, "facts") as stream:
        stream.itersize = ROWS_BATCH
        rows = stream.execute(query("certificate_facts"), asked)
        certificate = certify(question, proof.verified_until, (_facts(row, proofs) for row in rows))
    if not certificate.refused or until != (first + timedelta(days=31)).replace(day=1):
        return certificate
    known = {Accepted(*row) for row in cursor.execute(query("accepted_of_month"), {"month": first})}
    doubts = (
        each._replace(accepted=each.accepted or accepted(each, certificate.until) in known)
        for each in certificate.doubts
    )
    return replace(certificate, doubts=tuple(doubts))


class Verification(NamedTuple):
    """What the last runs over a cluster proved."""

    as_of: datetime
    """The database's clock."""
    verified_until: datetime | None
    """Up to when the last run proved the ledger that compared all tenants; None: there was none."""
    unverified: int
    """For how many tenants it is not proven, by the last run of all."""
    settle: timedelta
    """How long after a change the portal could still write its row, as the run was told that compared all."""
    changes_until: datetime | None
    """Up to when the last run of all read what has changed."""


def read_verification(cursor: Cursor, *, settle: timedelta) -> Verification:
    """Return what the last runs proved, if rows may still come for so long after a change."""
    ((as_of, until, unverified, own, changes),) = cursor.execute(query("last_proof"), {"settle": settle}).fetchall()
    return Verification(as_of.astimezone(UTC), until, unverified or 0, own or timedelta(), changes)


def read_unverified(cursor: Cursor, *, settle: timedelta, max_rows: int | None = None) -> list[Unverified]:
    """Return the tenants that the last run could not prove, by name: all of them, or the first `max_rows`."""
    bounds = {"settle": settle, "max_runs": MAX_RUNS_SEARCHED, "max_rows": max_rows}
    return [Unverified(*row) for row in cursor.execute(query("unverified"), bounds)]


def refuse_unproven(
    certificate: Certificate, *, helps: str = "Without --verified the lines are shown as they stand."
) -> None:
    """Raise unless the period is proven. `helps` is what else the command can do.

    Raises:
        NotVerified: what is not, for whom, and what would help.
    """
    if certificate.is_proven:
        return
    said, remedies = [], [helps]
    last = (certificate.until - timedelta(days=1)).date()
    for cause in Cause:
        doubts = [doubt for doubt in certificate.refused if doubt.cause is cause]
        if not doubts:
            continue
        if cause is Cause.UNVERIFIED:
            so_far = doubts[0].from_at
            until = f"only up to {so_far:%Y-%m-%d %H:%M:%S} UTC" if so_far else "by no run yet"
            said.append(f"The period ends with {last} UTC, and the ledger is verified {until}.")
        else:
            more = f" and {len(doubts) - MAX_NAMES} more" if len(doubts) > MAX_NAMES else ""
            said.append(f"Not proven ({cause}): {'; '.join(map(_named, doubts[:MAX_NAMES]))}{more}.")
        remedies.append(f"{cause}: {HELP[cause]}.")
    raise NotVerified(" ".join(said), " ".join(remedies))


def _named(doubt: Doubt) -> str:
    """Return a tenant with what is in doubt about it."""
    detail = f" {doubt.detail}" if doubt.detail else ""
    if doubt.cause is Cause.KNOWN_SINCE:
        return f"{doubt.tenant} {f'since {_minute(doubt.until_at)}' if doubt.until_at else 'never seen'}"
    if doubt.from_at and doubt.until_at:
        return f"{doubt.tenant}{detail} {_minute(doubt.from_at)} to {_minute(doubt.until_at)}"
    return f"{doubt.tenant}{detail}"


def _minute(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def _facts(row: tuple[Any, ...], proofs: dict[str, datetime | None]) -> Facts:
    name, lifetimes, seen, gaps, assumed, reports, accepted_at, is_unverified = row
    return Facts(
        tenant=name,
        lifetimes=_decode_stays(lifetimes),
        seen=_decode_stays(seen),
        gaps=_decode_gaps(gaps),
        assumed=_decode_gaps(assumed),
        reports=_decode_reports(reports),
        accepted_at=accepted_at,
        is_unverified=is_unverified,
        verified_until=proofs.get(name),
    )
