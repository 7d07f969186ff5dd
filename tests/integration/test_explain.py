"""`reconciler explain`: what people and programs read about a tenant, and how it fails."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID
from xml.etree import ElementTree as ET

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from reconciler import ledger as books
from reconciler.core.certificate import OpenGap
from reconciler.core.explanation import Correction, Entry, Period, RecordedLifetime, Story
from reconciler.core.history import Unproven
from reconciler.core.model import FIRST, LAST, Evidence, Table
from reconciler.core.reasons import Reason
from reconciler.core.status import Exemption, OpenReport
from reconciler.db import connection as database
from reconciler.db import explain, queries
from reconciler.db.explain import UnknownTenant, read_story
from reconciler.views.explain import UNPROVEN, draw, printed, svg, timeline
from reconciler.views.proofs import PROOF
from reconciler.views.timeline import GOES_ON, MARK, OFF, ON, RISES, UNKNOWN, cells
from tests.support.api_state import tenant
from tests.support.command import Ran, invoke
from tests.support.ledger_rows import all_rows
from tests.support.pages import PAGES, fenced

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.system import System

Connection = psycopg.Connection[Any]

NOW: Final = datetime(2026, 6, 2, 9, 14, 3, tzinfo=UTC)
MAY: Final = Period.of(date(2026, 5, 1))
HOTEL: Final = "hotel-seeblick"


def on(day: int, hour: int = 0, minute: int = 0, second: int = 0, *, month: int = 5) -> datetime:
    """Return an instant of May 2026, by default."""
    return datetime(2026, month, day, hour, minute, second, tzinfo=UTC)


# --- stories in a ledger -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TenantWriter:
    """Writes the rows of one tenant."""

    ledger: Connection
    tenant: str = HOTEL
    org: str = "287100000000000006"

    def lifetime(self, created_at: datetime | str, deleted_at: datetime | str | None = None) -> None:
        self.ledger.execute(
            "INSERT INTO tenant_billing_lifecycle VALUES (%s, %s, %s, %s)",
            [self.tenant, self.org, created_at, deleted_at],
        )

    def skill(self, skill: str, kind: str, at: datetime | str) -> int:
        return self._id(
            "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at) "
            "VALUES (%s, %s, %s, %s, %s) RETURNING id",
            *(self.tenant, self.org, skill, kind, at),
        )

    def suspension(self, kind: str, at: datetime | str) -> int:
        return self._id(
            "INSERT INTO tenant_suspension_events (tenant_name, zitadel_org_id, event_kind, occurred_at) "
            "VALUES (%s, %s, %s, %s) RETURNING id",
            *(self.tenant, self.org, kind, at),
        )

    def seen(self, since: datetime, *, created_at: datetime | None = None, uid: str = "a uid") -> None:
        self.ledger.execute(
            "INSERT INTO reconciler.tenants (source, uid, tenant_name, resource_version, packages, suspended, "
            "suspend_is_set, created_at, since) VALUES ('a cluster', %s, %s, '1', '{}', false, true, %s, %s)",
            [uid, self.tenant, created_at or since, since],
        )

    def gap(self, from_at: datetime, until_at: datetime, why: Unproven, manager: str | None = None) -> None:
        self.ledger.execute(
            "INSERT INTO reconciler.gaps VALUES ('a cluster', %s, %s, %s, %s, %s)",
            [self.tenant, from_at, until_at, why, manager],
        )

    def run(self, at: datetime, run_id: str, outcome: str = "corrected", unverified: list[str] | None = None) -> UUID:
        self.ledger.execute(
            "INSERT INTO reconciler.runs (id, started_at, observed_at, mode, outcome, version, source, unverified) "
            "VALUES (%s, %s, %s, 'run', %s, '0.1.0', 'a cluster', %s)",
            [run_id, at, at, outcome, unverified or []],
        )
        return UUID(run_id)

    def corrected(self, run: UUID, reason: Reason, change: tuple[str | None, str], **columns: Any) -> None:
        columns |= {"run_id": run, "reason": reason, "recorded": change[0], "observed": change[1]}
        columns |= {"tenant_name": self.tenant, "zitadel_org_id": self.org}
        columns = {"action": "append", "event_table": Table.SKILL_EVENTS} | columns
        names, places = ", ".join(columns), ", ".join(f"%({name})s" for name in columns)
        self.ledger.execute(f"INSERT INTO reconciler.corrections ({names}) VALUES ({places})".encode(), columns)  # noqa: S608 - the names are those below

    def _id(self, statement: str, *values: Any) -> int:
        ((number,),) = self.ledger.execute(statement.encode(), values).fetchall()
        assert isinstance(number, int)
        return number


def write_hotel(writer: TenantWriter) -> None:
    """Write the story that the docs show: the portal lost two rows, one of them in a month that was invoiced.

    And runs were not made during a night in which the spec was changed twice.
    """
    writer.lifetime(on(19, 10, 31, 26, month=3))
    writer.skill("searxng-local-search", "enabled", on(19, 10, 31, 27, month=3))
    writer.skill("nextcloud-files", "enabled", on(25, 8, 12, 40, month=3))
    writer.suspension("suspended", on(8, 6, month=4))
    writer.suspension("resumed", on(13, 9, 5, 31, month=4))
    run = writer.run(on(4, 6, 0, 4), "7d0f6b1e-52a3-4c1f-9f0c-3e6f0a4b8a11")
    event = writer.skill("nextcloud-files", "disabled", on(27, 21, 40, 5, month=4))
    writer.corrected(
        run,
        Reason.SKILL_DISABLE_UNRECORDED,
        ("enabled", "disabled"),
        subject="nextcloud-files",
        event_id=event,
        occurred_at=on(27, 21, 40, 5, month=4),
        not_before=on(27, 21, 40, 5, month=4),
        not_after=on(4, 6, 0, 4),
        evidence="none",
        closed_period=True,
        impact_chf="-2.80",
        impact_min_chf="-2.80",
        impact_max_chf="0.00",
    )
    run = writer.run(on(12, 7, 35, 3), "c2b9a3d4-0a55-4e0e-8f52-6f9a1f1d7e20")
    event = writer.skill("bexio-accounting", "enabled", on(12, 7, 31, 44))
    writer.corrected(
        run,
        Reason.SKILL_ENABLE_UNRECORDED,
        ("disabled", "enabled"),
        subject="bexio-accounting",
        event_id=event,
        occurred_at=on(12, 7, 31, 44),
        not_before=on(12, 7, 29, 2),
        not_after=on(12, 7, 31, 44),
        evidence="field_manager",
        impact_chf="0.60",
    )
    writer.skill("searxng-local-search", "disabled", on(20, 16, 3, 9))
    writer.seen(on(19, 10, 31, 26, month=3))
    writer.gap(on(29, 22, 10, 2), on(30, 6, 15, 4), Unproven.CHANGED_OFTEN, "portal")
    writer.run(on(2, 9, 10, 4, month=6), "0f4a9a52-9d0e-4a63-a1a7-5a8d9a0b6c33", "clean")


def read_as_of_june(ledger: Connection, name: str = HOTEL) -> Story:
    """Read a story as if it were 2 June."""
    with database.transaction(ledger) as cursor:
        return replace(read_story(cursor, name), as_of=NOW)


@pytest.fixture
def writer(ledger: Connection) -> TenantWriter:
    return TenantWriter(ledger)


@pytest.fixture
def hotel(ledger: Connection) -> Story:
    write_hotel(TenantWriter(ledger))
    return read_as_of_june(ledger)


@pytest.fixture
def run(ledger_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs `reconciler explain`, at 100 columns."""
    settings = {"DATABASE_URL": ledger_url, "COLUMNS": "100"}

    def run(*arguments: str, **environment: str) -> Ran:
        return invoke(monkeypatch, capsys, "explain", *arguments, environment=settings | environment)

    return run


