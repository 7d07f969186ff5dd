"""Find the tenants that could differ from the ledger.

The listed tenants are written to a file while the pages arrive, so that neither memory nor a transaction waits for the
cluster. It is copied into a table that lives as long as the transaction, and one query compares that with the latest
recorded state.
"""

from __future__ import annotations

import codecs
import operator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from reconciler.core.errors import Failure
from reconciler.core.model import FIRST, LAST, Event, Lifecycle, Observed, Recorded
from reconciler.db.citus import is_on_citus, query_for
from reconciler.db.copied import array_literal, escape
from reconciler.db.keys import read_left_out
from reconciler.db.queries import query
from reconciler.db.spool import CopySpool

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from reconciler.core.model import Changed
    from reconciler.db.connection import Cursor

MAX_SKILLS = 20_000
"""Skills of one tenant that a run can decide about. A custom resource holds fewer."""
SPOOLED = "The observed tenants"
"""What cannot be kept, where the disk is full."""

COLUMNS = ("name", "namespace", "uid", "org", "packages", "suspended", "resource_version")
"""What of a resource has a column of its own, because it is compared with the ledger."""
_IDENTITY = COLUMNS[:3]
DETAIL = tuple(field for field in Observed._fields if field not in COLUMNS)
"""What goes along in one column: it is read again only of tenants that differ."""

_detail = operator.attrgetter(*DETAIL)
_encode = msgspec.json.Encoder().encode
_PACKAGES, _SKILLS = COLUMNS.index("packages"), -6
"""Where a row of `find_candidates` has them."""
_decode_skills = msgspec.json.Decoder(dict[str, tuple[int, str, datetime]]).decode


class RepeatedTenant(Failure):
    """The list names one resource twice."""


class Renewed(NamedTuple):
    """The tenants that a list shows under another uid than the list before."""

    source: str | None = None
    """The source of the list before."""
    following: tuple[str, ...] = ()
    """Their uids."""
    continuing: tuple[str, ...] = ()
    """Those of them that are taken for the same tenant."""


NOTHING_RENEWED = Renewed()


class Staged(NamedTuple):
    """What was listed, as far as it is counted when it is staged."""

    tenants_observed: int
    tenants_recorded: int
    ledger_is_empty: bool
    as_of: datetime
    middle: str
    """The name at which the recorded events halve."""


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


class TenantSpool(CopySpool):
    """A temporary file of observed tenants."""

    def __init__(self) -> None:
        super().__init__(SPOOLED)

    def add(self, tenant: Observed, /) -> None:
        """Add one tenant."""
        self.write(_row(tenant))


def stage(cursor: Cursor, spool: TenantSpool, changed: Changed | None = None) -> Staged:
    """Stage what was listed, for as long as the transaction lives.

    Where only what has `changed` was read, that says how many tenants there are: they are not counted.

    Raises:
        RepeatedTenant: the list names one resource twice.
    """
    cursor.execute(query("stage"))
    _copy(cursor, _holdable(spool, cursor.connection.info.parameter_status("server_encoding")))
    known = {
        "observed": changed and changed.tenants_observed,
        "recorded": changed and changed.tenants_recorded,
    }
    ((*counts, has_duplicates),) = cursor.execute(query("counts"), known).fetchall()
    if has_duplicates:
        _resolve_duplicates(cursor)
        ((*counts, _),) = cursor.execute(query("counts"), known).fetchall()
    return Staged(*counts)


def find_candidates(
    cursor: Cursor,
    staged: Staged,
    *,
    settle: timedelta = timedelta(),
    names: Iterable[str] | None = None,
    everyone: bool = False,
    renewed: Renewed = NOTHING_RENEWED,
) -> Candidates:
    """Return the staged tenants that could differ from the ledger, by name.

    `names` restricts it to some, and `everyone` adds the tenants that are plainly true; `renewed` are those that this
    list shows under another uid.
    """
    left_out = read_left_out(cursor)
    parameters: dict[str, object] = {
        "left_out_skills": left_out[True],
        "left_out_suspensions": left_out[False],
        "names": None if names is None else list(names),
        "everyone": everyone,
        "middle": staged.middle,
        "settle": settle,
        "max_skills": MAX_SKILLS,
        "first": FIRST,
        "last": LAST,
        "source": renewed.source,
        "following": list(renewed.following),
        "continuing": list(renewed.continuing),
    }
    rows: Iterable[tuple[Any, ...]] = cursor.execute(query_for(cursor, "find_candidates"), parameters)
    if is_on_citus(cursor):
        rows = _with_skills(cursor, [*rows], parameters | {"as_of": staged.as_of})
    counts = staged.tenants_observed, staged.tenants_recorded, staged.ledger_is_empty, staged.as_of
    return Candidates(_without_retracted(cursor, [_candidate(row) for row in rows]), *counts)


def _without_retracted(cursor: Cursor, found: list[Candidate]) -> list[Candidate]:
    """Return the candidates without those of which nothing is left but events that a person took back."""
    names = {each.recorded.name for each in found if each.observed is None and each.recorded.lifecycle is None}
    if not names:
        return found
    ((skills, suspensions),) = cursor.execute(query("set_aside"), {"names": [*names]}).fetchall()
    if not (skills or suspensions):
        return found
    asked = {"names": [*names], "skills": skills, "suspensions": suspensions}
    kept = {name for (name,) in cursor.execute(query("with_other_events"), asked)}
    return [each for each in found if each.recorded.name not in names - kept]


