"""Lists the tenants in files: a List or documents, YAML or JSON, as kubectl prints them."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import structlog
import yaml

from reconciler.core.errors import SourceFault
from reconciler.core.model import SNAPSHOT, Listing
from reconciler.sources.documents import DoubledKey, TooDeep, decode
from reconciler.sources.parse import UnreadableItem, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reconciler.core.model import ChangeLog, Observed, Spool, StartLog

STANDARD_INPUT = "-"
KUBECTL = "kubectl get piecedtenants -A -o yaml --show-managed-fields"
"""The command that writes a file of tenants with all available evidence."""
AS_PRINTED = f"Give what `{KUBECTL}` prints."
ENDINGS = {".yaml", ".yml", ".json", ".jsonl", ".ndjson"}
"""What the names of a folder's files end in that are read, in small or capital letters."""
MAX_LISTS_IN_LISTS = 20
MAX_NAMED = 10
"""Files of a folder that are not read, and yet named in the log."""

_log = structlog.get_logger(__name__)


class UnreadableFile(SourceFault):
    """A file cannot be read, or does not contain tenants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """The PiecedTenants of a file, of every YAML and JSON file of a folder and its folders, or of standard input."""

    path: str
    """The file or folder; `-` is standard input."""
    group: str
    org_label: str

    is_live: ClassVar[bool] = False
    namespaced: ClassVar[bool] = True

    def identity(self) -> str:
        """Return the identity of every file."""
        return SNAPSHOT

    def head(self) -> None:
        """Raise: a file is read whole."""
        raise NotImplementedError

    def get(self, name: str, namespace: str | None) -> Observed | None:
        """Raise: a file cannot change during a run, so nothing in it is rechecked."""
        raise NotImplementedError(name, namespace)

    def read_log(self, position: str, until: str) -> ChangeLog:
        """Raise: a file has no change log."""
        raise NotImplementedError(position, until)

    def observe(self, spool: Spool, start_log: StartLog | None = None) -> Listing:  # noqa: ARG002 - a file has none
        """Put every tenant into the spool.

        Raises:
            SourceFault: a file cannot be read, is malformed, or contains something else.
        """
        for name, text in self._files():
            for position, item in enumerate(self._tenants(name, text), start=1):
                try:
                    spool.add(read(item, org_label=self.org_label, position=position))
                except UnreadableItem as fault:
                    raise UnreadableFile(f"{name}: {fault}", f"Is the file cut off? {AS_PRINTED}") from None
        return Listing(SNAPSHOT)

    def _files(self) -> Iterator[tuple[str, bytes]]:
        try:
            if self.path == STANDARD_INPUT:
                # None where it was closed before the program began
                yield "standard input", sys.stdin.buffer.read() if sys.stdin else b""
                return
            path = Path(self.path)
            files = list(_walk(path)) if path.is_dir() else [path]
            if not files:
                raise UnreadableFile(
                    f"The folder {_printable(path)} has no file that ends in {', '.join(sorted(ENDINGS))}.",
                    "Name the folder that contains the tenants.",
                )
            for file in files:
                yield _printable(file), file.read_bytes()
        except (OSError, ValueError, MemoryError) as error:
            where = getattr(error, "filename", None) or ("standard input" if self.path == STANDARD_INPUT else self.path)
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise UnreadableFile(
                f"The tenants cannot be read from {_printable(where)}: {why}.", "Check the path given with --tenants."
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
        version = item.get("apiVersion") if isinstance(item, dict) else None
        group = version.partition("/")[0] if isinstance(version, str) else ""
        if kind != "PiecedTenant" or group != self.group:
            found = "an object without a kind" if kind is None else kind if isinstance(kind, str) else _shape(kind)
            raise UnreadableFile(
                f"{name} contains {_shown(found)} of {_shown(group) or 'no group'}; "
                f"only PiecedTenants of {self.group} are expected.",
                f"Is the file cut off, or the wrong one? {AS_PRINTED}",
            )
        return item  # type: ignore[no-any-return] # a dict, by its kind


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and of the folders in it, each once, however many links lead to it."""
    seen: set[tuple[int, int]] = set()
    folders, files, left_out = [folder], 0, list[str]()
    _is_new(folder, seen)
    while folders:
        entries = sorted(folders.pop().iterdir(), reverse=True)
        inner = [entry for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
        for entry in reversed(entries):
            if entry in inner:
                continue
            if not entry.name.startswith(".") and entry.is_symlink() and not entry.exists():
                raise UnreadableFile(
                    f"{_printable(entry)} is a link that leads nowhere: what it led to would be taken for deleted.",
                    "Is a volume not mounted? Mend the link, or take it out of the folder.",
                )
            if entry.name.startswith(".") or entry.suffix.lower() not in ENDINGS:
                left_out.append(_printable(entry.relative_to(folder)))
            elif _is_new(entry, seen):
                files += 1
                yield entry
        folders += [entry for entry in inner if _is_new(entry, seen)]
    _log.info("folder.read", files=files, left_out=len(left_out), such_as=left_out[:MAX_NAMED])


def _is_new(path: Path, seen: set[tuple[int, int]]) -> bool:
    """Return True if no other path has led to it."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise UnreadableFile(f"{_printable(path)} is neither a file nor a folder.", "Take it out of the folder.")
    known = (status.st_dev, status.st_ino) in seen
    seen.add((status.st_dev, status.st_ino))
    return not known


def _documents(name: str, text: bytes) -> list[Any]:
    """Return the documents of a file that are not empty: at least one."""
    try:
        documents = decode(text)
    except DoubledKey as error:
        raise UnreadableFile(f"{name}: {_one_line(error)}.", "Which one counts? Take the other out.") from None
    except TooDeep as error:
        raise UnreadableFile(f"{name}: {_one_line(error)}.", f"Is it the wrong file? {AS_PRINTED}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UnreadableFile(f"{name} is neither YAML nor JSON: {_one_line(error)}", AS_PRINTED) from None
    except MemoryError:
        raise UnreadableFile(f"{name} is too large for this machine's memory.", "Give it in several files.") from None
    if found := [document for document in documents if document is not None]:
        return found
    raise UnreadableFile(
        f"{name} is empty: it is not a list of tenants.",
        f"Write one with `{KUBECTL}`; a cluster without tenants gives a List with `items: []`.",
    )


def _listed(name: str, document: Any, depth: int = 0) -> Iterator[Any]:
    """Yield the items of a list, those of the lists in it too, or the only item that any other document is."""
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind not in ("List", "PiecedTenantList"):
        yield document
        return
    meta = {} if document.get("metadata") is None else document["metadata"]
    if not isinstance(meta, dict) or depth > MAX_LISTS_IN_LISTS:
        wrong = f"lies in {depth} others" if isinstance(meta, dict) else f"has metadata that is {_shape(meta)}"
        raise UnreadableFile(f"{name}: a {kind} {wrong}.", f"Is it the wrong file? {AS_PRINTED}")
    if meta.get("shardInfo") is not None:
        raise UnreadableFile(
            f"{name} is one shard of several (metadata.shardInfo).", f"Write the whole list. {AS_PRINTED}"
        )
    if meta.get("continue") or meta.get("remainingItemCount"):
        raise UnreadableFile(
            f"{name} is one page of a longer list.", "Write the whole list: use kubectl without --raw."
        )
    items = document.get("items")
    if not isinstance(items, list):
        raise UnreadableFile(f"{name}: the {kind} has no items, not even an empty list.", "Is the file cut off?")
    for item in items:
        yield from _listed(name, item, depth + 1)


def _shape(value: Any) -> str:
    return {list: "a list", dict: "an object", str: "text", int: "a number"}.get(type(value), type(value).__name__)


def _shown(text: str) -> str:
    return text[:100] if text.isprintable() else ascii(text[:100])


def _printable(path: str | Path) -> str:
    """Return a path as text: one that is not in UTF-8 could not be logged or stored."""
    return os.fsencode(path).decode(errors="replace")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).replace("\0", "\\0").split())[:200].rstrip(".")
    return text.encode(errors="replace").decode()