def shown(story: Story, *, width: int = 100, **given: Any) -> str:
    """Return what people read on a terminal of that width, without its colours."""
    console = Console(file=StringIO(), width=width, height=1, force_terminal=True, color_system=None)
    draw(story, console, width=width, **given)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def lane_cells(story: Story, label: str, period: Period | None = None, width: int = 100) -> str:
    """Return the cells of a lane."""
    picture = timeline(story, width, period)
    (found,) = (lane for lane in picture.lanes if lane.label == label)
    return cells(found, picture.scale(width))


# --- made-up stories ---------------------------------------------------------------------------------------------

CORRECTION: Final = Correction(
    id=1,
    reason=Reason.SKILL_ENABLE_UNRECORDED,
    org="1",
    subject="mail",
    action="append",
    recorded="disabled",
    observed="enabled",
    occurred_at=on(12, 7),
    not_before=on(10),
    not_after=on(12, 7),
    evidence=Evidence.FIELD_MANAGER,
    event_table=Table.SKILL_EVENTS,
    event_id=7,
    supersedes_event_id=None,
    life_began_at=None,
    closed_period=False,
    impact_chf=None,
    impact_min_chf=None,
    impact_max_chf=None,
    run_id=UUID(int=1),
    run_at=on(12, 8),
)
STORY: Final = Story(
    tenant="acme",
    as_of=NOW,
    lifetimes=(RecordedLifetime("1", on(1, 8, month=4), None, None, None, None),),
    entries=(
        Entry(Table.LIFECYCLE, None, "1", None, "created", on(1, 8, month=4)),
        Entry(Table.SKILL_EVENTS, 7, "1", "mail", "enabled", on(12, 7), 1),
    ),
    corrections=(CORRECTION,),
)

texts = st.text(max_size=300) | st.sampled_from(["\x1b[31mred", "a\nb", "\u202eback", "日本語" * 20, "n" * 253])
moments = st.datetimes(datetime(2025, 1, 1), datetime(2026, 12, 31)).map(lambda at: at.replace(tzinfo=UTC)) | (  # noqa: DTZ001 - Hypothesis wants them naive
    st.sampled_from([FIRST, LAST])
)
entries = st.builds(
    Entry,
    st.sampled_from([Table.SKILL_EVENTS]),
    st.integers(1),
    texts,
    texts,
    st.sampled_from(["enabled", "disabled"]),
    moments,
    st.none() | st.integers(1, 2000),
)
money = st.none() | st.decimals("-99999999.99", "99999999.99", places=2)
corrections = st.builds(
    Correction,
    id=st.integers(1),
    reason=st.sampled_from(Reason) | texts,
    org=texts,
    subject=st.none() | texts,
    action=st.sampled_from(["append", "insert", "stamp", "update"]),
    recorded=st.none() | texts,
    observed=texts,
    occurred_at=st.none() | moments,
    not_before=st.none() | moments,
    not_after=st.none() | moments,
    evidence=st.none() | st.sampled_from(Evidence),
    event_table=st.just(Table.SKILL_EVENTS),
    event_id=st.none() | st.integers(1),
    supersedes_event_id=st.none() | st.integers(1),
    life_began_at=st.none() | moments,
    closed_period=st.booleans(),
    impact_chf=money,
    impact_min_chf=money,
    impact_max_chf=money,
    run_id=st.uuids(),
    run_at=moments,
    taken_back_at=st.none() | moments,
    taken_back_by=st.none() | st.integers(1),
    difference=st.none() | texts,
)
stories = st.builds(
    Story,
    tenant=texts,
    as_of=st.just(NOW),
    verified_at=st.none() | moments,
    known_since=st.none() | moments,
    gaps=st.lists(
        st.builds(OpenGap, moments, moments, st.sampled_from(Unproven) | texts, st.none() | texts), max_size=3
    ).map(tuple),
    lifetimes=st.lists(st.builds(RecordedLifetime, texts, moments, moments, moments, texts, texts), max_size=3).map(
        tuple
    ),
    entries=st.lists(entries, max_size=12).map(lambda found: tuple(sorted(found, key=lambda entry: entry.at))),
    corrections=st.lists(corrections, max_size=6).map(lambda found: tuple(sorted(found, key=lambda made: made.at))),
    reports=st.lists(
        st.builds(OpenReport, *[texts] * 3, *[st.none() | texts] * 3, moments, st.none() | moments), max_size=2
    ).map(tuple),
    exceptions=st.lists(st.builds(Exemption, *[texts] * 4, moments, moments, st.booleans()), max_size=2).map(tuple),
)
few = settings(max_examples=50)
"""A story is large, and a busy machine slow."""
periods = st.none() | st.dates(date(2025, 1, 1), date(2026, 12, 31)).map(Period.of)


