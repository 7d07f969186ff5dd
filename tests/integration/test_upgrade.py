"""The schema grows by numbered steps, each applied once, and a program that does not fit it is refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import yaml
from psycopg.rows import dict_row

from reconciler import __version__
from reconciler.db import migrate, schema
from reconciler.db.connection import Connection, LedgerFault, connect
from tests.support.command import invoke
from tests.support.schema import DETAILS, catalog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GOLDEN = Path(__file__).parent / "golden"
EARLIER = GOLDEN / "ledger-0.1.0.sql"
SHOWN_EARLIER = json.loads((GOLDEN / "ledger-0.1.0.json").read_text(encoding="utf-8"))
"""What version 0.1.0 itself showed of that ledger: `usage --month 2026-05` and `explain baeckerei-wyss`."""


@pytest.fixture
def earlier_url(empty_url: str) -> str:
    """A database as version 0.1.0 left it, with rows of every kind."""
    with closing(connect(empty_url)) as connection:
        connection.execute(EARLIER.read_bytes())
    return empty_url


@pytest.fixture
def upgraded_url(earlier_url: str) -> str:
    """The same, migrated."""
    with closing(connect(earlier_url)) as connection:
        migrate.migrate(connection)
    return earlier_url


@pytest.fixture
def later_url(ledger_url: str) -> Iterator[str]:
    """A database that a later version has migrated."""
    with closing(connect(ledger_url)) as connection:
        connection.execute("INSERT INTO reconciler.migrations VALUES (999, '999_magic', '9.9.9')")
        yield ledger_url
        connection.execute("DELETE FROM reconciler.migrations WHERE number = 999")


@pytest.fixture
def tenants(tmp_path: Path) -> str:
    """A file of what that ledger was last compared with: the sample, with one tenant recreated."""
    sample = yaml.safe_load((files("reconciler") / "demo" / "tenants.yaml").read_text(encoding="utf-8"))
    recreated = next(item for item in sample["items"] if item["metadata"]["name"] == "baeckerei-wyss")
    recreated["metadata"] |= {"creationTimestamp": "2026-05-20T09:00:00Z", "uid": "another", "managedFields": []}
    path = tmp_path / "tenants.yaml"
    path.write_text(yaml.safe_dump(sample), encoding="utf-8")
    return str(path)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command on a ledger, and return its JSON."""

    def show(url: str, *arguments: str) -> Any:
        done = invoke(monkeypatch, capsys, *arguments, "--output", "json", environment={"DATABASE_URL": url})
        assert done.code == 0, done.err
        return done.document

    return show


