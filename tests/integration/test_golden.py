"""What other programs rely on, held byte for byte: the JSON of plan and run, the schema, the options and variables.

`UPDATE_GOLDEN=1 .venv/bin/pytest -n0 tests/integration/test_golden.py` writes the files again. A change to one of them
is a change of the contract: read its diff as such.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import click
import psycopg
import pytest
from psycopg import sql

from reconciler.cli.main import cli
from tests.simulation.portal import CLOCK
from tests.support.command import invoke
from tests.support.harness import FakeCluster
from tests.support.population import objects, population, settle
from tests.support.schema import catalog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.fake_api import FakeApi

GOLDEN = Path(__file__).parent / "golden"
SAMPLE = files("reconciler") / "demo" / "tenants.yaml"
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
RUN_ID = re.compile(r'(?<="run_id": ")[0-9a-f-]{36}(?=")')

SAMPLE_LOST = """
DELETE FROM reconciler.corrections;
DELETE FROM tenant_skill_events WHERE id % 3 = 0;
UPDATE tenant_billing_lifecycle SET zitadel_org_id = 'unknown' WHERE tenant_name = 'arzt-lindenhof';
INSERT INTO tenant_billing_lifecycle VALUES ('gone-garage', '287100000000000099', '2026-04-01T08:00:00Z');
INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at)
VALUES ('gone-garage', '287100000000000099', 'nextcloud-files', 'enabled', '2026-04-02T08:00:00Z');
"""

# of the tenants in their order, each in its own way
POPULATION_LOST = """
DELETE FROM reconciler.corrections;
CREATE TEMPORARY TABLE numbered AS
  SELECT tenant_name, zitadel_org_id, created_at,
         row_number() OVER (ORDER BY tenant_name COLLATE "C") % 13 AS kind
  FROM tenant_billing_lifecycle;
DELETE FROM tenant_billing_lifecycle l USING numbered n WHERE n.tenant_name = l.tenant_name AND n.kind = 0;
DELETE FROM tenant_skill_events e USING numbered n WHERE n.tenant_name = e.tenant_name AND n.kind IN (0, 1);
DELETE FROM tenant_suspension_events e USING numbered n WHERE n.tenant_name = e.tenant_name AND n.kind IN (0, 2, 3, 7);
INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at)
  SELECT tenant_name, zitadel_org_id, 'fax', 'enabled', created_at + interval '30 hours' FROM numbered WHERE kind = 4
  ORDER BY tenant_name COLLATE "C";
INSERT INTO tenant_suspension_events (tenant_name, zitadel_org_id, event_kind, occurred_at)
  SELECT tenant_name, zitadel_org_id, 'suspended', created_at + interval '3 days' FROM numbered WHERE kind = 5
  ORDER BY tenant_name COLLATE "C";
INSERT INTO tenant_suspension_events (tenant_name, zitadel_org_id, event_kind, occurred_at)
  SELECT tenant_name, zitadel_org_id, 'resumed', created_at + interval '9 days' FROM numbered WHERE kind = 6
  ORDER BY tenant_name COLLATE "C";
UPDATE tenant_billing_lifecycle l SET deleted_at = CASE WHEN n.tenant_name < 'k' THEN '2026-06-01T00:00:00Z'
                                                        ELSE l.created_at - interval '1 day' END
  FROM numbered n WHERE n.tenant_name = l.tenant_name AND n.kind = 8;
UPDATE tenant_billing_lifecycle l SET zitadel_org_id = CASE WHEN n.tenant_name < 'k' THEN 'unknown' ELSE '999' END
  FROM numbered n WHERE n.tenant_name = l.tenant_name AND n.kind = 9;
UPDATE tenant_skill_events e SET occurred_at = '2026-07-01T00:00:00Z'
  FROM numbered n WHERE n.tenant_name = e.tenant_name AND n.kind = 10;
UPDATE tenant_billing_lifecycle l SET deleted_at = NULL
  FROM numbered n WHERE n.tenant_name = l.tenant_name AND l.deleted_at IS NOT NULL AND n.kind NOT IN (8);
INSERT INTO tenant_billing_lifecycle
  SELECT 'gone-' || number, '2871', timestamptz '2026-01-05T10:00:00Z' + number * interval '31 hours'
  FROM generate_series(1, 6) AS number;
INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at)
  SELECT 'gone-' || number, '2871', 'mail', 'enabled', timestamptz '2026-01-08T10:00:00Z' + number * interval '31 hours'
  FROM generate_series(1, 6) AS number;
UPDATE tenant_billing_lifecycle SET deleted_at = '2026-05-20T06:00:00Z' WHERE tenant_name IN ('gone-1', 'gone-2');
INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at)
  VALUES ('nobody', '2871', 'mail', 'enabled', '2026-05-01T10:00:00Z'),
         ('gone-3', '2871', 'voice', 'enabled', 'infinity');
