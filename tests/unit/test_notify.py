"""One message a run, in words that a person can act on, and that no service shows otherwise than they are meant."""

from __future__ import annotations

import subprocess
import sys
import traceback
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.alerts import Undelivered
from reconciler.alerts.http import WrongAddress
from reconciler.alerts.notify import (
    LONGEST_BODY,
    LONGEST_TITLE,
    AppriseMissing,
    Notify,
    body,
    severity,
    title,
)
from reconciler.core.errors import Failure, Refusal
from reconciler.core.model import Action, Evidence, Finding, Mode, Moment, Outcome, Result
from reconciler.core.reasons import RUNBOOK, Reason
from tests.support.receivers import Receiver, drip, status

if TYPE_CHECKING:
    from collections.abc import Iterator

# apprise still looks for a module that Python is about to lose
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

RUN = UUID("a6d2cbb5-c10e-406c-8f04-01f7b57d2fe7")
NOON = datetime(2026, 5, 12, 12, tzinfo=UTC)
AT_NOON = Moment(NOON, NOON - timedelta(days=1), NOON, Evidence.FIELD_MANAGER)


def outcome(*findings: Finding, result: Result = Result.CORRECTED, failure: Failure | None = None) -> Outcome:
    return Outcome(run_id=RUN, mode=Mode.RUN, result=result, observed_at=NOON, findings=findings, failure=failure)


def enabled(tenant: str, skill: str = "bexio", worth: str | None = "1.20", **fields: Any) -> Finding:
    return Finding(
        reason=Reason.SKILL_ENABLE_UNRECORDED,
        tenant=tenant,
        org="2871",
        action=Action.APPEND,
        subject=skill,
        moment=AT_NOON,
        impact_chf=None if worth is None else Decimal(worth),
        **fields,
    )


def deleted(tenant: str, worth: str, *ends: str) -> Finding:
    return Finding(
        reason=Reason.DELETION_UNRECORDED,
        tenant=tenant,
        org="2872",
        action=Action.STAMP,
        moment=AT_NOON,
        impact_chf=Decimal(worth),
        impact_range=(Decimal(ends[0]), Decimal(ends[1])) if ends else None,
    )


MOVED = Finding(
    reason=Reason.ORG_MOVED, tenant="velo", org="2874", action=Action.REPORT, recorded="2873", observed="2874"
)
FAILED = outcome(result=Result.FAILED, failure=Failure("The ledger is away.", "Bring it back."))
BLOCKED = outcome(result=Result.BLOCKED, failure=Refusal("Far too much drift.", "Look at it first."))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def notify(receiver: Receiver, **fields: Any) -> Notify:
    """Return a sink for apprise's own JSON service, at an address all of whose parts are secrets."""
    return Notify(f"json://alice:s3cret-pw@{receiver.host}/s3cret-path?-token=s3cret-query", **fields)


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own, which must end within two minutes."""
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )


# --- the words ---------------------------------------------------------------------------------------------------


def test_the_whole_message() -> None:
    """As a person reads it: what waits for them first."""
    told = outcome(
        deleted("weingut", "-3.10", "-5.00", "-1.00"), MOVED, enabled("hotel", closed_period=True), enabled("frei")
    )
    assert title(told) == (
        "reconciler: 1 to look at, 3 corrected, on 4 tenants; CHF 2.40 not invoiced; "
        "CHF 3.10 (between 1.00 and 5.00) overcharged"
    )
    assert (
        body(told)
        == f"""\
org_moved: 1 to look at
{RUNBOOK[Reason.ORG_MOVED].meaning}
- velo (org 2874), 2873 → 2874
To do: {RUNBOOK[Reason.ORG_MOVED].remedy}

deletion_unrecorded: 1 corrected; CHF 3.10 (between 1.00 and 5.00) overcharged
{RUNBOOK[Reason.DELETION_UNRECORDED].meaning}
- weingut (org 2872), at 2026-05-12 12:00:00 UTC, CHF 3.10 (between 1.00 and 5.00) overcharged
To do: {RUNBOOK[Reason.DELETION_UNRECORDED].remedy}

skill_enable_unrecorded: 2 corrected; CHF 2.40 not invoiced
{RUNBOOK[Reason.SKILL_ENABLE_UNRECORDED].meaning}
- hotel (org 2871), bexio, at 2026-05-12 12:00:00 UTC, CHF 1.20 not invoiced, closed period
- frei (org 2871), bexio, at 2026-05-12 12:00:00 UTC, CHF 1.20 not invoiced
To do: {RUNBOOK[Reason.SKILL_ENABLE_UNRECORDED].remedy}

Together: CHF 2.40 not invoiced, CHF 3.10 (between 1.00 and 5.00) overcharged.
1 correction in a closed period, which is invoiced already: finance owes an adjustment.
`reconciler explain TENANT` shows a tenant's history, `reconciler status` what is open. \
This is run {RUN}, begun at 2026-05-12 12:00 UTC."""
    )


