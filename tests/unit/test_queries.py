"""The SQL files: each query has its own name, and each is used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import reconciler
from reconciler.db import queries

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(str(queries.folder())) / "queries"
NAMES = [name for file in FOLDER.iterdir() for name in re.findall(r"^-- name: (\w+)$", file.read_text(), re.MULTILINE)]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Files of queries that stand in for those of the package."""
    folder = tmp_path / "queries"
    folder.mkdir()
    monkeypatch.setattr(queries, "folder", lambda: tmp_path)
    queries._queries.cache_clear()  # noqa: SLF001
    yield folder
    queries._queries.cache_clear()  # noqa: SLF001


def test_a_query_is_found_in_whatever_file_it_is(files: Path) -> None:
    (files / "a.sql").write_text("-- about all\n\n-- name: first\n-- why\nSELECT 1\n\n-- name: second\nSELECT 2\n")
    (files / "b.sql").write_text("-- name: third\nSELECT 3\n")
    assert [queries.query(name) for name in ("first", "second", "third")] == [
        b"-- why\nSELECT 1",
        b"SELECT 2",
        b"SELECT 3",
    ]
    with pytest.raises(KeyError):
        queries.query("fourth")


def test_what_citus_does_not_take_stands_apart(files: Path) -> None:
    text = "-- name: rows\nSELECT 1\n  --[ postgresql\n  FROM a\n  --[ citus\n  -- why\n  FROM b\n  --]\nORDER BY 1\n"
    (files / "a.sql").write_text(text)
    assert queries.query("rows") == b"SELECT 1\n  FROM a\nORDER BY 1"
    assert queries.query("rows", on_citus=True) == b"SELECT 1\n  -- why\n  FROM b\nORDER BY 1"


def test_no_query_is_left_with_half_of_what_stands_apart() -> None:
    assert not [
        name for name in NAMES for on_citus in (False, True) if b"--[" in queries.query(name, on_citus=on_citus)
    ]


@pytest.mark.parametrize("second", ["a.sql", "b.sql"])
def test_a_name_that_stands_twice_is_an_error(files: Path, second: str) -> None:
    for file in ("a.sql", second):
        with (files / file).open("a") as text:
            text.write("-- name: lock\nSELECT 1\n")
    with pytest.raises(ValueError, match=f"two queries named lock, the second in {second}"):
        queries.query("lock")


@pytest.mark.parametrize("name", NAMES)
def test_every_query_is_used(name: str) -> None:
    sources = Path(reconciler.__file__).parent.rglob("*.py")
    assert any(f'"{name}"' in file.read_text(encoding="utf-8") for file in sources)


def test_sql_can_be_sent_to_a_database_in_any_encoding() -> None:
    """PostgreSQL converts a whole statement with its comments, and refuses it for one character."""
    for file in Path(str(queries.folder())).rglob("*.sql"):
        assert file.read_text(encoding="utf-8").isascii(), file
