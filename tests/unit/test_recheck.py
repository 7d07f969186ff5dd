"""What two looks at a tenant must have in common for its drift to count, and who never has."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from reconciler.core.compare import Comparison, compare
from reconciler.core.model import Action, Event, Listing
from reconciler.core.recheck import confirm, needs_recheck, restless
from tests.support.comparison import (
    BORN,
    DAY,
    DISABLED,
    ENABLED,
    HOUR,
    NOW,
    SECOND,
    live_tenant,
    recorded_tenant,
)

if TYPE_CHECKING:
    from datetime import datetime

    from reconciler.core.model import Finding, Observed, Recorded

ON = live_tenant(packages=("a",))
"""Its package was never recorded."""
OFF = recorded_tenant()
BEGAN = NOW - SECOND
"""When the run began that compares them."""


def look(observed: Observed | None, recorded: Recorded) -> Comparison:
    """Return what a look at one tenant finds."""
    findings = tuple(compare(observed, recorded, as_of=NOW))
    return Comparison({"acme": observed}, {"acme": findings}, 1, 1, ledger_is_empty=False, as_of=NOW)


def after(
    second: Observed | None, ledger: Recorded = OFF, *, first: Observed | None = ON, before: Recorded = OFF
) -> list[Finding]:
    """Return what survives two looks."""
    return list(confirm(look(first, before), look(second, ledger), ["acme"], BEGAN))


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(ON, id="nothing - counts"),
        pytest.param(ON._replace(generation=5), id="its generation - counts"),
        pytest.param(ON._replace(last_modified_at=NOW, packages_written_at=NOW), id="the time of a write - counts"),
        pytest.param(ON._replace(suspended_at=NOW), id="its status - counts"),
        pytest.param(ON._replace(org="2872"), id="its label, which the finding is not about - counts"),
    ],
)
def test_drift_counts_if_between_the_looks_there_changed(second: Observed) -> None:
    assert Action.APPEND in {finding.action for finding in after(second) if finding.subject == "a"}


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(ON._replace(uid="u2"), id="its uid - deferred"),
        pytest.param(ON._replace(deleting_at=NOW - HOUR), id="its deletion - deferred"),
        pytest.param(ON._replace(packages=("a", "b")), id="its other packages - deferred"),
        pytest.param(ON._replace(packages=()), id="the package - deferred"),
        pytest.param(ON._replace(suspended=True), id="its suspension - deferred"),
        pytest.param(None, id="its being there - deferred"),
        pytest.param(ON._replace(problem="it is mangled"), id="its being readable - deferred"),
    ],
)
def test_drift_is_deferred_if_between_the_looks_there_changed(second: Observed | None) -> None:
    assert {finding.action for finding in after(second)} == {Action.DEFER}


@pytest.mark.parametrize(
    ("ledger", "action"),
    [
        pytest.param(recorded_tenant(skills={"a": ENABLED}), Action.DEFER, id="the row came - deferred"),
        pytest.param(recorded_tenant(skills={"a": DISABLED}), Action.DEFER, id="another row came - deferred"),
        pytest.param(recorded_tenant(skills={"b": DISABLED}), Action.APPEND, id="a row of another skill came - counts"),
    ],
)
def test_drift_is_compared_with_what_the_ledger_says_then(ledger: Recorded, action: Action) -> None:
    assert {finding.action for finding in after(ON, ledger)} == {action}


@pytest.mark.parametrize(
    ("recorded_at", "action"),
    [
        pytest.param(BEGAN, Action.APPEND, id="when the run began - counts"),
        pytest.param(NOW, Action.DEFER, id="later, so the list may be older - deferred"),
    ],
)
def test_drift_against_a_later_event_was_not_seen_twice(recorded_at: datetime, action: Action) -> None:
    ledger = recorded_tenant(skills={"a": Event(9, "disabled", recorded_at)})
    assert {finding.action for finding in after(ON, ledger, before=ledger)} == {action}


def test_an_event_in_the_future_is_reported_all_the_same() -> None:
    ledger = recorded_tenant(skills={"a": Event(9, "disabled", NOW + DAY)})
    assert Action.REPORT in {finding.action for finding in after(ON, ledger, before=ledger)}


def test_a_label_must_be_the_same_where_the_finding_is_about_it() -> None:
    moved = [live_tenant(org=org) for org in ("2872", "2873")]
    assert {finding.action for finding in after(moved[1], first=moved[0])} == {Action.DEFER}


def test_a_deletion_must_have_the_same_time_at_both_looks() -> None:
    deleting = live_tenant(deleting_at=BORN + DAY)
    assert {finding.action for finding in after(deleting, first=deleting)} == {Action.STAMP}
    later = live_tenant(deleting_at=BORN + 2 * DAY)
    assert {finding.action for finding in after(later, first=deleting)} == {Action.DEFER}


def test_what_counts_is_what_the_second_look_found() -> None:
    first, second = look(ON, OFF), look(ON._replace(org="2872"), OFF)
    counted = [finding for finding in confirm(first, second, ["acme"], BEGAN) if finding.action.writes]
    assert counted == [finding for finding in second.findings["acme"] if finding.action.writes]
    assert counted != list(first.findings["acme"])


@pytest.mark.parametrize(
    ("recorded_at", "names"),
    [
        pytest.param(-HOUR, [], id="an hour before the run - quiet"),
        pytest.param(SECOND, ["acme"], id="after the run began, so perhaps after its list - looked at again"),
    ],
)
def test_an_event_younger_than_the_list_is_rechecked(recorded_at: timedelta, names: list[str]) -> None:
    # this API server's clock is ahead, so the resource seems to be younger than the event
    written = NOW + HOUR
    first = look(
        live_tenant(last_modified_at=written, packages_written_at=written),
        recorded_tenant(skills={"a": Event(9, "enabled", NOW + recorded_at)}),
    )
    listing = Listing("cluster", server_time=written + HOUR)
    assert needs_recheck(first, listing, 60 * SECOND, NOW) == names


@pytest.mark.parametrize(
    ("second", "ledger", "changing"),
    [
        pytest.param(ON._replace(packages=()), OFF, True, id="it is back as recorded - changing"),
        pytest.param(ON._replace(packages=("a", "b")), OFF, True, id="it changed and still differs - changing"),
        pytest.param(ON, recorded_tenant(skills={"a": DISABLED}), True, id="a later row, and it differs - changing"),
        pytest.param(ON, recorded_tenant(skills={"a": ENABLED}), False, id="the row came - it was on its way"),
        pytest.param(ON, OFF, False, id="nothing changed - it is corrected"),
    ],
)
def test_a_tenant_keeps_changing_unless_it_was_found_true(second: Observed, ledger: Recorded, changing: bool) -> None:  # noqa: FBT001 - of the table above
    assert any(finding.changing for finding in after(second, ledger)) == changing


def test_what_kept_changing_still_did_when_it_is_deferred_again() -> None:
    (finding,) = after(ON._replace(packages=()))
    assert finding.deferred().changing


ALL = frozenset({"acme", "beta"})


@pytest.mark.parametrize(
    ("minutes", "names"),
    [
        pytest.param([], (), id="no run before - nobody"),
        pytest.param([60], (), id="one run, an hour ago - nobody"),
        pytest.param([20, 40], (), id="two runs, not yet an hour - nobody"),
        pytest.param([20, 54.9], (), id="a little less - nobody"),
        pytest.param([20, 55], ("acme", "beta"), id="two runs, an hour less what one may begin late - both"),
        pytest.param([*range(5, 61, 5)], ("acme", "beta"), id="every five minutes - both"),
        pytest.param([24 * 60, 48 * 60], ("acme", "beta"), id="every day - both, at the third run"),
    ],
)
def test_a_tenant_that_kept_changing_for_an_hour_is_restless(minutes: list[float], names: tuple[str, ...]) -> None:
    runs = [(NOW - timedelta(minutes=ago), [*ALL]) for ago in minutes]
    assert restless(ALL, runs, NOW) == {*names}


@pytest.mark.parametrize(
    ("quiet", "names"),
    [
        pytest.param(5, {"beta"}, id="in the last run - it is not"),
        pytest.param(55, {"beta"}, id="an hour ago - it is not"),
        pytest.param(60, {"acme", "beta"}, id="before that - it is"),
    ],
)
def test_a_tenant_that_one_run_found_the_same_is_not_restless(quiet: int, names: set[str]) -> None:
    runs = [(NOW - timedelta(minutes=ago), ALL - ({"acme"} if ago == quiet else set())) for ago in range(5, 66, 5)]
    assert restless(ALL, runs, NOW) == names


def test_only_who_keeps_changing_now_is_restless() -> None:
    runs = [(NOW - timedelta(minutes=ago), ALL) for ago in range(5, 66, 5)]
    assert restless(["acme", "cara"], runs, NOW) == {"acme"}
