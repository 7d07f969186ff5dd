"""Rules, dashboard and pushes match the exported metrics, and work with the real Prometheus and Pushgateway."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from base64 import b64decode
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import combinations, count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import urllib3
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from reconciler.alerts import Undelivered
from reconciler.alerts.pushgateway import Pushgateway
from reconciler.core.model import Action, Finding, Mode, Outcome, Result, Total
from reconciler.core.reasons import CORRECTING, Reason
from reconciler.metrics import RunMetrics
from tests.integration.test_metrics import FULL, LABELS, PERIOD, Series, make_finding, make_outcome, read, scrape
from tests.support.pages import section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
RULES = ROOT / "monitoring" / "rules.yaml"
RULES_TEST = ROOT / "tests" / "monitoring" / "rules_test.yaml"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "monitoring" / "dashboard.json").read_text(encoding="utf-8"))

(GROUP,) = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in GROUP["rules"]}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [(panel, target) for panel in PANELS for target in panel["targets"]]
QUERIES = [rule["expr"] for rule in ALERTS.values()] + [target["expr"] for _, target in TARGETS]

TARGET_LABELS = {"job", "instance", "pod"}
"""Labels that Prometheus adds to what it scrapes."""
VALUES: dict[str, set[str]] = {
    "outcome": {*Result},
    "reason": {*Reason},
    "action": {*Action},
    "sign": {"positive", "negative"},
    "job": {"$job"},
}
"""The values that a query may select for a label."""

BCRYPT_OF_HUNTER2 = "$2b$04$Od50XXcyzzZnD5vKJ5IQQePx462Y2hrFoBc6wNcctYMHAhlIIMTQa"

PATIENCE = 30.0
"""Seconds within which everything that a test waits for must happen, on a busy machine."""


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip the test if one of the programs is not installed."""
    missing = [program for program in programs if not shutil.which(program)]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


each_alert = pytest.mark.parametrize("alert", ALERTS)
each_query = pytest.mark.parametrize("query", QUERIES)
each_panel = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
each_target = pytest.mark.parametrize(
    ("panel", "target"), TARGETS, ids=[f"{panel['title']}-{target['refId']}" for panel, target in TARGETS]
)


# --- rules and dashboard match the exported metrics: no program is needed ----------------------------------------


@each_query
def test_a_query_names_only_exported_metrics(query: str) -> None:
    named = set(re.findall(r"\breconciler_\w+", query))
    assert named
    assert named <= LABELS.keys()


@each_query
def test_a_query_selects_only_by_existing_labels(query: str) -> None:
    for name, selector in re.findall(r"\b(reconciler_\w+)\{([^}]*)\}", query):
        matchers = re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', selector)
        assert matchers
        assert {label for label, _ in matchers} <= LABELS[name] | TARGET_LABELS
        for label, value in matchers:
            assert set(value.split("|")) <= VALUES[label]


@each_query
def test_a_query_groups_only_by_existing_labels(query: str) -> None:
    known = {label for name in re.findall(r"\breconciler_\w+", query) for label in LABELS[name]}
    for labels in re.findall(r"\b(?:by|without) \(([^)]*)\)", query):
        assert {label.strip() for label in labels.split(",")} <= known | TARGET_LABELS


@each_alert
def test_an_alert_has_severity_summary_description_and_runbook(alert: str) -> None:
    rule = ALERTS[alert]
    assert re.fullmatch(r"Reconciler[A-Z][A-Za-z]+", alert)
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"].startswith("docs/runbook.md#")
    assert all(rule["annotations"].values())


@each_alert
def test_an_alert_survives_the_restart_of_a_process(alert: str) -> None:
    """An alert whose query does not look back keeps firing for as long as a first run takes."""
    rule = ALERTS[alert]
    looks_back = re.search(r"\[\w+\]", rule["expr"])
    assert looks_back or rule.get("keep_firing_for")


@each_alert
def test_an_alert_is_the_same_for_every_pod(alert: str) -> None:
    expression = ALERTS[alert]["expr"]
    for metric in re.finditer(r"\breconciler_\w+", expression):
        opened: list[str] = []
        for at, character in enumerate(expression[: metric.start()]):
            if character == "(":
                opened.append(expression[:at].rstrip())
            elif character == ")":
                opened.pop()
        # an absent metric has no labels
        around = [
            before for before in opened if re.search(r"without \(instance, pod[^)]*\)$|absent_over_time$", before)
        ]
        assert around, metric


