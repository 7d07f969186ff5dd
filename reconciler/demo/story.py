"""The whole story, for somebody who has never seen the reconciler: `reconciler demo`.

Nothing of it is staged: a PostgreSQL of its own is started, and every pass is the one that `reconciler run` makes.
Only the cluster is a file of made-up tenants, which the story changes as the portal would. All times in it are fixed;
what is owed by today grows with the days.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import tempfile
from contextlib import closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from typing import IO, TYPE_CHECKING, Any

import click
import yaml

from reconciler import ledger, logs
from reconciler.core.model import Mode
from reconciler.db.connection import connect, transaction
from reconciler.db.explain import read_story
from reconciler.db.migrate import migrate
from reconciler.deadline import Deadline
from reconciler.demo import postgres as embedded
from reconciler.run import Job, RunOptions, reconcile
from reconciler.sources.file import FileSource
from reconciler.views import explain
from reconciler.views import findings as report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.model import Outcome

GROUP = "pieced.ch"
ORG_LABEL = "pieced.ch/zitadel-org-id"
PRICES = {"bexio-accounting": "1.20", "nextcloud-files": "0.80", "searxng-local-search": "0.25"}
"""CHF a day. What is not there, as threema-messenger, is not billed."""
TIME_LIMIT = 60
"""Seconds that one pass may take."""

OPENING = """
PieCed sells AI assistants. Each customer's assistant is a PiecedTenant in Kubernetes. A portal
changes it there, and then writes a row about it to PostgreSQL. Invoices are computed from those
rows alone: if one is lost, a customer is billed wrongly and nobody notices. The reconciler does.
It compares the two, and adds what is missing.

All of this really runs, on a PostgreSQL that is removed at the end, and on a file of twelve
made-up tenants in place of a cluster.
"""

BACKFILL = """
The ledger has its tables and not one row. The first run is the backfill: every tenant from its
creation on, each package as enabled since then, a suspension from the time that the cluster kept.
velo-stadler carries no label that says who pays: it is recorded under `unknown`, and reported.
"""

LOST = """
The portal changes five tenants in the cluster. Each time its insert fails, and the row is lost:

  12 May  hotel-seeblick turns bexio-accounting on, and would not be billed for it.
  18 May  kanzlei-frei turns nextcloud-files off, and would go on paying for it.
  20 May  baeckerei-wyss is suspended, and would go on paying its monthly fee.
  27 May  weingut-pfyfer is deleted, and would go on paying for everything.
  28 May  velo-stadler is given its label, and still nobody would be billed for it.

A plan shows what a run would do, and writes nothing:
"""

EVIDENCE = """
Each line says when the change is recorded to have happened, and what proves it. `field_manager`:
Kubernetes keeps when the owner of a field last wrote, so the change is no younger than that, and no
older than what the ledger knew before. `suspended_at` and `deletion` are the cluster's own times of
the change. Where nothing proves the moment, the customer is given the benefit of the doubt. CHF is
what the correction is worth by today: `+` was being lost, `-` was being overcharged; in brackets,
if the change was at the one or the other end of its interval.

Now the same as a run:
"""

ROWS = """
Nothing was removed. A lifecycle row was filled in where it was open: a time of deletion, an unknown
organisation. All else is an event appended after the one that it corrects. Why is a row there, and
what is it worth? `reconciler explain kanzlei-frei`:
"""

NOTHING = """
The ledger says what the cluster shows. This run, and any after it, has nothing to write:
"""

CLOSING = """
That was the whole job. In a cluster it runs every five minutes: see cronjob.yaml and the README.

Try next, on your own tenants (DATABASE_URL names a database; a plan writes nothing to it):
  reconciler migrate
  kubectl get piecedtenants -A -o yaml --show-managed-fields | reconciler plan --tenants -
