"""Creations and deletions that a portal records."""

from __future__ import annotations

from datetime import UTC, timedelta

import pytest

from reconciler import ledger as ledger_api
from reconciler.core.model import Lifecycle
from reconciler.ledger import InvalidArgument, NotRecorded
from tests.support.ledger_calls import (
    ALL_TIME,
    BORN,
    CALLS,
    HOUR,
    Connection,
    call_concurrently,
    call_overlapping,
    open_connection,
    record_acme,
)


def test_a_creation_is_recorded_once(ledger: Connection) -> None:
    """Neither a repetition nor other values for the same name change the row."""
    assert ledger_api.record_creation(ledger, "acme", "2871", BORN)
    assert not ledger_api.record_creation(ledger, "acme", "2871", BORN)
    assert not ledger_api.record_creation(ledger, "acme", "2872", BORN - HOUR)
    assert ledger_api.lifecycle(ledger, "acme") == Lifecycle(org="2871", created_at=BORN)


def test_a_creation_does_not_reopen_a_deleted_tenant(ledger: Connection) -> None:
    ledger_api.record_creation(ledger, "acme", "2871", BORN)
    ledger_api.record_deletion(ledger, "acme", BORN + HOUR)
    assert not ledger_api.record_creation(ledger, "acme", "2871", BORN + 2 * HOUR)
    assert ledger_api.lifecycle(ledger, "acme") == Lifecycle(org="2871", created_at=BORN, deleted_at=BORN + HOUR)


def test_one_of_two_concurrent_creations_is_written(ledger: Connection, ledger_url: str) -> None:
    assert call_overlapping(
        ledger,
        ledger_url,
        lambda one: ledger_api.record_creation(one, "acme", "2871", BORN),
        lambda two: ledger_api.record_creation(two, "acme", "2872", BORN + HOUR),
    ) == (True, False)
    assert ledger_api.lifecycle(ledger, "acme") == Lifecycle(org="2871", created_at=BORN)


def test_one_of_many_concurrent_creations_is_written(ledger_url: str) -> None:
    assert sum(map(bool, call_concurrently(ledger_url, CALLS["record_creation"]))) == 1


def test_a_creation_can_be_recorded_after_a_rollback(ledger: Connection, ledger_url: str) -> None:
    with open_connection(ledger_url) as portal:
        assert ledger_api.record_creation(portal, "acme", "2871", BORN)
        portal.rollback()
    assert ledger_api.record_creation(ledger, "acme", "2871", BORN)


@pytest.mark.parametrize("org", [None, ""])
def test_an_empty_organisation_is_recorded_and_found_as_unknown(ledger: Connection, org: str | None) -> None:
    ledger_api.record_creation(ledger, "acme", org, BORN)
    (skill,) = ledger_api.record_skills(ledger, "acme", org, enabled=["mail"], occurred_at=BORN)
    suspension = ledger_api.record_suspension(ledger, "acme", org, BORN)
    assert {skill.org, suspension.org} == {"unknown"}
    assert ledger_api.lifecycles(ledger, org) == {"acme": Lifecycle(org="unknown", created_at=BORN)}
    assert ledger_api.skill_events(ledger, *ALL_TIME, org="") == [skill]
    assert ledger_api.suspension_events(ledger, *ALL_TIME, org="") == [suspension]


def test_a_deletion_is_recorded_once(ledger: Connection) -> None:
    ledger_api.record_creation(ledger, "acme", "2871", BORN)
    assert ledger_api.record_deletion(ledger, "acme", BORN + HOUR)
    assert not ledger_api.record_deletion(ledger, "acme", BORN + 2 * HOUR)
    assert not ledger_api.record_deletion(ledger, "acme")
    assert ledger_api.lifecycle(ledger, "acme") == Lifecycle(org="2871", created_at=BORN, deleted_at=BORN + HOUR)


def test_the_first_of_two_concurrent_deletions_is_written(ledger: Connection, ledger_url: str) -> None:
    ledger_api.record_creation(ledger, "acme", "2871", BORN)
    assert call_overlapping(
        ledger,
        ledger_url,
        lambda one: ledger_api.record_deletion(one, "acme", BORN + 2 * HOUR),
        lambda two: ledger_api.record_deletion(two, "acme", BORN + HOUR),
    ) == (True, False)
    assert ledger_api.lifecycle(ledger, "acme") == Lifecycle(org="2871", created_at=BORN, deleted_at=BORN + 2 * HOUR)


def test_one_of_many_concurrent_deletions_is_written(ledger: Connection, ledger_url: str) -> None:
    record_acme(ledger)
    assert sum(map(bool, call_concurrently(ledger_url, CALLS["record_deletion"]))) == 1


def test_a_deletion_without_a_time_is_dated_by_the_database(ledger: Connection) -> None:
    ledger_api.record_creation(ledger, "acme", "2871", BORN)
    with ledger.transaction():
        ledger_api.record_deletion(ledger, "acme")
        ((now,),) = ledger.execute("SELECT now()").fetchall()
    row = ledger_api.lifecycle(ledger, "acme")
    assert row
    assert row.deleted_at == now


def test_a_deletion_is_not_dated_before_a_creation_in_the_future(ledger: Connection) -> None:
    ((now,),) = ledger.execute("SELECT now() AT TIME ZONE 'UTC'").fetchall()
    ahead = now.replace(tzinfo=UTC) + HOUR
    ledger_api.record_creation(ledger, "acme", "2871", ahead)
    assert ledger_api.record_deletion(ledger, "acme")
    assert ledger_api.lifecycle(ledger, "acme") == Lifecycle(org="2871", created_at=ahead, deleted_at=ahead)


def test_a_deletion_before_the_creation_is_rejected(ledger: Connection) -> None:
    """At exactly the same instant it is accepted: Kubernetes cuts its times to whole seconds."""
    ledger_api.record_creation(ledger, "acme", "2871", BORN)
    with ledger.transaction():
        with pytest.raises(InvalidArgument, match="is before"):
            ledger_api.record_deletion(ledger, "acme", BORN - timedelta(microseconds=1))
        assert ledger_api.lifecycle(ledger, "acme") == Lifecycle(org="2871", created_at=BORN)
        assert ledger_api.record_deletion(ledger, "acme", BORN)


def test_the_deletion_of_an_unrecorded_tenant_raises(ledger: Connection) -> None:
    """The caller's transaction goes on."""
    with ledger.transaction():
        with pytest.raises(NotRecorded, match="nobody"):
            ledger_api.record_deletion(ledger, "nobody", BORN)
        ledger_api.record_creation(ledger, "acme", "2871", BORN)
    assert ledger_api.lifecycle(ledger, "nobody") is None
    assert ledger_api.lifecycle(ledger, "acme") is not None


def test_the_tenants_of_an_organisation_are_ordered_by_name(ledger: Connection) -> None:
    for name, org in [("b", "2871"), ("Z", "2871"), ("a", "2871"), ("c", "2872")]:
        ledger_api.record_creation(ledger, name, org, BORN)
    ledger_api.record_deletion(ledger, "b", BORN + HOUR)
    found = ledger_api.lifecycles(ledger, "2871")
    assert list(found) == ["Z", "a", "b"]
    assert found["b"] == Lifecycle(org="2871", created_at=BORN, deleted_at=BORN + HOUR)
    assert ledger_api.lifecycles(ledger, "2873") == {}
