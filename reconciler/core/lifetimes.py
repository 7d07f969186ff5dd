"""When a tenant lived, as a person says it. Pure.

    said           of the lifetimes                            they become
    -------------  ------------------------------------------  ---------------------------------------------------
    alive, a to b  that the time touches or overlaps           one, from the earliest beginning to the latest end
    alive, a to b  none of them                                one more, from a to b
    gone, a to b   that begin before it, and end inside it     end at a
    gone, a to b   that begin inside it, and end after it      begin at b
    gone, a to b   that begin before it, and end after it      two: one ends at a, the other begins at b
    gone, a to b   that lie inside it                          none of it; the last one of all keeps no time at all

Where a lifetime ends that did not end there before, the skills that are on go off. Where another one begins at the end
of such a time, they are on again as the ledger says: outside of the time nothing changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.decisions import NotPutRight
from reconciler.core.model import LAST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from reconciler.core.billing import Lifetime

ALIVE, GONE = "alive", "gone"


class Gap(NamedTuple):
    """A time in which the tenant is gone, and was not before; `ends_at` is None where it lives no more."""

    begins_at: datetime
    ends_at: datetime | None


def next_end(lived: Sequence[Lifetime], since: datetime) -> datetime | None:
    """Return the next end of a lifetime after an instant; None if there is none: then it is so on and on."""
    return min((one.ended_at for one in lived if one.ended_at and one.ended_at > since), default=None)


def edited(
    lived: Sequence[Lifetime], said: str, since: datetime, until: datetime | None, new: Lifetime | None
) -> tuple[Lifetime, ...]:
    """Return the lifetimes after a person said that the tenant was alive, or gone, from `since` until `until`.

    `new` is the one that begins where no other is touched; None: nobody said who pays for it.

    Raises:
        NotPutRight: it changes nothing, or joins lifetimes of two organisations.
    """
    ends = until or LAST
    # of a tenant that never lived, the row is left
    real = [one for one in lived if one.ended_at != one.began_at]
    if said == ALIVE:
        touched = [one for one in real if one.began_at <= ends and since <= _end(one)]
        if not touched and new is None:
            raise NotPutRight(
                "No lifetime is near that time, so nobody knows which organisation pays.",
                "Nothing was written. Give --org.",
            )
        if len({one.org for one in touched}) > 1:
            raise NotPutRight(
                f"That time joins lifetimes of the organisations {', '.join(sorted({one.org for one in touched}))}.",
                "Nothing was written. Say that it was alive up to where the next one begins, less a moment.",
            )
        first = min([since, *(one.began_at for one in touched)])
        last = max([ends, *(_end(one) for one in touched)])
        whole = (touched[0] if touched else new)._replace(  # type: ignore[union-attr]
            began_at=first, ended_at=None if last == LAST else last
        )
        after = [*(one for one in real if one not in touched), whole]
    else:
        # the row of a tenant is never removed
        after = [*_without(real, since, ends)] or [lived[-1]._replace(ended_at=lived[-1].began_at)]
    result = tuple(sorted(after, key=lambda one: one.began_at))
    if result == tuple(lived):
        raise NotPutRight(
            f"The ledger says that already: the tenant was {said} then.",
            "Nothing was written, and nothing needs to be.",
        )
    return result


def _without(lived: Iterable[Lifetime], since: datetime, until: datetime) -> Iterator[Lifetime]:
    """Yield what is left of lifetimes outside of a time."""
    for one in lived:
        if one.began_at < min(since, _end(one)):
            yield one._replace(ended_at=since) if since < _end(one) else one
        if max(until, one.began_at) < _end(one):
            yield one._replace(began_at=max(until, one.began_at))


def gaps(before: Sequence[Lifetime], after: Sequence[Lifetime]) -> tuple[Gap, ...]:
    """Return the times after each end that is new, up to the next beginning."""
    old = {one.ended_at for one in before}
    begins = sorted(one.began_at for one in after)
    return tuple(
        Gap(one.ended_at, next((at for at in begins if at >= one.ended_at), None))
        for one in after
        if one.ended_at and one.ended_at not in old
    )


def removed_ends(before: Sequence[Lifetime], after: Sequence[Lifetime]) -> frozenset[datetime]:
    """Return the ends that are no more: what closed the skills there is taken back."""
    kept = {one.ended_at for one in after}
    return frozenset(one.ended_at for one in before if one.ended_at and one.ended_at not in kept)


def _end(lifetime: Lifetime) -> datetime:
    return lifetime.ended_at or LAST
