"""Whatever strikes a run, nothing wrong is written: a seeded world, every invariant after every run."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from reconciler.db.connection import connect, transaction
from reconciler.db.standing import read_standing
from tests.simulation.simulator import simulate

if TYPE_CHECKING:
    from pathlib import Path

FIRST = int(os.environ.get("SIMULATION_FIRST", "0"))
SEEDS = int(os.environ.get("SIMULATION_SEEDS", "20"))
MINUTES = int(os.environ.get("SIMULATION_MINUTES", "30"))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_every_invariant_holds(seed: int, ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I1 to I10, in the world of this seed; and as nobody there undoes anything, every correction stands."""
    simulate(seed, ledger_url, tmp_path, monkeypatch)
    with closing(connect(ledger_url)) as ledger, transaction(ledger) as cursor:
        written = [number for (number,) in cursor.execute("SELECT id FROM reconciler.corrections")]
        assert [one for one in read_standing(cursor, written) if one.taken_back_at or one.difference] == []


def test_every_invariant_holds_in_runs_of_every_minute(
    ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most of them read only what has changed; a day of them with SIMULATION_MINUTES=1440."""
    assert simulate(FIRST, ledger_url, tmp_path, monkeypatch, minutes=MINUTES).minutes == MINUTES
