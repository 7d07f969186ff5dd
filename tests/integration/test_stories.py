"""The stories that docs/decisions.md tells: each command prints what the page shows, and runs go on in between."""

from __future__ import annotations

import re
import shlex
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from reconciler.core.model import Result
from tests.integration.test_put_right import Ledger, may
from tests.support.api_state import ORG_LABEL, tenant
from tests.support.command import invoke
from tests.support.pages import fenced, section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.system import System

PAGE = "docs/decisions.md"


def deleted_by_mistake(acme: Ledger) -> None:
    """Deleted on 13 May and stamped by a run, and restored minutes later."""
    acme.show("mail")
    acme.says(1, "enabled")
    acme.delete(13)
    acme.system.api.finalize("acme")
    acme.system.run()
    acme.system.api.create(tenant("acme", ["mail"]), at=may(13) + timedelta(minutes=15))
    acme.system.run()


def off_for_ten_days(acme: Ledger) -> None:
    acme.show("mail")
    acme.says(1, "enabled")
    acme.system.run()


def moved_to_another_organisation(acme: Ledger) -> None:
    """Its label has been changed."""
    acme.system.run()
    acme.system.api.patch("acme", {"metadata": {"labels": {ORG_LABEL: "2872"}}})


def corrected_wrongly(acme: Ledger) -> None:
    """Mail was taken off the custom resource on 10 May, and used until 20 May."""
    acme.show("mail")
    acme.says(1, "enabled")
    acme.says(10, "enabled", "wiki")
    acme.system.api.patch("acme", {"spec": {"packages": ["wiki"]}}, at=may(10))
    acme.system.run()
    acme.says(20, "disabled")


STORIES: dict[str, Callable[[Ledger], None]] = {
    "A tenant that was deleted by mistake": deleted_by_mistake,
    "A skill that was off, and nobody recorded it": off_for_ten_days,
    "A customer who moves to another organisation": moved_to_another_organisation,
    "A correction of ours that was wrong": corrected_wrongly,
}


def commands(title: str) -> Iterator[tuple[str, str]]:
    """Yield the commands of a story, each with the output that the page shows."""
    for block in fenced(section(PAGE, title)):
        for shown in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = shown.partition("\n")
            yield command, output.strip()


def test_the_page_tells_these_stories_and_no_other() -> None:
    assert re.findall(r"^### (.*)$", section(PAGE, "Four stories"), flags=re.MULTILINE) == [*STORIES]


@pytest.mark.parametrize("title", STORIES)
def test_a_story_goes_as_the_page_tells_it(
    title: str, system: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    acme = Ledger(system)
    acme.execute("UPDATE platform_pricing SET tenant_monthly_fee_chf = 49")
    acme.execute("UPDATE skill_pricing SET daily_price_chf = 1.20")
    STORIES[title](acme)
    environment = {"DATABASE_URL": system.url, "RECONCILER_KUBECONFIG": system.kubeconfig}
    told = [*commands(title)]
    assert told
    for command, output in told:
        program, *arguments = shlex.split(command)
        ran = invoke(monkeypatch, capsys, *arguments, environment=environment)
        assert (program, ran.code) == ("reconciler", 0), ran.err
        printed = "\n".join(line.rstrip() for line in ran.out.splitlines()).strip()
        # where the page shows …, it leaves lines out
        shown = r"(\n.*)*".join(map(re.escape, output.split("\n…")))
        assert re.fullmatch(shown, printed), printed
        assert system.run().failure is None
    after = system.run()
    assert after.result is Result.CLEAN, after.findings