def _with_skills(cursor: Cursor, rows: list[tuple[Any, ...]], parameters: dict[str, object]) -> list[tuple[Any, ...]]:
    """Return rows of `find_candidates` with the skills of each, which Citus is asked for in a query of their own."""
    packages = [_encode(row[_PACKAGES] or ()).decode() for row in rows]
    asked = parameters | {"names": [row[0] for row in rows], "packages": packages}
    skills = dict(cursor.execute(query("skills_of_candidates"), asked).fetchall()) if rows else {}
    return [(*row[:_SKILLS], skills.get(row[0]), *row[_SKILLS + 1 :]) for row in rows]


def _holdable(spool: TenantSpool, encoding: str | None) -> Iterator[bytes]:
    """Return what was listed, with every tenant that the database's encoding cannot hold as one that cannot be read.

    PostgreSQL refuses all of a COPY for one such character. It still does where Python has no codec of that name, and
    where the tenant's own name is concerned.
    """
    if encoding is None or encoding == "UTF8":
        return spool.blocks()
    try:
        codec = codecs.lookup(encoding.replace("WIN", "cp"))
    except LookupError:
        return spool.blocks()
    return (_holdable_row(row.decode(), codec.name, encoding) for row in spool.rows())


def _holdable_row(row: str, codec: str, encoding: str) -> bytes:
    try:
        row.encode(codec)
    except UnicodeEncodeError as error:
        problem = f"the ledger's encoding {encoding} cannot hold its character U+{ord(row[error.start]):04X}"
        identity = row.split("\t")[: len(_IDENTITY)]
        unreadable = _row(Observed(name="", problem=problem)).decode().split("\t")[len(_IDENTITY) :]
        row = "\t".join(identity + unreadable)
    return row.encode()


def _copy(cursor: Cursor, blocks: Iterable[bytes]) -> None:
    with cursor.copy(query("copy")) as copy:
        for block in blocks:
            copy.write(block)


def _resolve_duplicates(cursor: Cursor) -> None:
    """Raise if the list repeats a resource; tenants that share a name become one that cannot be read."""
    if repeated := cursor.execute(query("repeated")).fetchone():
        raise RepeatedTenant(
            f"The list of tenants names {'/'.join(filter(None, repeated))} twice: it cannot be trusted.",
            "Nothing was written. A file may contain each tenant once; an API server never sends one twice.",
        )
    namespaces: dict[str, list[str]] = {}
    for name, namespace in cursor.execute(query("take_ambiguous")):
        namespaces.setdefault(name, []).append(namespace)
    problem = "the name stands in more than one namespace: "
    _copy(cursor, [_row(Observed(name=name, problem=problem + ", ".join(sorted(n)))) for name, n in namespaces.items()])


def accepted_reports(cursor: Cursor) -> dict[tuple[str, str], datetime]:
    """Return until when which tenant's reports of which reason are accepted."""
    return {(name, reason): until for name, reason, until in cursor.execute(query("accepted"))}


def _row(tenant: Observed) -> bytes:
    """Return a tenant as a line of COPY's text format."""
    created_at, deleting_at = tenant.created_at, tenant.deleting_at
    youngest = max(created_at, deleting_at) if created_at and deleting_at else created_at or deleting_at
    fields: tuple[str | None, ...] = (
        tenant.name,
        tenant.namespace,
        tenant.uid,
        tenant.org,
        None if tenant.problem else "f" if deleting_at else "t",
        array_literal(tenant.packages),
        "t" if tenant.suspended else "f",
        _encode(youngest)[1:-1].decode() if youngest else None,
        tenant.resource_version,
        _encode(_detail(tenant)).decode(),
    )
    # most tenants hold nothing that COPY would misread, and to see that is cheaper than to escape it
    if None not in fields:
        line = "\t".join(cast("tuple[str, ...]", fields))
        if not ("\\" in line or "\n" in line or "\r" in line) and line.count("\t") == len(fields) - 1:
            return line.encode() + b"\n"
    return "\t".join(map(escape, fields)).encode() + b"\n"


def _candidate(row: tuple[Any, ...]) -> Candidate:
    """Return both sides of a tenant from a row of `find_candidates`; `_row` wrote the detail."""
    *columns, detail, org, created_at, deleted_at, payer, follows, continues = row[:_SKILLS]
    skills, id_, kind, at, verified_at, start_is_decided = row[_SKILLS:]
    latest = _decode_skills(skills) if skills else {}
    problem = f"More than {MAX_SKILLS:,} skills are on or were just turned off." if len(latest) > MAX_SKILLS else None
    recorded = Recorded(
        name=columns[0],
        lifecycle=None if org is None else Lifecycle(org=org, created_at=created_at, deleted_at=deleted_at),
        skills={}
        if problem
        else {skill: Event(id_, kind, at.astimezone(UTC)) for skill, (id_, kind, at) in latest.items()},
        suspension=None if id_ is None else Event(id_, kind, at),
        follows=follows,
        continues=continues,
        payer=payer,
        verified_at=verified_at,
        start_is_decided=start_is_decided,
        problem=problem,
    )
    return Candidate(as_observed(tuple(columns), detail), recorded)


def as_observed(columns: tuple[Any, ...], detail: str | None) -> Observed | None:
    """Return what was staged of a tenant, in the order of `COLUMNS`; None if it is not there."""
    if detail is None:
        return None
    fields = dict(zip(COLUMNS + DETAIL, (*columns, *msgspec.json.decode(detail)), strict=True))
    return msgspec.convert([fields[field] for field in Observed._fields], Observed)
