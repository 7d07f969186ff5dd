"""`reconciler demo`: the whole story, for somebody who has never seen the reconciler.

Nothing is staged: it starts a PostgreSQL of its own, and every run is the one that `reconciler run` makes. Only the
cluster is a file of made-up tenants, which the story changes as the portal would. All times in it are fixed; the
amounts grow with every day.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import tempfile
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.resources import files
from typing import IO, TYPE_CHECKING, Any, ClassVar

import click
import yaml

from reconciler import ledger, logs
from reconciler.core.model import Listing, Mode
from reconciler.db.apply import Author
from reconciler.db.closing import close, due
from reconciler.db.connection import connect, snapshot, transaction
from reconciler.db.explain import read_story
from reconciler.db.migrate import migrate
from reconciler.deadline import Deadline
from reconciler.demo import postgres
from reconciler.job import Job, RunOptions
from reconciler.run import reconcile
from reconciler.sources.file import FileSource
from reconciler.views import closing as closings
from reconciler.views import explain, findings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from reconciler.core.model import Outcome, Spool, StartLog

GROUP = "pieced.ch"
ORG_LABEL = "pieced.ch/zitadel-org-id"
PRICES = {"bexio-accounting": "1.20", "nextcloud-files": "0.80", "searxng-local-search": "0.25"}
"""CHF a day. A skill without a price, such as threema-messenger, is not billed."""
LATE_SKILL = "nextcloud-files"
LATE_FROM, LATE_UNTIL = datetime(2026, 5, 25, 9, tzinfo=UTC), datetime(2026, 5, 27, 17, tzinfo=UTC)
MAY = date(2026, 5, 1)
DEADLINE_SECONDS = 60
"""How long one run may take."""

OPENING = """
PieCed sells AI assistants. Each customer's assistant is a PiecedTenant in Kubernetes. A portal
changes it there, and then writes a row about it to PostgreSQL. Invoices are computed from those
rows alone: if one is lost, a customer is billed wrongly and nobody notices. The reconciler does:
it compares the cluster with the rows, and adds what is missing.

Everything below really runs, on a PostgreSQL that is removed at the end. In place of a cluster
there is a file of twelve made-up tenants.
"""

BACKFILL = """
The ledger has its tables, but no rows. The first run is the backfill: it records every tenant and
its packages from the creation on, and a suspension from the time in the cluster's status. In
front of a line, `+` is an inserted or appended row, `-` a stamped deletion, `~` a completed row
and `!` a report.
velo-stadler has no label that says who pays: it is recorded under `unknown`, and reported.
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
Each line says when the change happened, as it will be recorded, and what proves it.
`field_manager`: Kubernetes keeps when the owner of a field last wrote, so the change is not later
than that, and not earlier than what the ledger knew before. `suspended_at` and `deletion` are the
cluster's own times of the change. If nothing proves the moment, the customer gets the benefit of
the doubt; only the backfill bills packages from the creation on. CHF is the impact of the
correction up to today: an amount with `+` was being lost, one with `-` was being overcharged. In
brackets: the impact if the change happened at either end of its interval.

Now the same as a run:
"""

ROWS = """
Nothing was removed. Two lifecycle rows were completed: one got its time of deletion, one its
organisation. Everything else is an event, appended after the one that it corrects. Why is a row
there, and what is its impact? `reconciler explain kanzlei-frei` says:
"""

NOTHING = """
The ledger now agrees with the cluster, so the next run has nothing to write. weingut-pfyfer is
still listed, because Kubernetes is still removing it:
"""

CLOSED = """
June has begun, and May is to be invoiced. `reconciler close 2026-05` keeps what it costs, with its
prices. What is not proven has to be accepted, and is kept with the closing: here what happened
before the reconciler was installed, and prices that were set after May had begun. Only a list of
a cluster can prove a month, so from here on the file stands for one.
"""

LATE = """
Then a row of the portal's comes late: nextcloud-files was on at hotel-seeblick from 25 to 27 May.
The next run reports it, and the invoice of May stays as it is:
"""

ADJUSTED = """
`reconciler usage --month 2026-05 --changes` shows what the next closing would hold, and closing
the month once more keeps it. That difference is one line on the next invoice, and owed once:
"""

END = """
That was the whole job. In a cluster it runs every minute: see cronjob.yaml and the README.

Try next, on your own tenants: let DATABASE_URL name an empty database, in which `migrate` creates
the tables; a plan writes nothing. After `make demo`, the command is .venv/bin/reconciler.
  reconciler migrate
  kubectl get piecedtenants -A -o yaml --show-managed-fields | reconciler plan --tenants -
