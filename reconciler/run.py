"""One run, in order. This is the only module that knows it.

List the tenants, find the ones that differ from the ledger, date each change by its evidence, recheck what is in doubt,
build the plan, check the safety limits, add the impact, commit, notify.
"""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog

from reconciler.alerts import Alerts
from reconciler.core.compare import Comparison, compare
from reconciler.core.dating import ROUNDING, Dating, clock_difference
from reconciler.core.errors import Refusal, as_failure
from reconciler.core.impact import add_impact
from reconciler.core.model import FallbackDating, Mode, Outcome, Result
from reconciler.core.plan import Limits, build_plan, refuse_empty
from reconciler.core.recheck import confirm, is_relisting_cheaper, needs_recheck, refuse_incomplete
from reconciler.db import runs
from reconciler.db.candidates import TenantSpool, accepted_reports, find_candidates, invoiced_periods
from reconciler.db.connection import connect, transaction
from reconciler.db.usage import histories, prices
from reconciler.sources.listing import list_tenants

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator
    from datetime import datetime

    from reconciler.core.model import Listing, Source
    from reconciler.core.plan import Plan
    from reconciler.db.connection import Cursor
    from reconciler.db.runs import Start
    from reconciler.deadline import Deadline

MAX_CLOCK_DIFFERENCE = timedelta(seconds=5)
"""A larger one between the API server's clock and the database's is warned about."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a run goes about it."""

    mode: Mode = Mode.RUN
    settle: timedelta = timedelta(seconds=60)
    """How long after a change of the resource the portal may still write its row."""
    fallback: FallbackDating = FallbackDating.CUSTOMER
    limits: Limits = field(default_factory=Limits)
    accept_source: bool = False
    """True if another source than the pinned one is accepted, and pinned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a run works on, and when it must end. People are notified after that, and never of a plan."""

    database_url: str = field(repr=False)
    source: Source
    options: RunOptions
    deadline: Deadline
    alerts: Alerts = field(default_factory=Alerts)
    sleep: Callable[[float], object] = time.sleep
    began: float = field(default_factory=time.monotonic)
    """In seconds of `time.monotonic`."""


def reconcile(job: Job) -> Outcome:
    """Run once. What stopped the run is in the outcome, and in the ledger where that can be reached."""
    known = Outcome(run_id=uuid4(), mode=job.options.mode, result=Result.FAILED, recipients=job.alerts.names)
    if known.mode is Mode.RUN:
        job.alerts.begin(known.run_id)
    outcome = replace(_run_steps(job, known), seconds=time.monotonic() - job.began)
    if outcome.mode is Mode.RUN and (notified := job.alerts.notify(outcome)) and outcome.recorded:
        runs.record_notified(job.database_url, outcome, notified)
    return outcome


def _run_steps(job: Job, known: Outcome) -> Outcome:
    """Return how the run ended: where a step failed, what was known until then, and the failure."""
    try:
        for progress in _steps(job, known):
            known = progress
    except Exception as error:  # noqa: BLE001 - what nobody foresaw is a failed run, with its row and its alerts
        failure = as_failure(error)
        result = Result.BLOCKED if isinstance(failure, Refusal) else Result.FAILED
        return runs.record_stop(job.database_url, replace(known, result=result, failure=failure, verified_until=None))
    return known


def _steps(job: Job, known: Outcome) -> Iterator[Outcome]:
    """Yield what is known of the run after each step."""
    with closing(connect(job.database_url)) as db:
        started = runs.start(db, job.deadline.left())
    yield (known := replace(known, observed_at=started.observed_at, settle=job.options.settle))
    if known.mode is Mode.RUN:
        started.raise_unless_permitted()

    with TenantSpool() as spool:
        listing = _list(job, spool, started.last, accept=job.options.accept_source)
        yield (known := replace(known, source=listing.source, resource_version=listing.resource_version))
        dating = _dating(job, started, listing)
        first = _compare(job, spool, dating)

    doubtful = needs_recheck(first, listing, job.options.settle) if job.source.is_live else []
    if doubtful:
        second, known = yield from _recheck(job, dating, first, listing, known=known, names=doubtful)
    else:
        second = first
    plan = _mark(job, build_plan(confirm(first, second, doubtful), first), started.observed_at)
    yield (known := _with_plan(known, plan, first))

    plan.raise_if_unsafe(job.options.limits)
    plan = _add_impact(job, plan, started.observed_at)
    yield (known := replace(known, result=plan.result(known.mode), findings=plan.findings))
    if known.mode is Mode.RUN:
        # rows of younger changes may still be on their way, and a file proves nothing of the cluster
        verified = started.observed_at - job.options.settle if job.source.is_live else None
        known = replace(known, verified_until=verified)
        yield from runs.commit(job.database_url, plan, known, limits=job.options.limits, time_left=job.deadline.left)


