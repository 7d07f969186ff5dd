"""The SQL, loaded from `sql/` by name.

`queries.sql` holds every query that a pass runs, each under a line `-- name: …` that names it; the numbered files
hold the schema. A wheel carries the folder inside the package; an editable install reads it from the checkout.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def folder() -> Traversable:
    """Return the folder of the SQL files."""
    packaged = files("reconciler") / "sql"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "sql"


def schema_files() -> list[Traversable]:
    """Return the numbered schema files in their order."""
    return sorted((file for file in folder().iterdir() if re.match(r"\d{3}_", file.name)), key=lambda file: file.name)


@cache
def _named() -> dict[str, str]:
    _, *parts = _NAME.split((folder() / "queries.sql").read_text(encoding="utf-8"))
    return dict(zip(parts[::2], parts[1::2], strict=True))


def query(name: str) -> bytes:
    """Return the query of that name from `queries.sql`.

    Raises:
        KeyError: there is none.
    """
    return _named()[name].strip().encode()
