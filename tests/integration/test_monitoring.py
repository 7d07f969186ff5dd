"""Rules and dashboard match the exported metrics, and work with a real Prometheus."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import yaml
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from reconciler.core.model import Action, Finding, LogRead, Outcome, Owed, Result, Total
from reconciler.core.reasons import Reason
from reconciler.metrics import RunMetrics
from tests.integration.test_metrics import FULL, LABELS, PERIOD, make_finding, make_history, make_outcome
from tests.integration.test_pushgateway import TARGET_LABELS, make_sink, pushgateway
from tests.support.pages import section
from tests.support.programs import eventually, free_address, get, needs, running, settled

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
RULES = ROOT / "monitoring" / "rules.yaml"
RULES_TEST = ROOT / "tests" / "monitoring" / "rules_test.yaml"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "monitoring" / "dashboard.json").read_text(encoding="utf-8"))

(GROUP,) = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in GROUP["rules"]}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [(panel, target) for panel in PANELS for target in panel["targets"]]
QUERIES = [rule["expr"] for rule in ALERTS.values()] + [target["expr"] for _, target in TARGETS]

VALUES: dict[str, set[str]] = {
    "outcome": {*Result},
    "reason": {*Reason},
    "action": {*Action},
    "sign": {"positive", "negative"},
    "log": {"reached", "partly", "lost"},
    "job": {"$job"},
}
"""The values that a query may select for a label."""

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
    # it may use more memory before it collects garbage, which is a fifth of its work
    environment = {"GOGC": "800"} | os.environ
    command = ["promtool", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


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
    left = [make_finding(Reason.TENANT_UNREADABLE, tenant=name) for name in ("acme", "beta")]
    left += [make_finding(Reason.ORG_MOVED), make_finding(Reason.TENANT_PARKED)]
    make_sink(url, job="reports").notify(make_verified_outcome(Result.DRIFT, *left, at=now))
    owed = (Owed(UUID(int=1), frozenset(["alertmanager"]), ()),)
    make_sink(url, job="owed").notify(replace(make_verified_outcome(Result.CLEAN, at=now), owed=owed))
    lost = replace(make_verified_outcome(Result.CLEAN, at=now), history=make_history(0, LogRead.LOST))
    make_sink(url, job="lost").notify(lost)
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
        address = free_address()
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
    eventually(lambda: all(rule["health"] == "ok" for rule in watched.ask("rules")["groups"][0]["rules"]))


FIRES = {
    "ReconcilerNoSuccess": {"late"},
    "ReconcilerBlocked": {"blocked"},
    "ReconcilerFailing": {"failed"},
    "ReconcilerCorrectionRateHigh": {SCRAPED},
    "ReconcilerTenantsUnreadable": {"reports"},
    "ReconcilerTenantsParked": {"reports"},
    "ReconcilerReportsOpen": {"reports", SCRAPED},
    "ReconcilerVerifiedFallsBehind": {"late"},
    "ReconcilerAlertsUndelivered": {SCRAPED},
    "ReconcilerNotificationsOwed": {"owed"},
    "ReconcilerHistoryLost": {"lost"},
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
