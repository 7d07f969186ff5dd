"""Every recipient is notified of a correction at least once, whatever became of the run that wrote it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from reconciler.alerts import Alerts, PartlyDelivered, Undelivered
from reconciler.alerts.events import Events
from reconciler.alerts.notify import body, title
from reconciler.core.errors import SourceFault
from reconciler.core.model import Mode, Owed, Result
from reconciler.sources.api_client import Api, CustomResource
from tests.integration.test_alerts import FakeSink
from tests.support.api_state import tenant

if TYPE_CHECKING:
    from tests.support.system import System

HOUR = timedelta(hours=1)
ENABLED = ("acme", "skill_enable_unrecorded")


class Died(BaseException):
    """The process was killed after its commit."""


@pytest.fixture
def corrected(system: System, monkeypatch: pytest.MonkeyPatch) -> System:
    """A run that corrected a skill and died before it had notified anybody."""
    system.api.create(tenant("acme", ["search"]), at=system.now - 3 * HOUR)
    system.record("acme", -3 * HOUR)
    system.alerts = Alerts(sinks=(FakeSink(),))

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(Alerts, "notify", die)
        with pytest.raises(Died):
            system.run()
    assert system.ledger.execute("SELECT outcome, notified FROM reconciler.runs").fetchall() == [
        ("corrected", {"receiver": None})
    ]
    return system


def news(sink: FakeSink) -> list[list[tuple[str, str]]]:
    """Return tenant and reason of the news in each message."""
    return [[(finding.tenant, finding.reason) for finding in outcome.news] for outcome in sink.outcomes]


def owes(system: System) -> bool:
    """Return whether anybody is owed a notification."""
    return bool(
        system.ledger.execute("SELECT FROM reconciler.runs WHERE notified @> '{\"receiver\": null}'").fetchall()
    )


@pytest.mark.parametrize("deduplicates", [False, True])
def test_the_next_run_notifies_of_what_a_dead_one_corrected(corrected: System, *, deduplicates: bool) -> None:
    sink = FakeSink(deduplicates=deduplicates)
    corrected.alerts = Alerts(sinks=(sink,))
    outcome = corrected.run()
    assert outcome.result is Result.CLEAN
    assert news(sink) == [[ENABLED]]
    assert outcome.owed[0].findings[0].moment
    corrected.run()
    assert news(sink)[1:] == [[]] * deduplicates
    assert not owes(corrected)


def test_a_stopped_run_notifies_of_it_too(corrected: System) -> None:
    sink = FakeSink()
    corrected.alerts = Alerts(sinks=(sink,))
    corrected.api.delete("acme")
    outcome = corrected.run()
    assert outcome.failure
    assert news(sink) == [[ENABLED]]
    assert not owes(corrected)
    assert "search" in body(sink.outcomes[0])
    assert "the run was refused" in title(sink.outcomes[0])


def test_the_message_names_the_run_that_wrote_it(corrected: System) -> None:
    sink = FakeSink()
    corrected.alerts = Alerts(sinks=(sink,))
    corrected.run()
    (earlier,) = sink.outcomes[0].owed
    assert f"1 of these is of the earlier run {earlier.run_id}, of which nobody was notified." in body(sink.outcomes[0])
    assert title(sink.outcomes[0]).startswith("reconciler: 1 corrected, on 1 tenant")


def test_a_sink_that_failed_is_notified_later_and_no_other_twice(system: System) -> None:
    system.api.create(tenant("acme", ["search"]), at=system.now - 3 * HOUR)
    system.record("acme", -3 * HOUR)
    down, up = FakeSink("down", fails=Undelivered("it is down")), FakeSink("up")
    system.alerts = Alerts(sinks=(down, up))
    system.run()
    system.run()
    assert (news(down), news(up)) == ([], [[ENABLED]])
    down.fails = None
    system.run()
    system.run()
    assert (news(down), news(up)) == ([[ENABLED]], [[ENABLED]])


def test_a_new_recipient_is_owed_nothing_of_earlier_runs(corrected: System) -> None:
    other = FakeSink("other")
    corrected.alerts = Alerts(sinks=(other,))
    assert corrected.run().owed == ()
    assert other.outcomes == []


def test_a_plan_settles_no_debt(corrected: System) -> None:
    corrected.run(Mode.PLAN)
    assert owes(corrected)


def test_what_a_month_old_run_owes_is_let_go(corrected: System) -> None:
    corrected.ledger.execute("UPDATE reconciler.runs SET started_at = now() - interval '31 days'")
    assert corrected.run().owed == ()


def test_a_message_that_was_delivered_in_part_is_not_owed(system: System) -> None:
    """One Alertmanager of two had it, or all Events but one: sent again, it would be there twice."""
    system.api.create(tenant("acme", ["search"]), at=system.now - 3 * HOUR)
    system.record("acme", -3 * HOUR)
    system.alerts = Alerts(sinks=(FakeSink(fails=PartlyDelivered("one of two is down")),))
    system.run()
    assert not owes(system)


def test_events_of_a_run_that_met_no_api_server_stay_owed(corrected: System) -> None:
    """Its failure is no Event, and what is owed cannot be one either."""
    outcome = replace(
        corrected.run(Mode.PLAN),
        mode=Mode.RUN,
        failure=SourceFault("it is down", ""),
        owed=(Owed(UUID(int=1), frozenset(), ()),),
    )
    resource = CustomResource(
        api=Api(kubeconfig=corrected.kubeconfig, context=None, deadline=corrected.deadline),
        group="pieced.ch",
        plural="piecedtenants",
    )
    with pytest.raises(Undelivered, match="goes along with the next run"):
        Events(resource=resource, instance="here", now=lambda: corrected.now).notify(outcome)


def test_a_correction_of_a_reason_unknown_here_stops_no_run(corrected: System) -> None:
    """A later version wrote it."""
    corrected.ledger.execute("UPDATE reconciler.corrections SET reason = 'from_the_future'")
    outcome = corrected.run()
    assert outcome.failure is None
    assert [run.findings for run in outcome.owed] == [()]
