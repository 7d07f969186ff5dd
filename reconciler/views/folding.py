"""What became of old runs, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.views.terminal import plural

if TYPE_CHECKING:
    from reconciler.core.folding import Folded


def folded(done: Folded, *, dry_run: bool) -> str:
    """Say how many runs were folded, what stays, and how the disk gets its space back."""
    if not done.runs:
        return f"Nothing to fold: {_before(done)} no clean run has a later one of its day that proves as much."
    verb = "would be" if dry_run else "were"
    said = f"{plural(done.runs, 'clean run')} of {plural(done.days, 'day')} {_before(done)} {verb} folded"
    if dry_run:
        return f"{said}; nothing was written."
    return (
        f"{said} into later runs of the same day, whose column folded counts them. What is proven stays as it was.\n"
        "PostgreSQL uses the space for new runs. To give it back to the disk: VACUUM FULL reconciler.runs; runs wait "
        "for that."
    )


def _before(done: Folded) -> str:
    return f"before {done.until:%Y-%m-%d} (UTC)" if done.until else "in this ledger"
