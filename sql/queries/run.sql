-- The queries of a run. Parameters are psycopg's %(name)s. Tables are qualified by their schema, so that they do not
-- depend on search_path; functions are not, since `limits` puts PostgreSQL's own first.

-- name: limits
-- What every transaction relies on, whatever the server, the database or the role has set; the server's encoding; and
-- whether this is Citus.
-- Set in every transaction, not on the connection: a pooler may give each transaction another server process.
SELECT pg_catalog.current_setting('server_encoding'),
       pg_catalog.to_regclass('pg_catalog.pg_dist_local_group') IS NOT NULL,
       pg_catalog.set_config('lock_timeout', %(lock_timeout)s, true),
       pg_catalog.set_config('statement_timeout', %(statement_timeout)s, true),
       pg_catalog.set_config('idle_in_transaction_session_timeout', %(idle_in_transaction_session_timeout)s, true),
       -- from PostgreSQL 17 on
       CASE WHEN pg_catalog.current_setting('transaction_timeout', true) IS NOT NULL
            THEN pg_catalog.set_config('transaction_timeout', '0', true) END,
       -- PostgreSQL's own functions before any other, and our temporary tables; then what the ledger's triggers may need
       pg_catalog.set_config(
         'search_path',
         pg_catalog.concat_ws(', ', 'pg_catalog, pg_temp', nullif(pg_catalog.current_setting('search_path'), '')), true),
       -- an error in place of rows that a policy hides
       pg_catalog.set_config('row_security', 'off', true),
       pg_catalog.set_config('client_encoding', 'UTF8', true),
       pg_catalog.set_config('timezone', 'UTC', true),
       -- what text means, on the way in and on the way out
       pg_catalog.set_config('datestyle', 'ISO, YMD', true),
       pg_catalog.set_config('intervalstyle', 'postgres', true),
       pg_catalog.set_config('standard_conforming_strings', 'on', true),
       pg_catalog.set_config('array_nulls', 'on', true),
       -- a temporary table that can be changed and indexed
       pg_catalog.set_config('default_table_access_method', 'heap', true),
       pg_catalog.set_config('jit', 'off', true),
       -- all rows of a cursor are read
       pg_catalog.set_config('cursor_tuple_fraction', '1', true),
       -- large enough to hash both sides of the comparison in memory
       pg_catalog.set_config('work_mem', '64MB', true)

-- name: is_citus
-- A row if it is.
SELECT true WHERE pg_catalog.to_regclass('pg_catalog.pg_dist_local_group') IS NOT NULL

-- name: citus
-- Whether this server is a worker. What is SET in this transaction holds on the workers too, and no warning is hidden.
SELECT groupid <> 0, pg_catalog.set_config('citus.propagate_set_commands', 'local', true),
       pg_catalog.set_config('client_min_messages', 'notice', true)
FROM pg_catalog.pg_dist_local_group

-- name: limits_before
-- What `limits` changes, as it is: a transaction that is another program's goes on with that.
SELECT name, pg_catalog.current_setting(name, true)
FROM pg_catalog.unnest(ARRAY[
  'lock_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout', 'search_path',
  'row_security', 'timezone', 'datestyle', 'intervalstyle', 'standard_conforming_strings', 'array_nulls',
  'default_table_access_method', 'jit', 'cursor_tuple_fraction', 'work_mem', 'client_encoding', 'client_min_messages',
  'citus.propagate_set_commands']) AS name
WHERE pg_catalog.current_setting(name, true) IS NOT NULL

-- name: set_limits
SELECT pg_catalog.set_config(name, value, true)
FROM unnest(%(names)s::text[], %(values)s::text[]) AS given (name, value)

-- name: isolation
SELECT pg_catalog.current_setting('transaction_isolation')

-- name: clock
-- The database's clock, by which every observation is dated.
SELECT clock_timestamp()

-- name: stage
-- The listed tenants, for this transaction only: one row for each custom resource. What is compared with the ledger has
-- a column of its own; everything else that was read of the resource is in detail.
CREATE TEMPORARY TABLE staged (
  tenant_name text NOT NULL,
  namespace text NOT NULL,
  uid text,
  org text,
  is_live boolean,            -- null: unreadable; false: being deleted
  packages text[] NOT NULL,   -- sorted by code point
  suspended boolean NOT NULL,
  youngest timestamptz,       -- of its creation and deletion
  resource_version text,
  detail text NOT NULL
) ON COMMIT DROP

-- name: copy
COPY staged FROM STDIN

-- name: repeated
-- A resource that is listed twice: the list is not complete then, whatever else it is.
SELECT namespace, tenant_name FROM staged GROUP BY namespace, tenant_name HAVING count(*) > 1
UNION ALL
SELECT min(namespace), min(tenant_name) FROM staged WHERE uid IS NOT NULL GROUP BY uid HAVING count(*) > 1
LIMIT 1

-- name: take_ambiguous
-- A name in two namespaces: the ledger identifies tenants by name alone, so neither can be read.
DELETE FROM staged
WHERE tenant_name IN (SELECT tenant_name FROM staged GROUP BY tenant_name HAVING count(*) > 1)
RETURNING tenant_name, namespace

-- name: counts
-- How many tenants were listed and are recorded as open, where that is not known already; whether the ledger is empty; the clock; the name at which the
-- recorded events halve, by the server's statistics, or the lowest name if there are none; and whether any listed name
-- or uid appears twice.
SELECT observed.number, recorded.open, recorded.none, now(),
       coalesce((
         SELECT (histogram_bounds::text::text[])[cardinality(histogram_bounds::text::text[]) / 2 + 1]
         FROM pg_catalog.pg_stats
         WHERE schemaname = 'public' AND tablename = 'tenant_skill_events' AND attname = 'tenant_name' AND NOT inherited
       ), ''),
       observed.any_twice
FROM (
  -- any collation finds duplicates, and that of bytes is the fastest
  SELECT coalesce(%(observed)s::bigint, count(*)) AS number,
         count(DISTINCT tenant_name COLLATE "C") < count(*) OR count(DISTINCT uid COLLATE "C") < count(uid) AS any_twice
  FROM staged
) observed, (
  SELECT coalesce(%(recorded)s::bigint, count(*) FILTER (WHERE deleted_at IS NULL)) AS open,
         count(*) = 0 AND %(recorded)s::bigint IS NULL AS none
  FROM public.tenant_billing_lifecycle WHERE %(recorded)s::bigint IS NULL
) recorded

