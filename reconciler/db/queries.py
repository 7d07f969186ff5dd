"""The SQL, loaded from `sql/` by name.

Every query stands under a line `-- name: …` that names it, in a file for each caller; the numbered files hold the
schema. A wheel carries the folder inside the package; an editable install reads it from the checkout.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

FILES = ("run.sql", "usage.sql", "status.sql", "explain.sql", "decisions.sql", "ledger.sql")
"""Where the queries are: a file for each caller."""

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def folder() -> Traversable:
    """Return the folder of the SQL files."""
    packaged = files("reconciler") / "sql"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "sql"


def schema_files() -> list[Traversable]:
    """Return the numbered schema files in their order."""
    return sorted((folder() / "schema").iterdir(), key=lambda file: file.name)


@cache
def _named() -> dict[str, str]:
    named: dict[str, str] = {}
    for file in FILES:
        _, *parts = _NAME.split((folder() / "queries" / file).read_text(encoding="utf-8"))
        named |= zip(parts[::2], parts[1::2], strict=True)
    return named


def query(name: str) -> bytes:
    """Return the query of that name.

    Raises:
        KeyError: there is none.
    """
    return _named()[name].strip().encode()
