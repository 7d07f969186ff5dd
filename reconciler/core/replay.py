"""How a key reads with what people decided of it: rows and decisions replayed in the order in which they were written.

Pure: no clock, no I/O, frozen values. A key is a skill of a tenant, or its suspension.

    replayed                       sets the state
    -----------------------------  ---------------------------------------------------------------------------------
    a row                          at its instant
    a row that comes later inside  at its instant, to the decided one
    a decision, `--from` `--to`    at its beginning, and at every row in it, to the decided one; at its end, to what
                                   the key read there before it was decided

A decision without a length is a row: a skill that goes off where its lifetime ends.

Left out are the rows that were taken back, those that took them back, and those that a decision wrote: it writes them
anew. Wherever the ledger then reads otherwise, the right state is appended at that instant. So what is taken back reads
as if it had never been written, and a decision stands whatever comes later.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.model import Event

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime

NOTHING = {True: "disabled", False: "resumed"}
"""What a key without events says, by whether it is a skill's: a skill is off, and a tenant runs."""


class Decided(NamedTuple):
    """What a person decided of a key: its state from one instant to another."""

    number: int
    kind: str
    begins_at: datetime
    ends_at: datetime
    place: int
    """The id of the first event that it wrote: events of a lower id were there when it was decided."""

    def holds(self, at: datetime) -> bool:
        """True if the instant lies in it; its end does not."""
        return self.begins_at <= at < self.ends_at


class Restated(NamedTuple):
    """What must be appended so that the ledger reads as it was decided."""

    at: datetime
    kind: str
    wrong: Event | None
    """The event that is in force there; None if the key has none up to then."""


def reading(rows: Iterable[Event], decided: Collection[Decided], nothing: str) -> Mapping[datetime, str]:
    """Return the state of a key from each instant on at which something sets it.

    `rows` are those that count, and none that a decision wrote; `nothing` is what a key without events says.
    """
    states: dict[datetime, str] = {}
    # of those that hold an instant the latest one counts
    latest_first = sorted(decided, reverse=True)
    steps: list[tuple[int, Event | Decided]] = [(row.id, row) for row in rows]
    steps += [(one.place, one) for one in decided]
    for place, step in sorted(steps, key=lambda step: step[0]):
        if isinstance(step, Event):
            held = (one.kind for one in latest_first if one.place < place and one.holds(step.occurred_at))
            states[step.occurred_at] = next(held, step.kind)
        else:
            after = state_of(states, step.ends_at, nothing)
            for at in [at for at in states if step.holds(at)]:
                del states[at]
            states[step.ends_at] = after
            states[step.begins_at] = step.kind
    return states


def restate(
    events: Sequence[Event],
    aside: AbstractSet[int],
    decided: Collection[Decided],
    nothing: str,
    *,
    as_of: datetime,
    pins: AbstractSet[datetime] = frozenset(),
) -> Iterator[Restated]:
    """Yield what must be appended so that the ledger reads as it is replayed, by its instant.

    `events` are all of a key, `aside` the ids of those that are not replayed. At `pins` something is appended in any
    case; nothing after `as_of`.
    """
    wanted = reading([event for event in events if event.id not in aside], decided, nothing)
    written = {event.occurred_at: event for event in sorted(events, key=lambda event: event.id)}
    wants = says = nothing
    in_force: Event | None = None
    for at in sorted(wanted.keys() | written.keys() | pins):
        if at > as_of:
            return
        wants = wanted.get(at, wants)
        if at in written:
            in_force = written[at]
            says = in_force.kind
        if says != wants or at in pins:
            yield Restated(at, wants, in_force)
            says = wants


def state_at(events: Iterable[Event], at: datetime, nothing: str) -> str:
    """Return the state of a key at an instant, as its latest event up to then says."""
    up_to = (event for event in events if event.occurred_at <= at)
    latest = max(up_to, key=lambda event: (event.occurred_at, event.id), default=None)
    return latest.kind if latest else nothing


def state_of(states: Mapping[datetime, str], at: datetime, nothing: str) -> str:
    """Return the state of a key at an instant, as `reading` has it."""
    instants = sorted(states)
    place = bisect_right(instants, at)
    return states[instants[place - 1]] if place else nothing
