"""Reads kubeconfigs as kubectl does: which cluster is meant, and who asks. Pure but for the files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import yaml
from msgspec import Struct

from reconciler.core.errors import SourceFault
from reconciler.sources.documents import decode

MAX_NAMED = 10
"""Names that a message lists of those that there are."""
ANOTHER = "Give one with --kubeconfig, or give the tenants as a file with --tenants."


class NoAccess(SourceFault):
    """No usable way to the cluster is configured."""

    def __init__(self, place: str, problem: str, remedy: str = ANOTHER) -> None:
        super().__init__(f"No usable cluster configuration in {place}: {problem}.", remedy)


class Cluster(Struct, rename="kebab"):
    """Where the API server is, and how it shows that it is the right one."""

    server: str | None = None
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool | None = None
    tls_server_name: str | None = None
    proxy_url: str | None = None


class Variable(Struct):
    """A variable of a plugin's environment."""

    name: str
    value: str


class Plugin(Struct, rename="camel"):
    """A command that prints credentials."""

    command: str
    api_version: str
    args: list[str] | None = None
    env: list[Variable] | None = None
    install_hint: str | None = None


class Provider(Struct):
    """What kubectl once brought to renew credentials."""

    name: str
    config: dict[str, str] | None = None


class User(Struct, rename="kebab"):
    """Who asks, and how it is proved."""

    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = msgspec.field(name="tokenFile", default=None)
    username: str | None = None
    password: str | None = None
    plugin: Plugin | None = msgspec.field(name="exec", default=None)
    auth_provider: Provider | None = None


class _Context(Struct):
    cluster: str | None = None
    user: str | None = None


class _NamedCluster(Struct):
    name: str
    cluster: Cluster


class _NamedUser(Struct):
    name: str
    user: User


class _NamedContext(Struct):
    name: str
    context: _Context


class _Kubeconfig(Struct, rename="kebab"):
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None
    current_context: str | None = None


class Chosen(NamedTuple):
    """The cluster and the user that a context names, with the folders that their relative paths start from."""

    place: str
    cluster_name: str
    cluster: Cluster
    cluster_folder: Path
    user_name: str
    user: User
    user_folder: Path
    raw: dict[str, Any]
    """The cluster and the user as they were written, for plugins."""

    def fault(self, problem: str, remedy: str = ANOTHER) -> NoAccess:
        """Return the failure of this configuration."""
        return NoAccess(self.place, problem, remedy)


class _Read(NamedTuple):
    folder: Path
    typed: _Kubeconfig
    raw: dict[str, Any]


_Entry = TypeVar("_Entry", _NamedCluster, _NamedUser, _NamedContext)


def choose(paths: str, context: str | None, place: str) -> Chosen:
    """Return what a context names in these files, None for the current one; of a name, the first file counts.

    Raises:
        NoAccess: a file cannot be read, or does not say.
    """
    files = [_read(path, place) for path in _existing(paths, place)]
    wanted = context or next((read.typed.current_context for read in files if read.typed.current_context), None)
    if wanted is None:
        raise NoAccess(place, "it has no current-context", "Name a context with --context.")
    contexts = [(read, entry) for read in files for entry in read.typed.contexts or ()]
    _, found = _entry(place, "context", wanted, contexts)
    if not found.context.cluster:
        raise NoAccess(place, f"the context {wanted!r} names no cluster")
    clusters = [(read, entry) for read in files for entry in read.typed.clusters or ()]
    cluster_file, cluster = _entry(place, "cluster", found.context.cluster, clusters)
    raw: dict[str, Any] = {"cluster": _raw(cluster_file.raw["clusters"], cluster.name, "cluster")}
    if not found.context.user:
        folder = cluster_file.folder
        return Chosen(place, cluster.name, cluster.cluster, folder, "", User(), folder, raw)
    users = [(read, entry) for read in files for entry in read.typed.users or ()]
    user_file, user = _entry(place, "user", found.context.user, users)
    raw["user"] = _raw(user_file.raw["users"], user.name, "user")
    return Chosen(
        place, cluster.name, cluster.cluster, cluster_file.folder, user.name, user.user, user_file.folder, raw
    )


def _existing(paths: str, place: str) -> list[Path]:
    found = [Path(path).expanduser() for path in paths.split(os.pathsep) if path]
    try:
        # of a list, kubectl leaves out the files that are not there
        existing = [path for path in found if path.exists()]
    except (OSError, ValueError) as error:
        raise NoAccess(place, _reason(error)) from None
    if not existing:
        raise NoAccess(place, "there is no such file")
    return existing


def _read(path: Path, place: str) -> _Read:
    try:
        documents = decode(path.read_bytes())
        raw = next((document for document in documents if document is not None), None)
        if raw is None:
            raise NoAccess(place, f"{path} is empty")
        return _Read(path.absolute().parent, msgspec.convert(raw, _Kubeconfig), raw)
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        # no value is quoted by any of these
        raise NoAccess(place, f"{path}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark):
        # its own words quote what stands there, and that may be a password
        return f"line {mark.line + 1}, column {mark.column + 1} is not YAML"
    text = " ".join(str(error).replace("`", "").replace("$.", "").split())[:300].rstrip(".")
    return text.encode(errors="replace").decode()


def _entry(place: str, what: str, name: str, entries: list[tuple[_Read, _Entry]]) -> tuple[_Read, _Entry]:
    for read, entry in entries:
        if entry.name == name:
            return read, entry
    names = ", ".join(repr(entry.name) for _, entry in entries[:MAX_NAMED]) or "none"
    remedy = "Name one of them with --context." if what == "context" else "Is the kubeconfig whole?"
    raise NoAccess(place, f"it has no {what} {name!r}; it has {names}", remedy)


def _raw(entries: list[dict[str, Any]], name: str, what: str) -> Any:
    return next(entry[what] for entry in entries if entry["name"] == name)
