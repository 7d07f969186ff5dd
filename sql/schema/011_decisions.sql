-- What people decide about the past. Each decision has a number, among those of the corrections, and says who decided it,
-- when and why. No row of the ledger is removed: what overrules a row is appended, and what moves keeps its old value.
-- The rules: reconciler/core/replay.py.

ALTER TABLE reconciler.corrections
    ALTER COLUMN run_id DROP NOT NULL,
    ADD COLUMN decision bigint,
    ADD COLUMN decided_at timestamptz,
    ADD COLUMN by text,
    ADD COLUMN role text,
    ADD COLUMN note text,
    ADD COLUMN takes_back_event_id bigint;
ALTER TABLE reconciler.corrections ADD COLUMN number bigint GENERATED ALWAYS AS (coalesce(decision, id)) STORED;
COMMENT ON COLUMN reconciler.corrections.run_id IS
    'The run that wrote it, see reconciler.runs; empty if a person did.';
COMMENT ON COLUMN reconciler.corrections.decision IS
    'The number of the decision that it belongs to; empty if it belongs to none. A run writes rows of a decision where a '
    'later row would overrule it.';
COMMENT ON COLUMN reconciler.corrections.number IS
    'The number that people call it by: that of its decision, else its id.';
COMMENT ON COLUMN reconciler.corrections.decided_at IS 'When a person decided it, by the clock of this database.';
COMMENT ON COLUMN reconciler.corrections.by IS 'Who decided it, as the command was told.';
COMMENT ON COLUMN reconciler.corrections.role IS 'The database role that wrote it for a person.';
COMMENT ON COLUMN reconciler.corrections.note IS 'Why it was decided.';
COMMENT ON COLUMN reconciler.corrections.takes_back_event_id IS
    'The event that it takes back, if no correction wrote that: its key reads as if the event had never been written.';
COMMENT ON COLUMN reconciler.corrections.event_id IS
    'The id of the event that was written there; empty for any other row, and where a decision had nothing to append.';
COMMENT ON COLUMN reconciler.corrections.evidence IS
    'What the date relies on. change_log: the change log showed this change. decided: a person said so; not_before and '
    'not_after are then from when until when. creation: the tenant''s creation time. deletion: its deletion time. '
    'suspended_at: the time in its status. field_manager: when the field was last written. none: dated by policy.';
COMMENT ON COLUMN reconciler.corrections.uid IS
    'The tenant whose change the change log showed; of a lifetime that a person decided, the tenant that it is of.';
ALTER TABLE reconciler.corrections
    DROP CONSTRAINT corrections_evidence_check,
    ADD CONSTRAINT corrections_evidence_check CHECK (evidence IN (
        'change_log', 'decided', 'creation', 'deletion', 'suspended_at', 'field_manager', 'none')),
    ADD CONSTRAINT corrections_author_check CHECK (
        run_id IS NOT NULL OR (decision, decided_at, by, role, note) IS NOT NULL);

-- a row of a decision is identified by its number, its key, its instant and the event that it supersedes
DROP INDEX reconciler.uniq_corrections_identity;
CREATE UNIQUE INDEX uniq_corrections_identity ON reconciler.corrections
    (tenant_name, event_table, action, coalesce(subject, ''),
     (CASE WHEN resource_version IS NULL THEN coalesce(supersedes_event_id, 0) ELSE -1 END), observed,
     coalesce(life_began_at, '-infinity'), coalesce(uid, ''), coalesce(resource_version, ''),
     coalesce(decision, 0), (CASE WHEN decision IS NULL THEN '-infinity' ELSE occurred_at END),
     (CASE WHEN taken_back_at IS NULL THEN 0 ELSE id END));

CREATE INDEX corrections_decision ON reconciler.corrections (decision) WHERE decision IS NOT NULL;

CREATE INDEX corrections_take_back ON reconciler.corrections (event_table, takes_back_event_id)
    WHERE takes_back_event_id IS NOT NULL;
CREATE VIEW reconciler.left_out AS
SELECT event_table, takes_back_event_id AS event_id FROM reconciler.corrections
WHERE takes_back_event_id IS NOT NULL AND event_id IS NULL;
COMMENT ON VIEW reconciler.left_out IS
    'The events that lay in the future when a person took them back: nothing follows them, so they count nowhere.';
