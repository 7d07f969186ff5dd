from __future__ import annotations

import io
import json
import os
import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from structlog.testing import capture_logs

from reconciler.core.model import Listing, Observed
from reconciler.sources.file import FileSource, UnreadableFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LABEL = "pieced.ch/zitadel-org-id"
KUBECTL = "kubectl get piecedtenants -A -o yaml"
Object = dict[str, Any]


class Taken(list[Observed]):
    """A spool that is a list."""

    add = list.append

    def restart(self) -> None:
        raise AssertionError


def snapshot(path: object) -> FileSource:
    return FileSource(path=str(path), group="pieced.ch", org_label=LABEL)


def observe(path: object) -> list[Observed]:
    taken = Taken()
    assert snapshot(path).observe(taken) == Listing("snapshot")
    return taken


def names(path: object) -> list[str]:
    return [tenant.name for tenant in observe(path)]


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """Return a function that writes a file of tenants."""

    def written(content: str | bytes) -> Path:
        path = tmp_path / "tenants.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


def resource(name: str = "acme", **spec: Any) -> Object:
    return {
        "apiVersion": "pieced.ch/v1alpha1",
        "kind": "PiecedTenant",
        "metadata": {"name": name, "creationTimestamp": "2026-05-01T08:00:00Z"},
        "spec": spec,
    }


def kubectl_list(*items: Any, kind: str = "List", **metadata: Any) -> Object:
    """Return what `kubectl get` prints of several objects."""
    return {"apiVersion": "v1", "items": list(items), "kind": kind, "metadata": {"resourceVersion": ""} | metadata}


AS_KUBECTL_PRINTS = """\
apiVersion: v1
items:
- apiVersion: pieced.ch/v1alpha1
  kind: PiecedTenant
  metadata:
    creationTimestamp: "2026-05-01T08:00:00Z"
    finalizers:
    - pieced.ch/teardown
    generation: 3
    labels:
      pieced.ch/zitadel-org-id: "2871"
    name: acme
    resourceVersion: "4711"
    uid: 3b2c8c9e-6a43-4f0e-b2c6-3f8f1f6c7a10
  spec:
    packages:
    - threema
    - searxng-local-search
    suspend: true
  status:
    suspendedAt: "2026-05-02T08:00:00Z"
- apiVersion: pieced.ch/v1alpha1
  kind: PiecedTenant
  metadata:
    creationTimestamp: "2026-05-03T08:00:00Z"
    name: beta
  spec: {}
kind: List
metadata:
  resourceVersion: ""
"""
ACME = Observed(
    name="acme",
    uid="3b2c8c9e-6a43-4f0e-b2c6-3f8f1f6c7a10",
    org="2871",
    created_at=datetime(2026, 5, 1, 8, tzinfo=UTC),
    generation=3,
    packages=("searxng-local-search", "threema"),
    suspended=True,
    suspended_at=datetime(2026, 5, 2, 8, tzinfo=UTC),
    suspend_is_set=True,
    resource_version="4711",
)
BETA = Observed(name="beta", created_at=datetime(2026, 5, 3, 8, tzinfo=UTC))

_LIST = yaml.safe_load(AS_KUBECTL_PRINTS)
_ITEMS = [yaml.safe_dump(item) for item in _LIST["items"]]

