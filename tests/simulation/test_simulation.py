"""Whatever strikes a run, nothing wrong is written: a seeded world, every invariant after every run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.simulation.simulator import simulate

if TYPE_CHECKING:
    from pathlib import Path

FIRST = int(os.environ.get("SIMULATION_FIRST", "0"))
SEEDS = int(os.environ.get("SIMULATION_SEEDS", "20"))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_every_invariant_holds(seed: int, ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I1 to I10, in the world of this seed."""
    simulate(seed, ledger_url, tmp_path, monkeypatch)
