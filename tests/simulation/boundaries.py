"""Every place where a run speaks to the world outside: there time runs, the portal acts, and faults strike."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.transaction import Transaction

from reconciler.core.model import LogRead, VersionKind
from reconciler.db import connection as database
from reconciler.db import runs
from tests.simulation.portal import SETTLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from types import TracebackType

    import pytest

    from reconciler.core.model import ChangeLog, Listing, Observed, Spool, StartLog
    from reconciler.sources.cluster import Cluster
    from tests.simulation.portal import Clock


NOTIFIED = "notified"
"""The boundary from which on a run has been written, and recipients of alerts have been notified."""


class Died(BaseException):
    """The process was killed here."""


@dataclass
class Boundaries:
    """Counts the boundaries of a run, and does at each what it is told."""

    at: Callable[[str], None] = lambda _: None
    passed: list[str] = field(default_factory=list)
    off: bool = False

    def cross(self, where: str) -> None:
        """Cross a boundary."""
        if not self.off:
            self.passed.append(where)
            self.at(where)

    @contextmanager
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Put a boundary around every statement and every end of a transaction that a run makes; time it by ours."""
        boundaries = self
        really_start = runs.start

        class Cursor(psycopg.Cursor[Any]):
            def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
                name = bytes(query if isinstance(query, bytes) else str(query).encode()).split()[0].decode().lower()
                boundaries.cross(f"before {name}")
                result = super().execute(query, *args, **kwargs)
                boundaries.cross(f"after {name}")
                return result

        class Ends(Transaction):
            def __exit__(
                self,
                kind: type[BaseException] | None,
                error: BaseException | None,
                traceback: TracebackType | None,
            ) -> bool:
                if error is None:
                    try:
                        boundaries.cross("before commit")
                    except BaseException as struck:
                        super().__exit__(type(struck), struck, struck.__traceback__)
                        raise
                result = super().__exit__(kind, error, traceback)
                if error is None:
                    boundaries.cross("after commit")
                return result

        really_connect = database.connect

        def connect(url: str) -> psycopg.Connection[Any]:
            boundaries.cross("before connect")
            connection = really_connect(url)
            connection.cursor_factory = Cursor
            connection.transaction = lambda **given: Ends(connection, **given)  # type: ignore[method-assign,assignment]
            return connection

        record_notified = runs.record_notified

        def after_the_run(*given: Any) -> None:
            boundaries.cross(NOTIFIED)
            record_notified(*given)

        def start(ledger: database.Ledger, seconds: float) -> runs.Start:
            started = really_start(ledger, seconds)
            return started._replace(read_at=started.observed_at.timestamp())

        with monkeypatch.context() as patch:
            patch.setattr(runs, "start", start)
            patch.setattr(runs, "record_notified", after_the_run)
            patch.setattr(database, "connect", connect)
            yield


@dataclass
class Looks:
    """The source as the run sees it, with a boundary around every call, and a record of what was shown."""

    source: Cluster
    boundaries: Boundaries
    clock: Clock
    began: datetime | None = None
    """When the first list was asked for."""
    shown: list[dict[str, Observed | None] | tuple[str, Observed | None]] = field(default_factory=list)
    shown_at: list[datetime] = field(default_factory=list)
    is_live: bool = True

    @property
    def namespaced(self) -> bool:
        """Pass it on."""
        return self.source.namespaced

    def identity(self) -> str:
        """Pass it on."""
        self.boundaries.cross("before identity")
        return self.source.identity()

    def read_log(self, position: str, until: str) -> ChangeLog:
        """Pass it on."""
        self.boundaries.cross("before log")
        log = self.source.read_log(position, until)
        if not self.shown and log.read is LogRead.REACHED:
            # in place of a list
            last = {each.name: None if kind is VersionKind.DELETED else each for kind, each in log.versions}
            for look in last.items():
                self._show(look)
        self.boundaries.cross("after log")
        return log

    def head(self) -> tuple[Listing, int] | None:
        """Pass it on."""
        self.boundaries.cross("before list of one")
        self.began = self.began or self.clock.now
        found = self.source.head()
        self.boundaries.cross("after list of one")
        return found and (found[0]._replace(read_at=self.clock.now.timestamp()), found[1])

    def _show(self, look: dict[str, Observed | None] | tuple[str, Observed | None]) -> None:
        self.shown.append(look)
        self.shown_at.append(self.clock.now)

    def observe(self, spool: Spool, start_log: StartLog | None = None, /) -> Listing:
        """Pass it on, and remember the whole list."""
        self.boundaries.cross("before list")
        listed: dict[str, Observed | None] = {}
        if self.began is None or self.clock.now < self.began + SETTLE:
            # it is no recheck: what a run began to read that then had to list all of them counts for nothing
            self.began = self.clock.now
            self.shown.clear()
            self.shown_at.clear()

        class Recording:
            def add(self, tenant: Observed, /) -> None:
                listed[tenant.name] = tenant
                spool.add(tenant)

            def restart(self) -> None:
                listed.clear()
                spool.restart()

        # the world's clock, as in `Boundaries.installed`
        listing = self.source.observe(Recording(), start_log)._replace(read_at=self.clock.now.timestamp())
        self._show(listed)
        self.boundaries.cross("after list")
        return listing

    def get(self, name: str, namespace: str | None) -> Observed | None:
        """Pass it on, and remember the answer."""
        self.boundaries.cross("before get")
        again = self.source.get(name, namespace)
        self._show((name, again))
        self.boundaries.cross("after get")
        return again

    def first_of(self, name: str) -> datetime:
        """When the run looked at a tenant for the first time."""
        return min(
            at for look, at in zip(self.shown, self.shown_at, strict=True) if isinstance(look, dict) or look[0] == name
        )

    def of(self, name: str) -> list[Observed | None]:
        """Every look that the run had at a tenant."""
        return [
            look.get(name) if isinstance(look, dict) else look[1]
            for look in self.shown
            if isinstance(look, dict) or look[0] == name
        ]
