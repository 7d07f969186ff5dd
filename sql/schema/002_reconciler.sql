-- The reconciler's own records: what it saw, what it wrote and why.
--
-- Reasons have no CHECK. Their closed set is reconciler.core.reasons.Reason, and a version that has a new one must be
-- able to run and record it before anybody has migrated.

CREATE SCHEMA IF NOT EXISTS reconciler;
COMMENT ON SCHEMA reconciler IS
    'The records of the billing reconciler: every run, every row of the ledger that it corrected and why, and the '
    'reports that people accepted.';

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
    'One row per run, including runs that failed or were refused; a plan writes none. A run''s corrections are '
    'committed together with its row here.';
COMMENT ON COLUMN reconciler.runs.observed_at IS
    'When the observation of the cluster began, by the clock of this database. Empty if the run failed before.';
COMMENT ON COLUMN reconciler.runs.mode IS 'plan: only showed the differences. run: also corrected them.';
COMMENT ON COLUMN reconciler.runs.outcome IS
    'clean: the ledger was true. corrected: it is true now. drift: differences remain that need a person, or that a '
    'plan only showed. blocked: a safety rule refused to write. failed: see error.';
COMMENT ON COLUMN reconciler.runs.version IS 'The version of the reconciler.';
COMMENT ON COLUMN reconciler.runs.source IS
    'What was observed: the uid of the cluster''s kube-system namespace, or "snapshot" for a file.';
COMMENT ON COLUMN reconciler.runs.resource_version IS
    'The resourceVersion of the list that was observed.';
COMMENT ON COLUMN reconciler.runs.tenants_observed IS 'How many tenants the cluster showed.';
COMMENT ON COLUMN reconciler.runs.tenants_recorded IS 'How many tenants were open in the ledger before the run.';
COMMENT ON COLUMN reconciler.runs.counts IS
    'The number of findings for each reason and action.';
COMMENT ON COLUMN reconciler.runs.unverified IS
    'The tenants that this run could not verify as true: unreadable, still changing, or reported to a person. '
    'All others were true when it ended.';

-- "Verified true up to": each run looks up the latest one that succeeded.
CREATE INDEX IF NOT EXISTS runs_succeeded ON reconciler.runs (observed_at DESC)
    WHERE outcome IN ('clean', 'corrected', 'drift');

-- The index above serves this view: its own condition is part of the view's.
CREATE OR REPLACE VIEW reconciler.proving_runs AS
SELECT * FROM reconciler.runs
WHERE outcome IN ('clean', 'corrected', 'drift') AND mode = 'run' AND source <> 'snapshot';
COMMENT ON VIEW reconciler.proving_runs IS
    'The runs that proved the ledger: over a cluster, and neither stopped nor a plan. Each proved every tenant except '
    'those in unverified.';

-- `reconciler status` shows the last runs of every outcome.
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
    'One row per row of the ledger that the reconciler wrote or changed: what was wrong, what was written, the '
    'evidence for its time, and its impact on what is billed.';
COMMENT ON COLUMN reconciler.corrections.run_id IS 'The run that wrote it, see reconciler.runs.';
COMMENT ON COLUMN reconciler.corrections.reason IS 'What was wrong, for example skill_enable_unrecorded.';
COMMENT ON COLUMN reconciler.corrections.zitadel_org_id IS
    'The organisation that pays, as it was written; "unknown" if the tenant had no label.';
COMMENT ON COLUMN reconciler.corrections.subject IS
    'The skill; empty if the correction is about the tenant as a whole.';
COMMENT ON COLUMN reconciler.corrections.action IS
    'insert: a lifecycle row. append: an event. stamp: deleted_at was set. update: the organisation was set.';
COMMENT ON COLUMN reconciler.corrections.recorded IS 'The state in the ledger before; empty if there was none.';
COMMENT ON COLUMN reconciler.corrections.observed IS 'The state in the cluster, which the ledger now has too.';
COMMENT ON COLUMN reconciler.corrections.occurred_at IS
    'When the change is dated, between not_before and not_after.';