SHAPES: dict[str, str | bytes] = {
    "a List as kubectl -o yaml prints it": AS_KUBECTL_PRINTS,
    "a List as kubectl -o json prints it": json.dumps(_LIST, indent=4) + "\n",
    "a List on one line": json.dumps(_LIST, separators=(",", ":")),
    "a list as the API server sends it": json.dumps(
        {**_LIST, "apiVersion": "pieced.ch/v1alpha1", "kind": "PiecedTenantList", "metadata": {"resourceVersion": "9"}}
    ),
    "a list whose last page says that nothing follows": json.dumps(
        {**_LIST, "metadata": {"continue": "", "remainingItemCount": 0}}
    ),
    "documents": "---\n".join(_ITEMS),
    "documents with marks and empty ones around them": "---\n" + "---\n---\n".join(_ITEMS) + "...\n---\n# the end\n",
    "a List for each tenant": "---\n".join(yaml.safe_dump({**_LIST, "items": [item]}) for item in _LIST["items"]),
    "times without quotes": AS_KUBECTL_PRINTS.replace('"2026-05-01T08:00:00Z"', "2026-05-01T08:00:00Z").replace(
        '"2026-05-02T08:00:00Z"', "2026-05-02T08:00:00Z"
    ),
    "Windows line ends": AS_KUBECTL_PRINTS.replace("\n", "\r\n"),
    "a byte order mark": "\ufeff" + AS_KUBECTL_PRINTS,
    "a byte order mark before JSON": "\ufeff" + json.dumps(_LIST),
    "UTF-16, as PowerShell redirects": AS_KUBECTL_PRINTS.encode("utf-16"),
    "white space around JSON": "\n\n  " + json.dumps(_LIST) + "\n\n",
    "JSON after JSON, as jq prints it": "\n".join(json.dumps(item, indent=2) for item in _LIST["items"]),
    "JSON a line": "\n".join(map(json.dumps, _LIST["items"])) + "\n",
    "JSON after JSON without anything between": "".join(map(json.dumps, _LIST["items"])),
    "JSON after JSON, as jq --seq prints it": "".join(f"\x1e{json.dumps(item)}\n" for item in _LIST["items"]),
    "JSON after JSON, each with a byte order mark": "".join(f"\ufeff{json.dumps(i)}\r\n" for i in _LIST["items"]),
    "JSON in UTF-16": json.dumps(_LIST).encode("utf-16"),
    "JSON documents with marks of YAML between": "\n---\n".join(map(json.dumps, _LIST["items"])),
    "a List of Lists": json.dumps({**_LIST, "items": [{**_LIST, "items": [item]} for item in _LIST["items"]]}),
    "YAML in braces": yaml.safe_dump(_LIST, default_flow_style=True),
    "an anchor and a merge": AS_KUBECTL_PRINTS.replace("  metadata:", "  metadata: &acme", 1).replace(
        "  spec: {}", "  spec: {}\n  unread: {<<: *acme, name: other}"
    ),
    "comments and a directive": "%YAML 1.1\n# tenants\n---\n" + AS_KUBECTL_PRINTS,
}


@pytest.mark.parametrize("content", SHAPES.values(), ids=SHAPES)
def test_what_kubectl_prints_is_read(file: Callable[[str | bytes], Path], content: str | bytes) -> None:
    assert observe(file(content)) == [ACME, BETA]


@pytest.mark.parametrize("written", [_ITEMS[0], json.dumps(_LIST["items"][0])], ids=["yaml", "json"])
def test_one_tenant_as_kubectl_prints_it_is_read(file: Callable[[str | bytes], Path], written: str) -> None:
    assert observe(file(written)) == [ACME]


@pytest.mark.parametrize("kind", ["List", "PiecedTenantList"])
@pytest.mark.parametrize("dump", [yaml.safe_dump, json.dumps])
def test_a_list_without_items_is_a_cluster_without_tenants(
    file: Callable[[str | bytes], Path], dump: Callable[[Any], str], kind: str
) -> None:
    assert observe(file(dump(kubectl_list(kind=kind)))) == []


def test_another_version_of_the_resource_is_read(file: Callable[[str | bytes], Path]) -> None:
    assert names(file(json.dumps({**resource(), "apiVersion": "pieced.ch/v2"}))) == ["acme"]


def test_an_unreadable_tenant_is_a_value_beside_the_others(file: Callable[[str | bytes], Path]) -> None:
    broken = resource("broken", packages="threema")
    nul = resource("nul", packages=["a\0b"])
    taken = observe(file(json.dumps(kubectl_list(broken, resource("acme"), nul))))
    assert [(tenant.name, tenant.problem is None) for tenant in taken] == [
        ("broken", False),
        ("acme", True),
        ("nul", False),
    ]


def test_a_package_that_yaml_does_not_read_as_text_is_unreadable(
    file: Callable[[str | bytes], Path],
) -> None:
    text = yaml.safe_dump(resource(packages=["a"]))
    for value in ("on", "12", "1.5", "null", "2026-05-01: x"):
        (tenant,) = observe(file(text.replace("- a", f"- {value}")))
        assert tenant.problem
        assert "spec.packages" in tenant.problem
    (tenant,) = observe(file(text.replace("- a", "- 2026-05-01")))
    assert tenant.packages == ("2026-05-01",)


