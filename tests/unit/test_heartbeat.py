"""The heartbeat pairs the start of a run with its end, and reports a failure only if the run failed."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from reconciler.alerts import Undelivered
from reconciler.alerts.addresses import WrongAddress
from reconciler.alerts.heartbeat import Heartbeat
from reconciler.alerts.http import ATTEMPTS
from reconciler.core.errors import Failure
from reconciler.core.model import Action, Finding, Mode, Outcome, Result
from reconciler.core.reasons import Reason
from tests.support.receivers import Receiver, status

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = UUID("a6d2cbb5-c10e-406c-8f04-01f7b57d2fe7")
RID = [("rid", str(RUN))]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def outcome(result: Result, *findings: Finding, failure: Failure | None = None) -> Outcome:
    return Outcome(
        run_id=RUN,
        mode=Mode.RUN,
        result=result,
        findings=findings,
        failure=failure,
        tenants_observed=12,
        tenants_recorded=11,
    )


def test_the_start_is_reported(receiver: Receiver) -> None:
    Heartbeat(f"{receiver.url}/uuid").begin(RUN)
    assert [(request.path, request.query) for request in receiver.requests] == [("/uuid/start", RID)]


def test_the_start_is_tried_once(receiver: Receiver) -> None:
    """The run waits for it."""
    receiver.otherwise = status(503)
    with pytest.raises(Undelivered):
        Heartbeat(receiver.url).begin(RUN)
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("result", [Result.CLEAN, Result.CORRECTED, Result.DRIFT])
def test_a_run_that_ended_is_a_success_whatever_it_found(receiver: Receiver, result: Result) -> None:
    Heartbeat(f"{receiver.url}/uuid").notify(outcome(result))
    assert [(request.path, request.query) for request in receiver.requests] == [("/uuid", RID)]


def test_a_success_comes_with_the_summary(receiver: Receiver) -> None:
    finding = Finding(reason=Reason.ORG_MOVED, tenant="acme", org="1", action=Action.REPORT)
    Heartbeat(receiver.url).notify(outcome(Result.DRIFT, finding))
    assert receiver.requests[0].body == b"Nothing to write; 1 to look at. 12 tenants observed, 11 recorded as open."


@pytest.mark.parametrize("result", [Result.BLOCKED, Result.FAILED])
def test_a_stopped_run_is_a_failure_with_its_message(receiver: Receiver, result: Result) -> None:
    Heartbeat(f"{receiver.url}/uuid").notify(outcome(result, failure=Failure("Zürich is away.", "Wait for it.")))
    (request,) = receiver.requests
    assert (request.path, request.query) == ("/uuid/fail", RID)
    assert request.body.decode() == "Zürich is away.\nWait for it."


def test_the_end_is_tried_again(receiver: Receiver) -> None:
    receiver.answers = [status(503)] * (ATTEMPTS - 1)
    Heartbeat(receiver.url).notify(outcome(Result.CLEAN))
    assert len(receiver.requests) == ATTEMPTS


@pytest.mark.parametrize("address", ["/key/slug?create=1", "/key/slug/?create=1"])
def test_the_address_may_have_a_query_and_a_final_slash(receiver: Receiver, address: str) -> None:
    heartbeat = Heartbeat(receiver.url + address)
    heartbeat.begin(RUN)
    heartbeat.notify(outcome(Result.CLEAN))
    assert [(request.path, request.query) for request in receiver.requests] == [
        ("/key/slug/start", [("create", "1"), *RID]),
        ("/key/slug", [("create", "1"), *RID]),
    ]


def test_text_that_cannot_be_encoded_is_escaped(receiver: Receiver) -> None:
    Heartbeat(receiver.url).notify(outcome(Result.FAILED, failure=Failure("half a pair: \ud83d")))
    assert receiver.requests[0].body == rb"half a pair: \ud83d"


def test_an_invalid_address_is_refused() -> None:
    with pytest.raises(WrongAddress, match="The address of the heartbeat is not valid"):
        Heartbeat("hc-ping.com/uuid")
