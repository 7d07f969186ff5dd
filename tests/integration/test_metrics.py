"""What metrics say of passes: of one that failed nothing about the ledger, of all of them what the ledger counts."""

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
from reconciler.core.model import Action, Finding, Mode, Outcome, Result, Total
from reconciler.core.reasons import CORRECTING, Reason
from reconciler.metrics import SUCCEEDED, RunMetrics
from tests.support.pages import section
from tests.support.world import tenant
from tests.unit.test_compare import ACTION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.support.scene import World

PERIOD = timedelta(minutes=5)
ENDED = 1_750_000_000.0
"""When the first pass of a test ended."""
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
    "reconciler_alerts_undelivered_total": {"sink"},
}
"""The metrics, whose names other programs rely on, and their labels."""

Labels = tuple[tuple[str, str], ...]


class Series(NamedTuple):
    """A name with its labels."""

    name: str
    labels: Labels = ()

    @property
    def values(self) -> tuple[str, ...]:
        """The values of the labels."""
        return tuple(value for _, value in self.labels)


def read(exposition: str) -> dict[Series, float]:
    """Return what a text in Prometheus' format says; no series stands there twice."""
    samples = [
        (Series(sample.name, tuple(sorted(sample.labels.items()))), sample.value)
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    ]
    assert len(dict(samples)) == len(samples)
    return dict(samples)


def shown(passes: RunMetrics) -> dict[Series, float]:
    """Return what would be scraped."""
    return read(generate_latest(passes).decode())


def one(passes: RunMetrics, name: str, **labels: str) -> float | None:
    """Return the value of one series, None where there is none."""
    return shown(passes).get(Series(f"reconciler_{name}", tuple(sorted(labels.items()))))


def by(passes: RunMetrics, name: str) -> dict[str, float]:
    """Return the values of a metric that has one label, by that label."""
    return {series.values[0]: value for series, value in shown(passes).items() if series.name == f"reconciler_{name}"}


def found(reason: Reason, **fields: Any) -> Finding:
    return Finding(reason=reason, tenant="acme", org="2871", action=ACTION[reason])._replace(**fields)


CORRECTION = found(Reason.SKILL_ENABLE_UNRECORDED, subject="mail", impact_chf=Decimal("12.30"))
CREDIT = found(Reason.DELETION_UNRECORDED, impact_chf=Decimal("-4.05"))
REPORT = found(Reason.ORG_MOVED)
ACCEPTED = found(Reason.ORG_UNLABELLED, accepted_until=VERIFIED)
DEFERRED = found(Reason.SUSPENSION_UNRECORDED, action=Action.DEFER)
TOTALS = {
    Reason.SKILL_ENABLE_UNRECORDED: Total(41, Decimal("200.10"), Decimal("-0.60")),
    Reason.DELETION_UNRECORDED: Total(7, Decimal(0), Decimal("-31.00")),
}


def outcome(result: Result = Result.CORRECTED, *findings: Finding, **fields: Any) -> Outcome:
    """Return the outcome of a run, whole where it succeeded, as `reconciler.run` makes it."""
    made = Outcome(run_id=UUID(int=0), mode=Mode.RUN, result=result, findings=findings, seconds=0.25)
    if result is Result.BLOCKED:
        made = replace(made, failure=Refusal("too much"))
    elif result is Result.FAILED:
        made = replace(made, failure=Failure("no ledger"))
    else:
        made = replace(made, tenants_observed=12, tenants_recorded=11, seconds=1.5, totals=TOTALS)
        made = replace(made, verified_until=VERIFIED)
    return replace(made, **fields)


def after(*outcomes: Outcome, sinks: Iterable[str] = ("alertmanager",)) -> RunMetrics:
    """Return what is known after these passes: one each period, the first at `ENDED`."""
    passes = RunMetrics(period=PERIOD, sinks=sinks)
    for number, each in enumerate(outcomes):
        passes.take(each, ENDED + number * PERIOD.total_seconds())
    return passes


LATER = ENDED + PERIOD.total_seconds()
"""When the second pass of a test ended."""

FULL = outcome(Result.CORRECTED, CORRECTION, CREDIT, REPORT, ACCEPTED, DEFERRED)
each_success = pytest.mark.parametrize("result", sorted(SUCCEEDED))
each_stop = pytest.mark.parametrize("result", [Result.BLOCKED, Result.FAILED])
each_result = pytest.mark.parametrize("result", Result)


