"""Which clean runs of a day are folded into which: a run goes only where a later one proves as much. Pure.

What a question asks of the runs is always the latest one up to some moment that proved a tenant: up to now, or up to
when a report was opened that is open still. So a run may go if a later one proved every tenant that it proved, and no
such moment lies between the two. Then no answer changes.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID


NOTHING = "{}"
"""No report was found."""


class CleanRun(NamedTuple):
    """A clean run, as far as it matters what it proved."""

    id: UUID
    observed_at: datetime
    source: str | None
    unverified: frozenset[str]
    """The tenants that it could not prove."""
    accepted: str
    """How many reports it found that people accept, by their reasons."""
    says_more: bool
    """It says more than that, or something else names it: it stays."""
    is_of_all: bool = True
    """It compared all tenants: only a run that did so, too, proves as much."""

    def replaces(self, other: CleanRun) -> bool:
        """True if it proved of the same source whatever the other run proved, and found the same."""
        return (
            self.source == other.source
            and self.is_of_all >= other.is_of_all
            and self.unverified <= other.unverified
            and other.accepted in {NOTHING, self.accepted}
        )


class Folded(NamedTuple):
    """What was folded, or would be."""

    runs: int
    """Rows that went."""
    days: int
    """UTC days of which rows went."""
    until: datetime | None
    """All runs of this day and of every later one stay; None before the first run."""


def fold(runs: Iterable[CleanRun], opened: Sequence[datetime]) -> Mapping[UUID, Sequence[UUID]]:
    """Return, by the run that stays, which runs are folded into it.

    The runs come from the latest to the earliest. `opened` is when the open reports were opened, sorted.
    """
    staying: list[CleanRun] = []
    folded: dict[UUID, list[UUID]] = {}
    for run in runs:
        before = bisect_left(opened, run.observed_at)
        into = next(
            (later for later in staying if later.replaces(run) and bisect_left(opened, later.observed_at) == before),
            None,
        )
        if run.says_more or into is None:
            staying.append(run)
        else:
            folded.setdefault(into.id, []).append(run.id)
    return folded
