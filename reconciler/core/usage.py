"""What was used in a period, line by line."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from reconciler.core.billing import NOTHING
from reconciler.core.model import UNKNOWN_ORG

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date, datetime
    from decimal import Decimal

    from reconciler.core.billing import Line


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What was used in a period.

    Attributes:
        first: its first UTC day.
        until: the day after its last one.
        as_of: nothing that happens from then on counts.
        lines: in the order of `reconciler.core.billing.in_order`.
    """

    first: date
    until: date
    as_of: datetime
    lines: tuple[Line, ...]

    @property
    def last(self) -> date:
        """Its last UTC day."""
        return self.until - timedelta(days=1)

    @property
    def total_chf(self) -> Decimal:
        """What all of it costs, before VAT."""
        return _total(self.lines)

    @property
    def unknown_chf(self) -> Decimal:
        """The part that nobody can be invoiced for, since the organisation is unknown."""
        return _total(line for line in self.lines if line.org == UNKNOWN_ORG)


def _total(lines: Iterable[Line]) -> Decimal:
    return sum((line.amount_chf for line in lines), NOTHING)
