-- What happened and why: the queries of `reconciler explain`, `status`, `except` and `reopen`.

-- ---- `reconciler status`, `except` and `reopen` ---------------------------------------------------------------------
-- However long the history is, none of these reads more than a bounded part of it. Times that people may have set
-- themselves, an exception to infinity, are brought into the years that a Python datetime can hold.

-- name: status_verification
-- The clock, and the last run that proved anything: over a cluster, and not stopped. What changed within settle of it
-- may still have been on its way.
SELECT clock_timestamp(), last.until, last.unverified
FROM (SELECT) AS nothing LEFT JOIN LATERAL (
  SELECT observed_at - %(settle)s::interval AS until, cardinality(unverified) AS unverified
  FROM reconciler.runs
  WHERE outcome IN ('clean', 'corrected', 'drift') AND mode = 'run' AND source <> 'snapshot'
  ORDER BY observed_at DESC LIMIT 1
) AS last ON true

-- name: status_unverified
-- The tenants that this run could not prove, and up to when the latest run that could has proved each.
-- A tenant whose report is open has been proved by no run since, so that the search begins where the report does.
-- A run before its life began proved nothing of it.
WITH last AS (
  SELECT unverified FROM reconciler.runs
  WHERE outcome IN ('clean', 'corrected', 'drift') AND mode = 'run' AND source <> 'snapshot'
  ORDER BY observed_at DESC LIMIT 1
)
SELECT t.tenant_name, CASE WHEN proof.until > l.created_at THEN proof.until END
FROM last CROSS JOIN unnest(last.unverified) AS t (tenant_name)
LEFT JOIN public.tenant_billing_lifecycle l ON l.tenant_name = t.tenant_name
LEFT JOIN LATERAL (
  SELECT earlier.observed_at - %(settle)s::interval AS until
  FROM (
    SELECT observed_at, unverified FROM reconciler.runs
    WHERE outcome IN ('clean', 'corrected', 'drift') AND mode = 'run' AND source <> 'snapshot'
          AND observed_at <= coalesce(
            (SELECT min(since) FROM reconciler.reports r WHERE r.tenant_name = t.tenant_name), 'infinity')
    ORDER BY observed_at DESC LIMIT %(reach)s
  ) AS earlier
  WHERE t.tenant_name <> ALL (earlier.unverified)
  ORDER BY earlier.observed_at DESC LIMIT 1
) AS proof ON true
ORDER BY t.tenant_name COLLATE "C" LIMIT %(most)s

-- name: status_reports
-- Of the passes themselves first, then the latest of those that nobody has accepted. Each row says how many there are.
SELECT r.tenant_name, r.reason, r.subject, r.zitadel_org_id, r.recorded, r.observed, r.since,
       CASE WHEN e.expires_at IS NOT NULL THEN least(e.expires_at, %(last)s) END, count(*) OVER ()
FROM reconciler.reports r
LEFT JOIN reconciler.exceptions e
       ON e.tenant_name = r.tenant_name AND e.reason = r.reason AND e.expires_at > now()
ORDER BY r.tenant_name <> '', e.expires_at IS NOT NULL, r.since DESC, r.tenant_name COLLATE "C", r.reason, r.subject
LIMIT %(most)s

-- name: status_exceptions
-- Those that are in force, and those that are not and are missed: ended lately, or their report is open.
SELECT tenant_name, reason, note, created_by, created_at, least(expires_at, %(last)s), expires_at <= now(),
       count(*) OVER ()
FROM reconciler.exceptions e
WHERE expires_at > now() - %(since)s::interval
      OR EXISTS (SELECT FROM reconciler.reports r WHERE r.tenant_name = e.tenant_name AND r.reason = e.reason)
ORDER BY expires_at, tenant_name COLLATE "C", reason
LIMIT %(most)s

-- name: status_corrections
-- How many rows were corrected on each UTC day, as the runs' own rows say.
SELECT (r.observed_at AT TIME ZONE 'UTC')::date AS day, sum(done.number::bigint)::bigint
FROM reconciler.runs r
CROSS JOIN jsonb_each(r.counts) AS found (reason, actions)
CROSS JOIN jsonb_each_text(found.actions) AS done (action, number)
WHERE r.outcome = 'corrected' AND r.observed_at >= %(since)s AND done.action NOT IN ('report', 'defer')
GROUP BY day ORDER BY day

