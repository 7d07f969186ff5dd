"""What the change log says against what the ledger holds: which changes have a row, wait for one, or are appended.

The rules are those of `reconciler.core.changes` and `reconciler.core.pairing`. What this module reads and keeps is
`reconciler.changes`: the changes that wait, and those that may still be paired anew.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from reconciler.core.changes import Change, Kind, Seen, by_two_lists, changes, first_changes, on_at_the_end
from reconciler.core.history import Remembered
from reconciler.core.model import FIRST, LAST, Action, ChangeLog, Evidence, LogRead, Moment, VersionKind
from reconciler.core.pairing import (
    Life,
    Rules,
    Settled,
    Tenant,
    contradicted,
    is_after_the_end,
    lives_of,
    pair,
    settle_tenant,
)
from reconciler.core.reasons import Reason
from reconciler.db.contradictions import known_lifetimes
from reconciler.db.copied import escape
from reconciler.db.keys import key_rows, standing_decisions
from reconciler.db.queries import query

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime, timedelta
    from uuid import UUID

    from reconciler.core.compare import Comparison
    from reconciler.core.contradictions import Known, Row
    from reconciler.core.model import Finding, Version
    from reconciler.db.connection import Cursor
    from reconciler.db.keys import Decisions, Key

_Value = TypeVar("_Value")

MAX_RUNS = 1_000
"""Earlier lists that are asked for, to date a change."""
RECREATED = Reason.TENANT_RECREATED
ENDS = Reason.DELETION_UNRECORDED
CLOSES = Reason.SKILL_OPEN_AFTER_DELETION
STARTS = {Kind.ENABLED, Kind.SUSPENDED}
"""What a tenant may be created with."""


class Settlement(NamedTuple):
    """What the change log decides, and what is left to the comparison."""

    findings: tuple[Finding, ...] = ()
    waiting: frozenset[str] = frozenset()
    """The tenants of which all else waits for their creation or deletion."""
    decided: frozenset[tuple[str, str | None, bool]] = frozenset()
    """The keys that the log decides: tenant, skill, and whether it is about the lifetime."""

    def without(self, found: Comparison) -> Comparison:
        """Return what a comparison found, without what the log decides."""
        if not (self.findings or self.decided):
            return found
        left = {
            tenant: tuple(each for each in its if not self._decides(each)) for tenant, its in found.findings.items()
        }
        return found._replace(findings=left)

    def _decides(self, found: Finding) -> bool:
        return found.reason.is_of_change and (found.tenant in self.waiting or _key(found) in self.decided)


@dataclass(slots=True)
class Told:
    """What the change log told, and what follows from it, until it is kept."""

    source: str
    last_at: datetime
    """When the run began whose list the log begins at."""
    listed_at: datetime
    log: ChangeLog
    kept: list[Change]
    shown: dict[str, list[Version]] = field(default_factory=dict)
    """By uid."""
    unproven: set[str] = field(default_factory=set)
    """The names of which the history up to this list is not proven."""
    pending: frozenset[str] = frozenset()
    """Those of them of which a later log will show it."""
    new: list[Change] = field(default_factory=list)
    done: list[Change] = field(default_factory=list)
    ending: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What was on when the deletion of a tenant was asked for, by uid: the spec may change after that."""

    def __post_init__(self) -> None:
        """Sort the versions by tenant."""
        for version in self.log.versions:
            if uid := version.observed.uid:
                self.shown.setdefault(uid, []).append(version)

    def dated(self, found: Iterable[Change]) -> Iterable[Change]:
        """Return changes with no more of their times than the log, or without it two lists, can tell."""
        return map(by_two_lists, found) if self.log.read is LogRead.LOST else found

    def drop(self, undone: Collection[Change]) -> None:
        """Drop kept changes that are none any more."""
        self.done += undone
        dropped = {*undone}
        self.kept = [change for change in self.kept if change not in dropped]


