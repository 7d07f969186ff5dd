"""How text fits a terminal: escaped, counted, in tables."""

from __future__ import annotations

WIDTH_OF_A_FILE = 10_000
"""Columns of a table that is not printed on a terminal: wide enough that nothing is folded."""


def plural(count: int, noun: str) -> str:
    """Return so many of something: `1 tenant`, `2 tenants`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def visible(text: str) -> str:
    """Return text with what could steer a terminal made visible."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