# --- names -------------------------------------------------------------------------------------------------------


def test_the_metrics_are_those_that_others_rely_on() -> None:
    assert {series.name for series in shown(after(FULL))} == LABELS.keys()


def test_each_metric_has_its_labels_and_no_other() -> None:
    assert {(series.name, frozenset(dict(series.labels))) for series in shown(after(FULL))} == {
        (name, frozenset(labels)) for name, labels in LABELS.items()
    }


def test_no_metric_names_a_tenant_or_an_organisation() -> None:
    finding = found(Reason.ORG_MOVED, tenant="very-secret-customer", org="999888777", subject="their-skill")
    text = generate_latest(after(outcome(Result.DRIFT, finding), outcome(Result.BLOCKED, finding))).decode()
    assert not re.search("very-secret-customer|999888777|their-skill", text)


@given(st.lists(st.builds(found, st.sampled_from(Reason), action=st.sampled_from(Action), tenant=st.text())))
def test_the_number_of_series_does_not_grow_with_what_is_found(findings: list[Finding]) -> None:
    assert len(shown(after(outcome(Result.DRIFT, *findings)))) <= len(LABELS) + 15 * 6 + 40


def test_openmetrics_can_be_read_too() -> None:
    """It is what Prometheus asks for first, and stricter: with types, units and an end."""
    text = openmetrics.generate_latest(after(FULL)).decode()  # type: ignore[no-untyped-call]
    families = list(openmetrics_families(text))  # type: ignore[no-untyped-call]
    assert {sample.name for family in families for sample in family.samples} == LABELS.keys()
    units = {family.name: family.unit for family in families if family.unit}
    assert units == {
        name.removesuffix("_total"): name.removesuffix("_total").rpartition("_")[2]
        for name in LABELS
        if re.search("_(seconds|chf)(_total)?$", name)
    }


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool, which comes with Prometheus")
def test_promtool_finds_nothing_wrong_with_names_and_help() -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=generate_latest(after(FULL)), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


@pytest.mark.parametrize("program", ["reconciler.cli", "reconciler.run"])
def test_where_no_metrics_are_wanted_none_are_loaded(program: str) -> None:
    code = f"import sys, {program}; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_docs_list_the_metrics() -> None:
    rows = re.findall(
        r"^\| `(reconciler_\w+)`(?:, by (.+?))? \|", section("docs/operations.md", "Metrics"), flags=re.MULTILINE
    )
    assert {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows} == LABELS


# --- before the first pass, and after the first ------------------------------------------------------------------


def test_before_the_first_pass_only_what_holds_without_one_is_there() -> None:
    assert shown(after()) == {
        Series("reconciler_build_info", (("version", __version__),)): 1,
        Series("reconciler_period_seconds"): 300,
        Series("reconciler_alerts_undelivered_total", (("sink", "alertmanager"),)): 0,
    }
    assert after().last_success_at is None


@each_success
def test_of_a_pass_that_succeeded_everything_is_said(result: Result) -> None:
    assert {series.name for series in shown(after(outcome(result)))} == LABELS.keys()


@each_stop
def test_a_first_pass_that_was_stopped_says_nothing_of_the_ledger(result: Result) -> None:
    about_itself = {name for name in LABELS if re.search("last_run|build|period|undelivered", name)}
    assert {series.name for series in shown(after(outcome(result, REPORT)))} == about_itself


@each_result
def test_the_last_run_is_the_last_one_whatever_its_outcome(result: Result) -> None:
    passes = after(FULL, outcome(result, seconds=2.25))
    assert one(passes, "last_run_timestamp_seconds") == LATER
    assert one(passes, "last_run_duration_seconds") == 2.25


@each_result
def test_the_outcome_is_one_of_five_and_the_others_are_0(result: Result) -> None:
    assert by(after(FULL, outcome(result)), "last_run_outcome") == {each: each is result for each in Result}


def test_a_plan_leaves_no_mark() -> None:
    plan = replace(FULL, mode=Mode.PLAN, result=Result.DRIFT)
    assert shown(after(plan)) == shown(after())
    assert shown(after(FULL, plan)) == shown(after(FULL))


# --- what a pass that failed leaves as it was --------------------------------------------------------------------


@each_success
def test_a_success_is_clean_corrected_or_drift(result: Result) -> None:
    passes = after(outcome(Result.FAILED), outcome(result))
    assert one(passes, "last_success_timestamp_seconds") == passes.last_success_at == LATER


