"""A correction that the ledger no longer shows was taken back by an unknown hand: `explain` and `status` say so."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from reconciler.core.reasons import Reason
from reconciler.core.standing import Shown, Written, difference
from reconciler.db import status
from reconciler.db.connection import transaction
from reconciler.db.explain import read_story
from reconciler.db.status import read_status
from reconciler.views.explain import draw, svg, timeline
from tests.integration.test_decisions import move_runs_to, reopen
from tests.support.api_state import tenant
from tests.support.command import Ran, invoke

if TYPE_CHECKING:
    from collections.abc import Callable

    from reconciler.core.explanation import Story
    from reconciler.core.status import Status
    from tests.support.system import System

DAY = timedelta(days=1)
SETTLE = timedelta(seconds=60)


def record(system: System, name: str, org: str, at: datetime) -> None:
    """Record a tenant as the portal does."""
    system.ledger.execute("INSERT INTO tenant_billing_lifecycle VALUES (%s, %s, %s)", [name, org, at])


@pytest.fixture
def corrected(system: System) -> System:
    """A run that has written each kind of correction: acme's row and events, gone's end, nora's organisation."""
    long_ago = (system.now - 9 * DAY).replace(microsecond=0)
    record(system, "gone", "2871", long_ago)
    system.record_skill("gone", "mail", -8 * DAY)
    record(system, "nora", "unknown", long_ago)
    system.api.create(tenant("acme", ["mail"], suspend=True), at=long_ago)
    system.api.create(tenant("nora", []), at=long_ago)
    assert {finding.reason for finding in system.run().findings} == {reason for *_, reason in CORRECTIONS}
    return system


CORRECTIONS = [
    ("acme", Reason.TENANT_UNRECORDED),
    ("acme", Reason.SKILL_ENABLE_UNRECORDED),
    ("acme", Reason.SUSPENSION_UNRECORDED),
    ("gone", Reason.DELETION_UNRECORDED),
    ("gone", Reason.SKILL_OPEN_AFTER_DELETION),
    ("nora", Reason.ORG_RESOLVED),
]
"""What the run has written."""


def story_of(system: System, name: str) -> Story:
    with transaction(system.ledger) as cursor:
        return read_story(cursor, name)


def status_of(system: System) -> Status:
    with transaction(system.ledger) as cursor:
        return read_status(cursor, settle=SETTLE)