def _rows(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """Return every row of both schemas by table, but for the steps."""
    tables = connection.execute(
        "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('public', 'reconciler')"
    ).fetchall()
    with connection.cursor(row_factory=dict_row) as cursor:
        return {
            table: cursor.execute(f"SELECT * FROM {table} ORDER BY 1, 2".encode()).fetchall()  # noqa: S608
            for (table,) in tables
            if table != "reconciler.migrations"
        }


def _holds(shown: Any, earlier: Any) -> bool:
    """True if a later version shows all that the earlier one did, and perhaps more."""
    if isinstance(earlier, dict):
        return all(key in shown and _holds(shown[key], value) for key, value in earlier.items())
    if isinstance(earlier, list):
        return len(shown) == len(earlier) and all(map(_holds, shown, earlier))
    return bool(shown == earlier)


def test_an_upgraded_schema_equals_a_fresh_one(upgraded_url: str, ledger: Connection) -> None:
    with closing(connect(upgraded_url)) as upgraded:
        assert catalog(upgraded) == catalog(ledger)
        assert catalog(upgraded, DETAILS) == catalog(ledger, DETAILS)


def test_an_upgrade_keeps_every_row_and_column(earlier_url: str) -> None:
    with closing(connect(earlier_url)) as connection:
        before = _rows(connection)
        migrate.migrate(connection)
        after = _rows(connection)
    assert sum(map(len, before.values())) > 90
    for table, rows in before.items():
        assert [{name: row[name] for name in old} for old, row in zip(rows, after[table], strict=True)] == rows


def test_usage_and_explain_show_what_they_did(upgraded_url: str, shown: Callable[..., Any]) -> None:
    assert _holds(shown(upgraded_url, "usage", "--month", "2026-05"), SHOWN_EARLIER["usage"])
    assert _holds(shown(upgraded_url, "explain", "baeckerei-wyss"), SHOWN_EARLIER["explain"])


def test_a_run_over_an_upgraded_ledger_corrects_nothing(
    upgraded_url: str, tenants: str, shown: Callable[..., Any]
) -> None:
    """It is as true as it was, and what was open is open still."""
    run = shown(upgraded_url, "run", "--tenants", tenants)
    assert [(finding["tenant"], finding["reason"], finding["action"]) for finding in run["findings"]] == [
        ("spurlos", "events_without_tenant", "report"),
        ("velo-stadler", "org_unlabelled", "report"),
    ]


def test_each_step_is_recorded_once_with_its_version(upgraded_url: str) -> None:
    with closing(connect(upgraded_url)) as connection:
        assert migrate.migrate(connection) == []
        assert connection.execute("SELECT number, name, version FROM reconciler.migrations ORDER BY 1").fetchall() == [
            (step.number, step.name, __version__) for step in schema.STEPS
        ]


def test_concurrent_upgrades_apply_each_step_once(earlier_url: str) -> None:
    def upgrade() -> list[str]:
        with closing(connect(earlier_url)) as connection:
            return migrate.migrate(connection)

    with ThreadPoolExecutor(4) as pool:
        reports = [report for report in pool.map(lambda _: upgrade(), range(4)) if report]
    assert [[words for words in report if words.startswith("step ")] for report in reports] == [
        [f"step {step.name}" for step in schema.STEPS]
    ]


def test_a_step_that_fails_leaves_nothing(earlier_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = schema.Step(999, "999_broken", b"CREATE TABLE reconciler.half (); SELECT 1 / 0")
    monkeypatch.setattr(migrate, "STEPS", (*schema.STEPS, broken))
    with closing(connect(earlier_url)) as connection:
        before = catalog(connection)
        with pytest.raises(LedgerFault, match="division by zero"):
            migrate.migrate(connection)
        assert catalog(connection) == before


@pytest.mark.parametrize("index", ["uniq_corrections_identity", "runs_started"])
def test_an_earlier_schema_without_an_index_is_upgraded(earlier_url: str, ledger: Connection, index: str) -> None:
    with closing(connect(earlier_url)) as connection:
        connection.execute(f"DROP INDEX reconciler.{index}".encode())
        assert f"index reconciler.{index}" in migrate.migrate(connection)
        assert catalog(connection) == catalog(ledger)


def test_an_upgrade_by_another_than_the_owner_is_denied(earlier_url: str) -> None:
    role = f"role_{uuid4().hex}"
    with closing(connect(earlier_url)) as connection:
        connection.execute(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA reconciler TO {role}".encode())
        try:
            connection.execute(f"SET ROLE {role}".encode())
            with pytest.raises(migrate.MigrationDenied) as caught:
                migrate.migrate(connection)
            assert "as the owner" in caught.value.remedy
        finally:
            connection.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_the_steps_are_numbered_without_a_gap() -> None:
    assert [step.number for step in schema.STEPS] == [*range(schema.FIRST_STEP, schema.FIRST_STEP + len(schema.STEPS))]


def test_something_of_ours_that_was_dropped_is_named(ledger: Connection) -> None:
    ledger.execute("DROP VIEW reconciler.last_runs, reconciler.proving_runs; DROP TABLE reconciler.exceptions")
    with pytest.raises(
        migrate.MigrationConflict, match=r"lacks: view reconciler\.proving_runs, table reconciler\.exceptions"
    ) as caught:
        migrate.migrate(ledger)
    assert "from a backup" in caught.value.remedy


COMMANDS = {
    "plan": ("plan", "--tenants", "absent.yaml"),
    "run": ("run", "--tenants", "absent.yaml"),
    "usage": ("usage", "--month", "2026-05"),
    "status": ("status",),
    "explain": ("explain", "baeckerei-wyss"),
    "except": ("except", "baeckerei-wyss", "org_moved", "--until", "2099-01-01", "--note", "known"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_older_schema_is_refused_before_anything_is_read(
    earlier_url: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = invoke(monkeypatch, capsys, *COMMANDS[command], environment={"DATABASE_URL": earlier_url})
    assert (done.code, done.out) == (1, "")
    assert "is older than this version" in done.complaint["error"]
    assert "004_migrations" in done.complaint["error"]
    assert "`reconciler migrate`" in done.complaint["remedy"]


@pytest.mark.parametrize("command", [*COMMANDS, "migrate"])
def test_a_newer_schema_is_refused_with_the_version_it_needs(
    later_url: str, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = COMMANDS.get(command, (command,))
    done = invoke(monkeypatch, capsys, *arguments, environment={"DATABASE_URL": later_url})
    assert (done.code, done.out) == (1, "")
    assert "999_magic" in done.complaint["error"]
    assert "Use reconciler 9.9.9 or later" in done.complaint["remedy"]