def test_a_folder_is_read_in_the_order_of_file_names(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text(yaml.safe_dump(resource("b")))
    (tmp_path / "a.yaml").write_text(yaml.safe_dump_all([resource("a2"), resource("a1")]))
    (tmp_path / "c.json").write_text(json.dumps(kubectl_list(resource("c"))))
    (tmp_path / "README.md").write_text("tenants")
    (tmp_path / "none.yaml").write_text(yaml.safe_dump(kubectl_list()))
    assert names(tmp_path) == ["a2", "a1", "b", "c"]
    assert names(tmp_path / "a.yaml") == ["a2", "a1"]


def test_a_file_of_any_name_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tenants"
    path.write_text(AS_KUBECTL_PRINTS)
    assert names(path) == ["acme", "beta"]


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(AS_KUBECTL_PRINTS.encode())))
    assert observe("-") == [ACME, BETA]


def test_an_empty_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(UnreadableFile, match="standard input is empty"):
        observe("-")


def test_a_standard_input_that_is_closed_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UnreadableFile, match="standard input is empty"):
        observe("-")


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000])
def test_a_path_that_cannot_be_is_refused(path: str) -> None:
    with pytest.raises(UnreadableFile, match="cannot be read") as refused:
        observe(path)
    assert str(refused.value).isprintable() or "\0" in path


CUT_OFF = AS_KUBECTL_PRINTS[: AS_KUBECTL_PRINTS.index("kind: List")]
CUT_SHORT = "Is the file cut off"
ONLY_TENANTS = "only PiecedTenants of pieced.ch are expected"

