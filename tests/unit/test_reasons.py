"""The runbook has an entry for whatever people are told of, and the README says the same."""

from __future__ import annotations

import re

import pytest

from reconciler.alerts import alertmanager
from reconciler.cli import main as cli
from reconciler.core.model import Result
from reconciler.core.reasons import RUNBOOK, Reason
from tests.unit.test_readme import names, section, table


def test_every_reason_and_every_way_to_be_stopped_has_its_entry() -> None:
    assert list(RUNBOOK) == [*Reason, Result.BLOCKED, Result.FAILED]


def test_the_readme_has_the_same_entries_in_the_same_words() -> None:
    assert [(names(row[0])[0], *row[1:]) for row in table("Runbook", "what")] == [
        (what, *advice) for what, advice in RUNBOOK.items()
    ]


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
    assert set(re.findall(r"`reconciler (\w+)", said)) <= cli.cli.commands.keys()


@pytest.mark.parametrize("reason", Reason)
def test_what_was_corrected_is_said_to_be_written_and_what_is_reported_is_left(reason: Reason) -> None:
    written = re.search(r"was (appended|inserted|stamped|given)", RUNBOOK[reason].meaning) is not None
    assert written == (reason.corrects)


def test_the_readme_names_the_alerts() -> None:
    named = set(re.findall(r"`((?:Billing|Reconciler)\w+)`", section("Runbook")))
    assert named == {alertmanager.CORRECTED, alertmanager.REPORTED, *alertmanager.STOPPED.values()}
