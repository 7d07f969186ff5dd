-- What the reconciler keeps for itself: the proof of what it saw, what it wrote and why.
--
-- Reasons carry no CHECK: the closed set of them is reconciler.model.Reason, and a version that knows one more must be
-- able to record it, and to run, before anybody has migrated.

CREATE SCHEMA IF NOT EXISTS reconciler;
COMMENT ON SCHEMA reconciler IS
    'What the billing reconciler keeps: every pass it made, every row of the ledger it corrected and why, and the'
    ' reports that people accepted.';

CREATE TABLE IF NOT EXISTS reconciler.runs (
    id               uuid        PRIMARY KEY,
    started_at       timestamptz NOT NULL,
    observed_at      timestamptz,
    finished_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    mode             text        NOT NULL CHECK (mode IN ('plan', 'run')),
    outcome          text        NOT NULL CHECK (outcome IN ('clean', 'corrected', 'drift', 'blocked', 'failed')),
    version          text        NOT NULL,
    source           text,
    resource_version text,
    tenants_observed int         NOT NULL DEFAULT 0,
    tenants_recorded int         NOT NULL DEFAULT 0,
    counts           jsonb       NOT NULL DEFAULT '{}',
    unverified       text[]      NOT NULL DEFAULT '{}',
    error            text
);
COMMENT ON TABLE reconciler.runs IS
    'One row per run, also for a run that failed or was refused; a plan writes none. The rows that a pass corrected were committed '
    'together with its row here.';
COMMENT ON COLUMN reconciler.runs.observed_at IS
    'When the observation of the cluster began, by the clock of this database. Empty if the pass failed before.';
COMMENT ON COLUMN reconciler.runs.mode IS 'plan: only shows the differences. run: also corrects them.';
COMMENT ON COLUMN reconciler.runs.outcome IS
    'clean: the ledger was true. corrected: it is now. drift: differences remain that need a person, or that a '
    'plan only showed. blocked: a safety rule refused to write. failed: see error.';
COMMENT ON COLUMN reconciler.runs.version IS 'The version of the reconciler.';
COMMENT ON COLUMN reconciler.runs.source IS
    'What was observed: the uid of the cluster''s kube-system namespace, or "snapshot" for a file.';
COMMENT ON COLUMN reconciler.runs.resource_version IS
    'The cluster''s own version number of the list that was observed.';
COMMENT ON COLUMN reconciler.runs.tenants_observed IS 'How many tenants the cluster showed.';
COMMENT ON COLUMN reconciler.runs.tenants_recorded IS 'How many tenants the ledger knew before the pass.';
COMMENT ON COLUMN reconciler.runs.counts IS
    'How many findings of each reason there were, by what was done about them.';
COMMENT ON COLUMN reconciler.runs.unverified IS
    'The tenants that this pass could not verify as true: unreadable, still changing, or reported to a person. '
    'All others were true when it ended.';

-- "Verified true up to": each run looks for the latest one that succeeded.
CREATE INDEX IF NOT EXISTS runs_succeeded ON reconciler.runs (observed_at DESC)
    WHERE outcome IN ('clean', 'corrected', 'drift');

-- Here once, because every question of what is proved begins with these runs; runs_succeeded serves it.
CREATE OR REPLACE VIEW reconciler.proving_runs AS
SELECT * FROM reconciler.runs
WHERE outcome IN ('clean', 'corrected', 'drift') AND mode = 'run' AND source <> 'snapshot';
COMMENT ON VIEW reconciler.proving_runs IS
    'The runs that proved the ledger: over a cluster, and neither stopped nor a plan. Each proved every tenant but those '
    'in unverified.';

-- `reconciler status` shows the last runs, however they ended.
CREATE INDEX IF NOT EXISTS runs_started ON reconciler.runs (started_at DESC);