-- name: status_runs
SELECT id, started_at, finished_at, outcome, source, tenants_observed, tenants_recorded, counts, error
FROM reconciler.runs ORDER BY started_at DESC, finished_at DESC LIMIT %(most)s

-- name: heard_of
-- The clock, whether anybody has heard of a tenant, since when such a report of it is open, and how it was accepted.
SELECT clock_timestamp(),
       EXISTS (SELECT FROM public.tenant_billing_lifecycle WHERE tenant_name = %(tenant)s)
       OR EXISTS (SELECT FROM public.tenant_skill_events WHERE tenant_name = %(tenant)s)
       OR EXISTS (SELECT FROM public.tenant_suspension_events WHERE tenant_name = %(tenant)s)
       OR EXISTS (SELECT FROM reconciler.reports WHERE tenant_name = %(tenant)s),
       (SELECT min(since) FROM reconciler.reports WHERE tenant_name = %(tenant)s AND reason = %(reason)s),
       (SELECT least(expires_at, %(last)s) FROM reconciler.exceptions
        WHERE tenant_name = %(tenant)s AND reason = %(reason)s AND expires_at > now())

-- name: every_tenant
-- The names that a misspelt one could be.
SELECT tenant_name FROM public.tenant_billing_lifecycle
UNION SELECT tenant_name FROM reconciler.reports WHERE tenant_name <> ''

-- name: accept_report
INSERT INTO reconciler.exceptions AS e (tenant_name, reason, note, created_by, expires_at)
VALUES (%(tenant)s, %(reason)s, %(note)s, %(by)s, %(until)s)
ON CONFLICT (tenant_name, reason) DO UPDATE
SET note = excluded.note, created_by = excluded.created_by, created_at = now(), expires_at = excluded.expires_at

-- name: end_acceptance
UPDATE reconciler.exceptions SET expires_at = now()
WHERE tenant_name = %(tenant)s AND reason = %(reason)s AND expires_at > now()
RETURNING note, created_by

-- name: lock_life
-- A tenant's lifecycle row, which nobody else changes until this transaction ends.
SELECT zitadel_org_id, least(greatest(created_at, %(first)s), %(last)s),
       CASE WHEN deleted_at IS NOT NULL THEN least(greatest(deleted_at, %(first)s), %(last)s) END
FROM public.tenant_billing_lifecycle WHERE tenant_name = %(tenant)s FOR UPDATE

-- name: last_reopening
SELECT reopened_at, reopened_by, note FROM reconciler.closed_lives
WHERE tenant_name = %(tenant)s ORDER BY reopened_at DESC LIMIT 1

-- name: keep_closed_life
INSERT INTO reconciler.closed_lives (tenant_name, zitadel_org_id, created_at, deleted_at, reopened_by, note)
SELECT tenant_name, zitadel_org_id, created_at, deleted_at, %(by)s, %(note)s
FROM public.tenant_billing_lifecycle WHERE tenant_name = %(tenant)s AND deleted_at IS NOT NULL

-- name: begin_life
UPDATE public.tenant_billing_lifecycle
SET created_at = %(created_at)s, deleted_at = NULL, zitadel_org_id = %(org)s
WHERE tenant_name = %(tenant)s AND deleted_at IS NOT NULL

-- ---- `reconciler explain` --------------------------------------------------------------------------------------------
-- All of one tenant. Times are brought into the years that a Python datetime can hold.

-- name: explain_lives
-- Its lives, the lifecycle row as the last of them.
SELECT zitadel_org_id, least(greatest(created_at, %(first)s), %(last)s),
       CASE WHEN deleted_at IS NOT NULL THEN least(greatest(deleted_at, %(first)s), %(last)s) END,
       least(greatest(reopened_at, %(first)s), %(last)s), reopened_by, note