@pytest.mark.parametrize(
    ("stopped", "headline"),
    [
        (FAILED, "reconciler: the run failed: The ledger is away."),
        (BLOCKED, "reconciler: the run was refused: Far too much drift."),
    ],
)
def test_a_run_that_was_stopped_says_why_and_what_to_do(stopped: Outcome, headline: str) -> None:
    assert stopped.failure is not None
    assert title(stopped) == headline
    message = body(stopped).split("\n\n")
    assert message[:2] == [str(stopped.failure), f"To do: {stopped.failure.remedy}"]
    assert message[2] == " ".join(RUNBOOK[stopped.result])
    assert str(RUN) in message[3]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (outcome(enabled("a")), "info"),
        (outcome(enabled("a"), MOVED), "warning"),
        (FAILED, "failure"),
        (BLOCKED, "failure"),
    ],
)
def test_it_is_as_bad_as_what_is_left_to_do(told: Outcome, expected: str) -> None:
    assert severity(told) == expected


def test_many_tenants_are_named_up_to_ten_and_the_rest_are_counted() -> None:
    message = body(outcome(*(enabled(f"tenant-{number}") for number in range(57))))
    assert message.count("\n- tenant-") == 10
    assert "\n- and 47 more\n" in message


def test_what_is_not_priced_is_not_said_to_be_worth_nothing() -> None:
    told = outcome(enabled("a", worth=None), MOVED)
    assert "CHF" not in title(told) + body(told)


def test_what_is_worth_nothing_is_said_to_be() -> None:
    assert title(outcome(enabled("a", worth="0.00"))).endswith("; CHF 0.00")


def test_what_may_be_worth_something_is_said_to_be() -> None:
    """Dated in the customer's favour it costs nothing; it may have been on since the day before."""
    told = outcome(enabled("a", worth="0.00", impact_range=(Decimal("0.00"), Decimal("1.20"))))
    assert title(told).endswith("; CHF 0.00 (between 0.00 and 1.20) not invoiced")


def test_a_report_without_states_shows_none() -> None:
    unlabelled = Finding(reason=Reason.ORG_UNLABELLED, tenant="velo", org="unknown", action=Action.REPORT)
    assert "\n- velo (org unknown)\n" in body(outcome(unlabelled))


def test_gains_and_losses_are_not_set_off_against_each_other() -> None:
    assert title(outcome(enabled("a", worth="5.00"), deleted("b", "-5.00"))).endswith(
        "; CHF 5.00 not invoiced; CHF 5.00 overcharged"
    )


_texts = st.text(max_size=300)
_findings = st.builds(
    Finding,
    reason=st.sampled_from(Reason),
    tenant=_texts,
    org=_texts,
    action=st.sampled_from([action for action in Action if action is not Action.DEFER]),
    subject=st.none() | _texts,
    recorded=st.none() | _texts,
    observed=st.none() | _texts,
    moment=st.sampled_from([None, AT_NOON]),
    impact_chf=st.none() | st.decimals(-1000, 1000, places=2),
)
_failures = st.builds(Failure, st.text(max_size=5000), st.text(max_size=5000))
_outcomes = st.builds(lambda findings: outcome(*findings), st.lists(_findings, min_size=1, max_size=60)) | st.builds(
    lambda failure: outcome(result=Result.FAILED, failure=failure), _failures
)


@given(_outcomes)
def test_a_message_is_bounded_whatever_was_found(told: Outcome) -> None:
    assert 0 < len(title(told)) <= LONGEST_TITLE
    assert 0 < len(body(told)) <= LONGEST_BODY


@given(_outcomes)
def test_nothing_in_a_message_can_steer_a_display(told: Outcome) -> None:
    """All is printable on its own line; and the title is one line."""
    assert all(char.isprintable() for char in title(told))
    assert all(char.isprintable() or char == "\n" for char in body(told))


def test_nobody_is_called_by_a_name_that_was_found() -> None:
    """Some services call everyone of a channel that a message mentions."""
    told = outcome(enabled("@everyone", skill="<@1234>"))
    failed = outcome(result=Result.FAILED, failure=Failure("@here", "@channel"))
    assert "@" not in "".join([title(told), body(told), title(failed), body(failed)])


def test_the_run_is_named_however_much_was_found() -> None:
    findings = [
        Finding(reason=reason, tenant="x" * 250 + str(number), org="1", action=action)
        for reason in Reason
        for action in (Action.REPORT, Action.APPEND)
        for number in range(20)
    ]
    message = body(outcome(*findings))
    assert str(RUN) in message
    assert all(f"\n{reason}: 20 corrected" in message for reason in Reason)


# --- the sending -------------------------------------------------------------------------------------------------


