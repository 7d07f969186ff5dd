"""Rows that are kept on disk while they are shown, so that neither memory nor a transaction has to hold them."""

from __future__ import annotations

import tempfile
import weakref
from contextlib import contextmanager, suppress
from io import SEEK_END
from typing import IO, TYPE_CHECKING, Generic, Self, TypeVar

import msgspec

from reconciler.core.errors import Failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

IN_MEMORY_BYTES = 2**20
"""Fewer bytes of rows are not written to disk."""
BLOCK_BYTES = 2**20

_Row = TypeVar("_Row")


class SpoolFault(Failure):
    """Something could not be kept on this machine's disk."""


class Rows(Generic[_Row]):
    """Rows in the order in which they came. They can be read any number of times, one time after another."""

    def __init__(self, kind: type[_Row], rows: Iterable[_Row]) -> None:
        # it lives as long as this object: the file has no name, and goes with it
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._decode = msgspec.json.Decoder(kind).decode
        self._encode = msgspec.json.Encoder().encode
        with on_disk("What is to be shown"):
            for row in rows:
                self._write(row)

    def append(self, row: _Row) -> None:
        """Add one more row at the end."""
        with on_disk("What is to be shown"):
            self._file.seek(0, SEEK_END)
            self._write(row)

    def _write(self, row: _Row) -> None:
        # no line feed is left in JSON
        self._file.write(self._encode(row) + b"\n")

    def __iter__(self) -> Iterator[_Row]:
        """Read every row, from the first."""
        self._file.seek(0)
        for line in self._file:
            yield self._decode(line)


class CopySpool:
    """A temporary file of rows in COPY's text format. A context manager that removes it at its end."""

    def __init__(self, what: str) -> None:
        """Open it; `what` it keeps is said where the disk is full."""
        self._what = what
        with on_disk(what):
            self._file: IO[bytes] = tempfile.TemporaryFile(buffering=BLOCK_BYTES)  # noqa: SIM115 - __exit__ closes it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # closing flushes once more, and fails once more if the disk is full
        with suppress(OSError):
            self._file.close()

    def __bool__(self) -> bool:
        """True if it has a row."""
        return self._file.tell() > 0

    def write(self, row: bytes) -> None:
        """Add one row."""
        try:
            self._file.write(row)
        except OSError as error:
            # entering `on_disk` for each would cost half as much again as writing it
            raise full(error, self._what) from None

    def restart(self) -> None:
        """Remove every row that was added."""
        with on_disk(self._what):
            self._file.seek(0)
            self._file.truncate()

    def blocks(self) -> Iterator[bytes]:
        """Yield the file, a block at a time."""
        with on_disk(self._what):
            self._file.flush()
            self._file.seek(0)
            while block := self._file.read(BLOCK_BYTES):
                yield block

    def rows(self) -> Iterator[bytes]:
        """Yield the file, a row at a time."""
        with on_disk(self._what):
            self._file.flush()
            self._file.seek(0)
            yield from self._file


@contextmanager
def on_disk(what: str) -> Iterator[None]:
    """Turn what the disk raises into a failure that says what could not be kept."""
    try:
        yield
    except OSError as error:
        raise full(error, what) from None


def full(error: OSError, what: str) -> SpoolFault:
    """Return the failure that says what could not be kept."""
    return SpoolFault(
        f"{what} could not be kept in {tempfile.tempdir or 'a temporary folder'}: {error.strerror}.",
        "Nothing was written. Make room there, or name another folder in TMPDIR.",
    )
