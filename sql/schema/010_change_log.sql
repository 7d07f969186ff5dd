-- The changes that the API server's change log showed, and which event a run has appended for each.
-- The rules: reconciler/core/changes.py and reconciler/core/pairing.py.

CREATE TABLE reconciler.changes (
    source           text        NOT NULL,
    uid              text        NOT NULL,
    tenant_name      text        NOT NULL,
    resource_version text        NOT NULL,
    kind             text        NOT NULL,
    skill            text        NOT NULL DEFAULT '',
    org              text,
    not_before       timestamptz NOT NULL,
    not_after        timestamptz NOT NULL,
    at               timestamptz,
    created_at       timestamptz NOT NULL,
    event_id         bigint,
    PRIMARY KEY (source, uid, resource_version, kind, skill)
);
COMMENT ON TABLE reconciler.changes IS
    'The changes that the change log showed: those whose row in the ledger may still come, and those that may still be '
    'paired anew with the rows around theirs. Older ones are removed.';
COMMENT ON COLUMN reconciler.changes.source IS 'The uid of the cluster''s kube-system namespace.';
COMMENT ON COLUMN reconciler.changes.uid IS 'Which tenant of that name it is: metadata.uid.';
COMMENT ON COLUMN reconciler.changes.resource_version IS 'The version that showed it: its place in the log.';
COMMENT ON COLUMN reconciler.changes.kind IS 'created, enabled, disabled, suspended, resumed or deleted.';
COMMENT ON COLUMN reconciler.changes.skill IS 'The skill of enabled and disabled; else empty.';
COMMENT ON COLUMN reconciler.changes.org IS 'The organisation on the label of that version; empty if it had none.';
COMMENT ON COLUMN reconciler.changes.not_before IS 'It cannot have happened earlier.';
COMMENT ON COLUMN reconciler.changes.not_after IS 'It cannot have happened later.';
COMMENT ON COLUMN reconciler.changes.at IS 'When it happened, if the version says so.';
COMMENT ON COLUMN reconciler.changes.created_at IS 'When its tenant was created.';
COMMENT ON COLUMN reconciler.changes.event_id IS
    'The event that a run has appended for it. One that the portal wrote is found anew in each run.';

ALTER TABLE reconciler.source ADD COLUMN whole_at timestamptz;
COMMENT ON COLUMN reconciler.source.whole_at IS
    'When the run began whose list showed no tenant otherwise than the change log had: up to then the history of every '
    'known tenant is proven, though the log may not have reached that list.';
COMMENT ON COLUMN reconciler.source.position IS
    'The resourceVersion up to which the change log was read; reconciler.tenants is as it stood there.';
COMMENT ON COLUMN reconciler.source.position_at IS
    'When the run began whose list the change log reached last, or whose list became the position.';
COMMENT ON COLUMN reconciler.runs.history IS
    'What the run could prove of the time since the run before: how far it read the change log, how many seconds lay '
    'between the two lists and how many versions the log showed, how many changes wait for their rows, and how many '
    'tenants have a new gap.';

ALTER TABLE reconciler.corrections ADD COLUMN uid text, ADD COLUMN resource_version text;
COMMENT ON COLUMN reconciler.corrections.uid IS 'The tenant whose change the change log showed; else empty.';
COMMENT ON COLUMN reconciler.corrections.resource_version IS 'The version that showed the change; else empty.';
COMMENT ON COLUMN reconciler.corrections.evidence IS
    'What the date relies on. change_log: the change log showed this change. creation: the tenant''s creation time. '
    'deletion: its deletion time. suspended_at: the time in its status. field_manager: when the field was last written. '
    'none: dated by policy.';
ALTER TABLE reconciler.corrections
    DROP CONSTRAINT corrections_evidence_check,
    ADD CONSTRAINT corrections_evidence_check CHECK (
        evidence IN ('change_log', 'creation', 'deletion', 'suspended_at', 'field_manager', 'none'));

ALTER TABLE reconciler.totals ADD COLUMN from_log bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN reconciler.totals.from_log IS 'How many of them the change log showed.';

-- what a version showed is identified by that version, and all else by the event that it supersedes
DROP INDEX reconciler.uniq_corrections_identity;
CREATE UNIQUE INDEX uniq_corrections_identity ON reconciler.corrections
    (tenant_name, event_table, action, coalesce(subject, ''),
     (CASE WHEN resource_version IS NULL THEN coalesce(supersedes_event_id, 0) ELSE -1 END), observed,
     coalesce(life_began_at, '-infinity'), coalesce(uid, ''), coalesce(resource_version, ''),
     (CASE WHEN taken_back_at IS NULL THEN 0 ELSE id END));

-- what a run has written is looked up by the run
CREATE INDEX corrections_run ON reconciler.corrections (run_id);