def test_the_message_is_sent_with_its_title_and_severity(receiver: Receiver) -> None:
    told = outcome(enabled("a"), MOVED)
    notify(receiver).tell(told)
    (request,) = receiver.requests
    assert (request.json["title"], request.json["message"], request.json["type"]) == (
        title(told),
        body(told),
        "warning",
    )


def test_markup_in_a_name_is_not_taken_for_markup(receiver: Receiver) -> None:
    """To a service that shows HTML or Markdown, names are escaped."""
    told = outcome(enabled("<b>a</b>", skill="*b* [c](http://d)"))
    for shown in ("html", "markdown"):
        Notify(f"json://{receiver.host}/?format={shown}").tell(told)
    html, markdown = (request.json["message"] for request in receiver.requests)
    assert "&lt;b&gt;a&lt;/b&gt;" in html
    assert r"\*b\* \[c\]" in markdown


def test_a_service_that_refuses_once_is_asked_again(receiver: Receiver) -> None:
    receiver.answers = [status(503)]
    notify(receiver).tell(outcome(MOVED))
    assert len(receiver.requests) == 2


def test_what_a_service_does_not_take_is_undelivered_and_names_its_kind_alone(receiver: Receiver) -> None:
    receiver.otherwise = status(500, b"alice s3cret-pw s3cret-path s3cret-query")
    with pytest.raises(Undelivered) as raised:
        notify(receiver).tell(outcome(MOVED))
    assert str(raised.value).startswith("json did not take the message")
    said = "".join(traceback.format_exception(raised.value))
    assert "s3cret" not in said
    assert "alice" not in said


def test_what_apprise_logs_is_not_heard(receiver: Receiver) -> None:
    """It says what a service answered, in words that may quote the URL, to whoever listens to all libraries."""
    receiver.otherwise = status(500)
    script = """if True:
        import logging, sys
        logging.basicConfig(level=logging.INFO)
        from tests.unit.test_notify import MOVED, outcome
        from reconciler.alerts import Undelivered
        from reconciler.alerts.notify import Notify
        try:
            Notify(sys.argv[1]).tell(outcome(MOVED))
        except Undelivered:
            print("undelivered")
        """
    ended = run(script, f"json://alice:s3cret-pw@{receiver.host}/s3cret-path")
    assert (ended.stdout, ended.stderr) == ("undelivered\n", "")


def test_a_service_that_drips_does_not_keep_the_process(receiver: Receiver) -> None:
    """It is told in a thread that is left behind; a pool of apprise's own would be waited for."""
    receiver.otherwise = drip(0.5)
    script = """if True:
        import sys, threading
        from tests.unit.test_notify import MOVED, outcome
        from reconciler.alerts.notify import Notify
        sink = Notify(sys.argv[1])
        telling = threading.Thread(target=sink.tell, args=[outcome(MOVED)], daemon=True)
        telling.start()
        telling.join(3)
        print(telling.is_alive())
        """
    ended = run(script, f"json://{receiver.host}")
    assert (ended.stdout, len(receiver.requests)) == ("True\n", 1)


@pytest.mark.parametrize(
    "url", ["", "nonsense", "nosuch://s3cret-path", "slack://s3cret", "https://example.com/s3cret"]
)
def test_an_address_that_apprise_does_not_know_is_refused_without_showing_it(
    url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WrongAddress) as raised:
        Notify(url)
    assert raised.value.exit_code == 64
    assert raised.value.remedy
    assert "s3cret" not in "".join(traceback.format_exception(raised.value)) + "".join(capfd.readouterr())


def test_without_apprise_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(AppriseMissing) as raised:
        Notify("json://s3cret")
    assert raised.value.exit_code == 64
    assert "pip install 'reconciler[notify]'" in raised.value.remedy


def test_apprise_is_only_loaded_where_it_is_used() -> None:
    script = "import reconciler.alerts.notify, sys; sys.exit('apprise' in sys.modules)"
    run(script)


def test_a_service_is_called_as_it_is_told(receiver: Receiver) -> None:
    """What one has missed, the others need not hear again: each is remembered by its name."""
    assert (notify(receiver).name, notify(receiver, name="notify-2").name) == ("notify", "notify-2")


def test_a_service_that_takes_less_at_once_gets_the_message_in_parts(receiver: Receiver) -> None:
    sink = notify(receiver)
    (service,) = sink._apprise  # noqa: SLF001 - a service that takes less is not at hand
    service.body_maxlen = 1000
    told = outcome(*(enabled(f"tenant-{number}") for number in range(20)))
    sink.tell(told)
    parts = [request.json["message"] for request in receiver.requests]
    assert len(parts) > 1
    assert all(len(part) <= 1000 for part in parts)
    assert all(f"tenant-{number} " in "".join(parts) for number in range(10))
