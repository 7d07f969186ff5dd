"""A run over a file gives the same rows as a run over the cluster, in every format of kubectl."""

from __future__ import annotations

import io
import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from reconciler.cli.main import main
from reconciler.db.connection import connect
from tests.support.ledger_rows import PUBLIC, all_rows, billing_rows
from tests.support.population import backfilled, objects, population, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.support.api_state import Object
    from tests.support.harness import Cluster


class _Kubectl(yaml.SafeDumper):
    """YAML as sigs.k8s.io/yaml writes it: sorted keys, lists not indented, `"` around ambiguous text."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    if "\n" in text and text.isprintable():
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")
    resolved = yaml.SafeLoader("").resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    plain = resolved == "tag:yaml.org,2002:str"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Kubectl.add_representer(str, _text)


def _listed(items: Sequence[Object]) -> Object:
    return {"apiVersion": "v1", "items": list(items), "kind": "List", "metadata": {"resourceVersion": ""}}


def _without_managed_fields(items: Sequence[Object]) -> list[Object]:
    """Remove what kubectl has omitted since 1.21 unless --show-managed-fields is given."""
    return [
        item | {"metadata": {name: value for name, value in item["metadata"].items() if name != "managedFields"}}
        for item in items
    ]


def as_yaml(items: Sequence[Object], *, managed_fields: bool = False) -> str:
    """Return what `kubectl get piecedtenants -o yaml` prints."""
    shown = _listed(items if managed_fields else _without_managed_fields(items))
    return yaml.dump(shown, Dumper=_Kubectl, allow_unicode=True, default_flow_style=False, sort_keys=True, width=80)


def as_json(items: Sequence[Object], *, managed_fields: bool = False) -> str:
    """Return what `kubectl get piecedtenants -o json` prints: Go escapes what HTML could read as a tag."""
    shown = _listed(items if managed_fields else _without_managed_fields(items))
    text = json.dumps(shown, indent=4, sort_keys=True, ensure_ascii=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text + "\n"


def as_documents(items: Sequence[Object]) -> str:
    """Return what several `kubectl get piecedtenants NAME -o yaml` print together."""
    return "---\n".join(
        yaml.dump(item, Dumper=_Kubectl, allow_unicode=True, default_flow_style=False, sort_keys=True)
        for item in _without_managed_fields(items)
    )


def test_the_formats_are_kubectls() -> None:
    item = {
        "kind": "PiecedTenant",
        "apiVersion": "pieced.ch/v1alpha1",
        "metadata": {
            "name": "acme",
            "labels": {"pieced.ch/zitadel-org-id": "2871"},
            "managedFields": [{}],
            "creationTimestamp": "2026-05-01T10:00:00Z",
        },
        "spec": {"suspend": True, "packages": ["mail", "NULL", "say & <go>"]},
    }

    assert as_yaml([item]) == (
        "apiVersion: v1\n"
        "items:\n"
        "- apiVersion: pieced.ch/v1alpha1\n"
        "  kind: PiecedTenant\n"
        "  metadata:\n"
        '    creationTimestamp: "2026-05-01T10:00:00Z"\n'
        "    labels:\n"
        '      pieced.ch/zitadel-org-id: "2871"\n'
        "    name: acme\n"
        "  spec:\n"
        "    packages:\n"
        "    - mail\n"
        '    - "NULL"\n'
        "    - say & <go>\n"
        "    suspend: true\n"
        "kind: List\n"
        "metadata:\n"
        '  resourceVersion: ""\n'
    )
    assert as_json([item]).startswith('{\n    "apiVersion": "v1",\n    "items": [\n        {\n')
    assert '"say \\u0026 \\u003cgo\\u003e"' in as_json([item])
    assert as_json([item]).endswith('    "kind": "List",\n    "metadata": {\n        "resourceVersion": ""\n    }\n}\n')
    assert yaml.safe_load(as_yaml([item])) == json.loads(as_json([item]))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ledger_url: str) -> Callable[..., Any]:
    """Return a function that runs `reconciler run` in this process and returns its JSON."""
    monkeypatch.setenv("DATABASE_URL", ledger_url)

    def command(*arguments: str) -> Any:
        monkeypatch.setattr("sys.argv", ["reconciler", "run", "--output", "json", *arguments])
        with pytest.raises(SystemExit) as exited:
            main()
        printed = capsys.readouterr()
        assert exited.value.code == 0, printed.err
        return json.loads(printed.out)

    return command


def test_every_format_gives_the_same_rows_as_the_cluster(
    cluster: Cluster, ledger_url: str, run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a second run writes none: the ledger has all of them."""
    members = population()
    settle(cluster, members)
    found = objects(cluster)
    items = list(found.values())
    of_the_cluster = run("--kubeconfig", str(cluster.kubeconfig), "--settle", "0s")
    assert billing_rows(ledger_url) == backfilled(members, found, dated=cluster.moves_times)
    formats: list[tuple[str, str, bool]] = [
        ("tenants.yaml", as_yaml(items), False),
        ("tenants.json", as_json(items), False),
        ("documents.yml", as_documents(items), False),
        ("with-managed-fields.yaml", as_yaml(items, managed_fields=True), True),
        ("with-managed-fields.json", as_json(items, managed_fields=True), True),
    ]
    written = {}
    for name, text, managed_fields in formats:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        _forget(ledger_url)

        first = run("--tenants", str(path))

        # a file does not name its server's version, so its managedFields are trusted
        assert billing_rows(ledger_url) == backfilled(members, found, dated=managed_fields), name
        assert first["source"] == "snapshot"
        assert _rows(first) == _rows(of_the_cluster), name
        assert _found(first) == _found(of_the_cluster), name
        written = all_rows(ledger_url, PUBLIC)
        second = run("--tenants", str(path))
        assert all_rows(ledger_url, PUBLIC) == written, name
        assert _rows(second) == dict.fromkeys(_rows(second), 0), name

    # a folder and standard input contain the same tenants, so nothing is left to write
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "first.yaml").write_text(as_yaml(items[:100]), encoding="utf-8")
    (folder / "second.json").write_text(as_json(items[100:]), encoding="utf-8")
    (folder / "README.md").write_text("not a tenant")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(as_json(items).encode())))
    for path_given in (str(folder), "-"):
        again = run("--tenants", path_given)
        assert (again["tenants_observed"], again["outcome"]) == (210, "drift")
        assert _rows(again) == dict.fromkeys(_rows(again), 0)
        assert all_rows(ledger_url, PUBLIC) == written


