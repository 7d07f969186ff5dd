"""Rules, dashboard and pushes, held against what is exported, and against the real Prometheus and Pushgateway."""

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
from tests.integration.test_metrics import FULL, LABELS, PERIOD, Series, found, outcome, read, shown

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

OF_THE_TARGET = {"job", "instance", "pod"}
"""Labels that Prometheus gives to what it scrapes."""
VALUES: dict[str, set[str]] = {
    "outcome": {*Result},
    "reason": {*Reason},
    "action": {*Action},
    "sign": {"positive", "negative"},
    "job": {"$job"},
}
"""What a query may ask a label to be."""

BCRYPT_OF_HUNTER2 = "$2b$04$Od50XXcyzzZnD5vKJ5IQQePx462Y2hrFoBc6wNcctYMHAhlIIMTQa"

SOON = 30.0
"""Seconds in which everything comes about that is waited for, on a busy machine."""


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where one of them is not installed."""
    missing = [program for program in programs if not shutil.which(program)]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


each_alert = pytest.mark.parametrize("alert", ALERTS)
each_query = pytest.mark.parametrize("query", QUERIES)
each_panel = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
each_target = pytest.mark.parametrize(
    ("panel", "target"), TARGETS, ids=[f"{panel['title']}-{target['refId']}" for panel, target in TARGETS]
)


# --- rules and dashboard against what is exported: no program is needed ------------------------------------------


@each_query
def test_a_query_names_only_metrics_that_are_exported(query: str) -> None:
    named = set(re.findall(r"\breconciler_\w+", query))
    assert named
    assert named <= LABELS.keys()


@each_query
def test_a_query_selects_only_by_labels_that_the_metric_has(query: str) -> None:
    for name, selector in re.findall(r"\b(reconciler_\w+)\{([^}]*)\}", query):
        matchers = re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', selector)
        assert matchers
        assert {label for label, _ in matchers} <= LABELS[name] | OF_THE_TARGET
        for label, value in matchers:
            assert set(value.split("|")) <= VALUES[label]


@each_query
def test_a_query_groups_only_by_labels_that_one_of_its_metrics_has(query: str) -> None:
    known = {label for name in re.findall(r"\breconciler_\w+", query) for label in LABELS[name]}
    for labels in re.findall(r"\b(?:by|without) \(([^)]*)\)", query):
        assert {label.strip() for label in labels.split(",")} <= known | OF_THE_TARGET


@each_alert
def test_an_alert_says_what_is_wrong_how_bad_it_is_and_where_to_read_on(alert: str) -> None:
    rule = ALERTS[alert]
    assert re.fullmatch(r"Reconciler[A-Z][A-Za-z]+", alert)
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == "README.md#runbook"
    assert all(rule["annotations"].values())


@each_alert
def test_an_alert_outlives_the_restart_of_a_process(alert: str) -> None:
    """What is asked of the present moment alone is kept for the time that a first pass takes."""
    rule = ALERTS[alert]
    looks_back = re.search(r"\[\w+\]", rule["expr"])
    assert looks_back or rule.get("keep_firing_for")


@each_alert
def test_an_alert_is_the_same_whichever_pod_it_comes_from(alert: str) -> None:
    expression = ALERTS[alert]["expr"]
    for metric in re.finditer(r"\breconciler_\w+", expression):
        opened: list[str] = []
        for at, character in enumerate(expression[: metric.start()]):
            if character == "(":
                opened.append(expression[:at].rstrip())
            elif character == ")":
                opened.pop()
        # of what is absent there are no labels
        around = [
            before for before in opened if re.search(r"without \(instance, pod[^)]*\)$|absent_over_time$", before)
        ]
        assert around, metric


@each_alert
def test_what_an_alert_says_of_its_labels_it_has(alert: str) -> None:
    rule = ALERTS[alert]
    names = re.findall(r"\breconciler_\w+", rule["expr"])
    kept = {label for name in names for label in LABELS[name]} - {
        label.strip() for labels in re.findall(r"without \(([^)]*)\)", rule["expr"]) for label in labels.split(",")
    }
    assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["description"])) <= kept


def test_the_readme_lists_the_alerts() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Metrics\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(Reconciler\w+)` \| (\w+) \|", section, flags=re.MULTILINE)
    assert dict(rows) == {name: rule["labels"]["severity"] for name, rule in ALERTS.items()}


def test_the_dashboard_has_no_data_source_of_its_own() -> None:
    """It asks for one, by a variable: it can be loaded anywhere."""

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


def test_the_dashboard_is_of_a_grafana_that_can_read_it() -> None:
    """38 is Grafana 10's; later ones bring it up to date themselves."""
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
def test_a_panel_has_a_title_and_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert [target["refId"] for target in panel["targets"]] == list("ABC")[: len(panel["targets"])]


