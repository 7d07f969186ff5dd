"""What is built, pinned and shipped: the wheel, the locks, the image."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from reconciler import __version__
from reconciler.db import queries

ROOT = Path(__file__).parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")

LOCKS = ["requirements.lock", "requirements-build.lock", "requirements-dev.lock"]


def python(*args: str | Path, cwd: Path, path: Path | None = None) -> str:
    """Run this Python with the arguments and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *args], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def built(target: str, source: Path, into: Path) -> Path:
    """Build the wheel or the sdist of a source tree, without the network."""
    python("-m", "hatchling", "build", "-t", target, "-d", into, cwd=source)
    (file,) = into.iterdir()
    return file


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the checkout."""
    return built("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def contents(wheel: Path) -> set[str]:
    """Return the names of the files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def pins(lock: str) -> dict[str, Requirement]:
    """Return the requirements of a lock by name."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    found = [Requirement(line.removesuffix("\\")) for line in text.splitlines() if re.match(r"[a-z]", line)]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def version_of(pin: Requirement) -> str:
    """Return the one version that a pin allows."""
    (specifier,) = pin.specifier
    assert specifier.operator == "=="
    return specifier.version


# --- the wheel ---------------------------------------------------------------------------------------------------


def test_a_wheel_carries_every_sql_file_of_the_checkout(wheel: Path) -> None:
    sql = {f"reconciler/sql/{file.relative_to(ROOT / 'sql').as_posix()}" for file in (ROOT / "sql").rglob("*.sql")}
    assert sql
    assert {name for name in contents(wheel) if name.endswith(".sql")} == sql


def test_a_wheel_carries_every_module_and_py_typed(wheel: Path) -> None:
    modules = {file.relative_to(ROOT).as_posix() for file in (ROOT / "reconciler").rglob("*.py")}
    assert modules | {"reconciler/py.typed"} <= contents(wheel)


def test_a_wheel_carries_nothing_else(wheel: Path) -> None:
    """No tests, no bytecode, no second package at the top level."""
    assert {name.split("/")[0] for name in contents(wheel)} == {
        "reconciler",
        f"reconciler-{__version__}.dist-info",
    }
    assert not {name for name in contents(wheel) if name.endswith((".pyc", ".pyo"))}


def test_a_wheel_of_the_sdist_holds_the_same_files(wheel: Path, tmp_path: Path) -> None:
    sdist = built("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        # Python knows it since 3.11.4
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path / "source")  # noqa: S202 - of what was built just now
    (source,) = (tmp_path / "source").iterdir()
    assert contents(built("wheel", source, tmp_path / "wheel")) == contents(wheel)


def test_the_sdist_carries_the_manifest_and_its_fields() -> None:
    carried = PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {"cronjob.yaml", "kustomization.yaml"} <= set(carried)


def test_an_installed_wheel_finds_its_sql(wheel: Path, tmp_path: Path) -> None:
    """Installed on its own and used from another folder, it reads the SQL that it carries, not the checkout's."""
    site = tmp_path / "site"
    python("-m", "pip", "install", "-qq", "--no-deps", "--no-index", "--target", site, wheel, cwd=tmp_path)
    program = (
        "import reconciler; from reconciler.db import queries; print(reconciler.__file__); print(queries.folder());"
        " print(*sorted(file.name for file in queries.folder().iterdir()), sep='\\n')"
    )
    module, folder, *names = python("-c", program, cwd=tmp_path, path=site).splitlines()
    assert Path(module) == site / "reconciler" / "__init__.py"
    assert Path(folder) == site / "reconciler" / "sql"
    assert names == sorted(file.name for file in (ROOT / "sql").iterdir())


def test_a_checkout_finds_its_sql() -> None:
    """An edit in `sql/` takes effect at once: there is no copy."""
    assert Path(str(queries.folder())) == ROOT / "sql"
    assert queries.files_in("schema")


def test_a_wheel_carries_the_programs_version(wheel: Path) -> None:
    assert wheel.name == f"reconciler-{__version__}-py3-none-any.whl"


