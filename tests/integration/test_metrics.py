"""The metrics of runs: a failed run says nothing about the ledger, and totals come from the ledger."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from reconciler import __version__
from reconciler.core.errors import Failure, Refusal
from reconciler.core.model import Action, Finding, HistoryRead, LogRead, Mode, Outcome, Owed, Result, Total
from reconciler.core.plan import TooMuchDrift
from reconciler.core.reasons import CORRECTING, Reason
from reconciler.metrics import SUCCEEDED, RunMetrics
from tests.support.api_state import tenant
from tests.support.pages import section
from tests.unit.test_compare import ACTION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.system import System

PERIOD = timedelta(minutes=5)
ENDED = 1_750_000_000.0
"""When the first run of a test ended."""
VERIFIED = datetime(2026, 3, 1, 9, tzinfo=UTC)

LABELS: dict[str, set[str]] = {
    "reconciler_build_info": {"version"},
    "reconciler_period_seconds": set(),
    "reconciler_last_run_timestamp_seconds": set(),
    "reconciler_last_run_duration_seconds": set(),
    "reconciler_last_run_outcome": {"outcome"},
    "reconciler_last_run_impact_chf": {"sign"},
    "reconciler_last_success_timestamp_seconds": set(),
    "reconciler_verified_until_timestamp_seconds": set(),
    "reconciler_tenants_observed": set(),
    "reconciler_tenants_recorded": set(),
    "reconciler_findings": {"reason", "action"},
    "reconciler_findings_accepted": {"reason"},
    "reconciler_corrections_total": {"reason"},
    "reconciler_impact_chf_total": {"sign"},
    "reconciler_history_log": {"log"},
    "reconciler_history_gaps": set(),
    "reconciler_history_corrections_total": {"reason"},
    "reconciler_notifications_owed": set(),
    "reconciler_alerts_undelivered_total": {"sink"},
}
"""The metrics and their labels; other programs rely on both."""

Labels = tuple[tuple[str, str], ...]


class Series(NamedTuple):
    """A metric name with its labels."""

    name: str
    labels: Labels = ()

    @property
    def values(self) -> tuple[str, ...]:
        """Return the values of the labels."""
        return tuple(value for _, value in self.labels)


def read(exposition: str) -> dict[Series, float]:
    """Return the samples of a text in Prometheus' format, in which no series may occur twice."""
    samples = [
        (Series(sample.name, tuple(sorted(sample.labels.items()))), sample.value)
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    ]
    assert len(dict(samples)) == len(samples)
    return dict(samples)


def scrape(metrics: RunMetrics) -> dict[Series, float]:
    """Return what Prometheus would scrape."""
    return read(generate_latest(metrics).decode())


def value_of(metrics: RunMetrics, name: str, **labels: str) -> float | None:
    """Return the value of one series, or None if it does not exist."""
    return scrape(metrics).get(Series(f"reconciler_{name}", tuple(sorted(labels.items()))))


def values_by_label(metrics: RunMetrics, name: str) -> dict[str, float]:
    """Return the values of a metric that has one label, by that label."""
    return {series.values[0]: value for series, value in scrape(metrics).items() if series.name == f"reconciler_{name}"}


def make_finding(reason: Reason, **fields: Any) -> Finding:
    return Finding(reason=reason, tenant="acme", org="2871", action=ACTION[reason])._replace(**fields)


CORRECTION = make_finding(Reason.SKILL_ENABLE_UNRECORDED, subject="mail", impact_chf=Decimal("12.30"))
CREDIT = make_finding(Reason.DELETION_UNRECORDED, impact_chf=Decimal("-4.05"))
REPORT = make_finding(Reason.ORG_MOVED)
ACCEPTED = make_finding(Reason.ORG_UNLABELLED, accepted_until=VERIFIED)
DEFERRED = make_finding(Reason.SUSPENSION_UNRECORDED, action=Action.DEFER)
TOTALS = {
    Reason.SKILL_ENABLE_UNRECORDED: Total(41, Decimal("200.10"), Decimal("-0.60")),
    Reason.DELETION_UNRECORDED: Total(7, Decimal(0), Decimal("-31.00")),
}


def make_outcome(result: Result = Result.CORRECTED, *findings: Finding, **fields: Any) -> Outcome:
    """Return the outcome of a run as `reconciler.run` makes it: complete only if it succeeded."""
    outcome = Outcome(run_id=UUID(int=0), mode=Mode.RUN, result=result, findings=findings, seconds=0.25)
    if result is Result.BLOCKED:
        outcome = replace(outcome, failure=Refusal("too much"))
    elif result is Result.FAILED:
        outcome = replace(outcome, failure=Failure("no ledger"))
    else:
        outcome = replace(outcome, tenants_observed=12, tenants_recorded=11, seconds=1.5, totals=TOTALS)
        outcome = replace(outcome, verified_until=VERIFIED, recorded=True, history=make_history(2))
    return replace(outcome, **fields)


