"""Whatever people decide, and whatever happens between their decisions, the ledger says what they said."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.simulation.decided_world import DecidedWorld, Step
from tests.simulation.portal import CLOCK
from tests.support.fake_api import FakeApi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

EXAMPLES: Final = os.environ.get("TEST_DECISION_EXAMPLES")
QUIET_RUNS = 10

tried = settings(max_examples=int(EXAMPLES or 2), derandomize=EXAMPLES is None)
"""A few that stay the same, so that all tests take their time and no more; or as many new ones as one likes."""

HOURS = st.sampled_from([0, 1, 7, 24, 30, 60])
NUMBER = st.integers(0, 60)


def steps(*verbs: str) -> st.SearchStrategy[list[Step]]:
    """Lists of steps of these verbs."""
    return st.lists(st.builds(Step, HOURS, st.sampled_from(verbs), NUMBER, NUMBER, NUMBER), min_size=4, max_size=9)


HAPPENS = ("create", "toggle", "toggle", "suspend", "delete", "wrong", "run", "run")
DECIDED = ("record", "record", "retract", "retract", "alive", "gone", "payer", "reopen", "except")


@pytest.fixture
def new_world(ledger_url: str, tmp_path: Path) -> Iterator[Callable[[], DecidedWorld]]:
    """Makes a world of one time, in the same database."""
    with psycopg.connect(ledger_url, autocommit=True) as ledger:
        ledger.execute(CLOCK)
    with (
        FakeApi() as api,
        psycopg.connect(ledger_url, autocommit=True, options="-c timezone=UTC") as connection,
    ):
        kubeconfig = str(api.kubeconfig(tmp_path / "kubeconfig"))
        yield lambda: DecidedWorld(api, connection, ledger_url, kubeconfig)


def tell(world: DecidedWorld, act: Callable[[DecidedWorld], None]) -> None:
    """Do it; where it fails, tell what had happened."""
    try:
        act(world)
    except AssertionError as error:
        raise AssertionError(f"{error}\n" + "\n".join(world.log)) from error


def settle(world: DecidedWorld) -> None:
    """Let nothing happen any more, and runs see that."""
    world.clock.hold = True
    for _ in range(3):
        world.clock.advance(300)
        world.run()


def quiet_runs(world: DecidedWorld) -> None:
    """Run so often over a cluster that does not change: after the first run nothing changes."""
    world.clock.hold = True
    world.clock.advance(300)
    is_on = world.touch_other()
    world.clock.advance(300)
    world.run()
    assert world.other_is_on() is is_on
    before, reports = world.billed(), world.reports()
    for _ in range(QUIET_RUNS - 1):
        # once a day, all events are looked at
        world.clock.advance(3 * 3600)
        world.run()
        assert (world.billed(), world.reports()) == (before, reports)
    world.clock.hold = False


def act_any(world: DecidedWorld, script: list[Step]) -> None:
    """Let it happen, then run on."""
    world.play([Step(1, "create", 0, 5), Step(1, "run"), *script])
    settle(world)
    world.play([step for step in script if step.verb in DECIDED][-2:])
    quiet_runs(world)
    world.hold_to_word()
    world.lines()


def act_truth(world: DecidedWorld, script: list[Step], style: int) -> None:
    """Let it happen, say how it was, then run on."""
    world.play([Step(1, "create", 1, 5), *script])
    settle(world)
    world.tell_all(style)
    world.clock.advance(300)
    world.run()
    world.clock.advance(300)
    world.tell_keys()
    world.hold_to_truth()
    quiet_runs(world)
    world.hold_to_truth()
    reports = [one for one in world.reports() if one[0] == "acme" and one[-1] != "it lies outside of every lifetime"]
    assert not reports, reports


@tried
@given(steps(*HAPPENS, *DECIDED))
def test_after_any_decisions_later_runs_change_nothing(
    new_world: Callable[[], DecidedWorld], script: list[Step]
) -> None:
    tell(new_world(), lambda world: act_any(world, script))


@tried
@given(steps(*HAPPENS, *DECIDED, "hand", "hand"))
def test_no_hand_in_the_ledger_makes_a_later_run_fail(
    new_world: Callable[[], DecidedWorld], script: list[Step]
) -> None:
    tell(new_world(), lambda world: act_any(world, script))


LOST, LATE = 2, 1
"""The fate of a row: two is lost, one is days late."""
WRONG_PAYER = 8 + 3


@tried
@given(steps(*HAPPENS, *DECIDED), st.integers(0, 3))
@example([Step(24, "delete", LOST), Step(30, "create", LOST, 1), Step(24, "delete", LOST), Step(1, "run")], 0)
@example([Step(1, "run"), Step(30, "hand", 6), Step(24, "delete", LATE), Step(1, "create", 0, 3), Step(7, "run")], 1)
@example([Step(1, "delete", LOST), Step(7, "create", WRONG_PAYER, 3), Step(1, "run"), Step(30, "payer", 1, 1)], 2)
def test_the_truth_is_reached_by_record_alone(
    new_world: Callable[[], DecidedWorld], script: list[Step], style: int
) -> None:
    tell(new_world(), lambda world: act_truth(world, script, style))
