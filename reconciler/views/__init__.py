"""Values in, text out: what people and programs read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

ROWS_BATCH = 1_000
"""Rows of a document that are in memory at a time."""


def as_json(content: object) -> str:
    """Return one indented JSON document: times in RFC 3339, decimals as text."""
    return msgspec.json.format(msgspec.json.encode(content), indent=2).decode()


def json_in_parts(content: Mapping[str, object]) -> Iterator[str]:
    """Yield such a document in parts. An iterator in it becomes an array, which is never in memory as a whole."""
    opening = "{"
    for key, value in content.items():
        yield f"{opening}\n  {as_json(key)}: "
        yield from _array(value) if isinstance(value, Iterator) else [_indented(value, "  ")]
        opening = ","
    yield "\n}"


def _array(rows: Iterator[object]) -> Iterator[str]:
    opening = "["
    while batch := [f"\n    {_indented(row, '    ')}" for row in islice(rows, ROWS_BATCH)]:
        yield opening + ",".join(batch)
        opening = ","
    yield "[]" if opening == "[" else "\n  ]"


def _indented(value: object, margin: str) -> str:
    # a line feed inside of a text is escaped
    return as_json(value).replace("\n", f"\n{margin}")
