"""Record and read the billing ledger from other programs, without writing SQL.

Every function takes a connection and works in its transaction. It never commits and never rolls back, so a portal can
record several changes, and rows of its own, together or not at all. What is idempotent stays so when two connections
do it at once. No state is kept in the session, and statements are prepared only if the connection is set to do so:
a transaction-pooling PgBouncer may stand between.

Times, as arguments and as results, are aware datetimes in UTC. Money is `Decimal`, in CHF before VAT.

Args:
    connection: what is read and written is part of its transaction.
    tenant: the name of the custom resource.
    org: the organisation that pays; None or empty means unknown, and is recorded and looked up as `unknown`.
    skill: its id in the custom resource.
    occurred_at: when it happened; None means when the transaction began, by the database's clock.
    instant: an event at exactly that instant counts.
    by: who decides.
    note: why.
    shown: what the cluster shows of the tenant, read just before. A decision needs it where it would change how a
        tenant or a skill is now: the cluster is right about that.
    dry_run: return what would be written and what that is worth, and write nothing.
    month: a UTC month, by its first day.
    settle: how long after a change the portal may still write its row, as the runs are told.

Raises:
    InvalidArgument: the ledger cannot hold an argument: an id is empty or not text, a time is naive or not in UTC, an
        amount is not a Decimal, is negative or has more digits than its column; a function says what else it refuses.
        Nothing was written, and the caller's transaction goes on.
    NotRecorded: the row that the call is about is missing. The transaction goes on as well.
    RowsHidden: a row-level security policy may hide rows from the connection's role: an answer could be wrong. The
        transaction goes on.
    ThroughWorker: on Citus a decision needs a connection to the coordinator.
    TimesAmbiguous: on Citus a time could be read as another one: the session's DateStyle is not ISO.
    ResultMissing: Citus lost a part of what a query reads.
    NotPutRight: a decision cannot be: it contradicts the cluster or the ledger, or changes nothing. Like all refusals
        of decisions it leaves the transaction as it was.
    ClusterNeeded: it is a NotPutRight: the decision would change how it is now, and `shown` is missing.
    UnknownTenant: a decision is about a tenant that the ledger does not know.
    DecisionDenied: the connection's role may not decide, see sql/roles.sql.
    NotDecided: the ledger does not show what was written, because a trigger or a rule changed it.
    NotVerified: a month cannot be closed: it is not proven to its end, or a tenant of it is not.
    PriceUncertain: a month cannot be closed: it is not known that a price held for all of it.
    UnknownName: a month cannot be closed: nobody knows an organisation, tenant or skill, or a fee or VAT rate is none.
    NotAPrice: a price in the ledger is NaN or infinite.
    NotClosed: a month has no such closing.
    IsolationTooStrict: a decision needs a transaction at read committed.
    psycopg.Error: psycopg's own errors pass through unchanged: a lost connection, a transaction that had failed
        before, a serialization failure at a stricter isolation level, a missing table.
"""

from reconciler.core.billing import LineChange
from reconciler.core.closing import Closing, Differences, PriceUncertain
from reconciler.core.decisions import NotPutRight, PutRight
from reconciler.core.model import Lifecycle
from reconciler.db.apply import NotDecided
from reconciler.db.certificate import NotVerified
from reconciler.db.citus import ResultMissing, ThroughWorker, TimesAmbiguous
from reconciler.db.closing import NotClosed, UnknownName
from reconciler.db.connection import IsolationTooStrict
from reconciler.db.decisions import DecisionDenied
from reconciler.db.explain import UnknownTenant
from reconciler.db.put_right import ClusterNeeded
from reconciler.db.usage import NotAPrice
from reconciler.ledger.calls import InvalidArgument, NotRecorded, RowsHidden
from reconciler.ledger.closing import close_month, month_changes, month_closing
from reconciler.ledger.decisions import (
    Shown,
    decide_lifetime,
    decide_payer,
    decide_skill,
    decide_suspension,
    reopen,
    retract,
)
from reconciler.ledger.settings import (
    OrgBilling,
    PlatformPrices,
    SkillPrice,
    change_org_billing,
    change_platform_prices,
    org_billing,
    platform_prices,
    remove_skill_price,
    set_skill_price,
    skill_price,
    skill_prices,
)
from reconciler.ledger.tenants import (
    SkillEvent,
    SuspensionEvent,
    lifecycle,
    lifecycles,
    record_creation,
    record_deletion,
    record_resumption,
    record_skills,
    record_suspension,
    skill_events,
    skill_state_at,
    suspension_events,
    suspension_state_at,
)

__all__ = [
    "Closing",
    "ClusterNeeded",
    "DecisionDenied",
    "Differences",
    "InvalidArgument",
    "IsolationTooStrict",
    "Lifecycle",
    "LineChange",
    "NotAPrice",
    "NotClosed",
    "NotDecided",
    "NotPutRight",
    "NotRecorded",
    "NotVerified",
    "OrgBilling",
    "PlatformPrices",
    "PriceUncertain",
    "PutRight",
    "ResultMissing",
    "RowsHidden",
    "Shown",
    "SkillEvent",
    "SkillPrice",
    "SuspensionEvent",
    "ThroughWorker",
    "TimesAmbiguous",
    "UnknownName",
    "UnknownTenant",
    "change_org_billing",
    "change_platform_prices",
    "close_month",
    "decide_lifetime",
    "decide_payer",
    "decide_skill",
    "decide_suspension",
    "lifecycle",
    "lifecycles",
    "month_changes",
    "month_closing",
    "org_billing",
    "platform_prices",
    "record_creation",
    "record_deletion",
    "record_resumption",
    "record_skills",
    "record_suspension",
    "remove_skill_price",
    "reopen",
    "retract",
    "set_skill_price",
    "skill_events",
    "skill_price",
    "skill_prices",
    "skill_state_at",
    "suspension_events",
    "suspension_state_at",
]
