"""The table of a run, for people."""

from __future__ import annotations

from uuid import UUID

import pytest

from reconciler.core.model import Action, Finding, Mode, Outcome, Result
from reconciler.core.reasons import Reason
from reconciler.views.findings import printed


@pytest.mark.parametrize(
    ("shown_by", "words"), [(("3f0c", "1042"), "its row may still come"), (None, "rechecked next time")]
)
def test_what_is_deferred_says_what_it_waits_for(shown_by: tuple[str, str] | None, words: str) -> None:
    waiting = Finding(Reason.SKILL_ENABLE_UNRECORDED, "acme", "2871", Action.DEFER, "mail", shown_by=shown_by)
    outcome = Outcome(run_id=UUID(int=0), mode=Mode.RUN, result=Result.CLEAN, findings=(waiting,))
    assert words in printed(outcome)
