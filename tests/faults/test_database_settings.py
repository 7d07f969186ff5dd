"""However the database and the role are set up: a run finds, writes and says the same, or says what is wrong.

Each line of the tables names what is set up and what comes of it: `pytest --collect-only -q` prints it.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from reconciler import ledger as ledger_api
from reconciler.core.model import Action
from reconciler.db import connection as database
from reconciler.db.migrate import migrate
from tests.simulation.portal import CLOCK
from tests.support import faults as f
from tests.support.command import Ran, invoke
from tests.support.odd_settings import OTHERS, SETTINGS, SHADOWS, odd_database, odd_role
from tests.support.struck_runs import CORRECTIONS, ORG, TRUE_BOOKS, Scenario, ledger_with_clock, on, shown, staged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Psql
    from tests.support.fake_api import FakeApi

PRICES: Final = """
UPDATE platform_pricing SET tenant_monthly_fee_chf = 30;
INSERT INTO skill_pricing VALUES ('mail', 0.5), ('büro-paket', 1.25) ON CONFLICT DO NOTHING;
"""
BOOKS: Final = TRUE_BOOKS._replace(skills=sorted([*TRUE_BOOKS.skills, ("finn", ORG, "büro-paket", "enabled", on(6))]))
EXCEPT: Final = ("except", "acme", "org_moved", "--until", "2099-12-31", "--note", "known")
READING: Final = (
    ("usage", "--month", "2026-02"),
    ("explain", "acme"),
    ("explain", "finn"),
    ("status",),
)


@pytest.fixture(scope="module")
def url(postgres_url: str, template: str) -> Iterator[str]:
    """A priced database for all tests of this file, with what a search_path may put in front."""
    with ledger_with_clock(postgres_url, template) as url:
        with closing(psycopg.connect(url, autocommit=True)) as owner:
            owner.execute(SHADOWS)
            owner.execute(PRICES.encode())
        yield url


def with_umlauts(scenario: Scenario) -> None:
    """Let finn have a skill that not every encoding can hold, and the ledger know of it."""
    scenario.api.patch("finn", {"spec": {"packages": ["büro-paket", "mail"]}}, at=on(6))
    scenario.skill_row("finn", "büro-paket", "enabled", on(6))


@pytest.fixture
def scenario(url: str, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scenario]:
    """The world that is known by heart, with an umlaut in it."""
    with staged(url, api, tmp_path, monkeypatch) as scenario:
        with_umlauts(scenario)
        yield scenario


class Command(Protocol):
    """Runs a command on a database."""

    def __call__(self, url: str, /, *arguments: str) -> Ran:
        """Return what it printed, and its exit code."""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command on a database."""

    def run(url: str, *arguments: str) -> Ran:
        return invoke(monkeypatch, capsys, *arguments, environment={"DATABASE_URL": url})

    return run


def read(command: Command, url: str) -> list[Any]:
    """Return what the reading commands say."""
    said = []
    for arguments in READING:
        ran = command(url, *arguments, "--output", "json")
        assert ran.code == 0, ran.err
        said.append(ran.document)
    return said


def is_right(scenario: Scenario, url: str, command: Command) -> None:
    """A whole run that way writes the rows that it always writes; and what is read that way is what is always read."""
    with closing(database.connect(url)) as ledger:
        assert migrate(ledger) == []
    outcome = scenario.run(url=url)
    assert outcome.failure is None, outcome.failure
    assert set(scenario.corrections()) == CORRECTIONS
    assert scenario.books() == BOOKS
    assert read(command, url) == read(command, scenario.url)
    before = scenario.state()[:2]
    assert scenario.run(url=url).failure is None
    assert scenario.state()[:2] == before


# one setting after the other, and all of them


@contextmanager
def slow(scenario: Scenario, seconds: float = 0.2) -> Iterator[None]:
    """Let every row, every list, every wait and the lock of all runs take longer than the timeouts of `SETTINGS`."""
    scenario.write(
        "CREATE FUNCTION sim.slow() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END $$"
    )
    scenario.write("CREATE TRIGGER slow BEFORE INSERT ON tenant_skill_events FOR EACH ROW EXECUTE FUNCTION sim.slow()")
    scenario.strike(f.delay(4 * seconds))
    scenario.asleep = lambda: time.sleep(4 * seconds)
    try:
        with scenario.ledger() as other:
            other.execute("BEGIN")
            other.execute("LOCK TABLE tenant_suspension_events")
            release = threading.Timer(6 * seconds, lambda: other.execute("COMMIT"))
            release.start()
            yield
            release.join()
    finally:
        scenario.write("DROP FUNCTION sim.slow() CASCADE")


