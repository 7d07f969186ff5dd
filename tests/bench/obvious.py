"""The obvious way, as a script: list the tenants by the official client, then ask the ledger about each of them.

    DATABASE_URL=… python -m tests.bench.obvious KUBECONFIG [fill]

It only counts the differences; with `fill` it records what is missing. The result is a line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import psycopg
from kubernetes import client, config

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.support.api_state import Object

KIND = ("pieced.ch", "v1alpha1", "piecedtenants")
ORG = "pieced.ch/zitadel-org-id"
LIFECYCLE = "SELECT zitadel_org_id, created_at, deleted_at FROM tenant_billing_lifecycle WHERE tenant_name = %s"
SKILLS = """
SELECT DISTINCT ON (skill_id) skill_id, event_kind FROM tenant_skill_events
WHERE tenant_name = %s ORDER BY skill_id, occurred_at DESC, id DESC
"""
SUSPENSION = """
SELECT event_kind FROM tenant_suspension_events WHERE tenant_name = %s ORDER BY occurred_at DESC, id DESC LIMIT 1
"""
INSERT_LIFECYCLE = """
INSERT INTO tenant_billing_lifecycle (tenant_name, zitadel_org_id, created_at) VALUES (%s, %s, %s)
"""
INSERT_SKILL = """
INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at)
VALUES (%s, %s, %s, %s, %s)
"""
INSERT_SUSPENSION = """
INSERT INTO tenant_suspension_events (tenant_name, zitadel_org_id, event_kind, occurred_at) VALUES (%s, %s, %s, %s)
"""


def tenants(kubeconfig: str) -> Iterator[Object]:
    """Yield every tenant."""
    config.load_kube_config(kubeconfig)  # type: ignore[no-untyped-call]
    api, token = client.CustomObjectsApi(), None
    while True:
        page: Any = api.list_cluster_custom_object(*KIND, limit=500, _continue=token)
        yield from page["items"]
        token = page["metadata"].get("continue") or None
        if not token:
            return


def checked(url: str, observed: Iterable[Object], *, fill: bool) -> dict[str, int]:
    """Count the differences and the rows read; record what is missing, in a transaction for each tenant."""
    findings = written = read = 0
    with psycopg.connect(url) as ledger, ledger.cursor() as cursor:
        for tenant in observed:
            name, org = tenant["metadata"]["name"], tenant["metadata"]["labels"][ORG]
            packages, suspended = set(tenant["spec"]["packages"]), tenant["spec"].get("suspend", False)
            row = cursor.execute(LIFECYCLE, [name]).fetchone()
            skills: dict[str, str] = dict(cursor.execute(SKILLS, [name]).fetchall())
            suspension = cursor.execute(SUSPENSION, [name]).fetchone()
            read += (row is not None) + len(skills) + (suspension is not None)
            enabled = {skill for skill, kind in skills.items() if kind == "enabled"}
            findings += row is None or row[0] != org or row[2] is not None
            findings += len(enabled ^ packages)
            findings += (suspension == ("suspended",)) != suspended
            if fill:
                created_at = tenant["metadata"]["creationTimestamp"]
                if row is None:
                    cursor.execute(INSERT_LIFECYCLE, [name, org, created_at])
                for skill in packages - enabled:
                    cursor.execute(INSERT_SKILL, [name, org, skill, "enabled", created_at])
                if suspended and suspension != ("suspended",):
                    suspended_at = tenant.get("status", {}).get("suspendedAt", created_at)
                    cursor.execute(INSERT_SUSPENSION, [name, org, "suspended", suspended_at])
                written = findings
                ledger.commit()
    return {"findings": findings, "written": written, "read": read}


def _main(kubeconfig: str, fill: str = "") -> None:
    observed = list(tenants(kubeconfig))
    arrived = time.perf_counter()
    done = checked(os.environ["DATABASE_URL"], observed, fill=bool(fill))
    print(json.dumps(done | {"tenants": len(observed), "ledger": time.perf_counter() - arrived}))  # noqa: T201


if __name__ == "__main__":
    _main(*sys.argv[1:])