"""


def tell() -> None:
    """Tell the story on standard output, and leave nothing behind."""
    logs.configure(logging.WARNING)
    # SIGTERM unwinds the demo as Ctrl-C does
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    click.echo(OPENING.strip())
    # the file has no name that could be left behind
    with _uninterrupted(), tempfile.TemporaryFile("w+", encoding="utf-8") as file, embedded.server() as url:
        story = _Story(url, file, _sample())
        with _interruptible():
            story.first_run()
            story.rows_are_lost()
            story.nothing_is_left()
    click.echo(f"\n{CLOSING.strip()}")


@dataclass(frozen=True, slots=True)
class _Story:
    """What the story is about.

    Attributes:
        url: the ledger.
        file: what a run reads the tenants from.
        tenants: the custom resources by name, as the cluster shows them now.
    """

    url: str
    file: IO[str]
    tenants: dict[str, dict[str, Any]]

    def first_run(self) -> None:
        """Run on an empty ledger."""
        _chapter("1. The first run", BACKFILL)
        with closing(connect(self.url)) as connection:
            migrate(connection)
            ledger.change_platform_prices(connection, tenant_monthly_fee_chf=Decimal("49.00"))
            for skill, price in PRICES.items():
                ledger.set_skill_price(connection, skill, Decimal(price))
        _show(self._pass(Mode.RUN))

    def rows_are_lost(self) -> None:
        """Change tenants without a word to the ledger; plan, run."""
        self._write("hotel-seeblick", "2026-05-12T07:31:44Z").append("bexio-accounting")
        self._write("kanzlei-frei", "2026-05-18T14:02:10Z").remove("nextcloud-files")
        self._write("baeckerei-wyss", "2026-05-20T16:45:21Z", suspend=True)
        self.tenants["baeckerei-wyss"]["status"] = {"suspendedAt": "2026-05-20T16:45:23Z"}
        # it stays visible until its finalizer has done its work
        self.tenants["weingut-pfyfer"]["metadata"]["deletionTimestamp"] = "2026-05-27T17:58:36Z"
        self.tenants["velo-stadler"]["metadata"]["labels"] = {ORG_LABEL: "287100000000000011"}

        _chapter("2. The portal loses rows", LOST)
        _show(self._pass(Mode.PLAN))
        click.echo(EVIDENCE)
        # a run shows what the plan showed; its last line is what is new
        click.echo(report.summary(self._pass(Mode.RUN)))
        click.echo(ROWS)
        self._explain("kanzlei-frei")

    def nothing_is_left(self) -> None:
        """Run again."""
        _chapter("3. The next run", NOTHING)
        _show(self._pass(Mode.RUN))

    def _pass(self, mode: Mode) -> Outcome:
        """Make one pass over the tenants as they are now."""
        self.file.seek(0)
        self.file.truncate()
        json.dump({"kind": "List", "items": [*self.tenants.values()]}, self.file)
        self.file.flush()
        self.file.seek(0)
        job = Job(
            database_url=self.url,
            source=FileSource(path=f"/dev/fd/{self.file.fileno()}", group=GROUP, org_label=ORG_LABEL),
            deadline=Deadline.after(TIME_LIMIT),
            options=RunOptions(mode=mode),
        )
        outcome = reconcile(job)
        if outcome.failure:
            raise outcome.failure
        return outcome

    def _write(self, name: str, at: str, **spec: object) -> list[str]:
        """Write to a tenant's spec as the portal does, and return its packages: the API server notes when it was."""
        tenant = self.tenants[name]
        tenant["spec"] |= spec
        tenant["metadata"]["generation"] += 1
        (portal,) = tenant["metadata"]["managedFields"]
        portal["time"] = at
        portal["fieldsV1"]["f:spec"] |= {f"f:{field}": {} for field in spec}
        packages: list[str] = tenant["spec"]["packages"]
        return packages

    def _explain(self, name: str) -> None:
        """Print one tenant's timeline."""
        with closing(connect(self.url)) as connection, transaction(connection) as cursor:
            click.echo(explain.printed(read_story(cursor, name)))


_INTERRUPTS = {signal.SIGINT, signal.SIGTERM}


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back, so that nothing is left half made or half removed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTS)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM through for the length of the block."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)


def _sample() -> dict[str, dict[str, Any]]:
    """Return the bundled tenants by name."""
    text = (files("reconciler") / "demo" / "tenants.yaml").read_text(encoding="utf-8")
    return {tenant["metadata"]["name"]: tenant for tenant in yaml.safe_load(text)["items"]}


def _chapter(title: str, text: str) -> None:
    click.secho(f"\n{title}\n{'-' * len(title)}", bold=True)
    click.echo(f"{text.strip()}\n")


def _show(outcome: Outcome) -> None:
    """Print a pass as the command does."""
    click.echo(report.printed(outcome))