@pytest.mark.parametrize(
    "settings",
    [
        *(
            pytest.param({setting: value}, id=f"{setting} = {value or repr(value)} - the same run")
            for setting, values in SETTINGS.items()
            for value in values
        ),
        pytest.param(OTHERS, id="every other setting at once - the same run"),
    ],
)
def test_odd_role(scenario: Scenario, command: Command, settings: dict[str, str]) -> None:
    waits = slow(scenario) if all(setting.endswith("_timeout") for setting in settings) else nullcontext()
    with odd_role(scenario.url, settings) as url, waits:
        is_right(scenario, url, command)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(
            OTHERS | {setting: values[0] for setting, values in SETTINGS.items()},
            id="every setting at once, of the database - the same run",
        )
    ],
)
def test_odd_database(scenario: Scenario, command: Command, settings: dict[str, str]) -> None:
    with odd_database(scenario.url, settings):
        is_right(scenario, scenario.url, command)


# encodings


@pytest.mark.parametrize(
    "by", [pytest.param(by, id=f"another client_encoding by {by} - UTF-8") for by in ("URL", "variable", "service")]
)
def test_client_encoding(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """Also outside of a transaction, where nothing else sets it."""
    if by == "URL":
        url += "&client_encoding=LATIN1"
    elif by == "variable":
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    else:
        (tmp_path / "services").write_text("[billing]\nclient_encoding=LATIN1\n")
        monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
        url += "&service=billing"
    with odd_role(url, {"client_encoding": "LATIN1"}) as odd, closing(database.connect(odd)) as ledger:
        assert ledger.info.encoding == "utf-8"
        assert ledger.execute("SELECT 'ł'").fetchall() == [("ł",)]


@contextmanager
def encoded(postgres_url: str, encoding: str) -> Iterator[str]:
    """Make an empty database in another encoding."""
    name = f"encoded_{uuid4().hex}"
    with closing(psycopg.connect(postgres_url, autocommit=True)) as server:
        server.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE 'C' LC_CTYPE 'C'").format(
                sql.Identifier(name), sql.Literal(encoding)
            )
        )
        yield urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def staged_in(
    encoding: str, postgres_url: str, api: FakeApi, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scenario]:
    """Set the scenario in a database in another encoding."""
    with encoded(postgres_url, encoding) as url:
        with closing(database.connect(url)) as ledger:
            assert migrate(ledger)
            ledger.execute(CLOCK.encode())
            ledger.execute("INSERT INTO skill_pricing VALUES ('mail', 0.5)")
        with staged(url, api, folder, monkeypatch) as scenario:
            yield scenario


@pytest.mark.parametrize(
    "encoding",
    [
        pytest.param(name, id=f"a ledger in {name} that can hold every skill - the same run")
        for name in ("LATIN1", "WIN1252", "EUC_TW")
    ],
)
def test_encoding(
    postgres_url: str,
    api: FakeApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Command,
    encoding: str,
) -> None:
    """Also one for which Python has no codec."""
    monkeypatch.setenv("PGCLIENTENCODING", "UTF8")
    with staged_in(encoding, postgres_url, api, tmp_path, monkeypatch) as scenario:
        if encoding == "EUC_TW":
            scenario.skill_row("finn", "\u4e00", "enabled", on(6))
            scenario.api.patch("finn", {"spec": {"packages": ["mail", "\u4e00"]}}, at=on(6))
            outcome = scenario.run()
            assert outcome.failure is None, outcome.failure
            assert set(scenario.corrections()) == CORRECTIONS
        else:
            with_umlauts(scenario)
            is_right(scenario, scenario.url, command)


