"""Observe the tenants of a cluster: every one of them, or fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote, urlencode

import msgspec
import structlog
from msgspec import Raw, Struct

from reconciler.core.errors import SourceFault
from reconciler.core.model import Listing
from reconciler.sources.api_client import Gone, NotFound, malformed
from reconciler.sources.parse import read

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from reconciler.core.model import Observed, Spool
    from reconciler.sources.api_client import Answer, CustomResource, Kind

PAGE_SIZE = 500
"""Tenants a page."""
LIST_RESTARTS = 3
"""How often a list may start again after 410 Gone."""

_log = structlog.get_logger(__name__)


class _ListMeta(Struct, rename="camel"):
    resource_version: str
    token: str = msgspec.field(name="continue", default="")
    remaining_item_count: int | None = None


class _List(Struct, rename="camel"):
    kind: str
    api_version: str
    metadata: _ListMeta
    items: list[Raw]


class _ObjectMeta(Struct):
    uid: str


class _Object(Struct):
    kind: str
    metadata: _ObjectMeta


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The PiecedTenants of one cluster.

    Attributes:
        resource: the custom resource on its API server.
        org_label: the label that names the paying organisation.
        page_size: tenants a page.
    """

    resource: CustomResource
    org_label: str
    page_size: int = PAGE_SIZE

    is_live: ClassVar[bool] = True

    @property
    def namespaced(self) -> bool:
        """True if tenants live in namespaces; raises as `CustomResource.discover` does."""
        return self.resource.discover().namespaced

    def identity(self) -> str:
        """Return what tells this cluster from any other: the uid of its kube-system namespace.

        Raises:
            SourceFault: it cannot be read.
        """
        try:
            answer = self.resource.api.get("/api/v1/namespaces/kube-system")
        except NotFound as error:
            raise malformed(f"the cluster has no namespace kube-system ({error})") from None
        return answer.decoded(_Object, "Namespace").metadata.uid

    def observe(self, spool: Spool) -> Listing:
        """Put every tenant into the spool.

        Returns:
            What is known of the list, once it is known to be whole.

        Raises:
            SourceFault: the list is not whole or not well-formed.
            DeadlineExceeded: it took too long.
        """
        kind = self.resource.discover()
        for _ in range(1 + LIST_RESTARTS):
            try:
                return self._list(kind, spool)
            except Gone:
                # the token that comes with a 410 continues at another resourceVersion: it is never followed
                _log.warning("list.expired", meaning="it starts again from its first page")
                spool.restart()
        raise SourceFault(
            f"The list of {self.resource.plural} expired {1 + LIST_RESTARTS} times while it was being read (410 Gone).",
            "The API server compacts faster than it serves the pages; is it overloaded? Nothing was written.",
        )

    def get(self, name: str, namespace: str | None) -> Observed | None:
        """Read one tenant again.

        Args:
            name: the tenant.
            namespace: where it was seen; None where it was not seen at all.

        Returns:
            The tenant, or None where the API server says that there is none of that name.

        Raises:
            SourceFault: the API server says neither.
        """
        kind = self.resource.discover()
        if kind.namespaced and namespace is None:
            _, page = self._page(kind, self._ask(kind, {"fieldSelector": f"metadata.name={name}"}))
            found = [self._read(kind, item) for item in page.items]
            if page.metadata.token or page.metadata.remaining_item_count or {one.name for one in found} - {name}:
                raise malformed(f"asked for {name} alone, it answered with others, or with a part")
            return found[0] if found else None
        within = f"/namespaces/{quote(namespace or '')}" if kind.namespaced else ""
        path = f"/apis/{kind.api_version}{within}/{self.resource.plural}/{quote(name)}"
        try:
            answer = self.resource.api.get(path)
        except NotFound as error:
            # a proxy's 404, or that of a CustomResourceDefinition that is gone, proves no tenant absent
            if error.name != name:
                raise malformed(f"{path} answered 404, but not that {name} is not found: {error}") from None
            return None
        answer.decoded(_Object, kind.name)
        again = self._read(kind, Raw(answer.body))
        if again.name != name:
            raise malformed(f"{path} answered with {again.name}")
        return again

    def _list(self, kind: Kind, spool: Spool) -> Listing:
        """Spool every page. The next one is on its way while this one is read."""
        tokens, before = set[str](), 0
        first: tuple[str, datetime | None, float] | None = None
        announced: int | None = None
        asked = self._ask(kind, {"limit": str(self.page_size)})
        while True:
            answer, page = self._page(kind, asked)
            first = first or (page.metadata.resource_version, answer.date, answer.read_at)
            version, token = page.metadata.resource_version, page.metadata.token
            if not version or version != first[0]:
                raise malformed(f"its resourceVersion changed from {first[0]!r} to {version!r} between two pages")
            remaining = page.metadata.remaining_item_count if token else page.metadata.remaining_item_count or 0
            if not token and remaining:
                raise malformed(f"it ended with {remaining} items remaining")
            if announced is not None and remaining is not None and announced != len(page.items) + remaining:
                raise malformed(f"{announced} items were to come, and {len(page.items)} and {remaining} more came")
            announced = remaining
            if token:
                if not page.items:
                    raise malformed("a page without items asks to continue")
                if token in tokens:
                    raise malformed("a continue token came twice")
                tokens.add(token)
                asked = self._ask(kind, {"limit": str(self.page_size), "continue": token})
            for position, item in enumerate(page.items, start=before + 1):
                spool.add(self._read(kind, item, position))
            before += len(page.items)
            if not token:
                # whose list it was is read once more, now that it is whole
                return Listing(self.identity(), *first)

    def _read(self, kind: Kind, item: Raw, position: int = 1) -> Observed:
        return read(item, org_label=self.org_label, position=position, dated=kind.has_reliable_write_times)

    def _ask(self, kind: Kind, query: dict[str, str]) -> Callable[[], Answer]:
        # no resourceVersion in the query: a consistent read, not what a cache happens to hold
        return self.resource.api.ask(f"/apis/{kind.api_version}/{self.resource.plural}?{urlencode(query)}")

    def _page(self, kind: Kind, asked: Callable[[], Answer]) -> tuple[Answer, _List]:
        try:
            answer = asked()
        except NotFound:
            raise self.resource.not_found() from None
        page = answer.decoded(_List, f"{kind.name}List")
        if page.api_version != kind.api_version:
            raise malformed(f"it is of {page.api_version}, not of {kind.api_version}")
        return answer, page