# --- what people read --------------------------------------------------------------------------------------------


def test_the_docs_show_what_is_printed(hotel: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    blocks = fenced(PAGES["docs/explain-and-status.md"])
    (block,) = (block for block in blocks if block.startswith(f"{HOTEL}, organisation"))
    assert "\n".join([*printed(hotel), ""]) == block


def test_a_correction_is_marked_on_its_day(hotel: Story) -> None:
    row = lane_cells(hotel, "bexio-accounting", MAY, width=60)
    assert row.index(MARK) == 12 - 1
    assert lane_cells(hotel, "searxng-local-search", MAY, width=60).count(MARK) == 0


def test_the_number_below_a_mark_is_that_of_the_list(hotel: Story) -> None:
    lines = shown(hotel).splitlines()
    for label, number in (("nextcloud-files", 1), ("bexio-accounting", 2)):
        at = next(index for index, line in enumerate(lines) if line.startswith(f"{label} "))
        assert lines[at + 1][lines[at].index(MARK)] == str(number)
        assert any(line.startswith(f" {number}  ") and f"{label}: " in line for line in lines)


def test_every_event_is_listed_as_the_portals_or_a_correction(hotel: Story) -> None:
    _, _, listed = shown(hotel).partition("Events")
    assert [re.split(r" {2,}", line.strip()) for line in listed.splitlines()[1:]] == [
        ["2026-03-19 10:31:26", "tenant", "created", "portal"],
        ["2026-03-19 10:31:27", "searxng-local-search", "enabled", "portal, skill:1"],
        ["2026-03-25 08:12:40", "nextcloud-files", "enabled", "portal, skill:2"],
        ["2026-04-08 06:00:00", "tenant", "suspended", "portal, suspension:1"],
        ["2026-04-13 09:05:31", "tenant", "resumed", "portal, suspension:2"],
        ["2026-04-27 21:40:05", "nextcloud-files", "disabled", "◆ 1"],
        ["2026-05-12 07:31:44", "bexio-accounting", "enabled", "◆ 2"],
        ["2026-05-20 16:03:09", "searxng-local-search", "disabled", "portal, skill:5"],
    ]


def test_many_events_are_listed_only_if_asked_for() -> None:
    _, entry = STORY.entries
    story = replace(STORY, entries=tuple(entry._replace(at=on(1) + timedelta(hours=hour)) for hour in range(21)))
    assert "21 events, 21 of them corrections; --all-events lists them" in shown(story)
    assert "Events:" not in shown(story)
    assert shown(story, all_events=True).count("mail  enabled") == 21
    assert shown(replace(story, entries=[*story.entries][1:])).count("mail  enabled") == 20


def test_organisations_are_shown_if_there_are_several() -> None:
    first, second = STORY.entries
    assert "mail    enabled  ◆ 1" in shown(STORY)
    assert "mail    2  enabled" not in shown(STORY)
    assert re.search(r"mail +enabled +2 +◆ 1", shown(replace(STORY, entries=(first, second._replace(org="2")))))


def details(story: Story) -> dict[str, str]:
    """Return what is said of the first correction."""
    _, _, block = shown(story, width=200).partition("\n 1  ")
    found = re.findall(r"^ {4}(what|why then|between|impact|range|found|invoiced) +(.+?) *$", block, re.MULTILINE)
    return dict(found)


def test_a_correction_shows_cause_proof_and_run() -> None:
    assert details(STORY) == {
        "what": "The skill was on but recorded as off. (skill_enable_unrecorded)",
        "why then": "The setting was last written then (field_manager)",
        "between": "2026-05-10 00:00:00 and 2026-05-12 07:00:00",
        "impact": "not priced",
        "found": "2026-05-12 08:00:00 by run 00000000-0000-0000-0000-000000000001",
    }


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (on(10), "Nothing proves the moment, and the earliest possible one was taken (none)"),
        (on(12, 7), "Nothing proves the moment, and the latest possible one was taken (none)"),
        (on(11), "Nothing proves the moment (none)"),
    ],
)
def test_a_moment_without_evidence_says_which_one_was_taken(at: datetime, words: str) -> None:
    made = CORRECTION._replace(evidence="none", occurred_at=at)
    assert details(replace(STORY, corrections=(made,)))["why then"] == words


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"resource_version": "1042"}, "The API server's change log shows the change (change_log)"),
        (
            {"resource_version": None},
            "No change in the change log explains the portal's row, so it is answered at its own moment (change_log)",
        ),
        (
            {"resource_version": None, "reason": Reason.SKILL_OPEN_AFTER_DELETION},
            "The API server's change log shows the change (change_log)",
        ),
    ],
)
def test_what_the_change_log_shows_or_does_not_is_said(made: dict[str, Any], words: str) -> None:
    correction = CORRECTION._replace(evidence="change_log", **made)
    assert details(replace(STORY, corrections=(correction,)))["why then"] == words


