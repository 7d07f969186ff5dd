"""One message a run: a person can act on its text, and no service misinterprets it."""

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
from reconciler.alerts.addresses import WrongAddress
from reconciler.alerts.notify import (
    MAX_BODY,
    MAX_TITLE,
    AppriseMissing,
    Messenger,
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


def make_outcome(*findings: Finding, result: Result = Result.CORRECTED, failure: Failure | None = None) -> Outcome:
    return Outcome(run_id=RUN, mode=Mode.RUN, result=result, observed_at=NOON, findings=findings, failure=failure)


def make_correction(tenant: str, skill: str = "bexio", impact: str | None = "1.20", **fields: Any) -> Finding:
    return Finding(
        reason=Reason.SKILL_ENABLE_UNRECORDED,
        tenant=tenant,
        org="2871",
        action=Action.APPEND,
        subject=skill,
        moment=AT_NOON,
        impact_chf=None if impact is None else Decimal(impact),
        **fields,
    )


def make_credit(tenant: str, impact: str, *ends: str) -> Finding:
    return Finding(
        reason=Reason.DELETION_UNRECORDED,
        tenant=tenant,
        org="2872",
        action=Action.STAMP,
        moment=AT_NOON,
        impact_chf=Decimal(impact),
        impact_range=(Decimal(ends[0]), Decimal(ends[1])) if ends else None,
    )


MOVED = Finding(
    reason=Reason.ORG_MOVED, tenant="velo", org="2874", action=Action.REPORT, recorded="2873", observed="2874"
)
FAILED = make_outcome(result=Result.FAILED, failure=Failure("The ledger is away.", "Bring it back."))
BLOCKED = make_outcome(result=Result.BLOCKED, failure=Refusal("Far too much drift.", "Look at it first."))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def make_sink(receiver: Receiver, **fields: Any) -> Messenger:
    """Return a sink for apprise's own JSON service, with an address that is secret in all its parts."""
    return Messenger(f"json://alice:s3cret-pw@{receiver.host}/s3cret-path?-token=s3cret-query", **fields)


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in another process, which must end within two minutes."""
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )


# --- the text ----------------------------------------------------------------------------------------------------


def test_the_whole_message() -> None:
    """What waits for a person comes first."""
    outcome = make_outcome(
        make_credit("weingut", "-3.10", "-5.00", "-1.00"),
        MOVED,
        make_correction("hotel", closed_period=True),
        make_correction("frei"),
    )
    assert title(outcome) == (
        "reconciler: 1 to look at, 3 corrected, on 4 tenants; CHF 2.40 not invoiced; "
        "CHF 3.10 (between 1.00 and 5.00) overcharged"
    )
    assert (
        body(outcome)
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
1 correction of months that were closed or invoiced already: finance owes an adjustment.
`reconciler explain TENANT` shows a tenant's history, `reconciler status` what is open. \
This is run {RUN}, started at 2026-05-12 12:00 UTC."""
    )


@pytest.mark.parametrize(
    ("stopped", "headline"),
    [
        (FAILED, "reconciler: the run failed: The ledger is away."),
        (BLOCKED, "reconciler: the run was refused: Far too much drift."),
    ],
)
def test_a_stopped_run_says_why_and_what_to_do(stopped: Outcome, headline: str) -> None:
    assert stopped.failure is not None
    assert title(stopped) == headline
    message = body(stopped).split("\n\n")
    assert message[:2] == [str(stopped.failure), f"To do: {stopped.failure.remedy}"]
    assert message[2] == " ".join(RUNBOOK[stopped.result])
    assert str(RUN) in message[3]


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (make_outcome(make_correction("a")), "info"),
        (make_outcome(make_correction("a"), MOVED), "warning"),
        (FAILED, "failure"),
        (BLOCKED, "failure"),
    ],
)
def test_the_severity_depends_on_what_is_left_to_do(outcome: Outcome, expected: str) -> None:
    assert severity(outcome) == expected


