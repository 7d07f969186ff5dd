-- A ledger of version 0.1.0 with rows of every kind, as pg_dump --inserts wrote it; without comments and settings.
CREATE SCHEMA reconciler;
COMMENT ON SCHEMA reconciler IS 'What the billing reconciler keeps: every pass it made, every row of the ledger it corrected and why, and the reports that people accepted.';
CREATE TABLE public.invoice_lines (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    invoice_id uuid NOT NULL,
    tenant_name text,
    kind text NOT NULL,
    description text NOT NULL,
    quantity numeric(12,4) DEFAULT 1 NOT NULL,
    unit_label text,
    unit_price_chf numeric(10,5) NOT NULL,
    amount_chf numeric(10,2) NOT NULL,
    metadata jsonb,
    display_order integer DEFAULT 0 NOT NULL,
    CONSTRAINT invoice_lines_kind_check CHECK ((kind = ANY (ARRAY['tenant_monthly'::text, 'tenant_setup'::text, 'ai_usage'::text, 'threema_messages'::text, 'skill_usage'::text, 'adjustment'::text])))
);
CREATE TABLE public.invoice_number_counters (
    year integer NOT NULL,
    last_number integer DEFAULT 0 NOT NULL
);
CREATE TABLE public.invoice_reminders (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    invoice_id uuid NOT NULL,
    level integer NOT NULL,
    sent_at timestamp with time zone DEFAULT now() NOT NULL,
    sent_by text NOT NULL,
    pdf_data bytea,
    pdf_filename text,
    email_sent_to text,
    CONSTRAINT invoice_reminders_level_check CHECK ((level = ANY (ARRAY[1, 2, 3])))
);
CREATE TABLE public.invoices (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    invoice_number text NOT NULL,
    zitadel_org_id text NOT NULL,
    period_start date NOT NULL,
    period_end date NOT NULL,
    issued_at timestamp with time zone DEFAULT now() NOT NULL,
    due_at date NOT NULL,
    subtotal_chf numeric(10,2) NOT NULL,
    vat_rate numeric(5,2) NOT NULL,
    vat_amount_chf numeric(10,2) NOT NULL,
    total_chf numeric(10,2) NOT NULL,
    status text DEFAULT 'open'::text NOT NULL,
    billing_snapshot jsonb NOT NULL,
    payment_method text NOT NULL,
    stripe_payment_intent_id text,
    pdf_data bytea,
    pdf_filename text,
    admin_notes text,
    paid_at timestamp with time zone,
    paid_by text,
    paid_method_detail text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT invoices_payment_method_check CHECK ((payment_method = ANY (ARRAY['invoice'::text, 'card'::text]))),
    CONSTRAINT invoices_status_check CHECK ((status = ANY (ARRAY['draft'::text, 'open'::text, 'paid'::text, 'overdue'::text, 'void'::text, 'uncollectible'::text])))
);
CREATE TABLE public.org_billing_config (
    zitadel_org_id text NOT NULL,
    pay_by_invoice boolean DEFAULT false NOT NULL,
    stripe_customer_id text,
    auto_invoice_enabled boolean DEFAULT true NOT NULL,
    auto_reminders_enabled boolean DEFAULT true NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE public.org_payment_methods (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    zitadel_org_id text NOT NULL,
    stripe_payment_method_id text NOT NULL,
    brand text,
    last4 text,
    exp_month integer,
    exp_year integer,
    is_default boolean DEFAULT false NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE public.platform_pricing (
    id integer DEFAULT 1 NOT NULL,
    tenant_monthly_fee_chf numeric(10,2) DEFAULT 0 NOT NULL,
    tenant_setup_fee_chf numeric(10,2) DEFAULT 0 NOT NULL,
    threema_message_chf numeric(10,5) DEFAULT 0 NOT NULL,
    vat_rate_chli numeric(5,2) DEFAULT 8.10 NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT platform_pricing_id_check CHECK ((id = 1))
);
CREATE TABLE public.skill_pricing (
    skill_id text NOT NULL,
    daily_price_chf numeric(10,5) NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE public.tenant_billing_lifecycle (
    tenant_name text NOT NULL,
    zitadel_org_id text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    deleted_at timestamp with time zone
);
CREATE TABLE public.tenant_skill_events (
    id bigint NOT NULL,
    tenant_name text NOT NULL,
    zitadel_org_id text NOT NULL,
    skill_id text NOT NULL,
    event_kind text NOT NULL,
    occurred_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT tenant_skill_events_event_kind_check CHECK ((event_kind = ANY (ARRAY['enabled'::text, 'disabled'::text])))
);
CREATE SEQUENCE public.tenant_skill_events_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.tenant_skill_events_id_seq OWNED BY public.tenant_skill_events.id;
CREATE TABLE public.tenant_suspension_events (
    id bigint NOT NULL,
    tenant_name text NOT NULL,
    zitadel_org_id text NOT NULL,
    event_kind text NOT NULL,
    occurred_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT tenant_suspension_events_event_kind_check CHECK ((event_kind = ANY (ARRAY['suspended'::text, 'resumed'::text])))
);
CREATE SEQUENCE public.tenant_suspension_events_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.tenant_suspension_events_id_seq OWNED BY public.tenant_suspension_events.id;
CREATE TABLE reconciler.closed_lives (
    tenant_name text NOT NULL,
    zitadel_org_id text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    deleted_at timestamp with time zone NOT NULL,
    reopened_at timestamp with time zone DEFAULT now() NOT NULL,
    reopened_by text NOT NULL,
    note text NOT NULL
);
COMMENT ON TABLE reconciler.closed_lives IS 'The earlier lives of tenants that were deleted and created anew under the same name: the lifecycle holds only the last one. They are billed like it.';
COMMENT ON COLUMN reconciler.closed_lives.created_at IS 'When that life began, as the lifecycle row said.';
COMMENT ON COLUMN reconciler.closed_lives.deleted_at IS 'When it ended.';
COMMENT ON COLUMN reconciler.closed_lives.note IS 'Why the lifecycle was opened again.';
CREATE TABLE reconciler.corrections (
    id bigint NOT NULL,
    run_id uuid NOT NULL,
    reason text NOT NULL,
    tenant_name text NOT NULL,
    zitadel_org_id text NOT NULL,
    subject text,
    action text NOT NULL,
    recorded text,
    observed text NOT NULL,
    occurred_at timestamp with time zone,
    not_before timestamp with time zone,
    not_after timestamp with time zone,
    evidence text,
    event_table text NOT NULL,
    event_id bigint,
    supersedes_event_id bigint,
    life_began_at timestamp with time zone,
    closed_period boolean DEFAULT false NOT NULL,
    impact_chf numeric(10,2),
    impact_min_chf numeric(10,2),
    impact_max_chf numeric(10,2),
    CONSTRAINT corrections_action_check CHECK ((action = ANY (ARRAY['insert'::text, 'append'::text, 'stamp'::text, 'update'::text]))),
    CONSTRAINT corrections_evidence_check CHECK ((evidence = ANY (ARRAY['creation'::text, 'deletion'::text, 'suspended_at'::text, 'field_manager'::text, 'none'::text])))
);
COMMENT ON TABLE reconciler.corrections IS 'One row per row of the ledger that the reconciler wrote or changed: what was wrong, what it wrote, how it knows when that happened, and what it is worth.';
COMMENT ON COLUMN reconciler.corrections.run_id IS 'The pass that wrote it, see reconciler.runs.';
COMMENT ON COLUMN reconciler.corrections.reason IS 'What was wrong, for example skill_enable_unrecorded.';
COMMENT ON COLUMN reconciler.corrections.zitadel_org_id IS 'The organisation that pays, as it was written; "unknown" if the tenant carried no label.';
COMMENT ON COLUMN reconciler.corrections.subject IS 'The skill; empty where the correction is about the tenant as a whole.';
COMMENT ON COLUMN reconciler.corrections.action IS 'insert: a lifecycle row. append: an event. stamp: deleted_at was set. update: the organisation was set.';
COMMENT ON COLUMN reconciler.corrections.recorded IS 'What the ledger said before; empty if nothing.';
COMMENT ON COLUMN reconciler.corrections.observed IS 'What the cluster showed, which the ledger now says too.';
COMMENT ON COLUMN reconciler.corrections.occurred_at IS 'The moment the change was dated to; it lies between not_before and not_after.';
COMMENT ON COLUMN reconciler.corrections.not_before IS 'The change cannot have happened earlier.';
COMMENT ON COLUMN reconciler.corrections.not_after IS 'The change cannot have happened later.';
COMMENT ON COLUMN reconciler.corrections.evidence IS 'What proves the moment. creation: the tenant''s creation time. deletion: its deletion time. suspended_at: the time in its status. field_manager: when the field was last written. none: dated by policy.';
COMMENT ON COLUMN reconciler.corrections.event_table IS 'The table in schema public that was written to.';
COMMENT ON COLUMN reconciler.corrections.event_id IS 'The id of the event that was written there; empty for a lifecycle row.';
COMMENT ON COLUMN reconciler.corrections.supersedes_event_id IS 'The event that was the latest until then and was wrong; empty if there was none.';
COMMENT ON COLUMN reconciler.corrections.life_began_at IS 'Of a lifecycle row: its created_at, which tells one life of a tenant from the next; empty for an event.';
COMMENT ON COLUMN reconciler.corrections.closed_period IS 'The change is dated inside a month that was already invoiced to this organisation: it owes or is owed an adjustment.';
COMMENT ON COLUMN reconciler.corrections.impact_chf IS 'What it is worth up to the observation, before VAT, at the prices of that day. Positive: revenue that was being lost. Negative: the customer was being overcharged.';
COMMENT ON COLUMN reconciler.corrections.impact_min_chf IS 'What it would be worth at that end of its interval where it is worth less; empty where both are the same.';
COMMENT ON COLUMN reconciler.corrections.impact_max_chf IS 'The same for the end where it is worth more.';
ALTER TABLE reconciler.corrections ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME reconciler.corrections_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE reconciler.exceptions (
    tenant_name text NOT NULL,
    reason text NOT NULL,
    note text NOT NULL,
    created_by text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL
);
COMMENT ON TABLE reconciler.exceptions IS 'Reports that people know about and accept until expires_at: they are still shown.';
COMMENT ON COLUMN reconciler.exceptions.note IS 'Why it is accepted.';
CREATE TABLE reconciler.reports (
    tenant_name text NOT NULL,
    reason text NOT NULL,
    subject text DEFAULT ''::text NOT NULL,
    zitadel_org_id text,
    recorded text,
    observed text,
    since timestamp with time zone DEFAULT now() NOT NULL,
    told jsonb DEFAULT '{}'::jsonb NOT NULL
);
COMMENT ON TABLE reconciler.reports IS 'The reports that are open: what the last pass left to a person. A row goes when a pass no longer finds it.';
COMMENT ON COLUMN reconciler.reports.tenant_name IS 'Empty where the report is about the passes themselves: the last one was stopped.';
COMMENT ON COLUMN reconciler.reports.reason IS 'What is wrong; blocked or failed where a pass was stopped.';
COMMENT ON COLUMN reconciler.reports.subject IS 'The skill; empty where it is about the tenant as a whole.';
COMMENT ON COLUMN reconciler.reports.since IS 'The first pass that found it.';
COMMENT ON COLUMN reconciler.reports.told IS 'When each receiver of alerts was last told of it, by the receiver''s name; emptied when the report changes.';
CREATE TABLE reconciler.runs (
    id uuid NOT NULL,
    started_at timestamp with time zone NOT NULL,
    observed_at timestamp with time zone,
    finished_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    mode text NOT NULL,
    outcome text NOT NULL,
    version text NOT NULL,
    source text,
    resource_version text,
    tenants_observed integer DEFAULT 0 NOT NULL,
    tenants_recorded integer DEFAULT 0 NOT NULL,
    counts jsonb DEFAULT '{}'::jsonb NOT NULL,
    unverified text[] DEFAULT '{}'::text[] NOT NULL,
    error text,
    CONSTRAINT runs_mode_check CHECK ((mode = ANY (ARRAY['plan'::text, 'run'::text]))),
    CONSTRAINT runs_outcome_check CHECK ((outcome = ANY (ARRAY['clean'::text, 'corrected'::text, 'drift'::text, 'blocked'::text, 'failed'::text])))
);
COMMENT ON TABLE reconciler.runs IS 'One row per run, also for a run that failed or was refused; a plan writes none. The rows that a pass corrected were committed together with its row here.';
COMMENT ON COLUMN reconciler.runs.observed_at IS 'When the observation of the cluster began, by the clock of this database. Empty if the pass failed before.';
COMMENT ON COLUMN reconciler.runs.mode IS 'plan: only shows the differences. run: also corrects them.';
COMMENT ON COLUMN reconciler.runs.outcome IS 'clean: the ledger was true. corrected: it is now. drift: differences remain that need a person, or that a plan only showed. blocked: a safety rule refused to write. failed: see error.';
COMMENT ON COLUMN reconciler.runs.version IS 'The version of the reconciler.';
COMMENT ON COLUMN reconciler.runs.source IS 'What was observed: the uid of the cluster''s kube-system namespace, or "snapshot" for a file.';
COMMENT ON COLUMN reconciler.runs.resource_version IS 'The cluster''s own version number of the list that was observed.';
COMMENT ON COLUMN reconciler.runs.tenants_observed IS 'How many tenants the cluster showed.';
COMMENT ON COLUMN reconciler.runs.tenants_recorded IS 'How many tenants the ledger knew before the pass.';
COMMENT ON COLUMN reconciler.runs.counts IS 'How many findings of each reason there were, by what was done about them.';
COMMENT ON COLUMN reconciler.runs.unverified IS 'The tenants that this pass could not verify as true: unreadable, still changing, or reported to a person. All others were true when it ended.';
CREATE TABLE reconciler.source (
    id integer DEFAULT 1 NOT NULL,
    identity text NOT NULL,
    resource_version text,
    pinned_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT source_id_check CHECK ((id = 1))
);
COMMENT ON TABLE reconciler.source IS 'The cluster that this ledger belongs to: at most one row. A pass over another cluster is refused.';
COMMENT ON COLUMN reconciler.source.identity IS 'The uid of the cluster''s kube-system namespace, or "snapshot" for a file.';
COMMENT ON COLUMN reconciler.source.resource_version IS 'The version of the last list that was accepted. A list with a lower one is stale, and refused.';
CREATE TABLE reconciler.totals (
    reason text NOT NULL,
    corrections bigint NOT NULL,
    positive_chf numeric(14,2) NOT NULL,
    negative_chf numeric(14,2) NOT NULL
);
COMMENT ON TABLE reconciler.totals IS 'How many corrections there ever were of each reason, and what they were worth: what the metrics count.';
ALTER TABLE ONLY public.tenant_skill_events ALTER COLUMN id SET DEFAULT nextval('public.tenant_skill_events_id_seq'::regclass);
ALTER TABLE ONLY public.tenant_suspension_events ALTER COLUMN id SET DEFAULT nextval('public.tenant_suspension_events_id_seq'::regclass);
INSERT INTO public.invoices VALUES ('99bd227d-68c5-414e-b024-216c06e322db', '2026-0001', '287100000000000001', '2026-03-01', '2026-03-31', '2026-04-01 00:00:00+00', '2026-04-30', 47.42, 8.10, 3.84, 51.26, 'paid', '{}', 'invoice', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-04-01 00:00:00+00');
INSERT INTO public.platform_pricing VALUES (1, 49.00, 99.00, 0.02000, 8.10, '2026-03-01 00:00:00+00');
INSERT INTO public.skill_pricing VALUES ('searxng-local-search', 1.20000, '2026-03-01 00:00:00+00', '2026-03-01 00:00:00+00');
INSERT INTO public.skill_pricing VALUES ('threema-messenger', 0.90000, '2026-03-01 00:00:00+00', '2026-03-01 00:00:00+00');
INSERT INTO public.skill_pricing VALUES ('nextcloud-files', 2.50000, '2026-03-01 00:00:00+00', '2026-03-01 00:00:00+00');
INSERT INTO public.tenant_billing_lifecycle VALUES ('arzt-lindenhof', '287100000000000001', '2026-03-02 08:14:09+00', NULL);
INSERT INTO public.tenant_billing_lifecycle VALUES ('garage-ticino', '287100000000000005', '2026-03-16 07:48:02+00', NULL);
INSERT INTO public.tenant_billing_lifecycle VALUES ('holzbau-kaelin', '287100000000000008', '2026-03-25 06:33:11+00', NULL);
INSERT INTO public.tenant_billing_lifecycle VALUES ('hotel-seeblick', '287100000000000006', '2026-03-19 10:31:26+00', NULL);
INSERT INTO public.tenant_billing_lifecycle VALUES ('kanzlei-frei', '287100000000000007', '2026-03-23 14:57:50+00', NULL);
INSERT INTO public.tenant_billing_lifecycle VALUES ('rochat-sa', '287100000000000004', '2026-03-11 13:22:18+00', NULL);
INSERT INTO public.tenant_billing_lifecycle VALUES ('seeblick-spa', '287100000000000006', '2026-04-01 11:09:45+00', NULL);
INSERT INTO public.tenant_billing_lifecycle VALUES ('treuhand-aebi', '287100000000000009', '2026-03-30 12:20:34+00', NULL);
INSERT INTO public.tenant_billing_lifecycle VALUES ('velo-stadler', 'unknown', '2026-04-08 09:51:07+00', NULL);
INSERT INTO public.tenant_billing_lifecycle VALUES ('weingut-pfyfer', '287100000000000010', '2026-04-13 08:26:39+00', NULL);
INSERT INTO public.tenant_billing_lifecycle VALUES ('gone-garage', '287100000000000099', '2026-04-01 08:00:00+00', '2026-04-02 08:00:00+00');
INSERT INTO public.tenant_billing_lifecycle VALUES ('bergbahn-kulm', '287100000000000003', '2026-03-09 09:05:57+00', NULL);
INSERT INTO public.tenant_billing_lifecycle VALUES ('baeckerei-wyss', '287100000000000002', '2026-05-20 09:00:00+00', NULL);
INSERT INTO public.tenant_skill_events VALUES (3, 'baeckerei-wyss', '287100000000000002', 'threema-messenger', 'enabled', '2026-03-04 15:40:31+00');
INSERT INTO public.tenant_skill_events VALUES (4, 'bergbahn-kulm', '287100000000000003', 'searxng-local-search', 'enabled', '2026-03-09 09:05:57+00');
INSERT INTO public.tenant_skill_events VALUES (5, 'garage-ticino', '287100000000000005', 'bexio-accounting', 'enabled', '2026-03-16 07:48:02+00');
INSERT INTO public.tenant_skill_events VALUES (6, 'holzbau-kaelin', '287100000000000008', 'bexio-accounting', 'enabled', '2026-03-25 06:33:11+00');
INSERT INTO public.tenant_skill_events VALUES (7, 'hotel-seeblick', '287100000000000006', 'searxng-local-search', 'enabled', '2026-03-19 10:31:26+00');
INSERT INTO public.tenant_skill_events VALUES (8, 'hotel-seeblick', '287100000000000006', 'threema-messenger', 'enabled', '2026-03-19 10:31:26+00');
INSERT INTO public.tenant_skill_events VALUES (9, 'kanzlei-frei', '287100000000000007', 'nextcloud-files', 'enabled', '2026-03-23 14:57:50+00');
INSERT INTO public.tenant_skill_events VALUES (10, 'kanzlei-frei', '287100000000000007', 'searxng-local-search', 'enabled', '2026-03-23 14:57:50+00');
INSERT INTO public.tenant_skill_events VALUES (11, 'rochat-sa', '287100000000000004', 'bexio-accounting', 'enabled', '2026-03-11 13:22:18+00');
INSERT INTO public.tenant_skill_events VALUES (12, 'rochat-sa', '287100000000000004', 'nextcloud-files', 'enabled', '2026-03-11 13:22:18+00');
INSERT INTO public.tenant_skill_events VALUES (13, 'treuhand-aebi', '287100000000000009', 'bexio-accounting', 'enabled', '2026-03-30 12:20:34+00');
INSERT INTO public.tenant_skill_events VALUES (14, 'treuhand-aebi', '287100000000000009', 'nextcloud-files', 'enabled', '2026-03-30 12:20:34+00');
INSERT INTO public.tenant_skill_events VALUES (15, 'velo-stadler', 'unknown', 'threema-messenger', 'enabled', '2026-04-08 09:51:07+00');
INSERT INTO public.tenant_skill_events VALUES (16, 'weingut-pfyfer', '287100000000000010', 'searxng-local-search', 'enabled', '2026-04-13 08:26:39+00');
INSERT INTO public.tenant_skill_events VALUES (17, 'bergbahn-kulm', '287100000000000003', 'nextcloud-files', 'enabled', '2026-04-02 08:00:00+00');
INSERT INTO public.tenant_skill_events VALUES (18, 'spurlos', '1', 'nextcloud-files', 'enabled', '2026-04-02 08:00:00+00');
INSERT INTO public.tenant_skill_events VALUES (19, 'gone-garage', '287100000000000099', 'nextcloud-files', 'enabled', '2026-04-02 08:00:00+00');
INSERT INTO public.tenant_skill_events VALUES (20, 'arzt-lindenhof', '287100000000000001', 'searxng-local-search', 'enabled', '2026-03-02 08:14:09+00');
INSERT INTO public.tenant_skill_events VALUES (21, 'arzt-lindenhof', '287100000000000001', 'threema-messenger', 'enabled', '2026-03-02 08:14:09+00');
INSERT INTO public.tenant_skill_events VALUES (22, 'bergbahn-kulm', '287100000000000003', 'nextcloud-files', 'disabled', '2026-04-02 08:00:00+00');
INSERT INTO public.tenant_skill_events VALUES (23, 'gone-garage', '287100000000000099', 'nextcloud-files', 'disabled', '2026-04-02 08:00:00+00');
INSERT INTO public.tenant_suspension_events VALUES (2, 'baeckerei-wyss', '287100000000000002', 'suspended', '2026-04-02 08:00:00+00');
INSERT INTO public.tenant_suspension_events VALUES (3, 'baeckerei-wyss', '287100000000000002', 'resumed', '2026-11-26 19:09:56.671077+00');
INSERT INTO public.tenant_suspension_events VALUES (4, 'holzbau-kaelin', '287100000000000008', 'suspended', '2026-04-20 16:45:23+00');
INSERT INTO reconciler.closed_lives VALUES ('baeckerei-wyss', '287100000000000002', '2026-03-04 15:40:31+00', '2026-05-10 10:00:00+00', '2026-11-26 19:09:59.168757+00', 'rita', 'asked the customer');
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (4, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'tenant_unrecorded', 'baeckerei-wyss', '287100000000000002', NULL, 'insert', 'absent', 'open', '2026-03-04 15:40:31+00', '2026-03-04 15:40:31+00', '2026-03-04 15:40:31+00', 'creation', 'tenant_billing_lifecycle', NULL, NULL, '2026-03-04 15:40:31+00', false, 429.73, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (5, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'skill_enable_unrecorded', 'baeckerei-wyss', '287100000000000002', 'threema-messenger', 'append', 'disabled', 'enabled', '2026-03-04 15:40:31+00', '2026-03-04 15:40:31+00', '2026-03-04 15:40:31+00', 'creation', 'tenant_skill_events', 3, NULL, NULL, false, 241.20, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (6, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'tenant_unrecorded', 'bergbahn-kulm', '287100000000000003', NULL, 'insert', 'absent', 'open', '2026-03-09 09:05:57+00', '2026-03-09 09:05:57+00', '2026-03-09 09:05:57+00', 'creation', 'tenant_billing_lifecycle', NULL, NULL, '2026-03-09 09:05:57+00', false, 421.82, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (7, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'skill_enable_unrecorded', 'bergbahn-kulm', '287100000000000003', 'searxng-local-search', 'append', 'disabled', 'enabled', '2026-03-09 09:05:57+00', '2026-03-09 09:05:57+00', '2026-03-24 10:12:40+00', 'creation', 'tenant_skill_events', 4, NULL, NULL, false, 315.60, 297.60, 315.60);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (8, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'tenant_unrecorded', 'garage-ticino', '287100000000000005', NULL, 'insert', 'absent', 'open', '2026-03-16 07:48:02+00', '2026-03-16 07:48:02+00', '2026-03-16 07:48:02+00', 'creation', 'tenant_billing_lifecycle', NULL, NULL, '2026-03-16 07:48:02+00', false, 410.76, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (9, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'skill_enable_unrecorded', 'garage-ticino', '287100000000000005', 'bexio-accounting', 'append', 'disabled', 'enabled', '2026-03-16 07:48:02+00', '2026-03-16 07:48:02+00', '2026-03-16 07:48:02+00', 'creation', 'tenant_skill_events', 5, NULL, NULL, false, 0.00, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (10, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'tenant_unrecorded', 'holzbau-kaelin', '287100000000000008', NULL, 'insert', 'absent', 'open', '2026-03-25 06:33:11+00', '2026-03-25 06:33:11+00', '2026-03-25 06:33:11+00', 'creation', 'tenant_billing_lifecycle', NULL, NULL, '2026-03-25 06:33:11+00', false, 396.53, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (11, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'skill_enable_unrecorded', 'holzbau-kaelin', '287100000000000008', 'bexio-accounting', 'append', 'disabled', 'enabled', '2026-03-25 06:33:11+00', '2026-03-25 06:33:11+00', '2026-04-20 16:45:21+00', 'creation', 'tenant_skill_events', 6, NULL, NULL, false, 0.00, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (13, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'tenant_unrecorded', 'hotel-seeblick', '287100000000000006', NULL, 'insert', 'absent', 'open', '2026-03-19 10:31:26+00', '2026-03-19 10:31:26+00', '2026-03-19 10:31:26+00', 'creation', 'tenant_billing_lifecycle', NULL, NULL, '2026-03-19 10:31:26+00', false, 406.02, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (14, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'skill_enable_unrecorded', 'hotel-seeblick', '287100000000000006', 'searxng-local-search', 'append', 'disabled', 'enabled', '2026-03-19 10:31:26+00', '2026-03-19 10:31:26+00', '2026-04-02 09:15:03+00', 'creation', 'tenant_skill_events', 7, NULL, NULL, false, 303.60, 286.80, 303.60);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (15, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'skill_enable_unrecorded', 'hotel-seeblick', '287100000000000006', 'threema-messenger', 'append', 'disabled', 'enabled', '2026-03-19 10:31:26+00', '2026-03-19 10:31:26+00', '2026-04-02 09:15:03+00', 'creation', 'tenant_skill_events', 8, NULL, NULL, false, 227.70, 215.10, 227.70);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (16, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'tenant_unrecorded', 'kanzlei-frei', '287100000000000007', NULL, 'insert', 'absent', 'open', '2026-03-23 14:57:50+00', '2026-03-23 14:57:50+00', '2026-03-23 14:57:50+00', 'creation', 'tenant_billing_lifecycle', NULL, NULL, '2026-03-23 14:57:50+00', false, 399.70, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (17, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'skill_enable_unrecorded', 'kanzlei-frei', '287100000000000007', 'nextcloud-files', 'append', 'disabled', 'enabled', '2026-03-23 14:57:50+00', '2026-03-23 14:57:50+00', '2026-03-23 14:57:50+00', 'creation', 'tenant_skill_events', 9, NULL, NULL, false, 622.50, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (18, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'skill_enable_unrecorded', 'kanzlei-frei', '287100000000000007', 'searxng-local-search', 'append', 'disabled', 'enabled', '2026-03-23 14:57:50+00', '2026-03-23 14:57:50+00', '2026-03-23 14:57:50+00', 'creation', 'tenant_skill_events', 10, NULL, NULL, false, 298.80, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (19, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'tenant_unrecorded', 'rochat-sa', '287100000000000004', NULL, 'insert', 'absent', 'open', '2026-03-11 13:22:18+00', '2026-03-11 13:22:18+00', '2026-03-11 13:22:18+00', 'creation', 'tenant_billing_lifecycle', NULL, NULL, '2026-03-11 13:22:18+00', false, 418.66, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (20, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'skill_enable_unrecorded', 'rochat-sa', '287100000000000004', 'bexio-accounting', 'append', 'disabled', 'enabled', '2026-03-11 13:22:18+00', '2026-03-11 13:22:18+00', '2026-03-11 13:22:18+00', 'creation', 'tenant_skill_events', 11, NULL, NULL, false, 0.00, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (21, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'skill_enable_unrecorded', 'rochat-sa', '287100000000000004', 'nextcloud-files', 'append', 'disabled', 'enabled', '2026-03-11 13:22:18+00', '2026-03-11 13:22:18+00', '2026-03-11 13:22:18+00', 'creation', 'tenant_skill_events', 12, NULL, NULL, false, 652.50, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (22, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'tenant_unrecorded', 'seeblick-spa', '287100000000000006', NULL, 'insert', 'absent', 'open', '2026-04-01 11:09:45+00', '2026-04-01 11:09:45+00', '2026-04-01 11:09:45+00', 'creation', 'tenant_billing_lifecycle', NULL, NULL, '2026-04-01 11:09:45+00', false, 385.47, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (23, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'tenant_unrecorded', 'treuhand-aebi', '287100000000000009', NULL, 'insert', 'absent', 'open', '2026-03-30 12:20:34+00', '2026-03-30 12:20:34+00', '2026-03-30 12:20:34+00', 'creation', 'tenant_billing_lifecycle', NULL, NULL, '2026-03-30 12:20:34+00', false, 388.63, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (24, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'skill_enable_unrecorded', 'treuhand-aebi', '287100000000000009', 'bexio-accounting', 'append', 'disabled', 'enabled', '2026-03-30 12:20:34+00', '2026-03-30 12:20:34+00', '2026-03-30 12:20:34+00', 'creation', 'tenant_skill_events', 13, NULL, NULL, false, 0.00, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (25, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'skill_enable_unrecorded', 'treuhand-aebi', '287100000000000009', 'nextcloud-files', 'append', 'disabled', 'enabled', '2026-03-30 12:20:34+00', '2026-03-30 12:20:34+00', '2026-03-30 12:20:34+00', 'creation', 'tenant_skill_events', 14, NULL, NULL, false, 605.00, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (26, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'tenant_unrecorded', 'velo-stadler', 'unknown', NULL, 'insert', 'absent', 'open', '2026-04-08 09:51:07+00', '2026-04-08 09:51:07+00', '2026-04-08 09:51:07+00', 'creation', 'tenant_billing_lifecycle', NULL, NULL, '2026-04-08 09:51:07+00', false, 374.04, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (27, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'skill_enable_unrecorded', 'velo-stadler', 'unknown', 'threema-messenger', 'append', 'disabled', 'enabled', '2026-04-08 09:51:07+00', '2026-04-08 09:51:07+00', '2026-04-08 09:51:07+00', 'creation', 'tenant_skill_events', 15, NULL, NULL, false, 209.70, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (28, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'tenant_unrecorded', 'weingut-pfyfer', '287100000000000010', NULL, 'insert', 'absent', 'open', '2026-04-13 08:26:39+00', '2026-04-13 08:26:39+00', '2026-04-13 08:26:39+00', 'creation', 'tenant_billing_lifecycle', NULL, NULL, '2026-04-13 08:26:39+00', false, 365.87, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (29, 'f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', 'skill_enable_unrecorded', 'weingut-pfyfer', '287100000000000010', 'searxng-local-search', 'append', 'disabled', 'enabled', '2026-04-13 08:26:39+00', '2026-04-13 08:26:39+00', '2026-04-13 08:26:39+00', 'creation', 'tenant_skill_events', 16, NULL, NULL, false, 273.60, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (30, '336894cb-6e55-44b4-bacd-5f8656644e58', 'skill_enable_unrecorded', 'arzt-lindenhof', '287100000000000001', 'searxng-local-search', 'append', 'disabled', 'enabled', '2026-03-02 08:14:09+00', '2026-03-02 08:14:09+00', '2026-03-02 08:14:09+00', 'creation', 'tenant_skill_events', 20, NULL, NULL, true, 324.00, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (31, '336894cb-6e55-44b4-bacd-5f8656644e58', 'skill_enable_unrecorded', 'arzt-lindenhof', '287100000000000001', 'threema-messenger', 'append', 'disabled', 'enabled', '2026-03-02 08:14:09+00', '2026-03-02 08:14:09+00', '2026-03-02 08:14:09+00', 'creation', 'tenant_skill_events', 21, NULL, NULL, true, 243.00, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (32, '336894cb-6e55-44b4-bacd-5f8656644e58', 'resumption_unrecorded', 'baeckerei-wyss', '287100000000000002', NULL, 'append', 'suspended', 'running', '2026-11-26 19:09:56.671077+00', '2026-04-02 08:00:00+00', '2026-11-26 19:09:56.671077+00', 'none', 'tenant_suspension_events', 3, 2, NULL, false, 0.00, 0.00, 382.20);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (33, '336894cb-6e55-44b4-bacd-5f8656644e58', 'skill_disable_unrecorded', 'bergbahn-kulm', '287100000000000003', 'nextcloud-files', 'append', 'enabled', 'disabled', '2026-04-02 08:00:00+00', '2026-04-02 08:00:00+00', '2026-11-26 19:09:56.671077+00', 'none', 'tenant_skill_events', 22, 17, NULL, false, -597.50, -597.50, 0.00);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (34, '336894cb-6e55-44b4-bacd-5f8656644e58', 'org_resolved', 'bergbahn-kulm', '287100000000000003', NULL, 'update', 'unknown', '287100000000000003', NULL, NULL, NULL, NULL, 'tenant_billing_lifecycle', NULL, NULL, '2026-03-09 09:05:57+00', false, 0.00, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (35, '336894cb-6e55-44b4-bacd-5f8656644e58', 'deletion_unrecorded', 'gone-garage', '287100000000000099', NULL, 'stamp', 'open', 'deleted', '2026-04-02 08:00:00+00', '2026-04-02 08:00:00+00', '2026-11-26 19:09:56.671077+00', 'none', 'tenant_billing_lifecycle', NULL, NULL, '2026-04-01 08:00:00+00', false, -979.70, -979.70, 0.00);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (36, '336894cb-6e55-44b4-bacd-5f8656644e58', 'skill_open_after_deletion', 'gone-garage', '287100000000000099', 'nextcloud-files', 'append', 'enabled', 'disabled', '2026-04-02 08:00:00+00', '2026-04-02 08:00:00+00', '2026-11-26 19:09:56.671077+00', 'none', 'tenant_skill_events', 23, 19, NULL, false, 0.00, NULL, NULL);
INSERT INTO reconciler.corrections OVERRIDING SYSTEM VALUE VALUES (37, '336894cb-6e55-44b4-bacd-5f8656644e58', 'suspension_unrecorded', 'holzbau-kaelin', '287100000000000008', NULL, 'append', 'running', 'suspended', '2026-04-20 16:45:23+00', '2026-03-25 06:33:11+00', '2026-04-20 16:45:23+00', 'suspended_at', 'tenant_suspension_events', 4, NULL, NULL, false, -352.80, -396.53, -352.80);
INSERT INTO reconciler.exceptions VALUES ('spurlos', 'events_without_tenant', 'a test of 2025', 'rita', '2026-11-26 19:10:02.02105+00', '2027-07-01 00:00:00+00');
INSERT INTO reconciler.reports VALUES ('velo-stadler', 'org_unlabelled', '', 'unknown', 'unknown', NULL, '2026-11-26 19:09:52.971134+00', '{}');
INSERT INTO reconciler.reports VALUES ('spurlos', 'events_without_tenant', '', 'unknown', 'events', 'absent', '2026-11-26 19:09:56.719194+00', '{}');
INSERT INTO reconciler.reports VALUES ('', 'failed', '', NULL, NULL, 'UnreadableFile', '2026-11-26 19:10:03.151555+00', '{}');
INSERT INTO reconciler.runs VALUES ('f0d0ac6b-6b4d-4b21-bc03-4e807be9f1b4', '2026-11-26 19:09:52.887608+00', '2026-11-26 19:09:52.887608+00', '2026-11-26 19:09:52.984877+00', 'run', 'corrected', '0.1.0', 'snapshot', NULL, 12, 0, '{"org_unlabelled": {"report": 1}, "tenant_unrecorded": {"insert": 12}, "suspension_unrecorded": {"append": 1}, "skill_enable_unrecorded": {"append": 16}}', '{velo-stadler}', NULL);
INSERT INTO reconciler.runs VALUES ('1d5c4b1a-ade3-4bf8-8b44-f7acca91d5fa', '2026-11-26 19:09:54.245141+00', '2026-11-26 19:09:54.245141+00', '2026-11-26 19:09:54.328061+00', 'run', 'drift', '0.1.0', 'snapshot', NULL, 12, 12, '{"org_unlabelled": {"report": 1}}', '{velo-stadler}', NULL);
INSERT INTO reconciler.runs VALUES ('5f26f003-777a-4ae5-ad69-1f687e7ac7b0', '2026-11-26 19:09:55.549953+00', '2026-11-26 19:09:55.549953+00', '2026-11-26 19:09:55.618274+00', 'run', 'blocked', '0.1.0', 'snapshot', NULL, 12, 13, '{"org_resolved": {"update": 1}, "org_unlabelled": {"report": 1}, "deletion_unrecorded": {"stamp": 1}, "events_without_tenant": {"report": 1}, "resumption_unrecorded": {"append": 1}, "suspension_unrecorded": {"append": 1}, "skill_enable_unrecorded": {"append": 2}, "skill_disable_unrecorded": {"append": 1}, "skill_open_after_deletion": {"append": 1}}', '{spurlos,velo-stadler}', 'This run would correct deletion_unrecorded on 1 tenants, org_resolved on 1 tenants, resumption_unrecorded on 1 tenants, skill_disable_unrecorded on 1 tenants, skill_enable_unrecorded on 1 tenants, skill_open_after_deletion on 1 tenants, suspension_unrecorded on 1 tenants; the limit is 0 of 13 open tenants for each reason.');
INSERT INTO reconciler.runs VALUES ('336894cb-6e55-44b4-bacd-5f8656644e58', '2026-11-26 19:09:56.671077+00', '2026-11-26 19:09:56.671077+00', '2026-11-26 19:09:56.724655+00', 'run', 'corrected', '0.1.0', 'snapshot', NULL, 12, 13, '{"org_resolved": {"update": 1}, "org_unlabelled": {"report": 1}, "deletion_unrecorded": {"stamp": 1}, "events_without_tenant": {"report": 1}, "resumption_unrecorded": {"append": 1}, "suspension_unrecorded": {"append": 1}, "skill_enable_unrecorded": {"append": 2}, "skill_disable_unrecorded": {"append": 1}, "skill_open_after_deletion": {"append": 1}}', '{spurlos,velo-stadler}', NULL);
INSERT INTO reconciler.runs VALUES ('a4af68f1-c4af-4e5a-90fb-387c41bf1c3b', '2026-11-26 19:09:57.906412+00', '2026-11-26 19:09:57.906412+00', '2026-11-26 19:09:57.97732+00', 'run', 'drift', '0.1.0', 'snapshot', NULL, 12, 11, '{"org_unlabelled": {"report": 1}, "tenant_recreated": {"report": 1}, "events_without_tenant": {"report": 1}}', '{baeckerei-wyss,spurlos,velo-stadler}', NULL);
INSERT INTO reconciler.runs VALUES ('844cab46-8015-4eac-99a3-be34c0f83eff', '2026-11-26 19:10:00.346561+00', '2026-11-26 19:10:00.346561+00', '2026-11-26 19:10:00.425796+00', 'run', 'drift', '0.1.0', 'snapshot', NULL, 12, 12, '{"org_unlabelled": {"report": 1}, "events_without_tenant": {"report": 1}}', '{spurlos,velo-stadler}', NULL);
INSERT INTO reconciler.runs VALUES ('e31544f8-c370-4a9e-9de5-9ea066f36d55', '2026-11-26 19:10:03.091248+00', '2026-11-26 19:10:03.091248+00', '2026-11-26 19:10:03.205389+00', 'run', 'failed', '0.1.0', NULL, NULL, 0, 0, '{}', '{}', 'bad.yaml is neither YAML nor JSON: while parsing a flow node did not find expected node content in "<byte string>", line 2, column 1');
INSERT INTO reconciler.source VALUES (1, 'snapshot', NULL, '2026-11-26 19:09:52.971134+00');
INSERT INTO reconciler.totals VALUES ('tenant_unrecorded', 12, 4830.12, 0.00);
INSERT INTO reconciler.totals VALUES ('org_resolved', 1, 0.00, 0.00);
INSERT INTO reconciler.totals VALUES ('skill_open_after_deletion', 1, 0.00, 0.00);
INSERT INTO reconciler.totals VALUES ('deletion_unrecorded', 1, 0.00, -979.70);
INSERT INTO reconciler.totals VALUES ('skill_disable_unrecorded', 1, 0.00, -597.50);
INSERT INTO reconciler.totals VALUES ('resumption_unrecorded', 1, 0.00, 0.00);
INSERT INTO reconciler.totals VALUES ('skill_enable_unrecorded', 18, 4884.20, 0.00);
INSERT INTO reconciler.totals VALUES ('suspension_unrecorded', 2, 0.00, -705.60);
SELECT pg_catalog.setval('public.tenant_skill_events_id_seq', 23, true);
SELECT pg_catalog.setval('public.tenant_suspension_events_id_seq', 4, true);
SELECT pg_catalog.setval('reconciler.corrections_id_seq', 37, true);
ALTER TABLE ONLY public.invoice_lines
    ADD CONSTRAINT invoice_lines_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.invoice_number_counters
    ADD CONSTRAINT invoice_number_counters_pkey PRIMARY KEY (year);
ALTER TABLE ONLY public.invoice_reminders
    ADD CONSTRAINT invoice_reminders_invoice_id_level_key UNIQUE (invoice_id, level);
ALTER TABLE ONLY public.invoice_reminders
    ADD CONSTRAINT invoice_reminders_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.invoices
    ADD CONSTRAINT invoices_invoice_number_key UNIQUE (invoice_number);
ALTER TABLE ONLY public.invoices
    ADD CONSTRAINT invoices_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.org_billing_config
    ADD CONSTRAINT org_billing_config_pkey PRIMARY KEY (zitadel_org_id);
ALTER TABLE ONLY public.org_payment_methods
    ADD CONSTRAINT org_payment_methods_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.org_payment_methods
    ADD CONSTRAINT org_payment_methods_stripe_payment_method_id_key UNIQUE (stripe_payment_method_id);
ALTER TABLE ONLY public.platform_pricing
    ADD CONSTRAINT platform_pricing_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.skill_pricing
    ADD CONSTRAINT skill_pricing_pkey PRIMARY KEY (skill_id);
ALTER TABLE ONLY public.tenant_billing_lifecycle
    ADD CONSTRAINT tenant_billing_lifecycle_pkey PRIMARY KEY (tenant_name);
ALTER TABLE ONLY public.tenant_skill_events
    ADD CONSTRAINT tenant_skill_events_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.tenant_suspension_events
    ADD CONSTRAINT tenant_suspension_events_pkey PRIMARY KEY (id);
ALTER TABLE ONLY reconciler.closed_lives
    ADD CONSTRAINT closed_lives_pkey PRIMARY KEY (tenant_name, created_at);
ALTER TABLE ONLY reconciler.corrections
    ADD CONSTRAINT corrections_pkey PRIMARY KEY (id);
ALTER TABLE ONLY reconciler.exceptions
    ADD CONSTRAINT exceptions_pkey PRIMARY KEY (tenant_name, reason);
ALTER TABLE ONLY reconciler.reports
    ADD CONSTRAINT reports_pkey PRIMARY KEY (tenant_name, reason, subject);
ALTER TABLE ONLY reconciler.runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (id);
ALTER TABLE ONLY reconciler.source
    ADD CONSTRAINT source_pkey PRIMARY KEY (id);
ALTER TABLE ONLY reconciler.totals
    ADD CONSTRAINT totals_pkey PRIMARY KEY (reason);
CREATE INDEX idx_invoice_lines_invoice ON public.invoice_lines USING btree (invoice_id, display_order);
CREATE INDEX idx_invoice_reminders_invoice ON public.invoice_reminders USING btree (invoice_id, level);
CREATE INDEX idx_invoices_org ON public.invoices USING btree (zitadel_org_id, issued_at DESC);
CREATE INDEX idx_invoices_status ON public.invoices USING btree (status, due_at);
CREATE INDEX idx_org_payment_methods_org ON public.org_payment_methods USING btree (zitadel_org_id);
CREATE INDEX idx_tenant_billing_lifecycle_org ON public.tenant_billing_lifecycle USING btree (zitadel_org_id);
CREATE INDEX idx_tenant_skill_events_org_time ON public.tenant_skill_events USING btree (zitadel_org_id, occurred_at);
CREATE INDEX idx_tenant_skill_events_tenant_skill ON public.tenant_skill_events USING btree (tenant_name, skill_id, occurred_at);
CREATE INDEX idx_tenant_suspension_events_tenant ON public.tenant_suspension_events USING btree (tenant_name, occurred_at);
CREATE INDEX reconciler_skill_state ON public.tenant_skill_events USING btree (tenant_name, skill_id, occurred_at DESC, id DESC) INCLUDE (event_kind);
CREATE INDEX reconciler_suspension_state ON public.tenant_suspension_events USING btree (tenant_name, occurred_at DESC, id DESC) INCLUDE (event_kind);
CREATE UNIQUE INDEX uniq_invoices_org_period ON public.invoices USING btree (zitadel_org_id, period_start);
CREATE UNIQUE INDEX uniq_org_payment_methods_default ON public.org_payment_methods USING btree (zitadel_org_id) WHERE is_default;
CREATE INDEX runs_started ON reconciler.runs USING btree (started_at DESC);
CREATE INDEX runs_succeeded ON reconciler.runs USING btree (observed_at DESC) WHERE (outcome = ANY (ARRAY['clean'::text, 'corrected'::text, 'drift'::text]));
CREATE UNIQUE INDEX uniq_corrections_identity ON reconciler.corrections USING btree (tenant_name, event_table, COALESCE(subject, ''::text), COALESCE(supersedes_event_id, (0)::bigint), observed, COALESCE(life_began_at, '-infinity'::timestamp with time zone));
ALTER TABLE ONLY public.invoice_lines
    ADD CONSTRAINT invoice_lines_invoice_id_fkey FOREIGN KEY (invoice_id) REFERENCES public.invoices(id) ON DELETE CASCADE;
ALTER TABLE ONLY public.invoice_reminders
    ADD CONSTRAINT invoice_reminders_invoice_id_fkey FOREIGN KEY (invoice_id) REFERENCES public.invoices(id) ON DELETE CASCADE;
ALTER TABLE ONLY reconciler.corrections
    ADD CONSTRAINT corrections_run_id_fkey FOREIGN KEY (run_id) REFERENCES reconciler.runs(id);
