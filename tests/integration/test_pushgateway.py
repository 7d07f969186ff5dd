"""A push updates the metrics of a run and shows no secret, on a fake and on a real Pushgateway."""

from __future__ import annotations

import os
import re
import signal
import time
from base64 import b64decode
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pytest
import urllib3
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.alerts import Undelivered
from reconciler.alerts.pushgateway import Pushgateway
from reconciler.core.model import Mode, Outcome, Result, Total
from reconciler.core.reasons import CORRECTING, Reason
from reconciler.metrics import RunMetrics
from tests.integration.test_metrics import FULL, LABELS, PERIOD, Series, make_finding, make_outcome, read, scrape
from tests.support.programs import PATIENCE, free_address, get, needs, running
from tests.support.receivers import Receiver, hang, status

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

TARGET_LABELS = {"job", "instance", "pod"}
"""Labels that Prometheus adds to what it scrapes."""
BCRYPT_OF_HUNTER2 = "$2b$04$Od50XXcyzzZnD5vKJ5IQQePx462Y2hrFoBc6wNcctYMHAhlIIMTQa"


# --- a fake Pushgateway ------------------------------------------------------------------------------------------


@pytest.fixture
def gateway() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def make_sink(url: str, **fields: Any) -> Pushgateway:
    return replace(Pushgateway(url=url, period=PERIOD, now=time.time), **fields)


def undelivered(to: Pushgateway, outcome: Outcome = FULL) -> str:
    """Return why the push failed, which must not take longer than the timeout."""
    began = time.monotonic()
    with pytest.raises(Undelivered) as failed:
        to.notify(outcome)
    assert time.monotonic() - began < to.timeout + 1
    return str(failed.value)


def test_a_push_posts_to_the_group_of_the_job(gateway: Receiver) -> None:
    """POST and not PUT, which would erase the last success."""
    make_sink(f"{gateway.url}/").notify(FULL)
    (request,) = gateway.requests
    assert (request.method, request.path) == ("POST", "/metrics/job/reconciler")


def test_another_job_has_another_group(gateway: Receiver) -> None:
    make_sink(f"{gateway.url}/behind/a/proxy", job="billing").notify(FULL)
    assert gateway.requests[0].path == "/behind/a/proxy/metrics/job/billing"


def test_an_address_may_lack_a_scheme(gateway: Receiver) -> None:
    make_sink(gateway.host).notify(FULL)
    assert len(gateway.requests) == 1


def test_a_push_has_what_the_run_updates(gateway: Receiver) -> None:
    """Undelivered messages are not pushed: the next process would begin at 0 again."""
    now = 1_750_000_000.0
    make_sink(gateway.url, now=lambda: now).notify(FULL)
    alone = RunMetrics(period=PERIOD)
    alone.record(FULL, now)
    assert read(gateway.requests[0].body.decode()) == scrape(alone)
    assert "reconciler_alerts_undelivered_total" not in gateway.requests[0].body.decode()


@pytest.mark.parametrize("result", [Result.BLOCKED, Result.FAILED])
def test_a_stopped_run_pushes_nothing_about_the_ledger(gateway: Receiver, result: Result) -> None:
    make_sink(gateway.url).notify(make_outcome(result, *FULL.findings))
    pushed = {series.name for series in read(gateway.requests[0].body.decode())}
    assert pushed == {name for name in LABELS if re.search("last_run|build|period", name)}


def test_a_plan_is_not_pushed(gateway: Receiver) -> None:
    make_sink(gateway.url).notify(replace(FULL, mode=Mode.PLAN))
    assert gateway.requests == []


def test_the_pushgateway_gets_every_run() -> None:
    """Clean runs too, because they update the last success."""
    assert make_sink("http://127.0.0.1:1").deduplicates
    assert make_sink("http://127.0.0.1:1").name == "pushgateway"


def test_user_name_and_password_are_sent_but_not_shown(gateway: Receiver) -> None:
    to = make_sink(f"http://me:{quote('pa/ss:wörd@', safe='')}@{gateway.host}")
    to.notify(FULL)
    (request,) = gateway.requests
    assert b64decode(request.headers["authorization"].removeprefix("Basic ")).decode() == "me:pa/ss:wörd@"
    assert "me:" not in request.path + request.headers["host"] + repr(to)


def test_libraries_get_the_address_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they do not have, their errors and logs cannot show."""
    seen: list[str] = []
    monkeypatch.setattr("reconciler.alerts.pushgateway.pushadd_to_gateway", lambda url, **_: seen.append(url))
    make_sink("http://me:hunter2@pushgateway:9091").notify(FULL)
    assert seen == ["http://pushgateway:9091"]


def test_without_a_user_name_no_authorization_is_sent(gateway: Receiver) -> None:
    make_sink(gateway.url).notify(FULL)
    assert "authorization" not in gateway.requests[0].headers


@pytest.mark.parametrize("code", [400, 401, 404, 500, 503])
def test_metrics_that_are_not_accepted_are_undelivered(gateway: Receiver, code: int) -> None:
    gateway.otherwise = status(code)
    assert f"answered {code}" in undelivered(make_sink(f"http://me:hunter2@{gateway.host}"))


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(gateway: Receiver, code: int) -> None:
    """The push would become a GET without metrics, and the password would be sent elsewhere."""
    gateway.otherwise = status(code, Location=f"{gateway.url}/elsewhere")
    assert f"answered {code}" in undelivered(make_sink(f"http://me:hunter2@{gateway.host}"))
    assert len(gateway.requests) == 1


def test_a_gateway_that_does_not_answer_is_given_up_in_time(gateway: Receiver) -> None:
    gateway.otherwise = hang()
    why = undelivered(make_sink(gateway.url, timeout=0.3))
    assert why == "The Pushgateway was not reached: no answer in time."


def test_an_unreachable_gateway_is_reported_as_such() -> None:
    why = undelivered(make_sink(f"http://{free_address()}"))
    assert why == "The Pushgateway was not reached: Connection refused."


@given(st.text(max_size=12))
@settings(deadline=None)
def test_no_message_contains_the_password(more: str) -> None:
    """Not even if it is not encoded and parts of it are parsed as a host, a port or a path."""
    to = make_sink(f"http://127.0.0.1:hunter2{more}@127.0.0.1:1", timeout=0.5)
    assert "hunter" not in undelivered(to) + repr(to)


# --- the real Pushgateway ----------------------------------------------------------------------------------------


@contextmanager
def pushgateway(*options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a Pushgateway that stores nothing on disk."""
    address = free_address()
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