@each_stop
def test_a_pass_that_was_stopped_leaves_the_last_success(result: Result) -> None:
    passes = after(FULL, outcome(result))
    assert one(passes, "last_success_timestamp_seconds") == passes.last_success_at == ENDED


@each_stop
def test_a_pass_that_was_stopped_leaves_everything_but_its_own_end(result: Result) -> None:
    before, now = shown(after(FULL)), shown(after(FULL, outcome(result, REPORT, CORRECTION)))
    assert {series.name for series in before if now[series] != before[series]} == {
        "reconciler_last_run_timestamp_seconds",
        "reconciler_last_run_duration_seconds",
        "reconciler_last_run_outcome",
        "reconciler_last_run_impact_chf",
    }
    assert before.keys() == now.keys()


def test_a_pass_over_a_file_proves_nothing_and_leaves_what_is_proved() -> None:
    passes = after(FULL, outcome(Result.CLEAN, verified_until=None))
    assert one(passes, "verified_until_timestamp_seconds") == VERIFIED.timestamp()


def test_a_success_moves_what_is_proved() -> None:
    passes = after(FULL, outcome(Result.CLEAN, verified_until=VERIFIED + PERIOD))
    assert one(passes, "verified_until_timestamp_seconds") == (VERIFIED + PERIOD).timestamp()


def test_tenants_are_those_of_the_last_success() -> None:
    passes = after(FULL, outcome(Result.BLOCKED, tenants_observed=0, tenants_recorded=11))
    assert (one(passes, "tenants_observed"), one(passes, "tenants_recorded")) == (12, 11)


# --- findings ----------------------------------------------------------------------------------------------------


def test_findings_are_counted_by_reason_and_action() -> None:
    passes = after(outcome(Result.CORRECTED, CORRECTION, CORRECTION._replace(subject="wiki"), REPORT, DEFERRED))
    findings = {series.labels: value for series, value in shown(passes).items() if series.name == "reconciler_findings"}
    assert {tuple(reversed(dict(labels).values())): value for labels, value in findings.items() if value} == {
        ("skill_enable_unrecorded", "append"): 2,
        ("org_moved", "report"): 1,
        ("suspension_unrecorded", "defer"): 1,
    }


def test_what_can_be_found_is_there_at_0_from_the_first_success_on() -> None:
    """Each reason with what the program does about it, and deferred: a series that is absent cannot be compared."""
    findings = Counter(series.labels for series in shown(after(outcome(Result.CLEAN))) if "findings" in series.name)
    possible = {(reason, action) for reason in Reason for action in (ACTION[reason], Action.DEFER)}
    reports = {reason for reason in Reason if ACTION[reason] is Action.REPORT}
    assert findings.keys() == {(("action", action), ("reason", reason)) for reason, action in possible} | {
        (("reason", reason),) for reason in reports
    }


def test_accepted_reports_are_counted_apart() -> None:
    passes = after(outcome(Result.CLEAN, ACCEPTED, ACCEPTED._replace(tenant="beta")))
    assert one(passes, "findings", reason="org_unlabelled", action="report") == 0
    assert one(passes, "findings_accepted", reason="org_unlabelled") == 2


def test_what_is_found_no_more_falls_to_0() -> None:
    passes = after(FULL, outcome(Result.CLEAN))
    assert not any(value for series, value in shown(passes).items() if "findings" in series.name)


# --- what it is worth --------------------------------------------------------------------------------------------


def test_corrections_are_counted_by_the_ledger() -> None:
    assert by(after(FULL), "corrections_total") == dict.fromkeys(CORRECTING, 0) | {
        "skill_enable_unrecorded": 41,
        "deletion_unrecorded": 7,
    }


def test_what_customers_were_overcharged_is_counted_as_a_positive_amount() -> None:
    """A counter only grows, and a credit grows in size."""
    assert by(after(FULL), "impact_chf_total") == {"positive": 200.10, "negative": 31.60}


def test_the_last_run_is_worth_what_it_wrote() -> None:
    more = CORRECTION._replace(impact_chf=Decimal("0.70"))
    passes = after(outcome(Result.CORRECTED, CORRECTION, CREDIT, more, found(Reason.ORG_RESOLVED)))
    assert by(passes, "last_run_impact_chf") == {"positive": 13.00, "negative": 4.05}


@each_stop
def test_a_pass_that_was_stopped_is_worth_nothing(result: Result) -> None:
    """What a refused pass would have written is among its findings."""
    assert by(after(FULL, outcome(result, CORRECTION, CREDIT)), "last_run_impact_chf") == {"positive": 0, "negative": 0}


