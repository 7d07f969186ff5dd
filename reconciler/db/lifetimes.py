"""Write when a tenant lived, as a person says it: the rules are those of `reconciler.core.lifetimes`.

What closed the skills at an end that moves is taken back, and what is on at a new end goes off there. A tenant that is
reopened was gone from the end of its row to the creation that the cluster shows.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.billing import Lifetime, Payer, with_payer
from reconciler.core.decisions import NotPutRight, PutRight, Reopening, ended, line_changes, new_lifetime, second
from reconciler.core.lifetimes import ALIVE, GONE, Gap, edited, gaps, next_end, removed_ends
from reconciler.core.model import FIRST_KUBERNETES, LAST, Evidence, Lifecycle, Moment, Observed, Recorded
from reconciler.core.reasons import Reason
from reconciler.core.replay import Decided, Restated, reading, restate, state_of
from reconciler.db.apply import NotDecided
from reconciler.db.decisions import check_source, deciding
from reconciler.db.explain import did_you_mean, unknown_tenant
from reconciler.db.keys import KeyHistory, read_key
from reconciler.db.put_right import NEXT, ClusterNeeded, begin, with_appended, with_billed, write
from reconciler.db.queries import query
from reconciler.db.usage import history, prices

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime, timedelta

    from reconciler.core.billing import History
    from reconciler.core.decisions import Lookup
    from reconciler.core.model import Finding
    from reconciler.db.apply import Author
    from reconciler.db.connection import Cursor


class _Skill(NamedTuple):
    """A skill of a tenant whose lifetimes move."""

    known: KeyHistory
    """Without the decisions that closed it where the tenant is gone no more."""
    closing_ids: frozenset[int]
    """The events that closed it there."""
    gaps: tuple[Gap, ...]
    """Where it goes off."""
    off_at: tuple[datetime, ...] = ()
    """Where later lifetimes begin with it off: they still do if what closed it before them is taken back."""


class _Edit(NamedTuple):
    """What becomes of the lifetimes of a tenant."""

    before: History
    after: tuple[Lifetime, ...]
    uid: str | None
    """Of the resource that has the name."""
    at: datetime
    """When the first of them changes."""
    reason: Reason = Reason.RECORDED
    shown: frozenset[str] | None = None
    """The skills of another tenant, that are on again where it begins; None: it is the same tenant."""
    payer: Payer | None = None
    """Who pays from its beginning on, in place of who paid before."""

    def gaps_of(self, skill: str | None) -> Sequence[Gap]:
        """Return the new times in which it is gone; without an end where the skill is not on again after it."""
        found = gaps(self.before.lifetimes, self.after)
        if self.shown is not None and skill not in self.shown:
            return [gap._replace(ends_at=None) for gap in found]
        # where the next one begins at once, it was never gone
        return [gap for gap in found if gap.begins_at != gap.ends_at]


def record_lifetime(
    cursor: Cursor,
    tenant: str,
    said: str,
    *,
    since: datetime,
    until: datetime | None,
    org: str | None,
    author: Author,
    lookup: Lookup | None = None,
    dry_run: bool = False,
) -> PutRight:
    """Record that a tenant was `alive`, or `gone`, from one instant until another.

    Without `until` it is the next end of a lifetime, or, if none comes, on and on. `org` pays for a first lifetime.
    Where the tenant is open now and was not, or the other way round, the cluster must show that: `lookup` is what it
    shows.

    Raises:
        NotPutRight: it cannot be, changes nothing, or the cluster shows otherwise.
        ClusterNeeded: whether it is open would change, and there is no `lookup`.
    """
    now = begin(cursor)
    if not dry_run:
        # the portal, which does not know the lock of the runs, may stamp it meanwhile
        cursor.execute(query("lock_lifecycle"), {"tenant": tenant})
    before = history(cursor, tenant)
    lived = before.lifetimes
    if not lived and said != ALIVE:
        raise unknown_tenant(cursor, tenant, refused=True)
    _refuse_future(since, until, now)
    until = until or next_end(lived, since)
    after = edited(lived, said, since, until, _new(lived, since, until, org))
    _refuse_other_payer(after, since, org, now)
    uid = _confirmed(cursor, tenant, lived, after, lookup)
    done = PutRight(None, tenant, None, said, since, until or LAST, None, (), (), *author)
    # who it is was decided with its last lifetime, and not with an earlier one
    edit = _Edit(before, after, uid if after[-1] not in lived else None, since)
    return _put_right(cursor, done, edit, now, dry_run=dry_run)


def reopen(
    cursor: Cursor,
    tenant: str,
    *,
    ended_at: datetime | None = None,
    settle: timedelta,
    author: Author,
    lookup: Lookup | None = None,
    dry_run: bool = False,
) -> PutRight:
    """Record that a recreated tenant was gone from the end of its row until its creation, and who pays since.

    `ended_at` is when it was gone, where the ledger has the row open; `lookup` is what the cluster shows. Skills that
    go off at that end are on again with the new lifetime if the cluster shows them on. No correction of the new
    lifetime is dated before it began.

    Raises:
        NotPutRight: the tenant was not deleted and recreated, or the source is not the ledger's.
        ClusterNeeded: there is no `lookup`.
    """
    if lookup is None:
        raise ClusterNeeded(
            tenant, f"{tenant} would begin anew when the cluster says that it was recreated, and nobody has looked."
        )
    now = begin(cursor)
    check_source(cursor, lookup.listing)
    recorded = _recorded(cursor, lookup, settle)
    begun = new_lifetime(lookup, recorded, now, settle, _decided_before(cursor, tenant))
    closed, is_assumed = ended(recorded, begun, ended_at)
    before, since = history(cursor, tenant), closed.deleted_at or begun.created_at
    after, payer = _begun(before.lifetimes, since, begun)
    seen = lookup.resource or Observed(tenant)
    at = begun.created_at if before.lifetimes[-1].ended_at else since
    edit = _Edit(before, after, seen.uid, at, Reason.REOPENED, frozenset(seen.packages), payer)
    reopening = Reopening(closed, begun, is_assumed)
    done = PutRight(None, tenant, None, GONE, since, begun.created_at, None, (), (), *author, reopening=reopening)
    return _put_right(cursor, done, edit, now, dry_run=dry_run)


def _decided_before(cursor: Cursor, tenant: str) -> str:
    """Say who decided last when the tenant lived."""
    last = cursor.execute(query("last_reopening"), {"tenant": tenant}).fetchone()
    return f" A person decided when it lived, at {second(last[0])} UTC, by {last[1]}: {last[2]}" if last else ""


def _begun(
    lived: Sequence[Lifetime], ended_at: datetime, begun: Lifecycle
) -> tuple[tuple[Lifetime, ...], Payer | None]:
    """Return the lifetimes when the last of them has ended and a new one has begun, and who pays for that.

    Its own organisation does, also where a person decided that another one pays until the lifetime before ends.
    """
    *earlier, row = lived
    *gone, last = edited((*earlier, row._replace(ended_at=None)), GONE, ended_at, begun.created_at, None)
    # a day that the two lifetimes share is the earlier one's
    first = max(begun.created_at.astimezone(UTC).toordinal(), ended_at.astimezone(UTC).toordinal() + 1)
    own = Payer(begun.org, first, LAST.toordinal())
    pays_on = any(one.first < first and one.last >= own.last and one.org != own.org for one in row.payers)
    payer = own if pays_on else None
    payers = with_payer(row.payers, payer) if payer else row.payers
    return tuple(one._replace(payers=payers) for one in (*gone, last._replace(org=begun.org))), payer


def _recorded(cursor: Cursor, lookup: Lookup, settle: timedelta) -> Recorded:
    """Return the tenant's row, locked, and what runs know of it."""
    tenant, resource = lookup.tenant, lookup.resource
    row = cursor.execute(query("lock_lifecycle"), {"tenant": tenant}).fetchone()
    if row is None:
        raise NotPutRight(
            f"The ledger has no lifetime of {tenant} that could be reopened.",
            f"Nothing was written. {did_you_mean(cursor, tenant)} The next run records a new tenant.",
        )
    asked = {"tenant": tenant, "uid": resource and resource.uid, "settle": settle}
    ((follows, continues, start_is_decided, verified_at),) = cursor.execute(query("known_of_row"), asked).fetchall()
    return Recorded(
        name=tenant,
        lifecycle=Lifecycle(org=row[0], created_at=row[1], deleted_at=row[2]),
        follows=follows,
        continues=continues,
        start_is_decided=start_is_decided,
        verified_at=verified_at,
    )