def settle_changes(cursor: Cursor, told: Told, first: Comparison, rules: Rules) -> Settlement:
    """Return what follows from what the log has told, now and in earlier runs; note what is to be kept of it."""
    by_uid = _changes(cursor, told, rules)
    decided = standing_decisions(cursor, {its[0].tenant for its in by_uid.values()}) if by_uid else {}
    _drop(told, by_uid, {uid: {one for one in its if _is_decided(one, decided)} for uid, its in by_uid.items()})
    lives = known_lifetimes(cursor, sorted({its[0].tenant for its in by_uid.values()}), rules.settle)
    held = _held(cursor, told.source, by_uid, lives, rules)
    _hold_restored(cursor, told, by_uid, lives, held)
    found = [*_set_apart(cursor, told, by_uid, held, lives, rules=rules)]
    rows, newest, retracted = _rows(cursor, by_uid, {name for name, _ in decided})
    if retracted:
        taken = {uid: _retracted(its, held.get(uid), rows, retracted, rules) for uid, its in by_uid.items()}
        _drop(told, by_uid, taken)
    rows_of, newest_of = _by_tenant(rows), _by_tenant(newest)
    decided_of = _by_tenant({key: known.standing for key, known in decided.items()})
    waiting, inserted = set[str](), set[str]()
    for uid, its in sorted(by_uid.items(), key=lambda item: item[1][0].created_at):
        name = its[0].tenant
        # a name has one row: of several tenants that no lifetime holds, the first one gets it
        is_second = name in inserted
        inserted |= {name} - lives.keys()
        is_ending = _is_ended_without_log(its, first)
        settled = settle_tenant(
            its,
            held.get(uid),
            rows_of[name],
            # what a later log will show may undo it, and what the comparison stamps now may lie before it
            rules._replace(as_of=FIRST) if name in told.pending or is_second or is_ending else rules,
            can_insert=name not in lives,
            newest=newest_of[name],
            decided=decided_of[name],
        )
        found += settled.findings
        told.done += _expired(its, settled, rules)
        waiting |= {name} if settled.is_waiting else set()
        if settled.ended:
            found += _closed(
                its, settled, settled.ended, first.findings.get(name, ()), rows_of[name], grace=rules.grace
            )
    found = _reported_once(found, first)
    decided_keys = frozenset(map(_key, found)).union(_came_after_the_end(told, first))
    settlement = Settlement(tuple(found), frozenset(waiting), decided_keys)
    return settlement if told.log.position is None else _with_opposed(cursor, told, settlement, first, rules)


def _with_opposed(cursor: Cursor, told: Told, settled: Settlement, first: Comparison, rules: Rules) -> Settlement:
    opposed = tuple(_opposed(cursor, told, settled.without(first), rules))
    return settled._replace(findings=settled.findings + opposed, decided=settled.decided.union(map(_key, opposed)))


def _came_after_the_end(told: Told, first: Comparison) -> Iterator[tuple[str, str | None, bool]]:
    """Yield the keys of the skills that a tenant lists and that came after its deletion was asked for."""
    for name, found in first.findings.items():
        observed = first.observed.get(name)
        packages = observed and told.ending.get(observed.uid or "")
        if packages is not None:
            yield from (_key(each) for each in found if each.subject is not None and each.subject not in packages)


def _is_ended_without_log(some: Sequence[Change], first: Comparison) -> bool:
    """True if the comparison ends the tenant of these changes, and none of them is its deletion."""
    found = first.findings.get(some[0].tenant, ())
    return any(each.reason is ENDS for each in found) and all(change.kind is not Kind.DELETED for change in some)


def _reported_once(found: list[Finding], first: Comparison) -> list[Finding]:
    """Return what was found, with one report a name: of one that no lifetime holds there may be several tenants.

    The comparison may report it too.
    """
    reported = {(each.tenant, each.reason): each for each in found if each.action is Action.REPORT}
    for each in chain.from_iterable(first.findings.values()):
        reported.pop((each.tenant, each.reason), None)
    return [*(each for each in found if each.action is not Action.REPORT), *reported.values()]


def postponed(first: Comparison) -> Settlement:
    """Return the settlement that leaves to the next run whatever the change log may decide."""
    found = (each for its in first.findings.values() for each in its if each.reason.is_of_change)
    return Settlement(tuple(each.deferred() for each in found), frozenset(first.findings))


def keep_changes(cursor: Cursor, told: Told, run_id: UUID) -> None:
    """Keep the new changes, and which events the run has appended for them; forget those whose rows are long there."""
    if told.done:
        keys = [(change.uid, change.resource_version, change.kind, change.skill or "") for change in told.done]
        uids, versions, kinds, skills = map(list, zip(*keys, strict=True))
        given = {"source": told.source, "uids": uids, "versions": versions, "kinds": kinds, "skills": skills}
        cursor.execute(query("forget_changes"), given)
    done = {change[:5] for change in told.done}
    if rows := [_line(told.source, change) for change in told.new if change[:5] not in done]:
        with cursor.copy(query("copy_changes")) as copy:
            for row in rows:
                copy.write(row)
    cursor.execute(query("claim_changes"), {"source": told.source, "run_id": run_id})


