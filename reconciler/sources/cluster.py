"""Lists the tenants of a cluster: all of them, or none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar
from urllib.parse import quote, urlencode

import msgspec
import structlog
from msgspec import Meta, Raw, Struct

from reconciler.core.errors import SourceFault
from reconciler.core.model import Listing, Observed
from reconciler.sources.api_client import Gone, NotFound, malformed
from reconciler.sources.change_log import read_log
from reconciler.sources.parse import read

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from reconciler.core.model import ChangeLog, Spool, StartLog
    from reconciler.sources.api_client import Answer, CustomResource, ServedKind

_NAME = re.compile(r"[a-z0-9.-]{1,253}")
"""What custom resources are named with: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/"""
MAX_LIST_RESTARTS = 3
"""Times that a list may start again after 410 Gone."""

_log = structlog.get_logger(__name__)


class _ListMeta(Struct, rename="camel"):
    resource_version: Annotated[str, Meta(pattern=r"^[!-~]{0,100}$")]
    token: str = msgspec.field(name="continue", default="")
    remaining_item_count: int | None = None
    shard_info: Any = None


class _List(Struct, rename="camel"):
    kind: str
    api_version: str
    metadata: _ListMeta
    items: list[Raw]


class _ObjectMeta(Struct):
    uid: Annotated[str, Meta(pattern=r"^[!-~]{1,100}$")]


class _Object(Struct):
    kind: str
    metadata: _ObjectMeta


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The PiecedTenants of one cluster. Whatever reads it raises as `Api` does."""

    resource: CustomResource
    org_label: str
    page_size: int

    is_live: ClassVar[bool] = True

    @property
    def namespaced(self) -> bool:
        """True if tenants live in namespaces."""
        return self.resource.discover().namespaced

    def identity(self) -> str:
        """Return what identifies this cluster: the uid of its kube-system namespace."""
        try:
            answer = self.resource.api.get("/api/v1/namespaces/kube-system")
        except NotFound as error:
            raise malformed(f"the cluster has no namespace kube-system ({error})") from None
        return answer.decoded(_Object, "Namespace").metadata.uid

    def observe(self, spool: Spool, start_log: StartLog | None = None) -> Listing:
        """Put every tenant into the spool, and read the change log up to the list beside that.

        Raises:
            SourceFault: the list is incomplete or malformed.
        """
        kind = self.resource.discover()
        for _ in range(1 + MAX_LIST_RESTARTS):
            try:
                return self._list(kind, spool, start_log)
            except Gone:
                # the token in a 410 continues at another resourceVersion: it is never used
                _log.warning("list.expired", meaning="the list starts again from its first page")
                spool.restart()
        raise SourceFault(
            f"The list of {self.resource.plural} expired {1 + MAX_LIST_RESTARTS} times while it was read (410 Gone).",
            "Nothing was written. The API server compacts too early: raise --page-size or check its load.",
        )

    def head(self) -> tuple[Listing, int] | None:
        """Return what is known of a list of all tenants, and how many there are, by listing one of them.

        Returns:
            None if the API server does not say how many there are.
        """
        kind = self.resource.discover()
        answer, page = self._page(kind, self._ask(kind, {"limit": "1"}))
        answer.refuse_doubled_keys()
        version, rest = page.metadata.resource_version, page.metadata.remaining_item_count
        if not version or (page.metadata.token and rest is None):
            return None
        return Listing(self.identity(), version, answer.date, answer.read_at), len(page.items) + (rest or 0)

    def get(self, name: str, namespace: str | None) -> Observed | None:
        """Read one tenant again, where it was listed; the namespace is None if it was not listed.

        Returns:
            The tenant, or None if the API server says that it does not exist.

        Raises:
            SourceFault: the API server says neither.
        """
        if not _NAME.fullmatch(name) or not name.strip("."):
            # no resource can have it: it stands in the ledger alone, and in a path it would name something else
            return None
        kind = self.resource.discover()
        if kind.namespaced and namespace is None:
            answer, page = self._page(kind, self._ask(kind, {"fieldSelector": f"metadata.name={name}"}))
            answer.refuse_doubled_keys()
            # with a selector the API server never estimates what remains
            found = [self._read(kind, item) for item in page.items]
            if page.metadata.token or page.metadata.remaining_item_count or {one.name for one in found} - {name}:
                raise malformed(f"a list of {name} only has other tenants, or is incomplete")
            return found[0] if found else None
        within = f"/namespaces/{quote(namespace or '')}" if kind.namespaced else ""
        path = f"/apis/{kind.api_version}{within}/{self.resource.plural}/{quote(name)}"
        try:
            answer = self.resource.api.get(path)
        except NotFound as error:
            # a 404 from a proxy or for a missing CustomResourceDefinition does not prove that the tenant is absent
            if error.name != name:
                raise malformed(f"{path} answered 404, but without saying that {name} is not found: {error}") from None
            return None
        answer.decoded(_Object, kind.name)
        again = self._read(kind, Raw(answer.body))
        if again.name != name:
            raise malformed(f"{path} answered with {again.name}")
        return again

    def read_log(self, position: str, until: str) -> ChangeLog:
        """Read what happened to the tenants between the resourceVersions of two lists, as far as that can be known.

        Raises:
            DeadlineExceeded: the run's time is over.
            ClusterDenied: the API server does not accept the credentials (401).
        """
        return read_log(self.resource, self._read, position, until)

    def _list(self, kind: ServedKind, spool: Spool, start_log: StartLog | None) -> Listing:
        """Spool every page, and request the next one while this one is read."""
        tokens, before = set[str](), 0
        first: tuple[str, datetime | None, float] | None = None
        log: Callable[[], ChangeLog] | None = None
        estimate: int | None = None
        asked = self._ask(kind, {"limit": str(self.page_size)})
        while True:
            answer, page = self._page(kind, asked)
            first = first or (page.metadata.resource_version, answer.date, answer.read_at)
            version, token = page.metadata.resource_version, page.metadata.token
            if not version or version != first[0]:
                raise malformed(f"the resourceVersion changed from {first[0]!r} to {version!r} between two pages")
            # the API server says only after seconds how far it has come: read it beside the other pages
            log = log or (start_log and start_log(version))
            if token:
                if not page.items:
                    raise malformed("a page without items has a continue token")
                if token in tokens:
                    raise malformed("two pages have the same continue token")
                tokens.add(token)
                asked = self._ask(kind, {"limit": str(self.page_size), "continue": token})
            # while the API server prepares the next page
            answer.refuse_doubled_keys()
            for position, item in enumerate(page.items, start=before + 1):
                spool.add(self._read(kind, item, position))
            before += len(page.items)
            estimate = _compared(estimate, page, before)
            if not token:
                # the identity is read after the last page: it must still be the same cluster
                return Listing(self.identity(), *first, log=log)

    def _read(self, kind: ServedKind, item: Raw, position: int = 1) -> Observed:
        found = read(item, org_label=self.org_label, position=position, reliable_times=kind.has_reliable_times)
        if found.uid is None and found.problem is None:
            # an API server gives every object one; without it, nobody knows which tenant of that name it is
            return Observed(name=found.name, namespace=found.namespace, problem="metadata.uid is missing")
        return found

    def _ask(self, kind: ServedKind, query: dict[str, str]) -> Callable[[], Answer]:
        # no resourceVersion in the query: a consistent read, not what a cache happens to hold
        return self.resource.api.ask(f"/apis/{kind.api_version}/{self.resource.plural}?{urlencode(query)}")

    def _page(self, kind: ServedKind, asked: Callable[[], Answer]) -> tuple[Answer, _List]:
        try:
            answer = asked()
        except NotFound:
            raise self.resource.not_found() from None
        page = answer.decoded(_List, f"{kind.name}List", check_keys=False)
        if page.api_version != kind.api_version:
            raise malformed(f"the list is of {page.api_version}, not of {kind.api_version}")
        if page.metadata.shard_info is not None:
            raise malformed("the list is one shard of several (metadata.shardInfo)")
        return answer, page


def _compared(estimate: int | None, page: _List, received: int) -> int | None:
    """Log how far the list is from the earlier estimate of its length; return the page's own, None if it has none.

    Kubernetes calls remainingItemCount an estimate: it proves nothing
    (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/list-meta/).
    """
    remaining = page.metadata.remaining_item_count
    if remaining is None and page.metadata.token:
        return None
    length = received + (remaining or 0)
    if (estimate not in {None, length}) or (remaining and not page.metadata.token):
        _log.warning("list.estimate_differs", estimated=estimate, received=received, remaining=remaining)
    return length
