"""Text as COPY takes it, a line a row, its fields between tabs: https://www.postgresql.org/docs/current/sql-copy.html."""

from __future__ import annotations

NULL = r"\N"
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def escape(text: str | None) -> str:
    """Return a field of COPY's text format, in which nothing can be taken for the end of the field or of its row."""
    return NULL if text is None else text.translate(_ESCAPES)


def array_literal(texts: tuple[str, ...]) -> str:
    """Return a text[] in PostgreSQL's own notation (https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO)."""
    if not texts:
        return "{}"
    literal = '{"' + '","'.join(texts) + '"}'
    if "\\" in literal or literal.count('"') != 2 * len(texts):
        escaped = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
        literal = '{"' + '","'.join(escaped) + '"}'
    return literal
