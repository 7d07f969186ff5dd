"""What the documentation and the docstrings say about the ledger's functions."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from decimal import Decimal

import pytest

from reconciler import ledger as ledger_api
from tests.support.ledger_calls import PUBLIC, Connection
from tests.support.pages import PAGES

PAGE = PAGES["docs/python-api.md"]
PROVEN = """
UPDATE platform_pricing SET updated_at = '2026-04-01Z';
UPDATE skill_pricing SET created_at = '2026-04-01Z', updated_at = '2026-04-01Z';
INSERT INTO reconciler.tenants (source, uid, tenant_name, resource_version, packages, suspended, suspend_is_set,
                                created_at, since)
SELECT identity, '1', 'hotel-seeblick', '1', '{}', false, true, '2026-05-04 09:30Z', '2026-05-04 09:30Z'
FROM reconciler.source;
INSERT INTO reconciler.runs (id, started_at, observed_at, mode, outcome, version, source, settle)
SELECT gen_random_uuid(), now(), now(), 'run', 'clean', '1', identity, '0' FROM reconciler.source;
"""
"""The prices have held for long, and a run has proved the ledger."""


def test_the_examples_run_unchanged(ledger: Connection, ledger_url: str) -> None:
    """They print what their comments say, and the ledger has what they recorded."""
    ledger_api.set_skill_price(ledger, "mail", Decimal("0.60"))
    (cluster,) = re.findall(r'source="(.+?)"', PAGE)
    ledger.execute("INSERT INTO reconciler.source (identity) VALUES (%s)", [cluster])
    ledger.execute(PROVEN)
    for example in re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL):
        ran = subprocess.run(
            [sys.executable, "-c", example],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"DATABASE_URL": ledger_url},
        )
        said = "".join(f"{line}\n" for line in re.findall(r"^ *print\(.*\)  # (.*)$", example, re.MULTILINE))
        assert (ran.stdout, ran.stderr) == (said, "")
        assert said
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


def test_the_package_explains_every_error() -> None:
    doc = inspect.getdoc(ledger_api) or ""
    public = {name: getattr(ledger_api, name) for name in ledger_api.__all__}
    errors = [name for name, each in public.items() if inspect.isclass(each) and issubclass(each, Exception)]
    assert errors
    assert [name for name in errors if f"\n    {name}: " not in doc] == []
