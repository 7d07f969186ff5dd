"""What an answer of the API server contains beside its body, and when it is requested."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from reconciler.deadline import Deadline
from reconciler.sources.api_client import Answer, Api, CustomResource
from reconciler.sources.cluster import Cluster
from tests.support.api_state import ORG_LABEL, tenant

if TYPE_CHECKING:
    from pathlib import Path

    from reconciler.core.model import Observed
    from tests.support.fake_api import FakeApi


@pytest.mark.parametrize("zone", ["GMT", "-0000", "+0000"])
def test_the_servers_clock_is_read_as_utc(zone: str) -> None:
    answer = Answer("/", {"Date": f"Sun, 22 Nov 2026 12:00:00 {zone}"}, b"", 0.0)
    assert answer.date == datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize("headers", [{}, {"Date": "half past nine"}])
def test_a_server_without_a_clock_has_no_date(headers: dict[str, str]) -> None:
    assert Answer("/", headers, b"", 0.0).date is None


class _Reader:
    """A spool that records how many pages had been requested when each tenant was added."""

    def __init__(self, api: FakeApi) -> None:
        self._api = api
        self.requested: list[int] = []

    def add(self, _: Observed, /) -> None:
        # the next request needs a moment to arrive
        wanted, patience = len(self.requested) + 2, time.monotonic() + 30
        while len(self._api.lists) < min(wanted, 3) and time.monotonic() < patience:
            time.sleep(0.01)
        self.requested.append(len(self._api.lists))

    def restart(self) -> None:
        raise AssertionError


def test_the_next_page_is_requested_while_one_is_read(api: FakeApi, tmp_path: Path) -> None:
    for name in ("acme", "beta", "cora"):
        api.create(tenant(name))
    kubeconfig = str(api.kubeconfig(tmp_path / "kubeconfig"))
    client = Api(kubeconfig=kubeconfig, context=None, deadline=Deadline.after(30))
    reader = _Reader(api)
    resource = CustomResource(api=client, group="pieced.ch", plural="piecedtenants")
    Cluster(resource=resource, org_label=ORG_LABEL, page_size=1).observe(reader)
    assert reader.requested == [2, 3, 3]
