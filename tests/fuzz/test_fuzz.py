"""Whatever bytes come: tenants, an unreadable tenant, or a failure that names the place; nothing else.

`TEST_FUZZ_EXAMPLES=10000 .venv/bin/pytest -n0 tests/fuzz` tries so many for each reader.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

import psycopg
import pytest
import stamina
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes.config.exec_provider import ExecProvider
from msgspec import Raw

from reconciler.core.errors import Failure
from reconciler.core.model import FIRST_KUBERNETES, LogRead
from reconciler.db.connection import connect as connect_to_ledger
from reconciler.deadline import Deadline
from reconciler.sources import access
from reconciler.sources.access import connect
from reconciler.sources.api_client import Answer, Api, CustomResource, ServedKind
from reconciler.sources.cluster import Cluster
from reconciler.sources.file import FileSource
from reconciler.sources.parse import read

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from reconciler.core.model import Observed

EXAMPLES: Final = int(os.environ.get("TEST_FUZZ_EXAMPLES", "40"))
LABEL: Final = "pieced.ch/zitadel-org-id"
SECRET: Final = "c4n4ry-s3cr3t"  # noqa: S105 - it must never be seen

TRUSTING: Final = access.tls_context(verify=False)

fuzzed = settings(max_examples=EXAMPLES, deadline=None)

# what comes

_texts = st.text(max_size=12) | st.sampled_from(["acme", "", "\0", "a\nb", "=", "12:30", "0b_", "on", "ä" * 300])
_times = st.sampled_from(
    [
        *("2026-05-01T08:00:00Z", "0001-01-01T00:00:00Z", "1970-01-01T01:00:00+01:00", "2014-06-05T00:00:00Z"),
        *("9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2026-05-01T08:00:00.123456000+02:00", "soon"),
    ]
)
_numbers = st.integers() | st.floats() | st.sampled_from([10**30, -(2**63), 2**64, 1e308])
_anything = st.recursive(
    st.none() | st.booleans() | _numbers | _texts | _times,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)


def _or_anything(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(strategy, strategy, strategy, strategy, _anything)


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={name: _or_anything(value) for name, value in fields.items()})


_owned: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from([".", 'v:"a"', "f:x"]), st.just({}), max_size=2
)
_entries = st.lists(
    _some(
        manager=st.sampled_from(["portal", "kubectl", "ancient-changes"]),
        time=_times,
        subresource=st.just("status"),
        fieldsV1=_some(**{"f:spec": _some(**{"f:packages": _owned, "f:suspend": _owned})}),
    ),
    max_size=3,
)
_tenants = _some(
    kind=st.just("PiecedTenant"),
    apiVersion=st.just("pieced.ch/v1alpha1"),
    metadata=_some(
        name=st.sampled_from(["acme", "beta"]),
        namespace=_texts,
        uid=_texts,
        creationTimestamp=_times,
        deletionTimestamp=_times,
        generation=_numbers,
        labels=st.dictionaries(st.sampled_from([LABEL, "app"]), _texts, max_size=2),
        managedFields=_entries,
    ),
    spec=_some(packages=st.lists(_texts, max_size=3), suspend=st.booleans()),
    status=_some(suspendedAt=_times),
)
_lists = _some(
    kind=st.sampled_from(["PiecedTenantList", "List", "Table"]),
    apiVersion=st.just("pieced.ch/v1alpha1"),
    metadata=_some(
        resourceVersion=st.sampled_from(["7", "", "9" * 5000]),
        remainingItemCount=_numbers,
        shardInfo=_anything,
        **{"continue": st.sampled_from(["", "more"])},
    ),
    items=st.lists(_tenants, max_size=3),
)


@st.composite
def _damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Put a few bytes in the place of some others, or repeat a part."""
    start = draw(st.integers(0, len(whole)))
    end = draw(st.integers(start, min(len(whole), start + 20)))
    put = draw(
        st.one_of(st.binary(max_size=8), st.sampled_from([b"", b'"', b"}", b"{", b"[" * 3000, whole[start:end] * 2]))
    )
    return whole[:start] + put + whole[end:]


def _as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _as_yaml(value: Any) -> bytes:
    # PyYAML cannot write half a surrogate pair
    return yaml.safe_dump(json.loads(json.dumps(value).replace("\\ud", "\\u0d"))).encode()