@pytest.mark.parametrize("case", [pytest.param("\u0142", id="a skill that LATIN1 cannot hold - this tenant only")])
def test_skill_beyond_the_encoding(
    postgres_url: str, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    with staged_in("LATIN1", postgres_url, api, tmp_path, monkeypatch) as scenario:
        with_umlauts(scenario)
        scenario.api.patch("acme", {"spec": {"packages": ["mail", "voice", case]}}, at=on(20, 10))
        outcome = scenario.run()
        assert outcome.failure is None, outcome.failure
        (finding,) = shown(outcome, "acme")
        assert (finding.reason, finding.action) == ("tenant_unreadable", Action.REPORT)
        assert "the ledger's encoding LATIN1 cannot hold its character U+0142" in str(finding.observed)
        assert set(scenario.corrections()) == {c for c in CORRECTIONS if c[0] != "acme"}
        scenario.stays()


ONE_SENTENCE: Final = {
    "SQL_ASCII": "The ledger's database has the encoding SQL_ASCII, which does not say which characters its bytes are.",
    "MULE_INTERNAL": "nothing can be read from a database in this encoding for certain.",
}
COMMANDS: Final = (("migrate",), ("run", "--tenants", "-"), ("plan", "--tenants", "-"), *READING, EXCEPT)


@pytest.mark.parametrize(
    "encoding", [pytest.param(name, id=f"a ledger in {name} - every command refuses it") for name in ONE_SENTENCE]
)
def test_refused_encoding(postgres_url: str, command: Command, encoding: str) -> None:
    with encoded(postgres_url, encoding) as url:
        for arguments in COMMANDS:
            complaint = command(url, *arguments).complaint
            assert ONE_SENTENCE[encoding] in complaint["error"], arguments
            assert "ENCODING 'UTF8'" in complaint["remedy"], arguments


@pytest.mark.parametrize("case", [pytest.param("\u0142", id="a tenant's own name that LATIN1 cannot hold - failed")])
def test_name_beyond_the_encoding(postgres_url: str, command: Command, tmp_path: Path, case: str) -> None:
    """Only a file can have one: Kubernetes has names of ASCII."""
    tenants = tmp_path / "tenants.json"
    metadata = {"name": f"{case}odz", "creationTimestamp": "2026-02-01T00:00:00Z"}
    tenants.write_text(json.dumps({"apiVersion": "pieced.ch/v1", "kind": "PiecedTenant", "metadata": metadata}))
    with encoded(postgres_url, "LATIN1") as url:
        assert command(url, "migrate").code == 0
        ran = command(url, "run", "--tenants", str(tenants))
    assert ran.code == 1
    assert "LATIN1" in ran.complaint["error"]
    assert "ENCODING 'UTF8'" in ran.complaint["remedy"]


# rows that a policy hides


TABLES: Final = (
    *("public.tenant_billing_lifecycle", "public.tenant_skill_events", "public.tenant_suspension_events"),
    *("public.skill_pricing", "public.invoices", "reconciler.runs", "reconciler.exceptions"),
)


@pytest.fixture(scope="module")
def role(url: str, psql: Psql) -> Iterator[str]:
    """A login role with no more rights than sql/roles.sql gives."""
    name = f"role_{uuid4().hex}"
    identifier = sql.Identifier(name)
    with closing(psycopg.connect(url, autocommit=True)) as owner:
        owner.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'plain'").format(identifier))
        psql(url, "roles.sql", role=name)
        owner.execute(sql.SQL("GRANT USAGE ON SCHEMA sim TO {0}; GRANT SELECT ON sim.clock TO {0}").format(identifier))
        yield name
        owner.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(identifier))


