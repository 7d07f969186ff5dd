"""Which module may know of which, and which may ask what time it is."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import reconciler

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(reconciler.__file__).parent

ROOMS: dict[str, set[str]] = {
    "__init__": set(),
    "core": {"core"},
    "deadline": {"core"},
    "logs": {"core"},
    "metrics": {"core", "__init__"},
    "db": {"db", "core", "__init__"},
    "ledger": {"ledger", "core", "db"},
    "sources": {"sources", "core", "deadline"},
    "views": {"views", "core"},
    "alerts": {"alerts", "core", "deadline", "metrics", "views.findings", "views.terminal", "__init__"},
    "alerts.events": {"alerts", "core", "deadline", "views.terminal", "sources.api_client"},
    "job": {"core", "alerts", "deadline"},
    "run": {"core", "db", "sources", "alerts", "deadline", "job"},
}
"""What the modules of each room may import of the package; a module that has a row of its own goes by that."""

EDGE = {"__main__", "cli", "demo"}
"""They may import everything; nobody but they may import them."""

READS_CLOCKS = EDGE | {"logs"}

STANDARD_LIBRARY_ALONE = {"core", "deadline"}
"""Rooms that need no other package."""

CLOCKS = {
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
    ("time", "time"),
    ("time", "time_ns"),
    ("time", "gmtime"),
    ("time", "localtime"),
    ("time", "ctime"),
    ("time", "strftime"),
    ("time", "clock_gettime"),
}
"""What reads a wall clock. A monotonic one says only how long something took."""


ENVIRONMENT = {"environ", "environb", "getenv", "getenvb"}
"""What reads variables of the environment, in the module `os`."""


def _name(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {_name(file): ast.parse(file.read_text(encoding="utf-8")) for file in sorted(PACKAGE.rglob("*.py"))}
each_module = pytest.mark.parametrize("module", MODULES)


def _imports(tree: ast.Module) -> Iterator[str]:
    """Yield the full name of every module that is imported anywhere in a file, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written with their full name"
            for alias in node.names:
                within = f"{node.module}.{alias.name}".removeprefix("reconciler.")
                yield f"reconciler.{within}" if within in MODULES else str(node.module)


def _of_the_package(module: str) -> set[str]:
    """Return the modules of the package that a module imports."""
    names = {name for name in _imports(MODULES[module]) if name.partition(".")[0] == "reconciler"}
    return {name.partition(".")[2] or "__init__" for name in names}


def _room(module: str) -> str:
    return module.partition(".")[0]


def _row(module: str) -> set[str] | None:
    return ROOMS.get(module, ROOMS.get(_room(module)))


def _within(module: str, row: set[str]) -> bool:
    return module in row or _room(module) in row


@each_module
def test_every_module_has_its_row(module: str) -> None:
    assert (_room(module) in EDGE) != (_row(module) is not None), f"{module} has no row: say what it may import"


@each_module
def test_a_module_imports_what_its_row_says_and_no_more(module: str) -> None:
    row = _row(module)
    if row is not None:
        assert {name for name in _of_the_package(module) if not _within(name, row)} == set()


@each_module
def test_nobody_imports_the_edge_but_the_edge(module: str) -> None:
    if _room(module) not in EDGE:
        assert {name for name in _of_the_package(module) if _room(name) in EDGE} == set()


def test_no_two_rooms_import_each_other() -> None:
    """No arrow runs back up: the rooms stand in one order."""
    arrows = {(_room(module), _room(name)) for module in MODULES for name in _of_the_package(module)}
    assert {(one, other) for one, other in arrows if one != other and (other, one) in arrows} == set()


@pytest.mark.parametrize("module", [module for module in MODULES if _room(module) in STANDARD_LIBRARY_ALONE])
def test_the_core_needs_no_other_package(module: str) -> None:
    packages = {name.partition(".")[0] for name in _imports(MODULES[module])}
    assert packages - set(sys.stdlib_module_names) <= {"reconciler"}


