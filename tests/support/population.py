"""Two hundred believable tenants and ten that cannot be read: of every kind that a ledger has to cope with."""

from __future__ import annotations

import enum
import itertools
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from tests.support.api_state import ORG_LABEL, tenant
from tests.support.harness import FakeCluster
from tests.support.ledger_rows import BillingRows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from tests.support.api_state import Object
    from tests.support.harness import Cluster

UNKNOWN: Final = "unknown"
FINALIZER: Final = "pieced.ch/operator"

_SKILLS: Final = ("calendar", "crm-sync", "mail", "searxng-local-search", "threema", "translation", "voice")
_ODD_SKILLS: Final = (
    "web,search",
    'say "hello"',
    "{braces}",
    "back\\slash",
    "NULL",
    "\\N",
    "zürich-öv",
    "🤖",
    " spaced ",
    "line\n\\.\nbreak",
    "tab\there",
    "\x1b[31mred",
    "'; DROP TABLE invoices; --",
    "x" * 253,
)
_TRADES: Final = ("praxis", "treuhand", "garage", "kanzlei", "apotheke", "verlag", "bau", "reisen", "optik", "schule")
_PLACES: Final = (
    *("aarau", "basel", "bern", "biel", "chur", "genf", "horgen", "luzern", "olten", "sion", "thun", "uster", "visp"),
    *("winterthur", "yverdon", "zug", "zuerich", "baden", "davos", "lugano", "wil"),
)


class Suspended(enum.Enum):
    """Whether a tenant is suspended, and what tells since when."""

    NO = enum.auto()
    SINCE_CREATION = enum.auto()
    SINCE_STATUS = enum.auto()
    """status.suspendedAt."""
    SINCE_WRITE = enum.auto()
    """The time in managedFields alone: nothing, where that proves nothing."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One tenant: how it came to be what it is, and what there is to be recorded of it.

    Attributes:
        sent: what the portal created it with.
        steps: what happened to it afterwards.
        org: who pays for it.
        skills: the packages that are on, each once.
        suspended: whether it is suspended.
        deleting: whether its deletion was asked for.
        readable: whether all of it makes sense.
    """

    sent: Object
    steps: tuple[Callable[[Cluster, str], None], ...] = ()
    org: str = UNKNOWN
    skills: frozenset[str] = frozenset()
    suspended: Suspended = Suspended.NO
    deleting: bool = False
    readable: bool = True

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.sent["metadata"]["name"])

    @property
    def report(self) -> str | None:
        """The reason that it is reported for on every run."""
        if not self.readable:
            return "tenant_unreadable"
        return "org_unlabelled" if self.org == UNKNOWN and not self.deleting else None


# what happens to a tenant


def suspended_by_spec(cluster: Cluster, name: str) -> None:
    """The portal suspends it."""
    cluster.patch(name, {"spec": {"suspend": True}})


def resumed_by_spec(cluster: Cluster, name: str) -> None:
    """The portal resumes it."""
    cluster.patch(name, {"spec": {"suspend": False}})


def suspension_seen(cluster: Cluster, name: str) -> None:
    """The operator sees the suspension."""
    cluster.set_status(name, {"phase": "Suspended", "suspendedAt": f"{now(cluster):%Y-%m-%dT%H:%M:%SZ}"})


def suspension_seen_from_bern(cluster: Cluster, name: str) -> None:
    """The operator sees the suspension, and writes the time down with Swiss summer time's offset and milliseconds."""
    there = now(cluster) + timedelta(hours=2)
    cluster.set_status(name, {"suspendedAt": f"{there:%Y-%m-%dT%H:%M:%S}.000+02:00"})


def resumption_seen(cluster: Cluster, name: str) -> None:
    """The operator sees the resumption."""
    cluster.set_status(name, {"phase": "Running", "suspendedAt": None})


def deleted(cluster: Cluster, name: str) -> None:
    """The portal asks for its deletion."""
    cluster.delete(name)


def packages(*skills: str) -> Callable[[Cluster, str], None]:
    """The portal toggles its packages."""

    def toggled(cluster: Cluster, name: str) -> None:
        cluster.patch(name, {"spec": {"packages": list(skills)}})

    return toggled


def status(**values: Any) -> Callable[[Cluster, str], None]:
    """Somebody writes its status."""

    def written(cluster: Cluster, name: str) -> None:
        cluster.set_status(name, values)

    return written


# its time


