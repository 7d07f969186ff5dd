-- What is billed: the queries of `reconciler usage`, and the history that prices a correction.

-- name: usage
-- What every item of every tenant costs each organisation in each calendar month of a period. It reads the events once,
-- in the order of the covering index. An item is a skill id, or null: the monthly fee. reconciler/core/billing.py has
-- the same rules in Python, and a test compares the two.
--
-- Intervals are half-open; the last moment that counts is a microsecond before their end, or before now.
WITH paid AS (
  SELECT tenant_name, org, from_day::timestamp AT TIME ZONE 'UTC' AS begins_at,
         until_day::timestamp AT TIME ZONE 'UTC' AS ends_at
  FROM reconciler.paid_days WHERE %(tenant)s::text IS NULL OR tenant_name = %(tenant)s
), payer AS (
  -- all time, of the tenants with payers: without an organisation where that of the lifetime pays
  SELECT tenant_name, org, begins_at, ends_at FROM paid
  UNION ALL
  SELECT tenant_name, NULL, ends_at, lead(begins_at, 1, 'infinity') OVER (PARTITION BY tenant_name ORDER BY begins_at)
  FROM paid
  UNION ALL
  SELECT tenant_name, NULL, '-infinity', min(begins_at) FROM paid GROUP BY tenant_name
), every_lifetime AS (
  -- in one row for each payer: they change at midnight, so that each day stays in one of them
  SELECT l.tenant_name, coalesce(p.org, l.zitadel_org_id) AS zitadel_org_id, l.created_at, l.is_last,
         greatest(l.created_at, p.begins_at) AS begins_at,
         least(coalesce(l.deleted_at, 'infinity'), p.ends_at) AS ends_at
  FROM (
    SELECT tenant_name, zitadel_org_id, created_at, deleted_at, true AS is_last FROM public.tenant_billing_lifecycle
    UNION ALL
    SELECT tenant_name, zitadel_org_id, created_at, deleted_at, false FROM reconciler.earlier_lifetimes
  ) l LEFT JOIN payer p ON p.tenant_name = l.tenant_name
), lifetime AS (
  -- an organisation's tenants with all their lifetimes: what another organisation pays may have billed a shared day
  SELECT * FROM every_lifetime
  WHERE (%(tenant)s::text IS NULL OR tenant_name = %(tenant)s)
        AND (%(org)s::text IS NULL
             OR tenant_name IN (SELECT tenant_name FROM every_lifetime WHERE zitadel_org_id = %(org)s))
), month AS MATERIALIZED (
  SELECT begins::date AS month,
         extract(day FROM begins + interval '1 month' - interval '1 day') AS days,
         greatest(begins, %(first)s::date) AT TIME ZONE 'UTC' AS begins_at,
         least(least(begins + interval '1 month', %(until)s::date) AT TIME ZONE 'UTC', now()) AS ends_at
  FROM generate_series(date_trunc('month', %(first)s::date::timestamp), %(until)s::date - interval '1 day',
                       interval '1 month') AS begins
  -- a period may be as long as one likes, but no month is made in which nothing was recorded
  WHERE begins AT TIME ZONE 'UTC' < now()
        AND (begins + interval '1 month') AT TIME ZONE 'UTC' > (SELECT min(created_at) FROM lifetime)
), state AS (
  -- the state after each event, and until when it lasts: in this order the row before is the event after
  SELECT tenant_name, skill_id AS item, event_kind = 'enabled' AS is_on, occurred_at AS begins_at,
         lag(occurred_at, 1, 'infinity') OVER latest_first AS ends_at
  FROM public.tenant_skill_events
  WHERE occurred_at < least(%(until)s::date::timestamp AT TIME ZONE 'UTC', now())
        AND id <> ALL (ARRAY(SELECT event_id FROM reconciler.left_out WHERE event_table = 'tenant_skill_events'))
        AND (%(org)s::text IS NULL AND %(tenant)s::text IS NULL
             OR tenant_name = ANY (ARRAY(SELECT tenant_name FROM lifetime)))
  WINDOW latest_first AS (PARTITION BY tenant_name, skill_id ORDER BY occurred_at DESC, id DESC)
  UNION ALL
  SELECT tenant_name, NULL, event_kind = 'resumed', occurred_at,
         lag(occurred_at, 1, 'infinity') OVER latest_first
  FROM (
    SELECT tenant_name, event_kind, occurred_at, id
    FROM public.tenant_suspension_events
    WHERE occurred_at < least(%(until)s::date::timestamp AT TIME ZONE 'UTC', now())
          AND id <> ALL (ARRAY(SELECT event_id FROM reconciler.left_out WHERE event_table = 'tenant_suspension_events'))
          AND (%(org)s::text IS NULL AND %(tenant)s::text IS NULL
               OR tenant_name = ANY (ARRAY(SELECT tenant_name FROM lifetime)))
    UNION ALL
    -- a tenant runs until it is first suspended
    SELECT tenant_name, 'resumed', '-infinity', 0 FROM lifetime
  ) suspension
  WINDOW latest_first AS (PARTITION BY tenant_name ORDER BY occurred_at DESC, id DESC)
), stretch AS (
  SELECT lifetime.zitadel_org_id, lifetime.tenant_name, state.item, month.month, month.days AS month_days,
         lifetime.created_at, lifetime.is_last, greatest(state.begins_at, lifetime.begins_at) AS begins_at,
         (greatest(state.begins_at, lifetime.begins_at, month.begins_at) AT TIME ZONE 'UTC')::date AS first_day,
         ((least(state.ends_at, lifetime.ends_at, month.ends_at) - interval '1 microsecond')
          AT TIME ZONE 'UTC')::date AS last_day
  FROM state
  JOIN lifetime ON lifetime.tenant_name = state.tenant_name
  JOIN month ON greatest(state.begins_at, lifetime.begins_at, month.begins_at)
                < least(state.ends_at, lifetime.ends_at, month.ends_at)
  -- the join implies the first condition, but this way most rows are dropped before it
  WHERE state.ends_at > %(first)s::date::timestamp AT TIME ZONE 'UTC' AND state.is_on
), counted AS (
  -- a day counts once, for the earliest lifetime and stretch: all days up to the latest one so far are counted
  SELECT zitadel_org_id, tenant_name, item, month, month_days,
         last_day - greatest(first_day, 1 + max(last_day) OVER before) + 1 AS days
  FROM stretch
  WINDOW before AS (PARTITION BY tenant_name, item, month ORDER BY created_at, is_last, begins_at
                    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
), line AS (
  SELECT zitadel_org_id, tenant_name, item, month, month_days, sum(days) AS days
  FROM counted WHERE days > 0 AND (%(org)s::text IS NULL OR zitadel_org_id = %(org)s)
  GROUP BY tenant_name, item, month, month_days, zitadel_org_id
), price AS (
  SELECT skill_id, daily_price_chf FROM public.skill_pricing
), fee AS (
  SELECT coalesce(max(tenant_monthly_fee_chf), 0) AS chf FROM public.platform_pricing WHERE id = 1
)
SELECT zitadel_org_id, tenant_name, item, month, days,
       CASE WHEN item IS NULL THEN fee.chf ELSE daily_price_chf END,
       coalesce(round(CASE WHEN item IS NULL THEN fee.chf * days / month_days ELSE daily_price_chf * days END, 2), 0.00)
FROM line LEFT JOIN price ON price.skill_id = item CROSS JOIN fee
ORDER BY zitadel_org_id = 'unknown', zitadel_org_id COLLATE "C", tenant_name COLLATE "C",
         item COLLATE "C" NULLS FIRST, month

-- name: as_of
-- The instant up to which `usage` counts: the beginning of this transaction.
SELECT now()

-- name: prices
-- What things cost: the monthly fee under null, a skill's day under its id.
SELECT NULL, tenant_monthly_fee_chf FROM public.platform_pricing WHERE id = 1
UNION ALL
SELECT skill_id, daily_price_chf FROM public.skill_pricing

-- name: tenant_lifetimes
-- Every lifetime of these tenants, by its beginning.
SELECT tenant_name, zitadel_org_id, created_at, deleted_at
FROM (
  SELECT tenant_name, zitadel_org_id, created_at, deleted_at, true AS is_last FROM public.tenant_billing_lifecycle
  WHERE tenant_name = ANY (%(names)s::text[])
  UNION ALL
  SELECT tenant_name, zitadel_org_id, created_at, deleted_at, false FROM reconciler.earlier_lifetimes
  WHERE tenant_name = ANY (%(names)s::text[])
) lifetime
ORDER BY created_at, is_last

-- name: tenant_payers
-- Who pays for the days of these tenants of which a person decided that, by the ordinals of the first and the last one.
SELECT tenant_name, org, from_day - date '0001-01-01' + 1, least(until_day, date '9999-12-31' + 1) - date '0001-01-01'
FROM reconciler.paid_days WHERE tenant_name = ANY (%(names)s::text[])
ORDER BY tenant_name, from_day

-- name: tenant_events
-- Every event of these tenants, tenant by tenant and key by key, the latest last: those of their skills, and under null
-- those of their suspension. Of a tenant that is named with a skill, only the events of that skill.
SELECT tenant_name, skill_id, id, event_kind, occurred_at
FROM (
  SELECT 'tenant_skill_events' AS event_table, tenant_name, skill_id, id, event_kind, occurred_at
  FROM public.tenant_skill_events
  WHERE tenant_name = ANY (%(whole)s::text[])
  UNION ALL
  SELECT 'tenant_skill_events', tenant_name, skill_id, id, event_kind, occurred_at FROM public.tenant_skill_events
  JOIN unnest(%(tenants)s::text[], %(skills)s::text[]) AS wanted (tenant_name, skill_id)
       USING (tenant_name, skill_id)
  UNION ALL
  SELECT 'tenant_suspension_events', tenant_name, NULL, id, event_kind, occurred_at FROM public.tenant_suspension_events
  WHERE tenant_name = ANY (%(names)s::text[])
) event
WHERE NOT EXISTS (SELECT FROM reconciler.left_out l WHERE (l.event_table, l.event_id) = (event.event_table, event.id))
ORDER BY tenant_name, skill_id, occurred_at, id