-- name: find_candidates
-- The tenants that could differ from the ledger: what was listed beside what is recorded.
--
-- A tenant is left out only if it is plainly true: live, recorded as open and paid today by the same organisation, with
-- the same skills on and the same suspension, created when the row says and not under another uid since; or gone, recorded as
-- deleted, with no skill on; and no time after now. If the condition is null, the tenant comes back.
--
-- Of a candidate with more than a thousand skills come those that a run has to decide about, and of no candidate more
-- than one more than `max_skills`.
--
-- The times in the JSON of skills are clamped to the years that a Python datetime can hold; the connection does it for
-- the columns. PostgreSQL's infinity becomes the last of them, which is after now too.
WITH skills AS (
  -- PostgreSQL does not run DISTINCT ON in parallel, but it can run two halves at once. The columns are in the order of
  -- the index, so that rows are passed on as they are read.
  SELECT tenant_name, array_agg(skill_id) FILTER (WHERE event_kind = 'enabled') AS enabled,
         min(occurred_at) AS first_at, max(occurred_at) AS last_at
  FROM (
    SELECT DISTINCT ON (tenant_name, skill_id) tenant_name, skill_id, occurred_at, id, event_kind
    FROM public.tenant_skill_events
    WHERE tenant_name < %(middle)s AND (%(names)s::text[] IS NULL OR tenant_name = ANY (%(names)s::text[]))
          AND id <> ALL (%(left_out_skills)s::bigint[])
    ORDER BY tenant_name, skill_id, occurred_at DESC, id DESC
  ) latest GROUP BY tenant_name
  UNION ALL
  SELECT tenant_name, array_agg(skill_id) FILTER (WHERE event_kind = 'enabled'), min(occurred_at), max(occurred_at)
  FROM (
    SELECT DISTINCT ON (tenant_name, skill_id) tenant_name, skill_id, occurred_at, id, event_kind
    FROM public.tenant_skill_events
    WHERE tenant_name >= %(middle)s AND (%(names)s::text[] IS NULL OR tenant_name = ANY (%(names)s::text[]))
          AND id <> ALL (%(left_out_skills)s::bigint[])
    ORDER BY tenant_name, skill_id, occurred_at DESC, id DESC
  ) latest GROUP BY tenant_name
), suspension AS (
  SELECT DISTINCT ON (tenant_name) tenant_name, event_kind, occurred_at, id
  FROM public.tenant_suspension_events
  WHERE (%(names)s::text[] IS NULL OR tenant_name = ANY (%(names)s::text[]))
        AND id <> ALL (%(left_out_suspensions)s::bigint[])
  ORDER BY tenant_name, occurred_at DESC, id DESC
), lifecycle AS (
  SELECT * FROM public.tenant_billing_lifecycle
  WHERE %(names)s::text[] IS NULL OR tenant_name = ANY (%(names)s::text[])
), resource AS (
  SELECT * FROM staged
  WHERE %(names)s::text[] IS NULL OR tenant_name = ANY (%(names)s::text[])
), renewed AS (
  -- the uids of names that had another uid before, and whether a person took them for the same tenant
  SELECT uid, continues OR uid = ANY (%(continuing)s::text[]) AS continues FROM reconciler.tenants
  WHERE source = %(source)s AND follows IS NOT NULL AND uid <> ALL (%(following)s::text[])
  UNION ALL
  SELECT uid, uid = ANY (%(continuing)s::text[]) FROM unnest(%(following)s::text[]) AS uid
), paid AS (
  -- who pays today, where that need not be the organisation of the row
  SELECT tenant_name, org FROM reconciler.paid_days
  WHERE from_day <= (now() AT TIME ZONE 'UTC')::date AND until_day > (now() AT TIME ZONE 'UTC')::date
), differs AS (
  SELECT coalesce(o.tenant_name, l.tenant_name, s.tenant_name, u.tenant_name) AS tenant_name,
         o.namespace, o.uid, o.org, o.packages, o.suspended, o.resource_version, o.detail,
         r.continues IS TRUE AS continues,
         r.continues IS FALSE AS follows,
         l.zitadel_org_id, l.created_at, l.deleted_at, p.org AS payer,
         s.tenant_name IS NOT NULL AS has_skill_events,
         u.id AS suspension_id, u.event_kind AS suspension_kind, u.occurred_at AS suspension_occurred_at
  FROM resource o
  FULL JOIN lifecycle l ON l.tenant_name = o.tenant_name
  FULL JOIN skills s ON s.tenant_name = coalesce(o.tenant_name, l.tenant_name)
  FULL JOIN suspension u ON u.tenant_name = coalesce(o.tenant_name, l.tenant_name, s.tenant_name)
  LEFT JOIN renewed r ON r.uid = o.uid
  LEFT JOIN paid p ON p.tenant_name = l.tenant_name
  WHERE %(everyone)s OR (
    CASE WHEN o.is_live
         THEN l.tenant_name IS NOT NULL AND l.deleted_at IS NULL
              AND coalesce(p.org, l.zitadel_org_id) = o.org AND l.zitadel_org_id <> 'unknown'
              AND (r.uid IS NULL AND l.created_at BETWEEN o.youngest - %(settle)s::interval
                                                      AND o.youngest + %(settle)s::interval
                   OR r.continues AND l.created_at <= o.youngest + %(settle)s::interval
                   OR l.created_at = o.youngest)
              AND (u.event_kind IS NOT DISTINCT FROM 'suspended') = o.suspended
              -- both are usually sorted by code point; if not, compare them as sets
              AND (coalesce(s.enabled, '{}') = o.packages
                   OR (coalesce(s.enabled, '{}') @> o.packages AND coalesce(s.enabled, '{}') <@ o.packages))
         WHEN NOT o.is_live OR o.tenant_name IS NULL
         THEN l.deleted_at IS NOT NULL AND s.enabled IS NULL
    END
    AND (o.youngest IS NULL OR o.youngest <= now())
    AND (s.tenant_name IS NULL OR (s.first_at > %(first)s AND s.last_at <= now()))
    AND (u.tenant_name IS NULL OR (u.occurred_at > %(first)s AND u.occurred_at <= now()))
  ) IS NOT TRUE
)
SELECT tenant_name, namespace, uid, org, packages, suspended, resource_version, detail, zitadel_org_id,
       created_at, deleted_at, payer, follows, continues,
       --[ postgresql
       CASE WHEN has_skill_events THEN (
         SELECT json_object_agg(
           skill_id, json_build_array(id, event_kind, least(greatest(occurred_at, %(first)s), %(last)s)))
         FROM (
           SELECT skill_id, id, event_kind, occurred_at
           FROM (
             SELECT *, row_number() OVER (ORDER BY is_recent, occurred_at DESC) AS place
             FROM (
               SELECT DISTINCT ON (skill_id) skill_id, id, event_kind, occurred_at,
                      occurred_at > now() - %(settle)s::interval - interval '1 day' AS is_recent
               FROM public.tenant_skill_events e
               WHERE e.tenant_name = d.tenant_name AND e.id <> ALL (%(left_out_skills)s::bigint[])
               ORDER BY skill_id, occurred_at DESC, id DESC
             ) latest
           ) ranked
           -- of skills that are off and not listed, only the last one counts: the tenant was not gone before it. Recent
           -- ones come too, because a run looks for the last one before it began to observe
           WHERE place <= 1000 OR event_kind = 'enabled' OR skill_id = ANY (d.packages) OR is_recent
                 OR occurred_at <= %(first)s
           LIMIT %(max_skills)s + 1
         ) counting
       )::text END,
       --[ citus
       -- see `skills_of_candidates`
       NULL,
       --]
       suspension_id, suspension_kind, suspension_occurred_at,
       -- up to when the tenant is proved: rows of changes younger than settle may still have been on their way when
       -- that run found it true. Of one that has not changed only a list of all shows that its rows have not either.
       -- No run has proved it since its oldest open report, so only earlier runs are searched, and no more of them than
       -- come in a month
       (SELECT r.observed_at - greatest(r.settle, %(settle)s::interval) FROM (
          SELECT observed_at, settle, unverified FROM reconciler.proving_runs
          WHERE (compared = 'all' OR NOT EXISTS (
                   SELECT FROM reconciler.tenants t
                   WHERE t.source = %(source)s AND t.uid = d.uid AND t.resource_version = d.resource_version))
                AND observed_at <= coalesce(
                  (SELECT min(since) FROM reconciler.reports p WHERE p.tenant_name = d.tenant_name), 'infinity')
          ORDER BY observed_at DESC LIMIT 50000) r
        WHERE d.tenant_name <> ALL (r.unverified)
        ORDER BY r.observed_at DESC LIMIT 1),
       EXISTS (SELECT FROM reconciler.corrections c
               WHERE c.tenant_name = d.tenant_name AND c.event_table = 'tenant_billing_lifecycle'
                     AND c.evidence = 'decided' AND c.life_began_at = d.created_at AND c.uid = d.uid)
FROM differs d
ORDER BY tenant_name COLLATE "C"

-- name: skills_of_candidates
-- On Citus, of these candidates: what `find_candidates` returns of each one's skills. Their packages are arrays in JSON,
-- since arrays of arrays are rectangular.
WITH candidate AS MATERIALIZED (
  SELECT name, ARRAY(SELECT jsonb_array_elements_text(packages)) AS packages
  FROM unnest(%(names)s::text[], %(packages)s::jsonb[]) AS candidate (name, packages)
), counting AS (
  SELECT tenant_name, skill_id, id, event_kind, occurred_at,
         row_number() OVER (PARTITION BY tenant_name ORDER BY place) AS number
  FROM (
    SELECT *, row_number() OVER (PARTITION BY tenant_name ORDER BY is_recent, occurred_at DESC, skill_id) AS place
    FROM (
      SELECT DISTINCT ON (tenant_name, skill_id) tenant_name, skill_id, id, event_kind, occurred_at,
             occurred_at > %(as_of)s - %(settle)s::interval - interval '1 day' AS is_recent
      FROM public.tenant_skill_events
      WHERE tenant_name = ANY (%(names)s::text[]) AND id <> ALL (%(left_out_skills)s::bigint[])
      ORDER BY tenant_name, skill_id, occurred_at DESC, id DESC
    ) latest
  ) ranked JOIN candidate ON name = tenant_name
  WHERE place <= 1000 OR event_kind = 'enabled' OR skill_id = ANY (packages) OR is_recent
        OR occurred_at <= %(first)s
)
SELECT tenant_name, json_object_agg(
         skill_id, json_build_array(id, event_kind, least(greatest(occurred_at, %(first)s), %(last)s))
         ORDER BY number)::text
FROM counting WHERE number <= %(max_skills)s + 1 GROUP BY tenant_name

-- name: set_aside
-- Of these tenants the ids of the events that were taken back, and of those that took them back: of skills, and of
-- suspensions.
SELECT coalesce(array_agg(id) FILTER (WHERE event_table = 'tenant_skill_events'), '{}'),
       coalesce(array_agg(id) FILTER (WHERE event_table = 'tenant_suspension_events'), '{}')
FROM (
  SELECT event_table, event_id AS id FROM reconciler.corrections
  WHERE tenant_name = ANY (%(names)s::text[]) AND event_id IS NOT NULL
        AND (taken_back_at IS NOT NULL OR reason IN ('retracted', 'correction_superseded'))
  UNION ALL
  SELECT event_table, takes_back_event_id FROM reconciler.corrections
  WHERE tenant_name = ANY (%(names)s::text[]) AND takes_back_event_id IS NOT NULL
) aside

-- name: with_other_events
-- Which of these tenants have other events than these.
SELECT DISTINCT tenant_name FROM public.tenant_skill_events
WHERE tenant_name = ANY (%(names)s::text[]) AND id <> ALL (%(skills)s::bigint[])
UNION
SELECT tenant_name FROM public.tenant_suspension_events
WHERE tenant_name = ANY (%(names)s::text[]) AND id <> ALL (%(suspensions)s::bigint[])

-- name: left_out
-- The ids of the events that count nowhere: those of skills, and those of suspensions. They are asked for first, since a
-- subquery would keep PostgreSQL 14 from reading in parallel.
SELECT coalesce(array_agg(event_id) FILTER (WHERE event_table = 'tenant_skill_events'), '{}'),
       coalesce(array_agg(event_id) FILTER (WHERE event_table = 'tenant_suspension_events'), '{}')
FROM reconciler.left_out

-- name: source
-- The source that this ledger belongs to, the resourceVersion of its last list, and what is remembered of it.
SELECT identity, resource_version, position, position_at, whole_at FROM reconciler.source

-- name: all_listed_at
-- When the run began that listed all tenants of the source last.
SELECT observed_at FROM reconciler.proving_runs r JOIN reconciler.source s ON s.identity = r.source
WHERE compared = 'all' ORDER BY observed_at DESC LIMIT 1

-- name: last_list_of_all
-- What a run starts from that compares only what has changed since all tenants were listed. No row where it must list all
-- of them: that was too long ago, or by another version; no tenant was open; the last run was stopped, so that what it
-- found is written nowhere; or two runs overlapped, so that neither saw what the other found.
SELECT whole.tenants_recorded, last.unverified
FROM reconciler.source s, (
  SELECT id, started_at, outcome, mode, source, unverified FROM reconciler.runs
  ORDER BY started_at DESC LIMIT 1
) last, (
  SELECT observed_at, source, version, tenants_recorded FROM reconciler.proving_runs WHERE compared = 'all'
  ORDER BY observed_at DESC LIMIT 1
) whole
WHERE s.position IS NOT NULL AND (last.source, whole.source) = (s.identity, s.identity)
      AND whole.observed_at > now() - %(within)s::interval AND whole.version = %(version)s AND whole.tenants_recorded > 0
      AND last.started_at <= now() AND last.mode = 'run' AND last.outcome IN ('clean', 'corrected', 'drift')
      AND NOT EXISTS (SELECT FROM reconciler.runs r
                      WHERE r.started_at BETWEEN whole.observed_at - interval '1 day' AND last.started_at
                            AND r.id <> last.id AND r.finished_at > last.started_at)

-- name: remembered_versions
-- These names, each with the version of its tenant that is remembered, if it has one and that could be read.
SELECT name, max(t.resource_version)
FROM unnest(%(names)s::text[]) AS name
LEFT JOIN reconciler.tenants t
       ON t.tenant_name = name AND t.source = (SELECT identity FROM reconciler.source)
          AND t.gone_at IS NULL AND t.is_current
GROUP BY name

-- name: reported_tenants
SELECT DISTINCT tenant_name FROM reconciler.reports WHERE tenant_name <> ''

-- name: missing_privileges
-- What a run needs of sql/roles.sql and this role lacks, worded as in GRANT.
SELECT concat(privilege, ' (' || "column" || ')', ' ON ', name)
FROM (VALUES
  ('public.tenant_billing_lifecycle', 'SELECT', NULL), ('public.tenant_billing_lifecycle', 'INSERT', NULL),
  ('public.tenant_billing_lifecycle', 'UPDATE', 'deleted_at'),
  ('public.tenant_billing_lifecycle', 'UPDATE', 'zitadel_org_id'),
  ('public.tenant_skill_events', 'SELECT', NULL), ('public.tenant_skill_events', 'INSERT', NULL),
  ('public.tenant_suspension_events', 'SELECT', NULL), ('public.tenant_suspension_events', 'INSERT', NULL),
  ('public.platform_pricing', 'SELECT', NULL), ('public.skill_pricing', 'SELECT', NULL),
  ('public.invoices', 'SELECT', NULL),
  ('reconciler.runs', 'SELECT', NULL), ('reconciler.runs', 'INSERT', NULL), ('reconciler.runs', 'UPDATE', 'notified'),
  ('reconciler.proving_runs', 'SELECT', NULL), ('reconciler.last_runs', 'SELECT', NULL),
  ('reconciler.corrections', 'SELECT', NULL), ('reconciler.corrections', 'INSERT', 'run_id'),
  ('reconciler.corrections', 'UPDATE', 'taken_back_at'), ('reconciler.corrections', 'UPDATE', 'taken_back_by'),
  ('reconciler.source', 'SELECT', NULL), ('reconciler.source', 'INSERT', NULL), ('reconciler.source', 'UPDATE', NULL),
  ('reconciler.tenants', 'SELECT', NULL), ('reconciler.tenants', 'INSERT', NULL),
  ('reconciler.tenants', 'UPDATE', NULL),
  ('reconciler.changes', 'SELECT', NULL), ('reconciler.changes', 'INSERT', NULL),
  ('reconciler.changes', 'UPDATE', NULL), ('reconciler.changes', 'DELETE', NULL),
  ('reconciler.gaps', 'SELECT', NULL), ('reconciler.gaps', 'INSERT', NULL), ('reconciler.gaps', 'UPDATE', NULL),
  ('reconciler.totals', 'SELECT', NULL), ('reconciler.totals', 'INSERT', NULL), ('reconciler.totals', 'UPDATE', NULL),
  ('reconciler.reports', 'SELECT', NULL), ('reconciler.reports', 'INSERT', NULL),
  ('reconciler.reports', 'UPDATE', NULL), ('reconciler.reports', 'DELETE', NULL),
  ('reconciler.exceptions', 'SELECT', NULL), ('reconciler.closed_lives', 'SELECT', NULL),
  ('reconciler.earlier_lifetimes', 'SELECT', NULL),
  ('reconciler.left_out', 'SELECT', NULL),
  ('reconciler.payers', 'SELECT', NULL), ('reconciler.paid_days', 'SELECT', NULL),
  ('reconciler.closings', 'SELECT', NULL), ('reconciler.closed_lines', 'SELECT', NULL),
  ('reconciler.kept_prices', 'SELECT', NULL), ('reconciler.closed_months', 'SELECT', NULL)
) AS needed (name, privilege, "column")
WHERE NOT CASE WHEN privilege = 'SELECT' THEN has_any_column_privilege(name, privilege)
               WHEN "column" IS NULL THEN has_table_privilege(name, privilege)
               ELSE has_column_privilege(name, "column", privilege) END
UNION ALL
SELECT 'USAGE ON SEQUENCE ' || sequence FROM unnest(%(sequences)s::text[]) AS sequence
WHERE NOT has_sequence_privilege(sequence, 'USAGE')
UNION ALL
SELECT 'TEMPORARY ON DATABASE ' || quote_ident(current_database())
WHERE NOT has_database_privilege(current_database(), 'TEMPORARY')

-- name: invoiced_periods
-- The periods that were invoiced to these organisations.
SELECT zitadel_org_id, period_start, period_end FROM public.invoices
WHERE zitadel_org_id = ANY (%(orgs)s::text[]) AND status NOT IN ('draft', 'void')

-- name: changing
-- Which tenants kept changing in each run before this one, the latest first.
SELECT observed_at, changing FROM reconciler.proving_runs
WHERE observed_at < %(as_of)s
ORDER BY observed_at DESC LIMIT %(max_runs)s

-- name: accepted
-- The reports that people accept for now.
SELECT tenant_name, reason, expires_at FROM reconciler.exceptions WHERE expires_at > now()

-- name: lock
-- One run writes at a time. The statements after this one see everything that an earlier run has written.
SELECT pg_advisory_xact_lock(7234897103)

-- name: try_lock
-- The same lock, if no other run holds it.
SELECT pg_try_advisory_xact_lock(7234897103)

-- name: decision_number
-- The number of a decision, among those of the corrections.
SELECT nextval(pg_get_serial_sequence('reconciler.corrections', 'id'))

-- name: plan_table
-- The plan's corrections, for this transaction only.
CREATE TEMPORARY TABLE planned (
  reason text NOT NULL,
  tenant_name text NOT NULL,
  zitadel_org_id text NOT NULL,
  subject text,
  action text NOT NULL,
  recorded text,
  observed text NOT NULL,
  occurred_at timestamptz,
  not_before timestamptz,
  not_after timestamptz,
  evidence text,
  closed_period boolean NOT NULL,
  -- unlimited, so that an amount too large is refused where it is written, as the fault of its tenant
  impact_chf numeric,
  impact_min_chf numeric,
  impact_max_chf numeric,
  event_table text NOT NULL,
  event_kind text,
  supersedes_event_id bigint,
  row_state text NOT NULL,    -- absent, open, deleted; any: it does not matter
  newest_event_id bigint,     -- of the key, where an event in its past is written; 0: it has none
  uid text,
  resource_version text,      -- that showed the change
  decision bigint,            -- the number that it belongs to
  takes_back_event_id bigint,
  event_id bigint,
  life_began_at timestamptz
) ON COMMIT DROP

-- name: copy_plan
COPY planned (
  reason, tenant_name, zitadel_org_id, subject, action, recorded, observed, occurred_at, not_before, not_after, evidence,
  closed_period, impact_chf, impact_min_chf, impact_max_chf, event_table, event_kind, supersedes_event_id, row_state,
  newest_event_id, uid, resource_version, decision, takes_back_event_id, event_id)
FROM STDIN

-- name: count_plan
-- PostgreSQL knows nothing of a table that was only just filled.
ANALYZE planned

-- name: empty_plan
TRUNCATE planned

-- name: drop_plan
-- A transaction may hold several decisions.
DROP TABLE pg_temp.planned

-- name: copy_near
-- On Citus: the events that the planned rows are about. Those of the planned tenants, and those that have one of the
-- planned ids, whosever they are.
DROP TABLE IF EXISTS pg_temp.near_skill_events, pg_temp.near_suspension_events;
CREATE TEMPORARY TABLE near_skill_events ON COMMIT DROP AS
SELECT * FROM public.tenant_skill_events WHERE tenant_name IN (SELECT tenant_name FROM planned)
UNION
SELECT * FROM public.tenant_skill_events WHERE id IN (SELECT event_id FROM planned WHERE event_id IS NOT NULL);
CREATE TEMPORARY TABLE near_suspension_events ON COMMIT DROP AS
SELECT * FROM public.tenant_suspension_events WHERE tenant_name IN (SELECT tenant_name FROM planned)
UNION
SELECT * FROM public.tenant_suspension_events WHERE id IN (SELECT event_id FROM planned WHERE event_id IS NOT NULL);
CREATE INDEX ON pg_temp.near_skill_events (tenant_name, skill_id, occurred_at DESC, id DESC);
CREATE INDEX ON pg_temp.near_suspension_events (tenant_name, occurred_at DESC, id DESC);
CREATE INDEX ON pg_temp.near_skill_events (id);
CREATE INDEX ON pg_temp.near_suspension_events (id);
ANALYZE pg_temp.near_skill_events, pg_temp.near_suspension_events

-- name: drop_stale
-- Remove the tenants whose record has changed since the plan was built, or is being changed, and return them.
WITH free AS (
  -- a row that another session holds must not hold up all the others
  SELECT tenant_name FROM public.tenant_billing_lifecycle
  WHERE tenant_name IN (SELECT tenant_name FROM planned WHERE action IN ('stamp', 'update'))
  FOR NO KEY UPDATE SKIP LOCKED
), past AS (
  SELECT DISTINCT event_table, tenant_name, coalesce(subject, '') AS subject FROM planned
  WHERE newest_event_id IS NOT NULL
), newest AS (
  SELECT event_table, tenant_name, subject, max(e.id) AS id
  FROM past JOIN public.tenant_skill_events e USING (tenant_name)
  WHERE event_table = 'tenant_skill_events' AND e.skill_id = subject GROUP BY 1, 2, 3
  UNION ALL
  SELECT event_table, tenant_name, subject, max(e.id)
  FROM past JOIN public.tenant_suspension_events e USING (tenant_name)
  WHERE event_table = 'tenant_suspension_events' GROUP BY 1, 2, 3
), checked AS (
  SELECT p.tenant_name,
         p.row_state NOT IN ('any', CASE WHEN l.tenant_name IS NULL THEN 'absent'
                                         WHEN l.deleted_at IS NULL THEN 'open'
                                         ELSE 'deleted' END)
         -- reopened meanwhile: it was planned for the lifetime before
         OR (p.row_state = 'open' AND p.occurred_at < l.created_at
             AND EXISTS (SELECT FROM reconciler.closed_lives c WHERE c.tenant_name = p.tenant_name))
         OR (p.action IN ('stamp', 'update') AND p.row_state <> 'absent'
             AND p.tenant_name NOT IN (SELECT tenant_name FROM free))
         OR (p.action = 'update' AND l.zitadel_org_id <> 'unknown')
         OR (p.event_table = 'tenant_skill_events' AND p.newest_event_id IS NULL
             AND p.supersedes_event_id IS DISTINCT FROM (
               SELECT e.id FROM public.tenant_skill_events e
               WHERE e.tenant_name = p.tenant_name AND e.skill_id = p.subject
                     AND e.id <> ALL (ARRAY(SELECT event_id FROM reconciler.left_out WHERE event_table = 'tenant_skill_events'))
               ORDER BY e.occurred_at DESC, e.id DESC LIMIT 1))
         OR (p.event_table = 'tenant_suspension_events' AND p.newest_event_id IS NULL
             AND p.supersedes_event_id IS DISTINCT FROM (
               SELECT e.id FROM public.tenant_suspension_events e
               WHERE e.tenant_name = p.tenant_name
                     AND e.id <> ALL (ARRAY(SELECT event_id FROM reconciler.left_out WHERE event_table = 'tenant_suspension_events'))
               ORDER BY e.occurred_at DESC, e.id DESC LIMIT 1))
         OR p.newest_event_id <> coalesce(n.id, 0)
         -- the correction that it takes back was taken back meanwhile
         OR (p.newest_event_id IS NOT NULL AND p.resource_version IS NULL AND p.decision IS NULL AND NOT EXISTS (
               SELECT FROM reconciler.corrections c
               WHERE c.tenant_name = p.tenant_name AND c.event_table = p.event_table
                     AND c.event_id = p.supersedes_event_id AND c.taken_back_at IS NULL)) AS is_stale
  FROM planned p
  LEFT JOIN public.tenant_billing_lifecycle l ON l.tenant_name = p.tenant_name
  LEFT JOIN newest n
         ON n.event_table = p.event_table AND n.tenant_name = p.tenant_name AND n.subject = coalesce(p.subject, '')
)
DELETE FROM planned USING (SELECT DISTINCT tenant_name FROM checked WHERE is_stale) stale
WHERE planned.tenant_name = stale.tenant_name
RETURNING planned.tenant_name

-- name: insert_lifecycles
INSERT INTO public.tenant_billing_lifecycle (tenant_name, zitadel_org_id, created_at)
SELECT tenant_name, zitadel_org_id, occurred_at FROM planned WHERE action = 'insert'
ON CONFLICT (tenant_name) DO NOTHING

-- name: stamp_deletions
UPDATE public.tenant_billing_lifecycle l SET deleted_at = p.occurred_at
FROM planned p
WHERE p.action = 'stamp' AND l.tenant_name = p.tenant_name AND l.deleted_at IS NULL

-- name: resolve_orgs
UPDATE public.tenant_billing_lifecycle l SET zitadel_org_id = p.zitadel_org_id
FROM planned p
WHERE p.action = 'update' AND l.tenant_name = p.tenant_name AND l.zitadel_org_id = 'unknown'

-- name: event_sequences
-- What the ids of each event table are drawn from before they are written. A sequence need not belong to its column.
SELECT name, coalesce(pg_get_serial_sequence('public.' || name, 'id'), (
         SELECT d.refobjid::regclass::text
         FROM pg_catalog.pg_attribute a
         JOIN pg_catalog.pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
         JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = f.oid
         JOIN pg_catalog.pg_class s ON d.refclassid = 'pg_catalog.pg_class'::regclass AND s.oid = d.refobjid
         WHERE a.attrelid = ('public.' || name)::regclass AND a.attname = 'id' AND s.relkind = 'S'))
FROM unnest(ARRAY['tenant_skill_events', 'tenant_suspension_events']) AS events (name)

-- name: draw_ids
SELECT nextval(%(sequence)s::regclass) FROM generate_series(1, %(number)s)

-- name: note_beginnings
-- Keep when the lifetimes began whose rows are about to be written.
UPDATE planned p SET life_began_at = coalesce(l.created_at, i.occurred_at)
FROM (SELECT DISTINCT tenant_name FROM planned WHERE event_table = 'tenant_billing_lifecycle') lives
LEFT JOIN public.tenant_billing_lifecycle l USING (tenant_name)
LEFT JOIN planned i ON i.tenant_name = lives.tenant_name AND i.action = 'insert'
WHERE p.event_table = 'tenant_billing_lifecycle' AND p.tenant_name = lives.tenant_name

-- name: ids_in_use
-- The first id of an event that cannot be written: it is in use already, or none was drawn.
SELECT p.event_table, p.event_id FROM planned p
WHERE p.event_kind IS NOT NULL
  AND (p.event_id IS NULL
       OR p.event_table = 'tenant_skill_events'
          AND EXISTS (SELECT FROM public.tenant_skill_events e WHERE e.id = p.event_id)
       OR p.event_table = 'tenant_suspension_events'
          AND EXISTS (SELECT FROM public.tenant_suspension_events e WHERE e.id = p.event_id))
ORDER BY p.event_id NULLS FIRST LIMIT 1

-- name: deferred_constraints
-- The constraints of what a run writes that would otherwise be checked only at the end of the transaction; our own
-- waits for the run's row.
SELECT DISTINCT n.nspname, c.conname
FROM pg_catalog.pg_constraint c
JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace
WHERE c.condeferred AND c.conname <> 'corrections_run_id_fkey' AND c.conrelid IN (
  SELECT relid FROM unnest(ARRAY['public.tenant_billing_lifecycle', 'public.tenant_skill_events',
                                 'public.tenant_suspension_events', 'reconciler.corrections']) AS written (name)
  CROSS JOIN LATERAL (SELECT written.name::regclass AS relid
                      UNION ALL SELECT relid FROM pg_partition_tree(written.name::regclass)) AS parts)

-- name: supersede_planned
-- An event that closes what this run turns on supersedes that, whose id was only just drawn; and what the change log
-- showed supersedes the event before it, be it recorded or planned.
WITH open AS (
  SELECT DISTINCT event_table, tenant_name, subject FROM planned
  WHERE supersedes_event_id IS NULL AND event_table <> 'tenant_billing_lifecycle'
        AND (event_kind = 'disabled' OR resource_version IS NOT NULL)
), event AS (
  SELECT event_table, tenant_name, subject, e.id, e.occurred_at
  FROM open JOIN public.tenant_skill_events e USING (tenant_name)
  WHERE event_table = 'tenant_skill_events' AND e.skill_id = subject
  UNION ALL
  SELECT event_table, tenant_name, subject, e.id, e.occurred_at
  FROM open JOIN public.tenant_suspension_events e USING (tenant_name)
  WHERE event_table = 'tenant_suspension_events'
  UNION ALL
  SELECT event_table, tenant_name, subject, event_id, occurred_at FROM planned
  WHERE (event_table, tenant_name, coalesce(subject, '')) IN (SELECT event_table, tenant_name, coalesce(subject, '') FROM open)
), ordered AS (
  SELECT event_table, id, lag(id) OVER (PARTITION BY event_table, tenant_name, subject ORDER BY occurred_at, id) AS before
  FROM event
)
UPDATE planned p SET supersedes_event_id = o.before
FROM ordered o
WHERE o.event_table = p.event_table AND o.id = p.event_id AND p.supersedes_event_id IS NULL
      AND (p.event_kind = 'disabled' OR p.resource_version IS NOT NULL)

-- name: take_back_undone
-- The same correction was written before, and the ledger, looked at under the lock, does not show it: an unknown hand
-- took its row out or set it back. It must not stand in the way.
UPDATE reconciler.corrections c SET taken_back_at = now()
FROM planned p
WHERE c.taken_back_at IS NULL
  AND (c.tenant_name, c.event_table, c.action, coalesce(c.subject, ''), c.observed,
       CASE WHEN c.resource_version IS NULL THEN coalesce(c.supersedes_event_id, 0) ELSE -1 END,
       coalesce(c.life_began_at, '-infinity'), coalesce(c.uid, ''), coalesce(c.resource_version, ''),
       coalesce(c.decision, 0), CASE WHEN c.decision IS NULL THEN '-infinity' ELSE c.occurred_at END)
      = (p.tenant_name, p.event_table, p.action, coalesce(p.subject, ''), p.observed,
         CASE WHEN p.resource_version IS NULL THEN coalesce(p.supersedes_event_id, 0) ELSE -1 END,
         coalesce(p.life_began_at, '-infinity'), coalesce(p.uid, ''), coalesce(p.resource_version, ''),
         coalesce(p.decision, 0), CASE WHEN p.decision IS NULL THEN '-infinity' ELSE p.occurred_at END)
RETURNING c.id

-- name: two_phases
-- On Citus, before events are written: writes none, to every shard. Citus 14 copies rows over a connection that has read
-- without noting that it wrote, and commits that in one phase: events could stay of which the run's own row does not.
INSERT INTO public.tenant_skill_events (id, tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at)
OVERRIDING SYSTEM VALUE
SELECT id, tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at
FROM public.tenant_skill_events WHERE id = -1

-- name: write_events
WITH skill_event AS (
  INSERT INTO public.tenant_skill_events (id, tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at)
  OVERRIDING SYSTEM VALUE
  SELECT event_id, tenant_name, zitadel_org_id, subject, event_kind, occurred_at
  FROM planned WHERE event_table = 'tenant_skill_events' AND event_kind IS NOT NULL
)
INSERT INTO public.tenant_suspension_events (id, tenant_name, zitadel_org_id, event_kind, occurred_at)
OVERRIDING SYSTEM VALUE
SELECT event_id, tenant_name, zitadel_org_id, event_kind, occurred_at
FROM planned WHERE event_table = 'tenant_suspension_events' AND event_kind IS NOT NULL

-- name: prove_corrections
-- The proof of each correction, with the id of its event.
INSERT INTO reconciler.corrections (
  run_id, reason, tenant_name, zitadel_org_id, subject, action, recorded, observed, occurred_at, not_before, not_after,
  evidence, event_table, event_id, supersedes_event_id, life_began_at, closed_period, impact_chf,
  impact_min_chf, impact_max_chf, uid, resource_version, decision)
SELECT %(run_id)s, p.reason, p.tenant_name, p.zitadel_org_id, p.subject, p.action, p.recorded, p.observed,
       p.occurred_at, p.not_before, p.not_after, p.evidence, p.event_table, p.event_id, p.supersedes_event_id,
       p.life_began_at, p.closed_period, p.impact_chf, p.impact_min_chf, p.impact_max_chf, p.uid, p.resource_version,
       p.decision
FROM planned p

-- name: prove_decision
-- The same of a person's decision, with who decided it and why.
INSERT INTO reconciler.corrections (
  reason, tenant_name, zitadel_org_id, subject, action, recorded, observed, occurred_at, not_before, not_after,
  evidence, event_table, event_id, supersedes_event_id, closed_period, impact_chf, decision, takes_back_event_id,
  decided_at, by, role, note)
SELECT p.reason, p.tenant_name, p.zitadel_org_id, p.subject, p.action, p.recorded, p.observed, p.occurred_at,
       p.not_before, p.not_after, p.evidence, p.event_table, p.event_id, p.supersedes_event_id, p.closed_period,
       p.impact_chf, p.decision, p.takes_back_event_id, now(), %(by)s, current_user, %(note)s
FROM planned p

-- name: take_back_superseded
-- The corrections that this run takes back, each by its own correction.
UPDATE reconciler.corrections c SET taken_back_at = now(), taken_back_by = own.id
FROM planned p JOIN reconciler.corrections own
     ON own.run_id = %(run_id)s AND (own.tenant_name, own.event_table, own.event_id)
                                    = (p.tenant_name, p.event_table, p.event_id)
WHERE p.newest_event_id IS NOT NULL AND p.resource_version IS NULL AND p.decision IS NULL
      AND c.taken_back_at IS NULL
      AND (c.tenant_name, c.event_table, c.event_id) = (p.tenant_name, p.event_table, p.supersedes_event_id)

-- name: not_in_force
-- What was written but is not in force, whatever triggers, rules or ids did, and how: the row is missing, columns of it
-- read otherwise, or it is not the latest of its key, unless another event of this run supersedes it. What takes an event
-- back must be the state at its own instant.
SELECT p.tenant_name, p.event_table, CASE WHEN e.id IS NULL THEN '{row}' ELSE array_remove(ARRAY[
         CASE WHEN (e.tenant_name, e.skill_id) <> (p.tenant_name, p.subject) THEN 'key' END,
         CASE WHEN e.zitadel_org_id <> p.zitadel_org_id THEN 'zitadel_org_id' END,
         CASE WHEN e.event_kind <> p.event_kind THEN 'event_kind' END,
         CASE WHEN e.occurred_at <> p.occurred_at THEN 'occurred_at' END], NULL) END
FROM planned p LEFT JOIN public.tenant_skill_events e ON e.id = p.event_id
WHERE p.event_table = 'tenant_skill_events' AND p.event_kind IS NOT NULL
  AND ((e.tenant_name, e.skill_id, e.zitadel_org_id, e.event_kind, e.occurred_at)
       IS DISTINCT FROM (p.tenant_name, p.subject, p.zitadel_org_id, p.event_kind, p.occurred_at)
       OR CASE WHEN p.newest_event_id IS NULL
          THEN e.id <> (SELECT l.id FROM public.tenant_skill_events l
                        WHERE l.tenant_name = p.tenant_name AND l.skill_id = p.subject
                              AND l.id <> ALL (ARRAY(SELECT event_id FROM reconciler.left_out WHERE event_table = 'tenant_skill_events'))
                        ORDER BY l.occurred_at DESC, l.id DESC LIMIT 1)
               AND e.id NOT IN (SELECT supersedes_event_id FROM planned WHERE supersedes_event_id IS NOT NULL)
          ELSE p.event_kind IS DISTINCT FROM (
            SELECT CASE WHEN l.id >= p.event_id THEN l.event_kind END FROM public.tenant_skill_events l
            WHERE l.tenant_name = p.tenant_name AND l.skill_id = p.subject AND l.occurred_at <= p.occurred_at
            ORDER BY l.occurred_at DESC, l.id DESC LIMIT 1) END)
UNION ALL
SELECT p.tenant_name, p.event_table, CASE WHEN e.id IS NULL THEN '{row}' ELSE array_remove(ARRAY[
         CASE WHEN e.tenant_name <> p.tenant_name THEN 'key' END,
         CASE WHEN e.zitadel_org_id <> p.zitadel_org_id THEN 'zitadel_org_id' END,
         CASE WHEN e.event_kind <> p.event_kind THEN 'event_kind' END,
         CASE WHEN e.occurred_at <> p.occurred_at THEN 'occurred_at' END], NULL) END
FROM planned p LEFT JOIN public.tenant_suspension_events e ON e.id = p.event_id
WHERE p.event_table = 'tenant_suspension_events' AND p.event_kind IS NOT NULL
  AND ((e.tenant_name, e.zitadel_org_id, e.event_kind, e.occurred_at)
       IS DISTINCT FROM (p.tenant_name, p.zitadel_org_id, p.event_kind, p.occurred_at)
       OR CASE WHEN p.newest_event_id IS NULL
          THEN e.id <> (SELECT l.id FROM public.tenant_suspension_events l
                        WHERE l.tenant_name = p.tenant_name
                              AND l.id <> ALL (ARRAY(SELECT event_id FROM reconciler.left_out WHERE event_table = 'tenant_suspension_events'))
                        ORDER BY l.occurred_at DESC, l.id DESC LIMIT 1)
          ELSE p.event_kind IS DISTINCT FROM (
            SELECT CASE WHEN l.id >= p.event_id THEN l.event_kind END FROM public.tenant_suspension_events l
            WHERE l.tenant_name = p.tenant_name AND l.occurred_at <= p.occurred_at
            ORDER BY l.occurred_at DESC, l.id DESC LIMIT 1) END)
UNION ALL
SELECT p.tenant_name, p.event_table, CASE WHEN l.tenant_name IS NULL THEN '{row}' ELSE array_remove(ARRAY[
         CASE WHEN l.zitadel_org_id <> p.zitadel_org_id THEN 'zitadel_org_id' END,
         CASE WHEN l.created_at <> p.life_began_at THEN 'created_at' END,
         CASE WHEN l.deleted_at IS DISTINCT FROM s.occurred_at AND p.action <> 'update' THEN 'deleted_at' END], NULL) END
FROM planned p
LEFT JOIN public.tenant_billing_lifecycle l ON l.tenant_name = p.tenant_name
LEFT JOIN planned s ON s.tenant_name = p.tenant_name AND s.action = 'stamp'
WHERE p.event_table = 'tenant_billing_lifecycle'
  AND NOT coalesce((l.zitadel_org_id, l.created_at) = (p.zitadel_org_id, p.life_began_at)
                   AND (p.action = 'update' OR l.deleted_at IS NOT DISTINCT FROM s.occurred_at), false)
UNION ALL
SELECT p.tenant_name, 'corrections', '{proof}'
FROM planned p
LEFT JOIN (
  SELECT * FROM reconciler.corrections
  WHERE taken_back_at IS NULL
        AND (run_id = %(run_id)s OR %(run_id)s::uuid IS NULL AND decision = (SELECT min(decision) FROM planned))
) c ON (c.tenant_name, c.event_table, c.action, coalesce(c.event_id, 0))
       = (p.tenant_name, p.event_table, p.action, coalesce(p.event_id, 0))
WHERE (c.reason, c.zitadel_org_id, c.subject, c.action, c.recorded, c.observed, c.occurred_at, c.not_before,
       c.not_after, c.evidence, c.event_table, c.event_id, c.supersedes_event_id, c.life_began_at, c.closed_period,
       c.impact_chf, c.impact_min_chf, c.impact_max_chf, c.uid, c.resource_version, c.decision, c.takes_back_event_id)
      IS DISTINCT FROM
      (p.reason, p.zitadel_org_id, p.subject, p.action, p.recorded, p.observed, p.occurred_at, p.not_before,
       p.not_after, p.evidence, p.event_table, p.event_id, p.supersedes_event_id, p.life_began_at, p.closed_period,
       round(p.impact_chf, 2), round(p.impact_min_chf, 2), round(p.impact_max_chf, 2), p.uid, p.resource_version,
       p.decision, p.takes_back_event_id)
ORDER BY 1, 2

-- name: count_corrections
INSERT INTO reconciler.totals AS t (reason, corrections, positive_chf, negative_chf, from_log)
SELECT reason, count(*), coalesce(sum(impact_chf) FILTER (WHERE impact_chf > 0), 0),
       coalesce(sum(impact_chf) FILTER (WHERE impact_chf < 0), 0), count(*) FILTER (WHERE evidence = 'change_log')
FROM planned GROUP BY reason
ON CONFLICT (reason) DO UPDATE
SET corrections = t.corrections + excluded.corrections,
    positive_chf = t.positive_chf + excluded.positive_chf,
    negative_chf = t.negative_chf + excluded.negative_chf,
    from_log = t.from_log + excluded.from_log

-- name: totals
SELECT reason, corrections, positive_chf, negative_chf, from_log FROM reconciler.totals

-- name: keep_reports
-- The reports that are open after a run. People are notified again of one that changed. One that was not found is
-- closed, unless its tenant was deferred or not compared.
WITH found AS (
  SELECT * FROM unnest(%(tenants)s::text[], %(reasons)s::text[], %(subjects)s::text[], %(orgs)s::text[],
                       %(recorded)s::text[], %(observed)s::text[])
    AS found (tenant_name, reason, subject, zitadel_org_id, recorded, observed)
), gone AS (
  DELETE FROM reconciler.reports r
  WHERE r.tenant_name <> ALL (%(deferred)s::text[])
        AND (%(compared)s::text[] IS NULL OR r.tenant_name = '' OR r.tenant_name = ANY (%(compared)s::text[]))
        AND NOT EXISTS (
    SELECT FROM found f WHERE (f.tenant_name, f.reason, f.subject) = (r.tenant_name, r.reason, r.subject))
)
INSERT INTO reconciler.reports AS r (tenant_name, reason, subject, zitadel_org_id, recorded, observed)
SELECT * FROM found
ON CONFLICT (tenant_name, reason, subject) DO UPDATE
SET zitadel_org_id = excluded.zitadel_org_id, recorded = excluded.recorded, observed = excluded.observed,
    -- if nothing was recorded, this run itself may have recorded the tenant
    told = CASE WHEN r.reason = 'tenant_parked'
                     AND regexp_replace(r.observed, '[0-9]+', '', 'g') = regexp_replace(excluded.observed, '[0-9]+', '', 'g')
                -- what PostgreSQL says of a refused row may hold its id, which is another one in each run
                THEN r.told
                WHEN r.recorded <> excluded.recorded OR r.observed IS DISTINCT FROM excluded.observed
                THEN '{}' ELSE r.told END
WHERE (r.zitadel_org_id, r.recorded, r.observed)
      IS DISTINCT FROM (excluded.zitadel_org_id, excluded.recorded, excluded.observed)

-- name: keep_stop
-- A run that was stopped is a report of its own, about no tenant. It leaves the other reports as they are.
WITH gone AS (DELETE FROM reconciler.reports WHERE tenant_name = '' AND reason <> %(reason)s)
INSERT INTO reconciler.reports AS r (tenant_name, reason, observed) VALUES ('', %(reason)s, %(observed)s)
ON CONFLICT (tenant_name, reason, subject) DO UPDATE SET observed = excluded.observed, told = '{}'
WHERE r.observed IS DISTINCT FROM excluded.observed

-- name: notified
-- Which sink was notified of which open report within the last day.
SELECT sink, tenant_name, reason, subject
FROM reconciler.reports CROSS JOIN jsonb_each_text(told) AS each (sink, at)
WHERE at::timestamptz > now() - interval '1 day'

-- name: mark_notified
UPDATE reconciler.reports r SET told = r.told || jsonb_build_object(%(sink)s::text, now())
FROM unnest(%(tenants)s::text[], %(reasons)s::text[], %(subjects)s::text[]) AS told (tenant_name, reason, subject)
WHERE (r.tenant_name, r.reason, r.subject) = (told.tenant_name, told.reason, told.subject)

-- name: mark_run_notified
UPDATE reconciler.runs SET notified = notified || jsonb_build_object(%(sink)s::text, now())
WHERE id = ANY (%(runs)s::uuid[]) AND notified ? %(sink)s::text

-- name: owed_runs
-- The runs of the last 30 days whose corrections some of these recipients were never notified of, and who they are.
SELECT id, names FROM (
  SELECT id, started_at, ARRAY(
    SELECT key FROM jsonb_each(notified) WHERE value = 'null' AND key = ANY (%(recipients)s::text[])) AS names
  FROM reconciler.runs
  WHERE jsonb_path_exists(notified, '$.* ? (@ == null)') AND started_at > now() - interval '30 days'
        AND id <> %(run_id)s
) runs
WHERE names <> '{}'
ORDER BY started_at

-- name: corrections_of_run
-- Its corrections of the reasons that this version knows.
SELECT reason, tenant_name, zitadel_org_id, action, subject, recorded, observed, occurred_at, not_before, not_after,
       evidence, closed_period, impact_chf, impact_min_chf, impact_max_chf
FROM reconciler.corrections WHERE run_id = %(run_id)s AND reason = ANY (%(reasons)s::text[]) ORDER BY id

-- name: record_run
INSERT INTO reconciler.runs (
  id, started_at, observed_at, finished_at, mode, outcome, version, source, resource_version,
  tenants_observed, tenants_recorded, counts, unverified, changing, error, notified, settle, history,
  compared)
VALUES (
  %(id)s, %(started_at)s, %(observed_at)s, clock_timestamp(), %(mode)s, %(outcome)s, %(version)s, %(source)s,
  %(resource_version)s, %(tenants_observed)s, %(tenants_recorded)s, %(counts)s, %(unverified)s,
  %(changing)s, %(error)s, %(notified)s, %(settle)s, %(history)s, %(compared)s)

-- name: pin_source
INSERT INTO reconciler.source AS s (id, identity, resource_version) VALUES (1, %(identity)s, %(resource_version)s)
ON CONFLICT (id) DO UPDATE
SET identity = excluded.identity,
    resource_version = excluded.resource_version,
    pinned_at = CASE WHEN s.identity = excluded.identity THEN s.pinned_at ELSE now() END

-- name: run_outcome
SELECT outcome FROM reconciler.runs WHERE id = %(id)s