def _put_right(cursor: Cursor, done: PutRight, edit: _Edit, now: datetime, *, dry_run: bool) -> PutRight:
    """Return a decision about lifetimes with its rows and what they are worth, written unless it is a dry run."""
    tenant, before, after = done.tenant, edit.before, edit.after
    skills = [*_skills(cursor, tenant, edit)]
    appended = tuple(each for skill in skills for each in _restated(skill, after[-1].org, now))
    billed = replace(with_appended(before, appended), lifetimes=after)
    changes = tuple(line_changes(tenant, before, billed, prices(cursor), now))
    done = with_billed(cursor, done._replace(appended=appended, changes=changes))
    if dry_run:
        return done
    gone = [number for skill in skills for number in skill.closing_ids]
    done = write(cursor, done)
    with deciding():
        _keep(cursor, done, edit, gone)
    return done


def _new(lived: Sequence[Lifetime], since: datetime, until: datetime | None, org: str | None) -> Lifetime | None:
    """Return the lifetime that begins apart from all others; None if nobody said who pays for the first one."""
    payer = org or (lived[-1].org if lived else None)
    return Lifetime(payer, since, until, lived[0].payers if lived else ()) if payer else None


def _refuse_future(since: datetime, until: datetime | None, now: datetime) -> None:
    if since >= now or (until and not since < until <= now):
        raise NotPutRight(
            f"It is {second(now)} UTC by the ledger's clock, and --from must be before that, and before --to.",
            "Nothing was written. Give times that are past; without --to it holds on and on.",
        )
    if since < FIRST_KUBERNETES:
        raise NotPutRight(
            f"{second(since)} UTC is before there was Kubernetes: no tenant lived then.",
            "Nothing was written. Check the year.",
        )