def make_history(gaps: int, log: LogRead = LogRead.REACHED) -> HistoryRead:
    """Return what a run over a cluster says of the time since the run before."""
    return HistoryRead(log, seconds=300, gaps=gaps)


def metrics_after(*outcomes: Outcome, sinks: Iterable[str] = ("alertmanager",)) -> RunMetrics:
    """Return the metrics after these runs: one each period, the first at `ENDED`."""
    metrics = RunMetrics(period=PERIOD, sinks=sinks)
    for number, each in enumerate(outcomes):
        metrics.record(each, ENDED + number * PERIOD.total_seconds())
    return metrics


LATER = ENDED + PERIOD.total_seconds()
"""When the second run of a test ended."""

FULL = make_outcome(Result.CORRECTED, CORRECTION, CREDIT, REPORT, ACCEPTED, DEFERRED)
each_success = pytest.mark.parametrize("result", sorted(SUCCEEDED))
each_stop = pytest.mark.parametrize("result", [Result.BLOCKED, Result.FAILED])
each_result = pytest.mark.parametrize("result", Result)


# --- names -------------------------------------------------------------------------------------------------------


def test_the_metrics_have_the_documented_names() -> None:
    assert {series.name for series in scrape(metrics_after(FULL))} == LABELS.keys()


def test_each_metric_has_exactly_its_labels() -> None:
    assert {(series.name, frozenset(dict(series.labels))) for series in scrape(metrics_after(FULL))} == {
        (name, frozenset(labels)) for name, labels in LABELS.items()
    }


def test_no_metric_names_a_tenant_or_an_organisation() -> None:
    finding = make_finding(Reason.ORG_MOVED, tenant="very-secret-customer", org="999888777", subject="their-skill")
    text = generate_latest(
        metrics_after(make_outcome(Result.DRIFT, finding), make_outcome(Result.BLOCKED, finding))
    ).decode()
    assert not re.search("very-secret-customer|999888777|their-skill", text)


@given(st.lists(st.builds(make_finding, st.sampled_from(Reason), action=st.sampled_from(Action), tenant=st.text())))
def test_the_number_of_series_is_bounded(findings: list[Finding]) -> None:
    assert len(scrape(metrics_after(make_outcome(Result.DRIFT, *findings)))) <= len(LABELS) + len(Reason) * 6 + 40


def test_the_openmetrics_format_is_valid_too() -> None:
    """Prometheus prefers it, and it is stricter: it has types, units and an end."""
    text = openmetrics.generate_latest(metrics_after(FULL)).decode()  # type: ignore[no-untyped-call]
    families = list(openmetrics_families(text))  # type: ignore[no-untyped-call]
    assert {sample.name for family in families for sample in family.samples} == LABELS.keys()
    units = {family.name: family.unit for family in families if family.unit}
    assert units == {
        name.removesuffix("_total"): name.removesuffix("_total").rpartition("_")[2]
        for name in LABELS
        if re.search("_(seconds|chf)(_total)?$", name)
    }


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool, which comes with Prometheus")
def test_promtool_accepts_names_and_help_texts() -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=generate_latest(metrics_after(FULL)), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


@pytest.mark.parametrize("program", ["reconciler.cli", "reconciler.run"])
def test_prometheus_client_is_not_loaded_unless_needed(program: str) -> None:
    code = f"import sys, {program}; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_docs_list_the_metrics() -> None:
    rows = re.findall(
        r"^\| `(reconciler_\w+)`(?:, by (.+?))? \|", section("docs/operations.md", "Metrics"), flags=re.MULTILINE
    )
    assert {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows} == LABELS


# --- before and after the first run ------------------------------------------------------------------------------


def test_before_the_first_run_only_static_metrics_exist() -> None:
    assert scrape(metrics_after()) == {
        Series("reconciler_build_info", (("version", __version__),)): 1,
        Series("reconciler_period_seconds"): 300,
        Series("reconciler_alerts_undelivered_total", (("sink", "alertmanager"),)): 0,
    }


@each_success
def test_a_successful_run_updates_every_metric(result: Result) -> None:
    assert {series.name for series in scrape(metrics_after(make_outcome(result)))} == LABELS.keys()


