"""The scenario that the faults strike, on one database a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.struck_runs import Scenario, ledger_with_clock, staged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.fake_api import FakeApi


@pytest.fixture(scope="module")
def url(postgres_url: str, template: str) -> Iterator[str]:
    """A database for all tests of this file."""
    with ledger_with_clock(postgres_url, template) as url:
        yield url


@pytest.fixture
def scenario(url: str, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scenario]:
    """The world that is known by heart."""
    with staged(url, api, tmp_path, monkeypatch) as scenario:
        yield scenario
