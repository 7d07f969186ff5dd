-- What is billed: the queries of `reconciler usage`, and the history that a correction is priced by.

-- name: usage
-- What every item of every tenant costs each organisation in each calendar month of a period, in a pass over the events
-- in the order of the covering index. An item is a skill id, or null: the monthly fee. reconciler/billing.py says what
-- the rules are, and is held to give the same.
--
-- Intervals are half-open; the last moment that counts is a microsecond before their end, or before now.
WITH every_life AS (
  SELECT tenant_name, zitadel_org_id, created_at, coalesce(deleted_at, 'infinity') AS deleted_at, true AS is_last
  FROM public.tenant_billing_lifecycle
  UNION ALL
  SELECT tenant_name, zitadel_org_id, created_at, deleted_at, false FROM reconciler.closed_lives
), life AS (
  -- of an organisation's tenants the lives under another one too: they may have billed a day that is shared
  SELECT * FROM every_life
  WHERE (%(tenant)s::text IS NULL OR tenant_name = %(tenant)s)
        AND (%(org)s::text IS NULL
             OR tenant_name IN (SELECT tenant_name FROM every_life WHERE zitadel_org_id = %(org)s))
), month AS MATERIALIZED (
  SELECT begins::date AS month,
         extract(day FROM begins + interval '1 month' - interval '1 day') AS days,
         greatest(begins, %(first)s::date) AT TIME ZONE 'UTC' AS begins_at,
         least(least(begins + interval '1 month', %(until)s::date) AT TIME ZONE 'UTC', now()) AS ends_at
  FROM generate_series(date_trunc('month', %(first)s::date::timestamp), %(until)s::date - interval '1 day',
                       interval '1 month') AS begins
  -- so that a period may be as long as one likes
  WHERE begins AT TIME ZONE 'UTC' < now()
        AND (begins + interval '1 month') AT TIME ZONE 'UTC' > (SELECT min(created_at) FROM life)
), state AS (
  -- what each event made of its item, and until when: the row before is the event after
  SELECT tenant_name, skill_id AS item, event_kind = 'enabled' AS is_on, occurred_at AS begins_at,
         lag(occurred_at, 1, 'infinity') OVER latest_first AS ends_at
  FROM public.tenant_skill_events
  WHERE occurred_at < least(%(until)s::date::timestamp AT TIME ZONE 'UTC', now())
        AND (%(org)s::text IS NULL AND %(tenant)s::text IS NULL
             OR tenant_name = ANY (ARRAY(SELECT tenant_name FROM life)))
  WINDOW latest_first AS (PARTITION BY tenant_name, skill_id ORDER BY occurred_at DESC, id DESC)
  UNION ALL
  SELECT tenant_name, NULL, event_kind = 'resumed', occurred_at,
         lag(occurred_at, 1, 'infinity') OVER latest_first
  FROM (
    SELECT tenant_name, event_kind, occurred_at, id
    FROM public.tenant_suspension_events
    WHERE occurred_at < least(%(until)s::date::timestamp AT TIME ZONE 'UTC', now())
          AND (%(org)s::text IS NULL AND %(tenant)s::text IS NULL
               OR tenant_name = ANY (ARRAY(SELECT tenant_name FROM life)))
    UNION ALL
    -- a tenant runs until it is first suspended
    SELECT tenant_name, 'resumed', '-infinity', 0 FROM life
  ) suspension
  WINDOW latest_first AS (PARTITION BY tenant_name ORDER BY occurred_at DESC, id DESC)
), stretch AS (
  SELECT life.zitadel_org_id, life.tenant_name, state.item, month.month, month.days AS month_days,
         life.created_at, life.is_last, state.begins_at,
         (greatest(state.begins_at, life.created_at, month.begins_at) AT TIME ZONE 'UTC')::date AS first_day,
         ((least(state.ends_at, life.deleted_at, month.ends_at) - interval '1 microsecond')
          AT TIME ZONE 'UTC')::date AS last_day
  FROM state
  JOIN life ON life.tenant_name = state.tenant_name
  JOIN month ON greatest(state.begins_at, life.created_at, month.begins_at)
                < least(state.ends_at, life.deleted_at, month.ends_at)
  -- the first of these says nothing that the join does not, but most of all rows end here
  WHERE state.ends_at > %(first)s::date::timestamp AT TIME ZONE 'UTC' AND state.is_on
), counted AS (
  -- a day counts once, for the earliest life and stretch: all days up to the latest one so far are counted
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
  SELECT skill_id, daily_price_chf FROM public.skill_pricing WHERE daily_price_chf <> 'NaN'
), fee AS (
  SELECT coalesce(max(tenant_monthly_fee_chf), 0) AS chf FROM public.platform_pricing
  WHERE id = 1 AND tenant_monthly_fee_chf <> 'NaN'
)
SELECT zitadel_org_id, tenant_name, item, month, days,
       CASE WHEN item IS NULL THEN fee.chf ELSE daily_price_chf END,
       coalesce(round(CASE WHEN item IS NULL THEN fee.chf * days / month_days ELSE daily_price_chf * days END, 2), 0.00)
FROM line LEFT JOIN price ON price.skill_id = item CROSS JOIN fee
ORDER BY zitadel_org_id = 'unknown', zitadel_org_id COLLATE "C", tenant_name COLLATE "C",
         item COLLATE "C" NULLS FIRST, month

-- name: as_of
-- The instant from which on the query before counts nothing: when this transaction began.
SELECT now()

-- name: prices
-- What things cost: the monthly fee under null, a skill's day under its id. What is no number is no price.
SELECT NULL, tenant_monthly_fee_chf FROM public.platform_pricing WHERE id = 1 AND tenant_monthly_fee_chf <> 'NaN'
UNION ALL
SELECT skill_id, daily_price_chf FROM public.skill_pricing WHERE daily_price_chf <> 'NaN'

-- name: lives
-- Every life of these tenants, by its beginning. Here and below, times are brought into the years that a Python
-- datetime can hold; the order is that of the times as they stand.
SELECT tenant_name, zitadel_org_id, least(greatest(created_at, %(first)s), %(last)s),
       CASE WHEN deleted_at IS NOT NULL THEN least(greatest(deleted_at, %(first)s), %(last)s) END
FROM (
  SELECT tenant_name, zitadel_org_id, created_at, deleted_at, true AS is_last FROM public.tenant_billing_lifecycle
  WHERE tenant_name = ANY (%(names)s::text[])
  UNION ALL
  SELECT tenant_name, zitadel_org_id, created_at, deleted_at, false FROM reconciler.closed_lives
  WHERE tenant_name = ANY (%(names)s::text[])
) life
ORDER BY created_at, is_last

-- name: history
-- Every event of these tenants, the latest last: of their skills, and under null those of their suspension. Of the
-- tenants that are named with a skill, the events of that skill alone.
SELECT tenant_name, skill_id, id, event_kind, least(greatest(occurred_at, %(first)s), %(last)s)
FROM (
  SELECT tenant_name, skill_id, id, event_kind, occurred_at FROM public.tenant_skill_events
  WHERE tenant_name = ANY (%(whole)s::text[])
  UNION ALL
  SELECT tenant_name, skill_id, id, event_kind, occurred_at FROM public.tenant_skill_events
  JOIN unnest(%(tenants)s::text[], %(skills)s::text[]) AS wanted (tenant_name, skill_id)
       USING (tenant_name, skill_id)
  UNION ALL
  SELECT tenant_name, NULL, id, event_kind, occurred_at FROM public.tenant_suspension_events
  WHERE tenant_name = ANY (%(names)s::text[])
) event
ORDER BY occurred_at, id