@contextmanager
def hidden(scenario: Scenario, table: str, policy: str = "false") -> Iterator[None]:
    """Put a policy on a table, which shows a role what it says."""
    scenario.write(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    scenario.write(f"CREATE POLICY ours ON {table} USING ({policy})")
    try:
        yield
    finally:
        scenario.write(f"DROP POLICY ours ON {table}")
        scenario.write(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")


@pytest.mark.parametrize(
    "table", [pytest.param(table, id=f"a policy that hides rows of {table} - failed") for table in TABLES]
)
def test_hidden_rows(scenario: Scenario, role: str, table: str) -> None:
    before = scenario.state()
    with hidden(scenario, table):
        outcome = scenario.run(url=of_role(scenario.url, role, "plain"))
        recorded = outcome.failure is not None and table != "reconciler.runs"
        scenario.has_failed(outcome, before, "Row-level security would hide rows", recorded=recorded)
        assert outcome.failure
        assert table.partition(".")[2] in str(outcome.failure)
        assert "BYPASSRLS" in outcome.failure.remedy
        scenario.write(f"ALTER ROLE {role} BYPASSRLS")
        try:
            assert scenario.run(url=of_role(scenario.url, role, "plain")).failure is None
        finally:
            scenario.write(f"ALTER ROLE {role} NOBYPASSRLS")
    assert set(scenario.corrections()) == CORRECTIONS


@pytest.mark.parametrize(
    "arguments",
    [pytest.param(arguments, id=f"a policy that hides rows from {arguments[0]} - refused") for arguments in READING[1:]]
    + [pytest.param(READING[0], id="a policy that hides what usage bills - refused")],
)
def test_hidden_from_readers(scenario: Scenario, role: str, command: Command, arguments: tuple[str, ...]) -> None:
    with hidden(scenario, "tenant_billing_lifecycle"), hidden(scenario, "reconciler.runs"):
        ran = command(of_role(scenario.url, role, "plain"), *arguments)
    assert (ran.code, ran.out) == (1, "")
    assert "Row-level security would hide rows" in ran.complaint["error"]
    assert "BYPASSRLS" in ran.complaint["remedy"]


@pytest.mark.parametrize(
    ("policy", "call"),
    [
        pytest.param("tenant_billing_lifecycle", lambda c: ledger_api.lifecycle(c, "acme"), id="lifecycle - refused"),
        pytest.param("tenant_billing_lifecycle", lambda c: ledger_api.record_deletion(c, "acme"), id="stamp - refused"),
        pytest.param(
            "tenant_skill_events", lambda c: ledger_api.skill_state_at(c, "acme", on(28)), id="skill state - refused"
        ),
        pytest.param("skill_pricing", ledger_api.skill_prices, id="prices - refused"),
        pytest.param(
            "skill_pricing", lambda c: ledger_api.skill_state_at(c, "acme", on(28)), id="another table's - answered"
        ),
    ],
)
def test_hidden_from_the_portal(
    request: pytest.FixtureRequest, scenario: Scenario, role: str, policy: str, call: Callable[[Any], object]
) -> None:
    """The session stays as the portal has set it, and its transaction goes on."""
    with hidden(scenario, policy), psycopg.connect(of_role(scenario.url, role, "plain")) as portal:
        if "answered" in request.node.name:
            assert call(portal)
        else:
            with pytest.raises(ledger_api.RowsHidden, match=policy):
                call(portal)
        assert portal.execute("SHOW row_security").fetchall() == [("on",)]


def of_role(url: str, name: str, password: str) -> str:
    """Return the way to a database as another role."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{name}:{password}@{parts.netloc.rpartition('@')[2]}").geturl()


# values that PostgreSQL can hold and Python cannot


@pytest.mark.parametrize(
    ("start", "end", "closed"),
    [
        pytest.param("2026-02-01", "infinity", True, id="an invoice until infinity - a closed period"),
        pytest.param("-infinity", "2026-02-28", True, id="an invoice since minus infinity - a closed period"),
        pytest.param("4000-01-01 BC", "9999-12-31", True, id="an invoice since before Christ - a closed period"),
        pytest.param("infinity", "infinity", False, id="an invoice that never begins - an open period"),
        pytest.param("-infinity", "-infinity", False, id="an invoice that has always been over - an open period"),
    ],
)
def test_infinite_invoice(scenario: Scenario, start: str, end: str, closed: bool) -> None:  # noqa: FBT001 - of the table
    scenario.write(
        "INSERT INTO invoices (invoice_number, zitadel_org_id, period_start, period_end, due_at, subtotal_chf, "
        "vat_rate, vat_amount_chf, total_chf, billing_snapshot, payment_method) "
        "VALUES ('1', %s, %s, %s, 'infinity', 1, 1, 1, 1, '{}', 'invoice')",
        *(ORG, start, end),
    )
    outcome = scenario.run()
    assert outcome.failure is None, outcome.failure
    # what closes a skill after its tenant's end changes no bill
    changing = [each for each in outcome.findings if each.moment and each.reason != "skill_open_after_deletion"]
    assert {finding.closed_period for finding in changing} == {closed}


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        pytest.param(
            "UPDATE platform_pricing SET tenant_monthly_fee_chf = 'NaN'",
            "The monthly fee is NaN",
            id="a fee that is no number - usage refuses it, and a run goes on",
        ),
        pytest.param(
            "UPDATE skill_pricing SET daily_price_chf = 'NaN' WHERE skill_id = 'mail'",
            "The daily price of mail is NaN",
            id="a price that is no number - usage refuses it, and a run goes on",
        ),
    ],
)
def test_not_a_price(scenario: Scenario, command: Command, statement: str, said: str) -> None:
    scenario.write(statement)
    try:
        ran = command(scenario.url, "usage", "--month", "2026-02")
        assert (ran.code, ran.out) == (1, "")
        assert said in ran.complaint["error"]
        outcome = scenario.run()
        assert outcome.failure is None, outcome.failure
        assert "price.invalid" in {line["event"] for line in scenario.logged}
        assert "NaN" not in str(scenario.write("SELECT impact_chf::text FROM reconciler.corrections"))
    finally:
        scenario.write("UPDATE platform_pricing SET tenant_monthly_fee_chf = 30")
        scenario.write("UPDATE skill_pricing SET daily_price_chf = 0.5 WHERE skill_id = 'mail'")
