-- What is billed: the queries of `reconciler usage`, and the history that prices a correction.

-- name: usage
-- What every item of every tenant costs each organisation in each calendar month of a period. It reads the events once,
-- in the order of the covering index. An item is a skill id, or null: the monthly fee. reconciler/core/billing.py has
-- the same rules in Python, and a test compares the two. The months that are closed have the prices that their closings
-- keep; `prices` are those to use in their place. What stands after it, see db/usage.py, says what becomes of the lines.
--
-- Intervals are half-open; the last moment that counts is a microsecond before their end, or before now.
WITH paid AS (
  SELECT tenant_name, org, from_day::timestamp AT TIME ZONE 'UTC' AS begins_at,
         until_day::timestamp AT TIME ZONE 'UTC' AS ends_at
  FROM reconciler.paid_days WHERE %(tenants)s::text[] IS NULL OR tenant_name = ANY (%(tenants)s)
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
  WHERE (%(tenants)s::text[] IS NULL OR tenant_name = ANY (%(tenants)s))
        --[ postgresql
        AND (%(org)s::text IS NULL
             OR tenant_name IN (SELECT tenant_name FROM every_lifetime WHERE zitadel_org_id = %(org)s))
        --[ citus
        -- where a subquery is planned away, Citus does not keep the result that it would read
        AND tenant_name IN (SELECT tenant_name FROM every_lifetime
                            WHERE zitadel_org_id = coalesce(%(org)s::text, zitadel_org_id))
        --]
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
        --[ postgresql
        AND (%(org)s::text IS NULL AND %(tenants)s::text[] IS NULL
             OR tenant_name = ANY (ARRAY(SELECT tenant_name FROM lifetime)))
        --[ citus
        AND tenant_name IN (SELECT tenant_name FROM lifetime)
        --]
  WINDOW latest_first AS (PARTITION BY tenant_name, skill_id ORDER BY occurred_at DESC, id DESC)
  UNION ALL
  SELECT tenant_name, NULL, event_kind = 'resumed', occurred_at,
         lag(occurred_at, 1, 'infinity') OVER latest_first
  FROM (
    SELECT tenant_name, event_kind, occurred_at, id
    FROM public.tenant_suspension_events
    WHERE occurred_at < least(%(until)s::date::timestamp AT TIME ZONE 'UTC', now())
          AND id <> ALL (ARRAY(SELECT event_id FROM reconciler.left_out WHERE event_table = 'tenant_suspension_events'))
          --[ postgresql
          AND (%(org)s::text IS NULL AND %(tenants)s::text[] IS NULL
               OR tenant_name = ANY (ARRAY(SELECT tenant_name FROM lifetime)))
          --[ citus
          AND tenant_name IN (SELECT tenant_name FROM lifetime)
          --]
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
), kept AS MATERIALIZED (
  SELECT month, prices FROM reconciler.kept_prices WHERE %(prices)s::jsonb IS NULL
  UNION ALL SELECT month, %(prices)s::jsonb FROM month WHERE %(prices)s::jsonb IS NOT NULL
), price AS (
  -- the fee has no item
  SELECT month, skill_id AS item, daily_price_chf AS chf
  FROM month CROSS JOIN public.skill_pricing WHERE month NOT IN (SELECT month FROM kept)
  UNION ALL
  SELECT month, NULL, coalesce((SELECT tenant_monthly_fee_chf FROM public.platform_pricing WHERE id = 1), 0)
  FROM month WHERE month NOT IN (SELECT month FROM kept)
  UNION ALL SELECT month, each.key, each.value::numeric FROM kept CROSS JOIN jsonb_each_text(prices -> 'skills') AS each
  UNION ALL SELECT month, NULL, (prices ->> 'fee')::numeric FROM kept
)
SELECT line.zitadel_org_id AS org, line.tenant_name, line.item, line.month, line.days, price.chf AS price,
       coalesce(round(CASE WHEN line.item IS NULL THEN chf * days / month_days ELSE chf * days END, 2), 0.00) AS amount
-- two columns for one comparison, so that it can be hashed
FROM line LEFT JOIN price ON (price.month, price.item IS NULL, coalesce(price.item, ''))
                             = (line.month, line.item IS NULL, coalesce(line.item, ''))

-- name: usage_lines
-- After `usage`: its lines.
SELECT org, tenant_name, item, month, days, price, amount FROM usage
ORDER BY org = 'unknown', org COLLATE "C", tenant_name COLLATE "C", item COLLATE "C" NULLS FIRST, month

-- name: settled_lines
-- After `usage`: each of its lines beside what the closings of its month hold of it, if the month is one of `whole`, and
-- whether it is closed for its organisation; also the lines that only closings have. With `due`, only those that differ.
, held AS (
  SELECT c.month, l.org, l.tenant_name, l.item, sum(l.days) AS days, max(l.price_chf) AS price,
         sum(l.amount_chf) AS amount
  FROM reconciler.closings c JOIN reconciler.closed_lines l ON l.closing = c.id
  WHERE c.month = ANY (%(whole)s::date[]) AND (%(org)s::text IS NULL OR l.org = %(org)s)
        AND (%(tenants)s::text[] IS NULL OR l.tenant_name = ANY (%(tenants)s))
  GROUP BY c.month, l.org, l.tenant_name, l.item
), settled AS (
  SELECT coalesce(u.org, h.org) AS org, coalesce(u.tenant_name, h.tenant_name) AS tenant_name,
         CASE WHEN u.org IS NULL THEN h.item ELSE u.item END AS item, coalesce(u.month, h.month) AS month,
         coalesce(h.days, 0) AS days_before, coalesce(u.days, 0) AS days_after, coalesce(u.price, h.price) AS price,
         coalesce(h.amount, 0.00) AS amount_before, coalesce(u.amount, 0.00) AS amount_after
  FROM usage u FULL JOIN held h
       ON (h.month, h.org, h.tenant_name, h.item IS NULL, coalesce(h.item, ''))
          = (u.month, u.org, u.tenant_name, u.item IS NULL, coalesce(u.item, ''))
)
SELECT s.org, tenant_name, item, s.month, days_before, days_after, price, amount_before, amount_after,
       coalesce(s.month = ANY (%(whole)s::date[]) AND (c.is_for_everybody OR s.org = ANY (c.orgs)), false)
FROM settled s LEFT JOIN reconciler.closed_months c ON c.month = s.month
WHERE NOT %(due)s OR (days_before, amount_before) <> (days_after, amount_after)
ORDER BY s.org = 'unknown', s.org COLLATE "C", tenant_name COLLATE "C", item COLLATE "C" NULLS FIRST, s.month

-- name: as_of
-- The instant up to which `usage` counts: the beginning of this transaction.
SELECT now()

-- name: prices
-- What things cost, and since when: the monthly fee under null, a skill's day under its id.
SELECT NULL, tenant_monthly_fee_chf, updated_at FROM public.platform_pricing WHERE id = 1
UNION ALL
SELECT skill_id, daily_price_chf, greatest(created_at, updated_at) FROM public.skill_pricing

-- name: vat_rate
SELECT vat_rate_chli, updated_at FROM public.platform_pricing WHERE id = 1

-- name: kept_prices
SELECT month, prices::text FROM reconciler.kept_prices

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

-- name: closed_months
-- For whom each month is closed: for everybody, or for these organisations.
SELECT month, is_for_everybody, orgs FROM reconciler.closed_months

-- name: closed_numbers
-- How many closings each closed month has; of an organisation, the months that are closed for it.
SELECT month, max(number) FROM reconciler.closings c
WHERE %(org)s::text IS NULL OR EXISTS (SELECT FROM reconciler.closed_months m
                                       WHERE m.month = c.month AND (m.is_for_everybody OR %(org)s::text = ANY (m.orgs)))
GROUP BY month ORDER BY month
