-- The billing ledger, which the portal and the reconciler share: an existing table is never altered.
--
-- Every statement creates one object and has IF NOT EXISTS, so the file can also be run with psql, any number of times.
-- `reconciler migrate` runs only the statements whose object is missing, because CREATE INDEX locks its table against
-- inserts even if the index exists.

CREATE TABLE IF NOT EXISTS public.platform_pricing (
    id                     int            PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    tenant_monthly_fee_chf numeric(10, 2) NOT NULL DEFAULT 0,
    tenant_setup_fee_chf   numeric(10, 2) NOT NULL DEFAULT 0,
    threema_message_chf    numeric(10, 5) NOT NULL DEFAULT 0,
    vat_rate_chli          numeric(5, 2)  NOT NULL DEFAULT 8.10,
    updated_at             timestamptz    NOT NULL DEFAULT now()
);

INSERT INTO public.platform_pricing (id) VALUES (1) ON CONFLICT (id) DO NOTHING;

CREATE TABLE IF NOT EXISTS public.skill_pricing (
    skill_id        text           PRIMARY KEY,
    daily_price_chf numeric(10, 5) NOT NULL,
    created_at      timestamptz    NOT NULL DEFAULT now(),
    updated_at      timestamptz    NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS public.tenant_billing_lifecycle (
    tenant_name    text        PRIMARY KEY,
    zitadel_org_id text        NOT NULL,
    created_at     timestamptz NOT NULL,
    deleted_at     timestamptz
);

CREATE INDEX IF NOT EXISTS idx_tenant_billing_lifecycle_org ON public.tenant_billing_lifecycle (zitadel_org_id);

CREATE TABLE IF NOT EXISTS public.tenant_skill_events (
    id             bigserial   PRIMARY KEY,
    tenant_name    text        NOT NULL,
    zitadel_org_id text        NOT NULL,
    skill_id       text        NOT NULL,
    event_kind     text        NOT NULL CHECK (event_kind IN ('enabled', 'disabled')),
    occurred_at    timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX IF NOT EXISTS idx_tenant_skill_events_tenant_skill
    ON public.tenant_skill_events (tenant_name, skill_id, occurred_at);

CREATE INDEX IF NOT EXISTS idx_tenant_skill_events_org_time ON public.tenant_skill_events (zitadel_org_id, occurred_at);

CREATE TABLE IF NOT EXISTS public.tenant_suspension_events (
    id             bigserial   PRIMARY KEY,
    tenant_name    text        NOT NULL,
    zitadel_org_id text        NOT NULL,
    event_kind     text        NOT NULL CHECK (event_kind IN ('suspended', 'resumed')),
    occurred_at    timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX IF NOT EXISTS idx_tenant_suspension_events_tenant
    ON public.tenant_suspension_events (tenant_name, occurred_at);

CREATE TABLE IF NOT EXISTS public.org_billing_config (
    zitadel_org_id         text        PRIMARY KEY,
    pay_by_invoice         bool        NOT NULL DEFAULT false,
    stripe_customer_id     text,
    auto_invoice_enabled   bool        NOT NULL DEFAULT true,
    auto_reminders_enabled bool        NOT NULL DEFAULT true,
    created_at             timestamptz NOT NULL DEFAULT now(),
    updated_at             timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS public.org_payment_methods (
    id                       uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    zitadel_org_id           text        NOT NULL,
    stripe_payment_method_id text        NOT NULL UNIQUE,
    brand                    text,
    last4                    text,
    exp_month                int,
    exp_year                 int,
    is_default               bool        NOT NULL DEFAULT false,
    created_at               timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX IF NOT EXISTS idx_org_payment_methods_org ON public.org_payment_methods (zitadel_org_id);

CREATE UNIQUE INDEX IF NOT EXISTS uniq_org_payment_methods_default
    ON public.org_payment_methods (zitadel_org_id) WHERE is_default;

CREATE TABLE IF NOT EXISTS public.invoice_number_counters (
    year        int PRIMARY KEY,
    last_number int NOT NULL DEFAULT 0
);

CREATE TABLE IF NOT EXISTS public.invoices (
    id                       uuid           PRIMARY KEY DEFAULT gen_random_uuid(),
    invoice_number           text           NOT NULL UNIQUE,
    zitadel_org_id           text           NOT NULL,
    period_start             date           NOT NULL,
    period_end               date           NOT NULL, -- the last day, inclusive
    issued_at                timestamptz    NOT NULL DEFAULT now(),
    due_at                   date           NOT NULL,
    subtotal_chf             numeric(10, 2) NOT NULL,
    vat_rate                 numeric(5, 2)  NOT NULL,
    vat_amount_chf           numeric(10, 2) NOT NULL,
    total_chf                numeric(10, 2) NOT NULL,
    status                   text           NOT NULL DEFAULT 'open'
        CHECK (status IN ('draft', 'open', 'paid', 'overdue', 'void', 'uncollectible')),
    billing_snapshot         jsonb          NOT NULL,
    payment_method           text           NOT NULL CHECK (payment_method IN ('invoice', 'card')),
    stripe_payment_intent_id text,
    pdf_data                 bytea,
    pdf_filename             text,
    admin_notes              text,
    paid_at                  timestamptz,
    paid_by                  text,
    paid_method_detail       text,
    created_at               timestamptz    NOT NULL DEFAULT now()
);

CREATE INDEX IF NOT EXISTS idx_invoices_org ON public.invoices (zitadel_org_id, issued_at DESC);

CREATE INDEX IF NOT EXISTS idx_invoices_status ON public.invoices (status, due_at);

CREATE UNIQUE INDEX IF NOT EXISTS uniq_invoices_org_period ON public.invoices (zitadel_org_id, period_start);

CREATE TABLE IF NOT EXISTS public.invoice_lines (
    id             uuid           PRIMARY KEY DEFAULT gen_random_uuid(),
    invoice_id     uuid           NOT NULL REFERENCES public.invoices (id) ON DELETE CASCADE,
    tenant_name    text,
    kind           text           NOT NULL
        CHECK (kind IN ('tenant_monthly', 'tenant_setup', 'ai_usage', 'threema_messages', 'skill_usage', 'adjustment')),
    description    text           NOT NULL,
    quantity       numeric(12, 4) NOT NULL DEFAULT 1,
    unit_label     text,
    unit_price_chf numeric(10, 5) NOT NULL,
    amount_chf     numeric(10, 2) NOT NULL,
    metadata       jsonb,
    display_order  int            NOT NULL DEFAULT 0
);

CREATE INDEX IF NOT EXISTS idx_invoice_lines_invoice ON public.invoice_lines (invoice_id, display_order);

CREATE TABLE IF NOT EXISTS public.invoice_reminders (
    id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    invoice_id    uuid        NOT NULL REFERENCES public.invoices (id) ON DELETE CASCADE,
    level         int         NOT NULL CHECK (level IN (1, 2, 3)),
    sent_at       timestamptz NOT NULL DEFAULT now(),
    sent_by       text        NOT NULL,
    pdf_data      bytea,
    pdf_filename  text,
    email_sent_to text,
    UNIQUE (invoice_id, level)
);

CREATE INDEX IF NOT EXISTS idx_invoice_reminders_invoice ON public.invoice_reminders (invoice_id, level);
