-- What other programs record and read, through reconciler.ledger. Each is a single statement, so it is atomic outside
-- of a transaction too; the columns that it returns are named like the fields that they fill.

-- name: hidden_tables
-- Those of these tables of which a row-level security policy may hide rows from the current role.
SELECT name FROM pg_catalog.unnest(%(tables)s::text[]) AS name WHERE pg_catalog.row_security_active(name)

-- name: record_creation
-- An existing row stays as it is: created_at never changes.
INSERT INTO public.tenant_billing_lifecycle (tenant_name, zitadel_org_id, created_at)
VALUES (%(tenant)s, %(org)s, %(created_at)s)
ON CONFLICT (tenant_name) DO NOTHING
RETURNING true

-- name: record_deletion
-- Sets deleted_at once. Returns whether it did and the tenant's created_at; no row if the tenant is not recorded.
-- created_at comes from another clock, which may be ahead of this one.
WITH stamped AS (
  UPDATE public.tenant_billing_lifecycle
  SET deleted_at = coalesce(%(deleted_at)s::timestamptz, greatest(now(), created_at))
  WHERE tenant_name = %(tenant)s AND deleted_at IS NULL
        AND created_at <= coalesce(%(deleted_at)s::timestamptz, created_at)
  RETURNING tenant_name
)
SELECT EXISTS (SELECT FROM stamped), created_at
FROM public.tenant_billing_lifecycle WHERE tenant_name = %(tenant)s

-- name: read_lifecycle
SELECT zitadel_org_id AS org, created_at, deleted_at
FROM public.tenant_billing_lifecycle WHERE tenant_name = %(tenant)s

-- name: read_lifecycles
SELECT tenant_name, zitadel_org_id, created_at, deleted_at
FROM public.tenant_billing_lifecycle WHERE zitadel_org_id = %(org)s
ORDER BY tenant_name COLLATE "C"

-- name: record_skill_events
INSERT INTO public.tenant_skill_events (tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at)
SELECT %(tenant)s, %(org)s, skill_id, event_kind, coalesce(%(occurred_at)s::timestamptz, now())
FROM (
  SELECT unnest(%(enabled)s::text[]) AS skill_id, 'enabled' AS event_kind
  UNION ALL
  SELECT unnest(%(disabled)s::text[]), 'disabled'
) change
ORDER BY skill_id COLLATE "C"
RETURNING id, tenant_name AS tenant, zitadel_org_id AS org, skill_id AS skill, event_kind AS kind, occurred_at

-- name: record_suspension_event
INSERT INTO public.tenant_suspension_events (tenant_name, zitadel_org_id, event_kind, occurred_at)
VALUES (%(tenant)s, %(org)s, %(kind)s, coalesce(%(occurred_at)s::timestamptz, now()))
RETURNING id, tenant_name AS tenant, zitadel_org_id AS org, event_kind AS kind, occurred_at

-- name: read_skill_state
SELECT DISTINCT ON (tenant_name, skill_id)
       id, tenant_name AS tenant, zitadel_org_id AS org, skill_id AS skill, event_kind AS kind, occurred_at
FROM public.tenant_skill_events
WHERE tenant_name = %(tenant)s AND occurred_at <= %(instant)s
ORDER BY tenant_name, skill_id, occurred_at DESC, id DESC

-- name: read_suspension_state
SELECT DISTINCT ON (tenant_name)
       id, tenant_name AS tenant, zitadel_org_id AS org, event_kind AS kind, occurred_at
FROM public.tenant_suspension_events
WHERE tenant_name = %(tenant)s AND occurred_at <= %(instant)s
ORDER BY tenant_name, occurred_at DESC, id DESC

-- name: read_skill_events
SELECT id, tenant_name AS tenant, zitadel_org_id AS org, skill_id AS skill, event_kind AS kind, occurred_at
FROM public.tenant_skill_events
WHERE (%(tenant)s::text IS NULL OR tenant_name = %(tenant)s::text)
      AND (%(org)s::text IS NULL OR zitadel_org_id = %(org)s::text)
      AND occurred_at >= %(since)s AND occurred_at < %(until)s
