-- Closed months: the queries of reconciler/db/closing.py.

-- name: closings_of
-- The closings of a month; without one, those of the last month closed before it.
SELECT id, number, org, prices::text, corrections_seen, skill_events_seen, suspension_events_seen
FROM reconciler.closings
WHERE month = coalesce(
        (SELECT month FROM reconciler.closings WHERE month = %(month)s LIMIT 1),
        CASE WHEN %(or_before)s THEN (SELECT max(month) FROM reconciler.closings WHERE month < %(month)s) END)
ORDER BY number

-- name: closing_lines_table
-- What a closing is about to hold, for this transaction only.
CREATE TEMPORARY TABLE reconciler_closing_lines (
  org text, tenant_name text, item text, month date, days_before bigint, days_after bigint, price numeric,
  amount_before numeric, amount_after numeric, is_closed boolean
) ON COMMIT DROP

-- name: drop_closing_lines
DROP TABLE pg_temp.reconciler_closing_lines

-- name: fill_closing_lines
-- The lines follow.
INSERT INTO pg_temp.reconciler_closing_lines

-- name: closing_totals
-- What each organisation owes by it, and by the closings before; also of those that the month is invoiced to, and
-- whether an earlier closing holds anything of it or was made when it had an invoice.
WITH new AS (
  SELECT org, sum(amount_after - amount_before) AS chf FROM pg_temp.reconciler_closing_lines GROUP BY org
), held AS (
  SELECT l.org, sum(l.amount_chf) AS chf
  FROM reconciler.closings c JOIN reconciler.closed_lines l ON l.closing = c.id
  WHERE c.month = %(first)s AND (%(org)s::text IS NULL OR l.org = %(org)s)
  GROUP BY l.org
), invoiced AS (
  SELECT zitadel_org_id AS org, min(issued_at) AS since FROM public.invoices
  WHERE period_start < %(until)s AND period_end >= %(first)s AND status NOT IN ('draft', 'void')
        AND (%(org)s::text IS NULL OR zitadel_org_id = %(org)s)
  GROUP BY zitadel_org_id
)
SELECT org, coalesce(held.chf, 0.00), coalesce(new.chf, 0.00), new.org IS NOT NULL, held.org IS NULL AND NOT EXISTS (
         SELECT FROM reconciler.closings c
         WHERE c.month = %(first)s AND (c.org IS NULL OR c.org = every.org) AND c.closed_at > invoiced.since)
FROM (SELECT org FROM new UNION SELECT org FROM invoiced) AS every
LEFT JOIN held USING (org) LEFT JOIN new USING (org) LEFT JOIN invoiced USING (org)
ORDER BY org = 'unknown', org COLLATE "C"

-- name: closing_counts
-- How many lines it has, and which skills were on and have no price.
SELECT count(*), coalesce(array_agg(DISTINCT item ORDER BY item) FILTER (WHERE price IS NULL AND days_after > 0), '{}')
FROM pg_temp.reconciler_closing_lines

-- name: closing_marks
-- The highest ids before the lines are made: what comes after them is named behind a later difference.
SELECT coalesce((SELECT max(id) FROM reconciler.corrections), 0),
       coalesce((SELECT max(id) FROM public.tenant_skill_events), 0),
       coalesce((SELECT max(id) FROM public.tenant_suspension_events), 0)

-- name: unknown_names
-- Whether anybody was ever paid for by this organisation; and which of these tenants and skills nobody knows.
-- Citus takes no subquery without a column.
SELECT %(org)s::text IS NULL OR %(org)s::text = 'unknown'
       OR EXISTS (SELECT 1 FROM public.tenant_billing_lifecycle WHERE zitadel_org_id = %(org)s)
       OR EXISTS (SELECT 1 FROM reconciler.earlier_lifetimes WHERE zitadel_org_id = %(org)s)
       OR EXISTS (SELECT 1 FROM reconciler.payers WHERE org = %(org)s)
       OR EXISTS (SELECT 1 FROM reconciler.closings WHERE org = %(org)s)
       OR EXISTS (SELECT 1 FROM reconciler.closed_lines WHERE org = %(org)s),
       ARRAY(SELECT name FROM unnest(%(tenants)s::text[]) AS name
             WHERE NOT EXISTS (SELECT FROM public.tenant_billing_lifecycle WHERE tenant_name = name)
                   AND NOT EXISTS (SELECT FROM reconciler.tenants WHERE tenant_name = name)
                   AND NOT EXISTS (SELECT FROM reconciler.reports WHERE tenant_name = name)
                   AND name NOT IN (SELECT DISTINCT tenant_name FROM public.tenant_skill_events
                                    WHERE tenant_name = ANY (%(tenants)s::text[]))),
       ARRAY(SELECT skill FROM unnest(%(skills)s::text[]) AS skill
             WHERE NOT EXISTS (SELECT FROM public.skill_pricing WHERE skill_id = skill)
                   AND skill NOT IN (SELECT DISTINCT skill_id FROM public.tenant_skill_events
                                     WHERE skill_id = ANY (%(skills)s::text[])))

-- name: insert_closing
INSERT INTO reconciler.closings (
  source, month, number, org, by, note, run_id, prices, accepted, total_chf, corrections_seen, skill_events_seen,
  suspension_events_seen)
SELECT coalesce((SELECT identity FROM reconciler.source), ''), %(month)s, %(number)s, %(org)s, %(by)s, %(note)s,
       (SELECT id FROM reconciler.proving_runs WHERE compared = 'all' ORDER BY observed_at DESC LIMIT 1),
       %(prices)s::jsonb, %(accepted)s::jsonb, %(total)s, %(correction)s, %(skill)s, %(suspension)s