def test_a_moment_that_is_certain_has_no_interval() -> None:
    made = CORRECTION._replace(not_before=CORRECTION.occurred_at)
    assert "between" not in details(replace(STORY, corrections=(made,)))


@pytest.mark.parametrize(
    ("impact", "words"),
    [
        ("1.20", "+1.20 CHF, revenue that was being lost"),
        ("-3.40", "-3.40 CHF, the customer was being overcharged"),
        ("0.00", "0.00 CHF"),
    ],
)
def test_a_correction_shows_its_impact(impact: str, words: str) -> None:
    made = CORRECTION._replace(impact_chf=Decimal(impact))
    assert details(replace(STORY, corrections=(made,)))["impact"] == words


def test_a_correction_shows_the_range_of_its_impact() -> None:
    made = CORRECTION._replace(
        impact_chf=Decimal("1.20"), impact_min_chf=Decimal("1.20"), impact_max_chf=Decimal("2.40")
    )
    assert details(replace(STORY, corrections=(made,)))["range"].startswith("+1.20 CHF to +2.40 CHF")


def test_corrections_are_summed_up_and_those_without_a_price_counted() -> None:
    impacts = [Decimal("1.20"), Decimal("-3.40"), None]
    made = tuple(CORRECTION._replace(id=number, impact_chf=chf) for number, chf in enumerate(impacts))
    assert "Together -2.20 CHF, before VAT, up to the runs that found them. 1 not priced." in shown(
        replace(STORY, corrections=made)
    )


def test_a_correction_in_a_closed_period_says_so(hotel: Story) -> None:
    (line,) = (line for line in shown(hotel).splitlines() if "closed period" in line)
    assert line.startswith(" 1  2026-04-27 21:40:05  nextcloud-files: enabled → disabled")
    said = "It changes a month that was closed or invoiced already: an adjustment is owed."
    assert details(hotel)["invoiced"] == said


def test_every_reason_and_every_evidence_has_its_words() -> None:
    assert all(reason.summary.endswith(".") for reason in Reason)
    assert set(PROOF) == set(Evidence) - {Evidence.NONE}


def test_a_reason_of_a_later_version_is_shown_as_recorded() -> None:
    made = CORRECTION._replace(reason="skill_renamed")
    assert details(replace(STORY, corrections=(made,)))["what"] == "skill_renamed"


def test_a_tenant_without_corrections_says_so() -> None:
    assert "No correction: every row is the portal's own.\n" in shown(replace(STORY, corrections=()))
    assert "No correction in this month. 1 correction outside of this month." in shown(
        STORY, period=Period.of(date(2026, 4, 1))
    )


def test_open_reports_and_who_accepted_them_are_shown() -> None:
    story = replace(
        STORY,
        reports=(OpenReport("acme", "org_moved", "", "1", "1", "2", on(30), on(31, month=12)),),
        exceptions=(
            Exemption("acme", "org_moved", "sold", "m.keller", on(31), on(31, month=12), expired=False),
            Exemption("acme", "tenant_unreadable", "was known", "m.keller", on(1), on(2), expired=True),
        ),
    )
    not_accepted = story.reports[0]._replace(accepted_until=None)
    assert "see below" not in shown(replace(story, reports=(not_accepted,)))
    _, _, rest = shown(story).partition("\nOpen:")
    lines = [line.strip() for line in rest.splitlines()]
    assert "!  org_moved  recorded 1, observed 2" in lines
    assert "since     2026-05-30 00:00:00" in lines
    assert "accepted  see below" in lines
    assert "~  org_moved  until 2026-12-31 00:00:00" in lines
    assert "by        m.keller, 2026-05-31 00:00:00" in lines
    assert "~  tenant_unreadable  until 2026-05-02 00:00:00, which is over" in lines


def test_earlier_lifetimes_are_drawn_and_listed(writer: TenantWriter) -> None:
    writer.lifetime(on(11))
    writer.ledger.execute(
        "INSERT INTO reconciler.closed_lives VALUES (%s, '1', %s, %s, %s, 'm.keller', 'came back')",
        [writer.tenant, on(2), on(6), on(12)],
    )
    story = read_as_of_june(writer.ledger)
    assert lane_cells(story, "tenant", MAY, width=50) == OFF + ON * 4 + OFF * 5 + ON * 21 + GOES_ON
    assert [(entry.kind, entry.at) for entry in story.entries] == [
        *(("created", on(2)), ("deleted", on(6)), ("created", on(11)))
    ]
    head = shown(story).splitlines()[:5]
    assert head[1:4] == [
        "created 2026-05-02 00:00:00, deleted 2026-05-06 00:00:00",
        "reopened 2026-05-12 00:00:00 by m.keller: came back",
        "created 2026-05-11 00:00:00, open",
    ]


def test_what_goes_on_is_marked_and_nothing_lies_after_now(hotel: Story) -> None:
    june = Period.of(NOW.date())
    assert lane_cells(hotel, "tenant", june, width=60).rstrip() == ON * 2 + GOES_ON
    assert lane_cells(hotel, "searxng-local-search", june, width=60).rstrip() == OFF * 2
    assert lane_cells(hotel, "tenant", Period.of(date(2026, 7, 1)), width=60).strip() == ""


def test_an_event_after_now_is_marked(writer: TenantWriter) -> None:
    writer.skill("mail", "enabled", "infinity")
    writer.skill("mail", "disabled", "-infinity")
    listed = shown(read_as_of_june(writer.ledger)).partition("Events")[2].splitlines()[1:]
    assert [re.split(r" {2,}", line.strip()) for line in listed] == [
        ["at the beginning of time", "mail", "disabled", "portal, skill:2"],
        ["at the end of time", "mail", "enabled", "portal, skill:1", "after now"],
    ]


