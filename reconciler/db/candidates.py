"""The tenants that could differ from the ledger: one query compares what is staged with the latest recorded state."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from reconciler.core.model import FIRST, LAST, Event, Lifecycle, Observed, Recorded
from reconciler.db.queries import query
from reconciler.db.staging import COLUMNS, DETAIL, stage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    import psycopg

    from reconciler.db.staging import TenantSpool

_decode_skills = msgspec.json.Decoder(dict[str, tuple[int, str, datetime]]).decode


class Candidate(NamedTuple):
    """A tenant that could differ: both sides."""

    observed: Observed | None
    recorded: Recorded


class Candidates(NamedTuple):
    """What came back."""

    candidates: list[Candidate]
    tenants_observed: int
    tenants_recorded: int
    """Lifecycle rows that are open."""
    ledger_is_empty: bool
    """True if there is no lifecycle row at all."""
    as_of: datetime
    """The database's clock when it was asked."""


def find_candidates(
    cursor: psycopg.Cursor[Any],
    spool: TenantSpool,
    *,
    settle: timedelta = timedelta(),
    names: Iterable[str] | None = None,
    everyone: bool = False,
) -> Candidates:
    """Stage what was listed and return the tenants that could differ from the ledger, by name.

    `names` restricts it to some, and `everyone` adds the tenants that are plainly true. What is staged lives as long as
    the transaction.

    Raises:
        RepeatedTenant: the list names one resource twice.
    """
    *_, middle = counts = stage(cursor, spool)
    only = None if names is None else list(names)
    parameters = {"names": only, "everyone": everyone, "middle": middle, "settle": settle, "first": FIRST, "last": LAST}
    cursor.execute(query("find_candidates"), parameters)
    return Candidates([_candidate(row) for row in cursor], *counts[:-1])


def invoiced_periods(cursor: psycopg.Cursor[Any], orgs: list[str]) -> dict[str, list[tuple[date, date]]]:
    """Return the invoiced periods of these organisations, as their first and last UTC days."""
    periods: dict[str, list[tuple[date, date]]] = {}
    if orgs:
        for org, start, end in cursor.execute(query("invoiced_periods"), {"orgs": orgs}):
            periods.setdefault(org, []).append((start, end))
    return periods


def accepted_reports(cursor: psycopg.Cursor[Any]) -> dict[tuple[str, str], datetime]:
    """Return until when which tenant's reports of which reason are accepted."""
    return {(name, reason): until for name, reason, until in cursor.execute(query("accepted"))}


def _candidate(row: tuple[Any, ...]) -> Candidate:
    *columns, detail, org, created_at, deleted_at, skills, id_, kind, occurred_at, verified_at = row
    observed = None
    if detail is not None:
        fields = dict(zip(COLUMNS + DETAIL, (*columns, *msgspec.json.decode(detail)), strict=True))
        observed = msgspec.convert([fields[field] for field in Observed._fields], Observed)
    latest = _decode_skills(skills).items() if skills else ()
    recorded = Recorded(
        name=columns[0],
        lifecycle=None if org is None else Lifecycle(org=org, created_at=created_at, deleted_at=deleted_at),
        skills={skill: Event(id_, kind, at.astimezone(UTC)) for skill, (id_, kind, at) in latest},
        suspension=None if id_ is None else Event(id_, kind, occurred_at),
        verified_at=verified_at,
    )
    return Candidate(observed, recorded)