def test_without_totals_the_former_ones_stay() -> None:
    passes = after(FULL, outcome(Result.FAILED))
    assert by(passes, "corrections_total") == by(after(FULL), "corrections_total")
    assert by(passes, "impact_chf_total") == by(after(FULL), "impact_chf_total")


@each_stop
def test_a_pass_that_was_stopped_shows_the_totals_that_it_knows(result: Result) -> None:
    assert by(after(outcome(result, totals=TOTALS)), "impact_chf_total") == {"positive": 200.10, "negative": 31.60}


def test_where_nothing_was_ever_corrected_the_counters_begin_at_0() -> None:
    """So that the first correction is seen as an increase."""
    passes = after(outcome(Result.CLEAN, totals={}))
    assert by(passes, "corrections_total") == dict.fromkeys(CORRECTING, 0)
    assert by(passes, "impact_chf_total") == {"positive": 0, "negative": 0}


amounts = st.decimals(min_value=0, max_value=1000, places=2)
growing = st.lists(
    st.none() | st.tuples(st.sampled_from(sorted(CORRECTING)), st.integers(1, 9), amounts, amounts), max_size=8
)


@given(growing)
def test_counters_never_fall(passes: list[tuple[Reason, int, Decimal, Decimal] | None]) -> None:
    """Whatever is corrected, and whichever passes fail in between."""
    watched, totals = after(), {reason: Total(0, Decimal(0), Decimal(0)) for reason in CORRECTING}
    before: dict[Series, float] = {}
    for more in passes:
        if more is None:
            watched.take(outcome(Result.FAILED), ENDED)
        else:
            reason, corrections, positive, negative = more
            was = totals[reason]
            totals[reason] = Total(
                was.corrections + corrections, was.positive_chf + positive, was.negative_chf - negative
            )
            watched.take(outcome(totals=dict(totals)), ENDED)
        now = {series: value for series, value in shown(watched).items() if series.name.endswith("_total")}
        assert all(now[series] >= value for series, value in before.items())
        before = now


def test_what_is_counted_goes_on_where_another_process_left_off(world: World) -> None:
    """Two passes over a real ledger, each seen by a process of its own."""
    counted = []
    for name in ("acme", "beta"):
        world.api.create(tenant(name, packages=["mail"]), at=world.now - timedelta(hours=2))
        passes = after(world.run())
        counted.append(by(passes, "corrections_total"))
    nothing = dict.fromkeys(CORRECTING, 0)
    assert counted == [
        nothing | {"tenant_unrecorded": 1, "skill_enable_unrecorded": 1},
        nothing | {"tenant_unrecorded": 2, "skill_enable_unrecorded": 2},
    ]


# --- alerts that were not delivered, and threads -----------------------------------------------------------------


def test_messages_that_could_not_be_delivered_are_counted_by_sink() -> None:
    passes = after(FULL, sinks=["alertmanager", "events"])
    passes.undelivered("events")
    passes.undelivered("events")
    passes.undelivered("heartbeat")
    assert by(passes, "alerts_undelivered_total") == {"alertmanager": 0, "events": 2, "heartbeat": 1}


def test_where_nobody_is_told_there_is_nothing_to_count() -> None:
    assert by(after(FULL, sinks=()), "alerts_undelivered_total") == {}


def test_what_is_read_while_passes_end_is_all_of_one_pass() -> None:
    passes, done = after(), threading.Event()

    def make() -> None:
        for number in range(1, 400):
            passes.take(outcome(Result.CLEAN, tenants_observed=number, tenants_recorded=number), number)
        done.set()

    maker = threading.Thread(target=make)
    maker.start()
    seen = set()
    while not done.is_set():
        now = {metric.name: metric.samples[0].value for metric in passes.collect()}
        fields = ("last_run_timestamp_seconds", "last_success_timestamp_seconds", "tenants_observed")
        seen.add(tuple(now.get(f"reconciler_{field}") for field in fields))
    maker.join()
    assert seen
    assert all(len(set(values)) == 1 for values in seen)


def test_no_failed_delivery_is_lost_between_threads() -> None:
    passes = after()

    def fail() -> None:
        for _ in range(1000):
            passes.undelivered("alertmanager")

    threads = [threading.Thread(target=fail) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert by(passes, "alerts_undelivered_total") == {"alertmanager": 4000}
