"""Says at the end of many worlds how much of their history could be proven or recovered, and why the rest could not."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the verdicts on all tenant-months, and what was recovered; the workers send them with their reports."""
    if "RECOVERY_SEEDS" in os.environ:
        _print_recovery(terminalreporter)
    if "SIMULATION_SEEDS" in os.environ:
        _print_verdicts(terminalreporter)


def _properties(terminalreporter: pytest.TerminalReporter, wanted: str) -> Iterator[Any]:
    """Yield what the tests have recorded under a name."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            yield from (json.loads(value) for name, value in report.user_properties if name == wanted)


def _print_recovery(terminalreporter: pytest.TerminalReporter) -> None:
    sums: dict[str, Counter[str]] = {}
    for log_shows, recovery in _properties(terminalreporter, "recovery"):
        sums.setdefault(log_shows, Counter()).update(recovery | {"worlds": 1})
    if sums:
        terminalreporter.section("billable days that the portal lost")
    for log_shows, days in sorted(sums.items()):
        share = days["recovered"] / max(days["lost"], 1)
        terminalreporter.write_line(
            f"{log_shows:8}{days['worlds']:5} worlds {days['recovered']:7} of {days['lost']:6} recovered {share:8.2%}"
            f"   billed though not lived: {days['wrong']} of {days['excess']} by the portal alone"
        )


def _print_verdicts(terminalreporter: pytest.TerminalReporter) -> None:
    kinds, active, causes = Counter[str](), Counter[str](), Counter[str]()
    for verdicts in _properties(terminalreporter, "verdicts"):
        for kind, is_active, why in verdicts:
            kinds[kind] += 1
            active[kind] += is_active
            causes.update(why)
    if not kinds:
        return
    terminalreporter.section("tenant-months")
    for kind, number in kinds.most_common():
        share = f"{number / kinds.total():.1%}"
        terminalreporter.write_line(f"{kind:10}{number:8}{share:>8}   active {active[kind]}")
    for cause, number in causes.most_common():
        terminalreporter.write_line(f"{number:8}  {cause}")
