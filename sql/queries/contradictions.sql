-- Which recorded events contradict each other, and which corrections the portal's later rows disprove: the queries of
-- reconciler/db/contradictions.py.

-- name: events_seen
-- The clock; whether all events were looked at within a day, and no backup was restored since; the highest ids that a
-- run has looked at, and the highest there are; and for either the events near them, as reconciler.source.events_near
-- has it, beside what the run before had.
WITH newest AS MATERIALIZED (
  SELECT coalesce((SELECT max(id) FROM public.tenant_skill_events), 0) AS skill,
         coalesce((SELECT max(id) FROM public.tenant_suspension_events), 0) AS suspension,
         coalesce((SELECT max(id) FROM reconciler.corrections), 0) AS correction
), mark AS MATERIALIZED (
  SELECT coalesce(s.skill_events_seen, 0) AS skill_seen, coalesce(s.suspension_events_seen, 0) AS suspension_seen,
         coalesce(s.corrections_seen, 0) AS correction_seen, s.events_near, s.events_checked_at,
         newest.skill, newest.suspension, newest.correction
  FROM newest LEFT JOIN reconciler.source s ON true
), before AS MATERIALIZED (
  -- each bound is a subquery of its own: Citus knows no row of the coordinator while it reads the events
  SELECT (SELECT concat(count(*), ':', sum(id)) FROM public.tenant_skill_events
          WHERE id > (SELECT skill_seen FROM mark) - %(reach)s AND id <= (SELECT skill_seen FROM mark)) AS skill,
         (SELECT concat(count(*), ':', sum(id)) FROM public.tenant_suspension_events
          WHERE id > (SELECT suspension_seen FROM mark) - %(reach)s
                AND id <= (SELECT suspension_seen FROM mark)) AS suspension
)
SELECT now(),
       coalesce(m.events_checked_at > now() - interval '1 day' AND m.events_checked_at <= now(), false)
       AND m.skill_seen <= m.skill AND m.suspension_seen <= m.suspension,
       m.skill_seen, m.suspension_seen, least(m.correction_seen, m.correction), m.skill, m.suspension, m.correction,
       m.events_near IS NOT DISTINCT FROM concat_ws(' ', before.skill, before.suspension),
       CASE WHEN (m.skill, m.suspension) = (m.skill_seen, m.suspension_seen)
            THEN concat_ws(' ', before.skill, before.suspension)
            ELSE concat_ws(' ', (
                   SELECT concat(count(*), ':', sum(id)) FROM public.tenant_skill_events
                   WHERE id > (SELECT skill FROM mark) - %(reach)s AND id <= (SELECT skill FROM mark)
                 ), (
                   SELECT concat(count(*), ':', sum(id)) FROM public.tenant_suspension_events
                   WHERE id > (SELECT suspension FROM mark) - %(reach)s
                         AND id <= (SELECT suspension FROM mark))) END
FROM mark m CROSS JOIN before

-- name: tenants_with_news
-- The tenants with events or corrections of a higher id, with open reports of contradictions or closed months, with a gap
-- that the last run has found, and those of the last runs, if they have left corrections that are disproved.
SELECT tenant_name FROM public.tenant_skill_events WHERE id > %(skill)s
UNION
SELECT tenant_name FROM public.tenant_suspension_events WHERE id > %(suspension)s
UNION
SELECT tenant_name FROM reconciler.corrections WHERE id > %(correction)s
UNION
SELECT tenant_name FROM reconciler.reports WHERE reason IN ('history_contradicts', 'closed_month_changed')
UNION
SELECT g.tenant_name FROM reconciler.gaps g JOIN reconciler.source s ON g.until_at >= s.position_at
WHERE g.tenant_name <> '*'
UNION
SELECT unnest(unverified) FROM reconciler.last_runs WHERE counts -> 'correction_superseded' ? 'defer'

