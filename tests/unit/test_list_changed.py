"""What is read in place of a list of all tenants, and when nothing but that list will do."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from reconciler.core.model import ChangeLog, Listing, LogRead, Observed, Since, Spool, StartLog, Version, VersionKind
from reconciler.sources.listing import list_changed

ADDED, MODIFIED, DELETED = VersionKind
LAST = Listing("cluster", "100")


def acme(version: str = "90") -> Observed:
    return Observed(name="acme", uid="1", resource_version=version)


def broken() -> Observed:
    return Observed(name="acme", problem="spec.packages is text")


@dataclass
class Stub:
    """A cluster at version 110 of which each answer can be told."""

    tenant: Observed | None = None
    log: tuple[Version, ...] = ()
    read: LogRead = LogRead.REACHED
    head_: tuple[Listing, int] | None = (Listing("cluster", "110"), 1000)
    namespaced: bool = False
    is_live: bool = True
    asked: list[str] = field(default_factory=list)

    def identity(self) -> str:
        raise NotImplementedError

    def head(self) -> tuple[Listing, int] | None:
        return self.head_

    def get(self, name: str, namespace: str | None) -> Observed | None:
        assert namespace is None
        self.asked.append(name)
        return self.tenant

    def observe(self, spool: Spool, start_log: StartLog | None = None, /) -> Listing:
        raise NotImplementedError

    def read_log(self, position: str, until: str) -> ChangeLog:
        assert (position, until) == ("95", "110")
        return ChangeLog(self.read, until, self.log)


class Kept(list[Observed]):
    """A spool in memory."""

    def add(self, tenant: Observed, /) -> None:
        self.append(tenant)

    def restart(self) -> None:
        raise NotImplementedError


def read(stub: Stub, **due: str | None) -> tuple[set[str], list[str | None]] | None:
    """Return which tenants could differ, and the versions that are shown of them."""
    kept = Kept()
    found = list_changed(stub, kept, Since(due, 7), LAST, lambda until: lambda: stub.read_log("95", until))
    if found is None:
        assert kept == []
        return None
    assert found.changed
    assert (found.changed.tenants_observed, found.changed.tenants_recorded) == (1000, 7)
    return {*found.changed.names}, [one.resource_version for one in kept]


CHANGED = (Version(MODIFIED, acme("104")), Version(MODIFIED, acme("107")))
GONE = (*CHANGED, Version(DELETED, acme("108")))


@pytest.mark.parametrize(
    ("stub", "due", "found"),
    [
        pytest.param(Stub(), {}, (set(), []), id="nothing has changed"),
        pytest.param(Stub(log=CHANGED), {}, ({"acme"}, ["107"]), id="it has changed twice - the last version"),
        pytest.param(Stub(log=GONE), {}, ({"acme"}, []), id="it has gone - it is not shown"),
        pytest.param(Stub(log=(*GONE, Version(ADDED, acme("109")))), {}, ({"acme"}, ["109"]), id="it came again"),
        pytest.param(Stub(acme()), {"acme": "90"}, ({"acme"}, ["90"]), id="it is due and as it was"),
        pytest.param(Stub(acme("111")), {"acme": "90"}, None, id="it is due and has changed since"),
        pytest.param(Stub(None), {"acme": "90"}, None, id="it is due and has gone since"),
        pytest.param(Stub(broken()), {"acme": "90"}, None, id="it is due and cannot be read any more"),
        pytest.param(Stub(None), {"acme": None}, ({"acme"}, []), id="it was not there, and is not"),
        pytest.param(Stub(broken()), {"acme": None}, ({"acme"}, [None]), id="it could not be read, and cannot be"),
        pytest.param(Stub(acme()), {"acme": None}, None, id="it can be read, and the log says nothing of it"),
        pytest.param(Stub(read=LogRead.PARTLY), {}, None, id="the log did not reach the list"),
        pytest.param(Stub(read=LogRead.LOST), {}, None, id="the log is lost"),
        pytest.param(Stub(head_=None), {}, None, id="nobody says how many there are"),
        pytest.param(Stub(head_=(Listing("cluster", "99"), 1)), {}, None, id="the version is older than the last"),
        pytest.param(Stub(head_=(Listing("other", "110"), 1)), {}, None, id="it is another cluster"),
        pytest.param(Stub(namespaced=True), {}, None, id="tenants live in namespaces"),
        pytest.param(Stub(), {f"t-{number}": None for number in range(51)}, None, id="a list of all costs less"),
    ],
)
def test_what_has_changed_is_read_or_all_tenants_are_listed(
    stub: Stub, due: dict[str, str | None], found: tuple[set[str], list[str | None]] | None
) -> None:
    assert read(stub, **due) == found


def test_what_the_log_shows_is_not_asked_for() -> None:
    stub = Stub(log=CHANGED)
    assert read(stub, acme="90") == ({"acme"}, ["107"])
    assert stub.asked == []