def _changes(cursor: Cursor, told: Told, rules: Rules) -> dict[str, list[Change]]:
    """Return the changes of each tenant, by its uid and in their order: those that are kept, and the new ones."""
    found: dict[str, list[Change]] = {}
    for change in told.kept:
        found.setdefault(change.uid, []).append(change)
    known: dict[str, Remembered] = {}
    if told.log.read is LogRead.LOST:
        _leave_open(cursor, told, rules)
    if told.shown or told.kept:
        asked = {"source": told.source, "uids": [*{**told.shown, **found}]}
        known = {row[0]: Remembered(*row) for row in cursor.execute(query("remembered"), asked)}
        since = {"source": told.source, "last_at": told.last_at, "max_runs": MAX_RUNS}
        lists = [Seen(*row) for row in cursor.execute(query("earlier_lists"), since)]
        for uid, versions in told.shown.items():
            told.new += told.dated(changes(known.get(uid), versions, lists, told.listed_at, rules.tolerance))
        for uid in dict.fromkeys((*told.shown, *known)):
            if (packages := on_at_the_end(known.get(uid), told.shown.get(uid, ()))) is not None:
                told.ending[uid] = packages
    for change in told.new:
        found.setdefault(change.uid, []).append(change)
    gone = [uid for uid in known if uid in told.shown and any(one.kind is Kind.DELETED for one in found.get(uid, ()))]
    recorded = known_lifetimes(cursor, sorted({known[uid].name for uid in gone}), rules.settle)
    for uid in gone:
        if known[uid].name not in recorded and Kind.CREATED not in {one.kind for one in found[uid]}:
            # a list showed it, and it went before its row was there
            new = [*first_changes(known[uid], found[uid], told.last_at, rules.tolerance)]
            told.new += new
            found[uid] += new
    return {uid: sorted(its, key=attrgetter("order")) for uid, its in found.items()}


def _leave_open(cursor: Cursor, told: Told, rules: Rules) -> None:
    """Leave to the comparison who has vanished and is open: one list alone does not prove that a tenant is gone."""
    gone = {uid: its[-1].observed.name for uid, its in told.shown.items() if its[-1].kind is VersionKind.DELETED}
    recorded = known_lifetimes(cursor, sorted({*gone.values()}), rules.settle)
    are_open = {name for name, its in recorded.items() if any(one.ended_at is None for one in its)}
    told.shown = {uid: its for uid, its in told.shown.items() if gone.get(uid) not in are_open}


def _drop(told: Told, by_uid: dict[str, list[Change]], done: Mapping[str, Collection[Change]]) -> None:
    """Drop the changes that a person has decided, by the uid of their tenant."""
    for uid, some in done.items():
        told.done += some
        by_uid[uid] = [change for change in by_uid[uid] if change not in some]
        if not by_uid[uid]:
            del by_uid[uid]


def _is_decided(change: Change, decided: Mapping[Key, Decisions]) -> bool:
    """True if a person decided it: its whole interval lies inside a decision, which stands."""
    known = decided.get((change.tenant, change.skill))
    if known is None or change.kind.is_of_lifetime:
        return False
    start, end = (change.at, change.at) if change.at else (change.not_before, change.not_after)
    return any(one.begins_at <= start and end <= one.ends_at for one in known.standing)


def _retracted(
    changes: Iterable[Change],
    life: Life | None,
    rows: Mapping[Key, Sequence[Row]],
    retracted: Mapping[Key, Sequence[Row]],
    rules: Rules,
) -> set[Change]:
    """Return the changes of a tenant whose rows a person took back: no other row explains them."""
    lost: set[Change] = set()
    of_events = sorted((each for each in changes if not each.kind.is_of_lifetime), key=lambda each: each.skill or "")
    for (tenant, skill), its in groupby(of_events, attrgetter("tenant", "skill")):
        if life and (gone := retracted.get((tenant, skill))):
            key = [*its]
            pairs = pair(key, rows.get((tenant, skill), ()), life, rules)
            lost |= pair([change for change in key if change not in pairs], gone, life, rules).keys()
    return lost


def _held(
    cursor: Cursor,
    source: str,
    by_uid: Mapping[str, Sequence[Change]],
    lives: Mapping[str, Iterable[Known]],
    rules: Rules,
) -> dict[str, Life]:
    """Return the lifetime of each tenant that has one, by its uid."""
    named: dict[str, dict[str, Tenant]] = {}
    for uid, its in by_uid.items():
        named.setdefault(its[0].tenant, {})[uid] = Tenant(uid, its[0].created_at)
    for name, uid, created_at in cursor.execute(query("tenants_named"), {"source": source, "names": [*lives]}):
        named.setdefault(name, {})[uid] = Tenant(uid, created_at)
    held: dict[str, Life] = {}
    for name, known in lives.items():
        held |= lives_of(named[name].values(), [Life(one.began_at, one.ended_at, one.org) for one in known], rules)
    return held


