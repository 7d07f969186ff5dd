"""The scenario that the faults strike, on one database a file, with secrets planted everywhere."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support import canaries
from tests.support.receivers import Receiver, status
from tests.support.struck_runs import Scenario, ledger_with_clock, staged

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from tests.support.fake_api import FakeApi


@pytest.fixture(scope="module")
def url(postgres_url: str, template: str) -> Iterator[str]:
    """A database for all tests of this file."""
    with ledger_with_clock(postgres_url, template) as url:
        yield canaries.with_password(url)


@pytest.fixture
def scenario(url: str, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scenario]:
    """The world that is known by heart."""
    with staged(url, api, tmp_path, monkeypatch) as scenario:
        yield scenario


@pytest.fixture(scope="module")
def _everybody() -> Iterator[Receiver]:
    with Receiver() as receiver:
        receiver.otherwise = status(200, b"[]")
        yield receiver


@pytest.fixture(autouse=True)
def planted(_everybody: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Plant secrets in the environment, and look for them in what receivers get; yields who gets the alerts."""
    for name in os.environ:
        if name.startswith("RECONCILER_"):
            monkeypatch.delenv(name)
    for name, value in canaries.environment(_everybody.host).items():
        monkeypatch.setenv(name, value)
    _everybody.requests.clear()
    yield _everybody
    canaries.look_at(*(request.body.decode(errors="replace") for request in _everybody.requests))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test whose captured output holds a planted secret or a traceback."""
    report = yield
    # what libraries log is pytest's to show: the program lets nothing of it out, see tests/unit/test_logs.py
    printed = [text for name, text in report.sections if "log" not in name]
    found = [line for text in printed for line in canaries.found_in(text)]
    if found and report.passed:
        report.outcome = "failed"
        report.longrepr = f"{item.name} printed a planted secret, or a traceback: {found}"
    return report
