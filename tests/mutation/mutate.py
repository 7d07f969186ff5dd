"""The guards are load-bearing: take each away in turn, and a test fails.

    python tests/mutation/mutate.py [WORD]   only the guards with the word in their name

Each mutant is a copy of the checkout with one replacement. It is killed by the first of its tests that fails; a mutant
that survives is a guard that nothing holds, and the exit code is 1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
COPIED = (
    "reconciler",
    "sql",
    "tests",
    "monitoring",
    "pyproject.toml",
    "cronjob.yaml",
    "docs",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "Makefile",
)
AT_ONCE = os.cpu_count() or 1
LONGEST = 240
"""Seconds that the tests of one mutant may take: one that never ends is found, too."""


class Guard(NamedTuple):
    """What keeps something wrong from being written, and how it is taken away."""

    name: str
    file: str
    stands: str
    without: str
    tests: str


API = "tests/integration/test_recheck.py tests/faults/test_api.py"
TENANT = "tests/integration/test_recheck.py tests/faults/test_tenant.py"
CHANGE_LOG = "tests/integration/test_change_log.py"
CHANGES_TESTS = "tests/unit/test_changes.py"
PAIRING_TESTS = "tests/unit/test_pairing.py"
WORLD_TESTS = "tests/integration/test_history_between_runs.py"
CONTRADICTION_TESTS = "tests/unit/test_contradictions.py"
ALERTS = "tests/integration/test_alerts.py"
RECHECK = "tests/unit/test_recheck.py"
RESTLESS = "tests/integration/test_recheck.py"
OUTPUTS = "tests/faults/test_outputs.py"
LEDGER = "tests/integration/test_recheck.py tests/faults/test_ledger.py"
PARKED = "tests/faults/test_parked.py"
TAKEN_BACK = "tests/integration/test_taken_back.py"

SETTINGS = "tests/faults/test_database_settings.py"

LIST = "sources/listing.py"

HISTORY, POSITIONS, SIGHTED = "core/history.py", "db/positions.py", "queries/positions.sql"
HISTORY_TESTS = "tests/unit/test_history.py"
POSITION_TESTS = "tests/integration/test_positions.py"
COMPARE_TESTS = "tests/unit/test_compare.py"

GUARDS = (
    Guard("the safety limits", "core/plan.py", "        if over:\n", "        if False:\n", "tests/unit/test_plan.py"),
    Guard("the empty list", "core/plan.py", "if not tenants_observed and", "if False and", "tests/unit/test_plan.py"),
    Guard(
        "the limit counts tenants of each reason",
        "core/plan.py",
        "n > allowed and reason not in limits.allow_mass",
        "n > allowed * 1000 and reason not in limits.allow_mass",
        "tests/unit/test_plan.py",
    ),
    Guard(
        "the recheck",
        "run.py",
        "doubtful = needs_recheck(first, listing, job.options.settle) if job.source.is_live else []",
        "doubtful: list[str] = []",
        TENANT,
    ),
    Guard(
        "an absence is always rechecked",
        "core/recheck.py",
        "    if observed is None or observed.last_modified_at is None or",
        "    if observed is None:\n        return True\n    if observed.last_modified_at is None or",
        TENANT,
    ),
    Guard(
        "a change that moves no time is rechecked",
        "core/recheck.py",
        "if any(_is_undated(finding.reason, observed) for finding in findings):",
        "if False:",
        TENANT,
    ),
    Guard(
        "what is younger than settle is rechecked",
        "core/recheck.py",
        "return observed.last_modified_at <= quiet_since",
        "return True",
        TENANT,
    ),
    Guard(
        "what the ledger knows a later change of is rechecked",
        "core/recheck.py",
        "if recorded is not None and recorded > observed.last_modified_at + ROUNDING:",
        "if False:",
        TENANT,
    ),
    Guard(
        "the same resource at both looks",
        "core/recheck.py",
        "return observed.uid, observed.deleting_at, ",
        "return ",
        RECHECK,
    ),
    Guard(
        "the same packages at both looks",
        "core/recheck.py",
        "observed.deleting_at, observed.packages,",
        "observed.deleting_at,",
        RECHECK,
    ),
    Guard(
        "the same suspension at both looks",
        "core/recheck.py",
        "observed.packages, observed.suspended",
        "observed.packages",
        RECHECK,
    ),
    Guard(
        "a restless tenant is reported",
        "run.py",
        "        plan = runs.report_restless(cursor, plan, as_of)\n",
        "",
        RESTLESS,
    ),
    Guard(
        "a restless tenant kept changing in every run",
        "core/recheck.py",
        "names &= frozenset(changed)",
        "pass",
        RECHECK,
    ),
    Guard(
        "a restless tenant kept changing for an hour",
        "core/recheck.py",
        " and as_of - observed_at >= RESTLESS_AFTER:",
        ":",
        RECHECK,
    ),
    Guard(
        "a restless tenant kept changing in three runs",
        "core/recheck.py",
        "if number >= MIN_EARLIER_RUNS and ",
        "if ",
        RECHECK,
    ),
    Guard(
        "a row that came late makes nobody restless",
        "core/recheck.py",
        "finding.deferred(changing=not unchanged)",
        "finding.deferred(changing=True)",
        RECHECK,
    ),
    Guard(
        "only runs that prove something count for a restless tenant",
        "queries/run.sql",
        "SELECT observed_at, changing FROM reconciler.proving_runs",
        "SELECT observed_at, changing FROM reconciler.runs",
        RESTLESS,
    ),
    Guard(
        "the same drift at both looks",
        "core/recheck.py",
        "yield finding if _identity(finding) in before else finding.deferred(changing=True)",
        "yield finding",
        TENANT,
    ),
    Guard("the source pin", LIST, "if last and last.source != identity and not accept:", "if False:", API),
    Guard("one source in one run", LIST, "if listing.source != identity:", "if False:", API),
    Guard(
        "a list no older than the last",
        LIST,
        "if last and not accept and is_older(",
        "if False and is_older(",
        API,
    ),
    Guard(
        "remembered: nothing is billed after a deletion",
        HISTORY,
        "if before.deleting_at or (now and now.resource_version == before.resource_version):",
        "if now and now.resource_version == before.resource_version:",
        HISTORY_TESTS,
    ),
    Guard(
        "remembered: what was not written did not change",
        HISTORY,
        "if before.deleting_at or (now and now.resource_version == before.resource_version):",
        "if before.deleting_at:",
        HISTORY_TESTS,
    ),
    Guard(
        "remembered: what cannot be read is not proven",
        HISTORY,
        "if heir == UNREADABLE or (now and now.problem):",
        "if heir == UNREADABLE:",
        HISTORY_TESTS,
    ),
    Guard(
        "remembered: a name that cannot be read is not gone",
        HISTORY,
        "if heir == UNREADABLE or (now and now.problem):",
        "if now and now.problem:",
        HISTORY_TESTS,
    ),
    Guard(
        "remembered: what vanished is not proven",
        HISTORY,
        "return Unproven.VANISHED if heir is None else Unproven.RECREATED",
        "return None if heir is None else Unproven.RECREATED",
        HISTORY_TESTS,
    ),
    Guard(
        "remembered: what was recreated is not proven",
        HISTORY,
        "return Unproven.VANISHED if heir is None else Unproven.RECREATED",
        "return Unproven.VANISHED if heir is None else None",
        HISTORY_TESTS,
    ),
    Guard(
        "remembered: suspend was a boolean",
        HISTORY,
        "if not (before.suspend_is_set and now.suspend_is_set):",
        "if not now.suspend_is_set:",
        HISTORY_TESTS,
    ),
    Guard(
        "remembered: suspend is a boolean",
        HISTORY,
        "if not (before.suspend_is_set and now.suspend_is_set):",
        "if not before.suspend_is_set:",
        HISTORY_TESTS,
    ),
    Guard(
        "remembered: two changes are not one",
        HISTORY,
        "return None if moved in ({0} if before.unwritten_since else {0, 1}) else",
        "return None if moved in ({0} if before.unwritten_since else {0, 1, 2}) else",
        HISTORY_TESTS,
    ),
    Guard(
        "remembered: no generation is no evidence",
        HISTORY,
        "if now.generation and before.generation else None",
        "if now.generation and before.generation else 0",
        HISTORY_TESTS,
    ),
    Guard(
        "known since: the spec is as created",
        HISTORY,
        "is_known = is_as_created(first) and first.suspend_is_set",
        "is_known = first.suspend_is_set",
        HISTORY_TESTS,
    ),
    Guard(
        "known since: suspend is a boolean",
        HISTORY,
        "is_known = is_as_created(first) and first.suspend_is_set",
        "is_known = is_as_created(first)",
        HISTORY_TESTS,
    ),
    Guard(
        "restored: a tenant never goes back",
        HISTORY,
        "or is_older(now.resource_version, before.resource_version)",
        "",
        HISTORY_TESTS,
    ),
    Guard(
        "restored: a change lies past the position",
        HISTORY,
        " or is_older(now.resource_version, last)",
        "",
        HISTORY_TESTS,
    ),
    Guard(
        "restored: a change does not lie at the position",
        HISTORY,
        "is_of_before = now.resource_version == last or",
        "is_of_before =",
        HISTORY_TESTS,
    ),
    Guard(
        "restored: what was not written is not restored",
        HISTORY,
        "before.is_current and has_changed and is_of_before",
        "before.is_current and is_of_before",
        HISTORY_TESTS,
    ),
    Guard(
        "restored: what could not be read may have changed then",
        HISTORY,
        "before.is_current and has_changed and is_of_before",
        "has_changed and is_of_before",
        HISTORY_TESTS,
    ),
    Guard(
        "restored: versions are numbers",
        HISTORY,
        "int(version) < int(than)",
        "version < than",
        HISTORY_TESTS,
    ),
    Guard(
        "restored: the list of a copy is refused",
        POSITIONS,
        "                if not self.accept:\n",
        "                if False:\n",
        POSITION_TESTS,
    ),
    Guard(
        "restored: only who accepts takes one uid for another",
        POSITIONS,
        "if self.accept and is_as_remembered(forerunner, now):",
        "if is_as_remembered(forerunner, now):",
        POSITION_TESTS,
    ),
    Guard(
        "restored: only what is as it was is the same tenant",
        POSITIONS,
        "if self.accept and is_as_remembered(forerunner, now):",
        "if self.accept:",
        POSITION_TESTS,
    ),
    Guard(
        "restored: the same tenant is known as long",
        SIGHTED,
        "SET continues = true, since = f.since",
        "SET continues = true",
        POSITION_TESTS,
    ),
    Guard(
        "position: it moves once",
        SIGHTED,
        "\n      AND (position, position_at) IS NOT DISTINCT FROM (%(last_position)s::text, %(last_at)s::timestamptz)",
        "",
        POSITION_TESTS,
    ),
    Guard(
        "position: it is of the pinned source",
        SIGHTED,
        "WHERE identity = %(source)s\n      AND (position",
        "WHERE (position",
        POSITION_TESTS,
    ),
    Guard(
        "position: another run's younger list proves no copy",
        SIGHTED,
        "AND (SELECT (position, position_at) IS NOT DISTINCT FROM (%(last_position)s::text, %(last_at)s::timestamptz)\n"
        "             FROM reconciler.source)",
        "",
        POSITION_TESTS,
    ),
    Guard(
        "position: what is as remembered is not written",
        SIGHTED,
        "(t.resource_version, t.is_current, t.gone_at)\n"
        "                              IS DISTINCT FROM (o.resource_version, true, NULL)",
        "true",
        POSITION_TESTS,
    ),
    Guard(
        "position: what can be read again is current",
        SIGHTED,
        "(t.resource_version, t.is_current, t.gone_at)\n"
        "                              IS DISTINCT FROM (o.resource_version, true, NULL)",
        "(t.resource_version, t.gone_at) IS DISTINCT FROM (o.resource_version, NULL)",
        POSITION_TESTS,
    ),
    Guard(
        "position: what could not be read is not current",
        SIGHTED,
        "is_current = s.state <> 'unreadable'",
        "is_current = true",
        POSITION_TESTS,
    ),
    Guard(
        "position: a tenant without a version stops no run",
        POSITIONS,
        'now.resource_version or "",',
        "now.resource_version,",
        POSITION_TESTS,
    ),
    Guard(
        "gaps: those that adjoin are one",
        SIGHTED,
        "AND g.until_at >= s.from_at",
        "AND false",
        POSITION_TESTS,
    ),
    Guard(
        "gaps: those that do not adjoin are two",
        SIGHTED,
        "AND g.until_at >= s.from_at",
        "",
        POSITION_TESTS,
    ),
    Guard(
        "gaps: one grows to the last list",
        SIGHTED,
        "until_at = greatest(g.until_at, s.until_at)",
        "until_at = g.until_at",
        POSITION_TESTS,
    ),
    Guard(
        "gaps: a tenant has its own",
        SIGHTED,
        "g.tenant_name = s.tenant_name AND ",
        "",
        POSITION_TESTS,
    ),
    Guard(
        "history: a blocked run remembers",
        "run.py",
        "kept = sightings if isinstance(failure, TooMuchDrift) else None",
        "kept = None",
        POSITION_TESTS,
    ),
    Guard(
        "history: a refused list is not remembered",
        "run.py",
        "kept = sightings if isinstance(failure, TooMuchDrift) else None",
        "kept = sightings",
        POSITION_TESTS,
    ),
    Guard(
        "history: a file is not remembered",
        "run.py",
        "        if job.source.is_live:\n            sightings.expect(",
        "        if True:\n            sightings.expect(",
        POSITION_TESTS,
    ),
    Guard(
        "recreated: the uid tells",
        "core/compare.py",
        "return is_another or created_at > self.row.created_at + self.slack",
        "return created_at > self.row.created_at + self.slack",
        COMPARE_TESTS,
    ),
    Guard(
        "recreated: the creation tells",
        "core/compare.py",
        "return is_another or created_at > self.row.created_at + self.slack",
        "return is_another",
        COMPARE_TESTS,
    ),
    Guard(
        "recreated: a row may be late by settle",
        "core/compare.py",
        "or created_at > self.row.created_at + self.slack",
        "or created_at > self.row.created_at",
        COMPARE_TESTS,
    ),
    Guard(
        "recreated: who was taken for the same is not",
        "core/compare.py",
        "self.row.deleted_at or self.recorded.continues:",
        "self.row.deleted_at:",
        COMPARE_TESTS,
    ),
    Guard(
        "recreated: one that is being deleted is not stamped",
        "core/compare.py",
        "if (being_deleted or case.gone) and not stamped and not case.is_recreated:",
        "if (being_deleted or case.gone) and not stamped:",
        COMPARE_TESTS,
    ),
    Guard(
        "recreated: a closed row is not",
        "core/compare.py",
        "self.row is None or self.row.deleted_at or",
        "self.row is None or",
        COMPARE_TESTS,
    ),
    Guard(
        "recreated: nothing else is written about it",
        "core/compare.py",
        "(self.row is None or self.row.deleted_at is None) and not self.is_recreated else None",
        "(self.row is None or self.row.deleted_at is None) else None",
        COMPARE_TESTS,
    ),
    Guard(
        "recreated: the clocks may be apart",
        "core/compare.py",
        "recorded, as_of, settle + tolerance)",
        "recorded, as_of, settle)",
        COMPARE_TESTS,
    ),
    Guard(
        "recreated: a reopened row is its own",
        "core/compare.py",
        "self.recorded.follows and created_at != self.row.created_at",
        "self.recorded.follows",
        COMPARE_TESTS,
    ),
    Guard(
        "remembered: a change after an unwritten one is two",
        HISTORY,
        "({0} if before.unwritten_since else {0, 1})",
        "{0, 1}",
        HISTORY_TESTS,
    ),
    Guard(
        "restored: of nobody is it proven what was undone",
        "db/positions.py",
        "if self.is_restored and now and not before.deleting_at:",
        "if False:",
        POSITION_TESTS,
    ),
    Guard(
        "restored: a uid that is gone does not come back",
        HISTORY,
        "bool(before.gone_at)",
        "False",
        HISTORY_TESTS,
    ),
    Guard(
        "certificate: verified to the end",
        "core/certificate.py",
        "verified_until < question.until:\n",
        "verified_until < question.first:\n",
        "tests/unit/test_certificate.py",
    ),
    Guard(
        "certificate: known from the start",
        "core/certificate.py",
        "earliest is None or earliest > begins + question.settle:",
        "earliest is None:",
        "tests/unit/test_certificate.py",
    ),
    Guard(
        "certificate: never seen",
        "core/certificate.py",
        "earliest is None or earliest > begins",
        "earliest is not None and earliest > begins",
        "tests/unit/test_certificate.py",
    ),
    Guard(
        "certificate: a lifetime is one resources",
        "core/certificate.py",
        "if lived not in taken and _overlap(seen, lived)]",
        "if _overlap(seen, lived)]",
        "tests/unit/test_certificate.py",
    ),
    Guard(
        "certificate: who was taken for the same",
        "core/certificate.py",
        "if seen.continues:",
        "if False:",
        "tests/unit/test_certificate.py",
    ),
    Guard(
        "certificate: gaps in the period",
        "core/certificate.py",
        "if _is_within(one.from_at, one.until_at, question):\n            accepted = facts",
        "if False:\n            accepted = facts",
        "tests/unit/test_certificate.py",
    ),
    Guard(
        "certificate: accepted after its end",
        "core/certificate.py",
        "facts.accepted_at >= ended_at",
        "True",
        "tests/unit/test_certificate.py",
    ),
    Guard(
        "certificate: assumed across days",
        "core/certificate.py",
        "if is_of_days and _is_within",
        "if _is_within",
        "tests/unit/test_certificate.py",
    ),
    Guard(
        "certificate: reports about the past",
        "core/certificate.py",
        "and report.reason not in ABOUT_THE_PAST",
        "and True",
        "tests/unit/test_certificate.py",
    ),
    Guard(
        "certificate: reports about closed months",
        "core/certificate.py",
        "and report.reason not in NOT_ABOUT_PROOF:",
        "and True:",
        "tests/unit/test_certificate.py",
    ),
    Guard(
        "certificate: deferred",
        "core/certificate.py",
        "if facts.is_unverified and not facts.reports and not _is_proved",
        "if False and not _is_proved",
        "tests/unit/test_certificate.py",
    ),
    Guard(
        "certificate: proved since the end",
        "core/certificate.py",
        "facts.verified_until >= question.until)",
        "True)",
        "tests/unit/test_certificate.py",
    ),
    Guard(
        "changes: a time in its interval counts",
        "core/changes.py",
        "if at is not None and start - tolerance <= at <= end + tolerance:",
        "if at is not None:",
        CHANGES_TESTS,
    ),
    Guard(
        "changes: not before the last list",
        "core/changes.py",
        "*([lists[seen - 1].at] if seen else [])",
        "",
        CHANGES_TESTS,
    ),
    Guard(
        "changes: a version that moved no time says nothing",
        "core/changes.py",
        "while later and later[-1] <= latest:",
        "while later and later[-1] < latest:",
        CHANGES_TESTS,
    ),
    Guard(
        "changes: of a deletion only the deletion",
        "core/changes.py",
        "            yield shown.change(Kind.DELETED, None, now.deleting_at)\n            return\n",
        "            yield shown.change(Kind.DELETED, None, now.deleting_at)\n",
        CHANGES_TESTS,
    ),
    Guard(
        "pairing: a row of the same kind",
        "core/pairing.py",
        "    if row.kind != change.kind:\n        return None\n",
        "",
        PAIRING_TESTS,
    ),
    Guard(
        "pairing: a row in time",
        "core/pairing.py",
        "change.not_before - rules.tolerance <= at <= change.not_after + rules.grace",
        "True",
        PAIRING_TESTS,
    ),
    Guard(
        "pairing: the change that is due",
        "core/pairing.py",
        "return 1, int(rules.is_due(change)), -distance",
        "return 1, 0, -distance",
        PAIRING_TESTS,
    ),
    Guard(
        "pairing: the closest",
        "core/pairing.py",
        "int(rules.is_due(change)), -distance",
        "int(rules.is_due(change)), 0.0",
        PAIRING_TESTS,
    ),
    Guard(
        "pairing: no row at the end of a lifetime",
        "core/pairing.py",
        "row.occurred_at < life.ended_at]",
        "True]",
        PAIRING_TESTS,
    ),
    Guard(
        "pairing: the last row before a lifetime",
        "core/pairing.py",
        "before[-1].kind in TURNS_ON",
        "False",
        PAIRING_TESTS,
    ),
    Guard(
        "pairing: a correction's interval",
        "core/pairing.py",
        "if not is_near and not (row.interval and",
        "if not is_near and not (False and",
        PAIRING_TESTS,
    ),
    Guard(
        "pairing: a late row is waited for",
        "core/pairing.py",
        "return change.not_after + self.grace <= self.as_of",
        "return True",
        PAIRING_TESTS,
    ),
    Guard(
        "pairing: a microsecond after the one before",
        "core/pairing.py",
        "*([last + INSTANT] if last else [])",
        "*([last] if last else [])",
        PAIRING_TESTS,
    ),
    Guard(
        "pairing: before the row of the next one",
        "core/pairing.py",
        "for end in (after, life.ended_at) if end]",
        "for end in (life.ended_at,) if end]",
        PAIRING_TESTS,
    ),
    Guard(
        "pairing: inside the lifetime",
        "core/pairing.py",
        "for end in (after, life.ended_at) if end]",
        "for end in (after,) if end]",
        PAIRING_TESTS,
    ),
    Guard(
        "pairing: the latest state is unharmed",
        "core/pairing.py",
        "if appended % 2 and after is None:",
        "if False:",
        PAIRING_TESTS,
    ),
    Guard(
        "pairing: what waits for its lifetime",
        "core/pairing.py",
        "    if is_waiting:\n        placed +=",
        "    if False:\n        placed +=",
        PAIRING_TESTS,
    ),
    Guard(
        "pairing: a stamp a second after the beginning",
        "core/pairing.py",
        "+ SHORTEST_LIFETIME)",
        ")",
        PAIRING_TESTS,
    ),
    Guard(
        "pairing: a tenant that no lifetime holds",
        "core/pairing.py",
        "    if life is None and not can_insert:\n",
        "    if False:\n",
        PAIRING_TESTS,
    ),
    Guard(
        "settled: a pair stays while its key waits",
        "db/changes.py",
        "change.skill not in waiting and ",
        "",
        WORLD_TESTS,
    ),
    Guard(
        "settled: a row without a change, where all is known",
        "db/changes.py",
        "known_since <= at - rules.grace and not is_ours",
        "not is_ours",
        WORLD_TESTS,
    ),
    Guard(
        "settled: the log decides, not the comparison",
        "db/changes.py",
        "return is_known and (found.tenant in self.waiting or _key(found) in self.decided)",
        "return False",
        WORLD_TESTS,
    ),
    Guard(
        "settled: what was closed",
        "db/changes.py",
        "            found += _closed(",
        "            _closed(",
        WORLD_TESTS,
    ),
    Guard(
        "log: the position never passes what was read",
        "db/positions.py",
        'return {"position": log.position, "at": None',
        'return {"position": self.position.resource_version, "at": None',
        WORLD_TESTS,
    ),
    Guard(
        "log: where it ends the tenants stood so",
        "db/positions.py",
        "        if told.log.read is LogRead.PARTLY:\n            self.tenants.restart()\n",
        "",
        WORLD_TESTS,
    ),
    Guard(
        "log: what it lacks refuses the list",
        "db/positions.py",
        "if log.read is LogRead.REACHED and lacking and not self.accept:",
        "if False:",
        WORLD_TESTS,
    ),
    Guard(
        "log: an unreadable version is a gap",
        "db/positions.py",
        "for uid in unreadable.keys() - self.gap_uids:",
        "for uid in ():",
        WORLD_TESTS,
    ),
    Guard(
        "log: a creation that it showed is known",
        "db/positions.py",
        'cursor.execute(query("know_created"), {"created": [*new.created]})',
        "pass",
        WORLD_TESTS,
    ),
    Guard(
        "settled: what a later log may undo waits",
        "db/changes.py",
        "if name in told.pending or is_second else rules",
        "if is_second else rules",
        WORLD_TESTS,
    ),
    Guard(
        "settled: of two tenants without a row the first",
        "db/changes.py",
        "if name in told.pending or is_second else rules",
        "if name in told.pending else rules",
        WORLD_TESTS,
    ),
    Guard(
        "settled: a young row is looked at again",
        "db/changes.py",
        "old = told.listed_at - rules.grace",
        "old = told.listed_at",
        WORLD_TESTS,
    ),
    Guard(
        "log: lost, what waits is not written alone",
        "db/positions.py",
        "told.shown = {uid: [version] for uid, version in self.steps.items()}",
        "told.shown = {}",
        WORLD_TESTS,
    ),
    Guard(
        "log: it begins where a tenant was unreadable",
        "db/positions.py",
        "if heir == UNREADABLE or not before.is_current:",
        "if heir == UNREADABLE:",
        WORLD_TESTS,
    ),
    Guard(
        "pairing: a lifetime is of no later tenant",
        "core/pairing.py",
        "one.created_at <= life.began_at + rules.tolerance]",
        "one.created_at <= life.began_at + rules.grace]",
        PAIRING_TESTS,
    ),
    Guard(
        "pairing: no room between two rows",
        "core/pairing.py",
        "if after and last and after <= last + INSTANT:",
        "if False:",
        PAIRING_TESTS,
    ),
    Guard(
        "contradictions: twice the same, apart",
        "core/contradictions.py",
        "if before.kind != row.kind or not is_apart or may_be_one:",
        "if before.kind != row.kind or may_be_one:",
        CONTRADICTION_TESTS,
    ),
    Guard(
        "contradictions: a correction that may be the same",
        "core/contradictions.py",
        "if before.kind != row.kind or not is_apart or may_be_one:",
        "if before.kind != row.kind or not is_apart:",
        CONTRADICTION_TESTS,
    ),
    Guard(
        "contradictions: only where it is not proven",
        "core/contradictions.py",
        "    if not (interval := _unproven(began, row.occurred_at, lifetime, gaps)):\n        return None\n",
        "    interval = _unproven(began, row.occurred_at, lifetime, gaps) or (began, row.occurred_at)\n",
        CONTRADICTION_TESTS,
    ),
    Guard(
        "contradictions: outside of every lifetime",
        "core/contradictions.py",
        "if ancient or (lifetime is None and row.occurred_at > FIRST):",
        "if ancient:",
        CONTRADICTION_TESTS,
    ),
    Guard(
        "contradictions: an organisation that never paid",
        "core/contradictions.py",
        "if row.interval is None and not org_moved and _never_paid(row.org, lifetime):",
        "if False:",
        CONTRADICTION_TESTS,
    ),
    Guard(
        "contradictions: not while the organisation moves",
        "core/contradictions.py",
        "row.interval is None and not org_moved and",
        "row.interval is None and",
        CONTRADICTION_TESTS,
    ),
    Guard(
        "contradictions: unknown has paid for nothing",
        "core/contradictions.py",
        "return org not in paid and UNKNOWN_ORG not in {org, *paid}",
        "return org not in paid",
        CONTRADICTION_TESTS,
    ),
    Guard(
        "contradictions: who pays for a day has paid",
        "core/contradictions.py",
        "paid = {lifetime.org, *lifetime.payers}",
        "paid = {lifetime.org}",
        CONTRADICTION_TESTS,
    ),
    Guard(
        "contradictions: payers of the lifetime's own days",
        "queries/contradictions.sql",
        "               AND p.until_day::timestamp AT TIME ZONE 'UTC' > l.created_at)",
        "               )",
        "tests/integration/test_payers.py",
    ),
    Guard(
        "payers: the label is compared with who pays today",
        "core/compare.py",
        "payer = recorded if case.recorded.payer is None else case.recorded.payer",
        "payer = recorded",
        COMPARE_TESTS,
    ),
    Guard(
        "payers: an unknown organisation of the row is resolved",
        "queries/run.sql",
        "= o.org AND l.zitadel_org_id <> 'unknown'",
        "= o.org",
        "tests/integration/test_payers.py",
    ),
    Guard(
        "payers: the filter knows who pays today",
        "queries/run.sql",
        "AND coalesce(p.org, l.zitadel_org_id) = o.org",
        "AND l.zitadel_org_id = o.org",
        "tests/integration/test_candidates.py",
    ),
    Guard(
        "payers: they divide the days of a lifetime",
        "core/billing.py",
        "for org, begin, end in lifetime.shares(first, last):",
        "for org, begin, end in [(lifetime.org, first, last)]:",
        "tests/unit/test_billing.py",
    ),
    Guard(
        "payers: they divide the days in the query",
        "queries/usage.sql",
        "coalesce(p.org, l.zitadel_org_id) AS zitadel_org_id",
        "l.zitadel_org_id AS zitadel_org_id",
        "tests/integration/test_usage.py",
    ),
    Guard(
        "payers: an impact counts each one's lines",
        "db/usage.py",
        "ended_at=ended_at, payers=payers[tenant])",
        "ended_at=ended_at)",
        "tests/integration/test_payers.py",
    ),
    Guard(
        "payers: the latest decision counts",
        "schema/012_payers.sql",
        "ORDER BY number DESC LIMIT 1",
        "ORDER BY number LIMIT 1",
        "tests/integration/test_usage.py",
    ),
    Guard(
        "payers: whoever pays for a day is refused",
        "queries/certificate.sql",
        "  UNION ALL SELECT tenant_name, org FROM reconciler.paid_days\n",
        "",
        "tests/integration/test_certificate.py",
    ),
    Guard(
        "contradictions: the end of an earlier lifetime",
        "core/contradictions.py",
        "is_odd = (before or not ends_earlier) and not",
        "is_odd = not",
        CONTRADICTION_TESTS,
    ),
    Guard(
        "superseded: the portal's row came later",
        "core/contradictions.py",
        "        and row.id > guess.event.id\n",
        "",
        CONTRADICTION_TESTS,
    ),
    Guard(
        "superseded: in its interval",
        "core/contradictions.py",
        "and guess.not_before <= row.occurred_at <= guess.not_after",
        "and True",
        CONTRADICTION_TESTS,
    ),
    Guard(
        "superseded: not where another change was lost",
        "core/contradictions.py",
        "        if guess.event.id not in kept:\n",
        "        if True:\n",
        CONTRADICTION_TESTS,
    ),
    Guard(
        "misrecorded: a row may be early by settle",
        "core/compare.py",
        "case.open.created_at < case.row.created_at - case.slack:",
        "case.open.created_at < case.row.created_at:",
        COMPARE_TESTS,
    ),
    Guard(
        "misrecorded: a row that begins too late is reported",
        "core/compare.py",
        "    creation_misrecorded,\n",
        "",
        COMPARE_TESTS,
    ),
    Guard(
        "the outcome of a lost commit",
        "db/runs.py",
        "if not reached_end or not _is_committed(",
        "if True or not _is_committed(",
        LEDGER,
    ),
    Guard("the deadline before the commit", "db/runs.py", "            time_left()\n", "", LEDGER),
    Guard("the lock", "db/apply.py", '    cursor.execute(query("lock"))\n', "", LEDGER),
    Guard(
        "the last look inside the transaction",
        "db/apply.py",
        '    cursor.execute(query("drop_stale"))\n    stale = {tenant for (tenant,) in cursor}\n',
        "    stale: set[str] = set()\n",
        LEDGER,
    ),
    Guard("rows read again before the commit", "db/apply.py", "    if found:\n", "    if False:\n", PARKED),
    Guard(
        "a parked tenant parks no other",
        "db/apply.py",
        "            if len(tenants) > 1:\n",
        "            if False:\n",
        PARKED,
    ),
    Guard(
        "a fault of all parks nobody",
        "db/apply.py",
        "        if len(causes) + len(held) > limit:\n",
        "        if False:\n",
        PARKED,
    ),
    Guard(
        "ids in use stop the run", "db/apply.py", "    if in_use := cursor", "    if in_use := None and cursor", PARKED
    ),
    Guard(
        "a deferred trigger is seen",
        "db/apply.py",
        "    if deferred := cursor",
        "    if deferred := None and cursor",
        PARKED,
    ),
    Guard("parking ends with the deadline", "db/apply.py", "        time_left()\n", "", PARKED),
    Guard(
        "what was undone stands in no way",
        "db/apply.py",
        'cursor.execute(query("take_back_undone"))',
        'cursor.execute(query("totals"))',
        PARKED,
    ),
    Guard(
        "what was taken back is in no sum",
        "views/explain.py",
        "standing = [made for _, made in shown if not made.is_taken_back]",
        "standing = [made for _, made in shown]",
        TAKEN_BACK,
    ),
    Guard(
        "a lifetime before the last one is not taken for it",
        "queries/standing.sql",
        "coalesce(c.life_began_at, c.occurred_at) IS DISTINCT FROM at, at DESC",
        "at DESC",
        TAKEN_BACK,
    ),
    Guard(
        "another organisation takes nothing back",
        "core/standing.py",
        "elif shown.org == UNKNOWN_ORG:",
        "else:",
        TAKEN_BACK,
    ),
    Guard(
        "a correction after its event",
        "core/dating.py",
        "timedelta(microseconds=1)",
        "timedelta()",
        "tests/unit/test_dating.py",
    ),
    Guard(
        "a lifetime of a second",
        "core/dating.py",
        "SHORTEST_LIFETIME = timedelta(seconds=1)",
        "SHORTEST_LIFETIME = timedelta()",
        "tests/unit/test_dating.py",
    ),
    Guard(
        "a run of the future proves nothing",
        "schema/008_proving_runs.sql",
        " AND observed_at <= now();",
        ";",
        "tests/integration/test_status.py tests/integration/test_usage.py",
    ),
    Guard(
        "settle is not shortened by the question",
        "queries/certificate.sql",
        "observed_at - greatest(settle, %(settle)s::interval) AS until, cardinality",
        "observed_at - %(settle)s::interval AS until, cardinality",
        "tests/integration/test_usage.py",
    ),
    Guard(
        "settle is not shortened for an earlier proof",
        "queries/certificate.sql",
        "earlier.observed_at - greatest(earlier.settle, %(settle)s::interval) AS until",
        "earlier.observed_at - %(settle)s::interval AS until",
        "tests/integration/test_status.py",
    ),
    Guard(
        "settle is not shortened by the next run",
        "queries/run.sql",
        "r.observed_at - greatest(r.settle, %(settle)s::interval)",
        "r.observed_at - %(settle)s::interval",
        "tests/integration/test_candidates.py",
    ),
    Guard(
        "a run keeps its settle",
        "db/runs.py",
        '"settle": outcome.settle,',
        '"settle": None,',
        ALERTS,
    ),
    Guard("a step once", "db/migrate.py", "if step.number > last]", "]", "tests/integration/test_upgrade.py"),
    Guard(
        "no run on an older schema",
        "db/runs.py",
        "        raise_unless_current(cursor)\n",
        "",
        "tests/integration/test_upgrade.py",
    ),
    Guard(
        "no program on a newer schema",
        "db/schema.py",
        "    if number > STEPS[-1].number:\n",
        "    if False:\n",
        "tests/integration/test_upgrade.py",
    ),
    Guard(
        "corrections of a run that died",
        "db/runs.py",
        "        owed=tuple(_owed(cursor, outcome)),\n",
        "",
        "tests/integration/test_owed.py",
    ),
    Guard(
        "the identity of a correction",
        "schema/005_taken_back.sql",
        "CREATE UNIQUE INDEX uniq_corrections_identity",
        "CREATE INDEX uniq_corrections_identity",
        "tests/integration/test_migrate.py tests/faults/test_ledger.py",
    ),
    Guard(
        "the clip to the superseded event",
        "core/dating.py",
        "superseded = [finding.supersedes.occurred_at] if finding.supersedes else []",
        "superseded: list[datetime] = []",
        "tests/unit/test_dating.py",
    ),
    Guard(
        "what was recorded as off before a deletion stays off",
        "core/compare.py",
        "            if skill not in case.recorded.skills:\n",
        "            if True:\n",
        "tests/unit/test_compare.py",
    ),
    Guard(
        "a lost enable lies before the deletion",
        "core/dating.py",
        "interval = interval._replace(not_after=interval.clip(deletion.occurred_at - INSTANT))",
        "pass",
        "tests/unit/test_dating.py",
    ),
    Guard(
        "a closing event supersedes what the run enables",
        "db/apply.py",
        'cursor.execute(query("supersede_planned"))',
        'cursor.execute(query("totals"))',
        "tests/integration/test_impact.py",
    ),
    Guard(
        "what the run itself supersedes is in force",
        "queries/run.sql",
        "AND e.id NOT IN (SELECT supersedes_event_id FROM planned WHERE supersedes_event_id IS NOT NULL)",
        "",
        "tests/integration/test_impact.py",
    ),
    Guard(
        "creation proves nothing after an event",
        "core/dating.py",
        "if recorded.lifecycle is None and is_first:",
        "if recorded.lifecycle is None:",
        "tests/unit/test_dating.py",
    ),
    Guard(
        "evidence lies in its interval",
        "core/dating.py",
        "if at is None or not interval.not_before - self.tolerance <= at <= interval.not_after + self.tolerance:",
        "if at is None:",
        "tests/unit/test_dating.py",
    ),
    Guard(
        "a set proves nothing",
        "sources/parse.py",
        "if owned or write.time is None or",
        "if write.time is None or",
        "tests/unit/test_parse.py",
    ),
    Guard(
        "old servers' times prove nothing",
        "sources/api_client.py",
        "return self.server >= RELIABLE_WRITE_TIMES",
        "return self.server >= (0, 0)",
        TENANT,
    ),
    Guard(
        "an unreadable tenant is not absent",
        "core/compare.py",
        "case = Case(None if problem else observed, problem, recorded, as_of, settle + tolerance)",
        "case = Case(None if problem else observed, None, recorded, as_of, settle + tolerance)",
        "tests/unit/test_compare.py",
    ),
    Guard(
        "no event after now is corrected",
        "core/compare.py",
        "return event is None or is_past(event, self.as_of)",
        "return True",
        "tests/unit/test_compare.py",
    ),
    Guard(
        "the 410 starts again",
        "sources/cluster.py",
        "                spool.restart()\n",
        "",
        API,
    ),
    Guard(
        "the restarts are bounded",
        "sources/cluster.py",
        "for _ in range(1 + MAX_LIST_RESTARTS):",
        "for _ in range(50):",
        API,
    ),
    Guard(
        "one resourceVersion across pages",
        "sources/cluster.py",
        "if not version or version != first[0]:",
        "if not version:",
        API,
    ),
    Guard("no token twice", "sources/cluster.py", "if token in tokens:", "if False:", API),
    Guard(
        "a tenant of a cluster has a uid",
        "sources/cluster.py",
        "if found.uid is None and found.problem is None:",
        "if False:",
        TENANT,
    ),
    Guard(
        "the change log ends at the list",
        "sources/change_log.py",
        "        if number <= self.end:\n",
        "        if number:\n",
        CHANGE_LOG,
    ),
    Guard(
        "no version of the change log goes backwards",
        "sources/change_log.py",
        "        elif version and (number, version) not in self.shown:\n",
        "        elif False:\n",
        CHANGE_LOG,
    ),
    Guard(
        "each key once in the change log",
        "sources/change_log.py",
        "        refuse_doubled_keys(text)\n",
        "",
        CHANGE_LOG,
    ),
    Guard(
        "the change log is of this resource",
        "sources/change_log.py",
        "        if (head.kind, head.api_version) != (self.kind.name, self.kind.api_version):\n",
        "        if False:\n",
        CHANGE_LOG,
    ),
    Guard(
        "a change log that has begun is not asked for again",
        "sources/change_log.py",
        "return not self.has_begun and backoff(error)",
        "return backoff(error)",
        CHANGE_LOG,
    ),
    Guard(
        "a change log that ends is not the whole one",
        "sources/change_log.py",
        "        if within.bound(lambda: reading.reaches_end(within)):\n",
        "        if within.bound(lambda: reading.reaches_end(within)) or True:\n",
        CHANGE_LOG,
    ),
    Guard(
        "what is forgotten is lost",
        "sources/change_log.py",
        "    if code == HTTPStatus.GONE:\n",
        "    if False:\n",
        CHANGE_LOG,
    ),
    Guard("no shard of a list", "sources/cluster.py", "if page.metadata.shard_info is not None:", "if False:", API),
    Guard(
        "each key once on a page",
        "sources/cluster.py",
        "            answer.refuse_doubled_keys()\n            for position",
        "            for position",
        API,
    ),
    Guard(
        "each key once in JSON",
        "sources/documents.py",
        "    if len(mapping) != len(pairs):\n",
        "    if False:\n",
        "tests/unit/test_file.py",
    ),
    Guard(
        "each key once in YAML",
        "sources/documents.py",
        "                if key.value in keys:\n",
        "                if False:\n",
        "tests/unit/test_file.py",
    ),
    Guard(
        "a list that lacks a tenant is not whole",
        "core/recheck.py",
        "if before is None and again and",
        "if False and before is None and again and",
        API,
    ),
    Guard(
        "folders in the folder",
        "sources/file.py",
        "        folders += [entry",
        "        [entry",
        "tests/unit/test_file.py",
    ),
    Guard(
        "an empty time is not set",
        "sources/parse.py",
        "return None if time.year == 1 or time == EPOCH else time",
        "return time",
        "tests/unit/test_parse.py",
    ),
    Guard(
        "no time before Kubernetes",
        "sources/parse.py",
        "if found is not None and found < FIRST_KUBERNETES:",
        "if False:",
        "tests/unit/test_parse.py",
    ),
    Guard(
        "a token that cannot be sent is not shown",
        "sources/access.py",
        "    if not _TOKEN.fullmatch(token):\n",
        "    if False:\n",
        "tests/faults/test_access.py",
    ),
    Guard(
        "a rotated token is read again",
        "sources/access.py",
        "        settings.refresh_api_key_hook = renew",
        "        renew",
        "tests/faults/test_access.py",
    ),
    Guard(
        "what kubectl trusts is trusted",
        "sources/access.py",
        "    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT\n",
        "",
        "tests/faults/test_access.py",
    ),
    Guard(
        "a proxy's password is not shown",
        "sources/access.py",
        "        url = url._replace(auth=None)\n",
        "",
        "tests/faults/test_access.py",
    ),
    Guard(
        "a body of the right kind",
        "sources/api_client.py",
        'if getattr(decoded, "kind", kind) != kind:',
        "if False:",
        API,
    ),
    Guard(
        "the cap on Retry-After",
        "sources/api_client.py",
        "else min(error.retry_after, MAX_RETRY_AFTER)",
        "else error.retry_after",
        API,
    ),
    Guard("no redirect is followed", "sources/access.py", "    settings.retries = False\n", "", API),
    Guard(
        "the deadline bounds every wait",
        "deadline.py",
        "wait([done], timeout=max(0.0, self.ends - time.monotonic()))",
        "wait([done], timeout=20)",
        API,
    ),
    Guard(
        "no resource twice",
        "db/candidates.py",
        '    if repeated := cursor.execute(query("repeated")).fetchone():',
        "    if repeated := None:",
        "tests/integration/test_candidates.py",
    ),
    Guard(
        "the halves of the ledger meet",
        "queries/run.sql",
        "tenant_name >= %(middle)s",
        "tenant_name > %(middle)s",
        "tests/integration/test_candidates.py",
    ),
    Guard(
        "a 404 that names the tenant",
        "sources/cluster.py",
        "            if error.name != name:\n",
        "            if False:\n",
        API,
    ),
    Guard(
        "an empty list at the recheck",
        "run.py",
        "    if relist:\n        refuse_empty(",
        "    if False:\n        refuse_empty(",
        API,
    ),
    Guard(
        "the lifetime before is not stamped again",
        "queries/run.sql",
        "p.occurred_at < l.created_at",
        "p.occurred_at IS NULL",
        "tests/integration/test_decisions.py",
    ),
    Guard(
        "a tenant is reopened under the lock of all runs",
        "db/decisions.py",
        '    cursor.execute(query("lock"))\n',
        "",
        "tests/integration/test_decisions.py",
    ),
    Guard(
        "what is accepted is no drift",
        "core/model.py",
        "is not Action.DEFER and self.accepted_until is None",
        "is not Action.DEFER",
        ALERTS,
    ),
    Guard("a report is told once", "alerts/__init__.py", "or finding_report(f) not in notified", "or True", ALERTS),
    Guard(
        "what was not delivered is not remembered",
        "alerts/__init__.py",
        "for sink, message, delivery in calls if self._wait_for(sink, delivery)]",
        "for sink, message, delivery in calls if self._wait_for(sink, delivery) or True]",
        ALERTS,
    ),
    Guard(
        "a receiver that crashes changes nothing",
        "alerts/__init__.py",
        "except Exception as error:  # noqa",
        "except (ZeroDivisionError if False else OSError) as error:  # noqa",
        ALERTS,
    ),
    Guard(
        "a report is kept while its tenant cannot be judged",
        "queries/run.sql",
        "WHERE r.tenant_name <> ALL (%(deferred)s::text[]) AND NOT EXISTS (",
        "WHERE %(deferred)s::text[] IS NOT NULL AND NOT EXISTS (",
        ALERTS,
    ),
    Guard("one run at a time", "cli/service.py", "max_instances=1", "max_instances=9", "tests/unit/test_schedule.py"),
    Guard(
        "a run that starts late is made",
        "cli/service.py",
        "misfire_grace_time=None",
        "misfire_grace_time=1",
        "tests/integration/test_serve.py",
    ),
    Guard(
        "a day is billed once",
        "core/billing.py",
        "max(since.toordinal(), counted + 1)",
        "since.toordinal()",
        "tests/unit/test_billing.py",
    ),
    Guard(
        "an end at midnight does not bill the day",
        "core/billing.py",
        "(until - _INSTANT).toordinal()",
        "until.toordinal()",
        "tests/unit/test_billing.py",
    ),
    Guard(
        "the last push of a success stays",
        "alerts/pushgateway.py",
        "pushadd_to_gateway(\n",
        "push_to_gateway(\n",
        "tests/integration/test_pushgateway.py",
    ),
    Guard(
        "the filter drops no false tenant",
        "queries/run.sql",
        "AND (coalesce(s.enabled, '{}') = o.packages",
        "AND (cardinality(coalesce(s.enabled, '{}')) = cardinality(o.packages)",
        "tests/integration/test_candidates.py",
    ),
    Guard(
        "what a policy may hide is no absence",
        "queries/run.sql",
        "       pg_catalog.set_config('row_security', 'off', true),\n",
        "",
        SETTINGS,
    ),
    Guard(
        "what a policy may hide from the portal is no answer",
        "ledger/calls.py",
        "        _refuse_hidden_rows(cursor, _tables(statement))\n",
        "",
        SETTINGS,
    ),
    Guard(
        "functions are PostgreSQL's own",
        "queries/run.sql",
        "pg_catalog.concat_ws(', ', 'pg_catalog, pg_temp', ",
        "pg_catalog.concat_ws(', ', NULL, ",
        SETTINGS,
    ),
    Guard(
        "times are read in the notation that they are written in",
        "queries/run.sql",
        "       pg_catalog.set_config('datestyle', 'ISO, YMD', true),\n",
        "",
        SETTINGS,
    ),
    Guard(
        "text is exchanged in UTF-8",
        "db/connection.py",
        ', "client_encoding": "UTF8"}',
        "}",
        SETTINGS,
    ),
    Guard(
        "a session that ended between two transactions is replaced",
        "db/connection.py",
        "if self._connection and _has_ended(self._connection):",
        "if False:",
        "tests/integration/test_shared_connection.py",
    ),
    Guard(
        "no connection is open while the cluster is asked",
        "run.py",
        "    ledger.close()\n    yield",
        "    yield",
        LEDGER,
    ),
    Guard(
        "an encoding that says nothing is refused",
        "db/connection.py",
        'if encoding == "SQL_ASCII":',
        "if False:",
        SETTINGS,
    ),
    Guard(
        "what an encoding cannot hold is one tenant's",
        "db/candidates.py",
        'if encoding is None or encoding == "UTF8":',
        "if True:",
        SETTINGS,
    ),
    Guard(
        "nothing is billed at what is no amount",
        "db/usage.py",
        "if price is not None and not price.is_finite():",
        "if False:",
        SETTINGS,
    ),
    Guard(
        "a password is not taken for a host",
        "db/address.py",
        "    if _is_misread(text):\n",
        "    if False:\n",
        "tests/unit/test_connection.py",
    ),
    Guard(
        "an error that nobody foresaw is a failed run",
        "run.py",
        "    except Exception as error:  # noqa",
        "    except Refusal as error:  # noqa",
        ALERTS,
    ),
    Guard(
        "the text of an error that nobody foresaw is not shown",
        "core/errors.py",
        'return f"{type(error).__name__}{reason}"',
        'return f"{error!r}{reason}"',
        f"{ALERTS} tests/integration/test_cli.py",
    ),
    Guard(
        "what cannot be printed is written all the same",
        "cli/output.py",
        "            if not stands:\n                raise Unprinted",
        "            if True:\n                raise Unprinted",
        OUTPUTS,
    ),
    Guard(
        "a log that cannot be written stops no run",
        "logs.py",
        "        with suppress(OSError, ValueError):\n            sys.stderr.write(text)",
        "        sys.stderr.write(text)",
        OUTPUTS,
    ),
    Guard(
        "what libraries log is not printed",
        "logs.py",
        "    logging.getLogger().addHandler(_SILENT)\n",
        "",
        "tests/unit/test_logs.py",
    ),
    Guard(
        "an exception in the log loses its text",
        "logs.py",
        '    given = event.pop("exc_info", None)\n',
        '    given = event.get("exc_info")\n    event["text"] = repr(given)\n',
        "tests/unit/test_logs.py",
    ),
    Guard(
        "a proxy's password is not shown",
        "alerts/addresses.py",
        "        origin, parts = found\n        credentials = basic_credentials(parts)\n        return cls(origin,",
        "        origin, parts = found\n        credentials = basic_credentials(parts)\n        return cls(address,",
        "tests/unit/test_alert_http.py tests/faults/test_secrets.py",
    ),
)


def source_of(guard: Guard, root: Path = ROOT) -> Path:
    """Return the file that a guard stands in."""
    return root / ("sql" if guard.file.endswith(".sql") else "reconciler") / guard.file


def killer(guard: Guard) -> tuple[str, bool, float]:
    """Take one guard away and run its tests.

    Returns:
        What became of it in words, whether it was killed, and how long that took, in seconds.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        for name in COPIED:
            source, target = ROOT / name, Path(folder) / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, target)
        file = source_of(guard, Path(folder))
        text = file.read_text(encoding="utf-8")
        if text.count(guard.stands) != 1:
            return f"stands {text.count(guard.stands)} times in {guard.file}, not once", False, 0.0
        file.write_text(text.replace(guard.stands, guard.without), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "--no-header", "-p", "no:cacheprovider"]
        try:
            ended = subprocess.run(
                [*command, *guard.tests.split()],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=LONGEST,
            )
        except subprocess.TimeoutExpired:
            return f"its tests did not end within {LONGEST} s", True, time.monotonic() - began
    failed = [line.split(" ", 1)[1].split(" - ")[0] for line in ended.stdout.splitlines() if line.startswith("FAILED ")]
    said = failed[0] if failed else "survived" if ended.returncode == 0 else f"pytest ended with {ended.returncode}"
    return said, bool(failed), time.monotonic() - began


def main() -> int:
    """Try every guard, print a line for each, and return the exit code."""
    guards = [guard for guard in GUARDS if all(word in guard.name for word in sys.argv[1:])]
    killed = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for guard, (said, is_killed, seconds) in zip(guards, pool.map(killer, guards), strict=True):
            killed += is_killed
            print(f"{'killed' if is_killed else 'ALIVE '}  {guard.name:44}  {said}  ({seconds:.0f} s)", flush=True)  # noqa: T201
    print(f"{killed} of {len(guards)} guards are held by a test")  # noqa: T201
    return 0 if killed == len(guards) else 1


if __name__ == "__main__":
    sys.exit(main())