-- name: suspicious_keys
-- The keys whose events may contradict each other: in the skill's place null for the suspension. One that is true may
-- be among them, but none that is not is left out. Times are clamped, so that none is out of range. `names` restricts
-- it to some tenants, and their organisations to events of a higher id.
WITH lifetime AS (
  SELECT l.tenant_name, greatest(l.created_at, %(first)s) - %(settle)s::interval AS begins_at,
         least(l.deleted_at, %(last)s) + %(settle)s::interval AS ends_at,
         c.tenant_name IS NOT NULL AS is_one_of_many
  FROM public.tenant_billing_lifecycle l
  LEFT JOIN (SELECT DISTINCT tenant_name FROM reconciler.earlier_lifetimes) c ON c.tenant_name = l.tenant_name
  WHERE %(names)s::text[] IS NULL OR l.tenant_name = ANY (%(names)s::text[])
), event AS (
  -- in the order of the covering index the event after it is that before it in time
  SELECT tenant_name, skill_id, event_kind, occurred_at,
         lead(event_kind) OVER latest_first AS kind_before, lead(occurred_at) OVER latest_first AS at_before
  FROM public.tenant_skill_events
  WHERE %(names)s::text[] IS NULL OR tenant_name = ANY (%(names)s::text[])
  WINDOW latest_first AS (PARTITION BY tenant_name, skill_id ORDER BY occurred_at DESC, id DESC)
), key AS (
  SELECT tenant_name, skill_id, min(occurred_at) AS first_at, max(occurred_at) AS last_at,
         bool_or(CASE WHEN kind_before IS NULL THEN event_kind = 'disabled'
                      ELSE kind_before = event_kind
                           AND occurred_at > least(at_before, %(last)s) + %(settle)s::interval END) AS is_odd
  FROM event GROUP BY tenant_name, skill_id
), suspension AS (
  SELECT tenant_name, event_kind, occurred_at,
         lead(event_kind) OVER latest_first AS kind_before, lead(occurred_at) OVER latest_first AS at_before
  FROM public.tenant_suspension_events
  WHERE %(names)s::text[] IS NULL OR tenant_name = ANY (%(names)s::text[])
  WINDOW latest_first AS (PARTITION BY tenant_name ORDER BY occurred_at DESC, id DESC)
), suspended AS (
  SELECT tenant_name, min(occurred_at) AS first_at, max(occurred_at) AS last_at,
         bool_or(CASE WHEN kind_before IS NULL THEN event_kind = 'resumed'
                      ELSE kind_before = event_kind
                           AND occurred_at > least(at_before, %(last)s) + %(settle)s::interval END) AS is_odd
  FROM suspension GROUP BY tenant_name
)
SELECT k.tenant_name, k.skill_id FROM key k JOIN lifetime l ON l.tenant_name = k.tenant_name
WHERE k.is_odd OR l.is_one_of_many OR k.first_at < l.begins_at OR k.last_at > l.ends_at
UNION
SELECT s.tenant_name, NULL FROM suspended s JOIN lifetime l ON l.tenant_name = s.tenant_name
WHERE s.is_odd OR l.is_one_of_many OR s.first_at < l.begins_at OR s.last_at > l.ends_at
UNION
-- of these the rows that count are not those that follow each other in the ledger
SELECT tenant_name, subject FROM reconciler.corrections
WHERE (taken_back_at IS NOT NULL OR decision IS NOT NULL) AND action = 'append'
      AND (%(names)s::text[] IS NULL OR tenant_name = ANY (%(names)s::text[]))
UNION
SELECT tenant_name, nullif(subject, '') FROM reconciler.reports WHERE reason = 'history_contradicts'
UNION
-- the index does not have the organisation, so of those that were looked at before it is not read again. Who pays only
-- because a person decided so is told apart later
SELECT e.tenant_name, e.skill_id
FROM public.tenant_skill_events e JOIN public.tenant_billing_lifecycle l ON l.tenant_name = e.tenant_name
WHERE e.id > %(skill)s
      AND e.zitadel_org_id <> l.zitadel_org_id AND e.zitadel_org_id <> 'unknown' AND l.zitadel_org_id <> 'unknown'
UNION
SELECT e.tenant_name, NULL
FROM public.tenant_suspension_events e JOIN public.tenant_billing_lifecycle l ON l.tenant_name = e.tenant_name
WHERE e.id > %(suspension)s
      AND e.zitadel_org_id <> l.zitadel_org_id AND e.zitadel_org_id <> 'unknown' AND l.zitadel_org_id <> 'unknown'

