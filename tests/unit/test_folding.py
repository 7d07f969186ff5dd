"""Which clean runs of a day go, and into which."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from reconciler.core.folding import CleanRun, fold


def at(minute: int) -> datetime:
    return datetime(2026, 5, 1, tzinfo=UTC) + timedelta(minutes=minute)


def run(
    minute: int,
    unverified: str = "",
    *,
    source: str = "cluster",
    accepted: str = "{}",
    says_more: bool = False,
    is_of_all: bool = True,
) -> CleanRun:
    return CleanRun(UUID(int=minute), at(minute), source, frozenset(unverified), accepted, says_more, is_of_all)


@pytest.mark.parametrize(
    ("runs", "opened", "folded"),
    [
        pytest.param([run(1)], [], {}, id="one - stays"),
        pytest.param([run(3), run(2), run(1)], [], {3: [2, 1]}, id="three alike - into the last"),
        pytest.param([run(2, "a"), run(1)], [], {}, id="the last proves less - both stay"),
        pytest.param([run(2), run(1, "a")], [], {2: [1]}, id="the last proves more - into it"),
        pytest.param([run(2, "a"), run(1, "b")], [], {}, id="each proves what the other does not - both stay"),
        pytest.param([run(3, "a"), run(2), run(1, "b")], [], {2: [1]}, id="the last proves less - into the one before"),
        pytest.param([run(2, source="other"), run(1)], [], {}, id="of two clusters - both stay"),
        pytest.param([run(2, accepted="x"), run(1, accepted="x")], [], {2: [1]}, id="the same reports - into the last"),
        pytest.param([run(2, accepted="x"), run(1)], [], {2: [1]}, id="one more report - into it"),
        pytest.param([run(2), run(1, accepted="x")], [], {}, id="one report fewer - both stay"),
        pytest.param([run(2), run(1, says_more=True)], [], {}, id="one that says more - stays"),
        pytest.param([run(2, says_more=True), run(1)], [], {2: [1]}, id="into one that says more"),
        pytest.param([run(2, is_of_all=False), run(1)], [], {}, id="the last compared a part - both stay"),
        pytest.param([run(2), run(1, is_of_all=False)], [], {2: [1]}, id="the last compared all - into it"),
        pytest.param([run(3), run(1)], [at(2)], {}, id="a report was opened between - both stay"),
        pytest.param([run(3), run(1)], [at(1)], {}, id="a report was opened when the first began - both stay"),
        pytest.param([run(3), run(1)], [at(3)], {3: [1]}, id="a report was opened when the last began - into it"),
        pytest.param([run(4), run(3), run(2), run(1)], [at(2)], {4: [3], 2: [1]}, id="on either side of a report"),
    ],
)
def test_a_run_goes_where_a_later_one_proves_as_much(
    runs: list[CleanRun], opened: list[datetime], folded: dict[int, list[int]]
) -> None:
    assert fold(runs, opened) == {UUID(int=into): [UUID(int=gone) for gone in some] for into, some in folded.items()}
