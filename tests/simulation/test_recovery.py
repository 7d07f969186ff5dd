"""Of the billable days that the portal lost, a whole change log gives back all; `make recover` measures it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.simulation.recovery import LOGS, play_watched

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FIRST = int(os.environ.get("SIMULATION_FIRST", "0"))
SEEDS = int(os.environ.get("RECOVERY_SEEDS", "1"))


@pytest.mark.parametrize("log_shows", LOGS)
@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_what_the_portal_lost_is_recovered(
    seed: int, log_shows: str, ledger_url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    recovery = play_watched(seed, log_shows, ledger_url, tmp_path)
    record_property("recovery", json.dumps([log_shows, recovery._asdict()]))
    assert recovery.recovered <= recovery.lost
    # but for days whose edge lies near a change
    assert log_shows != "whole" or recovery.lost - recovery.recovered <= 2 + recovery.lost // 10, recovery