# --- promtool ----------------------------------------------------------------------------------------------------


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)


@needs("promtool")
def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    checked = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert checked.returncode == 0, checked.stderr
    assert f"{len(ALERTS)} rules found" in checked.stdout


@needs("promtool")
def test_each_alert_fires_when_it_should_and_else_does_not() -> None:
    tested = promtool("test", "rules", RULES_TEST)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@each_alert
def test_an_alert_is_tested_both_ways(alert: str) -> None:
    tests = [test for group in yaml.safe_load(RULES_TEST.read_text())["tests"] for test in group["alert_rule_test"]]
    fires = {bool(test.get("exp_alerts")) for test in tests if test["alertname"] == alert}
    assert fires == {True, False}


# --- a Pushgateway that is none ----------------------------------------------------------------------------------


@dataclass
class Gateway:
    """A server that keeps what is pushed to it, and answers as it is told."""

    port: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    silent: threading.Event = field(default_factory=threading.Event)
    """Set: it never answers."""
    requests: list[tuple[str, str, dict[str, str], str]] = field(default_factory=list)


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    kept, over = Gateway(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            super().handle_one_request()
            self.close_connection = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            kept.requests.append((self.command, self.path, dict(self.headers), body))
            if kept.silent.is_set():
                over.wait(SOON)
                return
            self.send_response(kept.status)
            for name, value in kept.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kept.port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield kept
        over.set()
        server.shutdown()
        thread.join()


def sink(url: str, **fields: Any) -> Pushgateway:
    return replace(Pushgateway(url=url, period=PERIOD, now=time.time), **fields)


def undelivered(to: Pushgateway, told: Outcome = FULL) -> str:
    """Return why it could not be pushed; it does not take longer than its timeout says."""
    began = time.monotonic()
    with pytest.raises(Undelivered) as failed:
        to.tell(told)
    assert time.monotonic() - began < to.timeout + 5
    return str(failed.value)


def test_a_push_adds_to_the_group_of_the_job(gateway: Gateway) -> None:
    """POST, and not PUT, which would erase the last success."""
    sink(f"http://127.0.0.1:{gateway.port}/").tell(FULL)
    ((method, path, _, _),) = gateway.requests
    assert (method, path) == ("POST", "/metrics/job/reconciler")


def test_the_group_is_another_for_another_job(gateway: Gateway) -> None:
    sink(f"http://127.0.0.1:{gateway.port}/behind/a/proxy", job="billing").tell(FULL)
    assert gateway.requests[0][1] == "/behind/a/proxy/metrics/job/billing"


def test_an_address_may_go_without_a_scheme(gateway: Gateway) -> None:
    sink(f"127.0.0.1:{gateway.port}").tell(FULL)
    assert len(gateway.requests) == 1


def test_what_is_pushed_is_what_the_pass_determines(gateway: Gateway) -> None:
    """What others could not be told in this process is not: the next process would begin at 0 again."""
    now = 1_750_000_000.0
    sink(f"http://127.0.0.1:{gateway.port}", now=lambda: now).tell(FULL)
    alone = RunMetrics(period=PERIOD)
    alone.take(FULL, now)
    assert read(gateway.requests[0][3]) == shown(alone)
    assert "reconciler_alerts_undelivered_total" not in gateway.requests[0][3]


@pytest.mark.parametrize("result", [Result.BLOCKED, Result.FAILED])
def test_a_pass_that_was_stopped_pushes_nothing_of_the_ledger(gateway: Gateway, result: Result) -> None:
    sink(f"http://127.0.0.1:{gateway.port}").tell(outcome(result, *FULL.findings))
    pushed = {series.name for series in read(gateway.requests[0][3])}
    assert pushed == {name for name in LABELS if re.search("last_run|build|period", name)}


def test_a_plan_is_not_pushed(gateway: Gateway) -> None:
    sink(f"http://127.0.0.1:{gateway.port}").tell(replace(FULL, mode=Mode.PLAN))
    assert gateway.requests == []


def test_it_is_told_of_every_pass() -> None:
    """Also of a clean one: its success is the news."""
    assert sink("http://127.0.0.1:1").deduplicates
    assert sink("http://127.0.0.1:1").name == "pushgateway"


def test_name_and_password_are_sent_and_not_shown(gateway: Gateway) -> None:
    to = sink(f"http://me:{quote('pa/ss:wörd@', safe='')}@127.0.0.1:{gateway.port}")
    to.tell(FULL)
    ((_, path, headers, _),) = gateway.requests
    assert b64decode(headers["Authorization"].removeprefix("Basic ")).decode() == "me:pa/ss:wörd@"
    assert "me:" not in path + headers["Host"] + repr(to)


def test_the_address_that_libraries_see_has_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they do not know, no error of theirs and no log can show."""
    seen: list[str] = []
    monkeypatch.setattr("reconciler.alerts.pushgateway.pushadd_to_gateway", lambda url, **_: seen.append(url))
    sink("http://me:hunter2@pushgateway:9091").tell(FULL)
    assert seen == ["http://pushgateway:9091"]


def test_without_a_name_nothing_is_sent_to_authenticate(gateway: Gateway) -> None:
    sink(f"http://127.0.0.1:{gateway.port}").tell(FULL)
    assert "Authorization" not in gateway.requests[0][2]


@pytest.mark.parametrize("status", [400, 401, 404, 500, 503])
def test_what_is_not_taken_is_undelivered(gateway: Gateway, status: int) -> None:
    gateway.status = status
    assert f"answered {status}" in undelivered(sink(f"http://me:hunter2@127.0.0.1:{gateway.port}"))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(gateway: Gateway, status: int) -> None:
    """The push would arrive as a GET without metrics, and the password somewhere else."""
    gateway.status, gateway.headers = status, {"Location": f"http://127.0.0.1:{gateway.port}/elsewhere"}
    assert f"answered {status}" in undelivered(sink(f"http://me:hunter2@127.0.0.1:{gateway.port}"))
    assert len(gateway.requests) == 1


def test_a_gateway_that_does_not_answer_is_left_in_time(gateway: Gateway) -> None:
    gateway.silent.set()
    why = undelivered(sink(f"http://127.0.0.1:{gateway.port}", timeout=0.3))
    assert why == "The Pushgateway was not reached: no answer in time."


def test_a_gateway_that_is_not_there_is_named_so() -> None:
    why = undelivered(sink(f"http://127.0.0.1:{free_port()}"))
    assert why == "The Pushgateway was not reached: Connection refused."


@given(st.text(max_size=12))
def test_no_message_holds_the_password(more: str) -> None:
    """Nor where it was not encoded, and parts of it are taken for a host, a port or a path."""
    to = sink(f"http://127.0.0.1:hunter2{more}@127.0.0.1:1", timeout=0.5)
    assert "hunter" not in undelivered(to) + repr(to)


# --- the real Pushgateway ----------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def get(url: str, **parameters: Any) -> bytes:
    """Return what is there; 401 is an answer as well."""
    with urllib3.PoolManager() as pool:
        answer = pool.request("GET", url, fields=parameters, timeout=30, retries=False)
    assert answer.status in {200, 401}, answer.data
    return answer.data


def eventually(check: Callable[[], Any]) -> Any:
    """Return what the check says as soon as it says something; within `SOON` it must."""
    ends = time.monotonic() + SOON
    while True:
        try:
            said = check()
        except (urllib3.exceptions.HTTPError, AssertionError):
            said = None
        if said is not None and said != []:
            return said
        assert time.monotonic() < ends, "it did not come about in time"
        time.sleep(0.1)


def settled(check: Callable[[], Any], wanted: object) -> object:
    """Return what the check says once it says what is wanted, or after `SOON` whatever it says."""
    ends = time.monotonic() + SOON
    while (said := check()) != wanted and time.monotonic() < ends:
        time.sleep(0.1)
    return said


@contextmanager
def running(ready: str, *command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends, however it does."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: get(ready))
        yield process
    finally:
        process.kill()
        process.wait(SOON)


@contextmanager
def pushgateway(*options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a Pushgateway that keeps nothing on disk."""
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus-pushgateway", f"--web.listen-address={address}", "--persistence.file=", *options]
    with running(f"http://{address}/-/ready", *command) as process:
        yield f"http://{address}", process


def group(url: str, job: str = "reconciler") -> dict[Series, float]:
    """Return what a Pushgateway shows of a job, without the labels and the metrics that are its own."""
    return {
        Series(series.name, tuple(pair for pair in series.labels if pair[0] not in OF_THE_TARGET)): value
        for series, value in read(get(f"{url}/metrics").decode()).items()
        if ("job", job) in series.labels and not series.name.startswith("push_")
    }


@needs("prometheus-pushgateway")
def test_a_failed_pass_keeps_the_last_success_of_a_pushgateway() -> None:
    with pushgateway() as (url, _):
        sink(url, now=lambda: 1000.0).tell(FULL)
        sink(url, now=lambda: 2000.0).tell(outcome(Result.FAILED))
        kept = group(url)
    assert kept[Series("reconciler_last_success_timestamp_seconds")] == 1000
    assert kept[Series("reconciler_last_run_timestamp_seconds")] == 2000
    assert kept[Series("reconciler_last_run_outcome", (("outcome", "failed"),))] == 1


_outcomes = st.builds(
    lambda result, findings, totals, tenants: outcome(result, *findings, totals=totals, tenants_observed=tenants),
    st.sampled_from(Result),
    st.lists(st.builds(found, st.sampled_from(Reason))),
    st.dictionaries(st.sampled_from(sorted(CORRECTING)), st.builds(Total, st.integers(0, 9), st.just(0), st.just(0))),
    st.integers(0, 9),
)


@needs("prometheus-pushgateway")
def test_what_is_pushed_and_what_is_scraped_are_the_same() -> None:
    """After any passes: a process that lives shows what as many that ended have left behind."""
    jobs = count()

    @given(st.lists(_outcomes, min_size=1, max_size=5))
    @settings(max_examples=25)
    def hold(outcomes: list[Outcome]) -> None:
        job, lifetimes = f"reconciler-{next(jobs)}", RunMetrics(period=PERIOD)
        for ended_at, each in enumerate(outcomes):
            lifetimes.take(each, ended_at)
            sink(url, job=job, now=partial(float, ended_at)).tell(each)
        assert group(url, job) == shown(lifetimes)

    with pushgateway() as (url, _):
        hold()


@needs("prometheus-pushgateway")
def test_a_pushgateway_that_was_killed_is_undelivered_in_time() -> None:
    with pushgateway() as (url, process):
        sink(url).tell(FULL)
        process.kill()
        process.wait(SOON)
        assert "Connection refused" in undelivered(sink(url))


@needs("prometheus-pushgateway")
def test_a_pushgateway_that_stands_still_is_undelivered_in_time() -> None:
    with pushgateway() as (url, process):
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        assert "no answer in time" in undelivered(sink(url, timeout=0.5))


@needs("prometheus-pushgateway")
def test_what_a_pushgateway_takes_for_inconsistent_is_undelivered() -> None:
    with pushgateway() as (url, _):
        with urllib3.PoolManager() as pool:
            other = "# TYPE reconciler_findings counter\nreconciler_findings 1\n"
            assert pool.request("POST", f"{url}/metrics/job/other", body=other).status == HTTPStatus.OK
        assert "answered 400" in undelivered(sink(url))


@needs("prometheus-pushgateway")
def test_a_pushgateway_that_asks_for_a_password_is_given_it(tmp_path: Path) -> None:
    users = tmp_path / "web.yaml"
    users.write_text(yaml.safe_dump({"basic_auth_users": {"me": BCRYPT_OF_HUNTER2}}))
    with pushgateway(f"--web.config.file={users}") as (url, _):
        address = urlsplit(url).netloc
        sink(f"http://me:hunter2@{address}").tell(FULL)
        assert "answered 401" in undelivered(sink(f"http://me:hunter3@{address}"))


# --- the real Prometheus -----------------------------------------------------------------------------------------

HISTORY = timedelta(hours=50)
"""How far back what Prometheus knows goes: two whole days and more."""
STEP = 600
"""Seconds between the passes of the history."""
DAY = 86_400
SCRAPED = "reconciler"
"""The job of the process that lives and is scraped; the others push."""


@dataclass
class Watched:
    """A Prometheus that watches a process and a Pushgateway, and has a history."""

    url: str
    lifetimes: RunMetrics
    began: int
    """When its history begins, in seconds since the epoch."""

    def ask(self, path: str, **parameters: Any) -> Any:
        """Ask its HTTP API."""
        answer = json.loads(get(f"{self.url}/api/v1/{path}", **parameters))
        assert answer["status"] == "success"
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return what a query finds now."""
        found_now: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return found_now

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
    """Return how many corrections the history has by then: a little more each hour."""
    return ((at - began) // STEP) ** 2 // 100


def history(began: int, ends: int) -> str:
    """Return two days of passes as OpenMetrics: one process that lives, and told some in vain in the last hour."""
    families: dict[tuple[str, str], list[str]] = defaultdict(list)
    lifetimes = RunMetrics(period=PERIOD, sinks=["alertmanager"])
    for at in range(began, ends, STEP):
        total = Total(corrected(at, began), Decimal(corrected(at, began)) * 2, -Decimal(corrected(at, began)))
        made = fresh(Result.CORRECTED, *FULL.findings, at=at)
        lifetimes.take(replace(made, totals={Reason.DELETION_UNRECORDED: total}), at)
        if at > ends - 1800:
            lifetimes.undelivered("alertmanager")
        for family in lifetimes.collect():
            for name, labels, value, *_ in family.samples:
                pairs = ",".join(f'{label}="{is_}"' for label, is_ in ({"job": SCRAPED} | labels).items())
                families[family.name, family.type].append(f"{name}{{{pairs}}} {value} {at}\n")
    return "".join(f"# TYPE {name} {kind}\n{''.join(lines)}" for (name, kind), lines in families.items()) + "# EOF\n"


def fresh(result: Result, *findings: Finding, at: float) -> Outcome:
    """Return the outcome of a run that has proved everything up to then."""
    proved = {"verified_until": datetime.fromtimestamp(at, UTC)} if outcome(result).failure is None else {}
    return outcome(result, *findings, **proved)


def push(url: str) -> None:
    """Leave at a Pushgateway what each alert but those about counters is there for, under a job of its own."""
    now = time.time()
    for job in ("true", "blocked", "failed"):
        sink(url, job=job).tell(fresh(Result.CLEAN, at=now))
    sink(url, job="blocked").tell(fresh(Result.BLOCKED, at=now))
    sink(url, job="failed").tell(fresh(Result.FAILED, at=now))
    unreadable = [found(Reason.TENANT_UNREADABLE, tenant=name) for name in ("acme", "beta")]
    sink(url, job="reports").tell(fresh(Result.DRIFT, *unreadable, found(Reason.ORG_MOVED), at=now))
    long_ago = now - 10 * 3600
    sink(url, job="late", now=lambda: long_ago).tell(fresh(Result.CLEAN, at=long_ago))


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log nothing."""


@contextmanager
def scraped(lifetimes: RunMetrics) -> Iterator[str]:
    """Serve the metrics as a process does that lives, and yield where."""
    registry = CollectorRegistry()
    registry.register(lifetimes)
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
    """Prometheus with the rules as they are, and with a copy of them that waits for nothing."""
    folder = tmp_path_factory.mktemp("prometheus")
    # the history ends before what is scraped begins
    ends = int(time.time()) - 30
    began = (ends - int(HISTORY.total_seconds())) // STEP * STEP
    (folder / "history").write_text(history(began, ends))
    promtool(
        "tsdb", "create-blocks-from", "openmetrics", "--quiet", folder / "history", folder / "data"
    ).check_returncode()
    at_once = [{name: value for name, value in rule.items() if name != "for"} for rule in GROUP["rules"]]
    copy = {"groups": [{"name": "at once", "rules": at_once}]}
    (folder / "at_once.yaml").write_text(yaml.safe_dump(copy))
    lifetimes = RunMetrics(period=PERIOD, sinks=["alertmanager"])
    lifetimes.take(fresh(Result.CORRECTED, *FULL.findings, at=time.time()), time.time())
    with scraped(lifetimes) as target, pushgateway() as (gateway_url, _):
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
            found_at_all = Watched(f"http://{address}", lifetimes, began)
            eventually(lambda: found_at_all.query('up{job="reconciler"} == 1'))
            eventually(lambda: found_at_all.query('reconciler_period_seconds{job="late"}'))
            yield found_at_all


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
def test_prometheus_sees_a_pass_as_it_ends(watched: Watched) -> None:
    seen = fresh(Result.CORRECTED, *FULL.findings, at=time.time())
    watched.lifetimes.take(replace(seen, tenants_observed=4711), time.time())
    eventually(lambda: watched.query(f'reconciler_tenants_observed{{job="{SCRAPED}"}} == 4711'))


@real
def test_what_was_pushed_keeps_the_name_of_its_job_and_has_no_instance(watched: Watched) -> None:
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
def test_an_alert_fires_for_whom_it_should_and_for_nobody_else(watched: Watched, alert: str) -> None:
    """By the copy of the rules without `for`, which would take an hour."""
    wanted = {(alert, "firing", job) for job in FIRES[alert]}
    assert settled(lambda: {each for each in watched.alerts("at once") if each[0] == alert}, wanted) == wanted


@real
def test_by_the_rules_as_they_are_what_waits_is_pending_and_what_does_not_fires(watched: Watched) -> None:
    wanted = {(name, "pending" if "for" in rule else "firing") for name, rule in ALERTS.items()}
    assert settled(lambda: {alert[:2] for alert in watched.alerts(GROUP["name"])}, wanted) == wanted


def points(watched: Watched, panel: dict[str, Any], expression: str) -> list[dict[str, Any]]:
    """Return what a panel is given, as Grafana asks for it: its variables replaced, its steps aligned."""
    expression = expression.replace("$job", SCRAPED)
    if panel["targets"][0]["instant"]:
        return watched.query(expression)
    step = DAY if panel.get("interval") == "1d" else STEP
    now = int(time.time())
    start = watched.began // step * step
    found_then: list[dict[str, Any]] = watched.ask(
        "query_range", query=expression, start=start, end=now // step * step, step=step
    )["result"]
    return found_then


@real
@each_target
def test_a_query_of_the_dashboard_finds_data(watched: Watched, panel: dict[str, Any], target: dict[str, Any]) -> None:
    series = eventually(lambda: points(watched, panel, target["expr"]))
    values = [float(value) for each in series for _, value in each.get("values") or [each["value"]]]
    assert any(value == value for value in values)  # noqa: PLR0124 - not the number that is none
    legend = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
    assert all(set(legend) <= each["metric"].keys() for each in series)


@real
def test_a_bar_of_the_dashboard_is_what_was_corrected_on_that_day(watched: Watched) -> None:
    """To the row and to the centime: it is no rate, and nothing is extrapolated."""
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
