"""Tenants from a seed, and the ledger that says the same of them."""

from __future__ import annotations

import random
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from reconciler.core.model import Observed
from reconciler.db.connection import connect
from reconciler.db.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from tests.support.api_state import Object

API_VERSION, KIND = "pieced.ch/v1alpha1", "PiecedTenant"
ORG_LABEL = "pieced.ch/zitadel-org-id"
BEGINNING = datetime(2024, 1, 1, tzinfo=UTC)
"""The first tenant's creation; all that is recorded lies within two years after it."""
YEAR = timedelta(days=365)
MOVED = BEGINNING + 2 * YEAR
"""When tenants move on: after all that is recorded, and long ago, so that they are quiet."""
TOGGLED = "toggled"
"""A package that tenants turn on and off."""
SKILLS = (
    *("calendar", "crm-sync", "document-search", "email-triage", "image-generation", "invoice-reader", "meeting-notes"),
    *("pdf-forms", "threema", "translation", "voice", "web-search"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much there is.

    Attributes:
        tenants: live tenants.
        packages: packages that each of them has on.
        events: recorded events of each package, the last of them `enabled`.
        seed: what everything is drawn from.
    """

    tenants: int
    packages: int
    events: int
    seed: int


def tenants(size: Size) -> list[Observed]:
    """Return the tenants as a source would show them, in the order of a list: each true to what `load` records."""
    draw = random.Random(size.seed)  # noqa: S311 - no secret
    skills = (*SKILLS, *(f"extra-{number:03}" for number in range(size.packages - len(SKILLS))))
    made = []
    for number in range(size.tenants):
        created_at = BEGINNING + timedelta(seconds=draw.randrange(YEAR // timedelta(seconds=1)))
        changed_at = created_at + timedelta(seconds=draw.randrange(YEAR // timedelta(seconds=1)))
        suspended = draw.random() < 0.05
        made.append(
            Observed(
                name=f"tenant-{number:07}",
                uid=str(UUID(int=draw.getrandbits(128))),
                org=str(280_000_000_000_000_000 + draw.randrange(max(1, size.tenants // 2))),
                created_at=created_at,
                generation=draw.randrange(1, 20),
                packages=tuple(sorted(draw.sample(skills, size.packages))),
                suspended=suspended,
                suspended_at=changed_at if suspended else None,
                last_modified_at=changed_at,
                packages_written_at=changed_at,
                suspend_written_at=changed_at if suspended else None,
            )
        )
    return made


def resource(tenant: Observed) -> Object:
    """Return the custom resource that shows this tenant, as large and as owned as a portal's."""
    created, touched = _text(tenant.created_at), _text(tenant.last_modified_at)
    spec: Object = {"displayName": tenant.name.title(), "packages": tenant.packages}
    owned: Object = {".": {}, "f:displayName": {}, "f:packages": {}}
    if tenant.suspend_written_at:
        spec["suspend"], owned["f:suspend"] = tenant.suspended, {}
    status: Object = {"phase": "Suspended" if tenant.suspended else "Ready", "observedGeneration": tenant.generation}
    if tenant.suspended_at:
        status["suspendedAt"] = _text(tenant.suspended_at)
    portal: Object = {"f:metadata": {"f:labels": {".": {}, f"f:{ORG_LABEL}": {}}}, "f:spec": owned}
    operator: Object = {"f:status": {".": {}, **{f"f:{name}": {} for name in status}}}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "creationTimestamp": created,
            "generation": tenant.generation,
            "labels": {ORG_LABEL: tenant.org},
            "managedFields": [
                _write("portal", touched, portal),
                _write("operator", touched, operator) | {"subresource": "status"},
            ],
            "name": tenant.name,
            "resourceVersion": "1",
            "uid": tenant.uid,
        },
        "spec": spec,
        "status": status,
    }


def _write(manager: str, time: str | None, fields: Object) -> Object:
    return {
        "apiVersion": API_VERSION,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
        "manager": manager,
        "operation": "Update",
        "time": time,
    }


def _text(time: datetime | None) -> str | None:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}" if time else None