def _hold_restored(
    cursor: Cursor,
    told: Told,
    by_uid: dict[str, list[Change]],
    lives: Mapping[str, Iterable[Known]],
    held: dict[str, Life],
) -> None:
    """Give a restored tenant its part of the lifetime, where a person said that it lived on from the one before.

    What was on before, and when it was restored, is no change.
    """
    named = {"source": told.source, "names": [*lives]}
    for name, uid, began_at, remembered in cursor.execute(query("restored_tenants"), named).fetchall():
        its = by_uid.get(uid, [])
        at = its[0].created_at if its else remembered
        life = next(
            (Life(one.began_at, one.ended_at, one.org) for one in lives[name] if one.began_at == began_at), None
        )
        if uid in held or life is None or at is None or not began_at < at < (life.ended_at or LAST):
            continue
        for other in [other for other, each in held.items() if each == life]:
            held[other] = life._replace(ended_at=at)
        held[uid] = life._replace(began_at=at)
        rows, *_ = _rows(cursor, {uid: its}, set())
        goes_on = {skill for (_, skill), each in rows.items() if _is_on(each, at)}
        first = {change.resource_version for change in its if change.kind is Kind.CREATED}
        no_change = [
            one for one in its if one.resource_version in first and one.kind in STARTS and one.skill in goes_on
        ]
        told.done += no_change
        by_uid[uid] = [change for change in its if change not in no_change]
        if not by_uid[uid]:
            del by_uid[uid]


def _set_apart(
    cursor: Cursor,
    told: Told,
    by_uid: dict[str, list[Change]],
    held: Mapping[str, Life],
    lives: Mapping[str, Sequence[Known]],
    *,
    rules: Rules,
) -> Iterator[Finding]:
    """Set apart what happened to tenants on days after their recorded end, and yield the reports of it.

    Where a person said that a tenant was gone then, it is decided. Else it waits: one of the two is wrong.
    """
    after = {
        uid: some
        for uid, its in by_uid.items()
        if (some := [one for one in its if is_after_the_end(one, held.get(uid), lives.get(one.tenant, ()), rules)])
    }
    names = [some[0].tenant for some in after.values()]
    said = cursor.execute(query("decided_lifetimes"), {"names": names, "last": LAST}).fetchall() if names else []
    for uid, some in after.items():
        left = [one for one in some if not _was_gone(one, held[uid], said, rules)]
        yield from map(contradicted, left[-1:])
        by_uid[uid] = [one for one in by_uid[uid] if one not in left]
        _drop(told, by_uid, {uid: {*some} - {*left}})


def _was_gone(change: Change, life: Life, said: Iterable[tuple[str, datetime, datetime]], rules: Rules) -> bool:
    """True if a person said that the tenant was gone from its end on, and the change lies in that time.

    That may have ended with the stamp of that change.
    """
    its = [(begins, ends) for name, begins, ends in said if name == change.tenant]
    at, start = change.earliest, life.ended_at or LAST
    return any(start <= begins <= at and at - rules.grace <= ends for begins, ends in its)


def _is_on(rows: Iterable[Row], at: datetime) -> bool:
    """True if the latest row of a key up to an instant turns it on."""
    return [row.kind for row in rows if row.occurred_at <= at][-1:] in (["enabled"], ["suspended"])


def _rows(
    cursor: Cursor, by_uid: Mapping[str, Iterable[Change]], decided: AbstractSet[str]
) -> tuple[dict[Key, list[Row]], dict[Key, int], dict[Key, list[Row]]]:
    """Return the rows of each key that count, the highest id of each, and the rows that a person took back.

    `decided` are the tenants of which people have decided something.
    """
    keys = {(one.tenant, one.skill) for its in by_uid.values() for one in its if not one.kind.is_of_lifetime}
    by_hand = {*cursor.execute(query("retracted_events"), {"names": [*decided]})} if decided else set()
    rows: dict[Key, list[Row]] = {}
    newest: dict[Key, int] = {}
    retracted: dict[Key, list[Row]] = {}
    for key, its in key_rows(cursor, sorted(keys, key=lambda key: (key[0], key[1] or ""))):
        for row, counts in its:
            newest[key] = max(row.id, newest.get(key, 0))
            if counts:
                rows.setdefault(key, []).append(row)
            elif (*key, row.id) in by_hand:
                retracted.setdefault(key, []).append(row)
    return rows, newest, retracted


