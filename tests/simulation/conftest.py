"""Says at the end of many worlds how much of their history could be proven, and why the rest could not."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the verdicts on all tenant-months; the workers send them with their reports."""
    kinds, active, causes = Counter[str](), Counter[str](), Counter[str]()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name, value in report.user_properties:
                for kind, is_active, why in json.loads(value) if name == "verdicts" else ():
                    kinds[kind] += 1
                    active[kind] += is_active
                    causes.update(why)
    if not kinds or "SIMULATION_SEEDS" not in os.environ:
        return
    terminalreporter.section("tenant-months")
    for kind, number in kinds.most_common():
        share = f"{number / kinds.total():.1%}"
        terminalreporter.write_line(f"{kind:10}{number:8}{share:>8}   active {active[kind]}")
    for cause, number in causes.most_common():
        terminalreporter.write_line(f"{number:8}  {cause}")
