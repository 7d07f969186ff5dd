"""What an answer of the API server tells beside its body, and when it is asked for."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from reconciler.deadline import Deadline
from reconciler.sources.api_client import Answer, Api
from reconciler.sources.cluster import Cluster
from tests.support.world import ORG_LABEL, tenant

if TYPE_CHECKING:
    from pathlib import Path

    from reconciler.core.model import Observed
    from tests.support.double import ApiDouble


@pytest.mark.parametrize("zone", ["GMT", "-0000", "+0000"])
def test_the_servers_clock_is_read_as_utc_whatever_it_calls_its_zone(zone: str) -> None:
    answer = Answer("/", {"Date": f"Sun, 22 Nov 2026 12:00:00 {zone}"}, b"", 0.0)
    assert answer.date == datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize("headers", [{}, {"Date": "half past nine"}])
def test_a_server_that_tells_no_time_is_not_taken_to_tell_one(headers: dict[str, str]) -> None:
    assert Answer("/", headers, b"", 0.0).date is None


class _Reader:
    """A spool that notes how many pages had been asked for when a tenant came."""

    def __init__(self, api: ApiDouble) -> None:
        self._api = api
        self.asked: list[int] = []

    def add(self, _: Observed, /) -> None:
        # a request that is on its way needs a moment to arrive
        wanted, patience = len(self.asked) + 2, time.monotonic() + 30
        while len(self._api.lists) < min(wanted, 3) and time.monotonic() < patience:
            time.sleep(0.01)
        self.asked.append(len(self._api.lists))

    def restart(self) -> None:
        raise AssertionError


def test_the_next_page_is_on_its_way_while_one_is_read(api: ApiDouble, tmp_path: Path) -> None:
    for name in ("acme", "beta", "cora"):
        api.create(tenant(name))
    kubeconfig = str(api.kubeconfig(tmp_path / "kubeconfig"))
    wire = Api(kubeconfig=kubeconfig, context=None, deadline=Deadline.after(30))
    reader = _Reader(api)
    Cluster(api=wire, group="pieced.ch", plural="piecedtenants", org_label=ORG_LABEL, page_size=1).observe(reader)
    assert reader.asked == [2, 3, 3]