def _refuse_other_payer(lived: Iterable[Lifetime], since: datetime, org: str | None, now: datetime) -> None:
    """Refuse an organisation that a person names, where it is another one that pays."""
    days = [at.astimezone(UTC).toordinal() for at in (since, now)]
    begun = next((one for one in lived if one.began_at <= since and (not one.ended_at or since < one.ended_at)), None)
    others = {who for who, *_ in begun.shares(*days)} - {org} if begun and org else None
    if others:
        raise NotPutRight(
            f"{', '.join(sorted(others))} pays for that time, and not {org}.",
            "Nothing was written. Leave --org out; say from which day on another one pays with `reconciler record "
            "TENANT payer ORG`.",
        )


def _confirmed(
    cursor: Cursor, tenant: str, before: Sequence[Lifetime], after: Sequence[Lifetime], lookup: Lookup | None
) -> str | None:
    """Return the uid that the name has, if it is known; the cluster must show whether the tenant is open now."""
    was_open, is_open = (any(one.ended_at is None for one in those) for those in (before, after))
    seen = cursor.execute(query("seen_uid"), {"tenant": tenant}).fetchone()
    uid: str | None = seen[0] if seen else None
    if was_open == is_open:
        return uid
    if lookup is None:
        raise ClusterNeeded(
            tenant, f"{tenant} would be {'open' if is_open else 'deleted'} now, and nobody has looked at the cluster."
        )
    check_source(cursor, lookup.listing)
    resource = lookup.resource
    if resource and resource.problem:
        raise NotPutRight(
            f"{tenant} cannot be read: {resource.problem}.",
            "Nothing was written. Correct its custom resource, then repeat the command.",
        )
    is_live = resource is not None and resource.deleting_at is None
    if is_live != is_open:
        raise NotPutRight(
            f"Then {tenant} would be {'open' if is_open else 'deleted'} now, and the cluster shows it "
            f"{'alive' if is_live else 'gone'}: the next run would undo it, dated now.",
            "Nothing was written. Give --to the time from which it was as the cluster shows; if the cluster is wrong, "
            "change it first.",
        )
    return resource.uid if resource else uid


def _skills(cursor: Cursor, tenant: str, edit: _Edit) -> Iterator[_Skill]:
    """Yield the skills without what closed them where the tenant is gone no more, and where it is gone now."""
    numbers = {number for (number,) in cursor.execute(query("lifetime_decisions"), {"tenant": tenant})}
    closed = removed_ends(edit.before.lifetimes, edit.after)
    for name in edit.before.skills:
        known, new = read_key(cursor, (tenant, name)), edit.gaps_of(name)
        standing = known.decisions.standing
        over = [
            one for one in standing if one.number in numbers and (one.begins_at in closed or _lives(edit.after, one))
        ]
        begins = {one.begins_at for one in over} - {gap.begins_at for gap in new}
        shorter = (gap for gap in gaps((), edit.after) if gap.begins_at in begins)
        ids = {row.id for row in known.rows if row.kind == "disabled" and row.occurred_at in closed}
        kept = tuple(one for one in standing if one not in over)
        states = reading((event for event in known.events if event.id not in known.aside), standing, known.nothing)
        begun = (one.began_at for one in edit.before.lifetimes if any(at <= one.began_at for at in closed))
        yield _Skill(
            known._replace(decisions=known.decisions._replace(standing=kept)),
            frozenset(ids.union(one.place for one in over)),
            (*new, *shorter),
            tuple(at for at in begun if state_of(states, at, known.nothing) == "disabled"),
        )


