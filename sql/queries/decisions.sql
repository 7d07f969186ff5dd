-- What people decide: the queries of `reconciler except` and `reopen`, and the names that a misspelt one could mean.

-- name: tenant_reports
-- The clock, whether the tenant is known at all, since when a report of this reason is open, and until when it is
-- accepted. Citus takes no subquery without a column.
SELECT clock_timestamp(),
       EXISTS (SELECT 1 FROM public.tenant_billing_lifecycle WHERE tenant_name = %(tenant)s)
       OR EXISTS (SELECT 1 FROM public.tenant_skill_events WHERE tenant_name = %(tenant)s)
       OR EXISTS (SELECT 1 FROM public.tenant_suspension_events WHERE tenant_name = %(tenant)s)
       OR EXISTS (SELECT 1 FROM reconciler.corrections WHERE tenant_name = %(tenant)s)
       OR EXISTS (SELECT 1 FROM reconciler.reports WHERE tenant_name = %(tenant)s)
       OR EXISTS (SELECT 1 FROM reconciler.exceptions WHERE tenant_name = %(tenant)s),
       (SELECT min(since) FROM reconciler.reports WHERE tenant_name = %(tenant)s AND reason = %(reason)s),
       (SELECT expires_at FROM reconciler.exceptions
        WHERE tenant_name = %(tenant)s AND reason = %(reason)s AND expires_at > now())

-- name: accept_report
INSERT INTO reconciler.exceptions AS e (tenant_name, reason, note, created_by, expires_at)
VALUES (%(tenant)s, %(reason)s, %(note)s, %(by)s, %(until)s)
ON CONFLICT (tenant_name, reason) DO UPDATE
SET note = excluded.note, created_by = excluded.created_by, created_at = now(), expires_at = excluded.expires_at

-- name: end_acceptance
UPDATE reconciler.exceptions SET expires_at = now()
WHERE tenant_name = %(tenant)s AND reason = %(reason)s AND expires_at > now()
RETURNING note, created_by

-- name: lock_lifecycle
-- A tenant's lifecycle row, which nobody else can change until this transaction ends.
SELECT zitadel_org_id, created_at, deleted_at
FROM public.tenant_billing_lifecycle WHERE tenant_name = %(tenant)s FOR UPDATE

-- name: known_of_row
-- Whether runs saw another uid under this name before this one, since the row began; whether a person took this one for
-- the same tenant, or decided when the row begins while it was this one; and up to when the tenant is proved.
SELECT EXISTS (SELECT FROM reconciler.tenants t
               JOIN public.tenant_billing_lifecycle l USING (tenant_name)
               WHERE t.tenant_name = %(tenant)s AND t.uid <> %(uid)s
                     AND t.created_at >= l.created_at - %(settle)s::interval),
       EXISTS (SELECT FROM reconciler.tenants WHERE tenant_name = %(tenant)s AND uid = %(uid)s AND continues),
       EXISTS (SELECT FROM reconciler.corrections c
               JOIN public.tenant_billing_lifecycle l ON l.tenant_name = c.tenant_name AND l.created_at = c.life_began_at
               WHERE c.tenant_name = %(tenant)s AND c.event_table = 'tenant_billing_lifecycle'
                     AND c.evidence = 'decided' AND c.uid = %(uid)s),
       (SELECT r.observed_at - greatest(r.settle, %(settle)s::interval) FROM (
          SELECT observed_at, settle, unverified FROM reconciler.proving_runs
          WHERE observed_at <= coalesce(
                  (SELECT min(since) FROM reconciler.reports p WHERE p.tenant_name = %(tenant)s), 'infinity')
          ORDER BY observed_at DESC LIMIT 50000) r
        WHERE %(tenant)s <> ALL (r.unverified)
        ORDER BY r.observed_at DESC LIMIT 1)

-- name: last_reopening
SELECT reopened_at, reopened_by, note FROM reconciler.closed_lives
WHERE tenant_name = %(tenant)s ORDER BY reopened_at DESC LIMIT 1

-- name: similar_names
-- The names that a misspelt one could mean: first those that contain it, then those closest to it in length.
SELECT tenant_name FROM (
  SELECT tenant_name FROM public.tenant_billing_lifecycle
  UNION SELECT tenant_name FROM reconciler.reports WHERE tenant_name <> ''
) known
ORDER BY strpos(lower(tenant_name), lower(%(tenant)s)) = 0, abs(length(tenant_name) - length(%(tenant)s)), tenant_name
LIMIT %(max_names)s

-- name: numbered
-- A correction or a decision by its number, or the one that wrote an event: the events that it wrote, the first row first.
WITH asked AS (
  SELECT %(number)s::bigint AS number
  UNION ALL
  SELECT number FROM reconciler.corrections
  WHERE event_table = %(table)s::text AND event_id = %(event_id)s AND %(number)s::bigint IS NULL
)
SELECT c.number, c.tenant_name, c.subject, c.reason, c.event_table, c.decision, c.observed, c.occurred_at,
       CASE WHEN c.taken_back_by IS NOT NULL THEN concat('number ', c.taken_back_by)
            WHEN c.taken_back_at IS NOT NULL THEN 'an unknown hand' END,
       c.event_id