CREATE TABLE IF NOT EXISTS reconciler.corrections (
    id                  bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    run_id              uuid        NOT NULL REFERENCES reconciler.runs (id),
    reason              text        NOT NULL,
    tenant_name         text        NOT NULL,
    zitadel_org_id      text        NOT NULL,
    subject             text,
    action              text        NOT NULL CHECK (action IN ('insert', 'append', 'stamp', 'update')),
    recorded            text,
    observed            text        NOT NULL,
    occurred_at         timestamptz,
    not_before          timestamptz,
    not_after           timestamptz,
    evidence            text CHECK (evidence IN ('creation', 'deletion', 'suspended_at', 'field_manager', 'none')),
    event_table         text        NOT NULL,
    event_id            bigint,
    supersedes_event_id bigint,
    life_began_at       timestamptz,
    closed_period       bool        NOT NULL DEFAULT false,
    impact_chf          numeric(10, 2),
    impact_min_chf      numeric(10, 2),
    impact_max_chf      numeric(10, 2)
);
COMMENT ON TABLE reconciler.corrections IS
    'One row per row of the ledger that the reconciler wrote or changed: what was wrong, what it wrote, how it '
    'knows when that happened, and what it is worth.';
COMMENT ON COLUMN reconciler.corrections.run_id IS 'The pass that wrote it, see reconciler.runs.';
COMMENT ON COLUMN reconciler.corrections.reason IS 'What was wrong, for example skill_enable_unrecorded.';
COMMENT ON COLUMN reconciler.corrections.zitadel_org_id IS
    'The organisation that pays, as it was written; "unknown" if the tenant carried no label.';
COMMENT ON COLUMN reconciler.corrections.subject IS
    'The skill; empty where the correction is about the tenant as a whole.';
COMMENT ON COLUMN reconciler.corrections.action IS
    'insert: a lifecycle row. append: an event. stamp: deleted_at was set. update: the organisation was set.';
COMMENT ON COLUMN reconciler.corrections.recorded IS 'What the ledger said before; empty if nothing.';
COMMENT ON COLUMN reconciler.corrections.observed IS 'What the cluster showed, which the ledger now says too.';
COMMENT ON COLUMN reconciler.corrections.occurred_at IS
    'The moment the change was dated to; it lies between not_before and not_after.';
COMMENT ON COLUMN reconciler.corrections.not_before IS 'The change cannot have happened earlier.';
COMMENT ON COLUMN reconciler.corrections.not_after IS 'The change cannot have happened later.';
COMMENT ON COLUMN reconciler.corrections.evidence IS
    'What proves the moment. creation: the tenant''s creation time. deletion: its deletion time. suspended_at: '
    'the time in its status. field_manager: when the field was last written. none: dated by policy.';
COMMENT ON COLUMN reconciler.corrections.event_table IS 'The table in schema public that was written to.';
COMMENT ON COLUMN reconciler.corrections.event_id IS
    'The id of the event that was written there; empty for a lifecycle row.';
COMMENT ON COLUMN reconciler.corrections.supersedes_event_id IS
    'The event that was the latest until then and was wrong; empty if there was none.';
COMMENT ON COLUMN reconciler.corrections.life_began_at IS
    'Of a lifecycle row: its created_at, which tells one life of a tenant from the next; empty for an event.';
COMMENT ON COLUMN reconciler.corrections.closed_period IS
    'The change is dated inside a month that was already invoiced to this organisation: it owes or is owed an '
    'adjustment.';
COMMENT ON COLUMN reconciler.corrections.impact_chf IS
    'What it is worth up to the observation, before VAT, at the prices of that day. Positive: revenue that was '
    'being lost. Negative: the customer was being overcharged.';

COMMENT ON COLUMN reconciler.corrections.impact_min_chf IS
    'What it would be worth at that end of its interval where it is worth less; empty where both are the same.';
COMMENT ON COLUMN reconciler.corrections.impact_max_chf IS 'The same for the end where it is worth more.';