def test_a_tenant_without_a_lifecycle_row_says_so(writer: TenantWriter) -> None:
    writer.skill("mail", "enabled", on(2))
    assert shown(read_as_of_june(writer.ledger)).splitlines()[1] == "no lifecycle row"


@few
@given(stories, st.integers(40, 200), periods)
def test_nothing_is_wider_than_the_terminal(story: Story, width: int, period: Period | None) -> None:
    assert max(cell_len(line) for line in shown(story, width=width, period=period).splitlines()) <= width


@few
@given(stories, periods)
def test_no_control_character_is_sent(story: Story, period: Period | None) -> None:
    text = shown(story, period=period, all_events=True)
    assert [char for char in text if not char.isprintable() and char != "\n"] == []


def test_control_characters_are_shown() -> None:
    story = replace(STORY, tenant="\x1b[2J", corrections=(CORRECTION._replace(subject="a\nb", observed="\u202e"),))
    text = shown(story)
    assert text.startswith("\\x1b[2J, organisation 1")
    assert "a\\nb: disabled → \\u202e" in text


def test_the_picture_begins_with_the_first_day_that_is_one() -> None:
    """Infinite and future times would hide all the others."""
    first, second = STORY.entries
    odd = replace(STORY, entries=(first._replace(at=FIRST), second, second._replace(at=LAST)))
    assert timeline(odd, 100).start == on(12, 7)
    assert timeline(replace(odd, entries=[*odd.entries][::2], corrections=()), 100).start == NOW


def test_at_one_instant_creation_comes_first_and_deletion_last(writer: TenantWriter) -> None:
    writer.skill("mail", "enabled", on(2))
    writer.skill("mail", "disabled", on(9))
    writer.lifetime(on(2), on(9))
    assert [entry.kind for entry in read_as_of_june(writer.ledger).entries] == [
        "created",
        "enabled",
        "disabled",
        "deleted",
    ]


def test_a_skill_without_a_name_is_shown_all_the_same() -> None:
    text = shown(replace(STORY, entries=([*STORY.entries][1]._replace(skill=""),), corrections=()))
    assert re.search(r'^"" +·*╺', text, flags=re.MULTILINE)


@pytest.mark.parametrize("skills", [1, 60])
def test_every_skill_has_its_lane(skills: int) -> None:
    _, entry = STORY.entries
    story = replace(STORY, entries=tuple(entry._replace(skill=f"skill-{number}") for number in range(skills)))
    assert len(re.findall(r"^skill-\d+ +[·━◆╺]+▸", shown(story), flags=re.MULTILINE)) == skills


def test_the_month_shows_what_lies_in_it_alone(hotel: Story) -> None:
    text = shown(hotel, period=MAY)
    assert "2026-05-01 to 2026-05-31." in text
    assert re.findall(r"^ (\d)  ", text, flags=re.MULTILINE) == ["2"]
    assert "1 correction outside of this month." in text
    assert len(text.partition("Events")[2].splitlines()) == 1 + 2


def test_the_month_begins_with_what_was_on_before(hotel: Story) -> None:
    assert lane_cells(hotel, "searxng-local-search", MAY, width=60).startswith(ON * 19)


def test_a_file_gets_no_colours_folds_or_trailing_blanks(run: Callable[..., Ran], ledger: Connection) -> None:
    write_hotel(TenantWriter(ledger))
    narrow = run(HOTEL, COLUMNS="50")
    assert narrow.code == 0
    assert "\x1b" not in narrow.out
    assert [line for line in narrow.out.splitlines() if line != line.rstrip()] == []
    assert "recorded as on. (skill_disable_unrecorded)" in narrow.out
    picture = [line for line in narrow.out.splitlines() if GOES_ON in line and "on   ·" not in line]
    assert picture
    assert all(cell_len(line) <= 50 for line in picture)


def test_a_terminal_gets_colours_and_its_own_width(ledger: Connection, ledger_url: str) -> None:
    write_hotel(TenantWriter(ledger))
    code, text = on_a_terminal(HOTEL, url=ledger_url)
    assert code == 0
    assert "\x1b[1;35m◆" in text
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert max(cell_len(line) for line in plain.splitlines()) <= 70
    assert "(skill_disable_unrecorded)" in plain.split()


def test_a_failure_is_escaped_on_a_terminal(writer: TenantWriter, ledger_url: str) -> None:
    replace(writer, tenant="b\x1b[2J").lifetime(on(1))
    code, text = on_a_terminal("a\x1b[2J\nb", url=ledger_url)
    assert code == 1
    assert "\x1b[2J" not in text
    assert r'no tenant "a\x1b[2J\nb"' in text
    assert r"Did you mean b\x1b[2J?" in text