def load(url: str, observed: Sequence[Observed], *, events: int, just_now: bool = False) -> int:
    """Record the history of these tenants, in the order of its time as a portal would have; return its events.

    It lasts for two years, or where they were created `just_now` for less than a second.

    The indexes are made afterwards: that is faster, and leaves them as a REINDEX would.
    """
    with closing(connect(url)) as ledger:
        ledger.execute("SET work_mem = '1GB'; SET maintenance_work_mem = '1GB'")
        for index in ("idx_tenant_skill_events_tenant_skill", "idx_tenant_skill_events_org_time"):
            ledger.execute(f"DROP INDEX {index}")
        ledger.execute("DROP INDEX reconciler_skill_state")
        # two events of a key lie at least a microsecond apart
        recorded = _recorded(ledger, observed, events, f"{432 * events} microseconds" if just_now else "1 day")
        migrate(ledger)
        ledger.execute("VACUUM (ANALYZE)")
        ledger.execute("CHECKPOINT")
    return recorded


def _recorded(ledger: psycopg.Connection[Any], observed: Sequence[Observed], events: int, day: str) -> int:
    with ledger.transaction(), ledger.cursor() as cursor:
        cursor.execute(
            "CREATE TEMPORARY TABLE tenant (name text, org text, created_at timestamptz, skills text[], suspended bool)"
            " ON COMMIT DROP"
        )
        with cursor.copy("COPY tenant FROM STDIN") as copy:
            for tenant in observed:
                copy.write_row((tenant.name, tenant.org, tenant.created_at, list(tenant.packages), tenant.suspended))
        cursor.execute(
            "INSERT INTO tenant_billing_lifecycle SELECT name, org, created_at FROM tenant ORDER BY created_at"
        )
        # each key's events alternate and end with enabled; they lie a hash of their key apart
        cursor.execute(
            """
            INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at)
            SELECT name, org, skill, CASE WHEN (%(events)s - number) %% 2 = 0 THEN 'enabled' ELSE 'disabled' END,
                   created_at + (number - 1) * ((hashtext(name || skill) & 65535) + 1) * %(day)s::interval
                   / 432 / %(events)s
            FROM tenant, unnest(skills) skill, generate_series(1, %(events)s) number
            ORDER BY 5, 1, 3
            """,
            {"events": events, "day": day},
        )
        recorded = cursor.rowcount
        # a tenth was suspended and resumed once; the suspended ones were suspended after that
        cursor.execute(
            """
            INSERT INTO tenant_suspension_events (tenant_name, zitadel_org_id, event_kind, occurred_at)
            SELECT name, org, kind, created_at + after * %(day)s::interval
            FROM tenant, (VALUES ('suspended', 10), ('resumed', 20), ('suspended', 30)) past (kind, after)
            WHERE CASE WHEN after < 30 THEN hashtext(name) %% 10 = 0 ELSE suspended END
            ORDER BY 4, 1
            """,
            {"day": day},
        )
        recorded += cursor.rowcount
    return recorded


def toggled(url: str, observed: Sequence[Observed], number: int, *, at: datetime) -> list[Observed]:
    """Turn a package on or off for the first so many tenants, and record it; return these tenants as they are then."""
    turned = [
        tenant._replace(
            packages=tuple(sorted({*tenant.packages} ^ {TOGGLED})),
            generation=(tenant.generation or 1) + 1,
            last_modified_at=at,
            packages_written_at=at,
        )
        for tenant in observed[:number]
    ]
    rows = [(one.name, one.org, TOGGLED, "enabled" if TOGGLED in one.packages else "disabled", at) for one in turned]
    with closing(connect(url)) as ledger:
        ledger.cursor().executemany(
            "INSERT INTO tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at) "
            "VALUES (%s, %s, %s, %s, %s)",
            rows,
        )
    return turned


def moved_on(observed: Sequence[Observed], *, percent: float, seed: int) -> list[Observed]:
    """Return the tenants after some of them changed and the portal's row about it was lost: one change each, ever."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    moved = list(observed)
    still = [index for index, tenant in enumerate(moved) if tenant.last_modified_at != MOVED]
    for index in draw.sample(still, round(len(moved) * percent / 100)):
        tenant = moved[index]
        lost = draw.choice(("enabled", "disabled", "suspension")) if tenant.packages else "enabled"
        if lost == "suspension":
            tenant = tenant._replace(suspended=not tenant.suspended, suspended_at=None, suspend_written_at=MOVED)
        elif lost == "enabled":
            tenant = tenant._replace(packages=tuple(sorted({*tenant.packages, f"new-{seed}"})))
        else:
            tenant = tenant._replace(packages=tenant.packages[1:])
        moved[index] = tenant._replace(
            generation=(tenant.generation or 1) + 1, last_modified_at=MOVED, packages_written_at=MOVED
        )
    return moved