@each_stop
def test_a_stopped_first_run_says_nothing_about_the_ledger(result: Result) -> None:
    about_itself = {name for name in LABELS if re.search("last_run|build|period|undelivered", name)}
    assert {series.name for series in scrape(metrics_after(make_outcome(result, REPORT)))} == about_itself


@each_result
def test_the_last_run_is_updated_whatever_its_outcome(result: Result) -> None:
    metrics = metrics_after(FULL, make_outcome(result, seconds=2.25))
    assert value_of(metrics, "last_run_timestamp_seconds") == LATER
    assert value_of(metrics, "last_run_duration_seconds") == 2.25


@each_result
def test_one_of_the_five_outcomes_is_1(result: Result) -> None:
    assert values_by_label(metrics_after(FULL, make_outcome(result)), "last_run_outcome") == {
        each: each is result for each in Result
    }


def test_a_plan_changes_no_metric() -> None:
    plan = replace(FULL, mode=Mode.PLAN, result=Result.DRIFT)
    assert scrape(metrics_after(plan)) == scrape(metrics_after())
    assert scrape(metrics_after(FULL, plan)) == scrape(metrics_after(FULL))


# --- what a failed run leaves as it was --------------------------------------------------------------------------


@each_success
def test_clean_corrected_and_drift_are_successes(result: Result) -> None:
    metrics = metrics_after(make_outcome(Result.FAILED), make_outcome(result))
    assert value_of(metrics, "last_success_timestamp_seconds") == LATER


@each_stop
def test_a_stopped_run_leaves_the_last_success(result: Result) -> None:
    metrics = metrics_after(FULL, make_outcome(result))
    assert value_of(metrics, "last_success_timestamp_seconds") == ENDED


@each_stop
def test_a_stopped_run_updates_only_the_last_run(result: Result) -> None:
    before, now = scrape(metrics_after(FULL)), scrape(metrics_after(FULL, make_outcome(result, REPORT, CORRECTION)))
    assert {series.name for series in before if now[series] != before[series]} == {
        "reconciler_last_run_timestamp_seconds",
        "reconciler_last_run_duration_seconds",
        "reconciler_last_run_outcome",
        "reconciler_last_run_impact_chf",
    }
    assert before.keys() == now.keys()


@each_result
def test_what_is_owed_is_known_where_the_run_was_recorded(result: Result) -> None:
    one, two = (Owed(UUID(int=number), frozenset(["alertmanager"]), ()) for number in (1, 2))
    for recorded, owed in ((True, 2), (False, 1)):
        metrics = metrics_after(
            replace(FULL, owed=(one,)), replace(make_outcome(result), owed=(one, two), recorded=recorded)
        )
        assert value_of(metrics, "notifications_owed") == owed


def test_a_run_over_a_file_leaves_verified_until() -> None:
    metrics = metrics_after(FULL, make_outcome(Result.CLEAN, verified_until=None))
    assert value_of(metrics, "verified_until_timestamp_seconds") == VERIFIED.timestamp()


def test_a_success_moves_verified_until() -> None:
    metrics = metrics_after(FULL, make_outcome(Result.CLEAN, verified_until=VERIFIED + PERIOD))
    assert value_of(metrics, "verified_until_timestamp_seconds") == (VERIFIED + PERIOD).timestamp()


def test_tenants_are_counted_by_the_last_success() -> None:
    metrics = metrics_after(FULL, make_outcome(Result.BLOCKED, tenants_observed=0, tenants_recorded=11))
    assert (value_of(metrics, "tenants_observed"), value_of(metrics, "tenants_recorded")) == (12, 11)


# --- history -----------------------------------------------------------------------------------------------------


def test_gaps_are_those_that_the_last_success_left() -> None:
    assert value_of(metrics_after(FULL), "history_gaps") == 2
    assert value_of(metrics_after(FULL, make_outcome(Result.CLEAN, history=make_history(0))), "history_gaps") == 0


@pytest.mark.parametrize(
    ("failure", "gaps"),
    [(TooMuchDrift("too much"), 7), (Refusal("another cluster"), 2), (Failure("no ledger"), 2)],
)
def test_of_the_stopped_runs_only_one_that_keeps_its_list_has_gaps(failure: Failure, gaps: int) -> None:
    stopped = make_outcome(Result.BLOCKED, failure=failure, recorded=True, history=make_history(7))
    assert value_of(metrics_after(FULL, stopped), "history_gaps") == gaps
    unwritten = value_of(metrics_after(FULL, replace(stopped, recorded=False)), "history_gaps")
    assert unwritten == 2


def test_a_run_over_a_file_leaves_what_is_known_of_the_past() -> None:
    metrics = metrics_after(FULL, make_outcome(Result.CLEAN, history=HistoryRead()))
    assert value_of(metrics, "history_gaps") == 2
    assert value_of(metrics, "history_log", log="reached") == 1


