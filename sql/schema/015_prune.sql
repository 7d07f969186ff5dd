-- What `reconciler prune` leaves of clean runs that are long past: one row a day. The rules: sql/queries/prune.sql.

ALTER TABLE reconciler.runs ADD COLUMN folded int NOT NULL DEFAULT 0;
COMMENT ON COLUMN reconciler.runs.folded IS
    'How many earlier runs of the same UTC day `reconciler prune` has folded into this row. Whatever they proved, this run '
    'proved too.';
