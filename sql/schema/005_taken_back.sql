-- A correction can be undone in the ledger by a hand that we do not know, and must then not stand in the way of the
-- same correction: of one that was taken back there may be any number, of one that stands there is one.

ALTER TABLE reconciler.corrections ADD COLUMN taken_back_at timestamptz;
COMMENT ON COLUMN reconciler.corrections.taken_back_at IS
    'When a run found that the ledger no longer shows what this correction wrote, and wrote it again; empty while it '
    'stands.';

DROP INDEX reconciler.uniq_corrections_identity;
CREATE UNIQUE INDEX uniq_corrections_identity ON reconciler.corrections
    (tenant_name, event_table, action, coalesce(subject, ''), coalesce(supersedes_event_id, 0), observed,
     coalesce(life_began_at, '-infinity'), (CASE WHEN taken_back_at IS NULL THEN 0 ELSE id END));

-- a run knows only when it has written its corrections what its own row must say
ALTER TABLE reconciler.corrections ALTER CONSTRAINT corrections_run_id_fkey DEFERRABLE INITIALLY DEFERRED;
