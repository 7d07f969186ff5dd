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
    from reconciler.sources.api_client import Answer, Api

PAGE_SIZE = 500
"""Tenants a page."""
LIST_RESTARTS = 3
"""How often a list may start again after 410 Gone."""

_log = structlog.get_logger(__name__)


DATED_WRITES = (1, 25)
"""The first version that moves a managedFields time whenever a value changes
(https://github.com/kubernetes/kubernetes/pull/110058). From older servers these times prove nothing."""


class NoSuchResource(SourceFault):
    """The cluster does not know the custom resource."""


class _ListMeta(Struct, rename="camel"):
    resource_version: str
    token: str = msgspec.field(name="continue", default="")
    remaining_item_count: int | None = None


class _List(Struct, rename="camel"):
    kind: str
    api_version: str
    metadata: _ListMeta
    items: list[Raw]


class _Version(Struct, rename="camel"):
    version: str


class _Group(Struct, rename="camel"):
    kind: str
    preferred_version: _Version


class _Resource(Struct):
    name: str
    kind: str
    namespaced: bool


class _ResourceList(Struct):
    kind: str
    resources: list[_Resource]


class _ObjectMeta(Struct):
    uid: str


class _Object(Struct):
    kind: str
    metadata: _ObjectMeta


class _ServerVersion(Struct):
    major: str
    minor: str

    def number(self) -> tuple[int, int]:
        """Return it as numbers; a provider's suffix, as in 25+, is left out."""
        return int(self.major), int("".join(filter(str.isdigit, self.minor)))


@dataclass(frozen=True, slots=True)
class Kind:
    """The custom resource as API discovery shows it."""

    name: str
    api_version: str
    namespaced: bool
    server: tuple[int, int]
    """The version of the API server; zeros where it does not tell."""

    @property
    def dated(self) -> bool:
        """Whether the times in its managedFields can be relied on."""
        return self.server >= DATED_WRITES


@dataclass(slots=True, kw_only=True)
class Cluster:
    """The PiecedTenants of one cluster.

    Attributes:
        api: the API server.
        group: API group of the custom resource.
        plural: its plural name.
        org_label: the label that names the paying organisation.
        page_size: tenants a page.
        kind: the custom resource, once it was discovered.
    """

    api: Api
    group: str
    plural: str
    org_label: str
    page_size: int = PAGE_SIZE
    kind: Kind | None = None

    is_live: ClassVar[bool] = True

    @property
    def namespaced(self) -> bool:
        """Whether a tenant may be in one of many namespaces; raises as `discovered` does."""
        return self.discovered().namespaced

    def identity(self) -> str:
        """Return what tells this cluster from any other: the uid of its kube-system namespace.

        Raises:
            SourceFault: it cannot be read.
        """
        try:
            answer = self.api.get("/api/v1/namespaces/kube-system")
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
        kind = self.discovered()
        for _ in range(1 + LIST_RESTARTS):
            try:
                return self._list(kind, spool)
            except Gone:
                # the token that comes with a 410 continues at another resourceVersion: it is never followed
                _log.warning("list.expired", meaning="it starts again from its first page")
                spool.restart()
        raise SourceFault(
            f"The list of {self.plural} expired {1 + LIST_RESTARTS} times while it was being read (410 Gone).",
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
        kind = self.discovered()
        if kind.namespaced and namespace is None:
            _, page = self._page(kind, self._ask(kind, {"fieldSelector": f"metadata.name={name}"}))
            found = [self._read(kind, item) for item in page.items]
            if page.metadata.token or page.metadata.remaining_item_count or {one.name for one in found} - {name}:
                raise malformed(f"asked for {name} alone, it answered with others, or with a part")
            return found[0] if found else None
        within = f"/namespaces/{quote(namespace or '')}" if kind.namespaced else ""
        path = f"/apis/{kind.api_version}{within}/{self.plural}/{quote(name)}"
        try:
            answer = self.api.get(path)
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

    def discovered(self) -> Kind:
        """Find the version and the scope of the custom resource, once.

        Raises:
            SourceFault: the cluster does not know it, or does not answer.
            DeadlineExceeded: it took too long.
        """
        if self.kind is None:
            try:
                group = self.api.get(f"/apis/{self.group}").decoded(_Group, "APIGroup")
                api_version = f"{self.group}/{group.preferred_version.version}"
                listed = self.api.get(f"/apis/{api_version}").decoded(_ResourceList, "APIResourceList")
            except NotFound:
                raise self._no_such_resource() from None
            found = [resource for resource in listed.resources if resource.name == self.plural]
            if not found:
                raise self._no_such_resource()
            self.kind = Kind(found[0].kind, api_version, found[0].namespaced, self._server_version())
        return self.kind

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
        return read(item, org_label=self.org_label, position=position, dated=kind.dated)

    def _ask(self, kind: Kind, query: dict[str, str]) -> Callable[[], Answer]:
        # no resourceVersion in the query: a consistent read, not what a cache happens to hold
        return self.api.ask(f"/apis/{kind.api_version}/{self.plural}?{urlencode(query)}")

    def _page(self, kind: Kind, asked: Callable[[], Answer]) -> tuple[Answer, _List]:
        try:
            answer = asked()
        except NotFound:
            raise self._no_such_resource() from None
        page = answer.decoded(_List, f"{kind.name}List")
        if page.api_version != kind.api_version:
            raise malformed(f"it is of {page.api_version}, not of {kind.api_version}")
        return answer, page

    def _server_version(self) -> tuple[int, int]:
        try:
            return self.api.get("/version").decoded(_ServerVersion, "").number()
        except (NotFound, ValueError):
            return 0, 0

    def _no_such_resource(self) -> NoSuchResource:
        return NoSuchResource(
            f"The cluster at {self.api.host} has no resource {self.plural}.{self.group}; nothing was written.",
            "Is it the right cluster, and is the CustomResourceDefinition installed? "
            "Other names are given with --group and --plural.",
        )
