-- The role for runs, with no more rights than they need. Run this as the owner of the ledger, after
-- `reconciler migrate` and again after a later version has migrated:
--
--     psql "$DATABASE_URL" -f sql/roles.sql
--     psql "$DATABASE_URL" -v role=billing_reconciler -f sql/roles.sql
--
-- The role cannot log in. Grant it to the role that the reconciler logs in as (GRANT reconciler TO ...), or let it log
-- in (ALTER ROLE reconciler LOGIN, then \password reconciler): a password does not belong in a script.
-- `reconciler migrate` and `reconciler reopen` need more rights than this role has: run them as the owner.

\set ON_ERROR_STOP on
\if :{?role}
\else
  \set role reconciler
\endif

BEGIN;
SET LOCAL client_min_messages = warning;

-- psql does not substitute variables in a DO block, hence \gexec
SELECT format('CREATE ROLE %I NOLOGIN', :'role')
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = :'role') \gexec

-- a run stages the observed tenants in a temporary table
GRANT CONNECT, TEMPORARY ON DATABASE :"DBNAME" TO :"role";
GRANT USAGE ON SCHEMA public, reconciler TO :"role";

-- events are only appended
GRANT SELECT, INSERT ON public.tenant_skill_events, public.tenant_suspension_events TO :"role";
-- a sequence need not belong to its column: it is enough that the column's default depends on it
SELECT format('GRANT USAGE ON SEQUENCE %s TO %I', d.objid::regclass, :'role')
FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
WHERE d.refobjid IN ('public.tenant_skill_events'::regclass, 'public.tenant_suspension_events'::regclass)
UNION
SELECT format('GRANT USAGE ON SEQUENCE %s TO %I', d.refobjid::regclass, :'role')
FROM pg_catalog.pg_attrdef f
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = f.oid
JOIN pg_catalog.pg_class s ON d.refclassid = 'pg_catalog.pg_class'::regclass AND s.oid = d.refobjid AND s.relkind = 'S'
WHERE f.adrelid IN ('public.tenant_skill_events'::regclass, 'public.tenant_suspension_events'::regclass) \gexec

-- created_at never changes
GRANT SELECT, INSERT, UPDATE (deleted_at, zitadel_org_id) ON public.tenant_billing_lifecycle TO :"role";

GRANT SELECT ON public.platform_pricing, public.skill_pricing, public.invoices TO :"role";

-- a role that could rewrite the proof would prove nothing: of runs and corrections, a later run fills in two columns.
-- REVOKE, because an earlier version of this script granted everything
REVOKE ALL ON ALL TABLES IN SCHEMA reconciler FROM :"role";
GRANT SELECT ON ALL TABLES IN SCHEMA reconciler TO :"role";
GRANT INSERT, UPDATE (notified) ON reconciler.runs TO :"role";
GRANT INSERT, UPDATE (taken_back_at, taken_back_by) ON reconciler.corrections TO :"role";
GRANT INSERT, UPDATE ON reconciler.source, reconciler.tenants, reconciler.gaps, reconciler.totals TO :"role";
GRANT INSERT, UPDATE, DELETE ON reconciler.changes, reconciler.reports, reconciler.exceptions TO :"role";

COMMIT;

-- Databases created before PostgreSQL 15 let everybody create tables in schema public. Revoking that could break the
-- portal, so this only warns.
SELECT has_schema_privilege(:'role', 'public', 'CREATE') AS may_create \gset
\if :may_create
  \warn 'warning: everybody may create tables in schema public; see REVOKE CREATE ON SCHEMA public FROM PUBLIC'
\endif
