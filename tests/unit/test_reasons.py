"""The runbook has an entry for everything that people are notified of, and every link into it resolves."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from reconciler.alerts import alertmanager
from reconciler.cli.main import cli
from reconciler.core.model import Result
from reconciler.core.reasons import REPORTING, RUNBOOK, Reason
from tests.support.pages import PAGES, ROOT, anchors, section

PAGE = "docs/runbook.md"
CORRECTIONS = "docs/corrections.md"


def test_every_reason_and_every_stop_has_its_entry() -> None:
    assert list(RUNBOOK) == [*Reason, Result.BLOCKED, Result.FAILED]


@pytest.mark.parametrize("what", RUNBOOK)
def test_the_page_has_the_same_entry_in_the_same_words(what: Reason | Result) -> None:
    page = CORRECTIONS if isinstance(what, Reason) and what.corrects else PAGE
    said = " ".join(section(page, what).split())
    meaning, remedy = RUNBOOK[what]
    assert f"{meaning} **Remedy:** {remedy}" in said


@pytest.mark.parametrize("what", RUNBOOK)
def test_an_entry_is_whole_sentences_on_one_line(what: Reason | Result) -> None:
    """They stand in messages, annotations and the cells of a table."""
    for said in RUNBOOK[what]:
        assert said.endswith(".")
        assert said.isprintable()
        assert "|" not in said
        assert 20 <= len(said) <= 300 or said == "Nothing."


@pytest.mark.parametrize("what", RUNBOOK)
def test_an_entry_names_no_command_that_does_not_exist(what: Reason | Result) -> None:
    said = " ".join(RUNBOOK[what])
    assert set(re.findall(r"`reconciler (\w+)", said)) <= cli.commands.keys()


@pytest.mark.parametrize("reason", Reason)
def test_only_a_correction_says_that_something_was_written(reason: Reason) -> None:
    written = re.search(r"was (appended|inserted|stamped|given)", RUNBOOK[reason].meaning) is not None
    assert written == (reason.corrects)


def test_the_runbook_names_the_alerts() -> None:
    named = set(re.findall(r"`((?:Billing|Reconciler)\w+)`", PAGES[PAGE]))
    ours = {alertmanager.CORRECTED, alertmanager.REPORTED, *alertmanager.STOPPED.values()}
    assert ours <= named <= ours | {*rules()}


def rules() -> dict[str, Any]:
    """Return the rules of Prometheus by the name of their alert."""
    groups = yaml.safe_load((ROOT / "monitoring" / "rules.yaml").read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


@pytest.mark.parametrize("alert", rules())
def test_a_rule_links_to_an_entry_of_the_runbook(alert: str) -> None:
    path, _, anchor = rules()[alert]["annotations"]["runbook"].partition("#")
    assert path == PAGE
    found = {anchor.replace("{{ $labels.reason }}", reason) for reason in REPORTING}
    assert found <= anchors(PAGES[PAGE])
