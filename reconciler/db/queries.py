"""Load the SQL of `sql/` by name.

A query is what follows a line `-- name: …`; the files in `sql/queries` serve one caller each, and a name is unique
among all of them. The numbered files in `sql/schema` hold the schema. A wheel carries the folder inside the package;
an editable install reads it from the checkout.
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
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "sql"


def files_in(subfolder: str) -> list[Traversable]:
    """Return the SQL files of a subfolder by name."""
    return sorted((folder() / subfolder).iterdir(), key=lambda file: file.name)


def query(name: str) -> bytes:
    """Return the query of that name.

    Raises:
        KeyError: no query has that name.
        ValueError: two queries share a name, whichever was asked for.
    """
    return _queries()[name]


@cache
def _queries() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for file in files_in("queries"):
        _, *parts = _NAME.split(file.read_text(encoding="utf-8"))
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise ValueError(f"sql/queries has two queries named {name}, the second in {file.name}.")
            found[name] = text.strip().encode()
    return found
