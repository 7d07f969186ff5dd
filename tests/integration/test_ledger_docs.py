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
def test_every_docstring_explains_arguments_and_errors(name: str) -> None:
    """It names each parameter, and InvalidArgument if any can be invalid."""
    parameters = list(inspect.signature(PUBLIC[name]).parameters)
    doc = inspect.getdoc(PUBLIC[name]) or ""
    assert [word for word in parameters if not re.search(rf"^    {word}: ", doc, re.MULTILINE)] == []
    assert ("InvalidArgument:" in doc) is (parameters != ["connection"])