def _spelled(
    values: st.SearchStrategy[Any], spell: Callable[[Any], bytes], more: st.SearchStrategy[bytes] | None = None
) -> st.SearchStrategy[bytes]:
    """Return bytes of any kind, and values as they are spelled, whole and damaged."""
    whole = values.map(spell)
    return st.one_of(st.binary(max_size=60), whole, whole.flatmap(_damaged), whole if more is None else more)


# what must hold


@dataclass
class Taken:
    """A spool that checks what it is given."""

    names: list[str] = field(default_factory=list)

    def add(self, tenant: Observed, /) -> None:
        check(tenant)
        self.names.append(tenant.name)

    def restart(self) -> None:
        self.names.clear()


def check(tenant: Observed) -> None:
    """A tenant is one that PostgreSQL can store, or says in words which field is unreadable."""
    shown = (tenant.name, tenant.namespace, tenant.uid or "", tenant.org or "", *tenant.packages, tenant.problem or "")
    assert "\0" not in "".join(shown)
    assert "".join(shown).encode()
    if tenant.problem:
        assert re.search(r"metadata|spec|status|byte \d+|position \d+|an id |nested|recursion|line", tenant.problem), (
            tenant
        )
        assert "\n" not in tenant.problem
        return
    assert tenant.created_at is not None
    for time in (tenant.created_at, tenant.deleting_at):
        assert time is None or (time >= FIRST_KUBERNETES and time.tzinfo is UTC)


PLACES: Final = re.compile(
    r"line \d+|column \d+|position \d+|byte \d+|items|\[\d+\]|Item \d+|document \d+|metadata|resourceVersion|"
    r"answered|contains|is empty|a continue token|the same|nested|shard|page of|the list is|is neither"
)


def failed(failure: Failure, *names: str, place: re.Pattern[str] | None = None) -> None:
    """A failure is one line that names its place, with a remedy, and shows no secret."""
    said = str(failure)
    assert "\n" not in said
    assert "\0" not in said
    assert said.encode()
    assert failure.remedy
    assert SECRET not in said + failure.remedy
    assert failure.__cause__ is None
    assert all(name in said for name in names), said
    for name in names:
        said = said.replace(name, "")
    assert place is None or place.search(said), failure


# the readers