-- A correction is identified by what it corrects, so that two passes at once, or one repeated, write it once.
-- COALESCE, because NULLs are distinct to a unique index and NULLS NOT DISTINCT came with PostgreSQL 15; neither
-- the empty string nor 0 can be a skill or an event id. A tenant that was reopened may be deleted once more.
-- The tenant comes first, so that `reconciler explain` finds its corrections by it.
CREATE UNIQUE INDEX IF NOT EXISTS uniq_corrections_identity ON reconciler.corrections
    (tenant_name, event_table, coalesce(subject, ''), coalesce(supersedes_event_id, 0), observed,
     coalesce(life_began_at, '-infinity'));

CREATE TABLE IF NOT EXISTS reconciler.exceptions (
    tenant_name text        NOT NULL,
    reason      text        NOT NULL,
    note        text        NOT NULL,
    created_by  text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_name, reason)
);
COMMENT ON TABLE reconciler.exceptions IS
    'Reports that people know about and accept until expires_at: they are still shown.';
COMMENT ON COLUMN reconciler.exceptions.note IS 'Why it is accepted.';

CREATE TABLE IF NOT EXISTS reconciler.reports (
    tenant_name    text        NOT NULL,
    reason         text        NOT NULL,
    subject        text        NOT NULL DEFAULT '',
    zitadel_org_id text,
    recorded       text,
    observed       text,
    since          timestamptz NOT NULL DEFAULT now(),
    told           jsonb       NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_name, reason, subject)
);
COMMENT ON TABLE reconciler.reports IS
    'The reports that are open: what the last pass left to a person. A row goes when a pass no longer finds it.';
COMMENT ON COLUMN reconciler.reports.tenant_name IS
    'Empty where the report is about the passes themselves: the last one was stopped.';
COMMENT ON COLUMN reconciler.reports.reason IS 'What is wrong; blocked or failed where a pass was stopped.';
COMMENT ON COLUMN reconciler.reports.subject IS 'The skill; empty where it is about the tenant as a whole.';
COMMENT ON COLUMN reconciler.reports.since IS 'The first pass that found it.';
COMMENT ON COLUMN reconciler.reports.told IS
    'When each receiver of alerts was last told of it, by the receiver''s name; emptied when the report changes.';

CREATE TABLE IF NOT EXISTS reconciler.totals (
    reason       text          PRIMARY KEY,
    corrections  bigint        NOT NULL,
    positive_chf numeric(14, 2) NOT NULL,
    negative_chf numeric(14, 2) NOT NULL
);
COMMENT ON TABLE reconciler.totals IS
    'How many corrections there ever were of each reason, and what they were worth: what the metrics count.';

CREATE TABLE IF NOT EXISTS reconciler.closed_lives (
    tenant_name    text        NOT NULL,
    zitadel_org_id text        NOT NULL,
    created_at     timestamptz NOT NULL,
    deleted_at     timestamptz NOT NULL,
    reopened_at    timestamptz NOT NULL DEFAULT now(),
    reopened_by    text        NOT NULL,
    note           text        NOT NULL,
    PRIMARY KEY (tenant_name, created_at)
);
COMMENT ON TABLE reconciler.closed_lives IS
    'The earlier lives of tenants that were deleted and created anew under the same name: the lifecycle holds only '
    'the last one. They are billed like it.';
COMMENT ON COLUMN reconciler.closed_lives.created_at IS 'When that life began, as the lifecycle row said.';
COMMENT ON COLUMN reconciler.closed_lives.deleted_at IS 'When it ended.';
COMMENT ON COLUMN reconciler.closed_lives.note IS 'Why the lifecycle was opened again.';

CREATE TABLE IF NOT EXISTS reconciler.source (
    id               int         PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    identity         text        NOT NULL,
    resource_version text,
    pinned_at        timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE reconciler.source IS
    'The cluster that this ledger belongs to: at most one row. A pass over another cluster is refused.';
COMMENT ON COLUMN reconciler.source.identity IS
    'The uid of the cluster''s kube-system namespace, or "snapshot" for a file.';
COMMENT ON COLUMN reconciler.source.resource_version IS
    'The version of the last list that was accepted. A list with a lower one is stale, and refused.';
