"""Load the SQL of `sql/` by name.

A query is what follows a line `-- name: …`; the files in `sql/queries` serve one caller each, and a name is unique
among all of them. What Citus does not take stands between `--[ postgresql` and `--[ citus`, and what it gets instead
before `--]`. The numbered files in `sql/schema` hold the schema. A wheel carries the folder inside the package;
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
_APART = re.compile(rb"^ *--\[ postgresql\n(.*?)^ *--\[ citus\n(.*?)^ *--\]\n", re.MULTILINE | re.DOTALL)


def folder() -> Traversable:
    """Return the folder of the SQL files."""
    packaged = files("reconciler") / "sql"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "sql"


def files_in(subfolder: str) -> list[Traversable]:
    """Return the SQL files of a subfolder by name."""
    return sorted((folder() / subfolder).iterdir(), key=lambda file: file.name)


def query(name: str, *, on_citus: bool = False) -> bytes:
    """Return the query of that name, for PostgreSQL or for Citus.

    Raises:
        KeyError: no query has that name.
        ValueError: two queries share a name, whichever was asked for.
    """
    return _queries(on_citus=on_citus)[name]


@cache
def _queries(*, on_citus: bool) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for file in files_in("queries"):
        _, *parts = _NAME.split(file.read_text(encoding="utf-8"))
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise ValueError(f"sql/queries has two queries named {name}, the second in {file.name}.")
            found[name] = _APART.sub(rb"\2" if on_citus else rb"\1", text.encode()).strip()
    return found
