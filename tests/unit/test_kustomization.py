"""kustomization.yaml and the overlay of docs/gitops.md change what they name, wherever it stands, and nothing else."""

from __future__ import annotations

import copy
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Final

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import latest_version

from reconciler import __version__
from tests.support.pages import ROOT, manifests

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.support.api_state import Object


def _by_kind(documents: Iterable[Object]) -> dict[str, Object]:
    return {document["kind"]: document for document in documents}


BASE: Final[Object] = yaml.safe_load((ROOT / "kustomization.yaml").read_text(encoding="utf-8"))
MANIFEST: Final = _by_kind(yaml.safe_load_all((ROOT / "cronjob.yaml").read_text(encoding="utf-8")))
EXAMPLES: Final = _by_kind(one for one in manifests("docs/gitops.md") if "flux" not in one["apiVersion"])
OVERLAY: Final = EXAMPLES["Kustomization"]
KUSTOMIZE: Final = next(
    (command for command in (["kustomize", "build"], ["kubectl", "kustomize"]) if shutil.which(command[0])), None
)
needs_kustomize = pytest.mark.skipif(KUSTOMIZE is None, reason="neither kustomize nor kubectl is installed")


def _pod(manifest: Object) -> Object:
    """Return the spec of the pod in a CronJob or a Job."""
    spec: Object = manifest["spec"]
    return dict((spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec)["template"]["spec"])


def _built(folder: Path) -> dict[str, Object]:
    """Return what kustomize makes of a folder, by kind."""
    assert KUSTOMIZE
    done = subprocess.run([*KUSTOMIZE, folder], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return _by_kind(yaml.safe_load_all(done.stdout))


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """The folder of the page, beside a checkout of the base."""
    checkout, folder = tmp_path / "reconciler", tmp_path / "billing"
    checkout.mkdir()
    folder.mkdir()
    for name in ("kustomization.yaml", "cronjob.yaml"):
        shutil.copy(ROOT / name, checkout)
    files = {"kustomization": OVERLAY, "migrate": EXAMPLES["Job"], "egress": EXAMPLES["NetworkPolicy"]}
    for name, document in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(document))
    return folder


def _patched(kustomization: Object) -> tuple[Object, str, Any]:
    """Return target, schedule and RECONCILER_EVERY of a kustomization's only patch."""
    (patch,) = kustomization["patches"]
    changed = yaml.safe_load(patch["patch"])
    ((container,),) = (_pod(changed)["containers"],)
    assert container["name"] == _pod(MANIFEST["CronJob"])["containers"][0]["name"]
    (variable,) = container["env"]
    assert variable["name"] == "RECONCILER_EVERY"
    return patch["target"], changed["spec"]["schedule"], variable["value"]


# --- the fields --------------------------------------------------------------------------------------------------


def test_the_fields_begin_as_what_the_manifest_says() -> None:
    (image,) = BASE["images"]
    cronjob = MANIFEST["CronJob"]
    (container,) = _pod(cronjob)["containers"]
    assert BASE["resources"] == ["cronjob.yaml"]
    assert BASE["namespace"] == cronjob["metadata"]["namespace"]
    assert image["name"] == image["newName"] == container["image"].rpartition(":")[0]
    assert image["newTag"] == __version__
    every = {variable["name"]: variable.get("value") for variable in container["env"]}["RECONCILER_EVERY"]
    target = {"kind": "CronJob", "name": cronjob["metadata"]["name"]}
    assert _patched(BASE) == (target, cronjob["spec"]["schedule"], every)


def test_the_overlay_sets_the_same_fields() -> None:
    assert OVERLAY.keys() == BASE.keys()
    assert [image["name"] for image in OVERLAY["images"]] == [image["name"] for image in BASE["images"]]
    assert _patched(OVERLAY) == (_patched(BASE)[0], "*/15 * * * *", "15m")


# --- what comes out ----------------------------------------------------------------------------------------------


@needs_kustomize
def test_without_a_change_the_manifest_comes_out() -> None:
    assert _built(ROOT) == MANIFEST


@needs_kustomize
def test_an_overlay_changes_what_it_names_everywhere_and_nothing_else(overlay: Path) -> None:
    (image,) = OVERLAY["images"]
    pinned = f"{image['newName']}@{image['digest']}"
    wanted = copy.deepcopy(MANIFEST | {kind: EXAMPLES[kind] for kind in ("Job", "NetworkPolicy")})
    for kind in ("ServiceAccount", "CronJob", "Job", "NetworkPolicy"):
        wanted[kind]["metadata"]["namespace"] = OVERLAY["namespace"]
    wanted["ClusterRoleBinding"]["subjects"][0]["namespace"] = OVERLAY["namespace"]
    wanted["CronJob"]["spec"]["schedule"] = "*/15 * * * *"
    for kind in ("CronJob", "Job"):
        (container,) = _pod(wanted[kind])["containers"]
        container["image"] = pinned
        for variable in container["env"]:
            if variable["name"] == "RECONCILER_EVERY":
                variable["value"] = "15m"

    assert _built(overlay) == wanted


# --- what stands beside it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Job", "NetworkPolicy"])
def test_the_pages_objects_are_valid_to_the_schemas_of_kubernetes(kind: str) -> None:
    kubernetes_validate.validate(EXAMPLES[kind], latest_version(), strict=True)


def test_the_migration_runs_as_the_job_does_but_as_the_owner() -> None:
    job, cronjob = _pod(EXAMPLES["Job"]), _pod(MANIFEST["CronJob"])
    (migrate,), (run,) = job["containers"], cronjob["containers"]
    assert migrate["args"] == ["migrate"]
    assert migrate["securityContext"] == run["securityContext"]
    assert job["securityContext"] == {name: cronjob["securityContext"][name] for name in job["securityContext"]}
    assert job["securityContext"].keys() == cronjob["securityContext"].keys() - {"fsGroup"}
    assert job["automountServiceAccountToken"] is False
    (address,) = migrate["env"]
    assert address["name"] == "DATABASE_URL"
    assert address["valueFrom"]["secretKeyRef"]["name"] != "ledger-app"


def test_the_policy_is_that_of_the_jobs_pods() -> None:
    labels = MANIFEST["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    policy = EXAMPLES["NetworkPolicy"]["spec"]
    assert policy["podSelector"] == {"matchLabels": labels}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy
