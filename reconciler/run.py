"""One run, in order. This is the only module that knows it.

List the tenants, find the ones that differ from the ledger, date each change by its evidence, recheck what is in doubt,
build the plan, check the safety limits, add the impact, commit, notify.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog

from reconciler.core.compare import Comparison
from reconciler.core.dating import ROUNDING, Dating, clock_difference, find_dated
from reconciler.core.errors import Refusal, as_failure
from reconciler.core.impact import add_impact, is_priced
from reconciler.core.model import Mode, Outcome, Result
from reconciler.core.plan import TooMuchDrift, build_plan, refuse_empty
from reconciler.core.recheck import confirm, is_relisting_cheaper, needs_recheck, refuse_incomplete
from reconciler.db import runs
from reconciler.db.candidates import TenantSpool, accepted_reports, find_candidates, stage
from reconciler.db.changes import Settlement
from reconciler.db.connection import Ledger
from reconciler.db.contradictions import look_at_events, read_marks
from reconciler.db.positions import Sightings
from reconciler.db.usage import Billed, histories, prices
from reconciler.sources.listing import list_all, list_tenants, read_again

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from datetime import datetime

    from reconciler.core.model import Changed, Listing
    from reconciler.core.plan import Plan
    from reconciler.db.contradictions import EventsSeen, Marks
    from reconciler.db.runs import Start
    from reconciler.job import Job

MAX_CLOCK_DIFFERENCE = timedelta(seconds=5)
"""A larger one between the API server's clock and the database's is warned about."""

_log = structlog.get_logger(__name__)


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
    with Sightings() as sightings, Ledger(job.database_url) as ledger:
        try:
            for progress in _steps(job, ledger, known, sightings):
                known = progress
        except Exception as error:  # noqa: BLE001 - what nobody foresaw is a failed run, with its row and its alerts
            failure = as_failure(error)
            result = Result.BLOCKED if isinstance(failure, Refusal) else Result.FAILED
            known = replace(known, result=result, failure=failure, verified_until=None)
            # of the refusals only this one is not about the list: what that showed is true
            kept = sightings if isinstance(failure, TooMuchDrift) else None
            return runs.record_stop(ledger, known, kept)
    return known


def _steps(job: Job, ledger: Ledger, known: Outcome, sightings: Sightings) -> Iterator[Outcome]:
    """Yield what is known of the run after each step."""
    started = runs.start(ledger, job.deadline.left())
    yield (known := replace(known, observed_at=started.observed_at, settle=job.options.settle))
    if known.mode is Mode.RUN:
        started.raise_unless_permitted()
    started = runs.look_back(ledger, job.deadline.left(), started, job.options.full_every)
    ledger.close()
    with TenantSpool() as spool:
        accept, start_log = job.options.accept_source, job.start_log(started.position)
        listing = list_tenants(job.source, spool, started.last, started.since, start_log, accept=accept)
        _log_listing(job, listing)
        known = replace(known, names=listing.changed and listing.changed.names)
        yield (known := replace(known, source=listing.source, resource_version=listing.resource_version))
        dating = _dating(job, started, listing)
        if job.source.is_live:
            sightings.expect(started, listing, accept=accept)
        first = _compare(job, ledger, spool, dating, sightings, changed=listing.changed)
    settled = _settle(job, ledger, sightings, dating, first)
    first = settled.without(first)
    yield (known := replace(known, history=sightings.read, unproven=sightings.unproven))

    doubtful = needs_recheck(first, listing, job.options.settle, started.observed_at) if job.source.is_live else []
    second = first
    if doubtful:
        again, known = yield from _recheck(
            job, ledger, dating, sightings, first, listing=listing, known=known, names=doubtful
        )
        second = settled.without(again)
    found = (*confirm(first, second, doubtful, started.observed_at), *settled.findings)
    plan, seen = _mark(job, ledger, build_plan(found, first), started.observed_at, started.marks)
    yield (known := plan.known(known, first.observed))

    plan.raise_if_unsafe(job.options.limits)
    plan = _add_impact(job, ledger, plan, started.observed_at)
    yield (known := replace(known, result=plan.result(known.mode), findings=plan.findings))
    if known.mode is Mode.RUN:
        # rows of younger changes may still be on their way; only a list of all tenants of a cluster is a proof
        is_proof = job.source.is_live and not listing.changed
        known = replace(known, verified_until=started.observed_at - job.options.settle if is_proof else None)
        limits, time_left = job.options.limits, job.deadline.left
        yield from runs.commit(ledger, plan, known, sightings, seen, limits=limits, time_left=time_left)


def _log_listing(job: Job, listing: Listing) -> None:
    """Log when the tenants were listed, and how many of them are compared."""
    compared = len(listing.changed.names) if listing.changed else "all"
    facts = {"source": listing.source, "resource_version": listing.resource_version, "compared": compared}
    _log.info("tenants.observed", **facts, seconds=round(time.monotonic() - job.began, 3))


def _dating(job: Job, started: Start, listing: Listing) -> Dating:
    """Return how changes are dated, with a tolerance for how far the two clocks are apart."""
    difference = clock_difference(started.observed_at, listing, started.read_at)
    if difference > MAX_CLOCK_DIFFERENCE:
        _log.warning("clocks.differ", seconds=round(difference.total_seconds()), meaning="evidence is less exact")
    return Dating(observed_at=started.observed_at, tolerance=ROUNDING + difference, fallback=job.options.fallback)


def _compare(
    job: Job,
    ledger: Ledger,
    spool: TenantSpool,
    dating: Dating,
    sightings: Sightings,
    *,
    changed: Changed | None = None,
    again: list[str] | None = None,
) -> Comparison:
    """Compare the tenants with what is remembered of them and with the ledger, and date what differs.

    It is restricted to those that have `changed`, or that are read `again`: of these more is known than is remembered.
    """
    with ledger.transaction(job.deadline.left()) as cursor:
        staged, names = stage(cursor, spool, changed), changed.names if changed else again
        if not again:
            sightings.look(cursor)
        found = find_candidates(
            cursor, staged, settle=job.options.settle, names=names, everyone=bool(again), renewed=sightings.renewed
        )
    observed = {recorded.name: observed for observed, recorded in found.candidates}
    findings = find_dated(found.candidates, dating, as_of=found.as_of, settle=job.options.settle)
    return Comparison(observed, findings, *found[1:])


def _settle(job: Job, ledger: Ledger, sightings: Sightings, dating: Dating, first: Comparison) -> Settlement:
    """Take in the change log, and return what it decides of what the comparison found."""
    sightings.read_log()
    if not sightings.decides(first):
        return Settlement()
    with ledger.transaction(job.deadline.left()) as cursor:
        return sightings.settle(cursor, first, dating, job.options.settle)


def _recheck(
    job: Job,
    ledger: Ledger,
    dating: Dating,
    sightings: Sightings,
    first: Comparison,
    *,
    listing: Listing,
    known: Outcome,
    names: list[str],
) -> Generator[Outcome, None, tuple[Comparison, Outcome]]:
    """Wait for the settle period, then read these tenants and the ledger again. Only this step waits."""
    settle = job.options.settle.total_seconds()
    _log.info("recheck.waiting", tenants=len(names), settle_seconds=settle)
    ledger.close()
    job.sleep(min(settle, job.deadline.left()))
    relist = is_relisting_cheaper(first, names, namespaced=job.source.namespaced)
    with TenantSpool() as spool:
        if relist:
            again = list_all(job.source, spool, listing, accept=False)
            _log_listing(job, again)
            yield (known := replace(known, source=again.source, resource_version=again.resource_version))
        else:
            read_again(job.source, spool, names, first.observed)
        # only drift that is seen both times counts, so it had happened when the first comparison ended
        second = _compare(job, ledger, spool, replace(dating, observed_at=first.as_of), sightings, again=names)
    refuse_incomplete(first, second, listing, job.options.settle)
    if relist:
        refuse_empty(second.tenants_observed, second.tenants_recorded)
    return second, known


def _mark(job: Job, ledger: Ledger, plan: Plan, as_of: datetime, marks: Marks | None) -> tuple[Plan, EventsSeen | None]:
    """Add contradictions and who is restless, mark what is accepted; also say which events were seen."""
    if not (plan.findings or job.source.is_live):
        return plan, None
    with ledger.transaction(job.deadline.left()) as cursor:
        seen = None
        if job.source.is_live:
            plan, seen = look_at_events(cursor, plan, job.options.settle, marks or read_marks(cursor))
        plan = runs.report_restless(cursor, plan, as_of)
        return plan.marked(accepted_reports(cursor)), seen


def _add_impact(job: Job, ledger: Ledger, plan: Plan, as_of: datetime) -> Plan:
    """Add each correction's impact up to the observation: in closed months at their kept prices, else at today's."""
    if not any(map(is_priced, plan.findings)):
        return plan
    with ledger.transaction(job.deadline.left()) as cursor:
        return add_impact(plan, prices(cursor), as_of, partial(histories, cursor), Billed(cursor))