def differences(system: System) -> dict[tuple[str, str], str]:
    """Return what is said of each correction that was taken back, without its times."""
    found = {
        (name, made.reason): re.sub(r"\d{4}-[-:.T\d]+Z", "…", made.difference or "as written")
        for name in ("acme", "gone", "nora")
        for made in story_of(system, name).corrections
        if made.is_taken_back
    }
    assert found.keys() == {(one.tenant, one.reason) for one in status_of(system).taken_back}
    return found


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        pytest.param(
            "DELETE FROM tenant_skill_events WHERE tenant_name = 'acme'",
            {("acme", "skill_enable_unrecorded"): "its event is gone"},
            id="a skill event deleted - gone",
        ),
        pytest.param(
            "DELETE FROM tenant_suspension_events WHERE tenant_name = 'acme'",
            {("acme", "suspension_unrecorded"): "its event is gone"},
            id="a suspension deleted - gone",
        ),
        pytest.param(
            "UPDATE tenant_skill_events SET event_kind = 'disabled' WHERE tenant_name = 'acme'",
            {("acme", "skill_enable_unrecorded"): "its event was changed: event_kind is disabled, not enabled"},
            id="an event turned round - changed",
        ),
        pytest.param(
            "UPDATE tenant_suspension_events SET occurred_at = occurred_at + interval '1 day', zitadel_org_id = '1' "
            "WHERE tenant_name = 'acme'",
            {
                ("acme", "suspension_unrecorded"): "its event was changed: zitadel_org_id is 1, not 2871, "
                "occurred_at is …, not …"
            },
            id="an event's time and payer changed - both named",
        ),
        pytest.param(
            "UPDATE tenant_skill_events SET tenant_name = 'nora', skill_id = 'fax' WHERE tenant_name = 'acme'",
            {
                ("acme", "skill_enable_unrecorded"): "its event was changed: tenant_name is nora, not acme, "
                "skill_id is fax, not mail"
            },
            id="an event given to another key - changed",
        ),
        pytest.param(
            "UPDATE tenant_billing_lifecycle SET deleted_at = NULL WHERE tenant_name = 'gone'",
            {("gone", "deletion_unrecorded"): "its row was changed: deleted_at is empty, not …"},
            id="a stamp set back - empty",
        ),
        pytest.param(
            "UPDATE tenant_billing_lifecycle SET deleted_at = deleted_at + interval '1 day' WHERE tenant_name = 'gone'",
            {("gone", "deletion_unrecorded"): "its row was changed: deleted_at is …, not …"},
            id="a stamp moved - changed",
        ),
        pytest.param(
            "UPDATE tenant_billing_lifecycle SET created_at = created_at - interval '1 day' WHERE tenant_name = 'gone'",
            {},
            id="the creation of a stamped row moved - the stamp stands",
        ),
        pytest.param(
            "UPDATE tenant_billing_lifecycle SET created_at = created_at - interval '1 day' WHERE tenant_name = 'acme'",
            {("acme", "tenant_unrecorded"): "its row was changed: created_at is …, not …"},
            id="the creation of an inserted row moved - changed",
        ),
        pytest.param(
            "UPDATE tenant_billing_lifecycle SET zitadel_org_id = 'unknown' WHERE tenant_name = 'nora'",
            {("nora", "org_resolved"): "its row was changed: zitadel_org_id is unknown, not 2871"},
            id="an organisation set back - changed",
        ),
        pytest.param(
            "UPDATE tenant_billing_lifecycle SET zitadel_org_id = 'unknown' WHERE tenant_name = 'acme'",
            {("acme", "tenant_unrecorded"): "its row was changed: zitadel_org_id is unknown, not 2871"},
            id="the organisation of an inserted row taken away - changed",
        ),
        pytest.param(
            "UPDATE tenant_billing_lifecycle SET zitadel_org_id = '9' WHERE tenant_name IN ('acme', 'nora')",
            {},
            id="another organisation decided later - stands",
        ),
        pytest.param(
            "DELETE FROM tenant_billing_lifecycle",
            {
                ("acme", "tenant_unrecorded"): "its row is gone",
                ("gone", "deletion_unrecorded"): "its row is gone",
                ("nora", "org_resolved"): "its row is gone",
            },
            id="lifecycle rows deleted - gone",
        ),
        pytest.param(
            "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind) "
            "VALUES ('acme', '2871', 'mail', 'disabled')",
            {},
            id="a later event of the same key - stands",
        ),
        pytest.param(
            "UPDATE tenant_billing_lifecycle SET deleted_at = now() WHERE tenant_name = 'acme'",
            {},
            id="an inserted row ended later - stands",
        ),
    ],
)
def test_what_somebody_undid_is_said_at_once(
    corrected: System, statement: str, words: dict[tuple[str, str], str]
) -> None:
    assert differences(corrected) == {}
    corrected.ledger.execute(statement.encode())
    assert differences(corrected) == words


UNDOINGS = {
    "acme": "DELETE FROM tenant_skill_events WHERE tenant_name = 'acme'",
    "gone": "UPDATE tenant_billing_lifecycle SET deleted_at = NULL WHERE tenant_name = 'gone'",
    "nora": "UPDATE tenant_billing_lifecycle SET zitadel_org_id = 'unknown' WHERE tenant_name = 'nora'",
}


@pytest.mark.parametrize("name", UNDOINGS)
def test_what_a_run_wrote_again_says_when(corrected: System, name: str) -> None:
    corrected.ledger.execute(UNDOINGS[name].encode())
    corrected.run()
    (before, again) = (
        made
        for made in story_of(corrected, name).corrections
        if made.reason in {"skill_enable_unrecorded", "deletion_unrecorded", "org_resolved"}
    )
    assert (before.is_taken_back, again.is_taken_back) == (True, False)
    assert before.taken_back_at
    (listed,) = status_of(corrected).taken_back
    assert (listed.id, listed.tenant, listed.taken_back_at) == (before.id, name, before.taken_back_at)