RETURNING id

-- name: insert_closed_lines
INSERT INTO reconciler.closed_lines (closing, org, tenant_name, item, days, price_chf, amount_chf)
SELECT %(closing)s, org, tenant_name, item, days_after - days_before, price, amount_after - amount_before
FROM pg_temp.reconciler_closing_lines

-- name: invoices_of
-- The invoices of some organisations over days of a period, each with what it has for the monthly fee and skills, all of
-- it where it has no lines; and whether it has no other days.
SELECT i.zitadel_org_id, i.invoice_number, coalesce(
         (SELECT coalesce(sum(l.amount_chf) FILTER (WHERE l.kind IN ('tenant_monthly', 'skill_usage')), 0.00)
          FROM public.invoice_lines l WHERE l.invoice_id = i.id HAVING count(*) > 0), i.subtotal_chf), i.vat_rate,
       i.period_start >= %(first)s AND i.period_end < %(until)s
FROM public.invoices i
WHERE i.zitadel_org_id = ANY (%(orgs)s::text[]) AND i.status NOT IN ('draft', 'void')
      AND i.period_start < %(until)s AND i.period_end >= %(first)s
ORDER BY i.zitadel_org_id, i.period_start, i.invoice_number

-- name: closed_lines
-- What one closing holds, each line beside what the closings before it held.
WITH closing AS (
  SELECT id, month, number FROM reconciler.closings WHERE month = %(month)s AND number = %(number)s
), earlier AS (
  SELECT l.org, l.tenant_name, l.item, sum(l.days) AS days, sum(l.amount_chf) AS amount
  FROM reconciler.closings c JOIN closing ON c.month = closing.month AND c.number < closing.number
  JOIN reconciler.closed_lines l ON l.closing = c.id
  GROUP BY l.org, l.tenant_name, l.item
)
SELECT l.org, l.tenant_name, l.item, closing.month, coalesce(e.days, 0), coalesce(e.days, 0) + l.days, l.price_chf,
       coalesce(e.amount, 0.00), coalesce(e.amount, 0.00) + l.amount_chf
FROM closing JOIN reconciler.closed_lines l ON l.closing = closing.id
LEFT JOIN earlier e ON (e.org, e.tenant_name, e.item IS NULL, coalesce(e.item, ''))
                       = (l.org, l.tenant_name, l.item IS NULL, coalesce(l.item, ''))
WHERE (%(org)s::text IS NULL OR l.org = %(org)s) AND (%(tenant)s::text IS NULL OR l.tenant_name = %(tenant)s)
ORDER BY l.org = 'unknown', l.org COLLATE "C", l.tenant_name COLLATE "C", l.item COLLATE "C" NULLS FIRST

-- name: causes
-- What was written about some tenants after these ids and before the end of a month: corrections by their numbers, and
-- the rows that are the portal's own. What is of no item can change all of them; the suspension is the monthly fee's.
WITH skill_event AS MATERIALIZED (
  SELECT tenant_name, skill_id, id FROM public.tenant_skill_events
  WHERE tenant_name = ANY (%(tenants)s::text[]) AND id > %(skill)s AND occurred_at < %(until)s
), suspension_event AS MATERIALIZED (
  SELECT tenant_name, id FROM public.tenant_suspension_events
  WHERE tenant_name = ANY (%(tenants)s::text[]) AND id > %(suspension)s AND occurred_at < %(until)s
)
SELECT tenant_name, event_table NOT IN ('tenant_skill_events', 'tenant_suspension_events'),
       CASE event_table WHEN 'tenant_skill_events' THEN subject END, 'number', id, number::text
FROM reconciler.corrections
WHERE tenant_name = ANY (%(tenants)s::text[]) AND id > %(correction)s AND coalesce(occurred_at, not_before) < %(until)s
UNION ALL
SELECT tenant_name, false, skill_id, 'skill', id, 'skill:' || id FROM skill_event e
WHERE NOT EXISTS (SELECT FROM reconciler.corrections c
                  WHERE (c.tenant_name, c.event_table, c.event_id) = (e.tenant_name, 'tenant_skill_events', e.id))
UNION ALL
SELECT tenant_name, false, NULL, 'suspension', id, 'suspension:' || id FROM suspension_event e
WHERE NOT EXISTS (SELECT FROM reconciler.corrections c
                  WHERE (c.tenant_name, c.event_table, c.event_id) = (e.tenant_name, 'tenant_suspension_events', e.id))
ORDER BY 5, 4

-- name: closed_month_totals
-- How each closed month stands, the latest first.
SELECT month, count(*), bool_or(org IS NULL), sum(total_chf),
       (array_agg((prices ->> 'vat')::numeric ORDER BY number DESC))[1], max(closed_at)
FROM reconciler.closings GROUP BY month ORDER BY month DESC LIMIT %(max_rows)s

-- name: reported_months
-- The tenants of which a closed month has changed, month by month, as the last run found.
SELECT to_date(subject, 'YYYY-MM'), array_agg(tenant_name) FROM reconciler.reports
WHERE reason = 'closed_month_changed' GROUP BY subject

-- name: months_to_look_at
-- The closed months, and which of them no run has looked at whole for a day, the one that waits longest first.
SELECT m.month, checked.at IS NULL OR checked.at < now() - interval '1 day' OR checked.at > now()
FROM reconciler.closed_months m
LEFT JOIN LATERAL (SELECT (closed_months_checked ->> m.month::text)::timestamptz AS at FROM reconciler.source) checked
       ON true
ORDER BY checked.at NULLS FIRST, m.month