-- name: disproved_corrections
-- The corrections of events that were dated by policy and stand as they were written, and for which the portal's row of
-- a change of that kind came later, with its moment in their interval. The closing event of a deletion moves with its
-- stamp, and only a person moves that.
WITH assumed AS MATERIALIZED (
  SELECT event_table, tenant_name, subject, zitadel_org_id, observed, occurred_at, not_before, not_after, event_id
  FROM reconciler.corrections
  WHERE event_table IN ('tenant_skill_events', 'tenant_suspension_events')
        AND evidence = 'none' AND taken_back_at IS NULL
        AND reason NOT IN ('correction_superseded', 'skill_open_after_deletion')
        AND (%(names)s::text[] IS NULL OR tenant_name = ANY (%(names)s::text[]))
), skill_event AS MATERIALIZED (
  SELECT tenant_name, skill_id, zitadel_org_id, event_kind, occurred_at, id FROM public.tenant_skill_events
  WHERE (tenant_name, skill_id) IN (SELECT tenant_name, subject FROM assumed WHERE event_table = 'tenant_skill_events')
), suspension_event AS MATERIALIZED (
  SELECT tenant_name, zitadel_org_id, event_kind, occurred_at, id FROM public.tenant_suspension_events
  WHERE tenant_name IN (SELECT tenant_name FROM assumed WHERE event_table = 'tenant_suspension_events')
), late_skill AS MATERIALIZED (
  -- the portal's own
  SELECT * FROM skill_event e
  WHERE NOT EXISTS (SELECT FROM reconciler.corrections own
                    WHERE (own.tenant_name, own.event_table, own.event_id) = (e.tenant_name, 'tenant_skill_events', e.id))
), late_suspension AS MATERIALIZED (
  SELECT * FROM suspension_event e
  WHERE NOT EXISTS (SELECT FROM reconciler.corrections own
                    WHERE (own.tenant_name, own.event_table, own.event_id)
                          = (e.tenant_name, 'tenant_suspension_events', e.id))
)
SELECT c.tenant_name, c.subject, c.zitadel_org_id, e.id, e.event_kind, e.occurred_at, c.not_before, c.not_after
FROM assumed c
JOIN skill_event e
     ON e.id = c.event_id AND (e.tenant_name, e.skill_id, e.zitadel_org_id, e.event_kind, e.occurred_at)
                              = (c.tenant_name, c.subject, c.zitadel_org_id, c.observed, c.occurred_at)
WHERE c.event_table = 'tenant_skill_events'
      AND EXISTS (
        SELECT FROM late_skill late
        WHERE (late.tenant_name, late.skill_id, late.event_kind) = (e.tenant_name, e.skill_id, e.event_kind)
              AND late.occurred_at BETWEEN c.not_before AND c.not_after AND late.id > e.id)
UNION ALL
SELECT c.tenant_name, NULL, c.zitadel_org_id, e.id, e.event_kind, e.occurred_at, c.not_before, c.not_after
FROM assumed c
JOIN suspension_event e
     ON e.id = c.event_id AND (e.tenant_name, e.zitadel_org_id, e.event_kind, e.occurred_at)
                              = (c.tenant_name, c.zitadel_org_id, CASE c.observed WHEN 'running' THEN 'resumed'
                                                                                  ELSE c.observed END, c.occurred_at)
WHERE c.event_table = 'tenant_suspension_events'
      AND EXISTS (
        SELECT FROM late_suspension late
        WHERE (late.tenant_name, late.event_kind) = (e.tenant_name, e.event_kind)
              AND late.occurred_at BETWEEN c.not_before AND c.not_after AND late.id > e.id)
ORDER BY 1, 2, 4

-- name: key_events
-- Every event of these keys, key by key, the latest last, and the interval of a correction; whether it counts: neither
-- what was taken back, nor what took it back, nor what a decision wrote does.
WITH wanted AS (
  SELECT * FROM unnest(%(tenants)s::text[], %(skills)s::text[]) AS wanted (tenant_name, skill_id)
), event AS (
  SELECT 'tenant_skill_events' AS event_table, e.tenant_name, e.skill_id, e.id, e.event_kind, e.occurred_at,
         e.zitadel_org_id
  FROM public.tenant_skill_events e JOIN wanted w USING (tenant_name, skill_id)
  UNION ALL
  SELECT 'tenant_suspension_events', e.tenant_name, NULL, e.id, e.event_kind, e.occurred_at, e.zitadel_org_id
  FROM public.tenant_suspension_events e JOIN wanted w ON w.tenant_name = e.tenant_name AND w.skill_id IS NULL
)
SELECT e.tenant_name, e.skill_id, e.id, e.event_kind, e.occurred_at, e.zitadel_org_id,
       c.not_before, c.not_after, c.id IS NOT NULL,
       (c.id IS NULL OR c.taken_back_at IS NULL AND c.reason <> 'correction_superseded' AND c.decision IS NULL)
       AND NOT EXISTS (SELECT FROM reconciler.corrections back
                       WHERE (back.event_table, back.takes_back_event_id) = (e.event_table, e.id))
FROM event e
LEFT JOIN reconciler.corrections c
       ON (c.tenant_name, c.event_table, c.event_id) = (e.tenant_name, e.event_table, e.id)
ORDER BY e.tenant_name, e.skill_id, e.occurred_at, e.id

