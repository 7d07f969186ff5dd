"""What an answer of the API server tells beside its body."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from reconciler.sources.wire import Answer


@pytest.mark.parametrize("zone", ["GMT", "-0000", "+0000"])
def test_the_servers_clock_is_read_as_utc_whatever_it_calls_its_zone(zone: str) -> None:
    answer = Answer("/", {"Date": f"Sun, 22 Nov 2026 12:00:00 {zone}"}, b"", 0.0)
    assert answer.date == datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize("headers", [{}, {"Date": "half past nine"}])
def test_a_server_that_tells_no_time_is_not_taken_to_tell_one(headers: dict[str, str]) -> None:
    assert Answer("/", headers, b"", 0.0).date is None
