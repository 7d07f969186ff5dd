"""How much memory the commands take over tenants with histories that are far too long, and how long they take.

    python -m tests.bench.large

runs each command as a process of its own over one ledger for each situation, and shows its peak.
"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from rich.console import Console
from rich.table import Table

from reconciler.core.reasons import Reason
from reconciler.db.connection import connect
from reconciler.db.migrate import migrate
from reconciler.demo import postgres as embedded
from reconciler.views.terminal import WIDTH_OF_A_FILE
from tests.bench import metered, server

if TYPE_CHECKING:
    from collections.abc import Iterator

ALLOWED = [f"--allow-mass={reason}" for reason in Reason]
RECONCILER = (sys.executable, "-m", "reconciler")
EVERYTHING = "2020-01-01T00:00:00Z"
"""When the tenants were created."""


class Situation(NamedTuple):
    """A ledger, and what the list of tenants shows beside it."""

    name: str
    sql: str
    """Writes the history; %(size)s is how long it is to be."""
    tenants: int = 1
    packages: tuple[str, ...] = ("mail",)


LIVES = """
INSERT INTO tenant_billing_lifecycle SELECT 't' || t, 'unknown', '2020-01-01' FROM generate_series(1, {tenants}) t;
UPDATE platform_pricing SET tenant_monthly_fee_chf = 49;
"""
EVENTS = """
INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at)
SELECT 't' || 1 + n % {tenants}, '1', {skill},
       CASE WHEN n / ({tenants} * {skills}) % 2 = 0 THEN 'enabled' ELSE 'disabled' END,
       timestamptz '2020-01-01' + n * interval '6 years' / {size}
FROM generate_series(0, {size} - 1) n;
INSERT INTO skill_pricing SELECT DISTINCT skill_id, 0.33333 FROM tenant_skill_events LIMIT 10000;
"""
SUSPENSIONS = """
INSERT INTO tenant_suspension_events (tenant_name, zitadel_org_id, event_kind, occurred_at)
SELECT 't1', '1', CASE WHEN n % 2 = 0 THEN 'suspended' ELSE 'resumed' END,
       timestamptz '2020-01-01' + n * interval '6 years' / {size}
FROM generate_series(0, {size} - 1) n;
"""


def _history(size: int, skill: str, *, tenants: int = 1, skills: int = 1) -> str:
    return LIVES.format(tenants=tenants) + EVENTS.format(tenants=tenants, skills=skills, skill=skill, size=size)


def situations(size: int) -> list[Situation]:
    """Return them; each but the last has `size` events."""
    all_off = "UPDATE tenant_skill_events SET event_kind = 'disabled';"
    return [
        Situation("one skill", _history(size, "'mail'")),
        Situation("a skill an event, all off", _history(size, "'s' || n") + all_off),
        Situation("a skill an event, all on", _history(size, "'s' || n", skills=size)),
        Situation("5,000 skills", _history(size, "'s' || n % 5000", skills=5000)),
        Situation("suspensions", LIVES.format(tenants=1) + SUSPENSIONS.format(size=size)),
        Situation("500 tenants", _history(size, "'s' || n / 500 % 5", tenants=500, skills=5), 500),
        Situation(
            "100,000 findings", LIVES.format(tenants=1000), 1000, tuple(f"s{number:03}" for number in range(100))
        ),
    ]


COMMANDS = {
    "plan": ("plan", "--tenants", "{file}"),
    "plan, JSON": ("plan", "--tenants", "{file}", "--output", "json"),
    "run": ("run", "--tenants", "{file}"),
    "explain": ("explain", "t1"),
    "explain, JSON": ("explain", "t1", "--output", "json"),
    "explain, all events": ("explain", "t1", "--all-events"),
    "explain, a month": ("explain", "t1", "--month", "2025-05"),
    "explain, SVG": ("explain", "t1", "--svg", "{folder}/t1.svg"),
    "usage of a month": ("usage", "--month", "2025-05"),
    "usage of all time, JSON": ("usage", "--from", "2020-01-01", "--to", "2026-12-31", "--output", "json"),
    "usage of all time, CSV": ("usage", "--from", "2020-01-01", "--to", "2026-12-31", "--output", "csv"),
    "status": ("status",),
}


def resource(name: str, packages: tuple[str, ...]) -> dict[str, Any]:
    """Return a tenant as kubectl prints it."""
    return {
        "apiVersion": "pieced.ch/v1alpha1",
        "kind": "PiecedTenant",
        "metadata": {
            "name": name,
            "uid": name,
            "resourceVersion": "1",
            "creationTimestamp": EVERYTHING,
            "labels": {"pieced.ch/zitadel-org-id": "1"},
        },
        "spec": {"packages": packages},
    }


def measured(url: str, situation: Situation, folder: Path, commands: str) -> Iterator[tuple[str, ...]]:
    """Record a history, run each command over it, and yield what it took."""
    with closing(connect(url)) as ledger:
        migrate(ledger)
        ledger.execute(situation.sql.encode())
        ledger.execute("VACUUM ANALYZE")
    file = folder / "tenants.json"
    items = [resource(f"t{number}", situation.packages) for number in range(1, situation.tenants + 1)]
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    for name, words in COMMANDS.items():
        if commands in name:
            command = [word.format(file=file, folder=folder) for word in words]
            command += ALLOWED if words[0] in {"plan", "run"} else []
            try:
                use, output, _ = metered.run([*RECONCILER, *command], {"DATABASE_URL": url})
            except RuntimeError as error:
                yield situation.name, name, "failed", str(error).splitlines()[-1]
            else:
                size = sum(map(len, output)) / 1e6
                yield situation.name, name, f"{use.wall:.1f}", f"{use.cpu:.1f}", f"{use.peak / 1e6:.0f}", f"{size:.1f}"


@click.command(context_settings={"show_default": True})
@click.option("--size", type=click.IntRange(1), default=1_000_000, help="Events of each situation.")
@click.option("--only", default="", help="Only situations whose name contains this.")
@click.option("--commands", default="", help="Only commands whose name contains this.")
def main(*, size: int, only: str, commands: str) -> None:
    """Measure the peak memory of commands over long histories."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)
    table = Table(title=f"{size:,} events in each situation", title_justify="left")
    for name in ("situation", "command", "wall s", "CPU s", "peak MB", "output MB"):
        table.add_column(name, justify="left" if name in {"situation", "command"} else "right")
    with embedded.server() as url, tempfile.TemporaryDirectory() as folder:
        for number, situation in enumerate(each for each in situations(size) if only in each.name):
            with closing(connect(url)) as maintenance:
                maintenance.execute(f"CREATE DATABASE d{number}".encode())
            for row in measured(server.database(url, f"d{number}"), situation, Path(folder), commands):
                table.add_row(*row)
                click.echo(" | ".join(row), err=True)
            with closing(connect(url)) as maintenance:
                maintenance.execute(f"DROP DATABASE d{number} WITH (FORCE)".encode())
    console.print(table)


if __name__ == "__main__":
    main()