def now(cluster: Cluster) -> datetime:
    """What time it is there."""
    return cluster.api.clock() if isinstance(cluster, FakeCluster) else datetime.now(UTC)


@contextmanager
def at(cluster: Cluster, moment: datetime) -> Iterator[None]:
    """Let the double's clock stand at a moment. A real server's cannot be set: there everything happens now."""
    if not isinstance(cluster, FakeCluster):
        yield
        return
    clock = cluster.api.clock
    cluster.api.clock = lambda: moment
    try:
        yield
    finally:
        cluster.api.clock = clock


# the population


def population() -> list[Member]:
    """Return the two hundred that can be read, and the ten that cannot, shuffled the same way every time."""
    names = (f"{trade}-{place}" for place, trade in itertools.product(_PLACES, _TRADES))
    kinds = [*_running(), *_suspended(), *_without_an_organisation(), *_being_deleted(), *_unreadable()]
    # 83 has no factor in common with their number: every kind is spread over all pages of a list
    spread = [kinds[83 * number % len(kinds)] for number in range(len(kinds))]
    members = [_named(member, name, number) for number, (member, name) in enumerate(zip(spread, names, strict=False))]
    assert Counter(member.readable for member in members) == {True: 200, False: 10}
    return members


def settle(cluster: Cluster, members: Iterable[Member], first: datetime | None = None) -> None:
    """Put them there: on the double over four hundred days, by default the last ones, each step after the last."""
    first = first or datetime.now(UTC).replace(microsecond=0) - timedelta(days=400)
    for number, member in enumerate(members):
        moment = first + number * timedelta(days=1, hours=19, minutes=7)
        with at(cluster, moment):
            cluster.create(member.sent)
        for hours, step in enumerate(member.steps, start=1):
            with at(cluster, moment + hours * timedelta(hours=5)):
                step(cluster, member.name)


def objects(cluster: Cluster) -> dict[str, Object]:
    """Return all that is there, by name."""
    return {item["metadata"]["name"]: item for item in cluster.fetch().json()["items"]}


def backfilled(members: Iterable[Member], found: Mapping[str, Object], *, dated: bool) -> BillingRows:
    """Return what an empty ledger must say after the first run.

    Args:
        members: the tenants.
        found: as the cluster shows them.
        dated: whether the times in managedFields can be relied on.
    """
    lifecycles, skills, suspensions = [], [], []
    for member in members:
        shown, name = found[member.name], member.name
        if not member.readable:
            continue
        created_at = time(shown["metadata"]["creationTimestamp"])
        deleted_at = time(shown["metadata"]["deletionTimestamp"]) if member.deleting else None
        # a lifetime lasts a second at least
        deleted_at = deleted_at and max(deleted_at, created_at + timedelta(seconds=1))
        lifecycles.append((name, member.org, created_at, deleted_at))
        skills += [(name, member.org, skill, "enabled", created_at) for skill in member.skills]
        if member.deleting:
            skills += [(name, member.org, skill, "disabled", deleted_at) for skill in member.skills]
            continue
        since = _suspended_since(member, shown, created_at, dated=dated)
        if since:
            suspensions.append((name, member.org, "suspended", since))
    return BillingRows(sorted(lifecycles), sorted(skills), sorted(suspensions))


def written_at(shown: Object, field: str) -> datetime:
    """Return the time in managedFields of who owns a field of the spec."""
    (entry,) = (
        entry for entry in shown["metadata"]["managedFields"] if f"f:{field}" in entry["fieldsV1"].get("f:spec", {})
    )
    written: datetime = time(entry["time"])
    return written


def time(text: Any) -> Any:
    """Return the instant that an object's time stands for; None for none."""
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)


def _suspended_since(member: Member, shown: Object, created_at: datetime, *, dated: bool) -> datetime | None:
    match member.suspended:
        case Suspended.NO:
            return None
        case Suspended.SINCE_STATUS:
            since: datetime = time(shown["status"]["suspendedAt"])
            return since
        case Suspended.SINCE_WRITE if dated:
            return written_at(shown, "suspend")
        case _:
            return created_at


def _named(member: Member, name: str, number: int) -> Member:
    sent = member.sent | {"metadata": member.sent["metadata"] | {"name": name}}
    if "spec" in sent:
        sent["spec"] = sent["spec"] | {"displayName": name.replace("-", " ").title()}
    if member.org != UNKNOWN:
        # several tenants an organisation
        org = str(287125370152419842 + 1009 * (number % 61))
        sent["metadata"] |= {"labels": {ORG_LABEL: org}}
        return replace(member, sent=sent, org=org)
    return replace(member, sent=sent)