"""


def tell(say: Callable[[str], object]) -> None:
    """Tell the story, each part with `say`, and leave nothing behind."""
    logs.configure(logging.WARNING)
    # SIGTERM unwinds the demo as Ctrl-C does
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    say(OPENING.strip())
    # the file has no name that could be left behind
    with _uninterrupted(), tempfile.TemporaryFile("w+", encoding="utf-8") as file, postgres.server() as url:
        story = _Story(url, file, _sample(), say)
        with _interruptible():
            story.first_run()
            story.rows_are_lost()
            story.nothing_is_left()
            story.a_month_is_closed()
    say(f"\n{END.strip()}")


class _Cluster(FileSource):
    """The file as a cluster would list it, without a change log."""

    is_live: ClassVar[bool] = True

    def identity(self) -> str:
        """Return what identifies it."""
        return "the demo's cluster"

    def observe(self, spool: Spool, start_log: StartLog | None = None) -> Listing:  # noqa: ARG002 - there is none
        """Put every tenant into the spool."""
        FileSource.observe(self, spool)
        return Listing(self.identity(), resource_version="1")


@dataclass(frozen=True, slots=True)
class _Story:
    """What the story is about.

    Attributes:
        url: the ledger.
        file: what a run reads the tenants from.
        tenants: the custom resources by name, as the cluster shows them now.
        say: prints a part of the story.
    """

    url: str
    file: IO[str]
    tenants: dict[str, dict[str, Any]]
    say: Callable[[str], object]

    def first_run(self) -> None:
        """Run on an empty ledger."""
        self._chapter("1. The first run", BACKFILL)
        with closing(connect(self.url)) as connection:
            migrate(connection)
            ledger.change_platform_prices(connection, tenant_monthly_fee_chf=Decimal("49.00"))
            for skill, price in PRICES.items():
                ledger.set_skill_price(connection, skill, Decimal(price))
        self._show(self._reconcile(Mode.RUN))

    def rows_are_lost(self) -> None:
        """Change tenants without recording it; then plan, and run."""
        self._write("hotel-seeblick", "2026-05-12T07:31:44Z").append("bexio-accounting")
        self._write("kanzlei-frei", "2026-05-18T14:02:10Z").remove("nextcloud-files")
        self._write("baeckerei-wyss", "2026-05-20T16:45:21Z", suspend=True)
        self.tenants["baeckerei-wyss"]["status"] = {"suspendedAt": "2026-05-20T16:45:23Z"}
        # it stays visible until its finalizer has done its work
        self.tenants["weingut-pfyfer"]["metadata"]["deletionTimestamp"] = "2026-05-27T17:58:36Z"
        self.tenants["velo-stadler"]["metadata"]["labels"] = {ORG_LABEL: "287100000000000011"}

        self._chapter("2. The portal loses rows", LOST)
        self._show(self._reconcile(Mode.PLAN))
        self.say(EVIDENCE)
        # a run shows the same lines as the plan, and another summary
        self.say(findings.summary(self._reconcile(Mode.RUN)))
        self.say(ROWS)
        self._explain("kanzlei-frei")

    def nothing_is_left(self) -> None:
        """Run again."""
        self._chapter("3. The next run", NOTHING)
        self._show(self._reconcile(Mode.RUN))

    def a_month_is_closed(self) -> None:
        """Close May, let a row come late, and close it again."""
        self._chapter("4. A month is closed", CLOSED)
        self._reconcile(Mode.RUN, _Cluster)
        prices: dict[str, Decimal | None] = dict.fromkeys(["fee", "vat", *PRICES])
        self._close("the invoices of May", accepted=["known_since"], prices=prices)
        with closing(connect(self.url)) as connection:
            hotel = "hotel-seeblick", self.tenants["hotel-seeblick"]["metadata"]["labels"][ORG_LABEL]
            ledger.record_skills(connection, *hotel, enabled=[LATE_SKILL], occurred_at=LATE_FROM)
            ledger.record_skills(connection, *hotel, disabled=[LATE_SKILL], occurred_at=LATE_UNTIL)
        self.say(f"{LATE.rstrip()}\n")
        self._show(self._reconcile(Mode.RUN, _Cluster))
        self.say(f"{ADJUSTED.rstrip()}\n")
        with snapshot(self.url) as cursor:
            self.say(f"{closings.differences(due(cursor, MAY))}\n")
        self._close("late rows", accepted=[], prices={})

    def _close(self, note: str, *, accepted: list[str], prices: dict[str, Decimal | None]) -> None:
        """Close May, and print that as the command does."""
        with closing(connect(self.url)) as connection, transaction(connection) as cursor:
            author, settle = Author("finance", note), RunOptions().settle
            done = close(cursor, MAY, author=author, accepted=accepted, prices=prices, settle=settle)
        self.say(closings.closed(done))

    def _reconcile(self, mode: Mode, source: type[FileSource] = FileSource) -> Outcome:
        """Run once over the tenants as they are now."""
        self.file.seek(0)
        self.file.truncate()
        json.dump({"kind": "List", "items": [*self.tenants.values()]}, self.file)
        self.file.flush()
        self.file.seek(0)
        job = Job(
            database_url=self.url,
            source=source(path=f"/dev/fd/{self.file.fileno()}", group=GROUP, org_label=ORG_LABEL),
            deadline=Deadline.after(DEADLINE_SECONDS),
            options=RunOptions(mode=mode, accept_source=source.is_live),
        )
        outcome = reconcile(job)
        if outcome.failure:
            raise outcome.failure
        return outcome

    def _write(self, name: str, at: str, **spec: object) -> list[str]:
        """Write to a tenant's spec at that time, as the portal does, and return its packages."""
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
            self.say("\n".join(explain.printed(read_story(cursor, name))))

    def _chapter(self, title: str, text: str) -> None:
        self.say(click.style(f"\n{title}\n{'-' * len(title)}", bold=True))
        self.say(f"{text.strip()}\n")

    def _show(self, outcome: Outcome) -> None:
        """Print a run as the command does."""
        self.say(findings.printed(outcome))


_INTERRUPTS = {signal.SIGINT, signal.SIGTERM}


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back, so that nothing is left behind."""
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
