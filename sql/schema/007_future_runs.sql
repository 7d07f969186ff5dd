-- A run that observed after now did so while this server's clock was ahead: it proves nothing about the time in between.
-- The condition on observed_at is one for the index, and does not change it.

CREATE OR REPLACE VIEW reconciler.proving_runs AS
SELECT id, started_at, observed_at, finished_at, mode, outcome, version, source, resource_version, tenants_observed,
       tenants_recorded, counts, unverified, error
FROM reconciler.runs
WHERE outcome IN ('clean', 'corrected', 'drift') AND mode = 'run' AND source <> 'snapshot' AND observed_at <= now();
COMMENT ON VIEW reconciler.proving_runs IS
    'The runs that proved the ledger: over a cluster, neither stopped nor a plan, and not begun after now. Each proved '
    'every tenant except those in unverified.';
