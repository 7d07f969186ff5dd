"""Clusters for tests: the double, and the real API server that TEST_KUBECONFIG names."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import pytest

from reconciler.core.model import ChangeLog, LogRead
from tests.support.fake_api import FakeApi
from tests.support.harness import FakeCluster, RealCluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.harness import Cluster

KUBECONFIG: Final = os.environ.get("TEST_KUBECONFIG")

# The lock lets one test at a time have the server, whichever way xdist deals tests out; the group spares the waiting
# where it deals by group.
_MARKS: Final = (pytest.mark.cluster, pytest.mark.xdist_group("cluster"))

_Test = TypeVar("_Test", bound="Callable[..., None]")


def on_a_real_server(test: _Test) -> _Test:
    """Mark a test that uses `real_cluster`."""
    for mark in _MARKS:
        test = mark(test)
    return test


@pytest.fixture
def lost_log(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the change log be lost to every run: two lists must do. To other processes the double does not show it."""
    monkeypatch.setattr("reconciler.sources.cluster.Cluster.read_log", lambda *_: ChangeLog(LogRead.LOST))
    if "api" in request.fixturenames:
        request.getfixturevalue("api").watch_allowed = False


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A fresh API server of our own, with the CRD and without tenants."""
    with FakeApi() as double:
        yield double


@pytest.fixture(
    params=["double", *([pytest.param("real", marks=_MARKS)] if KUBECONFIG else [])],
)
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """An empty cluster: the double, and then the real one if there is one."""
    if request.param == "double":
        with FakeApi() as double:
            yield FakeCluster(double, tmp_path)
    else:
        with _real() as real:
            yield real


@pytest.fixture
def real_cluster() -> Iterator[RealCluster]:
    """The real cluster, empty; the test is skipped without one. Decorate the test with `on_a_real_server`."""
    if not KUBECONFIG:
        pytest.skip("TEST_KUBECONFIG names no API server")
    with _real() as real:
        yield real


@contextmanager
def _real() -> Iterator[RealCluster]:
    kubeconfig = Path(str(KUBECONFIG))
    digest = hashlib.sha256(str(kubeconfig.resolve()).encode()).hexdigest()[:16]
    with (Path(tempfile.gettempdir()) / f"reconciler-tests-{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        real = RealCluster(kubeconfig)
        try:
            real.install()
            real.reset()
            yield real
            real.reset()
        finally:
            real.close()
