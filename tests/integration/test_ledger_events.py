"""Skills and suspensions that a portal records, and the state that is read from them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler import ledger as ledger_api
from reconciler.core.model import FIRST, LAST, Lifecycle
from tests.support.ledger_calls import ALL_TIME, BORN, HOUR, Connection
from tests.support.ledger_rows import all_rows

if TYPE_CHECKING:
    from reconciler.ledger import SkillEvent, SuspensionEvent


def test_a_change_of_skills_has_one_time(ledger: Connection) -> None:
    """It is the database's if none is given. The events are returned as they are stored."""
    events = ledger_api.record_skills(
        ledger, "acme", "2871", enabled=["wiki", "bexio", "wiki"], disabled=iter(["mail"])
    )
    assert [(event.skill, event.kind, event.enabled) for event in events] == [
        ("bexio", "enabled", True),
        ("mail", "disabled", False),
        ("wiki", "enabled", True),
    ]
    assert len({event.occurred_at for event in events}) == 1
    assert [event.id for event in events] == [1, 2, 3]
    assert ledger_api.skill_events(ledger, *ALL_TIME, tenant="acme") == events


def test_events_without_a_time_happen_when_the_transaction_began(ledger: Connection) -> None:
    with ledger.transaction():
        ((now,),) = ledger.execute("SELECT now()").fetchall()
        (skill,) = ledger_api.record_skills(ledger, "acme", "2871", enabled=["mail"])
        suspension = ledger_api.record_suspension(ledger, "acme", "2871")
    assert skill.occurred_at == suspension.occurred_at == now


def test_a_change_of_nothing_writes_nothing(ledger: Connection, ledger_url: str) -> None:
    before = all_rows(ledger_url)
    assert ledger_api.record_skills(ledger, "acme", "2871") == []
    assert ledger_api.record_skills(ledger, "acme", "2871", enabled=iter(()), disabled={}) == []
    assert all_rows(ledger_url) == before


def test_events_are_only_appended(ledger: Connection) -> None:
    for _ in range(2):
        ledger_api.record_skills(ledger, "acme", "2871", enabled=["mail"], occurred_at=BORN)
        ledger_api.record_suspension(ledger, "acme", "2871", BORN)
    assert [event.id for event in ledger_api.skill_events(ledger, *ALL_TIME, tenant="acme")] == [1, 2]
    assert [event.id for event in ledger_api.suspension_events(ledger, *ALL_TIME, tenant="acme")] == [1, 2]


def test_the_second_of_two_events_in_a_transaction_is_the_latest(ledger: Connection) -> None:
    """Both are dated when it began: the higher id decides."""
    with ledger.transaction():
        ledger_api.record_skills(ledger, "acme", "2871", enabled=["mail"])
        (off,) = ledger_api.record_skills(ledger, "acme", "2871", disabled=["mail"])
        ledger_api.record_suspension(ledger, "acme", "2871")
        running = ledger_api.record_resumption(ledger, "acme", "2871")
    assert ledger_api.skill_state_at(ledger, "acme", off.occurred_at) == {"mail": off}
    assert ledger_api.suspension_state_at(ledger, "acme", running.occurred_at) == running
    assert not running.suspended


INSTANTS = [BORN + timedelta(microseconds=number) for number in range(5)]
SKILLS = ["Mail", "mail", "wiki"]
TENANTS = ["acme", "beta"]

_changes = st.tuples(
    st.sampled_from(TENANTS),
    st.sampled_from(["2871", "2872"]),
    st.dictionaries(st.sampled_from(SKILLS), st.booleans()),
    st.booleans(),
    st.sampled_from(INSTANTS),
)


@settings(max_examples=60)
@given(st.lists(_changes, max_size=14), st.sampled_from([BORN - HOUR, *INSTANTS, BORN + HOUR]))
def test_state_and_events_match_a_naive_model(
    ledger: Connection, changes: list[tuple[str, str, dict[str, bool], bool, datetime]], instant: datetime
) -> None:
    """In whatever order they were recorded, and however many happened at one instant."""
    skills: list[SkillEvent] = []
    suspensions: list[SuspensionEvent] = []
    with ledger.transaction(force_rollback=True):
        for name, org, turned, suspends, at in changes:
            on = {skill for skill, enabled in turned.items() if enabled}
            skills += ledger_api.record_skills(
                ledger, name, org, enabled=on, disabled=turned.keys() - on, occurred_at=at
            )
            record = ledger_api.record_suspension if suspends else ledger_api.record_resumption
            suspensions.append(record(ledger, name, org, at))

        def up_to_instant(events: list[Any]) -> list[Any]:
            return sorted((e for e in events if e.occurred_at <= instant), key=lambda e: (e.occurred_at, e.id))

        for name in TENANTS:
            latest = {event.skill: event for event in up_to_instant(skills) if event.tenant == name}
            assert ledger_api.skill_state_at(ledger, name, instant) == latest
            last = [event for event in up_to_instant(suspensions) if event.tenant == name][-1:]
            assert ledger_api.suspension_state_at(ledger, name, instant) == (last[0] if last else None)
        since, until = sorted([instant, INSTANTS[3]])
        for whose in [{"tenant": "acme"}, {"org": "2871"}, {"tenant": "acme", "org": "2871"}]:
            assert ledger_api.skill_events(ledger, since, until, **whose) == select_events(skills, since, until, whose)
            assert ledger_api.suspension_events(ledger, since, until, **whose) == select_events(
                suspensions, since, until, whose
            )