@pytest.mark.parametrize("log", [LogRead.REACHED, LogRead.PARTLY, LogRead.LOST])
def test_one_of_the_three_says_how_far_the_log_was_read(log: LogRead) -> None:
    metrics = metrics_after(FULL, make_outcome(Result.CLEAN, history=make_history(0, log)))
    assert values_by_label(metrics, "history_log") == {each: each == log for each in ("reached", "partly", "lost")}


def test_a_run_that_keeps_nothing_leaves_how_far_the_log_was_read() -> None:
    stopped = make_outcome(Result.FAILED, recorded=True, history=make_history(0, LogRead.LOST))
    assert value_of(metrics_after(FULL, stopped), "history_log", log="lost") == 0


def test_rows_that_history_showed_are_counted_over_all_runs() -> None:
    none = dict.fromkeys(CORRECTING, 0)
    assert values_by_label(metrics_after(FULL), "history_corrections_total") == none
    totals = TOTALS | {
        Reason.CORRECTION_SUPERSEDED: Total(3, Decimal(0), Decimal("-1.20")),
        Reason.SUSPENSION_UNRECORDED: Total(5, Decimal(0), Decimal("-9.00"), from_log=4),
    }
    assert values_by_label(metrics_after(make_outcome(totals=totals)), "history_corrections_total") == none | {
        Reason.CORRECTION_SUPERSEDED: 3,
        Reason.SUSPENSION_UNRECORDED: 4,
    }


# --- findings ----------------------------------------------------------------------------------------------------


def test_findings_are_counted_by_reason_and_action() -> None:
    metrics = metrics_after(
        make_outcome(Result.CORRECTED, CORRECTION, CORRECTION._replace(subject="wiki"), REPORT, DEFERRED)
    )
    findings = {
        series.labels: value for series, value in scrape(metrics).items() if series.name == "reconciler_findings"
    }
    assert {tuple(reversed(dict(labels).values())): value for labels, value in findings.items() if value} == {
        ("skill_enable_unrecorded", "append"): 2,
        ("org_moved", "report"): 1,
        ("suspension_unrecorded", "defer"): 1,
    }


def test_possible_findings_are_0_from_the_first_success_on() -> None:
    """Each reason with its action and with `defer`: an absent series cannot be compared."""
    findings = Counter(
        series.labels for series in scrape(metrics_after(make_outcome(Result.CLEAN))) if "findings" in series.name
    )
    possible = {(reason, action) for reason in Reason for action in (ACTION[reason], Action.DEFER)}
    reports = {reason for reason in Reason if ACTION[reason] is Action.REPORT}
    assert findings.keys() == {(("action", action), ("reason", reason)) for reason, action in possible} | {
        (("reason", reason),) for reason in reports
    }


def test_accepted_reports_are_counted_separately() -> None:
    metrics = metrics_after(make_outcome(Result.CLEAN, ACCEPTED, ACCEPTED._replace(tenant="beta")))
    assert value_of(metrics, "findings", reason="org_unlabelled", action="report") == 0
    assert value_of(metrics, "findings_accepted", reason="org_unlabelled") == 2


def test_findings_that_are_gone_fall_to_0() -> None:
    metrics = metrics_after(FULL, make_outcome(Result.CLEAN))
    assert not any(value for series, value in scrape(metrics).items() if "findings" in series.name)


# --- impact ------------------------------------------------------------------------------------------------------


def test_corrections_are_the_totals_of_the_ledger() -> None:
    assert values_by_label(metrics_after(FULL), "corrections_total") == dict.fromkeys(CORRECTING, 0) | {
        "skill_enable_unrecorded": 41,
        "deletion_unrecorded": 7,
    }


def test_overcharges_are_counted_as_a_positive_amount() -> None:
    """A counter only grows, and a credit grows in size."""
    assert values_by_label(metrics_after(FULL), "impact_chf_total") == {"positive": 200.10, "negative": 31.60}


def test_the_impact_of_the_last_run_is_what_it_wrote() -> None:
    more = CORRECTION._replace(impact_chf=Decimal("0.70"))
    metrics = metrics_after(make_outcome(Result.CORRECTED, CORRECTION, CREDIT, more, make_finding(Reason.ORG_RESOLVED)))
    assert values_by_label(metrics, "last_run_impact_chf") == {"positive": 13.00, "negative": 4.05}


@each_stop
def test_a_stopped_run_has_no_impact(result: Result) -> None:
    """The findings of a refused run are what it would have written."""
    assert values_by_label(metrics_after(FULL, make_outcome(result, CORRECTION, CREDIT)), "last_run_impact_chf") == {
        "positive": 0,
        "negative": 0,
    }