def _lives(lived: Iterable[Lifetime], closing: Decided) -> bool:
    """True if the tenant lives in the time in which a decision about lifetimes closed a skill, if it has a length."""
    return closing.begins_at < closing.ends_at and any(
        one.began_at < closing.ends_at and closing.begins_at < (one.ended_at or LAST) for one in lived
    )


def _restated(skill: _Skill, org: str, now: datetime) -> list[Finding]:
    """Return what is appended to a skill: its closing at a removed end is taken back, and it goes off at a new one."""
    known = skill.known
    rows = [row for row in known.rows if row.id in skill.closing_ids]
    aside = known.aside | skill.closing_ids
    standing = known.decisions.standing
    states = reading([event for event in known.events if event.id not in aside], standing, known.nothing)
    new = [
        Decided(0, "disabled", gap.begins_at, gap.ends_at or gap.begins_at, NEXT)
        for gap in skill.gaps
        if state_of(states, gap.begins_at, known.nothing) == "enabled"
        or any(gap.begins_at < at < (gap.ends_at or at) and kind == "enabled" for at, kind in states.items())
    ]
    states = reading([event for event in known.events if event.id not in aside], (*standing, *new), known.nothing)
    on_again = (at for at in skill.off_at if state_of(states, at, known.nothing) == "enabled")
    new += [Decided(0, "disabled", at, at, NEXT) for at in on_again]
    pins = {at for one in new for at in (one.begins_at, one.ends_at)}
    stated = [*restate(known.events, aside, (*standing, *new), known.nothing, as_of=now, pins=pins)]
    unproven = [row for row in rows if row.interval is None and row.id not in known.aside]
    stated += [Restated(row.occurred_at, row.kind, row.event) for row in unproven[len(stated) :]]
    found = []
    for one in stated:
        held = next((each for each in reversed(new) if each.begins_at <= one.at <= each.ends_at), None)
        reason, moment = Reason.RETRACTED, Moment(one.at, one.at, one.at, Evidence.DECIDED)
        if held:
            reason, moment = Reason.RECORDED, Moment(one.at, held.begins_at, held.ends_at, Evidence.DECIDED)
        found.append(known.appended(one, reason, moment, org))
    for place, row in enumerate(unproven):
        found[place] = found[place]._replace(takes_back=row.id)
    return found


def _keep(cursor: Cursor, done: PutRight, edit: _Edit, closing_ids: list[int]) -> None:
    """Write the lifetimes, the last of them as the row, with their proof."""
    before, after = edit.before.lifetimes, edit.after
    *earlier, last = after
    if not earlier and len(before) > 1:
        earlier = [before[0]._replace(ended_at=before[0].began_at)]
    said = {"tenant": done.tenant, "number": done.number, "by": done.by, "note": done.note}
    if earlier:
        spans = {
            "orgs": [one.org for one in earlier],
            "began": [one.began_at for one in earlier],
            "ended": [one.ended_at for one in earlier],
        }
        cursor.execute(query("keep_lifetimes"), {**said, **spans})
    row = {"org": last.org, "began_at": last.began_at, "ended_at": last.ended_at}
    cursor.execute(query("set_lifetime"), {**said, **row})
    if cursor.execute(query("lock_lifecycle"), said).fetchone() != (last.org, last.began_at, last.ended_at):
        raise NotDecided(
            f"The ledger does not show the lifetime of {done.tenant} that was written: a trigger or a rule changed it.",
            "Nothing was written. Remove the cause, then repeat.",
        )
    bounds = [at for one in after for at in (one.began_at, one.ended_at) if at]
    cursor.execute(query("take_back_ends"), {**said, "bounds": bounds, "event_ids": closing_ids})
    until = None if done.until == LAST else done.until
    words = {"reason": edit.reason, "before": _words(before), "after": _words(after), "uid": edit.uid, "at": edit.at}
    if edit.payer:
        who = {"org": edit.payer.org, "since": date.fromordinal(edit.payer.first), "until": None}
        cursor.execute(query("keep_payer"), {**said, **who})
    worth = {"impact_chf": None if done.appended else done.difference_chf, "closed": bool(done.billed)}
    cursor.execute(query("prove_lifetime"), {**said, **row, **words, **worth, "since": done.since, "until": until})


def _words(lived: Sequence[Lifetime]) -> str:
    spans = (f"{second(one.began_at)} to {second(one.ended_at) if one.ended_at else 'now'}" for one in lived)
    return "; ".join(spans) or "absent"
