"""No certificate is given that the truth does not bear out: a seeded world of forty days, held to what happened."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.simulation.history_world import play

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FIRST = int(os.environ.get("SIMULATION_FIRST", "0"))
SEEDS = int(os.environ.get("SIMULATION_SEEDS", "3"))

MAX_SHARE_NEAR_AN_EDGE = 0.1
"""Of the months that pass and in which something happened."""
FEW = 20
"""So many of them say nothing of a share."""


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_what_passes_is_billed_as_it_happened(
    seed: int, ledger_url: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """I12: nothing that is proven is billed otherwise than it happened, and nothing that could be proven is refused.

    I11: nothing that a change log showed whole is unbilled or billed twice.
    """
    world = play(seed, ledger_url, tmp_path)
    record_property("verdicts", json.dumps([(one.kind, one.is_active, one.causes) for one in world.verdicts]))
    story = "\n".join(world.log)
    false = [one for one in world.verdicts if one.kind in {"wrong", "denied", "lost"}]
    assert not false, f"seed {seed}: " + "\n".join(map(str, false)) + "\n" + story
    assert not (world.is_whole and world.gaps), f"seed {seed}: {world.gaps} gaps, and every log was whole\n{story}"
    # at the end every month is looked at once more: it counts once
    months = {(one.tenant, one.first): one for one in world.verdicts}
    active = Counter(one.kind for one in months.values() if one.is_active)
    passing = active["exact"] + active["edge"] + active["policy"]
    assert active["edge"] <= MAX_SHARE_NEAR_AN_EDGE * max(passing, FEW), f"seed {seed}: {active}\n{story}"