def test_a_stamp_written_again_belongs_to_its_second_correction(corrected: System) -> None:
    corrected.ledger.execute(UNDOINGS["gone"].encode())
    corrected.run()
    story = story_of(corrected, "gone")
    (deleted,) = (entry for entry in story.entries if entry.kind == "deleted")
    assert deleted.correction
    assert not story.corrections[deleted.correction - 1].is_taken_back


def test_lifetimes_that_were_reopened_take_nothing_back(system: System) -> None:
    """Created, deleted, recreated, reopened, deleted again: every correction of either lifetime stands."""
    system.api.create(tenant("acme", ["mail"], finalizers=["f"]), at=system.now - 9 * DAY)
    system.run()
    move_runs_to(system, -8.5 * DAY)
    system.api.delete("acme", at=system.now - 8 * DAY)
    system.run()
    move_runs_to(system, -7 * DAY)
    system.api.finalize("acme")
    system.api.create(tenant("acme", ["mail"], org="2872", finalizers=["f"]), at=system.now - 6 * DAY)
    reopen(system)
    system.run()
    move_runs_to(system, -5.5 * DAY)
    system.api.delete("acme", at=system.now - 5 * DAY)
    system.run()
    made = story_of(system, "acme").corrections
    assert [one.reason for one in made].count("deletion_unrecorded") == 2
    assert [one for one in made if one.is_taken_back] == []
    assert status_of(system).taken_back_count == 0


def test_a_reason_of_a_later_version_is_compared_without_its_kind() -> None:
    at = datetime.fromisoformat("2026-05-01T00:00:00Z")
    written = Written("acme", "1", "mail", "skill_renamed", "append", at)
    assert difference(written, Shown("acme", "1", "mail", "disabled", at, None)) is None


# --- how it reads ------------------------------------------------------------------------------------------------


def drawn(story: Story) -> str:
    """Return what people read, 200 columns wide."""
    console = Console(file=StringIO(), width=200, height=1)
    draw(story, console, width=100)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_explain_marks_what_no_run_has_noticed(corrected: System) -> None:
    corrected.ledger.execute(UNDOINGS["acme"].encode())
    story = story_of(corrected, "acme")
    assert re.search(r"mail: .* → enabled  taken back", drawn(story))
    assert "Taken back by an unknown hand: its event is gone. No run has written the correction again." in drawn(story)
    assert "taken\xa0back" in svg(story).replace("&#160;", "\xa0")


def test_explain_marks_what_was_written_again(corrected: System) -> None:
    corrected.ledger.execute(UNDOINGS["gone"].encode())
    corrected.run()
    text = " ".join(drawn(story_of(corrected, "gone")).split())
    assert re.search(
        r"Taken back by an unknown hand: its row .* At [-: \d]+ a run noticed, and wrote the correction again\.", text
    )
    assert "1 taken back, not counted." in text


def test_only_what_stands_is_added_up_and_drawn(corrected: System) -> None:
    corrected.ledger.execute("UPDATE reconciler.corrections SET impact_chf = 5")
    corrected.ledger.execute(UNDOINGS["acme"].encode())
    story = story_of(corrected, "acme")
    assert "Together +10.00 CHF, before VAT, up to the runs that found them. 1 taken back, not counted." in drawn(story)
    (lane,) = (lane for lane in timeline(story, 100).lanes if lane.label == "mail")
    assert lane.marks == []


def test_an_event_that_somebody_changed_is_marked(corrected: System) -> None:
    corrected.ledger.execute("UPDATE tenant_skill_events SET event_kind = 'disabled' WHERE tenant_name = 'acme'")
    assert re.search(r"mail +disabled +◆ \d, changed by hand", drawn(story_of(corrected, "acme")))