class _Canned:
    """The answers of an API server that has one page for every question."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def ask(self, path: str) -> Callable[[], Answer]:
        return lambda: Answer(path, {}, self._body, 0.0)

    def get(self, path: str) -> Answer:
        body = b'{"kind": "Namespace", "metadata": {"uid": "u"}}' if "kube-system" in path else self._body
        return Answer(path, {}, body, 0.0)


def cluster(body: bytes = b"", api: Api | None = None) -> Cluster:
    resource = CustomResource(
        api=api or cast("Api", _Canned(body)),
        group="pieced.ch",
        plural="piecedtenants",
        kind=ServedKind("PiecedTenant", "pieced.ch/v1alpha1", namespaced=False, server=(1, 37)),
    )
    return Cluster(resource=resource, org_label=LABEL, page_size=500)


@fuzzed
@given(_spelled(_lists, _as_json))
def test_a_list_page(body: bytes) -> None:
    try:
        cluster(body).observe(Taken())
    except Failure as failure:
        failed(failure, place=PLACES)


class _Streaming(Api):
    """An API server that has one change log, in parts."""

    parts: tuple[bytes, ...] = ()

    def stream(self, *_: Any) -> Generator[bytes]:
        yield from self.parts


_lines = _some(
    type=st.sampled_from(["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]),
    object=_tenants.flatmap(
        lambda item: st.sampled_from(["11", "12", "12", "13", "20", "0", "9" * 5000]).map(
            lambda version: (
                item | {"metadata": dict(item.get("metadata") or {}, resourceVersion=version)}
                if isinstance(item.get("metadata"), dict)
                else item
            )
        )
    )
    | _some(kind=st.just("Status"), apiVersion=st.just("v1"), code=_numbers, message=_texts),
)


@fuzzed
@given(st.lists(_spelled(_lines, _as_json).map(lambda line: line + b"\n"), max_size=4), st.integers(1, 400))
def test_a_change_log(lines: list[bytes], size: int) -> None:
    log = b"".join(lines)
    api = _Streaming(kubeconfig=None, context=None, deadline=Deadline.after(600))
    object.__setattr__(api, "parts", tuple(log[start : start + size] for start in range(0, len(log), size)))
    with stamina.set_testing(testing=True, attempts=1):
        found = cluster(api=api).read_log("10", "20")
    numbers = [int(version.observed.resource_version or 0) for version in found.versions]
    assert numbers == sorted(set(numbers))
    assert all(10 < number <= 20 for number in numbers)
    assert (found.position is None) == (found.read is LogRead.LOST)
    assert found.position is None or 20 >= int(found.position) >= max(numbers, default=10)
    assert (found.problem is None) == (found.read is LogRead.REACHED)
    assert "\0" not in (found.problem or "")
    assert (found.problem or "").encode()
    for version in found.versions:
        check(version.observed)


@fuzzed
@given(_spelled(_tenants, _as_json))
def test_one_tenant_of_an_api_server(body: bytes) -> None:
    try:
        found = cluster(body).get("acme", None)
        assert found
        check(found)
    except Failure as failure:
        failed(failure, place=re.compile(r"/piecedtenants/acme|Item 1 "))


@fuzzed
@given(_spelled(_tenants, _as_json))
def test_one_item(body: bytes) -> None:
    try:
        check(read(Raw(body), org_label=LABEL, position=3))
    except Failure as failure:
        failed(failure, "Item 3 ")


@fuzzed
@given(_tenants)
def test_one_decoded_item(item: dict[str, Any]) -> None:
    try:
        check(read(item, org_label=LABEL, position=3))
    except Failure as failure:
        failed(failure, "Item 3 ")


_documents = st.lists(_lists | _tenants, min_size=1, max_size=3)


@fuzzed
@given(_spelled(_documents, lambda documents: b"\n".join(map(_as_json, documents))))
def test_a_json_file(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    _observe_file(tmp_path_factory.getbasetemp() / "tenants.json", content)


_scraps = st.lists(
    st.sampled_from(
        [
            *(
                "- ",
                "  ",
                "\n",
                ": ",
                "a",
                "<<: *a\n",
                "&a ",
                "*a",
                "!!int ",
                "!!bool ",
                "!!timestamp ",
                "!!set ",
                "? ",
            ),
            *(
                "[",
                "]",
                "{",
                "}",
                "'",
                '"',
                "|\n",
                ">\n",
                "#",
                "---\n",
                "...\n",
                "%YAML 1.2\n",
                "\t",
                "\r\n",
                "=",
                "0x_",
            ),
            *("kind: PiecedTenant\n", "apiVersion: pieced.ch/v1\n", "kind: List\n", "items:\n", "!!binary ", "\ufeff"),
        ]
    ),
    max_size=14,
).map(lambda parts: "".join(parts).encode())


@fuzzed
@given(_spelled(_documents, lambda documents: b"\n---\n".join(map(_as_yaml, documents)), _scraps))
def test_a_yaml_file(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    _observe_file(tmp_path_factory.getbasetemp() / "tenants.yaml", content)


def _observe_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        FileSource(path=str(path), group="pieced.ch", org_label=LABEL).observe(Taken())
    except Failure as failure:
        failed(failure, str(path), place=PLACES)


@fuzzed
@given(_or_anything(_entries), st.sampled_from([[], ["a"]]))
def test_proofs_are_times_that_were_written(entries: Any, packages: list[str]) -> None:
    metadata = {"name": "acme", "creationTimestamp": "2026-05-01T08:00:00Z", "managedFields": entries}
    found = read({"metadata": metadata, "spec": {"packages": packages}}, org_label=LABEL, position=1)
    check(found)
    for moment in (found.packages_written_at, found.suspend_written_at):
        assert moment is None or moment in {_utc(entry.get("time")) for entry in entries}
    assert found.last_modified_at is None or found.created_at is None or found.last_modified_at >= found.created_at


def _utc(time: Any) -> datetime | None:
    with suppress(ValueError, TypeError, OverflowError):
        # Python reads no nanoseconds, which are 0 here
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", time)).astimezone(UTC)
    return None


# how a cluster and a ledger are reached

_servers = st.one_of(
    st.text(max_size=20).map(lambda text: f"https://{text}"),
    st.text(max_size=20),
    st.sampled_from(
        ["https://10.0.0.1:6443", "https://[::1]", f"https://u:{SECRET}@x", "http://x:0", "https://x/k8s/c"]
    ),
)
_proxies = st.one_of(st.text(max_size=12).map(lambda text: f"http://u:{SECRET}@{text}"), _servers)
_plugins = _some(
    command=st.just("plugin"),
    apiVersion=st.just("client.authentication.k8s.io/v1"),
    args=st.lists(_texts, max_size=2),
    env=st.lists(_some(name=_texts, value=_texts), max_size=2),
)
_kubeconfigs = _some(
    **{"current-context": st.just("x")},
    contexts=st.lists(_some(name=st.just("x"), context=_some(cluster=st.just("c"), user=st.just("u"))), max_size=2),
    clusters=st.lists(
        _some(
            name=st.just("c"),
            cluster=_some(
                **{
                    "server": _servers,
                    "proxy-url": _proxies,
                    "certificate-authority-data": _texts,
                    "tls-server-name": _texts,
                    "insecure-skip-tls-verify": st.booleans(),
                }
            ),
        ),
        max_size=2,
    ),
    users=st.lists(
        _some(
            name=st.just("u"),
            user=_some(
                **{
                    "token": _texts.map(lambda text: SECRET + text),
                    "tokenFile": st.sampled_from(["token", "gone", ".", "\0"]),
                    "password": st.just(SECRET),
                    "client-certificate-data": _texts,
                    "client-key": st.just("token"),
                    "exec": _plugins,
                    "auth-provider": _some(name=st.sampled_from(["gcp", "oidc"]), config=st.just({"id-token": SECRET})),
                }
            ),
        ),
        max_size=2,
    ),
)
_issued = _or_anything(
    _some(token=_texts, clientCertificateData=_texts, clientKeyData=_texts, expirationTimestamp=_times)
)


@fuzzed
@given(_spelled(_kubeconfigs, _as_json, _spelled(_kubeconfigs, _as_yaml)), _issued)
def test_a_kubeconfig(tmp_path_factory: pytest.TempPathFactory, content: bytes, issued: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "kubeconfig"
    path.write_bytes(content)
    path.with_name("token").write_bytes(content[:30])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExecProvider, "run", lambda _: issued)
        try:
            client = connect(str(path), None, in_pod=False)
        except Failure as failure:
            failed(failure, str(path))
        else:
            assert client.configuration.host.startswith(("http", "HTTP"))


@fuzzed
@given(_servers, _proxies)
def test_an_address_of_a_server(tmp_path_factory: pytest.TempPathFactory, server: str, proxy: str) -> None:
    path = tmp_path_factory.getbasetemp() / "kubeconfig"
    config = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "c"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, "proxy-url": proxy}}],
    }
    path.write_bytes(_as_json(config))
    try:
        with pytest.MonkeyPatch.context() as patch:
            # the system's authorities take a while to read
            patch.setattr(access, "tls_context", lambda **_: TRUSTING)
            client = connect(str(path), None, in_pod=False)
    except Failure as failure:
        failed(failure, str(path))
    else:
        assert SECRET not in f"{client.configuration.host} {client.configuration.proxy}"


_urls = st.one_of(
    st.text(max_size=30),
    st.builds(
        "{}://{}:{}@{}/{}{}".format,
        st.sampled_from(["postgresql", "postgres", "http", ""]),
        _texts,
        st.just(SECRET),
        _texts,
        _texts,
        st.sampled_from(["", "?sslmode=require", "?x=y", "?port=", "\n"]),
    ),
    st.builds("host={} port={} password={} dbname={}".format, _texts, _texts, st.just(SECRET), _texts),
)


@fuzzed
@given(_urls)
def test_an_address_of_a_ledger(url: str) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise psycopg.OperationalError(f"connection failed for {SECRET}\nand more")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg, "connect", refuse)
        with pytest.raises(Failure) as fault:
            connect_to_ledger(url)
    assert "DATABASE_URL" in f"{fault.value} {fault.value.remedy}"


@fuzzed
@given(st.text(max_size=40) | st.sampled_from(["Thu, 01 Jan 1970 00:00:00 GMT", "Mon, 01 Jan 0001 00:00:00 GMT"]))
def test_a_servers_clock(sent: str) -> None:
    date = Answer("/", {"Date": sent}, b"", 0.0).date
    assert date is None or date >= FIRST_KUBERNETES
