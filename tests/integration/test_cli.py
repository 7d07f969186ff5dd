"""The command line as people and programs see it: what it prints, where, and its exit codes."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, get_origin, get_type_hints
from urllib.parse import urlsplit

import click
import pytest
from psycopg.conninfo import make_conninfo

from reconciler import __version__
from reconciler.cli.main import cli
from reconciler.cli.options import (
    AlertSettings,
    ClusterSettings,
    OutputSettings,
    Overrides,
    SafetySettings,
    ScheduleSettings,
    options,
)
from reconciler.db.connection import connect
from tests.support import faults
from tests.support.api_state import ORG_LABEL, tenant
from tests.support.command import Ran, invoke
from tests.support.fake_api import TOKEN
from tests.support.faults import Fault
from tests.support.ledger_rows import all_rows, billing_rows, untouched
from tests.support.receivers import Receiver, status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.fake_api import FakeApi

KEYS: Final = {
    "run_id": str,
    "mode": str,
    "outcome": str,
    "observed_at": str,
    "source": str,
    "compared": str,
    "history": dict,
    "tenants_observed": int,
    "tenants_recorded": int,
    "lifecycle_inserted": int,
    "events_inserted": int,
    "suspension_events_inserted": int,
    "deletions_stamped": int,
    "orgs_resolved": int,
    "impact_chf": str,
    "findings": list,
}
"""The JSON of plan and run."""
FINDING_KEYS: Final = [
    *("reason", "tenant", "org", "subject", "action", "recorded", "observed"),
    *("occurred_at", "not_before", "not_after", "evidence", "closed_period", "impact_chf"),
]


class Place:
    """A ledger, a cluster with two tenants, a folder, and a command whose environment names them."""

    def __init__(
        self,
        url: str,
        api: FakeApi,
        folder: Path,
        run: Callable[..., Ran],
    ) -> None:
        self.url = url
        self.api = api
        self.folder = folder
        self.environment = {
            "DATABASE_URL": url,
            "RECONCILER_KUBECONFIG": str(api.kubeconfig(folder / "kubeconfig")),
            "RECONCILER_SETTLE": "0s",
            "HOME": str(folder),
        }
        self._run = run

    def __call__(self, *arguments: str, **environment: str) -> Ran:
        """Run the command."""
        return self._run(*arguments, environment=self.environment | environment)

    def file(self, text: str | bytes, name: str = "tenants.yaml") -> str:
        """Write a file, and return its path."""
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)


@pytest.fixture
def place(
    ledger_url: str,
    api: FakeApi,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Place:
    """A place where a run has something to write."""
    api.create(tenant("acme", ["mail", "threema"], org="1"))
    api.create(tenant("paused", ["mail"], org="1", suspend=True))
    return Place(ledger_url, api, tmp_path, lambda *given, **named: invoke(monkeypatch, capsys, *given, **named))


# wrong settings and a broken environment

_BAD: list[Any] = []


def _bad(
    sentence: str, code: int, says: str, remedy: str
) -> Callable[[Callable[[Place], list[str]]], Callable[[Place], list[str]]]:
    """Register a fault, and what is reported for it, as a parameter of the test below."""

    def register(arrange: Callable[[Place], list[str]]) -> Callable[[Place], list[str]]:
        _BAD.append(pytest.param(arrange, code, says, remedy, id=sentence))
        return arrange

    return register


@_bad("no DATABASE_URL", 64, "DATABASE_URL is not set", "postgresql://user:password@host:5432/dbname")
def _no_ledger(place: Place) -> list[str]:
    del place.environment["DATABASE_URL"]
    return []


@_bad("an empty DATABASE_URL", 64, "DATABASE_URL is not set", "postgresql://user:password@host:5432/dbname")
def _empty_ledger(place: Place) -> list[str]:
    place.environment["DATABASE_URL"] = ""
    return []


@_bad("a database server that refuses connections", 1, "No connection to the ledger", "Check DATABASE_URL")
def _refused(place: Place) -> list[str]:
    place.environment["DATABASE_URL"] = "postgresql://portal@127.0.0.1:1/billing"
    return []


@_bad("a database that does not exist", 1, "No connection to the ledger", "existing database")
def _no_database(place: Place) -> list[str]:
    place.environment["DATABASE_URL"] = make_conninfo(place.url, dbname="does_not_exist")
    return []


@_bad("a database without the reconciler's tables", 1, "no schema reconciler", "`reconciler migrate`")
def _not_migrated(place: Place) -> list[str]:
    with closing(connect(place.url)) as ledger:
        ledger.execute("DROP SCHEMA reconciler CASCADE")
    return []


@_bad("an API server that refuses connections", 1, "could not answer", "Check the address")
def _no_cluster(place: Place) -> list[str]:
    place.api.stop()
    return []


@_bad("a kubeconfig that does not exist", 1, "/nowhere/kubeconfig", "--kubeconfig")
def _no_kubeconfig(_: Place) -> list[str]:
    return ["--kubeconfig", "/nowhere/kubeconfig"]


@_bad("no kubeconfig", 1, "the default kubeconfig", "--tenants")
def _no_default_kubeconfig(place: Place) -> list[str]:
    del place.environment["RECONCILER_KUBECONFIG"]
    return []


@_bad("a kubeconfig that is not YAML", 1, "No usable cluster configuration", "--kubeconfig")
def _broken_kubeconfig(place: Place) -> list[str]:
    return ["--kubeconfig", place.file("{clusters: [", "broken")]


@_bad("a kubeconfig that is some other text", 1, "No usable cluster configuration", "--kubeconfig")
def _other_kubeconfig(place: Place) -> list[str]:
    return ["--kubeconfig", place.file("just some words", "words")]


@_bad("a kubeconfig that is a list", 1, "No usable cluster configuration", "--kubeconfig")
def _listed_kubeconfig(place: Place) -> list[str]:
    return ["--kubeconfig", place.file("- a\n- b\n", "list")]


@_bad("a kubeconfig that is binary", 1, "No usable cluster configuration", "--kubeconfig")
def _binary_kubeconfig(place: Place) -> list[str]:
    return ["--kubeconfig", place.file(b"\x7fELF\x80\xff\x00", "binary")]


@_bad("a kubeconfig that is empty", 1, "No usable cluster configuration", "--kubeconfig")
def _empty_kubeconfig(place: Place) -> list[str]:
    return ["--kubeconfig", place.file("", "empty")]


@_bad("a kubeconfig that is a folder", 1, "No usable cluster configuration", "--kubeconfig")
def _folder_as_kubeconfig(place: Place) -> list[str]:
    return ["--kubeconfig", str(place.folder)]


@_bad("a context that the kubeconfig does not have", 1, "production", "--context")
def _wrong_context(_: Place) -> list[str]:
    return ["--context", "production"]


@_bad("a cluster without the custom resource", 1, "no resource piecedtenants.pieced.ch", "CustomResourceDefinition")
def _no_crd(place: Place) -> list[str]:
    place.api.installed = False
    return []


@_bad("a plural that is not the custom resource's", 1, "no resource assistants.pieced.ch", "--plural")
def _other_plural(_: Place) -> list[str]:
    return ["--plural", "assistants"]


@_bad("an account that may not list the tenants", 1, "403", "ClusterRole")
def _denied(place: Place) -> list[str]:
    place.api.faults.append(Fault(faults.status(403), when=faults.lists, times=None))
    return []


@_bad("a token that has expired", 1, "401", "expired")
def _expired(place: Place) -> list[str]:
    place.api.kubeconfig(place.folder / "kubeconfig", bearer="old")
    return []


@_bad("a page of HTML instead of the list", 1, "cannot be trusted", "proxy")
def _html(place: Place) -> list[str]:
    place.api.faults.append(Fault(faults.html(), when=faults.lists, times=None))
    return []


@_bad("a list that ends before its end", 1, "could not answer", "Nothing was written")
def _cut_off(place: Place) -> list[str]:
    place.api.faults.append(Fault(faults.cut_length(), when=faults.lists, times=None))
    return []


@_bad("a file of tenants that does not exist", 1, "No such file", "--tenants")
def _no_file(_: Place) -> list[str]:
    return ["--tenants", "/nowhere/tenants.yaml"]


@_bad("a file of tenants that is not YAML", 1, "neither YAML nor JSON", "kubectl get piecedtenants")
def _not_yaml(place: Place) -> list[str]:
    return ["--tenants", place.file("items: [\n  }")]


@_bad("a file of tenants that is cut off JSON", 1, "neither YAML nor JSON", "kubectl get piecedtenants")
def _cut_json(place: Place) -> list[str]:
    return ["--tenants", place.file('{"kind": "List", "items": [{"kind"')]


@_bad("a file of tenants that is binary", 1, "neither YAML nor JSON", "kubectl get piecedtenants")
def _binary(place: Place) -> list[str]:
    return ["--tenants", place.file(b"\x7fELF\x80\xff\x00")]


@_bad("an empty file of tenants", 1, "is empty", "kubectl get piecedtenants")
def _empty(place: Place) -> list[str]:
    return ["--tenants", place.file("")]


@_bad("a file of tenants that holds only a comment", 1, "is empty", "kubectl get piecedtenants")
def _commented(place: Place) -> list[str]:
    return ["--tenants", place.file("# no tenants yet\n---\n")]


@_bad("a folder without any file of tenants", 1, "no file that ends in", "Name the folder")
def _empty_folder(place: Place) -> list[str]:
    (place.folder / "sub").mkdir()
    return ["--tenants", str(place.folder / "sub")]


@_bad("a file of something else", 1, "ConfigMap", "kubectl get piecedtenants")
def _config_map(place: Place) -> list[str]:
    return ["--tenants", place.file("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: acme}\n")]


@_bad("a file that is a bare list", 1, "not a Kubernetes object", "kubectl get piecedtenants")
def _bare_list(place: Place) -> list[str]:
    return ["--tenants", place.file("- acme\n- paused\n")]


@_bad("a List without items", 1, "no items", "cut off")
def _no_items(place: Place) -> list[str]:
    return ["--tenants", place.file("apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\n")]


@_bad("one page of a longer List", 1, "one page of a longer list", "whole list")
def _one_page(place: Place) -> list[str]:
    return ["--tenants", place.file("kind: List\nitems: []\nmetadata: {continue: abc}\n")]


@_bad("a tenant without a name", 1, "no readable name", "cut off")
def _nameless(place: Place) -> list[str]:
    return ["--tenants", place.file("apiVersion: pieced.ch/v1alpha1\nkind: PiecedTenant\nmetadata: {}\n")]


@_bad("a file that lists a tenant twice", 1, "twice", "each tenant once")
def _twice(place: Place) -> list[str]:
    document = (
        "apiVersion: pieced.ch/v1alpha1\nkind: PiecedTenant\n"
        "metadata: {name: acme, creationTimestamp: 2026-05-01T10:00:00Z}\n"
    )
    return ["--tenants", place.file(f"{document}---\n{document}")]


@pytest.mark.parametrize(("arrange", "code", "says", "remedy"), _BAD)
def test_an_error_is_reported_once_with_its_remedy_and_writes_nothing(
    place: Place, arrange: Callable[[Place], list[str]], code: int, says: str, remedy: str
) -> None:
    """In both formats; the JSON is still one document."""
    arguments = arrange(place)
    before = all_rows(place.url)

    ran = place("run", *arguments)
    as_json = place("run", "--output", "json", *arguments)

    assert (ran.code, as_json.code) == (code, code)
    assert says in ran.complaint["error"]
    assert remedy in ran.complaint["remedy"]
    assert ran.out == ""
    for printed in (ran, as_json):
        assert "Traceback" not in printed.err
        assert "exception" not in printed.complaint
    if code == 1:
        _check_shape(as_json.document)
        assert as_json.document["outcome"] == "failed"
        assert as_json.document["findings"] == []
        assert says in as_json.document["error"]["message"]
    after = all_rows(place.url)
    assert untouched(after) == untouched(before)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["run", "--limt-count", "3"], "--limit-count", id="an unknown option, with a suggestion"),
        pytest.param(["run", "-x"], "-x", id="an unknown letter"),
        pytest.param(["run", "acme"], "acme", id="an unexpected argument"),
        pytest.param(["rnu"], "rnu", id="an unknown command"),
        pytest.param(["run", "--settle"], "--settle", id="an option without its value"),
        pytest.param(["run", "--settle", "60"], "60s, 5m or 1h30m", id="a duration without a unit"),
        pytest.param(["run", "--settle", "-5s"], "not between 0s and", id="a negative duration"),
        pytest.param(["run", "--settle", ""], "60s, 5m or 1h30m", id="an empty duration"),
        pytest.param(["run", "--deadline", "9999999999h"], "--deadline", id="a duration longer than all time"),
        pytest.param(["run", "--limit-count", "-1"], "--limit-count", id="a negative limit"),
        pytest.param(["run", "--limit-count", "many"], "--limit-count", id="a limit that is not a number"),
        pytest.param(["run", "--limit-percent", "101"], "--limit-percent", id="more than everything"),
        pytest.param(["run", "--limit-percent", "nan"], "--limit-percent", id="a share that is not a number"),
        pytest.param(["run", "--allow-mass", "all"], "deletion_unrecorded", id="an unknown reason"),
        pytest.param(["run", "--uncertain", "vendor"], "'customer', 'detected'", id="an unknown policy"),
        pytest.param(["run", "--output", "yaml"], "'table', 'json'", id="an unknown format"),
        pytest.param(["run", "--page-size", "0"], "--page-size", id="empty pages"),
    ],
)
def test_wrong_usage_exits_64_and_says_what_is_right(place: Place, arguments: list[str], says: str) -> None:
    before = all_rows(place.url)

    ran = place(*arguments)

    assert ran.code == 64, ran.err
    assert ran.out == ""
    assert says in ran.err
    assert "Traceback" not in ran.err
    assert all_rows(place.url) == before
    assert not place.api.requests


def test_no_command_shows_the_help(place: Place) -> None:
    ran = place()

    assert ran.code == 64
    assert "Usage:" in ran.out + ran.err
    assert {"migrate", "plan", "run"} <= set((ran.out + ran.err).split())


@pytest.mark.parametrize(
    "url",
    [
        "billing",
        "mysql://portal:hush@127.0.0.1/billing",
        "postgresql://portal:hush%zz@127.0.0.1/billing",
        "postgresql://portal:hush@[::1/billing",
        "postgresql://portal:hush@127.0.0.1:port/billing",
        "host=127.0.0.1 password='hush",
    ],
)
def test_an_invalid_database_url_is_a_wrong_setting(place: Place, url: str) -> None:
    ran = place("run", DATABASE_URL=url)

    assert "DATABASE_URL" in ran.complaint["error"]
    assert "postgresql://user:password@host:5432/dbname" in ran.complaint["remedy"]
    assert ran.code == 64


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("postgresql://portal:hush-geheim@127.0.0.1:{port}/billing", id="a wrong one"),
        pytest.param("host=127.0.0.1 port={port} user=portal password='hush-geheim'", id="in key and value"),
        pytest.param("postgresql://portal:hush%2Dgeheim@127.0.0.1:{port}/billing", id="percent-encoded"),
        pytest.param("postgresql://127.0.0.1:{port}/billing?user=portal&password=hush-geheim", id="in the query"),
        pytest.param("postgresql://portal:hush-geheim@127.0.0.1:1/billing", id="of a server that refuses"),
        pytest.param("postgresql://portal:hush-geheim@nowhere.invalid/billing", id="of an unknown host"),
        pytest.param("postgresql://portal:hush-geheim@127.0.0.1:99999/billing", id="before an impossible port"),
        pytest.param("postgresql://portal:hush-geheim@127.0.0.1:1/billing?sslmode=never", id="before a wrong setting"),
        pytest.param("postgresql://portal:hush%geheim@127.0.0.1/billing", id="with a bare percent sign"),
        pytest.param("postgresql://portal:hush geheim@127.0.0.1/billing", id="with a space"),
        pytest.param("postgresql://portal:hush@geheim@127.0.0.1:1/billing", id="with a bare at sign"),
        pytest.param("postgresql://portal:hush/geheim@127.0.0.1:1/billing", id="with a bare slash"),
        pytest.param("postgresql://portal:hush#geheim@127.0.0.1:1/billing", id="with a bare number sign"),
        pytest.param("postgresql://portal:hush?geheim@127.0.0.1:1/billing", id="with a bare question mark"),
        pytest.param("postgresql://portal:hush:geheim@127.0.0.1:1/billing", id="with a bare colon"),
        pytest.param("portal:hush-geheim@127.0.0.1:1/billing", id="without a scheme"),
    ],
)
def test_a_password_is_never_shown(place: Place, url: str) -> None:
    """Not even part of it, whatever is wrong with the connection string or the server."""
    with _indiscreet_server() as port:
        printed = [
            place("run", "--output", output, DATABASE_URL=url.replace("{port}", str(port)))
            for output in ("table", "json")
        ]

    for ran in printed:
        assert ran.code in {1, 64}
        assert ran.complaint["remedy"]
        assert "hush" not in ran.err + ran.out
        assert "geheim" not in ran.err + ran.out


@pytest.mark.parametrize("where", ["reconciler.run.find_dated", "reconciler.sources.api_client.Api._check_status"])
def test_a_crash_is_a_failed_run_that_shows_no_secret(
    place: Place, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """It says what kind of error it was and where, and nothing of its text: that may quote the token."""

    def crash(*_: object, **__: object) -> None:
        raise RuntimeError(f"quoted: {TOKEN}")

    monkeypatch.setattr(where, crash)
    parts = urlsplit(place.url)
    user, _, host = parts.netloc.rpartition("@")
    url = parts._replace(netloc=f"{user.partition(':')[0]}:hush-geheim@{host}").geturl()
    ran = place("run", "--output", "json", "--no-events", DATABASE_URL=url)

    assert ran.code == 1
    assert (ran.document["outcome"], ran.complaint["outcome"]) == ("failed", "failed")
    assert re.search(r"RuntimeError at reconciler\.[\w.]+:\d+", ran.complaint["error"])
    assert "report it" in ran.complaint["remedy"]
    assert ran.complaint["trail"][0].startswith("reconciler.run:")
    for secret in ("quoted", "hush", TOKEN):
        assert secret not in ran.err + ran.out
    with closing(connect(place.url)) as ledger:
        rows = ledger.execute("SELECT outcome, error FROM reconciler.runs").fetchall()
    assert rows == [("failed", ran.complaint["error"])]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("migrate", id="migrate"),
        pytest.param("explain acme", id="explain"),
        pytest.param("status", id="status"),
        pytest.param("usage --month 2026-05", id="usage"),
        pytest.param("except acme org_unlabelled --until 2099-01-01 --note why", id="except"),
        pytest.param("reopen acme --note why", id="reopen"),
        pytest.param("record acme on mail --from 2026-05-10 --note why", id="record"),
        pytest.param("retract 1 --note why", id="retract"),
    ],
)
def test_a_crash_of_any_command_leaves_no_traceback(
    place: Place, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise RuntimeError(f"quoted: {TOKEN}")

    monkeypatch.setattr("reconciler.db.connection.psycopg.connect", crash)
    ran = place(*command.split())

    assert ran.code == 1
    assert "RuntimeError at reconciler.db.connection:" in ran.complaint["error"]
    assert ran.out == ""
    assert TOKEN not in ran.err


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy"])
@pytest.mark.parametrize(
    "setting",
    [
        pytest.param({"RECONCILER_HEARTBEAT_URL": "http://elsewhere.invalid/ping"}, id="heartbeat"),
        pytest.param({"RECONCILER_ALERTMANAGER": "http://elsewhere.invalid"}, id="Alertmanager"),
        pytest.param({"RECONCILER_PUSHGATEWAY": "http://elsewhere.invalid"}, id="Pushgateway"),
        pytest.param({"RECONCILER_NOTIFY_URLS": "json://elsewhere.invalid"}, id="messages"),
    ],
)
def test_alerts_go_through_the_proxy_of_the_environment(place: Place, variable: str, setting: dict[str, str]) -> None:
    with Receiver() as proxy:
        proxy.otherwise = status(200, b"[]")
        environment = {variable: f"http://me:hush-geheim@{proxy.host}", "NO_PROXY": "127.0.0.1"}
        ran = place("run", **setting, **environment)
    assert ran.code == 0
    assert "alert." not in ran.err
    assert {request.headers["host"].partition(":")[0] for request in proxy.requests} == {"elsewhere.invalid"}
    assert all(request.headers["proxy-authorization"].startswith("Basic ") for request in proxy.requests)


def test_a_proxy_that_is_not_there_is_blamed_without_its_password(place: Place) -> None:
    environment = {"HTTP_PROXY": "http://me:hush-geheim@127.0.0.1:1", "NO_PROXY": "127.0.0.1"}
    ran = place("run", RECONCILER_HEARTBEAT_URL="http://elsewhere.invalid/ping", **environment)
    assert ran.code == 0
    (undelivered, *_) = [line for line in ran.logged if line["event"] == "alert.undelivered"]
    assert undelivered["error"] == "The proxy http://127.0.0.1:1 (of HTTP_PROXY) was not reached: Connection refused."
    assert "geheim" not in ran.err


def test_an_invalid_proxy_is_a_wrong_setting_where_it_would_be_used(place: Place) -> None:
    socks = {"HTTPS_PROXY": "socks5://me:hush-geheim@127.0.0.1:1"}
    assert place("run", **socks).code == 0
    ran = place("run", RECONCILER_HEARTBEAT_URL="http://elsewhere.invalid/ping", **socks)
    assert ran.code == 64
    assert "HTTPS_PROXY is not the address of an HTTP proxy" in ran.complaint["error"]
    assert "geheim" not in ran.err


# what programs read


def test_the_json_is_one_document_with_the_documented_keys(place: Place) -> None:
    ran = place("run", "--output", "json")

    assert ran.code == 0
    _check_shape(ran.document)
    assert [list(finding) for finding in ran.document["findings"]] == [FINDING_KEYS] * 6
    assert ran.document["findings"][0] | {"impact_chf": None} == {
        "reason": "tenant_unrecorded",
        "tenant": "acme",
        "org": "1",
        "subject": None,
        "action": "insert",
        "recorded": "absent",
        "observed": "open",
        "evidence": "creation",
        "closed_period": False,
        **dict.fromkeys(("occurred_at", "not_before", "not_after"), _created_at(place)),
        "impact_chf": None,
    }
    assert {name: ran.document[name] for name in ("mode", "outcome", "tenants_observed", "tenants_recorded")} == {
        "mode": "run",
        "outcome": "corrected",
        "tenants_observed": 2,
        "tenants_recorded": 0,
    }
    assert (ran.document["lifecycle_inserted"], ran.document["events_inserted"]) == (2, 3)
    assert ran.document["suspension_events_inserted"] == 1
    assert ran.document["source"] == place.api.source_uid
    assert [line["event"] for line in ran.logged][-1] == "run.ended"
    assert {line["level"] for line in ran.logged if line["event"] != "drift.corrected"} == {"info"}
    corrected = [line["tenant"] for line in ran.logged if line["event"] == "drift.corrected"]
    assert corrected == ["acme"] * 3 + ["paused"] * 3
    assert all(re.fullmatch(r"[a-z]+\.[a-z]+", line["event"]) and line["timestamp"][-1] == "Z" for line in ran.logged)


@pytest.mark.usefixtures("lost_log")
def test_a_refused_run_prints_one_document_with_reason_and_plan(place: Place) -> None:
    place("run")
    for number in range(4):
        place.api.create(tenant(f"new-{number}", org="1"))

    ran = place("run", "--output", "json")

    assert ran.code == 3
    _check_shape(ran.document)
    assert ran.document["outcome"] == "blocked"
    assert (ran.document["lifecycle_inserted"], len(ran.document["findings"])) == (0, 4)
    assert "--allow-mass tenant_unrecorded" in ran.document["error"]["remedy"]
    allowed = place("run", "--output", "json", "--allow-mass", "tenant_unrecorded")
    assert (allowed.code, allowed.document["lifecycle_inserted"]) == (0, 4)


def test_detailed_exitcode_gives_drift_its_own_exit_code(place: Place) -> None:
    assert place("plan").code == 0
    assert place("plan", "--detailed-exitcode").code == 2
    assert place("run", "--detailed-exitcode").code == 2
    assert place("run", "--detailed-exitcode").code == 0
    place.api.patch("acme", {"metadata": {"labels": {ORG_LABEL: "2"}}})
    assert place("run").code == 0
    assert place("run", "--detailed-exitcode").code == 2
    assert place("run", RECONCILER_DETAILED_EXITCODE="true").code == 2
    place.api.reset()
    assert place("run", "--detailed-exitcode").code == 3
    assert place("run", "--detailed-exitcode", "--kubeconfig", "/nowhere").code == 1


@pytest.mark.usefixtures("lost_log")
@pytest.mark.parametrize("arguments", [["plan"], ["run", "--dry-run"]], ids=" ".join)
def test_a_plan_writes_nothing(place: Place, arguments: list[str]) -> None:
    """Neither to the ledger nor to its own tables, and it uses no id."""
    place("run")
    place.api.patch("acme", {"spec": {"packages": ["voice"], "suspend": True}})
    place.api.delete("paused")
    place.api.create(tenant("newcomer", ["mail"], org=None))
    before = all_rows(place.url), _sequences(place.url)

    ran = place(*arguments, "--output", "json")

    assert ran.code == 0
    assert (ran.document["mode"], ran.document["outcome"]) == ("plan", "drift")
    assert len(ran.document["findings"]) == 9
    assert (all_rows(place.url), _sequences(place.url)) == before
    failed = place(*arguments, "--plural", "assistants")
    assert failed.code == 1
    place.api.reset()
    assert place(*arguments).code == 3
    assert (all_rows(place.url), _sequences(place.url)) == before


def test_a_run_can_create_its_tables_first(place: Place, empty_url: str) -> None:
    empty = {"DATABASE_URL": empty_url}
    assert place("run", "--dry-run", "--migrate", **empty).code == 1
    assert all_rows(empty_url) == {}
    refused = place("run", **empty)
    assert refused.code == 1
    assert "`reconciler migrate`" in refused.complaint["remedy"]

    first = place("run", "--migrate", "--output", "json", **empty)

    assert first.code == 0, first.err
    assert first.document["events_inserted"] == 3
    assert "ledger.created" in {line["event"] for line in first.logged}
    again = place("run", "--migrate", "--output", "json", **empty)
    assert (again.code, again.document["outcome"]) == (0, "clean")
    assert "ledger.created" not in {line["event"] for line in again.logged}


def test_migrate_lists_what_it_created_and_nothing_the_second_time(place: Place, empty_url: str) -> None:
    first = place("migrate", DATABASE_URL=empty_url)

    assert first.code == 0
    created = first.out.splitlines()
    assert all(line.startswith("created ") for line in created)
    assert any("tenant_skill_events" in line for line in created)
    assert any("reconciler.runs" in line for line in created)
    again = place("migrate", DATABASE_URL=empty_url)
    assert (again.code, [line for line in again.out.splitlines() if line.startswith("created ")]) == (0, [])


# settings


def _settings() -> list[Any]:
    return [
        pytest.param(command, option, id=f"{command.name} {option.opts[0]}")
        for command in cli.commands.values()
        for option in command.params
        if isinstance(option, click.Option) and option.envvar
    ]


@pytest.mark.parametrize(("command", "option"), _settings())
def test_an_option_beats_its_variable_which_beats_the_default(
    command: click.Command, option: click.Option, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in os.environ:
        if name.startswith("RECONCILER_"):
            monkeypatch.delenv(name)
    name = option.opts[0]
    variable = f"RECONCILER_{name.removeprefix('--').replace('-', '_').upper()}"
    assert option.envvar == variable

    def value(*arguments: str) -> Any:
        demanded = [
            one.type.choices[0] if isinstance(one.type, click.Choice) else "2026-05" if one.name == "month" else "acme"
            for one in command.params
            if isinstance(one, click.Argument)
        ]
        for one in command.params:
            if isinstance(one, click.Option) and one.required:
                demanded += [one.opts[0], "2026-05-10" if one.metavar == "TIME" else "why"]
        context = command.make_context(str(command.name), [*demanded, *arguments], **cli.context_settings)
        return context.params[str(option.name)]

    default = value()
    in_the_variable, in_the_option = _two_values(option)
    monkeypatch.setenv(variable, "")
    assert value() == default
    monkeypatch.setenv(variable, in_the_variable)
    from_the_variable = value()
    assert from_the_variable != default
    if option.is_flag:
        monkeypatch.setenv(variable, "false")
        assert (value(), value(name)) == (False, True)
        assert all(value(no) is False for no in option.secondary_opts)
        return
    from_the_option = value(name, in_the_option)
    assert from_the_option != from_the_variable
    monkeypatch.delenv(variable)
    assert value(name, in_the_option) == from_the_option


@pytest.mark.parametrize(
    "group", [ClusterSettings, SafetySettings, Overrides, AlertSettings, ScheduleSettings, OutputSettings]
)
def test_every_setting_has_the_declared_type(group: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("RECONCILER_"):
            monkeypatch.delenv(name)
    command = click.command()(options(made=group)(lambda made: made))

    made = command.main([], standalone_mode=False)

    assert isinstance(made, group)
    for name, hint in get_type_hints(group).items():
        assert isinstance(getattr(made, name), get_origin(hint) if get_origin(hint) in {tuple, dict} else hint), name


def test_a_wrong_variable_is_named(place: Place) -> None:
    ran = place("run", RECONCILER_SETTLE="soon")

    assert ran.code == 64
    assert "RECONCILER_SETTLE" in ran.err


def test_help_shows_every_setting_with_its_variable(place: Place) -> None:
    for name in ("plan", "run"):
        shown = place(name, "-h")
        assert (shown.code, shown.err) == (0, "")
        options = [one for one in cli.commands[name].params if isinstance(one, click.Option)]
        for option in options:
            assert option.opts[0] in shown.out
            assert option.help
            assert option.envvar is None or f"env var: {option.envvar}" in re.sub(r"\s+", " ", shown.out)
        assert {"--tenants", "--kubeconfig", "--context", "--settle", "--uncertain", "--limit-count"} <= {
            one.opts[0] for one in options
        }
        assert {"--limit-percent", "--allow-mass", "--deadline", "--output", "--detailed-exitcode"} <= {
            one.opts[0] for one in options
        }


# what people read


@pytest.mark.usefixtures("lost_log")
def test_the_table_shows_each_difference_its_time_and_its_evidence(place: Place) -> None:
    place.api.reset()
    born = datetime.now(UTC) - timedelta(hours=2)
    place.api.create(tenant("acme", ["mail", "threema"], org="1"), at=born)
    place.api.create(tenant("paused", ["mail"], org="1", suspend=True), at=born)
    place("run")
    _put_back(place.url)
    place.api.patch("acme", {"spec": {"packages": ["mail", "voice"]}})
    place.api.delete("paused")
    place.api.create(tenant("nameless", "mail", org=None))
    with closing(connect(place.url)) as ledger:
        ledger.execute("UPDATE tenant_billing_lifecycle SET zitadel_org_id = 'unknown' WHERE tenant_name = 'acme'")

    shown = place("run")

    assert shown.code == 0
    assert "\x1b" not in shown.out
    lines = shown.out.splitlines()
    assert [line for line in lines if line != line.rstrip()] == []
    assert lines[0].split() == ["TENANT", "REASON", "SKILL", "RECORDED", "OBSERVED", "WHEN", "(UTC)", "EVIDENCE", "CHF"]
    columns = [re.split(r" {2,}|(?<=^.) ", line) for line in lines[1 : lines.index("")]]
    moment = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    between = r"between \d\d-\d\d \d\d:\d\d and \d\d-\d\d \d\d:\d\d"
    expected = [
        ["+", "acme", "skill_enable_unrecorded", "voice", "disabled", "enabled", moment, rf"field_manager, {between}"],
        [
            "+",
            "acme",
            "skill_disable_unrecorded",
            "threema",
            "enabled",
            "disabled",
            moment,
            rf"field_manager, {between}",
        ],
        ["~", "acme", "org_resolved", "-", "unknown", "1", "-", "-"],
        [
            "!",
            "nameless",
            "tenant_unreadable",
            "-",
            "absent",
            r"Expected array.*, got str - at spec\.packages",
            "-",
            "-",
        ],
        ["-", "paused", "deletion_unrecorded", "-", "open", "deleted", moment, rf"none, {between}"],
        ["+", "paused", "skill_open_after_deletion", "mail", "enabled", "disabled", moment, rf"none, {between}"],
    ]
    assert len(columns) == len(expected), shown.out
    for row, patterns in zip(columns, expected, strict=True):
        assert re.fullmatch(r"-|\+0\.00", row.pop())
        for cell, pattern in zip(row, patterns, strict=True):
            assert cell == pattern or re.fullmatch(pattern, cell), (row, patterns)
    assert lines[-1] == (
        "Wrote 3 skill events, 1 deletion, 1 organisation; 1 to look at. 2 tenants observed, 2 recorded as open."
    )


def test_a_true_ledger_is_reported_as_true(place: Place) -> None:
    place("run")

    assert place("run").out == "Nothing to write: the ledger is true. 2 tenants observed, 2 recorded as open.\n"
    assert place("plan").out == "Plan: nothing to write: the ledger is true. 2 tenants observed, 2 recorded as open.\n"


def test_control_characters_in_ids_are_made_visible(place: Place) -> None:
    skills = ["\x1b[31mred", "line\nbreak", "bell\a", "right\u202eleft", "c1\x9b2J", "tab\there", "carriage\rreturn"]
    place.api.reset()
    place.api.create(tenant("acme", skills, org="1"))

    shown = place("plan")

    assert shown.code == 0
    assert [char for char in shown.out if not char.isprintable() and char != "\n"] == []
    for visible in (
        *("\\x1b[31mred", "line\\nbreak", "bell\\x07", "right\\u202eleft", "c1\\x9b2J", "tab\\there"),
        "carriage\\rreturn",
    ):
        assert visible in shown.out
    assert [line for line in shown.out.splitlines() if line.startswith("+")][1:] == [
        line for line in shown.out.splitlines() if "skill_enable_unrecorded" in line
    ]
    assert len(shown.out.splitlines()) == 1 + 1 + len(skills) + 2
    assert json.loads(place("plan", "--output", "json").out)["findings"][1]["subject"] in skills


def test_the_longest_ids_are_printed_on_one_line(place: Place) -> None:
    place.api.reset()
    name = ".".join(["n" * 62] * 4)
    place.api.create(tenant(name, ["s" * 253], org="1"))

    shown = place("plan")

    (line,) = (line for line in shown.out.splitlines() if "skill_enable_unrecorded" in line)
    assert line.startswith("+")
    assert name in line
    assert "s" * 253 in line


# the program itself


def test_the_module_is_the_command() -> None:
    shown = _program("--version")

    assert (shown.returncode, shown.stdout.split(), shown.stderr) == (0, ["reconciler,", "version", __version__], "")


def test_help_is_not_an_error(place: Place) -> None:
    for arguments in (["-h"], ["--help"]):
        shown = place(*arguments)
        assert (shown.code, shown.err) == (0, "")
        assert "DATABASE_URL" in shown.out
        assert {str(command) for command in cli.commands} <= set(shown.out.split())


def test_piped_it_prints_plain_text_and_logs_json(place: Place) -> None:
    shown = _program("run", environment=place.environment)

    assert shown.returncode == 0, shown.stderr
    assert "\x1b" not in shown.stdout + shown.stderr
    assert [line for line in shown.stdout.splitlines() if line != line.rstrip()] == []
    assert shown.stdout.splitlines()[-1].startswith("Wrote 2 tenants, 3 skill events, 1 suspension event.")
    assert [json.loads(line)["event"] for line in shown.stderr.splitlines()][-1] == "run.ended"


def test_a_closed_pipe_neither_stops_the_run_nor_prints_a_traceback(place: Place) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "reconciler", "run"],
        env=_clean() | place.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        said = process.stderr.read()
        process.wait(timeout=60)

    assert process.returncode in {0, 1}
    assert "Traceback" not in said
    assert "command.crashed" not in said
    assert len(billing_rows(place.url).lifecycles) == 2


def _check_shape(document: Any) -> None:
    """Check the keys of plan's and run's JSON and their order; unknown values are null."""
    assert [key for key in document if key != "error"] == list(KEYS)
    for key, kind in KEYS.items():
        assert document[key] is None or isinstance(document[key], kind), key


def _two_values(option: click.Option) -> tuple[str, str]:
    """Return two values of a setting, the first of them not its default."""
    values = ("of-the-variable", "of-the-option")
    if option.is_flag:
        values = ("false", "false") if option.default is True else ("true", "true")
    match option.type:
        case click.Choice(choices=choices):
            other, *_ = (str(choice) for choice in choices if choice != option.default)
            values = other, next(str(choice) for choice in choices if choice != other)
        case click.types.FuncParamType(name="duration" | "period"):
            values = "7s", "8s"
        case click.IntRange() | click.FloatRange():
            values = "7", "8"
        case click.types.FuncParamType(name="zone"):
            values = "Europe/Zurich", "Asia/Tokyo"
        case click.types.FuncParamType(name="address"):
            values = "127.0.0.1:7", "[::1]:8"
    return values


def _created_at(place: Place) -> str:
    shown = place.api.get("acme")
    assert shown
    return str(shown["metadata"]["creationTimestamp"])


def _put_back(url: str) -> None:
    """Move the last run an hour into the past."""
    with closing(connect(url)) as ledger:
        ledger.execute(
            "UPDATE reconciler.runs SET started_at = started_at - '1 h'::interval, "
            "observed_at = observed_at - '1 h'::interval"
        )


def _sequences(url: str) -> list[Any]:
    with closing(connect(url)) as ledger:
        return ledger.execute("SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2").fetchall()


def _clean() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}


def _program(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reconciler", *arguments],
        env=_clean() | (environment or {}),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


@contextmanager
def _indiscreet_server() -> Iterator[int]:
    """Serve as a PostgreSQL that asks for the password in plain text, refuses it, and repeats it in its message."""

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                _refuse(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _refuse(connection: socket.socket) -> None:
    def message(kind: bytes, body: bytes) -> bytes:
        return kind + (len(body) + 4).to_bytes(4, "big") + body

    encryption_asked = {80877103, 80877104}
    started = connection.recv(8192)
    while len(started) == 8 and int.from_bytes(started[4:8], "big") in encryption_asked:
        connection.sendall(b"N")
        started = connection.recv(8192)
    if not started:
        return
    connection.sendall(message(b"R", (3).to_bytes(4, "big")))
    given = connection.recv(8192)[5:].rstrip(b"\0")
    said = b'password authentication failed for user "portal" with ' + given
    connection.sendall(message(b"E", b"SFATAL\0C28P01\0M" + said + b"\0\0"))