def _list(job: Job, spool: TenantSpool, last: Listing | None, *, accept: bool) -> Listing:
    """List the tenants into the spool, and log when that was done."""
    listing = list_tenants(job.source, spool, last, accept=accept)
    facts = {"source": listing.source, "resource_version": listing.resource_version}
    _log.info("tenants.observed", **facts, seconds=round(time.monotonic() - job.began, 3))
    return listing


def _dating(job: Job, started: Start, listing: Listing) -> Dating:
    """Return how changes are dated, with a tolerance for how far the two clocks are apart."""
    difference = clock_difference(started.observed_at, listing, started.read_at)
    if difference > MAX_CLOCK_DIFFERENCE:
        _log.warning("clocks.differ", seconds=round(difference.total_seconds()), meaning="evidence is less exact")
    return Dating(observed_at=started.observed_at, tolerance=ROUNDING + difference, fallback=job.options.fallback)


@contextmanager
def _transaction(job: Job) -> Iterator[Cursor]:
    """Open a transaction on a connection of its own: none idles while the run lists, waits or reckons."""
    with closing(connect(job.database_url)) as db, transaction(db, job.deadline.left()) as cursor:
        yield cursor


def _compare(job: Job, spool: TenantSpool, dating: Dating, names: Collection[str] | None = None) -> Comparison:
    """Compare the listed tenants with the ledger, and date what differs; `names` restricts it to some."""
    with _transaction(job) as cursor:
        found = find_candidates(cursor, spool, settle=job.options.settle, names=names, everyone=names is not None)
    findings = {}
    for observed, recorded in found.candidates:
        differences = compare(observed, recorded, as_of=found.as_of, tolerance=dating.tolerance)
        findings[recorded.name] = tuple(dating.dated(differences, observed, recorded))
    return Comparison({recorded.name: observed for observed, recorded in found.candidates}, findings, *found[1:])


def _recheck(
    job: Job,
    dating: Dating,
    first: Comparison,
    listing: Listing,
    *,
    known: Outcome,
    names: list[str],
) -> Generator[Outcome, None, tuple[Comparison, Outcome]]:
    """Wait for the settle period, then read these tenants and the ledger again. Only this step waits."""
    settle = job.options.settle.total_seconds()
    _log.info("recheck.waiting", tenants=len(names), settle_seconds=settle)
    job.sleep(min(settle, job.deadline.left()))
    relist = is_relisting_cheaper(first, names, namespaced=job.source.namespaced)
    with TenantSpool() as spool:
        if relist:
            again = _list(job, spool, listing, accept=False)
            yield (known := replace(known, source=again.source, resource_version=again.resource_version))
        else:
            for name in names:
                before = first.observed[name]
                if tenant := job.source.get(name, before.namespace if before else None):
                    spool.add(tenant)
        # only drift that is seen both times counts, so it had happened when the first comparison ended
        second = _compare(job, spool, replace(dating, observed_at=first.as_of), names)
    refuse_incomplete(first, second, listing, job.options.settle)
    if relist:
        refuse_empty(second.tenants_observed, second.tenants_recorded)
    return second, known


def _mark(job: Job, plan: Plan, as_of: datetime) -> Plan:
    """Report who is restless; mark the corrections that lie in invoiced months, and the reports that people accept."""
    if not plan.findings:
        return plan
    with _transaction(job) as cursor:
        plan = runs.report_restless(cursor, plan, as_of)
        return plan.marked(invoiced_periods(cursor, plan.dated_orgs), accepted_reports(cursor))


def _add_impact(job: Job, plan: Plan, as_of: datetime) -> Plan:
    """Add each correction's impact up to the observation, at today's prices."""
    if not plan.corrections:
        return plan
    with _transaction(job) as cursor:
        return add_impact(plan, prices(cursor), as_of, partial(histories, cursor))


def _with_plan(known: Outcome, plan: Plan, first: Comparison) -> Outcome:
    return replace(
        known,
        findings=plan.findings,
        tenants_observed=plan.tenants_observed,
        tenants_recorded=plan.tenants_recorded,
        observed={f.tenant: seen for f in plan.findings if (seen := first.observed.get(f.tenant))},
    )