INSERT INTO invoices (invoice_number, zitadel_org_id, period_start, period_end, due_at, subtotal_chf, vat_rate,
                      vat_amount_chf, total_chf, billing_snapshot, payment_method)
  VALUES ('2026-0001', '2871', '2026-01-01', '2026-01-31', '2026-02-28', 1, 8.1, 0, 1, '{}', 'invoice');
INSERT INTO reconciler.exceptions (tenant_name, reason, note, created_by, expires_at)
  VALUES ('nobody', 'events_without_tenant', 'known', 'test', '2026-12-31T00:00:00Z');
"""

PRICES = """
UPDATE platform_pricing SET tenant_monthly_fee_chf = 49;
INSERT INTO skill_pricing (skill_id, daily_price_chf)
VALUES ('mail', 1.20), ('voice', 0.33333), ('fax', 0.80), ('nextcloud-files', 0.80), ('threema', 0.25);
"""


def held(name: str, text: str) -> None:
    """Compare with the file of that name, or write it where that is asked for."""
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.fixture
def standing_ledger(postgres_url: str, template: str) -> Iterator[psycopg.Connection[Any]]:
    """A priced ledger in which it is always `NOW`."""
    name = f"golden_{uuid4().hex}"
    with closing(psycopg.connect(postgres_url, autocommit=True)) as server:
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*map(sql.Identifier, (name, template))))
        url = urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
        with closing(psycopg.connect(url, autocommit=True)) as ledger:
            ledger.execute(CLOCK.encode())
            ledger.execute("UPDATE sim.clock SET at = %s", [NOW])
            ledger.execute(PRICES.encode())
            yield ledger
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def reconciled(
    standing_ledger: psycopg.Connection[Any],
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., str]:
    """Runs a command over a file of tenants, and returns its JSON without the one thing that is random."""
    url = urlsplit(postgres_url)._replace(path=f"/{standing_ledger.info.dbname}").geturl()

    def command(verb: str, path: Path) -> str:
        options = ["--tenants", str(path), "--output", "json", "--limit-percent", "100"]
        done = invoke(monkeypatch, capsys, verb, *options, environment={"DATABASE_URL": url})
        assert done.code == 0, done.err
        return RUN_ID.sub("…", done.out)

    return command


def test_the_json_over_the_sample_is_unchanged(
    reconciled: Callable[..., str], standing_ledger: psycopg.Connection[Any]
) -> None:
    path = Path(str(SAMPLE))
    held("sample-backfill.json", reconciled("run", path))
    standing_ledger.execute(SAMPLE_LOST.encode())
    held("sample-plan.json", reconciled("plan", path))
    held("sample-run.json", reconciled("run", path))
    held("sample-again.json", reconciled("run", path))


def by_line(text: str) -> str:
    """Return the same document with a line for each finding: the sample's files hold its form."""
    document = json.loads(text)
    findings = document.pop("findings")
    return "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in (document, *findings))


def test_the_json_over_two_hundred_tenants_is_unchanged(
    reconciled: Callable[..., str], standing_ledger: psycopg.Connection[Any], api: FakeApi, tmp_path: Path
) -> None:
    cluster = FakeCluster(api, tmp_path)
    settle(cluster, population(), first=NOW - timedelta(days=400))
    path = tmp_path / "tenants.json"
    path.write_text(json.dumps({"kind": "List", "items": [*objects(cluster).values()]}), encoding="utf-8")

    held("population-backfill.jsonl", by_line(reconciled("run", path)))
    standing_ledger.execute(POPULATION_LOST.encode())
    held("population-plan.jsonl", by_line(reconciled("plan", path)))
    held("population-run.jsonl", by_line(reconciled("run", path)))
    held("population-again.jsonl", by_line(reconciled("run", path)))


def test_the_schema_is_unchanged(ledger: psycopg.Connection[Any]) -> None:
    held("schema.txt", "".join(f"{line}\n" for line in catalog(ledger)))


def test_every_option_and_variable_is_unchanged() -> None:
    lines = [
        " ".join(
            [
                name,
                "/".join([*parameter.opts, *parameter.secondary_opts]),
                f"variable={parameter.envvar}",
                f"default={parameter.default!r}" if isinstance(parameter.default, (str, bool, int, float)) else "",
                "required" * parameter.required,
                "multiple" * bool(getattr(parameter, "multiple", False)),
                "flag" * bool(getattr(parameter, "is_flag", False)),
                "|".join(getattr(parameter.type, "choices", ())),
            ]
        )
        for name, command in sorted(cli.commands.items())
        for parameter in command.params
        if isinstance(parameter, (click.Option, click.Argument))
    ]
    held("options.txt", "".join(f"{' '.join(line.split())}\n" for line in lines))
