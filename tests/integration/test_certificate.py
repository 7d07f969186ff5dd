"""What `usage --verified` refuses: each world ends in a bill that is wrong, or that nobody can prove."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.core.certificate import Cause, Certificate
from reconciler.db.certificate import NotVerified, read_certificate, refuse_unproven
from reconciler.db.connection import transaction
from reconciler.db.queries import query
from tests.support.api_state import tenant

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.system import System

pytestmark = pytest.mark.usefixtures("lost_log")
"""What two lists prove alone."""

SETTLE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def certificate(system: System, **only: str) -> Certificate:
    """Return whether everything is proven until the last midnight that is an hour past."""
    today = (system.now - HOUR).date()
    with transaction(system.ledger) as cursor:
        return read_certificate(cursor, today - 300 * DAY, today, settle=SETTLE, **only)


def causes(found: Certificate) -> list[tuple[str, Cause, str]]:
    """Return what stands against it."""
    return [(doubt.tenant, doubt.cause, doubt.detail) for doubt in found.refused]


def move(system: System, by: timedelta) -> None:
    """Move what runs have kept into the past."""
    system.ledger.execute("UPDATE reconciler.runs SET observed_at = observed_at - %s", [by])
    system.ledger.execute(
        "UPDATE reconciler.source SET position_at = position_at - %(by)s, whole_at = whole_at - %(by)s", {"by": by}
    )
    system.ledger.execute("UPDATE reconciler.gaps SET from_at = from_at - %s, until_at = until_at - %s", [by, by])


@pytest.fixture
def watched(system: System) -> System:
    """Acme, whose every change is recorded, and which a run saw in its first generation, four days ago."""
    system.api.create(tenant("acme", ["mail"], suspend=False), at=system.now - 5 * DAY)
    system.record("acme", -5 * DAY, mail=-5 * DAY)
    system.api.create(tenant("beta", suspend=False, org="9999"), at=system.now - 5 * DAY)
    system.ledger.execute("INSERT INTO tenant_billing_lifecycle VALUES ('beta', '9999', %s)", [system.now - 5 * DAY])
    assert system.run().findings == ()
    move(system, 4 * DAY)
    return system


def change_twice(system: System) -> None:
    for packages in (["mail", "wiki"], ["mail"]):
        system.api.patch("acme", {"spec": {"packages": packages}}, at=system.now - 2 * DAY)


def change_once(system: System) -> None:
    system.api.patch("acme", {"spec": {"packages": ["mail", "wiki"]}}, at=system.now - 2 * DAY)
    system.record_skill("acme", "wiki", -2 * DAY)


def write_status(system: System) -> None:
    system.api.set_status("acme", {"phase": "Ready"}, at=system.now - 2 * DAY)


def leave_it(_: System) -> None:
    """Nothing happens."""


def vanish(system: System) -> None:
    system.api.delete("acme", at=system.now - 2 * DAY)


def unset_suspend(system: System) -> None:
    system.api.patch("acme", {"spec": {"suspend": None}}, at=system.now - 2 * DAY)


def recreate(system: System) -> None:
    vanish(system)
    system.api.create(tenant("acme", ["mail"], suspend=False), at=system.now - 2 * DAY)


def break_it(system: System) -> None:
    system.api.patch("acme", {"spec": {"packages": "mail"}}, at=system.now - 2 * DAY)


@pytest.mark.parametrize(
    ("happens", "expected"),
    [
        pytest.param(leave_it, [], id="nothing - proven"),
        pytest.param(write_status, [], id="a write of the status - proven"),
        pytest.param(change_once, [], id="one change, recorded - proven"),
        pytest.param(change_twice, [("gap", "changed_often")], id="on and off, both rows lost - a gap"),
        pytest.param(
            vanish, [("gap", "vanished"), ("assumed", "deletion_unrecorded")], id="deleted without finalizers - a gap"
        ),
        pytest.param(unset_suspend, [("gap", "suspend_unset")], id="spec.suspend taken away - a gap"),
        pytest.param(
            recreate,
            [("unrecorded", ""), ("gap", "recreated"), ("reported", "tenant_recreated")],
            id="recreated - unrecorded, a gap and a report",
        ),
        pytest.param(
            break_it, [("gap", "unreadable"), ("reported", "tenant_unreadable")], id="unreadable - a gap and a report"
        ),
    ],
)
def test_what_happened_between_two_runs(
    watched: System, happens: Callable[[System], None], expected: list[tuple[str, str]]
) -> None:
    happens(watched)
    assert watched.run().failure is None
    assert [(cause, detail) for _, cause, detail in causes(certificate(watched))] == expected


def test_a_change_dated_by_policy_over_days_is_not_proven(system: System) -> None:
    """Members of a set leave without a time: nobody knows on which of four days."""
    system.api.set_lists = True
    system.api.create(tenant("acme", ["mail", "wiki"], suspend=False), at=system.now - 5 * DAY)
    system.record("acme", -5 * DAY, mail=-5 * DAY, wiki=-5 * DAY)
    assert system.run().findings == ()
    move(system, 4 * DAY)
    system.api.patch("acme", {"spec": {"packages": ["mail"]}}, at=system.now - 2 * DAY)
    assert system.run().failure is None
    assert causes(certificate(system)) == [("acme", Cause.ASSUMED, "skill_disable_unrecorded")]


def test_the_month_of_the_installation_is_known_since(system: System) -> None:
    """Nobody knows what had happened to a tenant that had been changed before the first run."""
    system.api.create(tenant("acme", ["mail"], suspend=False), at=system.now - 5 * DAY)
    change_twice(system)
    system.record("acme", -5 * DAY, mail=-5 * DAY)
    assert system.run().failure is None
    ((name, cause, _),) = causes(certificate(system))
    assert (name, cause) == ("acme", Cause.KNOWN_SINCE)


def test_a_tenant_without_a_line_is_refused_too(system: System) -> None:
    """A tenant that cannot be read has no row, and so no line: it may owe something all the same."""
    system.api.create(tenant("acme", "mail"), at=system.now - 5 * DAY)
    assert system.run().failure is None
    assert ("acme", Cause.REPORTED, "tenant_unreadable") in causes(certificate(system))


@pytest.mark.parametrize(
    ("only", "is_refused"),
    [
        ({}, True),
        ({"tenant": "acme"}, True),
        ({"tenant": "beta"}, False),
        ({"org": "2871"}, True),
        ({"org": "9999"}, False),
    ],
)
def test_only_whom_the_question_could_concern_is_refused(
    watched: System, only: dict[str, Any], *, is_refused: bool
) -> None:
    change_twice(watched)
    assert watched.run().failure is None
    assert ("acme", Cause.GAP, "changed_often") in causes(certificate(watched, **only)) or not is_refused
    assert any(name == "acme" for name, *_ in causes(certificate(watched, **only))) is is_refused


def test_a_tenant_is_refused_to_whoever_pays_for_a_day(watched: System) -> None:
    """A decision that a later one replaced says nothing."""
    for number, org in enumerate(("8888", "7777")):
        watched.ledger.execute("INSERT INTO reconciler.payers VALUES ('', 'acme', %s, %s, '2026-05-15')", [number, org])
    change_twice(watched)
    assert watched.run().failure is None
    refused = {org: {name for name, *_ in causes(certificate(watched, org=org))} for org in ("7777", "8888", "9999")}
    assert refused == {"7777": {"acme"}, "8888": set(), "9999": set()}


def test_a_tenant_of_an_unknown_organisation_could_be_anybodys(watched: System) -> None:
    watched.ledger.execute("UPDATE tenant_billing_lifecycle SET zitadel_org_id = 'unknown'")
    watched.api.patch("acme", {"metadata": {"labels": None}})
    change_twice(watched)
    assert watched.run().failure is None
    assert ("acme", Cause.GAP, "changed_often") in causes(certificate(watched, org="9999"))


def test_an_accepted_gap_is_named_and_passes(watched: System) -> None:
    change_twice(watched)
    assert watched.run().failure is None
    watched.ledger.execute(
        "INSERT INTO reconciler.exceptions (tenant_name, reason, note, created_by, expires_at, created_at) "
        "VALUES ('acme', 'history_unproven', 'n', 'elena', now() + interval '1 day', now() + interval '1 minute')"
    )
    found = certificate(watched)
    assert all(name != "acme" for name, *_ in causes(found))
    assert [doubt.tenant for doubt in found.accepted if doubt.tenant != "*"] == ["acme"]


def test_what_is_asked_does_not_widen_what_may_be_missing(system: System) -> None:
    """Known from an hour after it was created: a long settle does not make that the same."""
    system.api.create(tenant("acme", ["mail"], suspend=False), at=system.now - 5 * DAY)
    change_twice(system)
    system.record("acme", -5 * DAY, mail=-5 * DAY)
    assert system.run().failure is None
    today = (system.now - HOUR).date()
    with transaction(system.ledger) as cursor:
        asked = read_certificate(cursor, today - 300 * DAY, today, settle=30 * DAY)
    assert ("acme", Cause.KNOWN_SINCE, "") in causes(asked)


def test_of_each_tenant_only_its_own_rows_are_read(system: System) -> None:
    """In the month of the installation every tenant is in doubt."""
    asked = {"first": system.now, "until": system.now, "settle": SETTLE, "org": "2871", "tenant": None}
    plan = system.ledger.execute(b"EXPLAIN " + query("certificate_facts"), asked).fetchall()
    assert not [line for (line,) in plan if "CTE Scan on" in line and "last" not in line]


def test_the_refusal_names_tenants_causes_and_what_helps(watched: System) -> None:
    change_twice(watched)
    assert watched.run().failure is None
    with pytest.raises(NotVerified) as refused:
        refuse_unproven(certificate(watched))
    assert "Not proven (gap): acme changed_often " in str(refused.value)
    assert "reconciler except TENANT history_unproven" in refused.value.remedy