def _clocks(tree: ast.Module) -> Iterator[str]:
    """Yield every place where a file reads a wall clock, whatever it calls the module."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
            for alias in node.names:
                if (node.module, alias.name) in CLOCKS:
                    yield f"line {node.lineno}: from {node.module} import {alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value
            called = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
            if (names.get(called, called), node.attr) in CLOCKS:
                yield f"line {node.lineno}: {called}.{node.attr}"


@each_module
def test_only_the_edge_asks_what_time_it_is(module: str) -> None:
    if _room(module) not in READS_CLOCKS:
        assert list(_clocks(MODULES[module])) == []


def _reads_of_the_environment(tree: ast.Module) -> Iterator[str]:
    """Yield every place where a file reads a variable of the environment."""
    for node in ast.walk(tree):
        names = {node.attr} if isinstance(node, ast.Attribute) else set()
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            names = {alias.name for alias in node.names}
        yield from (f"line {getattr(node, 'lineno', 0)}: {name}" for name in names & ENVIRONMENT)


@each_module
def test_only_the_edge_reads_the_environment(module: str) -> None:
    if _room(module) not in EDGE:
        assert list(_reads_of_the_environment(MODULES[module])) == []


def _prints(tree: ast.Module) -> Iterator[str]:
    """Yield every place where a file prints by itself: `print`, or `echo` and `secho` of click."""
    for node in ast.walk(tree):
        called = node.func if isinstance(node, ast.Call) else None
        name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
        of_console = isinstance(called, ast.Attribute) and name == "print"
        if name in {"print", "echo", "secho"} and not of_console:
            yield f"line {getattr(node, 'lineno', 0)}: {name}"


@each_module
def test_only_one_module_prints(module: str) -> None:
    """It knows what to say and how to end where nothing can be printed."""
    if module != "cli.output":
        assert list(_prints(MODULES[module])) == []


@pytest.mark.parametrize(
    "source",
    [
        "import os; os.environ['HOME']",
        "import os as system; system.getenv('HOME')",
        "from os import environ",
        "from os import getenv as get",
        "import os; os.environb",
    ],
)
def test_reading_the_environment_is_seen_however_it_is_done(source: str) -> None:
    assert len(list(_reads_of_the_environment(ast.parse(source)))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import time; time.time()",
        "import time as t; t.time_ns()",
        "from time import time",
        "import datetime; datetime.datetime.now()",
        "import datetime as dt; dt.date.today()",
        "from datetime import datetime; datetime.now(UTC)",
        "from datetime import datetime as d; d.utcnow()",
        "from datetime import datetime; clock = datetime.now",
    ],
)
def test_a_clock_is_seen_however_it_is_read(source: str) -> None:
    assert len(list(_clocks(ast.parse(source)))) == 1


def test_a_clock_that_only_measures_is_none() -> None:
    source = "import time; from datetime import datetime; time.monotonic(); time.sleep(1); datetime.fromisoformat('')"
    assert list(_clocks(ast.parse(source))) == []


# --- how large, and how it is named ------------------------------------------------------------------------------

MAX_MODULE_LINES = 500
MAX_RUN_LINES = 220
MAX_FUNCTION_LINES = 45
MAX_NAME_WORDS = 12

TESTS = sorted(Path(__file__).parents[1].rglob("test_*.py"))


@each_module
def test_a_module_is_short(module: str) -> None:
    file = PACKAGE.joinpath(*module.split("."))
    text = (file / "__init__.py" if file.is_dir() else file.with_suffix(".py")).read_text(encoding="utf-8")
    assert text.count("\n") <= (MAX_RUN_LINES if module == "run" else MAX_MODULE_LINES)


@each_module
def test_every_function_is_short(module: str) -> None:
    lengths = {
        node.name: (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(MODULES[module])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


@pytest.mark.parametrize("file", TESTS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_test_is_named_for_its_claim_in_few_words(file: Path) -> None:
    names = re.findall(r"^\s*def test_(\w+)\(", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert [name for name in names if len(name.split("_")) > MAX_NAME_WORDS] == []
