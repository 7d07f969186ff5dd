"""The obvious way: a loop over the tenants that asks the ledger about each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reconciler.model import Observed

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


class Done(NamedTuple):
    """What the loop found and wrote, and how many rows it read."""

    findings: int
    written: int
    read: int


def check(url: str, observed: Iterable[Observed]) -> Done:
    """Count the differences, in one transaction; psycopg prepares the statements by itself."""
    findings = read = 0
    with psycopg.connect(url) as ledger, ledger.cursor() as cursor:
        for tenant in observed:
            row = cursor.execute(LIFECYCLE, [tenant.name]).fetchone()
            skills: dict[str, str] = dict(cursor.execute(SKILLS, [tenant.name]).fetchall())
            suspension = cursor.execute(SUSPENSION, [tenant.name]).fetchone()
            enabled = {skill for skill, kind in skills.items() if kind == "enabled"}
            findings += row is None or row[0] != tenant.org or row[2] is not None
            findings += len(enabled ^ set(tenant.packages))
            findings += (suspension == ("suspended",)) != tenant.suspended
            read += (row is not None) + len(skills) + (suspension is not None)
    return Done(findings, 0, read)


def fill(url: str, observed: Iterable[Observed]) -> Done:
    """Record what is missing of live tenants, a transaction for each of them."""
    written = read = 0
    with psycopg.connect(url) as ledger, ledger.cursor() as cursor:
        for tenant in observed:
            row = cursor.execute(LIFECYCLE, [tenant.name]).fetchone()
            skills: dict[str, str] = dict(cursor.execute(SKILLS, [tenant.name]).fetchall())
            suspension = cursor.execute(SUSPENSION, [tenant.name]).fetchone()
            read += (row is not None) + len(skills) + (suspension is not None)
            if row is None:
                cursor.execute(INSERT_LIFECYCLE, [tenant.name, tenant.org, tenant.created_at])
                written += 1
            for skill in tenant.packages:
                if skills.get(skill) != "enabled":
                    cursor.execute(INSERT_SKILL, [tenant.name, tenant.org, skill, "enabled", tenant.created_at])
                    written += 1
            if tenant.suspended and suspension != ("suspended",):
                cursor.execute(INSERT_SUSPENSION, [tenant.name, tenant.org, "suspended", tenant.suspended_at])
                written += 1
            ledger.commit()
    return Done(written, written, read)
