"""What the ledger says of the tenants that were observed: only those that could differ come back.

The tenants are spooled to a file while they arrive, so that neither memory nor a transaction waits for the cluster,
and copied into a temporary table that lives as long as the transaction. One query then holds them against the latest
recorded state.
"""

from __future__ import annotations

import operator
import tempfile
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self, cast

import msgspec

from reconciler.core.errors import Failure
from reconciler.core.model import FIRST, LAST, Event, Lifecycle, Observed, Recorded
from reconciler.db.copyformat import escaped
from reconciler.db.queries import query

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import psycopg

BLOCK = 2**20

_COLUMNS = ("name", "namespace", "uid", "org", "packages", "suspended")
"""What of a resource has a column of its own, because the ledger is held against it."""
_DETAIL = tuple(field for field in Observed._fields if field not in _COLUMNS)
"""What goes along in one: it is read again only of tenants that differ."""
_detail = operator.attrgetter(*_DETAIL)
_encode = msgspec.json.Encoder().encode
_decode_skills = msgspec.json.Decoder(dict[str, tuple[int, str, datetime]]).decode


class SpoolFault(Failure):
    """The tenants could not be kept on this machine's disk."""


class RepeatedTenant(Failure):
    """The list names one resource twice."""


class TenantSpool:
    """A file of observed tenants, in the form that COPY takes.

    Use it as a context manager: the file is gone at its end.
    """

    def __init__(self) -> None:
        with _on_disk():
            self._file: IO[bytes] = tempfile.TemporaryFile(buffering=BLOCK)  # noqa: SIM115 - __exit__ closes it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # closing would flush once more, and fail once more where the disk is full
        with suppress(OSError):
            self._file.close()

    def add(self, tenant: Observed, /) -> None:
        """Take one tenant.

        Raises:
            SpoolFault: the disk is full.
        """
        row = _row(tenant)
        try:
            self._file.write(row)
        except OSError as error:
            raise _full(error) from None

    def restart(self) -> None:
        """Forget every tenant taken so far."""
        with _on_disk():
            self._file.seek(0)
            self._file.truncate()

    def blocks(self) -> Iterator[bytes]:
        """Yield what was spooled, a block at a time."""
        with _on_disk():
            self._file.flush()
            self._file.seek(0)
            while block := self._file.read(BLOCK):
                yield block


class Candidate(NamedTuple):
    """A tenant that could differ: both sides."""

    observed: Observed | None
    recorded: Recorded


class Candidates(NamedTuple):
    """What came back."""

    pairs: list[Candidate]
    tenants_observed: int
    tenants_recorded: int
    """Lifecycle rows that are open."""
    ledger_is_empty: bool
    """There is no lifecycle row at all."""
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
    """Stage what was observed and return the tenants that could differ from the ledger, by name.

    Args:
        cursor: in an open transaction; the staged tenants go with it.
        spool: what was observed.
        settle: how long after a change the portal may still write its row.
        names: look at these tenants alone.
        everyone: return the tenants that are plainly true as well.

    Raises:
        RepeatedTenant: the spool holds one resource twice.
    """
    cursor.execute(query("stage"))
    _copy(cursor, spool.blocks())
    *counts, middle, any_twice = _counts(cursor)
    if any_twice:
        _sort_out(cursor)
        *counts, middle, _ = _counts(cursor)
    cursor.execute(
        query("differing"),
        {
            "names": None if names is None else list(names),
            "everyone": everyone,
            "middle": middle,
            "settle": settle,
            "first": FIRST,
            "last": LAST,
        },
    )
    return Candidates([_pair(row) for row in cursor], *counts)


def _copy(cursor: psycopg.Cursor[Any], blocks: Iterable[bytes]) -> None:
    with cursor.copy(query("copy")) as copy:
        for block in blocks:
            copy.write(block)


def _counts(cursor: psycopg.Cursor[Any]) -> tuple[Any, ...]:
    (counts,) = cursor.execute(query("counts")).fetchall()
    return tuple(counts)


def _sort_out(cursor: psycopg.Cursor[Any]) -> None:
    """Tell resources that the list repeats from tenants that share a name; those become one that cannot be read."""
    if repeated := cursor.execute(query("repeated")).fetchone():
        raise RepeatedTenant(
            f"The list of tenants names {'/'.join(filter(None, repeated))} twice: it is not to be believed.",
            "Nothing was written. A file may hold each tenant once; an API server never sends one twice.",
        )
    namespaces: dict[str, list[str]] = {}
    for name, namespace in cursor.execute(query("take_ambiguous")):
        namespaces.setdefault(name, []).append(namespace)
    problem = "the name stands in more than one namespace: "
    _copy(cursor, [_row(Observed(name=name, problem=problem + ", ".join(sorted(n)))) for name, n in namespaces.items()])


def _pair(row: tuple[Any, ...]) -> Candidate:
    columns, rest = row[: len(_COLUMNS)], row[len(_COLUMNS) :]
    detail, org, created_at, deleted_at, skills, id_, kind, occurred_at, verified_at = rest
    observed = None
    if detail is not None:
        fields = dict(zip(_COLUMNS + _DETAIL, (*columns, *msgspec.json.decode(detail)), strict=True))
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
        _array_literal(tenant.packages),
        "t" if tenant.suspended else "f",
        _encode(youngest)[1:-1].decode() if youngest else None,
        _encode(_detail(tenant)).decode(),
    )
    # most tenants hold nothing that COPY would misread, and to see that is cheaper than to escape it
    if None not in fields:
        line = "\t".join(cast("tuple[str, ...]", fields))
        if not ("\\" in line or "\n" in line or "\r" in line) and line.count("\t") == len(fields) - 1:
            return line.encode() + b"\n"
    return "\t".join(map(escaped, fields)).encode() + b"\n"


def _array_literal(texts: tuple[str, ...]) -> str:
    """Return a text[] in PostgreSQL's own notation (https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO)."""
    if not texts:
        return "{}"
    literal = '{"' + '","'.join(texts) + '"}'
    if "\\" in literal or literal.count('"') != 2 * len(texts):
        escaped = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
        literal = '{"' + '","'.join(escaped) + '"}'
    return literal


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _full(error) from None


def _full(error: OSError) -> SpoolFault:
    return SpoolFault(
        f"The observed tenants could not be kept in {tempfile.tempdir or 'a temporary folder'}: {error.strerror}.",
        "Nothing was written. Make room there, or name another folder in TMPDIR.",
    )
