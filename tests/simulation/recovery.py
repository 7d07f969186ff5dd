"""What a change log is worth: of the billable days that the portal lost, how many the corrected ledger bills.

The worlds are those of `history_world.py`, without copies of the cluster. Tenants that lived more than once are left
out: their later lifetimes wait for a person, whatever the log shows.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from reconciler.core.billing import FEE, History, Lifetime
from reconciler.core.model import UNKNOWN_ORG, Event
from reconciler.db.connection import snapshot
from tests.simulation.history_world import HistoryWorld, LoosePortal
from tests.simulation.proof import billable_days, recorded_histories, true_history
from tests.support.fake_api import FakeApi

if TYPE_CHECKING:
    from pathlib import Path

LOGS = ("whole", "forgets", "none")
"""All is shown; what came before the last 100 changes is forgotten, with one a minute; nothing is shown."""
REMEMBERED = 100


class Recovery(NamedTuple):
    """Days of one item of one tenant, summed over a world."""

    lost: int = 0
    """They were lived, and the portal's rows alone do not bill them."""
    recovered: int = 0
    """Those of them that the corrected ledger bills."""
    excess: int = 0
    """They were not lived, and the portal's rows alone bill them."""
    wrong: int = 0
    """They were not lived, and the corrected ledger bills them."""


@dataclass
class WatchedPortal(LoosePortal):
    """A portal whose rows are kept aside too: what the ledger would be without corrections."""

    rows: list[tuple[str, list[Any]]] = field(default_factory=list)

    def history(self, name: str) -> History:
        """Return what its rows alone say of a tenant that lived once."""
        life: Lifetime | None = None
        events: dict[str | None, list[tuple[datetime, str]]] = {}
        for statement, values in self.rows:
            if "lifecycle" in statement and statement.startswith("INSERT") and values[0] == name and not life:
                life = Lifetime(UNKNOWN_ORG, datetime.fromisoformat(values[2]))
            elif statement.startswith("UPDATE") and values[1] == name and life and not life.ended_at:
                life = life._replace(ended_at=values[0])
            elif "events" in statement and values[0] == name:
                kind, at = values[-2:]
                events.setdefault(values[2] if "skill" in statement else FEE, []).append((at, kind))
        items = {item: tuple(Event(0, kind, at) for at, kind in sorted(its)) for item, its in events.items()}
        suspensions = items.pop(FEE, ())
        skills = {item: its for item, its in items.items() if item is not None}
        return History(lifetimes=(life,) if life else (), suspensions=suspensions, skills=skills)

    def _write(self, statement: str, values: list[Any]) -> None:
        self.rows.append((statement, values))
        super()._write(statement, values)


@dataclass
class WatchedWorld(HistoryWorld):
    """A world whose log shows the same from its beginning to its end."""

    log_shows: str = "whole"

    def __post_init__(self) -> None:
        """Set the clock as every world does, and watch its portal."""
        super().__post_init__()
        self.portal = WatchedPortal(self.api, self.clock, self.random, loss=0.0)
        self.log_style = self.log_shows
        self._passed_by_at = self.clock.now

    def _disaster(self) -> None:
        """Copy nothing."""

    def _check_months(self, *, again: bool = False) -> None:
        """Judge nothing."""

    def _treat_log(self) -> None:
        minutes = int((self.clock.now - self._passed_by_at).total_seconds() / 60)
        self._passed_by_at += timedelta(minutes=minutes)
        self.api.pass_by(minutes)
        self.api.watch_allowed = self.log_style != "none"
        if self.log_style == "forgets":
            self.api.forget(before=self.api.resource_version - REMEMBERED)

    def recovery(self) -> Recovery:
        """Return what was lost and what was recovered, from the day after the first run on."""
        first, until = self.runs[0][0].date() + timedelta(days=1), self.ends_at.date()
        lived = {name: true_history(truth) for name, truth in self.portal.truth.items()}
        once = {name: history for name, history in lived.items() if len(history.lifetimes) == 1}
        with snapshot(self.url) as cursor:
            held = dict(recorded_histories(cursor, [*once]))
        total = Recovery()
        for name, history in once.items():
            assert isinstance(self.portal, WatchedPortal)
            right, alone, corrected = (
                billable_days(each, first, until)
                for each in (history, self.portal.history(name), held.get(name, History()))
            )
            for item in right.keys() | alone.keys() | corrected.keys():
                true, rows, billed = (days.get(item, set()) for days in (right, alone, corrected))
                some = Recovery(len(true - rows), len((true - rows) & billed), len(rows - true), len(billed - true))
                total = Recovery(*map(operator.add, total, some))
        return total


def play_watched(seed: int, log_shows: str, url: str, kubeconfig_folder: Path) -> Recovery:
    """Play one seed on a fresh migrated ledger, and return what was recovered in it."""
    with FakeApi() as api:
        kubeconfig = api.kubeconfig(kubeconfig_folder / "kubeconfig")
        world = WatchedWorld(seed, url, api, kubeconfig, log_shows=log_shows)
        world.play()
        return world.recovery()