# --- the locks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lock", "extras"), [("requirements.lock", ()), ("requirements-dev.lock", ("embedded", "dev"))]
)
def test_a_lock_pins_every_dependency_of_the_project(lock: str, extras: tuple[str, ...]) -> None:
    """It fails where pyproject.toml changed and `make lock` was not run."""
    asked = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    locked = pins(lock)
    for requirement in map(Requirement, asked):
        assert version_of(locked[canonicalize_name(requirement.name)]) in requirement.specifier


@pytest.mark.parametrize("lock", ["requirements-build.lock", "requirements-dev.lock"])
def test_the_build_backend_is_pinned_too(lock: str) -> None:
    """The image's wheel and the developer's editable install are built without an unpinned package."""
    assert PYPROJECT["dependency-groups"]["build"] == PYPROJECT["build-system"]["requires"]
    locked = pins(lock)
    for requirement in map(Requirement, PYPROJECT["build-system"]["requires"]):
        assert version_of(locked[canonicalize_name(requirement.name)]) in requirement.specifier


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-build.lock"])
def test_tests_run_on_the_versions_that_are_shipped(lock: str) -> None:
    shipped, tested = pins(lock), pins("requirements-dev.lock")
    assert shipped
    assert {name: version_of(pin) for name, pin in shipped.items()} == {
        name: version_of(tested[name]) for name in shipped
    }


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_a_hash(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    for entry in re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_machine(lock: str) -> None:
    """Nor an index: whoever installs decides where packages come from."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert not re.search(r"://|--index|--extra-index|--find-links| @ |(?<![\w+=])/", text)


# --- the image ---------------------------------------------------------------------------------------------------


def test_the_image_runs_as_the_user_of_the_manifest() -> None:
    (*_, cronjob) = yaml.safe_load_all((ROOT / "cronjob.yaml").read_text(encoding="utf-8"))
    context = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["securityContext"]
    assert f"\nUSER {context['runAsUser']}:{context['runAsGroup']}\n" in DOCKERFILE


def test_manifest_and_image_carry_the_programs_version() -> None:
    assert f"\nARG VERSION={__version__}\n" in DOCKERFILE
    assert f"/reconciler:{__version__}\n" in (ROOT / "cronjob.yaml").read_text(encoding="utf-8")


def test_every_file_of_the_image_exists_and_reaches_the_build() -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, flags=re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert copied
    let_through = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for source in copied:
        assert (ROOT / source).exists()
        assert f"!{source}" in let_through


def test_the_images_python_is_one_that_the_project_supports() -> None:
    versions = set(re.findall(r"^ARG PYTHON=(.+)$", DOCKERFILE, flags=re.MULTILINE))
    assert {f"Programming Language :: Python :: {version}" for version in versions} <= set(PROJECT["classifiers"])


def test_the_images_bytecode_holds_whatever_the_files_times_are(tmp_path: Path) -> None:
    """What copies an image may set them anew, and then no run could use what was compiled."""
    (how,) = re.findall(r"-m compileall (.+?) \\", DOCKERFILE)
    module = tmp_path / "module.py"
    module.write_text("said = 'compiled'", encoding="utf-8")
    python("-m", "compileall", *how.split(), str(module), cwd=tmp_path, path=tmp_path)
    module.write_text("said = 'read again'", encoding="utf-8")
    assert python("-c", "import module; print(module.said)", cwd=tmp_path, path=tmp_path) == "compiled"


def test_the_image_has_bytecode_of_all_that_a_run_imports(tmp_path: Path) -> None:
    """A module without it would be compiled again by every run: the file system is read-only."""
    (without,) = re.findall(r"compileall [^']*-x '(.+?)'", DOCKERFILE)
    program = (
        "import sys; from reconciler.cli.main import cli; from reconciler.sources.api_client import Api;"
        " from kubernetes import client, config; client.ApiClient(client.Configuration());"
        " print(*(module.__file__ for module in sys.modules.values() if getattr(module, '__file__', None)), sep='\\n')"
    )
    imported = python("-W", "ignore", "-c", program, cwd=tmp_path, path=ROOT).splitlines()
    assert any(file.endswith("/kubernetes/client/__init__.py") for file in imported)
    assert [file for file in imported if re.search(without, file)] == []