def _by_tenant(keys: Mapping[Key, _Value]) -> Mapping[str, Mapping[str | None, _Value]]:
    """Return what is known of keys, by tenant."""
    found = defaultdict[str, dict[str | None, _Value]](dict)
    for (tenant, skill), value in keys.items():
        found[tenant][skill] = value
    return found


def _expired(some: Iterable[Change], settled: Settled, rules: Rules) -> Iterator[Change]:
    """Yield the changes whose pairs will not change any more; while one has no row, those of its key or lifetime may.

    What this run appends has one only when it is written: until then it may still be refused.
    """
    if settled.is_waiting:
        return
    unwritten = {each.subject for each in settled.findings}
    for change in some:
        at = settled.explained.get(change)
        if at and change.skill not in unwritten and max(at, change.not_after) + rules.grace <= rules.as_of:
            yield change


def _closed(
    changes: Sequence[Change],
    settled: Settled,
    ended: Moment,
    found: Iterable[Finding],
    rows: Mapping[str | None, Sequence[Row]],
    *,
    grace: timedelta,
) -> Iterator[Finding]:
    """Yield the events that close what is on at the end of a lifetime.

    That is what is appended for its last change of a skill, unless one of its `rows` has closed it; and where the end
    is stamped now, what the comparison `found` to be on.
    """
    last = {change.skill: change.resource_version for change in changes if change.kind.is_of_skill}
    appended = [each for each in settled.findings if each.subject and each.moment]
    for each in appended:
        # the portal's own may be late
        until = ended.occurred_at + grace
        later = [row for row in rows.get(each.subject, ()) if each.moment and row.occurred_at > each.moment.occurred_at]
        if [row.kind for row in later if row.occurred_at <= until][-1:] == ["disabled"]:
            continue
        if each.observed == "enabled" and each.shown_by and each.shown_by[1] == last[each.subject]:
            yield each._replace(reason=CLOSES, recorded="enabled", observed="disabled", moment=ended)
    if any(each.reason is ENDS for each in settled.findings):
        decided = {each.subject for each in appended}
        for each in found:
            if each.reason is CLOSES and each.supersedes and each.subject not in decided:
                at = max(ended.occurred_at, each.supersedes.occurred_at)
                yield each._replace(moment=ended._replace(occurred_at=at, not_after=max(at, ended.not_after)))


def _opposed(cursor: Cursor, told: Told, left: Comparison, rules: Rules) -> Iterator[Finding]:
    """Yield the opposite of each row of the portal's that no change explains, at its instant, where all is known."""
    old = told.listed_at - rules.grace
    wrong = [
        each
        for tenant, its in left.findings.items()
        if tenant not in told.unproven
        for each in its
        # a younger one may be of a change that no list shows yet
        if each.reason.is_of_change and each.reason is not CLOSES
        if each.supersedes and each.supersedes.occurred_at <= old
    ]
    if not wrong:
        return
    names = sorted({each.tenant for each in wrong})
    ids = [each.supersedes.id for each in wrong if each.supersedes]
    ours = {*cursor.execute(query("our_events"), {"names": names, "ids": ids})}
    since = {name: its[-1].since for name, its in known_lifetimes(cursor, names, rules.settle).items()}
    for name, _, until_at in cursor.execute(query("gaps_of"), {"names": names}):
        since[name] = max(until_at, since.get(name) or until_at)
    for each in wrong:
        at, known_since = each.supersedes.occurred_at if each.supersedes else LAST, since.get(each.tenant)
        is_ours = (each.tenant, str(each.table), each.supersedes and each.supersedes.id) in ours
        if known_since and known_since <= at - rules.grace and not is_ours:
            yield each.dated(Moment(at, at, at, Evidence.CHANGE_LOG))


def _key(found: Finding) -> tuple[str, str | None, bool]:
    return found.tenant, found.subject, found.reason.is_of_lifetime


def _line(source: str, change: Change) -> bytes:
    times = change.not_before, change.not_after, change.at, change.created_at
    texts = source, change.uid, change.tenant, change.resource_version, change.kind, change.skill or "", change.org
    fields = (*texts, *(None if at is None else at.isoformat() for at in times), "t" if change.is_latest else "f")
    return "\t".join(map(escape, fields)).encode() + b"\n"