def test_without_totals_the_counters_stay() -> None:
    metrics = metrics_after(FULL, make_outcome(Result.FAILED))
    assert values_by_label(metrics, "corrections_total") == values_by_label(metrics_after(FULL), "corrections_total")
    assert values_by_label(metrics, "impact_chf_total") == values_by_label(metrics_after(FULL), "impact_chf_total")


@each_stop
def test_a_stopped_run_shows_the_totals_it_knows(result: Result) -> None:
    assert values_by_label(metrics_after(make_outcome(result, totals=TOTALS)), "impact_chf_total") == {
        "positive": 200.10,
        "negative": 31.60,
    }


def test_without_corrections_the_counters_begin_at_0() -> None:
    """So that the first correction is an increase."""
    metrics = metrics_after(make_outcome(Result.CLEAN, totals={}))
    assert values_by_label(metrics, "corrections_total") == dict.fromkeys(CORRECTING, 0)
    assert values_by_label(metrics, "impact_chf_total") == {"positive": 0, "negative": 0}


amounts = st.decimals(min_value=0, max_value=1000, places=2)
growing = st.lists(
    st.none() | st.tuples(st.sampled_from(sorted(CORRECTING)), st.integers(1, 9), amounts, amounts), max_size=8
)


@given(growing)
def test_counters_never_fall(runs: list[tuple[Reason, int, Decimal, Decimal] | None]) -> None:
    """Whatever is corrected, and whichever runs fail in between."""
    watched, totals = metrics_after(), {reason: Total(0, Decimal(0), Decimal(0)) for reason in CORRECTING}
    before: dict[Series, float] = {}
    for more in runs:
        if more is None:
            watched.record(make_outcome(Result.FAILED), ENDED)
        else:
            reason, corrections, positive, negative = more
            was = totals[reason]
            totals[reason] = Total(
                was.corrections + corrections, was.positive_chf + positive, was.negative_chf - negative
            )
            watched.record(make_outcome(totals=dict(totals)), ENDED)
        now = {series: value for series, value in scrape(watched).items() if series.name.endswith("_total")}
        assert all(now[series] >= value for series, value in before.items())
        before = now


def test_counters_continue_in_another_process(system: System) -> None:
    """Two runs over a real ledger, each in its own process."""
    counted = []
    for name in ("acme", "beta"):
        system.api.create(tenant(name, packages=["mail"]), at=system.now - timedelta(hours=2))
        metrics = metrics_after(system.run())
        counted.append(values_by_label(metrics, "corrections_total"))
    nothing = dict.fromkeys(CORRECTING, 0)
    assert counted == [
        nothing | {"tenant_unrecorded": 1, "skill_enable_unrecorded": 1},
        nothing | {"tenant_unrecorded": 2, "skill_enable_unrecorded": 2},
    ]


# --- undelivered alerts, and threads -----------------------------------------------------------------------------


def test_undelivered_messages_are_counted_by_sink() -> None:
    metrics = metrics_after(FULL, sinks=["alertmanager", "events"])
    metrics.undelivered("events")
    metrics.undelivered("events")
    metrics.undelivered("heartbeat")
    assert values_by_label(metrics, "alerts_undelivered_total") == {"alertmanager": 0, "events": 2, "heartbeat": 1}


def test_without_sinks_undelivered_messages_have_no_metric() -> None:
    assert values_by_label(metrics_after(FULL, sinks=()), "alerts_undelivered_total") == {}


def test_a_scrape_never_mixes_two_runs() -> None:
    metrics, done = metrics_after(), threading.Event()

    def run() -> None:
        for number in range(1, 400):
            metrics.record(make_outcome(Result.CLEAN, tenants_observed=number, tenants_recorded=number), number)
        done.set()

    runner = threading.Thread(target=run)
    runner.start()
    seen = set()
    while not done.is_set():
        now = {metric.name: metric.samples[0].value for metric in metrics.collect()}
        fields = ("last_run_timestamp_seconds", "last_success_timestamp_seconds", "tenants_observed")
        seen.add(tuple(now.get(f"reconciler_{field}") for field in fields))
    runner.join()
    assert seen
    assert all(len(set(values)) == 1 for values in seen)


def test_no_undelivered_message_is_lost_between_threads() -> None:
    metrics = metrics_after()

    def fail() -> None:
        for _ in range(1000):
            metrics.undelivered("alertmanager")

    threads = [threading.Thread(target=fail) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values_by_label(metrics, "alerts_undelivered_total") == {"alertmanager": 4000}