def _made(given: Any = (), **attributes: Any) -> Member:
    of_the_tenant = {name: attributes.pop(name) for name in ("suspend", "finalizers") if name in attributes}
    skills = frozenset(given) if isinstance(given, (list, tuple)) and attributes.get("readable", True) else frozenset()
    org = attributes.pop("org", "label")
    return Member(
        sent=tenant("", given, org=None if org == UNKNOWN else org, **of_the_tenant),
        **{"org": org, "skills": skills} | attributes,
    )


def _some(number: int, count: int) -> tuple[str, ...]:
    return tuple(_SKILLS[(number + offset) % len(_SKILLS)] for offset in range(count))


def _running() -> Iterator[Member]:
    yield from (_made() for _ in range(22))
    yield from (_made(None) for _ in range(4))
    without = _made()
    body = {name: value for name, value in without.sent["spec"].items() if name != "packages"}
    yield from (replace(without, sent=without.sent | {"spec": body}) for _ in range(4))
    yield from (
        replace(without, sent={key: value for key, value in without.sent.items() if key != "spec"}) for _ in "12"
    )
    yield from (_made(_some(number, 1)) for number in range(30))
    yield from (_made(_some(number, 2 + number % 5)) for number in range(48))
    yield from (_made([*_some(number, 2), *_some(number, 1)]) for number in range(6))
    yield from (_made([skill, "mail"]) for skill in _ODD_SKILLS)
    # the spec was changed since: what is on now may have been added at any time
    yield from (
        replace(_made(_some(number, 1), steps=(packages(*_some(number, 3)),)), skills=frozenset(_some(number, 3)))
        for number in range(12)
    )
    yield from (replace(_made(_some(number, 3), steps=(packages(),)), skills=frozenset()) for number in range(4))


def _suspended() -> Iterator[Member]:
    seen, unseen = Suspended.SINCE_STATUS, Suspended.SINCE_WRITE
    for number in range(6):
        skills = _some(number, number % 3)
        yield _made(skills, suspend=True, steps=(suspension_seen,), suspended=seen)
        yield _made(skills, steps=(suspended_by_spec, suspension_seen), suspended=seen)
        yield _made(skills, steps=(suspended_by_spec, suspension_seen_from_bern), suspended=seen)
        yield _made(skills, steps=(suspension_seen,), suspended=seen)
    yield from (_made(_some(number, 1), suspend=True, suspended=Suspended.SINCE_CREATION) for number in range(4))
    yield from (_made(_some(number, 1), steps=(suspended_by_spec,), suspended=unseen) for number in range(4))
    yield from (
        _made(_some(number, 2), steps=(suspended_by_spec, suspension_seen, resumed_by_spec)) for number in range(4)
    )
    yield from (
        _made(_some(number, 2), steps=(suspended_by_spec, suspension_seen, resumed_by_spec, resumption_seen))
        for number in range(4)
    )


def _without_an_organisation() -> Iterator[Member]:
    yield from (_made(_some(number, number % 3), org=UNKNOWN) for number in range(4))
    for label in ("", UNKNOWN):
        member = _made(_some(1, 1), org=UNKNOWN)
        yield replace(member, sent=member.sent | {"metadata": {"labels": {ORG_LABEL: label}}})


def _being_deleted() -> Iterator[Member]:
    gone: dict[str, Any] = {"finalizers": [FINALIZER], "deleting": True}
    yield from (_made(_some(number, number), **gone, steps=(deleted,)) for number in range(4))
    yield from (_made(_some(number, 1), **gone, suspend=True, steps=(suspension_seen, deleted)) for number in range(3))
    yield _made(["mail"], **gone, org=UNKNOWN, steps=(deleted,))


def _unreadable() -> Iterator[Member]:
    for given in ("web-search", {"web-search": True}, [7], [""], ["web\0search"], ["x" * 254], 12):
        yield _made(given, readable=False)
    yield _made(["mail"], suspend="yes", readable=False)
    yield _made(["mail"], readable=False, steps=(status(suspendedAt="yesterday"),))
    yield _made(["mail"], readable=False, suspend=True, steps=(status(suspendedAt="2026-05-01T10:00:00"),))
