"""A real API server that shows the tenants of the bench."""

from __future__ import annotations

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tests.bench.workload import resource
from tests.support.harness import RealCluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from reconciler.core.model import Observed
    from tests.support.api_state import Object

IDLE_SECONDS = 5
"""For which it is seen what the API server uses by itself."""
WRITERS = 8
"""Requests at a time."""


class RealPages:
    """The API server that a kubeconfig names, which is the bench's own: every tenant on it may go."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._shown: dict[str, Observed] = {}
        self.idle = self.asking = 0.0
        self._own = threading.local()

    def __enter__(self) -> Self:
        self._cluster.install()
        self._cluster.reset()
        self.asking = statistics.median(self._used(0) for _ in range(9))
        self.idle = max(0.0, self._used(IDLE_SECONDS) - self.asking) / IDLE_SECONDS
        return self

    def _used(self, seconds: float) -> float:
        before = self.cpu_seconds()
        time.sleep(seconds)
        return self.cpu_seconds() - before

    def __exit__(self, *_: object) -> None:
        self._cluster.reset()

    @contextmanager
    def showing(self, observed: Sequence[Observed]) -> Iterator[Path]:
        """Create, change and delete until the API server shows these tenants; yield the path of a kubeconfig."""
        wanted = {tenant.name: tenant for tenant in observed}
        with ThreadPoolExecutor(WRITERS) as pool:
            for _ in pool.map(self._write, [one for one in observed if self._shown.get(one.name) != one]):
                pass
            for _ in pool.map(self._delete, self._shown.keys() - wanted.keys()):
                pass
        self._shown = wanted
        yield self._kubeconfig

    is_real: ClassVar[bool] = True

    def admitted(self, observed: Sequence[Observed]) -> list[Observed]:
        """Show these tenants, and return them as created when the API server created them."""
        with self.showing(observed):
            created = {one["metadata"]["name"]: one["metadata"]["creationTimestamp"] for one in self._listed()}
        made = [one._replace(created_at=datetime.fromisoformat(created[one.name])) for one in observed]
        self._shown = {one.name: one for one in made}
        return made

    def _listed(self) -> Iterator[Object]:
        asked: dict[str, Any] = {"limit": 500}
        while True:
            page = self._cluster.fetch(**asked).json()
            yield from page["items"]
            if not (token := page["metadata"].get("continue")):
                return
            asked["continue_"] = token

    @contextmanager
    def changing(self, changed: Sequence[Observed]) -> Iterator[Path]:
        """Change these tenants, which it shows; yield the path of a kubeconfig."""
        shown = self._shown | {tenant.name: tenant for tenant in changed}
        with self.showing([*shown.values()]) as kubeconfig:
            yield kubeconfig

    def cpu_seconds(self) -> float:
        """Return the CPU time that the API server has used, as its own metrics say."""
        text = self._cluster.fetch("/metrics").body.decode()
        return next(
            float(line.split()[1]) for line in text.splitlines() if line.startswith("process_cpu_seconds_total")
        )

    @property
    def _cluster(self) -> RealCluster:
        if not hasattr(self._own, "cluster"):
            self._own.cluster = RealCluster(self._kubeconfig)
        cluster: RealCluster = self._own.cluster
        return cluster

    def _delete(self, name: str) -> None:
        self._cluster.delete(name)

    def _write(self, tenant: Observed) -> None:
        meant: Object = resource(tenant)
        sent: dict[str, Any] = {
            **{key: meant[key] for key in ("apiVersion", "kind", "spec")},
            "metadata": {key: meant["metadata"][key] for key in ("name", "labels")},
        }
        if tenant.name in self._shown:
            # what a merge patch does not name, it leaves as it was
            self._cluster.patch(tenant.name, sent | {"spec": {"suspend": None} | sent["spec"]})
        else:
            self._cluster.create(sent)
        self._cluster.set_status(tenant.name, {"suspendedAt": None} | meant["status"])
