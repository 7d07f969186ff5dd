"""COPY's text format (https://www.postgresql.org/docs/current/sql-copy.html): a line a row, its fields between tabs."""

from __future__ import annotations

NULL = r"\N"

_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def escaped(text: str | None) -> str:
    """Return a field without what would be taken for its end, for that of its row, or for an escape."""
    return NULL if text is None else text.translate(_ESCAPES)
