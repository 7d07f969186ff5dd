"""What an API server shows of its change log: each world has one style, drawn from its seed.

`SIMULATION_LOG` names the one that all of them have.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.support.faults import Fault, cut_chunked, watches

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from tests.support.fake_api import FakeApi

STYLES = ("whole", "whole", "whole", "none", "restarts", "forgets", "lags", "cut")


def drawn_style(chance: random.Random, styles: Sequence[str] = STYLES) -> str:
    """Draw the style of a world, whichever is named, so that the rest of it is the same."""
    drawn = chance.choice(styles)
    return os.environ.get("SIMULATION_LOG") or drawn


def treat_log(api: FakeApi, style: str, chance: random.Random) -> None:
    """Let the API server show of its change log what it does in this world, in the run that follows."""
    api.lag = 0
    match style:
        case "none":
            api.watch_allowed = False
        case "restarts" if chance.random() < 0.3:
            api.forget()
        case "forgets":
            # a server remembers so many changes at least; here it is few, as there are few
            api.forget(before=api.resource_version - 4)
        case "lags" if chance.random() < 0.5:
            api.lag = chance.randrange(1, 4)
        case "cut" if chance.random() < 0.5:
            api.faults.append(Fault(cut_chunked(chance.random()), when=watches))
        case _:
            pass