@each_alert
def test_an_alert_has_the_labels_that_its_text_uses(alert: str) -> None:
    rule = ALERTS[alert]
    names = re.findall(r"\breconciler_\w+", rule["expr"])
    kept = {label for name in names for label in LABELS[name]} - {
        label.strip() for labels in re.findall(r"without \(([^)]*)\)", rule["expr"]) for label in labels.split(",")
    }
    assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["description"])) <= kept


def test_the_docs_list_the_alerts() -> None:
    listed = section("docs/operations.md", "Prometheus rules")
    rows = re.findall(r"^\| `(Reconciler\w+)` \| (\w+) \|", listed, flags=re.MULTILINE)
    assert dict(rows) == {name: rule["labels"]["severity"] for name, rule in ALERTS.items()}


def test_the_dashboard_has_no_data_source_of_its_own() -> None:
    """It takes one from a variable, so that it can be loaded anywhere."""

    def sources(node: Any) -> Iterator[Any]:
        if isinstance(node, dict):
            yield from [node["datasource"]] if "datasource" in node else []
            node = list(node.values())
        if isinstance(node, list):
            for child in node:
                yield from sources(child)

    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources(DASHBOARD))
    assert len(list(sources(DASHBOARD))) > len(TARGETS)
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    named = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert named == variables.keys()


def test_the_dashboard_is_for_grafana_10_and_later() -> None:
    """38 is Grafana 10's version; later ones migrate it themselves."""
    assert DASHBOARD["schemaVersion"] == 38
    assert DASHBOARD["timezone"] == "utc", "billing days are UTC days"


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


@each_panel
def test_a_panel_has_a_title_and_a_description(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert [target["refId"] for target in panel["targets"]] == list("ABC")[: len(panel["targets"])]


# --- promtool ----------------------------------------------------------------------------------------------------


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)


@needs("promtool")
def test_promtool_accepts_the_rules() -> None:
    checked = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert checked.returncode == 0, checked.stderr
    assert f"{len(ALERTS)} rules found" in checked.stdout


@needs("promtool")
def test_each_alert_fires_exactly_when_it_should() -> None:
    tested = promtool("test", "rules", RULES_TEST)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@each_alert
def test_an_alert_is_tested_firing_and_silent(alert: str) -> None:
    tests = [test for group in yaml.safe_load(RULES_TEST.read_text())["tests"] for test in group["alert_rule_test"]]
    fires = {bool(test.get("exp_alerts")) for test in tests if test["alertname"] == alert}
    assert fires == {True, False}


# --- a fake Pushgateway ------------------------------------------------------------------------------------------


