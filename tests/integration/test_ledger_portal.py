"""A run over a ledger that a portal keeps with these functions."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from reconciler import ledger as ledger_api
from reconciler.core.model import Result
from reconciler.core.reasons import Reason
from reconciler.ledger import NotRecorded
from tests.support.api_state import ORG_LABEL, tenant
from tests.support.ledger_calls import HOUR

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.system import System


class Portal:
    """Changes the cluster, then records each change, except what it forgets."""

    def __init__(self, system: System, forgets: str | None) -> None:
        self.system = system
        self.forgets = forgets

    def record(self, function: Callable[..., object], *args: Any, **how: Any) -> None:
        """Record something in a transaction of its own, as the portal does."""
        if function.__name__ != self.forgets:
            # a deletion cannot be recorded if the creation was forgotten
            with psycopg.connect(self.system.url) as connection, suppress(NotRecorded):
                function(connection, *args, **how)

    def create(self, name: str, skills: list[str], at: datetime, **how: Any) -> None:
        made = self.system.api.create(tenant(name, skills, **how), at=at)
        born = datetime.fromisoformat(made["metadata"]["creationTimestamp"])
        org = made["metadata"].get("labels", {}).get(ORG_LABEL)
        self.record(ledger_api.record_creation, name, org, born)
        self.record(ledger_api.record_skills, name, org, enabled=skills, occurred_at=born)

    def live(self) -> None:
        """Make every kind of change that is recorded."""
        api, now = self.system.api, self.system.now
        for name in ("acme", "beta", "cara", "dana", "emil", "fred"):
            self.create(name, ["mail", "wiki"], now - 9 * HOUR, finalizers=["x"] if name == "emil" else [])
        api.patch("acme", {"spec": {"packages": ["wiki", "voice"]}}, at=now - 8 * HOUR)
        self.record(
            ledger_api.record_skills, "acme", "2871", enabled=["voice"], disabled=["mail"], occurred_at=now - 8 * HOUR
        )
        for name in ("beta", "cara"):
            api.patch(name, {"spec": {"suspend": True}}, at=now - 7 * HOUR)
            self.record(ledger_api.record_suspension, name, "2871", now - 7 * HOUR)
        api.patch("cara", {"spec": {"suspend": False}}, at=now - 6 * HOUR)
        self.record(ledger_api.record_resumption, "cara", "2871", now - 6 * HOUR)
        for name in ("dana", "emil"):
            api.delete(name, at=now - 5 * HOUR)
            self.record(ledger_api.record_deletion, name, now - 5 * HOUR)
            self.record(ledger_api.record_skills, name, "2871", disabled=["mail", "wiki"], occurred_at=now - 5 * HOUR)
        # just now, and dated by the database itself
        api.patch("fred", {"spec": {"packages": ["mail"], "suspend": True}})
        self.record(ledger_api.record_skills, "fred", "2871", disabled=["wiki"])
        self.record(ledger_api.record_suspension, "fred", "2871")


@pytest.mark.parametrize(
    ("forgets", "found"),
    [
        (None, set()),
        ("record_creation", {Reason.TENANT_UNRECORDED, Reason.DELETION_UNRECORDED, Reason.EVENTS_WITHOUT_TENANT}),
        ("record_deletion", {Reason.DELETION_UNRECORDED}),
        ("record_skills", {Reason.SKILL_ENABLE_UNRECORDED}),
        ("record_suspension", {Reason.SUSPENSION_UNRECORDED, Reason.HISTORY_CONTRADICTS}),
        ("record_resumption", {Reason.RESUMPTION_UNRECORDED}),
    ],
)
def test_a_run_finds_exactly_what_the_portal_forgot(system: System, forgets: str | None, found: set[Reason]) -> None:
    """If a portal records every change with these functions, the ledger is true."""
    portal = Portal(system, forgets)
    portal.live()
    outcome = system.run()
    assert {finding.reason for finding in outcome.findings} == found
    assert (outcome.result is Result.CLEAN) is (forgets is None)


def test_a_tenant_without_an_organisation_is_only_reported(system: System) -> None:
    Portal(system, None).create("acme", ["mail"], system.now - HOUR, org=None)
    assert [finding.reason for finding in system.run().findings] == [Reason.ORG_UNLABELLED]