@pytest.fixture
def command(system: System, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """`reconciler` over the ledger."""

    def run(*arguments: str, **environment: str) -> Ran:
        known = {"DATABASE_URL": system.url, "COLUMNS": "200"}
        return invoke(monkeypatch, capsys, *arguments, environment=known | environment)

    return run


def test_explain_tells_programs(corrected: System, command: Callable[..., Ran], role_url: str) -> None:
    corrected.ledger.execute(UNDOINGS["acme"].encode())
    made: list[dict[str, Any]] = command("explain", "acme", "--output", "json", DATABASE_URL=role_url).document[
        "corrections"
    ]
    assert {one["reason"]: (one["taken_back_at"], one["difference"]) for one in made} == {
        "tenant_unrecorded": (None, None),
        "skill_enable_unrecorded": (None, "its event is gone"),
        "suspension_unrecorded": (None, None),
    }


def test_status_lists_them_for_people_and_programs(
    corrected: System, command: Callable[..., Ran], role_url: str
) -> None:
    assert "TAKEN BACK" not in command("status").out
    for name in ("gone", "acme"):
        corrected.ledger.execute(UNDOINGS[name].encode())
        if name == "gone":
            corrected.run()
    _, _, after = command("status", DATABASE_URL=role_url).out.partition("CORRECTIONS TAKEN BACK BY AN UNKNOWN HAND\n")
    first, second = (re.split(r" {2,}", line.strip()) for line in after.splitlines()[1:3])
    assert [first[1:4], first[5:]] == [["acme", "skill_enable_unrecorded", "mail"], ["by no run", "its event is gone"]]
    assert [second[1:4], second[6:]] == [["gone", "deletion_unrecorded", "-"], ["-"]]
    found = command("status", "--output", "json").document
    assert found["taken_back_count"] == 2
    assert found["taken_back"][0].keys() == {
        *("id", "tenant", "reason", "subject", "written_at", "taken_back_at", "difference")
    }


def test_what_was_written_again_a_month_ago_is_history(corrected: System) -> None:
    corrected.ledger.execute("UPDATE reconciler.corrections SET taken_back_at = now() - interval '29 days'")
    assert status_of(corrected).taken_back == ()
    corrected.ledger.execute("UPDATE reconciler.corrections SET taken_back_at = now() - interval '20 days'")
    assert status_of(corrected).taken_back_count == len(CORRECTIONS)


def test_only_the_latest_corrections_are_asked_for(corrected: System, monkeypatch: pytest.MonkeyPatch) -> None:
    corrected.ledger.execute("DELETE FROM tenant_skill_events")
    assert status_of(corrected).taken_back_count == 2
    monkeypatch.setattr(status, "MAX_CORRECTIONS", 0)
    assert status_of(corrected).taken_back_count == 0


# --- notifications that are owed ---------------------------------------------------------------------------------


def owe(system: System, ago: timedelta, notified: str) -> None:
    """Record a run, and who was notified of it."""
    at = system.now - ago
    system.ledger.execute(
        "INSERT INTO reconciler.runs (id, started_at, observed_at, finished_at, mode, outcome, version, notified) "
        "VALUES (gen_random_uuid(), %(at)s, %(at)s, %(at)s, 'run', 'corrected', '1', %(notified)s)",
        {"at": at, "notified": notified},
    )


def test_owed_notifications_are_shown_while_there_are_any(system: System, command: Callable[..., Ran]) -> None:
    owe(system, timedelta(hours=3), '{"alertmanager": null, "slack": "2026-01-01T00:00:00Z"}')
    owe(system, timedelta(hours=5), '{"slack": null, "mail": null}')
    owe(system, timedelta(hours=1), '{"slack": "2026-01-01T00:00:00Z"}')
    owe(system, 31 * DAY, '{"slack": null}')
    assert [(one.recipient, one.since) for one in status_of(system).owed] == [
        ("mail", system.now - timedelta(hours=5)),
        ("slack", system.now - timedelta(hours=5)),
        ("alertmanager", system.now - timedelta(hours=3)),
    ]
    _, _, after = command("status").out.partition("NOTIFICATIONS OWED\n")
    assert re.match(r"slack +[-\da-f]{36} +.* +5 h", after.splitlines()[2])
    found = command("status", "--output", "json").document
    assert (found["owed_count"], [one["recipient"] for one in found["owed"]]) == (3, ["mail", "slack", "alertmanager"])
    system.ledger.execute("UPDATE reconciler.runs SET notified = '{}'")
    assert "OWED" not in command("status").out