@dataclass
class FakeGateway:
    """A server that keeps what is pushed to it and answers as configured."""

    port: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    silent: threading.Event = field(default_factory=threading.Event)
    """If set, it never answers."""
    requests: list[tuple[str, str, dict[str, str], str]] = field(default_factory=list)


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    fake, over = FakeGateway(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            super().handle_one_request()
            self.close_connection = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            fake.requests.append((self.command, self.path, dict(self.headers), body))
            if fake.silent.is_set():
                over.wait(PATIENCE)
                return
            self.send_response(fake.status)
            for name, value in fake.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield fake
        over.set()
        server.shutdown()
        thread.join()


def make_sink(url: str, **fields: Any) -> Pushgateway:
    return replace(Pushgateway(url=url, period=PERIOD, now=time.time), **fields)


def undelivered(to: Pushgateway, outcome: Outcome = FULL) -> str:
    """Return why the push failed, which must not take longer than the timeout."""
    began = time.monotonic()
    with pytest.raises(Undelivered) as failed:
        to.notify(outcome)
    assert time.monotonic() - began < to.timeout + 1
    return str(failed.value)


def test_a_push_posts_to_the_group_of_the_job(gateway: FakeGateway) -> None:
    """POST and not PUT, which would erase the last success."""
    make_sink(f"http://127.0.0.1:{gateway.port}/").notify(FULL)
    ((method, path, _, _),) = gateway.requests
    assert (method, path) == ("POST", "/metrics/job/reconciler")


def test_another_job_has_another_group(gateway: FakeGateway) -> None:
    make_sink(f"http://127.0.0.1:{gateway.port}/behind/a/proxy", job="billing").notify(FULL)
    assert gateway.requests[0][1] == "/behind/a/proxy/metrics/job/billing"


def test_an_address_may_lack_a_scheme(gateway: FakeGateway) -> None:
    make_sink(f"127.0.0.1:{gateway.port}").notify(FULL)
    assert len(gateway.requests) == 1


def test_a_push_has_what_the_run_updates(gateway: FakeGateway) -> None:
    """Undelivered messages are not pushed: the next process would begin at 0 again."""
    now = 1_750_000_000.0
    make_sink(f"http://127.0.0.1:{gateway.port}", now=lambda: now).notify(FULL)
    alone = RunMetrics(period=PERIOD)
    alone.record(FULL, now)
    assert read(gateway.requests[0][3]) == scrape(alone)
    assert "reconciler_alerts_undelivered_total" not in gateway.requests[0][3]


@pytest.mark.parametrize("result", [Result.BLOCKED, Result.FAILED])
def test_a_stopped_run_pushes_nothing_about_the_ledger(gateway: FakeGateway, result: Result) -> None:
    make_sink(f"http://127.0.0.1:{gateway.port}").notify(make_outcome(result, *FULL.findings))
    pushed = {series.name for series in read(gateway.requests[0][3])}
    assert pushed == {name for name in LABELS if re.search("last_run|build|period", name)}


def test_a_plan_is_not_pushed(gateway: FakeGateway) -> None:
    make_sink(f"http://127.0.0.1:{gateway.port}").notify(replace(FULL, mode=Mode.PLAN))
    assert gateway.requests == []


def test_it_gets_every_run() -> None:
    """Clean runs too, because they update the last success."""
    assert make_sink("http://127.0.0.1:1").deduplicates
    assert make_sink("http://127.0.0.1:1").name == "pushgateway"


def test_user_name_and_password_are_sent_but_not_shown(gateway: FakeGateway) -> None:
    to = make_sink(f"http://me:{quote('pa/ss:wörd@', safe='')}@127.0.0.1:{gateway.port}")
    to.notify(FULL)
    ((_, path, headers, _),) = gateway.requests
    assert b64decode(headers["Authorization"].removeprefix("Basic ")).decode() == "me:pa/ss:wörd@"
    assert "me:" not in path + headers["Host"] + repr(to)


def test_libraries_get_the_address_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they do not have, their errors and logs cannot show."""
    seen: list[str] = []
    monkeypatch.setattr("reconciler.alerts.pushgateway.pushadd_to_gateway", lambda url, **_: seen.append(url))
    make_sink("http://me:hunter2@pushgateway:9091").notify(FULL)
    assert seen == ["http://pushgateway:9091"]


def test_without_a_user_name_no_authorization_is_sent(gateway: FakeGateway) -> None:
    make_sink(f"http://127.0.0.1:{gateway.port}").notify(FULL)
    assert "Authorization" not in gateway.requests[0][2]


@pytest.mark.parametrize("status", [400, 401, 404, 500, 503])
def test_metrics_that_are_not_accepted_are_undelivered(gateway: FakeGateway, status: int) -> None:
    gateway.status = status
    assert f"answered {status}" in undelivered(make_sink(f"http://me:hunter2@127.0.0.1:{gateway.port}"))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(gateway: FakeGateway, status: int) -> None:
    """The push would become a GET without metrics, and the password would be sent elsewhere."""
    gateway.status, gateway.headers = status, {"Location": f"http://127.0.0.1:{gateway.port}/elsewhere"}
    assert f"answered {status}" in undelivered(make_sink(f"http://me:hunter2@127.0.0.1:{gateway.port}"))
    assert len(gateway.requests) == 1


def test_a_gateway_that_does_not_answer_is_given_up_in_time(gateway: FakeGateway) -> None:
    gateway.silent.set()
    why = undelivered(make_sink(f"http://127.0.0.1:{gateway.port}", timeout=0.3))
    assert why == "The Pushgateway was not reached: no answer in time."


def test_an_unreachable_gateway_is_reported_as_such() -> None:
    why = undelivered(make_sink(f"http://127.0.0.1:{free_port()}"))
    assert why == "The Pushgateway was not reached: Connection refused."


@given(st.text(max_size=12))
@settings(deadline=None)
def test_no_message_contains_the_password(more: str) -> None:
    """Not even if it is not encoded and parts of it are parsed as a host, a port or a path."""
    to = make_sink(f"http://127.0.0.1:hunter2{more}@127.0.0.1:1", timeout=0.5)
    assert "hunter" not in undelivered(to) + repr(to)


# --- the real Pushgateway ----------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def get(url: str, **parameters: Any) -> bytes:
    """Return the body of a response; 401 counts as a response."""
    with urllib3.PoolManager() as pool:
        answer = pool.request("GET", url, fields=parameters, timeout=5, retries=False)
    assert answer.status in {200, 401}, answer.data
    return answer.data


def eventually(check: Callable[[], Any]) -> Any:
    """Return the first result of the check that is not empty; it must come within `PATIENCE`."""
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            said = check()
        except (urllib3.exceptions.HTTPError, AssertionError):
            said = None
        if said is not None and said != []:
            return said
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.1)


def settled(check: Callable[[], Any], wanted: object) -> object:
    """Return the result of the check once it is the wanted one, or the last result after `PATIENCE`."""
    ends = time.monotonic() + PATIENCE
    while (said := check()) != wanted and time.monotonic() < ends:
        time.sleep(0.1)
    return said


@contextmanager
def running(ready: str, *command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: get(ready))
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE)


@contextmanager
def pushgateway(*options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a Pushgateway that stores nothing on disk."""
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus-pushgateway", f"--web.listen-address={address}", "--persistence.file=", *options]
    with running(f"http://{address}/-/ready", *command) as process:
        yield f"http://{address}", process


def group(url: str, job: str = "reconciler") -> dict[Series, float]:
    """Return a job's metrics in a Pushgateway, without the labels and metrics that the Pushgateway adds."""
    return {
        Series(series.name, tuple(pair for pair in series.labels if pair[0] not in TARGET_LABELS)): value
        for series, value in read(get(f"{url}/metrics").decode()).items()
        if ("job", job) in series.labels and not series.name.startswith("push_")
    }


@needs("prometheus-pushgateway")
def test_a_failed_run_keeps_the_last_success_in_a_pushgateway() -> None:
    with pushgateway() as (url, _):
        make_sink(url, now=lambda: 1000.0).notify(FULL)
        make_sink(url, now=lambda: 2000.0).notify(make_outcome(Result.FAILED))
        kept = group(url)
    assert kept[Series("reconciler_last_success_timestamp_seconds")] == 1000
    assert kept[Series("reconciler_last_run_timestamp_seconds")] == 2000
    assert kept[Series("reconciler_last_run_outcome", (("outcome", "failed"),))] == 1


_outcomes = st.builds(
    lambda result, findings, totals, tenants: make_outcome(result, *findings, totals=totals, tenants_observed=tenants),
    st.sampled_from(Result),
    st.lists(st.builds(make_finding, st.sampled_from(Reason))),
    st.dictionaries(st.sampled_from(sorted(CORRECTING)), st.builds(Total, st.integers(0, 9), st.just(0), st.just(0))),
    st.integers(0, 9),
)


@needs("prometheus-pushgateway")
def test_pushed_and_scraped_metrics_are_the_same() -> None:
    """After any runs: one process that goes on shows the same as several that have ended."""
    jobs = count()

    @given(st.lists(_outcomes, min_size=1, max_size=5))
    @settings(max_examples=25, deadline=None)
    def check(outcomes: list[Outcome]) -> None:
        job, metrics = f"reconciler-{next(jobs)}", RunMetrics(period=PERIOD)
        for ended_at, each in enumerate(outcomes):
            metrics.record(each, ended_at)
            make_sink(url, job=job, now=partial(float, ended_at)).notify(each)
        assert group(url, job) == scrape(metrics)

    with pushgateway() as (url, _):
        check()


@needs("prometheus-pushgateway")
def test_a_killed_pushgateway_is_undelivered_in_time() -> None:
    with pushgateway() as (url, process):
        make_sink(url).notify(FULL)
        process.kill()
        process.wait(PATIENCE)
        assert "Connection refused" in undelivered(make_sink(url))


@needs("prometheus-pushgateway")
def test_a_stopped_pushgateway_is_undelivered_in_time() -> None:
    with pushgateway() as (url, process):
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        assert "no answer in time" in undelivered(make_sink(url, timeout=0.5))


@needs("prometheus-pushgateway")
def test_metrics_that_a_pushgateway_calls_inconsistent_are_undelivered() -> None:
    with pushgateway() as (url, _):
        with urllib3.PoolManager() as pool:
            other = "# TYPE reconciler_findings counter\nreconciler_findings 1\n"
            assert pool.request("POST", f"{url}/metrics/job/other", body=other).status == HTTPStatus.OK
        assert "answered 400" in undelivered(make_sink(url))


@needs("prometheus-pushgateway")
def test_a_pushgateway_that_needs_a_password_gets_it(tmp_path: Path) -> None:
    users = tmp_path / "web.yaml"
    users.write_text(yaml.safe_dump({"basic_auth_users": {"me": BCRYPT_OF_HUNTER2}}))
    with pushgateway(f"--web.config.file={users}") as (url, _):
        address = urlsplit(url).netloc
        make_sink(f"http://me:hunter2@{address}").notify(FULL)
        assert "answered 401" in undelivered(make_sink(f"http://me:hunter3@{address}"))


# --- the real Prometheus -----------------------------------------------------------------------------------------

HISTORY = timedelta(hours=50)
"""How far back the data in Prometheus goes: more than two whole days."""
STEP = 600
"""Seconds between the runs of the history."""
DAY = 86_400
SCRAPED = "reconciler"
"""The job of the process that is scraped; the others push."""


@dataclass
class Watched:
    """A Prometheus that scrapes a process and a Pushgateway, and has a history."""

    url: str
    metrics: RunMetrics
    began: int
    """When its history begins, in seconds since the epoch."""

    def ask(self, path: str, **parameters: Any) -> Any:
        """Return the data of a request to its HTTP API."""
        answer = json.loads(get(f"{self.url}/api/v1/{path}", **parameters))
        assert answer["status"] == "success"
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the current result of a query."""
        result: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return result

    def alerts(self, rules: str) -> set[tuple[str, str, str]]:
        """Return name, state and job of the alerts of a group of rules."""
        return {
            (alert["labels"]["alertname"], alert["state"], alert["labels"].get("job", ""))
            for rules_group in self.ask("rules", type="alert")["groups"]
            if rules_group["name"] == rules
            for rule in rules_group["rules"]
            for alert in rule["alerts"]
        }


def corrected(at: int, began: int) -> int:
    """Return how many corrections the history has by a time: a little more each hour."""
    return ((at - began) // STEP) ** 2 // 100


def history(began: int, ends: int) -> str:
    """Return two days of runs as OpenMetrics: one process, with undelivered messages in the last half hour."""
    families: dict[tuple[str, str], list[str]] = defaultdict(list)
    metrics = RunMetrics(period=PERIOD, sinks=["alertmanager"])
    for at in range(began, ends, STEP):
        total = Total(corrected(at, began), Decimal(corrected(at, began)) * 2, -Decimal(corrected(at, began)))
        outcome = make_verified_outcome(Result.CORRECTED, *FULL.findings, at=at)
        metrics.record(replace(outcome, totals={Reason.DELETION_UNRECORDED: total}), at)
        if at > ends - 1800:
            metrics.undelivered("alertmanager")
        for family in metrics.collect():
            for name, labels, value, *_ in family.samples:
                pairs = ",".join(f'{label}="{is_}"' for label, is_ in ({"job": SCRAPED} | labels).items())
                families[family.name, family.type].append(f"{name}{{{pairs}}} {value} {at}\n")
    return "".join(f"# TYPE {name} {kind}\n{''.join(lines)}" for (name, kind), lines in families.items()) + "# EOF\n"


def make_verified_outcome(result: Result, *findings: Finding, at: float) -> Outcome:
    """Return the outcome of a run that has verified the ledger up to a time, if it succeeded."""
    verified = {"verified_until": datetime.fromtimestamp(at, UTC)} if make_outcome(result).failure is None else {}
    return make_outcome(result, *findings, **verified)


def push(url: str) -> None:
    """Push what makes each alert fire, except those about counters, each under its own job."""
    now = time.time()
    for job in ("true", "blocked", "failed"):
        make_sink(url, job=job).notify(make_verified_outcome(Result.CLEAN, at=now))
    make_sink(url, job="blocked").notify(make_verified_outcome(Result.BLOCKED, at=now))
    make_sink(url, job="failed").notify(make_verified_outcome(Result.FAILED, at=now))
    unreadable = [make_finding(Reason.TENANT_UNREADABLE, tenant=name) for name in ("acme", "beta")]
    make_sink(url, job="reports").notify(
        make_verified_outcome(Result.DRIFT, *unreadable, make_finding(Reason.ORG_MOVED), at=now)
    )
    long_ago = now - 10 * 3600
    make_sink(url, job="late", now=lambda: long_ago).notify(make_verified_outcome(Result.CLEAN, at=long_ago))


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log nothing."""


@contextmanager
def scraped(metrics: RunMetrics) -> Iterator[str]:
    """Serve the metrics over HTTP and yield the address."""
    registry = CollectorRegistry()
    registry.register(metrics)
    with make_server("127.0.0.1", 0, make_wsgi_app(registry), ThreadingWSGIServer, Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Run Prometheus with the rules as they are, and with a copy that has no `for`."""
    folder = tmp_path_factory.mktemp("prometheus")
    # the history ends before the scraping begins
    ends = int(time.time()) - 30
    began = (ends - int(HISTORY.total_seconds())) // STEP * STEP
    (folder / "history").write_text(history(began, ends))
    promtool(
        "tsdb", "create-blocks-from", "openmetrics", "--quiet", folder / "history", folder / "data"
    ).check_returncode()
    at_once = [{name: value for name, value in rule.items() if name != "for"} for rule in GROUP["rules"]]
    copy = {"groups": [{"name": "at once", "rules": at_once}]}
    (folder / "at_once.yaml").write_text(yaml.safe_dump(copy))
    metrics = RunMetrics(period=PERIOD, sinks=["alertmanager"])
    metrics.record(make_verified_outcome(Result.CORRECTED, *FULL.findings, at=time.time()), time.time())
    with scraped(metrics) as target, pushgateway() as (gateway_url, _):
        push(gateway_url)
        pushed = {"job_name": "pushgateway", "honor_labels": True}
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES), str(folder / "at_once.yaml")],
            "scrape_configs": [
                {"job_name": SCRAPED, "static_configs": [{"targets": [target]}]},
                pushed | {"static_configs": [{"targets": [urlsplit(gateway_url).netloc]}]},
            ],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        address = f"127.0.0.1:{free_port()}"
        with running(
            f"http://{address}/-/ready",
            "prometheus",
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
        ):
            watched = Watched(f"http://{address}", metrics, began)
            eventually(lambda: watched.query('up{job="reconciler"} == 1'))
            eventually(lambda: watched.query('reconciler_period_seconds{job="late"}'))
            yield watched


real = needs("prometheus", "promtool", "prometheus-pushgateway")


@real
def test_prometheus_scrapes_every_metric_with_its_type(watched: Watched) -> None:
    types = {
        name: {"build_info": "info"}.get(name.partition("_")[2], "counter" if name.endswith("_total") else "gauge")
        for name in LABELS
    }
    known = watched.ask("targets/metadata", match_target=f'{{job="{SCRAPED}"}}')
    # OpenMetrics names a family without the suffix of its samples
    assert {entry["metric"]: entry["type"] for entry in known if entry["metric"].startswith("reconciler")} == {
        re.sub("_(total|info)$", "", name): kind for name, kind in types.items()
    }
    assert all(entry["help"] for entry in known)


@real
def test_prometheus_sees_a_run_as_soon_as_it_ends(watched: Watched) -> None:
    seen = make_verified_outcome(Result.CORRECTED, *FULL.findings, at=time.time())
    watched.metrics.record(replace(seen, tenants_observed=4711), time.time())
    eventually(lambda: watched.query(f'reconciler_tenants_observed{{job="{SCRAPED}"}} == 4711'))


@real
def test_pushed_metrics_keep_their_job_and_have_no_instance(watched: Watched) -> None:
    (series,) = watched.query('reconciler_last_success_timestamp_seconds{job="true"}')
    assert series["metric"] == {"__name__": "reconciler_last_success_timestamp_seconds", "job": "true"}


@real
def test_prometheus_loads_the_rules(watched: Watched) -> None:
    (loaded,) = [rules for rules in watched.ask("rules")["groups"] if rules["file"] == str(RULES)]
    assert [rule["name"] for rule in loaded["rules"]] == list(ALERTS)
    eventually(lambda: all(rule["health"] == "ok" for rule in watched.ask("rules")["groups"][0]["rules"]) or None)


FIRES = {
    "ReconcilerNoSuccess": {"late"},
    "ReconcilerBlocked": {"blocked"},
    "ReconcilerFailing": {"failed"},
    "ReconcilerCorrectionRateHigh": {SCRAPED},
    "ReconcilerTenantsUnreadable": {"reports"},
    "ReconcilerReportsOpen": {"reports", SCRAPED},
    "ReconcilerVerifiedFallsBehind": {"late"},
    "ReconcilerAlertsUndelivered": {SCRAPED},
}


@real
@each_alert
def test_an_alert_fires_for_exactly_the_right_jobs(watched: Watched, alert: str) -> None:
    """With the copy of the rules without `for`, which would take an hour."""
    wanted = {(alert, "firing", job) for job in FIRES[alert]}
    assert settled(lambda: {each for each in watched.alerts("at once") if each[0] == alert}, wanted) == wanted


@real
def test_alerts_with_a_wait_are_pending_and_others_fire(watched: Watched) -> None:
    wanted = {(name, "pending" if "for" in rule else "firing") for name, rule in ALERTS.items()}
    assert settled(lambda: {alert[:2] for alert in watched.alerts(GROUP["name"])}, wanted) == wanted


def points(watched: Watched, panel: dict[str, Any], expression: str) -> list[dict[str, Any]]:
    """Return the data for a panel as Grafana queries it: variables replaced, steps aligned."""
    expression = expression.replace("$job", SCRAPED)
    if panel["targets"][0]["instant"]:
        return watched.query(expression)
    step = DAY if panel.get("interval") == "1d" else STEP
    now = int(time.time())
    start = watched.began // step * step
    result: list[dict[str, Any]] = watched.ask(
        "query_range", query=expression, start=start, end=now // step * step, step=step
    )["result"]
    return result


@real
@each_target
def test_a_dashboard_query_finds_data(watched: Watched, panel: dict[str, Any], target: dict[str, Any]) -> None:
    series = eventually(lambda: points(watched, panel, target["expr"]))
    values = [float(value) for each in series for _, value in each.get("values") or [each["value"]]]
    assert any(value == value for value in values)  # noqa: PLR0124 - it is not NaN
    legend = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
    assert all(set(legend) <= each["metric"].keys() for each in series)


@real
def test_a_dashboard_bar_is_the_corrections_of_that_day(watched: Watched) -> None:
    """To the row and the centime: it is not a rate, and nothing is extrapolated."""
    yesterday = int(time.time()) // DAY * DAY - DAY

    def by_then(at: int) -> int:
        return corrected(watched.began + (at - watched.began) // STEP * STEP, watched.began)

    rows = by_then(yesterday + DAY) - by_then(yesterday)
    bars = {
        (title, series["metric"].get("reason") or series["metric"]["sign"]): dict(series["values"])[yesterday]
        for title in ("Corrections per day", "CHF per day")
        for panel in PANELS
        if panel["title"] == title
        for target in panel["targets"]
        for series in points(watched, panel, target["expr"])
    }
    assert float(bars["Corrections per day", "deletion_unrecorded"]) == rows > 0
    assert float(bars["CHF per day", "positive"]) == 2 * rows
    assert float(bars["CHF per day", "negative"]) == -rows