FROM reconciler.closed_lives WHERE tenant_name = %(tenant)s
UNION ALL
SELECT zitadel_org_id, least(greatest(created_at, %(first)s), %(last)s),
       CASE WHEN deleted_at IS NOT NULL THEN least(greatest(deleted_at, %(first)s), %(last)s) END,
       NULL, NULL, NULL
FROM public.tenant_billing_lifecycle WHERE tenant_name = %(tenant)s
ORDER BY 2, 4 NULLS LAST

-- name: explain_events
-- Its events in the order in which the later one counts.
SELECT event_table, id, zitadel_org_id, skill_id, event_kind, least(greatest(occurred_at, %(first)s), %(last)s)
FROM (
  SELECT 'tenant_skill_events' AS event_table, id, zitadel_org_id, skill_id, event_kind, occurred_at
  FROM public.tenant_skill_events WHERE tenant_name = %(tenant)s
  UNION ALL
  SELECT 'tenant_suspension_events', id, zitadel_org_id, NULL, event_kind, occurred_at
  FROM public.tenant_suspension_events WHERE tenant_name = %(tenant)s
) event
ORDER BY occurred_at, event_table, id

-- name: explain_corrections
-- By their moments. One without a moment, the organisation of a row, stands where the run made it.
SELECT c.id, c.reason, c.zitadel_org_id, c.subject, c.action, c.recorded, c.observed,
       CASE WHEN c.occurred_at IS NOT NULL THEN least(greatest(c.occurred_at, %(first)s), %(last)s) END,
       CASE WHEN c.not_before IS NOT NULL THEN least(greatest(c.not_before, %(first)s), %(last)s) END,
       CASE WHEN c.not_after IS NOT NULL THEN least(greatest(c.not_after, %(first)s), %(last)s) END,
       c.evidence, c.event_table, c.event_id, c.supersedes_event_id,
       CASE WHEN c.life_began_at IS NOT NULL THEN least(greatest(c.life_began_at, %(first)s), %(last)s) END,
       c.closed_period, c.impact_chf, c.impact_min_chf, c.impact_max_chf,
       c.run_id, coalesce(r.observed_at, r.started_at)
FROM reconciler.corrections c JOIN reconciler.runs r ON r.id = c.run_id
WHERE c.tenant_name = %(tenant)s
ORDER BY coalesce(c.occurred_at, r.observed_at, r.started_at), c.event_table, c.id

-- name: explain_reports
-- What is open about it. The reports of no tenant are about the passes.
SELECT reason, subject, recorded, observed, least(greatest(since, %(first)s), %(last)s)
FROM reconciler.reports WHERE tenant_name = %(tenant)s AND tenant_name <> ''
ORDER BY reason, subject

-- name: explain_exceptions
SELECT reason, note, created_by, least(greatest(created_at, %(first)s), %(last)s),
       least(greatest(expires_at, %(first)s), %(last)s)
FROM reconciler.exceptions WHERE tenant_name = %(tenant)s
ORDER BY reason

-- name: explain_verified
-- When the last run over the cluster began that found the tenant true, in the life that it has now; of the last runs
-- alone.
SELECT max(r.observed_at)
FROM public.tenant_billing_lifecycle l
JOIN (
  SELECT observed_at, unverified FROM reconciler.runs
  WHERE outcome IN ('clean', 'corrected', 'drift') AND mode = 'run' AND source <> 'snapshot'
  ORDER BY observed_at DESC LIMIT %(reach)s
) r ON r.observed_at >= l.created_at AND l.tenant_name <> ALL (r.unverified)
WHERE l.tenant_name = %(tenant)s

-- name: explain_names
-- The names that could be meant by one that nobody has heard of: those that hold it first, then those of its length.
SELECT tenant_name FROM (
  SELECT tenant_name FROM public.tenant_billing_lifecycle
  UNION SELECT tenant_name FROM reconciler.reports WHERE tenant_name <> ''
) known
ORDER BY strpos(lower(tenant_name), lower(%(tenant)s)) = 0, abs(length(tenant_name) - length(%(tenant)s)), tenant_name
LIMIT %(most)s
