-- Who was notified of a run's corrections. A run that died after its commit has notified nobody: the next one does.

ALTER TABLE reconciler.runs ADD COLUMN notified jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN reconciler.runs.notified IS
    'By the name of a recipient of alerts: when it was notified of the corrections of this run, null while it is owed '
    'that. Empty if the run corrected nothing.';

CREATE INDEX runs_owed ON reconciler.runs (started_at) WHERE jsonb_path_exists(notified, '$.* ? (@ == null)');