COMMENT ON COLUMN reconciler.corrections.not_before IS 'The change cannot have happened earlier.';
COMMENT ON COLUMN reconciler.corrections.not_after IS 'The change cannot have happened later.';
COMMENT ON COLUMN reconciler.corrections.evidence IS
    'What the date relies on. creation: the tenant''s creation time. deletion: its deletion time. suspended_at: '
    'the time in its status. field_manager: when the field was last written. none: dated by policy.';
COMMENT ON COLUMN reconciler.corrections.event_table IS 'The table in schema public that was written.';
COMMENT ON COLUMN reconciler.corrections.event_id IS
    'The id of the event that was written there; empty for a lifecycle row.';
COMMENT ON COLUMN reconciler.corrections.supersedes_event_id IS
    'The latest event before, which was wrong; empty if there was none.';
COMMENT ON COLUMN reconciler.corrections.life_began_at IS
    'The created_at of a lifecycle row, which distinguishes a tenant''s lifetimes; empty for an event.';
COMMENT ON COLUMN reconciler.corrections.closed_period IS
    'The change is dated in a month that was already invoiced to this organisation, so an adjustment is due.';
COMMENT ON COLUMN reconciler.corrections.impact_chf IS
    'What the correction changes in what is billed up to the observation, before VAT, at the prices of that day. '
    'Positive: revenue that was being lost. Negative: the customer was being overcharged.';
COMMENT ON COLUMN reconciler.corrections.impact_min_chf IS
    'The smaller impact of the two ends, not_before and not_after; empty if both are the same.';
COMMENT ON COLUMN reconciler.corrections.impact_max_chf IS
    'The greater impact of the two ends; empty if both are the same.';

-- A correction is identified by what it corrects, so that two concurrent runs, or a repeated one, write it once.
-- COALESCE, because a unique index treats NULLs as distinct and NULLS NOT DISTINCT needs PostgreSQL 15; no skill is
-- the empty string and no event has id 0. With life_began_at, a reopened tenant can be deleted once more.
-- The tenant comes first, so that `reconciler explain` finds a tenant's corrections by this index.
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
    'Reports that people know about and accept until expires_at. They are still shown, but alert nobody.';
COMMENT ON COLUMN reconciler.exceptions.note IS 'Why the report is accepted.';

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
    'The open reports: what the last run left to a person. A row is deleted when a run no longer finds it.';
COMMENT ON COLUMN reconciler.reports.tenant_name IS
    'Empty if the report is about the runs themselves: the last one was stopped.';
COMMENT ON COLUMN reconciler.reports.reason IS 'What is wrong; blocked or failed if a run was stopped.';
COMMENT ON COLUMN reconciler.reports.subject IS 'The skill; empty if it is about the tenant as a whole.';
COMMENT ON COLUMN reconciler.reports.since IS 'When a run first found it.';
COMMENT ON COLUMN reconciler.reports.told IS
    'When each recipient of alerts was last notified, by the recipient''s name; emptied when the report changes.';

CREATE TABLE IF NOT EXISTS reconciler.totals (
    reason       text          PRIMARY KEY,
    corrections  bigint        NOT NULL,
    positive_chf numeric(14, 2) NOT NULL,
    negative_chf numeric(14, 2) NOT NULL
);
COMMENT ON TABLE reconciler.totals IS
    'The number and the impact of all corrections so far for each reason, which the metrics show.';

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
    'The earlier lifetimes of tenants that were deleted and recreated under the same name. The lifecycle table holds '
    'only the last one; all are billed.';
COMMENT ON COLUMN reconciler.closed_lives.created_at IS 'When that lifetime began, as the lifecycle row said.';
COMMENT ON COLUMN reconciler.closed_lives.deleted_at IS 'When it ended.';
COMMENT ON COLUMN reconciler.closed_lives.note IS 'Why the tenant was reopened.';

CREATE TABLE IF NOT EXISTS reconciler.source (
    id               int         PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    identity         text        NOT NULL,
    resource_version text,
    pinned_at        timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE reconciler.source IS
    'The cluster that this ledger belongs to: at most one row. A run over another cluster is refused.';
COMMENT ON COLUMN reconciler.source.identity IS
    'The uid of the cluster''s kube-system namespace, or "snapshot" for a file.';
COMMENT ON COLUMN reconciler.source.resource_version IS
    'The resourceVersion of the last accepted list. A list with a lower one is stale, and refused.';