ORDER BY occurred_at, id

-- name: read_suspension_events
SELECT id, tenant_name AS tenant, zitadel_org_id AS org, event_kind AS kind, occurred_at
FROM public.tenant_suspension_events
WHERE (%(tenant)s::text IS NULL OR tenant_name = %(tenant)s::text)
      AND (%(org)s::text IS NULL OR zitadel_org_id = %(org)s::text)
      AND occurred_at >= %(since)s AND occurred_at < %(until)s
ORDER BY occurred_at, id

-- name: read_platform_prices
SELECT tenant_monthly_fee_chf, tenant_setup_fee_chf, threema_message_chf, vat_rate_chli, updated_at
FROM public.platform_pricing WHERE id = 1

-- name: change_platform_prices
-- A null leaves that price as it is.
UPDATE public.platform_pricing
SET tenant_monthly_fee_chf = coalesce(%(tenant_monthly_fee_chf)s::numeric, tenant_monthly_fee_chf),
    tenant_setup_fee_chf = coalesce(%(tenant_setup_fee_chf)s::numeric, tenant_setup_fee_chf),
    threema_message_chf = coalesce(%(threema_message_chf)s::numeric, threema_message_chf),
    vat_rate_chli = coalesce(%(vat_rate_chli)s::numeric, vat_rate_chli),
    updated_at = now()
WHERE id = 1
RETURNING tenant_monthly_fee_chf, tenant_setup_fee_chf, threema_message_chf, vat_rate_chli, updated_at

-- name: read_skill_prices
SELECT skill_id AS skill, daily_price_chf, created_at, updated_at
FROM public.skill_pricing WHERE %(skill)s::text IS NULL OR skill_id = %(skill)s::text
ORDER BY skill_id COLLATE "C"

-- name: set_skill_price
-- The same price is not written again, so updated_at says when it last changed.
INSERT INTO public.skill_pricing AS p (skill_id, daily_price_chf) VALUES (%(skill)s, %(daily_price_chf)s)
ON CONFLICT (skill_id) DO UPDATE SET daily_price_chf = excluded.daily_price_chf, updated_at = now()
WHERE p.daily_price_chf <> excluded.daily_price_chf
RETURNING true

-- name: remove_skill_price
DELETE FROM public.skill_pricing WHERE skill_id = %(skill)s RETURNING true

-- name: read_org_billing
-- Its row, created now if it was missing. If another transaction created it since this statement began, DO NOTHING
-- would return no row; an update that changes nothing does.
WITH found AS (
  SELECT * FROM public.org_billing_config WHERE zitadel_org_id = %(org)s
), created AS (
  INSERT INTO public.org_billing_config AS c (zitadel_org_id)
  SELECT %(org)s WHERE NOT EXISTS (SELECT FROM found)
  ON CONFLICT (zitadel_org_id) DO UPDATE SET created_at = c.created_at
  RETURNING *
), settings AS (
  SELECT * FROM found UNION ALL SELECT * FROM created
)
SELECT zitadel_org_id AS org, pay_by_invoice, stripe_customer_id, auto_invoice_enabled, auto_reminders_enabled,
       created_at, updated_at
FROM settings

-- name: change_org_billing
-- A null leaves that setting as it is, except the Stripe customer, which can be set to null.
UPDATE public.org_billing_config
SET pay_by_invoice = coalesce(%(pay_by_invoice)s::boolean, pay_by_invoice),
    stripe_customer_id = CASE WHEN %(sets_stripe_customer)s::boolean THEN %(stripe_customer_id)s::text
                              ELSE stripe_customer_id END,
    auto_invoice_enabled = coalesce(%(auto_invoice_enabled)s::boolean, auto_invoice_enabled),
    auto_reminders_enabled = coalesce(%(auto_reminders_enabled)s::boolean, auto_reminders_enabled),
    updated_at = now()
WHERE zitadel_org_id = %(org)s
RETURNING zitadel_org_id AS org, pay_by_invoice, stripe_customer_id, auto_invoice_enabled, auto_reminders_enabled,
          created_at, updated_at
