-- A run proves what was settled when it began, by the settle period that it used itself: what is asked later cannot
-- shorten that. Runs of earlier versions did not keep it, and count with the default of that time. A run that observed
-- after now did so while this server's clock was ahead: it proves nothing about the time in between. (That condition is
-- one for the index, and does not change it.)

ALTER TABLE reconciler.runs ADD COLUMN settle interval;
COMMENT ON COLUMN reconciler.runs.settle IS
    'How long after a change of a resource the portal could still write its row, as this run was told. Empty if an '
    'earlier version recorded the run: it counts as 60 s.';

CREATE OR REPLACE VIEW reconciler.proving_runs AS
SELECT id, started_at, observed_at, finished_at, mode, outcome, version, source, resource_version, tenants_observed,
       tenants_recorded, counts, unverified, error, changing, coalesce(settle, interval '60 seconds') AS settle
FROM reconciler.runs
WHERE outcome IN ('clean', 'corrected', 'drift') AND mode = 'run' AND source <> 'snapshot' AND observed_at <= now();
COMMENT ON VIEW reconciler.proving_runs IS
    'The runs that proved the ledger: over a cluster, neither stopped nor a plan, and not begun after now. Each proved '
    'every tenant except those in unverified.';