-- name: known_lifetimes
-- Every lifetime of these tenants, by its beginning; from when its history is known: that of the tenant which had its
-- name by then and was not gone; and who pays for a day of it because a person decided so.
SELECT l.tenant_name, l.zitadel_org_id, l.created_at, l.deleted_at, (
         SELECT t.since FROM reconciler.tenants t JOIN reconciler.source s ON t.source = s.identity
         WHERE t.tenant_name = l.tenant_name AND t.created_at <= least(l.created_at, %(last)s) + %(settle)s::interval
               AND coalesce(t.deleting_at, t.gone_at, 'infinity') > l.created_at
         ORDER BY t.created_at DESC LIMIT 1),
       ARRAY(
         SELECT p.org FROM reconciler.paid_days p
         WHERE p.tenant_name = l.tenant_name
               AND p.from_day::timestamp AT TIME ZONE 'UTC' < coalesce(l.deleted_at, 'infinity')
               AND p.until_day::timestamp AT TIME ZONE 'UTC' > l.created_at)
FROM (
  SELECT tenant_name, zitadel_org_id, created_at, deleted_at, true AS is_last FROM public.tenant_billing_lifecycle
  WHERE tenant_name = ANY (%(names)s::text[])
  UNION ALL
  SELECT tenant_name, zitadel_org_id, created_at, deleted_at, false FROM reconciler.earlier_lifetimes
  WHERE tenant_name = ANY (%(names)s::text[])
) l
ORDER BY l.created_at, l.is_last

-- name: gaps_of
-- When it is not known what happened to these tenants.
SELECT g.tenant_name, g.from_at, g.until_at
FROM reconciler.gaps g JOIN reconciler.source s ON g.source = s.identity
WHERE g.tenant_name = ANY (%(names)s::text[])

-- name: moved_tenants
-- The tenants whose organisation is reported to have moved.
SELECT tenant_name FROM reconciler.reports WHERE reason = 'org_moved'

-- name: keep_events_seen
-- What a run has looked at, in the transaction of its row. The run has pinned the source.
UPDATE reconciler.source
SET skill_events_seen = %(skill)s, suspension_events_seen = %(suspension)s, corrections_seen = %(correction)s,
    events_near = %(near)s,
    closed_months_checked = CASE WHEN %(month)s::text IS NULL THEN closed_months_checked
                                 ELSE closed_months_checked || jsonb_build_object(%(month)s::text, now()) END,
    events_checked_at = coalesce(%(checked_at)s::timestamptz, events_checked_at)

-- name: decisions_of
-- What people have decided of these tenants, key by key, and of which it stands: its number, the state, from when until
-- when, and the id of the first event that it wrote. A decision without a state takes a row back.
WITH decided AS MATERIALIZED (
  SELECT tenant_name, subject, number, reason, observed, not_before, not_after, event_table, event_id, id
  FROM reconciler.corrections
  WHERE tenant_name = ANY (%(names)s::text[]) AND decision IS NOT NULL AND run_id IS NULL AND taken_back_at IS NULL
        AND action = 'append' AND (reason = 'retracted' OR occurred_at = not_before)
), skill_event AS MATERIALIZED (
  SELECT id FROM public.tenant_skill_events
  WHERE id IN (SELECT event_id FROM decided WHERE event_table = 'tenant_skill_events')
), suspension_event AS MATERIALIZED (
  SELECT id FROM public.tenant_suspension_events
  WHERE id IN (SELECT event_id FROM decided WHERE event_table = 'tenant_suspension_events')
)
SELECT tenant_name, subject, number, reason = 'recorded', observed, not_before, not_after, event_id
FROM decided
-- else an unknown hand took it out
WHERE event_table = 'tenant_skill_events' AND event_id IN (SELECT id FROM skill_event)
      OR event_table = 'tenant_suspension_events' AND event_id IN (SELECT id FROM suspension_event)
      OR event_id IS NULL
ORDER BY tenant_name, subject, number, id

-- name: retracted_events
-- The events of these tenants that a person took back, each with its key.
SELECT c.tenant_name, c.subject, c.event_id FROM reconciler.corrections c
WHERE c.tenant_name = ANY (%(names)s::text[]) AND c.decision IS NULL
      AND c.taken_back_by IN (SELECT decision FROM reconciler.corrections back WHERE back.tenant_name = c.tenant_name)
UNION
SELECT tenant_name, subject, takes_back_event_id FROM reconciler.corrections
WHERE tenant_name = ANY (%(names)s::text[]) AND takes_back_event_id IS NOT NULL

-- name: decided_lifetimes
-- From when until when people said that these tenants lived, or were gone.
SELECT tenant_name, not_before, coalesce(not_after, %(last)s) FROM reconciler.corrections
WHERE tenant_name = ANY (%(names)s::text[]) AND event_table = 'tenant_billing_lifecycle' AND decision IS NOT NULL

-- name: decided_tenants
SELECT DISTINCT tenant_name FROM reconciler.corrections
WHERE decision IS NOT NULL AND (%(names)s::text[] IS NULL OR tenant_name = ANY (%(names)s::text[]))
