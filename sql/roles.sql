-- The role for runs and the role for people's decisions, with no more rights than they need. Run this as the owner of
-- the ledger, after `reconciler migrate` and again after a later version has migrated:
--
--     psql "$DATABASE_URL" -f sql/roles.sql
--     psql "$DATABASE_URL" -v role=billing_reconciler -v decider=billing_decider -f sql/roles.sql
--
-- The roles cannot log in. Grant each to the role that logs in (GRANT reconciler TO ...), or let it log in
-- (ALTER ROLE reconciler LOGIN, then \password reconciler): a password does not belong in a script. Give the people who
-- put the ledger right the second one, each under a login of their own: the ledger keeps who they were.
-- `reconciler migrate` needs more rights than either has: run it as the owner.

\set ON_ERROR_STOP on
\if :{?role}
\else
  \set role reconciler
\endif
\if :{?decider}
\else
  -- a name has 63 bytes at most
  SELECT left(:'role', 55) || '_decider' AS decider \gset
\endif

BEGIN;
SET LOCAL client_min_messages = warning;
-- Citus gives a role to the workers in one order, and rights on their tables in another; elsewhere it means nothing
SET LOCAL citus.multi_shard_modify_mode = sequential;

-- psql does not substitute variables in a DO block, hence \gexec
SELECT format('CREATE ROLE %I NOLOGIN', name) FROM unnest(ARRAY[:'role', :'decider']) AS name
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = name) \gexec

-- what is written is staged in a temporary table
GRANT CONNECT, TEMPORARY ON DATABASE :"DBNAME" TO :"role", :"decider";
GRANT USAGE ON SCHEMA public, reconciler TO :"role", :"decider";

-- events are only appended
GRANT SELECT, INSERT ON public.tenant_skill_events, public.tenant_suspension_events TO :"role", :"decider";
-- a sequence need not belong to its column: it is enough that the column's default depends on it
SELECT format('GRANT USAGE ON SEQUENCE %s TO %I, %I', d.objid::regclass, :'role', :'decider')
FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
WHERE d.refobjid IN ('public.tenant_skill_events'::regclass, 'public.tenant_suspension_events'::regclass)
UNION
SELECT format('GRANT USAGE ON SEQUENCE %s TO %I, %I', d.refobjid::regclass, :'role', :'decider')
FROM pg_catalog.pg_attrdef f
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = f.oid
JOIN pg_catalog.pg_class s ON d.refclassid = 'pg_catalog.pg_class'::regclass AND s.oid = d.refobjid AND s.relkind = 'S'
WHERE f.adrelid IN ('public.tenant_skill_events'::regclass, 'public.tenant_suspension_events'::regclass) \gexec

-- a run never moves created_at, a person may
GRANT SELECT, INSERT, UPDATE (deleted_at, zitadel_org_id) ON public.tenant_billing_lifecycle TO :"role", :"decider";
GRANT UPDATE (created_at) ON public.tenant_billing_lifecycle TO :"decider";

GRANT SELECT ON public.platform_pricing, public.skill_pricing, public.invoices TO :"role", :"decider";
GRANT SELECT ON public.invoice_lines TO :"decider";

-- a role that could rewrite the proof would prove nothing: of runs and corrections, a later run fills in what it was
-- notified of, or taken back by. Nor can a run decide in a person's name: it has no right to say who decided, and
-- without that no row passes but a run's own. REVOKE, because an earlier version of this script granted everything
REVOKE ALL ON ALL TABLES IN SCHEMA reconciler FROM :"role", :"decider";
REVOKE INSERT (by, role, note, decided_at, takes_back_event_id) ON reconciler.corrections FROM :"role";
GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO :"role", :"decider";
GRANT INSERT, UPDATE (notified) ON reconciler.runs TO :"role";
GRANT INSERT (
  run_id, reason, tenant_name, zitadel_org_id, subject, action, recorded, observed, occurred_at, not_before, not_after,
  evidence, event_table, event_id, supersedes_event_id, life_began_at, closed_period, impact_chf, impact_min_chf,
  impact_max_chf, uid, resource_version, decision) ON reconciler.corrections TO :"role";
GRANT INSERT, UPDATE ON reconciler.source, reconciler.tenants, reconciler.gaps, reconciler.totals TO :"role";
GRANT INSERT, UPDATE, DELETE ON reconciler.changes, reconciler.reports, reconciler.exceptions TO :"role";

GRANT INSERT ON reconciler.corrections, reconciler.closed_lives, reconciler.payers TO :"decider";
-- a trigger lets lines in with their closing alone
GRANT INSERT ON reconciler.closed_lines TO :"decider";
-- when and by whose role, the database says
GRANT INSERT (
  source, month, number, org, by, note, run_id, prices, accepted, total_chf, corrections_seen, skill_events_seen,
  suspension_events_seen) ON reconciler.closings TO :"decider";
GRANT USAGE ON SEQUENCE reconciler.corrections_id_seq TO :"decider";
GRANT INSERT, UPDATE ON reconciler.exceptions TO :"decider";
GRANT UPDATE (taken_back_at, taken_back_by) ON reconciler.corrections TO :"role", :"decider";

COMMIT;

-- Databases created before PostgreSQL 15 let everybody create tables in schema public. Revoking that could break the
-- portal, so this only warns.
SELECT has_schema_privilege(:'role', 'public', 'CREATE') AS may_create \gset
\if :may_create
  \warn 'warning: everybody may create tables in schema public; see REVOKE CREATE ON SCHEMA public FROM PUBLIC'
\endif