FROM reconciler.corrections c JOIN asked ON asked.number = c.number
ORDER BY c.id

-- name: portal_row
-- An event, and the number that took it back.
WITH event AS MATERIALIZED (
  SELECT 'tenant_skill_events' AS event_table, id, tenant_name, skill_id, event_kind, occurred_at
  FROM public.tenant_skill_events WHERE id = %(event_id)s
  UNION ALL
  SELECT 'tenant_suspension_events', id, tenant_name, NULL, event_kind, occurred_at
  FROM public.tenant_suspension_events WHERE id = %(event_id)s
)
SELECT e.tenant_name, e.skill_id, e.event_kind, e.occurred_at, c.number
FROM event e
LEFT JOIN reconciler.corrections c ON (c.event_table, c.takes_back_event_id) = (e.event_table, e.id)
WHERE e.event_table = %(table)s

-- name: take_back_number
UPDATE reconciler.corrections SET taken_back_at = now(), taken_back_by = %(by)s
WHERE number = %(number)s AND taken_back_at IS NULL

-- name: seen_uid
-- The tenant that runs have seen last under this name.
SELECT uid FROM reconciler.tenants WHERE tenant_name = %(tenant)s AND gone_at IS NULL ORDER BY created_at DESC LIMIT 1

-- name: keep_payer
INSERT INTO reconciler.payers (source, tenant_name, number, org, from_day, until_day)
VALUES (coalesce((SELECT identity FROM reconciler.source), ''), %(tenant)s, %(number)s, %(org)s, %(since)s,
        coalesce(%(until)s::date, 'infinity'))

-- name: prove_payer
INSERT INTO reconciler.corrections (
  reason, tenant_name, zitadel_org_id, action, recorded, observed, occurred_at, not_before, not_after, evidence,
  event_table, closed_period, decision, decided_at, by, role, note)
VALUES ('recorded', %(tenant)s, %(org)s, 'insert', %(before)s, %(org)s, %(begins_at)s, %(begins_at)s, %(ends_at)s,
        'decided', 'payers', %(closed)s, %(number)s, now(), %(by)s, current_user, %(note)s)

-- name: keep_lifetimes
-- All earlier lifetimes, as a person decided them.
INSERT INTO reconciler.closed_lives (tenant_name, zitadel_org_id, created_at, deleted_at, reopened_by, note, number)
SELECT %(tenant)s, org, began_at, ended_at, %(by)s, %(note)s, %(number)s
FROM unnest(%(orgs)s::text[], %(began)s::timestamptz[], %(ended)s::timestamptz[]) AS lived (org, began_at, ended_at)

-- name: set_lifetime
-- The last lifetime, which is the row.
INSERT INTO public.tenant_billing_lifecycle AS l (tenant_name, zitadel_org_id, created_at, deleted_at)
VALUES (%(tenant)s, %(org)s, %(began_at)s, %(ended_at)s)
ON CONFLICT (tenant_name) DO UPDATE
SET zitadel_org_id = excluded.zitadel_org_id, created_at = excluded.created_at, deleted_at = excluded.deleted_at

-- name: take_back_ends
-- What was written of lifetimes that a person has moved, and what closed the skills at their ends.
UPDATE reconciler.corrections c SET taken_back_at = now(), taken_back_by = %(number)s
WHERE c.tenant_name = %(tenant)s AND c.taken_back_at IS NULL AND c.number <> %(number)s
      AND (c.event_table = 'tenant_billing_lifecycle' AND c.action IN ('insert', 'stamp')
           AND c.occurred_at <> ALL (%(bounds)s::timestamptz[])
           OR c.event_table = 'tenant_skill_events' AND c.event_id = ANY (%(event_ids)s::bigint[])
              -- what a person said of a skill is no closing row
              AND (c.decision IS NULL OR EXISTS (
                SELECT FROM reconciler.corrections l
                WHERE l.decision = c.decision AND l.event_table = 'tenant_billing_lifecycle')))

-- name: lifetime_decisions
-- The numbers of what people decided about this tenant's lifetimes.
SELECT number FROM reconciler.corrections
WHERE tenant_name = %(tenant)s AND event_table = 'tenant_billing_lifecycle' AND decision IS NOT NULL

-- name: prove_lifetime
INSERT INTO reconciler.corrections (
  reason, tenant_name, zitadel_org_id, action, recorded, observed, occurred_at, not_before, not_after, evidence,
  event_table, life_began_at, uid, closed_period, impact_chf, decision, decided_at, by, role, note)
VALUES (%(reason)s, %(tenant)s, %(org)s, 'update', %(before)s, %(after)s, %(at)s, %(since)s, %(until)s, 'decided',
        'tenant_billing_lifecycle', %(began_at)s, %(uid)s, %(closed)s, %(impact_chf)s, %(number)s, now(), %(by)s,
        current_user, %(note)s)