def test_a_ledger_of_a_cluster_refuses_a_file(
    cluster: Cluster, ledger_url: str, run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(cluster, population()[:5])
    run("--kubeconfig", str(cluster.kubeconfig), "--settle", "0s")
    before = all_rows(ledger_url, PUBLIC)
    path = tmp_path / "tenants.yaml"
    path.write_text(as_yaml(list(objects(cluster).values())[:4]))
    monkeypatch.setattr("sys.argv", ["reconciler", "run", "--tenants", str(path)])

    with pytest.raises(SystemExit) as exited:
        main()

    assert exited.value.code == 3
    assert all_rows(ledger_url, PUBLIC) == before


def _forget(url: str) -> None:
    """Empty the ledger, including the pinned source."""
    with closing(connect(url)) as ledger:
        ledger.execute(
            "TRUNCATE tenant_billing_lifecycle, tenant_skill_events, tenant_suspension_events, reconciler.runs, "
            "reconciler.corrections, reconciler.source RESTART IDENTITY CASCADE"
        )


def _rows(document: Any) -> dict[str, int]:
    return {name: value for name, value in document.items() if name.endswith(("_inserted", "_stamped", "_resolved"))}


def _found(document: Any) -> list[tuple[str, ...]]:
    names = ("reason", "tenant", "org", "subject", "action", "recorded", "observed")
    return [tuple(finding[name] for name in names) for finding in document["findings"]]