def select_events(events: list[Any], since: datetime, until: datetime, whose: dict[str, str]) -> list[Any]:
    """Return the events of a period, in the most obvious way."""
    found = [event for event in events if since <= event.occurred_at < until]
    found = [event for event in found if all(getattr(event, field) == value for field, value in whose.items())]
    return sorted(found, key=lambda event: (event.occurred_at, event.id))


def test_a_period_includes_its_start_but_not_its_end(ledger: Connection) -> None:
    """So the periods of two months contain every event once."""
    ledger_api.record_skills(ledger, "acme", "2871", enabled=["mail"], occurred_at=BORN)
    ledger_api.record_skills(ledger, "acme", "2871", disabled=["mail"], occurred_at=BORN + HOUR)
    assert [e.kind for e in ledger_api.skill_events(ledger, BORN, BORN + HOUR, tenant="acme")] == ["enabled"]
    assert [e.kind for e in ledger_api.skill_events(ledger, BORN + HOUR, BORN + 2 * HOUR, tenant="acme")] == [
        "disabled"
    ]
    assert ledger_api.skill_events(ledger, BORN, BORN, tenant="acme") == []


TIMES = {
    "-infinity": FIRST,
    "4713-01-01 00:00:00+00 BC": FIRST,
    "0001-01-01 00:00:00+00": FIRST,
    "2026-05-04 09:30:00.000001+00": BORN + timedelta(microseconds=1),
    "9999-12-31 23:59:59.999999+00": LAST,
    "294276-12-31 23:59:59+00": LAST,
    "infinity": LAST,
}
"""What PostgreSQL can hold, and how it is read."""


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Etc/GMT+12"])
@pytest.mark.parametrize("text", TIMES)
def test_a_time_beyond_datetime_is_read_as_first_or_last(ledger: Connection, text: str, zone: str) -> None:
    """In any time zone of the session; other times are read to the microsecond."""
    ledger.execute("SELECT set_config('timezone', %s, false)", [zone])
    ledger.execute("INSERT INTO tenant_billing_lifecycle VALUES ('acme', '2871', %(at)s, %(at)s)", {"at": text})
    ledger.execute("UPDATE platform_pricing SET updated_at = %s", [text])
    ledger.execute("INSERT INTO skill_pricing VALUES ('mail', 1, %(at)s, %(at)s)", {"at": text})
    ledger.execute(
        "INSERT INTO org_billing_config (zitadel_org_id, created_at, updated_at) VALUES ('2871', %(at)s, %(at)s)",
        {"at": text},
    )
    at = TIMES[text]
    assert ledger_api.lifecycle(ledger, "acme") == Lifecycle(org="2871", created_at=at, deleted_at=at)
    assert ledger_api.lifecycles(ledger, "2871") == {"acme": Lifecycle(org="2871", created_at=at, deleted_at=at)}
    assert ledger_api.platform_prices(ledger).updated_at == at
    (price,) = ledger_api.skill_prices(ledger)
    settled = ledger_api.org_billing(ledger, "2871")
    assert {price.created_at, price.updated_at, settled.created_at, settled.updated_at} == {at}
    assert price.created_at.tzinfo is UTC


@pytest.mark.parametrize("text", TIMES)
def test_an_event_at_such_a_time_breaks_no_reader(ledger: Connection, text: str) -> None:
    ledger.execute(
        "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at) "
        "VALUES ('acme', '2871', 'mail', 'enabled', %s)",
        [text],
    )
    ledger.execute(
        "INSERT INTO tenant_suspension_events (tenant_name, zitadel_org_id, event_kind, occurred_at) "
        "VALUES ('acme', '2871', 'suspended', %s)",
        [text],
    )
    happened = TIMES[text] < LAST
    state = ledger_api.skill_state_at(ledger, "acme", BORN + HOUR)
    assert {skill: event.occurred_at for skill, event in state.items()} == ({"mail": TIMES[text]} if happened else {})
    suspension = ledger_api.suspension_state_at(ledger, "acme", BORN + HOUR)
    assert (suspension.occurred_at if suspension else None) == (TIMES[text] if happened else None)
    assert {event.occurred_at for event in ledger_api.skill_events(ledger, *ALL_TIME, tenant="acme")} <= {TIMES[text]}
    assert {event.occurred_at for event in ledger_api.suspension_events(ledger, *ALL_TIME, org="2871")} <= {TIMES[text]}
