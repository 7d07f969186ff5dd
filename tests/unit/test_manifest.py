"""cronjob.yaml: valid to Kubernetes' own schemas, allowed no more than it needs, and in step with the program."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import durationpy
import kubernetes_validate
import pytest
import yaml
from apscheduler.triggers.cron import CronTrigger
from kubernetes_validate.utils import all_versions

if TYPE_CHECKING:
    from collections.abc import Iterator

MANIFEST = Path(__file__).parents[2] / "cronjob.yaml"
SETTLE = timedelta(seconds=60)
"""The default of --settle: a run that must recheck lasts at least this long."""

OLDEST = (1, 29)
"""The oldest Kubernetes that the manifest's head allows."""

VERSIONS = [version for version in dict.fromkeys(all_versions()) if tuple(map(int, version.split(".")[:2])) >= OLDEST]

SYSTEM_VARIABLES = {"TMPDIR"}
"""Read by Python itself."""


def objects() -> dict[str, Any]:
    """Return the manifest's objects by kind; each kind occurs once."""
    documents = list(yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8")))
    by_kind = {document["kind"]: document for document in documents}
    assert len(by_kind) == len(documents)
    return by_kind


OBJECTS = objects()
CRONJOB = OBJECTS["CronJob"]["spec"]
JOB = CRONJOB["jobTemplate"]["spec"]
POD = JOB["template"]["spec"]
(CONTAINER,) = POD["containers"]
VARIABLES = {variable["name"]: variable for variable in CONTAINER["env"]}


def amount(quantity: str) -> float:
    """Return a Kubernetes quantity in its base unit."""
    units = {"": 1, "m": 1e-3, "Mi": 2**20, "Gi": 2**30}
    match = re.fullmatch(r"(\d+)(\w*)", quantity)
    assert match
    return int(match[1]) * units[match[2]]


def deadline() -> timedelta:
    """Return how long one run may take."""
    value: timedelta = durationpy.from_str(VARIABLES["RECONCILER_DEADLINE"]["value"])
    return value


def interval() -> timedelta:
    """Return the time between two ticks of the schedule."""
    trigger = CronTrigger.from_crontab(CRONJOB["schedule"], timezone=UTC)
    first = trigger.get_next_fire_time(None, datetime(2026, 5, 1, tzinfo=UTC))
    value: timedelta = trigger.get_next_fire_time(first, first) - first
    return value


def commands(command: click.Command) -> Iterator[click.Command]:
    """Yield a command and every command below it."""
    yield command
    if isinstance(command, click.Group):
        for child in command.commands.values():
            yield from commands(child)


def settings() -> dict[str, list[click.Parameter]]:
    """Return the options of the command line by the variable that sets them."""
    from reconciler.cli.main import cli

    found: dict[str, list[click.Parameter]] = {}
    for parameter in itertools.chain.from_iterable(command.params for command in commands(cli)):
        names = [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar or []
        for name in names:
            found.setdefault(name, []).append(parameter)
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_to_the_schemas_of_kubernetes(version: str) -> None:
    for document in OBJECTS.values():
        assert version.startswith(kubernetes_validate.validate(document, version, strict=True))


def test_the_head_names_the_oldest_kubernetes() -> None:
    assert "# Needs Kubernetes 1.29 or newer." in MANIFEST.read_text(encoding="utf-8")


def test_the_schemas_reject_a_misspelt_field() -> None:
    document = OBJECTS["CronJob"] | {"spec": CRONJOB | {"concurencyPolicy": "Forbid"}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSIONS[0], strict=True)


def test_the_manifest_holds_these_objects_and_no_others() -> None:
    """The operator creates the namespace, and no secret is ever in a file."""
    assert {kind: document["apiVersion"] for kind, document in OBJECTS.items()} == {
        "ServiceAccount": "v1",
        "ClusterRole": "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding": "rbac.authorization.k8s.io/v1",
        "CronJob": "batch/v1",
    }


# --- what the pod may do on its node -----------------------------------------------------------------------------


def test_the_pod_does_not_run_as_root() -> None:
    context = POD["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == 65532


def test_the_container_does_not_loosen_the_pods_security() -> None:
    assert CONTAINER["securityContext"].keys() == {
        "allowPrivilegeEscalation",
        "readOnlyRootFilesystem",
        "capabilities",
    }


def test_the_root_file_system_is_read_only() -> None:
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"] is True


def test_every_capability_is_dropped_and_none_added() -> None:
    assert CONTAINER["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_no_process_can_gain_privileges() -> None:
    assert CONTAINER["securityContext"]["allowPrivilegeEscalation"] is False


def test_system_calls_are_filtered() -> None:
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_the_pod_shares_nothing_with_its_node() -> None:
    assert not POD.keys() & {"hostNetwork", "hostPID", "hostIPC", "hostUsers"}
    assert [volume.keys() - {"name"} for volume in POD["volumes"]] == [{"emptyDir"}]


def test_only_the_job_is_given_a_token() -> None:
    assert OBJECTS["ServiceAccount"]["automountServiceAccountToken"] is False
    assert POD["automountServiceAccountToken"] is True
    assert POD["serviceAccountName"] == OBJECTS["ServiceAccount"]["metadata"]["name"]


def test_the_spool_fits_the_only_writable_folder() -> None:
    (volume,) = POD["volumes"]
    assert CONTAINER["volumeMounts"] == [{"name": volume["name"], "mountPath": VARIABLES["TMPDIR"]["value"]}]
    size = amount(volume["emptyDir"]["sizeLimit"])
    assert 0 < size < amount(CONTAINER["resources"]["limits"]["ephemeral-storage"])
    assert "medium" not in volume["emptyDir"], "a spool in memory would count against the memory limit"


def test_resources_are_requested_and_limited() -> None:
    requests, limits = CONTAINER["resources"]["requests"], CONTAINER["resources"]["limits"]
    assert requests.keys() == limits.keys() == {"cpu", "memory", "ephemeral-storage"}
    assert all(amount(requests[name]) <= amount(limits[name]) for name in limits)


def test_the_memory_limit_leaves_room_over_the_peak_of_a_run() -> None:
    assert amount(CONTAINER["resources"]["limits"]["memory"]) >= 1.5 * 150e6


# --- what the account may do in the cluster ----------------------------------------------------------------------


def test_the_role_allows_what_a_run_needs_and_nothing_else() -> None:
    allowed = {
        (group, resource, verb, name)
        for rule in OBJECTS["ClusterRole"]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [None])
    }
    assert allowed == {
        ("pieced.ch", "piecedtenants", "list", None),
        ("pieced.ch", "piecedtenants", "get", None),
        ("pieced.ch", "piecedtenants", "watch", None),
        ("", "namespaces", "get", "kube-system"),
        ("events.k8s.io", "events", "create", None),
    }


def test_the_rules_have_no_field_that_widens_them() -> None:
    known = {"apiGroups", "resources", "resourceNames", "verbs"}
    assert all(rule.keys() <= known for rule in OBJECTS["ClusterRole"]["rules"])
    assert "aggregationRule" not in OBJECTS["ClusterRole"]


def test_the_role_is_bound_to_the_jobs_account_alone() -> None:
    binding, account, role = OBJECTS["ClusterRoleBinding"], OBJECTS["ServiceAccount"], OBJECTS["ClusterRole"]
    assert binding["roleRef"]["kind"] == "ClusterRole"
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [
        {
            "kind": "ServiceAccount",
            "name": account["metadata"]["name"],
            "namespace": account["metadata"]["namespace"],
        }
    ]


def test_every_namespaced_object_names_the_same_namespace() -> None:
    namespaced = [OBJECTS["ServiceAccount"], OBJECTS["CronJob"]]
    assert {document["metadata"]["namespace"] for document in namespaced} == {"pieced-billing"}


# --- when it runs, and how often it tries ------------------------------------------------------------------------


def test_scheduled_runs_never_overlap() -> None:
    assert CRONJOB["concurrencyPolicy"] == "Forbid"


def test_it_runs_every_minute_of_utc() -> None:
    assert interval() == timedelta(minutes=1)
    assert CRONJOB["timeZone"] == "Etc/UTC"


def test_the_program_knows_the_schedules_interval() -> None:
    """Alerts end by it."""
    assert durationpy.from_str(VARIABLES["RECONCILER_EVERY"]["value"]) == interval()


def test_it_lists_all_tenants_every_quarter_of_an_hour() -> None:
    assert durationpy.from_str(VARIABLES["RECONCILER_FULL_EVERY"]["value"]) == timedelta(minutes=15)


def test_a_run_ends_before_the_next_full_list_with_time_to_recheck() -> None:
    assert 2 * SETTLE <= deadline() < durationpy.from_str(VARIABLES["RECONCILER_FULL_EVERY"]["value"])


def test_the_job_outlives_every_try_by_a_minute() -> None:
    """A run that ends by its own deadline logs why; one that the job's deadline kills cannot."""
    tries = JOB["backoffLimit"] + 1
    assert timedelta(seconds=JOB["activeDeadlineSeconds"]) >= tries * deadline() + timedelta(minutes=1)


def test_a_missed_tick_is_made_up_for_before_the_next() -> None:
    """Under ten seconds the controller, which checks every ten, may never start a job."""
    assert timedelta(seconds=10) < timedelta(seconds=CRONJOB["startingDeadlineSeconds"]) < interval()


def test_what_a_person_must_decide_is_not_retried() -> None:
    """3 is a refusal by a safety rule, 64 wrong usage or settings: a retry ends the same way."""
    rule = JOB["podFailurePolicy"]["rules"][0]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {"containerName": CONTAINER["name"], "operator": "In", "values": [3, 64]}
    assert POD["restartPolicy"] == "Never"


def test_a_drained_node_uses_up_no_try() -> None:
    rule = JOB["podFailurePolicy"]["rules"][1]
    assert rule == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def test_finished_jobs_are_kept_for_reading_and_then_removed() -> None:
    assert CRONJOB["successfulJobsHistoryLimit"] >= 1
    assert CRONJOB["failedJobsHistoryLimit"] >= CRONJOB["successfulJobsHistoryLimit"]
    assert timedelta(seconds=JOB["ttlSecondsAfterFinished"]) >= timedelta(days=2)
    assert CONTAINER["terminationMessagePolicy"] == "FallbackToLogsOnError"


# --- what it passes to the program -------------------------------------------------------------------------------


def test_the_job_runs_a_command_that_exists() -> None:
    from reconciler.cli.main import cli

    assert CONTAINER["args"] == ["run"]
    assert "run" in cli.commands
    assert "command" not in CONTAINER, "the image's entry point is the program"


def test_every_variable_is_a_setting_that_exists() -> None:
    from reconciler.cli.options import DATABASE_URL

    assert VARIABLES.keys() - SYSTEM_VARIABLES <= settings().keys() | {DATABASE_URL}


def test_the_program_accepts_every_value() -> None:
    known = settings()
    for name, variable in VARIABLES.items():
        for parameter in known.get(name, []):
            if "value" in variable:
                parameter.type(variable["value"], parameter)


def test_only_the_ledgers_address_comes_from_a_secret() -> None:
    assert {name for name, variable in VARIABLES.items() if "valueFrom" in variable} == {"DATABASE_URL"}
    assert VARIABLES["DATABASE_URL"]["valueFrom"] == {"secretKeyRef": {"name": "ledger-app", "key": "uri"}}


def test_no_service_of_the_namespace_can_set_a_variable() -> None:
    """A Service named `reconciler` would otherwise add RECONCILER_PORT to the settings."""
    assert POD["enableServiceLinks"] is False


def test_the_job_runs_without_the_secret_for_alerts() -> None:
    (source,) = CONTAINER["envFrom"]
    assert source == {"secretRef": {"name": "reconciler-alerts", "optional": True}}