def test_ten_findings_are_described_and_the_rest_counted() -> None:
    message = body(make_outcome(*(make_correction(f"tenant-{number}") for number in range(57))))
    assert message.count("\n- tenant-") == 10
    assert "\n- and 47 more\n" in message


def test_findings_without_a_price_show_no_amount() -> None:
    outcome = make_outcome(make_correction("a", impact=None), MOVED)
    assert "CHF" not in title(outcome) + body(outcome)


def test_an_impact_of_zero_is_shown() -> None:
    assert title(make_outcome(make_correction("a", impact="0.00"))).endswith("; CHF 0.00")


def test_a_range_is_shown_for_an_impact_of_zero() -> None:
    """Dated in the customer's favour it costs nothing, but it may have been on since the day before."""
    outcome = make_outcome(make_correction("a", impact="0.00", impact_range=(Decimal("0.00"), Decimal("1.20"))))
    assert title(outcome).endswith("; CHF 0.00 (between 0.00 and 1.20) not invoiced")


def test_a_report_without_states_shows_no_states() -> None:
    unlabelled = Finding(reason=Reason.ORG_UNLABELLED, tenant="velo", org="unknown", action=Action.REPORT)
    assert "\n- velo (org unknown)\n" in body(make_outcome(unlabelled))


def test_gains_and_losses_are_not_netted() -> None:
    assert title(make_outcome(make_correction("a", impact="5.00"), make_credit("b", "-5.00"))).endswith(
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
_outcomes = st.builds(
    lambda findings: make_outcome(*findings), st.lists(_findings, min_size=1, max_size=60)
) | st.builds(lambda failure: make_outcome(result=Result.FAILED, failure=failure), _failures)


@given(_outcomes)
def test_a_message_is_bounded_whatever_was_found(outcome: Outcome) -> None:
    assert 0 < len(title(outcome)) <= MAX_TITLE
    assert 0 < len(body(outcome)) <= MAX_BODY


@given(_outcomes)
def test_a_message_contains_no_control_characters(outcome: Outcome) -> None:
    """Every line is printable, and the title is one line."""
    assert all(char.isprintable() for char in title(outcome))
    assert all(char.isprintable() or char == "\n" for char in body(outcome))


def test_no_name_in_a_message_mentions_anybody() -> None:
    """Some services notify everyone whom a message mentions."""
    outcome = make_outcome(make_correction("@everyone", skill="<@1234>"))
    failed = make_outcome(result=Result.FAILED, failure=Failure("@here", "@channel"))
    assert "@" not in "".join([title(outcome), body(outcome), title(failed), body(failed)])


def test_the_run_is_named_however_many_findings_there_are() -> None:
    findings = [
        Finding(reason=reason, tenant="x" * 250 + str(number), org="1", action=action)
        for reason in Reason
        for action in (Action.REPORT, Action.APPEND)
        for number in range(20)
    ]
    message = body(make_outcome(*findings))
    assert str(RUN) in message
    assert all(f"\n{reason}: 20 corrected" in message for reason in Reason)


# --- sending it --------------------------------------------------------------------------------------------------


def test_the_message_is_sent_with_its_title_and_severity(receiver: Receiver) -> None:
    outcome = make_outcome(make_correction("a"), MOVED)
    make_sink(receiver).notify(outcome)
    (request,) = receiver.requests
    assert (request.json["title"], request.json["message"], request.json["type"]) == (
        title(outcome),
        body(outcome),
        "warning",
    )


def test_markup_in_a_name_is_escaped(receiver: Receiver) -> None:
    """For a service that shows HTML or Markdown, names are escaped."""
    outcome = make_outcome(make_correction("<b>a</b>", skill="*b* [c](http://d)"))
    for shown in ("html", "markdown"):
        Messenger(f"json://{receiver.host}/?format={shown}").notify(outcome)
    html, markdown = (request.json["message"] for request in receiver.requests)
    assert "&lt;b&gt;a&lt;/b&gt;" in html
    assert r"\*b\* \[c\]" in markdown


def test_a_service_that_refuses_once_is_retried(receiver: Receiver) -> None:
    receiver.answers = [status(503)]
    make_sink(receiver).notify(make_outcome(MOVED))
    assert len(receiver.requests) == 2


def test_a_refused_message_is_undelivered_and_shows_no_secret(receiver: Receiver) -> None:
    receiver.otherwise = status(500, b"alice s3cret-pw s3cret-path s3cret-query")
    with pytest.raises(Undelivered) as raised:
        make_sink(receiver).notify(make_outcome(MOVED))
    assert str(raised.value).startswith("json did not accept the message")
    said = "".join(traceback.format_exception(raised.value))
    assert "s3cret" not in said
    assert "alice" not in said


def test_logs_of_apprise_are_suppressed(receiver: Receiver) -> None:
    """Apprise logs the answer of a service, which may quote the URL."""
    receiver.otherwise = status(500)
    script = """if True:
        import logging, sys
        logging.basicConfig(level=logging.INFO)
        from tests.unit.test_notify import MOVED, make_outcome
        from reconciler.alerts import Undelivered
        from reconciler.alerts.notify import Messenger
        try:
            Messenger(sys.argv[1]).notify(make_outcome(MOVED))
        except Undelivered:
            print("undelivered")
        """
    ended = run(script, f"json://alice:s3cret-pw@{receiver.host}/s3cret-path")
    assert (ended.stdout, ended.stderr) == ("undelivered\n", "")


def test_a_dripping_service_does_not_hold_up_the_process(receiver: Receiver) -> None:
    """It is called in a thread that is left behind; the process would wait for apprise's own pool."""
    receiver.otherwise = drip(0.5)
    script = """if True:
        import sys, threading
        from tests.unit.test_notify import MOVED, make_outcome
        from reconciler.alerts.notify import Messenger
        sink = Messenger(sys.argv[1])
        thread = threading.Thread(target=sink.notify, args=[make_outcome(MOVED)], daemon=True)
        thread.start()
        thread.join(3)
        print(thread.is_alive())
        """
    ended = run(script, f"json://{receiver.host}")
    assert (ended.stdout, len(receiver.requests)) == ("True\n", 1)


@pytest.mark.parametrize(
    "url", ["", "nonsense", "nosuch://s3cret-path", "slack://s3cret", "https://example.com/s3cret"]
)
def test_an_unsupported_address_is_refused_without_showing_it(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WrongAddress) as raised:
        Messenger(url)
    assert raised.value.exit_code == 64
    assert raised.value.remedy
    assert "s3cret" not in "".join(traceback.format_exception(raised.value)) + "".join(capfd.readouterr())


def test_without_apprise_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(AppriseMissing) as raised:
        Messenger("json://s3cret")
    assert raised.value.exit_code == 64
    assert "pip install '.[notify]'" in raised.value.remedy


def test_apprise_is_only_loaded_when_used() -> None:
    script = "import reconciler.alerts.notify, sys; sys.exit('apprise' in sys.modules)"
    run(script)


def test_a_service_has_the_name_it_was_given(receiver: Receiver) -> None:
    """What each service has seen is remembered by its name."""
    assert (make_sink(receiver).name, make_sink(receiver, name="notify-2").name) == ("notify", "notify-2")


def test_a_service_with_a_lower_limit_gets_parts(receiver: Receiver) -> None:
    sink = make_sink(receiver)
    (service,) = sink._apprise  # noqa: SLF001 - there is no local service with a lower limit
    service.body_maxlen = 1000
    outcome = make_outcome(*(make_correction(f"tenant-{number}") for number in range(20)))
    sink.notify(outcome)
    parts = [request.json["message"] for request in receiver.requests]
    assert len(parts) > 1
    assert all(len(part) <= 1000 for part in parts)
    assert all(f"tenant-{number} " in "".join(parts) for number in range(10))