REFUSED: dict[str, tuple[str | bytes, str, str]] = {
    "an empty file": ("", "is empty", "items: []"),
    "white space": (" \n\n", "is empty", KUBECTL),
    "a comment": ("# none\n", "is empty", KUBECTL),
    "empty documents": ("---\n---\n", "is empty", KUBECTL),
    "null": ("null", "is empty", KUBECTL),
    "text": ("no resources found\n", "document 1 is text, not a Kubernetes object", KUBECTL),
    "a number": ("5", "document 1 is a number", KUBECTL),
    "a list of tenants without its List": (
        json.dumps([resource()]),
        "document 1 is a list, not a Kubernetes object",
        KUBECTL,
    ),
    "a second document that is text": (_ITEMS[0] + "---\noops\n", "document 2 is text", KUBECTL),
    "a page of HTML": ("<!DOCTYPE html>\n<html><body>login: here</body></html>", "neither YAML nor JSON", KUBECTL),
    "tabs": ("a:\n\t- b", "neither YAML nor JSON", KUBECTL),
    "a NUL": (AS_KUBECTL_PRINTS.replace("threema", "thre\0ema"), "neither YAML nor JSON", KUBECTL),
    "bytes that are not UTF-8": (
        AS_KUBECTL_PRINTS.encode().replace(b"threema", b"thre\xffema"),
        "neither YAML nor JSON",
        KUBECTL,
    ),
    "JSON with bytes that are not UTF-8": (
        json.dumps(resource("acme")).encode().replace(b"acme", b"\xff"),
        "neither YAML nor JSON",
        KUBECTL,
    ),
    "an unknown tag": ("!!python/object:os.system {}", "neither YAML nor JSON", KUBECTL),
    "an unclosed quote": (AS_KUBECTL_PRINTS.replace('"2871"', '"2871'), "neither YAML nor JSON", KUBECTL),
    "a key that is a list": ("? [a]\n: b", "neither YAML nor JSON", KUBECTL),
    "JSON that is cut off": (json.dumps(_LIST)[:-20], "neither YAML nor JSON", KUBECTL),
    "JSON after which something else comes": (json.dumps(resource()) + "\noops", "neither YAML nor JSON", KUBECTL),
    "JSON nested without end": ('{"a":' + 100_000 * "[", "nested more deeply", KUBECTL),
    "YAML nested without end": (100_000 * "[", "line 1", KUBECTL),
    "YAML nested more deeply than any tenant": (700 * "[" + 700 * "]", "line 1: more than 500 levels deep", KUBECTL),
    "YAML nested without end, in a line": (100_000 * "- ", "line 1: more than 500 levels deep", KUBECTL),
    "a tag that does not fit": ("!!seq text", "neither YAML nor JSON: expected a sequence node", KUBECTL),
    "a key twice in YAML": (
        AS_KUBECTL_PRINTS.replace("    suspend: true\n", "    suspend: true\n    packages: []\n"),
        "line 20: the key 'packages' stands twice in a mapping",
        "Which one counts?",
    ),
    "a key twice in JSON": (
        json.dumps(_LIST).replace('"suspend": true', '"suspend": true, "packages": []'),
        "the key 'packages' stands twice in items[0].spec",
        "Which one counts?",
    ),
    "a key twice in a later JSON document": (
        json.dumps(resource()) + '\n\n{"kind": "List", "items": [], "items": []}',
        "the key 'items' stands twice in the top level (a document that begins on line 3)",
        "Which one counts?",
    ),
    "a key twice in braces of YAML": (
        "{kind: List, items: [], items: []}",
        "line 1: the key 'items' stands twice",
        "Which one counts?",
    ),
    "a key twice that YAML spells in two ways": (
        "kind: List\n'items': []\nitems: []\n",
        "line 3: the key 'items' stands twice",
        "Which one counts?",
    ),
    "a merge twice": (
        "a: &a {b: 1}\nc:\n  <<: *a\n  <<: *a\n",
        "line 4: the key '<<' stands twice",
        "Which one counts?",
    ),
    "a shard of a list": (
        json.dumps(kubectl_list(resource(), shardInfo={"selector": "shard"})),
        "is one shard of several",
        "whole list",
    ),
    "a page inside a List": (
        json.dumps(kubectl_list(kubectl_list(resource(), **{"continue": "abc"}))),
        "is one page of a longer list",
        "whole list",
    ),
    "a List with other metadata": (
        json.dumps({"kind": "List", "items": [], "metadata": []}),
        "a List has metadata that is a list",
        KUBECTL,
    ),
    "a Table": (
        json.dumps({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "rows": [{"object": resource()}]}),
        f"contains Table of meta.k8s.io; {ONLY_TENANTS}",
        "the wrong one",
    ),
    "a list of metadata": (
        json.dumps({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "items": [resource()]}),
        f"contains PartialObjectMetadataList of meta.k8s.io; {ONLY_TENANTS}",
        "the wrong one",
    ),
    "a List of metadata": (
        json.dumps(kubectl_list({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"})),
        f"contains PartialObjectMetadata of meta.k8s.io; {ONLY_TENANTS}",
        "the wrong one",
    ),
    "a List that is cut off": (CUT_OFF, "an object without a kind", CUT_SHORT),
    "a List that is cut off inside a tenant": (CUT_OFF[: CUT_OFF.index("  spec: {}")], "without a kind", CUT_SHORT),
    "a List without items": (json.dumps({"apiVersion": "v1", "kind": "List"}), "the List has no items", CUT_SHORT),
    "a List whose items are null": (json.dumps({**_LIST, "items": None}), "has no items", CUT_SHORT),
    "a List whose items are an object": (json.dumps({**_LIST, "items": {}}), "the List has no items", CUT_SHORT),
    "a PiecedTenantList without items": (
        json.dumps({"kind": "PiecedTenantList", "items": None}),
        "the PiecedTenantList has no items",
        CUT_SHORT,
    ),
    "a page with a token": (
        json.dumps(kubectl_list(resource(), kind="PiecedTenantList", **{"continue": "abc"})),
        "is one page of a longer list",
        "whole list",
    ),
    "a page with items remaining": (
        json.dumps(kubectl_list(resource(), remainingItemCount=3)),
        "is one page of a longer list",
        "whole list",
    ),
    "an object of another kind": (
        json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}),
        f"contains ConfigMap of v1; {ONLY_TENANTS}",
        "the wrong one",
    ),
    "an object of another kind among the tenants": (
        json.dumps(kubectl_list(resource(), {"apiVersion": "apps/v1", "kind": "Deployment"})),
        f"contains Deployment of apps; {ONLY_TENANTS}",
        "the wrong one",
    ),
    "an error of the API server": (
        json.dumps({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 403}),
        f"contains Status of v1; {ONLY_TENANTS}",
        KUBECTL,
    ),
    "a tenant of another group": (
        json.dumps({**resource(), "apiVersion": "other.ch/v1"}),
        f"contains PiecedTenant of other.ch; {ONLY_TENANTS}",
        "the wrong one",
    ),
    "a tenant of the core group": (
        json.dumps({**resource(), "apiVersion": "v1"}),
        f"contains PiecedTenant of v1; {ONLY_TENANTS}",
        "the wrong one",
    ),
    "a tenant without a group": (
        json.dumps({**resource(), "apiVersion": None}),
        f"contains PiecedTenant of no group; {ONLY_TENANTS}",
        "the wrong one",
    ),
    "an object that is empty": ("{}", "an object without a kind of no group", CUT_SHORT),
    "a kind that is a list": ("kind: [List]\nitems: []\n", ONLY_TENANTS, "the wrong one"),
    "a kind that is an object": ("kind: {a: b}\n", ONLY_TENANTS, "the wrong one"),
    "an item that is text": (
        json.dumps(kubectl_list("acme")),
        f"contains text of no group; {ONLY_TENANTS}",
        CUT_SHORT,
    ),
    "an item that is null": (json.dumps({**_LIST, "items": [None]}), ONLY_TENANTS, CUT_SHORT),
}


@pytest.mark.parametrize(("content", "says", "remedy"), REFUSED.values(), ids=REFUSED)
def test_anything_but_a_complete_list_of_tenants_is_refused(
    file: Callable[[str | bytes], Path], content: str | bytes, says: str, remedy: str
) -> None:
    path = file(content)
    with pytest.raises(UnreadableFile) as refused:
        observe(path)
    assert type(refused.value) is UnreadableFile
    assert refused.value.exit_code == 1
    assert says in str(refused.value)
    assert str(path) in str(refused.value)
    assert remedy in refused.value.remedy
    assert "\n" not in str(refused.value)


def test_a_tenant_without_a_name_is_refused(file: Callable[[str | bytes], Path]) -> None:
    nameless = resource()
    del nameless["metadata"]["name"]
    path = file(json.dumps(kubectl_list(resource(), nameless)))
    with pytest.raises(UnreadableFile, match=f"{path}: Item 2 of the list has no readable name") as refused:
        observe(path)
    assert "cut off" in refused.value.remedy


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("tenants")
    with pytest.raises(UnreadableFile, match=r"has no file that ends in \.json, .*\.yml") as refused:
        observe(tmp_path)
    assert "Name the folder" in refused.value.remedy


def test_one_bad_file_in_a_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(AS_KUBECTL_PRINTS)
    (tmp_path / "b.yaml").write_text("")
    with pytest.raises(UnreadableFile, match=r"b\.yaml is empty"):
        observe(tmp_path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="No such file") as refused:
        observe(tmp_path / "none.yaml")
    assert "--tenants" in refused.value.remedy


def fill(folder: Path, *names: str) -> None:
    """Write a file with a tenant of its own for each name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(resource(path.stem)))


def as_config_map(folder: Path) -> None:
    """Mount a ConfigMap as the kubelet does: the names are links, and an older version may still be there."""
    fill(folder, "..2026_11_26/acme.yaml", "..2026_11_26/beta.yaml", "..2026_11_25/old.yaml")
    (folder / "..data").symlink_to("..2026_11_26")
    for name in ("acme.yaml", "beta.yaml"):
        (folder / name).symlink_to(f"..data/{name}")


def with_loop(folder: Path) -> None:
    fill(folder, "acme.yaml", "shop/beta.yaml")
    (folder / "shop" / "loop").symlink_to(folder)


def with_links(folder: Path) -> None:
    """Link to a folder beside the one that is read, to one inside it, and to one of its files."""
    fill(folder, "acme.yaml")
    fill(folder.parent / "beside", "beta.yaml")
    (folder / "linked").symlink_to(folder.parent / "beside")
    (folder / "linked-again").symlink_to(folder.parent / "beside")
    (folder / "also-acme.yaml").symlink_to("acme.yaml")


@pytest.mark.parametrize(
    ("arrange", "found"),
    [
        pytest.param(
            lambda folder: fill(folder, "acme.yaml", "shop/beta.yml", "shop/eu/cara.json", "shop.d/dana.yaml"),
            ["acme", "beta", "cara", "dana"],
            id="folders in the folder - read",
        ),
        pytest.param(
            lambda folder: fill(folder, "acme.YAML", "beta.Json", "cara.jsonl", "dana.ndjson"),
            ["acme", "beta", "cara", "dana"],
            id="endings in capitals and of lines - read",
        ),
        pytest.param(
            lambda folder: fill(folder, "acme.yaml", "beta.yaml.bak", "cara.yaml~", "dana.txt", ".emil.yaml"),
            ["acme"],
            id="other endings and hidden files - left out",
        ),
        pytest.param(
            lambda folder: fill(folder, "acme.yaml", ".git/config.yaml", "shop/.cache/beta.yaml"),
            ["acme"],
            id="hidden folders - left out",
        ),
        pytest.param(as_config_map, ["acme", "beta"], id="a mounted ConfigMap - each tenant once"),
        pytest.param(with_loop, ["acme", "beta"], id="links in a circle - each file once"),
        pytest.param(with_links, ["acme", "beta"], id="links to folders and files - each file once"),
    ],
)
def test_which_files_of_a_folder_are_read(tmp_path: Path, arrange: Callable[[Path], None], found: list[str]) -> None:
    folder = tmp_path / "tenants"
    folder.mkdir()
    arrange(folder)
    assert sorted(names(folder)) == found


def test_what_is_left_out_of_a_folder_is_logged(tmp_path: Path) -> None:
    fill(tmp_path, "acme.yaml", "shop/beta.yaml.bak", ".git/config.yaml")
    with capture_logs() as logged:
        observe(tmp_path)
    assert logged == [
        {
            "event": "folder.read",
            "log_level": "info",
            "files": 1,
            "left_out": 2,
            "such_as": [".git", "shop/beta.yaml.bak"],
        }
    ]


@pytest.mark.parametrize(("name", "target"), [("beta.yaml", "gone.yaml"), ("eu", "gone"), ("itself", "itself")])
def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path, name: str, target: str) -> None:
    """A folder that is not mounted would take its tenants for deleted."""
    fill(tmp_path, "acme.yaml")
    (tmp_path / name).symlink_to(target)
    with pytest.raises(UnreadableFile, match="is a link that leads nowhere"):
        observe(tmp_path)


def test_a_pipe_in_a_folder_is_refused(tmp_path: Path) -> None:
    """Nobody may ever write to it."""
    os.mkfifo(tmp_path / "acme.yaml")
    with pytest.raises(UnreadableFile, match=r"acme\.yaml is neither a file nor a folder"):
        observe(tmp_path)


def test_a_pipe_that_is_given_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=[AS_KUBECTL_PRINTS])
    writer.start()
    assert names(tmp_path / "pipe") == ["acme", "beta"]
    writer.join()


def test_a_file_name_that_is_not_utf8_can_be_shown(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"acme-\xff.yaml")).write_text("")
    with pytest.raises(UnreadableFile, match=r"acme-.*is empty") as refused:
        observe(tmp_path)
    assert str(refused.value).encode()


@pytest.mark.parametrize("package", ["=", "<<", "0b_", "0x_", "2026-05-01", "~x", "1e3"])
def test_a_package_that_kubectl_prints_without_quotes_is_text(
    file: Callable[[str | bytes], Path], package: str
) -> None:
    (tenant,) = observe(file(_ITEMS[0].replace("- threema", f"- {package}")))
    assert package in tenant.packages


@pytest.mark.parametrize("number", ["9" * 10_000, "0x" + "f" * 10_000, "1e999999", "12:30", ".nan"])
@pytest.mark.parametrize("field", ["generation: 3", "suspend: true"])
def test_a_number_that_does_not_fit_stays_with_its_tenant(
    file: Callable[[str | bytes], Path], number: str, field: str
) -> None:
    text = AS_KUBECTL_PRINTS.replace(field, f"{field.partition(':')[0]}: {number}")
    acme, beta = observe(file(text))
    assert acme.problem or number == "12:30"
    assert beta == BETA


def test_half_a_surrogate_pair_stays_with_its_tenant(file: Callable[[str | bytes], Path]) -> None:
    acme, beta = observe(file(json.dumps(_LIST).replace("threema", "\\ud800")))
    assert acme.problem
    assert beta == BETA


def test_a_file_of_many_tenants_is_read(file: Callable[[str | bytes], Path]) -> None:
    count = 2000
    assert len(names(file(json.dumps(kubectl_list(*(resource(f"t{n}") for n in range(count))))))) == count


def test_a_file_is_the_same_source_whatever_its_name() -> None:
    assert snapshot("a").identity() == snapshot("b").identity() == "snapshot"
    assert not FileSource.is_live


def test_a_file_cannot_be_rechecked() -> None:
    with pytest.raises(NotImplementedError):
        snapshot("a").get("acme", None)
