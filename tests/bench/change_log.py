"""What it costs to read a long change log: `python -m tests.bench.change_log [CHANGES]`, CPU seconds of this process.

Half of the changes lie on one skill of one tenant, the others on a thousand tenants; of each tenth change the portal's
row was lost. The API server is our own, in a process of its own, so that only what reads is measured.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.core.model import Mode
from reconciler.core.plan import Limits
from reconciler.db.connection import connect
from reconciler.db.migrate import migrate
from reconciler.deadline import Deadline
from reconciler.demo import postgres
from reconciler.job import Job, RunOptions
from reconciler.run import reconcile
from reconciler.sources.api_client import Api, CustomResource
from reconciler.sources.cluster import Cluster
from tests.support.api_state import ORG_LABEL, tenant
from tests.support.fake_api import FakeApi

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from reconciler.core.model import Outcome

TENANTS = 1_000
CHANGES = 10_000


def serve(kubeconfig: Path, orders: Connection) -> None:
    """Serve the tenants; at each order make so many changes."""
    with FakeApi() as api:
        for number in range(TENANTS):
            api.create(tenant(f"tenant-{number:04}", ["mail"], suspend=False), at=datetime.now(UTC) - timedelta(days=2))
        api.kubeconfig(kubeconfig)
        orders.send(None)
        while changes := orders.recv():
            for number in range(changes):
                name = "tenant-0000" if number % 2 else f"tenant-{number // 2 % TENANTS:04}"
                spec = api.get(name) or {}
                packages = {*spec["spec"]["packages"]} ^ {"wiki"}
                api.patch(name, {"spec": {"packages": sorted(packages)}})
            orders.send(None)


def run(url: str, kubeconfig: Path) -> Outcome:
    """Run once, and print what it took."""
    deadline = Deadline.after(600)
    source = Cluster(
        resource=CustomResource(
            api=Api(kubeconfig=str(kubeconfig), context=None, deadline=deadline),
            group="pieced.ch",
            plural="piecedtenants",
        ),
        org_label=ORG_LABEL,
        page_size=500,
    )
    options = RunOptions(mode=Mode.RUN, settle=timedelta(), limits=Limits(count=TENANTS))
    began, cpu = time.monotonic(), time.process_time()
    outcome = reconcile(Job(database_url=url, source=source, options=options, deadline=deadline))
    if outcome.failure:
        raise outcome.failure
    written = sum(finding.action.writes for finding in outcome.findings)
    print(  # noqa: T201 - it is what is asked for
        f"{outcome.history.changes:6} changes read, {written:6} rows written, {outcome.history.waiting:6} waiting: "
        f"{time.process_time() - cpu:.2f} s of CPU, {time.monotonic() - began:.2f} s in all"
    )
    return outcome


def main(changes: int) -> None:
    """Measure a run over a quiet log, one that reads so many changes, and the one that appends what was lost."""
    with tempfile.TemporaryDirectory() as folder, postgres.server() as url:
        kubeconfig, (ours, theirs) = Path(folder) / "kubeconfig", multiprocessing.Pipe()
        with closing(connect(url)) as ledger:
            migrate(ledger)
        server = multiprocessing.Process(target=serve, args=(kubeconfig, theirs), daemon=True)
        server.start()
        ours.recv()
        run(url, kubeconfig)
        run(url, kubeconfig)
        ours.send(changes)
        ours.recv()
        run(url, kubeconfig)
        time.sleep(2)
        run(url, kubeconfig)
        run(url, kubeconfig)
        ours.send(0)
        server.join()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else CHANGES)
