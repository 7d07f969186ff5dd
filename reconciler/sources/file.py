"""Lists the tenants in files: a List or documents, YAML or JSON, as kubectl prints them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import yaml

from reconciler.core.errors import SourceFault
from reconciler.core.model import SNAPSHOT, Listing
from reconciler.sources.parse import read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.model import Observed, Spool

STANDARD_INPUT = "-"
KUBECTL = "kubectl get piecedtenants -A -o yaml --show-managed-fields"
"""The command that writes a file of tenants with all available evidence."""
AS_PRINTED = f"Give what `{KUBECTL}` prints."
_ENDINGS = {".yaml", ".yml", ".json"}


class UnreadableFile(SourceFault):
    """A file cannot be read, or does not contain tenants."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # chosen at run time
    """A YAML loader without timestamps: a time stays the text that Kubernetes wrote."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """The PiecedTenants of a file, of every YAML and JSON file of a folder, or of standard input."""

    path: str
    """The file or folder; `-` is standard input."""
    group: str
    org_label: str

    is_live: ClassVar[bool] = False
    namespaced: ClassVar[bool] = True

    def identity(self) -> str:
        """Return the identity of every file."""
        return SNAPSHOT

    def get(self, name: str, namespace: str | None) -> Observed | None:
        """Raise: a file cannot change during a run, so nothing in it is rechecked."""
        raise NotImplementedError(name, namespace)

    def observe(self, spool: Spool) -> Listing:
        """Put every tenant into the spool.

        Raises:
            SourceFault: a file cannot be read, is malformed, or contains something else.
        """
        items = chain.from_iterable(self._tenants(name, text) for name, text in self._files())
        for position, item in enumerate(items, start=1):
            spool.add(read(item, org_label=self.org_label, position=position))
        return Listing(SNAPSHOT)

    def _files(self) -> Iterator[tuple[str, bytes]]:
        if self.path == STANDARD_INPUT:
            yield "standard input", sys.stdin.buffer.read()
            return
        path = Path(self.path)
        try:
            files = sorted(file for file in path.iterdir() if file.suffix in _ENDINGS) if path.is_dir() else [path]
            if not files:
                raise UnreadableFile(
                    f"The folder {path} has no file that ends in {', '.join(sorted(_ENDINGS))}.",
                    "Name the folder that contains the tenants.",
                )
            for file in files:
                yield str(file), file.read_bytes()
        except OSError as error:
            raise UnreadableFile(
                f"The tenants cannot be read from {path}: {error.strerror}.", "Check the path given with --tenants."
            ) from None

    def _tenants(self, name: str, text: bytes) -> Iterator[dict[str, Any]]:
        for number, document in enumerate(_documents(name, text), 1):
            if not isinstance(document, dict):
                raise UnreadableFile(
                    f"{name}: document {number} is {_shape(document)}, not a Kubernetes object.", AS_PRINTED
                )
            for item in _listed(name, document):
                yield self._tenant(name, item)

    def _tenant(self, name: str, item: Any) -> dict[str, Any]:
        kind = item.get("kind") if isinstance(item, dict) else _shape(item)
        group = str(item.get("apiVersion") or "").partition("/")[0] if isinstance(item, dict) else ""
        if kind != "PiecedTenant" or group != self.group:
            raise UnreadableFile(
                f"{name} contains {'an object without a kind' if kind is None else kind} of {group or 'no group'}; "
                f"only PiecedTenants of {self.group} are expected.",
                f"Is the file cut off, or the wrong one? {AS_PRINTED}",
            )
        return item  # type: ignore[no-any-return] # a dict, by its kind


def _documents(name: str, text: bytes) -> list[Any]:
    """Return the documents of a file that are not empty: at least one."""
    try:
        is_json = text.lstrip()[:1] == b"{"
        documents = [msgspec.json.decode(text)] if is_json else list(yaml.load_all(text, _Loader))
    except (yaml.YAMLError, msgspec.MsgspecError, UnicodeError, ValueError, RecursionError) as error:
        raise UnreadableFile(
            f"{name} is neither YAML nor JSON: {' '.join(str(error).split())[:200]}", AS_PRINTED
        ) from None
    if found := [document for document in documents if document is not None]:
        return found
    raise UnreadableFile(
        f"{name} is empty: it is not a list of tenants.",
        f"Write one with `{KUBECTL}`; a cluster without tenants gives a List with `items: []`.",
    )


def _listed(name: str, document: dict[str, Any]) -> list[Any]:
    """Return the items of a list, or the only item that any other document is."""
    kind, items, meta = document.get("kind"), document.get("items"), document.get("metadata")
    if kind not in ("List", "PiecedTenantList"):
        return [document]
    if isinstance(meta, dict) and (meta.get("continue") or meta.get("remainingItemCount")):
        raise UnreadableFile(
            f"{name} is one page of a longer list.", "Write the whole list: use kubectl without --raw."
        )
    if not isinstance(items, list):
        raise UnreadableFile(f"{name}: the {kind} has no items, not even an empty list.", "Is the file cut off?")
    return items


def _shape(value: Any) -> str:
    return {list: "a list", str: "text", int: "a number"}.get(type(value), type(value).__name__)