def on_a_terminal(name: str, *, url: str) -> tuple[int, str]:
    """Run `reconciler explain` on a terminal of 70 columns; return its exit code and all that is printed."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "reconciler", "explain", name],
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"DATABASE_URL": url, "COLUMNS": "70", "TERM": "xterm-256color"},
    ) as process:
        os.close(theirs)
        received = b""
        while chunk := _received(ours):
            received += chunk
    os.close(ours)
    return process.returncode, received.decode()


def _received(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux: the other end is closed
        return b""


# --- what is not proven ------------------------------------------------------------------------------------------


def test_a_gap_says_from_when_until_when_and_why(hotel: Story) -> None:
    _, _, listed = shown(hotel).partition("Not proven: nobody knows what happened then\n")
    when, why, last_by, to_do, *_ = [line.strip() for line in listed.splitlines()]
    assert when == "?  2026-05-29 22:10:02 to 2026-05-30 06:15:04"
    assert why.endswith("The spec was changed more than once between two runs (changed_often)")
    assert last_by.split() == ["last", "by", "portal"]
    assert to_do.startswith("To do: check what happened then, and accept it")


def test_a_gap_is_drawn_in_a_lane_of_its_own(hotel: Story) -> None:
    row = lane_cells(hotel, "not proven", MAY, width=60)
    assert [index + 1 for index, cell in enumerate(row) if cell == UNKNOWN] == [29, 30]
    assert "not proven" not in shown(hotel, period=Period.of(date(2026, 4, 1)))


@pytest.mark.parametrize("why", [why for why in Unproven if why is not Unproven.LOG_LOST])
def test_every_cause_of_a_gap_is_said_in_words(why: Unproven) -> None:
    """`log_lost` is of no tenant that is known."""
    assert f"({why})" in shown(replace(STORY, gaps=(OpenGap(on(3), on(4), why),)))
    assert why in UNPROVEN


def test_a_gap_is_accepted_by_what_was_decided_after_it(run: Callable[..., Ran], writer: TenantWriter) -> None:
    writer.lifetime(on(1))
    writer.gap(on(3), on(4), Unproven.VANISHED)
    writer.ledger.execute(
        "INSERT INTO reconciler.exceptions (tenant_name, reason, note, created_by, created_at, expires_at) "
        "VALUES (%s, 'history_unproven', 'the log of the portal was read', 'elena', %s, %s)",
        [HOTEL, on(6), on(1) + timedelta(days=36500)],
    )
    assert "To do:" not in shown(read_as_of_june(writer.ledger))
    writer.gap(on(8), on(9), Unproven.VANISHED)
    assert "To do:" in shown(read_as_of_june(writer.ledger))
    assert [(gap["from_at"], gap["accepted"]) for gap in run(HOTEL, "--output", "json").document["gaps"]] == [
        ("2026-05-03T00:00:00Z", True),
        ("2026-05-08T00:00:00Z", False),
    ]


def test_of_many_gaps_the_latest_are_listed() -> None:
    gaps = tuple(
        OpenGap(on(1) + timedelta(hours=2 * n), on(1) + timedelta(hours=2 * n + 1), "vanished") for n in range(25)
    )
    text = shown(replace(STORY, gaps=gaps))
    assert text.count("(vanished)") == 20
    assert "5 earlier; --output json has them" in text
    assert shown(replace(STORY, gaps=gaps), all_events=True).count("(vanished)") == 25


def test_it_says_since_when_its_history_is_known(writer: TenantWriter) -> None:
    """By the latest resource of its name."""
    writer.lifetime(on(1))
    assert "what happened is not proven: no run has seen it in a cluster" in shown(read_as_of_june(writer.ledger))
    writer.seen(on(5, 8), created_at=on(1))
    assert "what happened is known since 2026-05-05 08:00:00\n" in shown(read_as_of_june(writer.ledger))
    writer.seen(on(20), uid="another uid")
    assert "what happened is known since 2026-05-20 00:00:00\n" in shown(read_as_of_june(writer.ledger))


def test_an_open_contradiction_is_shown_as_other_reports_are(writer: TenantWriter) -> None:
    writer.lifetime(on(1))
    writer.ledger.execute(
        "INSERT INTO reconciler.reports (tenant_name, reason, subject, recorded, observed, since) "
        "VALUES (%s, 'history_contradicts', 'mail', 'enabled twice', 'no disabling in between', %s)",
        [HOTEL, on(9)],
    )
    _, _, text = shown(read_as_of_june(writer.ledger)).partition("Open: what a person has to look at")
    assert "history_contradicts  mail: recorded enabled twice, observed no disabling in between" in text
    assert Reason.HISTORY_CONTRADICTS.summary in text


def test_a_correction_that_another_one_took_back_stands_and_counts() -> None:
    first = CORRECTION._replace(taken_back_at=on(13), taken_back_by=2, impact_chf=Decimal("5.00"))
    second = CORRECTION._replace(id=2, reason=Reason.CORRECTION_SUPERSEDED, run_at=on(13), impact_chf=Decimal("-1.00"))
    text = shown(replace(STORY, corrections=(first, second)), width=200)
    assert "mail: disabled → enabled  taken back by 2" in text
    assert "Together +4.00 CHF" in text
    assert "unknown hand" not in text


# --- what is read ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("lost_log")
def test_what_a_run_has_corrected_is_marked(system: System) -> None:
    """Created, two skills, suspended by the backfill; then one skill off, and the tenant gone."""
    long_ago = system.now - timedelta(days=9)
    for name in ("acme", "other"):
        system.api.create(tenant(name, ["mail", "voice"], suspend=True), at=long_ago)
    system.run()
    system.api.patch("acme", {"spec": {"packages": ["mail"], "suspend": False}})
    system.run()
    system.api.delete("acme")
    system.run()

    with database.transaction(system.ledger) as cursor:
        story = read_story(cursor, "acme")

    by_number = {entry.correction: (entry.kind, entry.skill) for entry in story.entries}
    assert {(made.reason, made.subject): by_number.get(number) for number, made in enumerate(story.corrections, 1)} == {
        ("tenant_unrecorded", None): ("created", None),
        ("skill_enable_unrecorded", "mail"): ("enabled", "mail"),
        ("skill_enable_unrecorded", "voice"): ("enabled", "voice"),
        ("suspension_unrecorded", None): ("suspended", None),
        ("skill_disable_unrecorded", "voice"): ("disabled", "voice"),
        ("resumption_unrecorded", None): ("resumed", None),
        ("deletion_unrecorded", None): ("deleted", None),
        ("skill_open_after_deletion", "mail"): ("disabled", "mail"),
    }
    assert None not in by_number
    assert [made.at for made in story.corrections] == sorted(made.at for made in story.corrections)


def test_a_resolved_organisation_is_listed_without_a_moment(writer: TenantWriter) -> None:
    writer.lifetime(on(1))
    run = writer.run(on(5, 8), "7d0f6b1e-52a3-4c1f-9f0c-3e6f0a4b8a11")
    writer.corrected(
        run,
        Reason.ORG_RESOLVED,
        ("unknown", "2871"),
        action="update",
        event_table=Table.LIFECYCLE,
        life_began_at=on(1),
    )
    text = shown(read_as_of_june(writer.ledger))
    assert " 1  without a moment  organisation: unknown → 2871" in text
    assert MARK not in lane_cells(read_as_of_june(writer.ledger), "tenant")
    assert next(iter(read_as_of_june(writer.ledger).entries)).correction is None


def test_the_lanes_are_the_ledgers_own_state_at_every_instant(writer: TenantWriter) -> None:
    """Two events at one instant, written in either order, among them."""
    writer.lifetime(on(1))
    for day, kinds in enumerate((("enabled",), ("enabled", "disabled"), ("disabled", "enabled"), ("disabled",)), 3):
        for kind in kinds:
            writer.skill("mail", kind, on(day * 2, 12))
            writer.suspension({"enabled": "suspended", "disabled": "resumed"}[kind], on(day * 2, 18))
    writer.skill("mail", "disabled", on(2, 12))
    story = read_as_of_june(writer.ledger)
    mail, suspended = lane_cells(story, "mail", MAY, width=60), lane_cells(story, "suspended", MAY, width=60)
    for day in range(1, 31):
        for row, state in (
            (mail, books.skill_state_at(writer.ledger, HOTEL, on(day)).get("mail")),
            (suspended, books.suspension_state_at(writer.ledger, HOTEL, on(day))),
        ):
            begins_on = state is not None and state.kind in {"enabled", "suspended"}
            assert (row[day - 1] in {ON, "╸"}) is begins_on or row[day - 1] == "╍"
    assert {ON, OFF, RISES} <= set(mail)


def test_the_last_run_that_found_it_true_is_shown(writer: TenantWriter) -> None:
    """Not one that could not verify it, nor one before it was created, nor one that failed."""
    writer.lifetime(on(3))
    first = "7d0f6b1e-52a3-4c1f-9f0c-3e6f0a4b8a1"
    writer.run(on(2), f"{first}1", "clean")
    assert read_as_of_june(writer.ledger).verified_at is None
    writer.run(on(4), f"{first}2", "drift")
    writer.run(on(5), f"{first}3", "drift", [HOTEL])
    writer.run(on(6), f"{first}4", "failed")
    writer.run(on(6) + timedelta(days=3650), f"{first}5", "clean")
    assert read_as_of_june(writer.ledger).verified_at == on(4)
    assert "last found true by the run of 2026-05-04 00:00:00" in shown(read_as_of_june(writer.ledger))


def test_infinite_times_are_brought_into_those_of_python(writer: TenantWriter) -> None:
    writer.lifetime("-infinity", "infinity")
    run = writer.run(on(5, 8), "7d0f6b1e-52a3-4c1f-9f0c-3e6f0a4b8a11")
    writer.corrected(
        run,
        Reason.DELETION_UNRECORDED,
        ("open", "deleted"),
        action="stamp",
        event_table=Table.LIFECYCLE,
        life_began_at="-infinity",
        occurred_at="infinity",
        not_before="-infinity",
        not_after="infinity",
        evidence="none",
    )
    writer.ledger.execute(
        "INSERT INTO reconciler.exceptions VALUES (%s, 'org_moved', 'indefinitely', 'me', '-infinity', 'infinity')",
        [HOTEL],
    )
    writer.ledger.execute(
        "INSERT INTO reconciler.reports (tenant_name, reason, since) VALUES (%s, 'org_moved', '-infinity')", [HOTEL]
    )
    writer.ledger.execute(
        "INSERT INTO reconciler.closed_lives VALUES (%s, '1', '-infinity', 'infinity', 'infinity', 'me', '')", [HOTEL]
    )
    story = read_as_of_june(writer.ledger)
    assert (story.lifetimes[-1].created_at, story.lifetimes[-1].deleted_at) == (FIRST, LAST)
    assert [*story.entries][-1].correction == 1
    assert "at the end of time" in shown(story)


def test_a_concurrent_run_is_seen_whole_or_not_at_all(
    run: Callable[..., Ran], writer: TenantWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.lifetime(on(1))
    query = queries.query

    def meanwhile(name: str) -> bytes:
        if name == "explain_events":
            found = writer.run(on(5, 8), "7d0f6b1e-52a3-4c1f-9f0c-3e6f0a4b8a11")
            event = writer.skill("mail", "enabled", on(5))
            writer.corrected(found, Reason.SKILL_ENABLE_UNRECORDED, (None, "enabled"), subject="mail", event_id=event)
        return query(name)

    monkeypatch.setattr(explain, "query", meanwhile)
    during = run(HOTEL, "--output", "json").document
    monkeypatch.undo()
    after = run(HOTEL, "--output", "json").document
    assert (len(during["events"]), len(during["corrections"])) == (1, 0)
    assert (len(after["events"]), len(after["corrections"])) == (2, 1)


# --- what programs read, and mail --------------------------------------------------------------------------------


def test_the_json_document_holds_the_whole_story(run: Callable[..., Ran], ledger: Connection) -> None:
    write_hotel(TenantWriter(ledger))
    ran = run(HOTEL, "--output", "json")
    assert (ran.code, ran.err) == (0, "")
    assert list(ran.document) == [
        *("tenant", "as_of", "verified_at", "known_since", "from", "until"),
        *("lives", "payers", "events", "corrections", "gaps", "reports", "closings", "exceptions"),
    ]
    assert ran.document["lives"] == [
        {
            "org": "287100000000000006",
            "created_at": "2026-03-19T10:31:26Z",
            "deleted_at": None,
            "reopened_at": None,
            "reopened_by": None,
            "note": None,
        }
    ]
    made = ran.document["corrections"][0]
    assert (made["number"], made["impact_chf"], made["impact_max_chf"]) == (1, "-2.80", "0.00")
    assert (made["not_before"], made["not_after"]) == ("2026-04-27T21:40:05Z", "2026-05-04T06:00:04Z")
    assert made["run_id"] == "7d0f6b1e-52a3-4c1f-9f0c-3e6f0a4b8a11"
    assert [(event["by"], event["correction"]) for event in ran.document["events"]] == [
        *[("portal", None)] * 5,
        *(("reconciler", 1), ("reconciler", 2), ("portal", None)),
    ]


def test_the_json_document_of_a_month_holds_only_that_month(run: Callable[..., Ran], ledger: Connection) -> None:
    write_hotel(TenantWriter(ledger))
    found = run(HOTEL, "--output", "json", "--month", "2026-05").document
    assert (found["from"], found["until"]) == ("2026-05-01T00:00:00Z", "2026-05-31T23:59:59.999999Z")
    assert [made["number"] for made in found["corrections"]] == [2]
    assert [event["at"] for event in found["events"]] == ["2026-05-12T07:31:44Z", "2026-05-20T16:03:09Z"]


def parsed(drawn: str) -> ET.Element:
    return ET.fromstring(drawn)  # noqa: S314 - our own, and its names are escaped or this is where it shows


def test_the_mail_picture_is_well_formed_and_loads_nothing(
    run: Callable[..., Ran], ledger: Connection, tmp_path: Path
) -> None:
    write_hotel(TenantWriter(ledger))
    ran = run(HOTEL, "--svg", str(tmp_path / "hotel.svg"))
    assert (ran.code, ran.err) == (0, "")
    drawn = (tmp_path / "hotel.svg").read_text(encoding="utf-8")
    words = {(element.text or "").strip() for element in parsed(drawn).iter()}
    assert {MARK, "searxng-local-search", "closed\xa0period"} <= words
    assert not re.search(r"url\((?!#)|href|@import|<script|<image", drawn)
    assert ran.out.startswith(f"{HOTEL}, organisation")


def test_the_mail_picture_is_the_same_from_any_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LINES", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    drawn = svg(STORY)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "40")
    assert svg(STORY) == drawn


@few
@given(stories)
def test_the_mail_picture_is_xml_whatever_the_names_hold(story: Story) -> None:
    assert parsed(svg(story)).tag.endswith("svg")


def test_a_picture_that_cannot_be_written_is_a_failure(
    run: Callable[..., Ran], writer: TenantWriter, tmp_path: Path
) -> None:
    writer.lifetime(on(1))
    ran = run(HOTEL, "--svg", str(tmp_path / "nowhere" / "hotel.svg"))
    assert (ran.code, ran.out) == (1, "")
    assert "No such file" in ran.complaint["error"]
    assert "folder that exists" in ran.complaint["remedy"]


# --- what cannot be explained -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "meant"), [("hotel-seeblik", HOTEL), ("Seeblick", HOTEL), ("hotl-seeblick", HOTEL), ("wyss", "b-wyss")]
)
def test_an_unknown_tenant_comes_with_the_names_that_were_meant(
    run: Callable[..., Ran], writer: TenantWriter, asked: str, meant: str
) -> None:
    writer.lifetime(on(1))
    replace(writer, tenant="b-wyss").lifetime(on(1))
    ran = run(asked)
    assert (ran.code, ran.out) == (1, "")
    assert f'no tenant "{asked}"' in ran.complaint["error"]
    assert ran.complaint["remedy"] == f"Did you mean {meant}?"


@pytest.mark.parametrize("asked", ["zzz", "", "\udcff", "%", "hotel-seeblick "])
def test_a_name_without_any_record_is_unknown(run: Callable[..., Ran], writer: TenantWriter, asked: str) -> None:
    """Including the empty one, which the reports about runs have, and one that is not text."""
    writer.lifetime(on(1))
    writer.ledger.execute("INSERT INTO reconciler.reports (tenant_name, reason) VALUES ('', 'failed')")
    ran = run(asked)
    assert ran.code == 1
    assert "knows no tenant" in ran.complaint["error"]


def test_a_name_that_postgresql_cannot_hold_is_unknown(ledger: Connection) -> None:
    with database.transaction(ledger) as cursor, pytest.raises(UnknownTenant):
        read_story(cursor, "acme\0")


@pytest.mark.parametrize(
    "month", ["2026", "2026-13", "2026-5", "may", "9999-12", "0000-01", "2026-05-01", "\uff12026-05"]
)
def test_what_is_not_a_month_is_wrong_usage(run: Callable[..., Ran], month: str) -> None:
    ran = run(HOTEL, "--month", month)
    assert ran.code == 64
    assert "write it as 2026-05" in ran.err


@pytest.mark.parametrize("month", ["0001-01", "2026-05", "9998-12"])
def test_any_month_can_be_shown(run: Callable[..., Ran], writer: TenantWriter, month: str) -> None:
    writer.lifetime(on(1))
    assert run(HOTEL, "--month", month).code == 0


def test_a_ledger_without_tables_must_be_migrated(run: Callable[..., Ran], empty_url: str) -> None:
    ran = run(HOTEL, DATABASE_URL=empty_url)
    assert ran.code == 1
    assert "reconciler migrate" in ran.complaint["remedy"]


def test_it_needs_only_a_runs_rights_and_writes_nothing(
    run: Callable[..., Ran], ledger: Connection, ledger_url: str, role_url: str
) -> None:
    write_hotel(TenantWriter(ledger))
    before = all_rows(ledger_url)
    for arguments in ([HOTEL], ["nobody"]):
        ran = run(*arguments, DATABASE_URL=role_url)
        assert ran.code == (0 if HOTEL in arguments else 1), ran.err
    assert all_rows(ledger_url) == before
