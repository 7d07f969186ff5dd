"""What the documentation and the docstrings say about the ledger's functions."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys

import pytest

from reconciler import ledger as ledger_api
from tests.support.ledger_calls import PUBLIC, Connection
from tests.support.pages import PAGES

PAGE = PAGES["docs/python-api.md"]


def test_the_example_runs_unchanged(ledger: Connection, ledger_url: str) -> None:
    """It prints what its comment says, and the ledger has what it recorded."""
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    printed = subprocess.run(
        [sys.executable, "-c", example],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"DATABASE_URL": ledger_url},
    ).stdout
    assert printed == "".join(f"{line}\n" for line in re.findall(r"^ *print\(.*\)  # (.*)$", example, re.MULTILINE))
    assert printed
    assert ledger_api.lifecycle(ledger, "hotel-seeblick") is not None


def test_the_documented_functions_are_those_that_exist() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_docstrings_explain_every_argument(name: str) -> None:
    """That of the package, those that functions share; that of the function, what else there is to know."""
    shared, own = inspect.getdoc(ledger_api) or "", inspect.getdoc(PUBLIC[name]) or ""
    parameters = inspect.signature(PUBLIC[name]).parameters
    assert [word for word in parameters if f"\n    {word}: " not in shared and f"`{word}`" not in own] == []


def test_the_package_explains_both_errors() -> None:
    doc = inspect.getdoc(ledger_api) or ""
    assert "\n    InvalidArgument: " in doc
    assert "\n    NotRecorded: " in doc
