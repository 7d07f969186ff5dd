-- A run may compare only what has changed since a list of all tenants; what only such a list can prove is proven by the
-- last one. The rules: docs/history.md.

ALTER TABLE reconciler.runs ADD COLUMN compared text NOT NULL DEFAULT 'all' CHECK (compared IN ('all', 'changed'));
COMMENT ON COLUMN reconciler.runs.compared IS
    'all: the run listed and compared every tenant. changed: only those that the change log or the ledger showed to have '
    'changed, and those that were in doubt; of all others it relied on the last run that compared all.';

CREATE OR REPLACE VIEW reconciler.proving_runs AS
SELECT id, started_at, observed_at, finished_at, mode, outcome, version, source, resource_version, tenants_observed,
       tenants_recorded, counts, unverified, error, changing, coalesce(settle, interval '60 seconds') AS settle, compared
FROM reconciler.runs
WHERE outcome IN ('clean', 'corrected', 'drift') AND mode = 'run' AND source <> 'snapshot' AND observed_at <= now();
COMMENT ON VIEW reconciler.proving_runs IS
    'The runs that proved the ledger: over a cluster, neither stopped nor a plan, and not begun after now. Those that '
    'compared all proved every tenant except those in unverified; the others, what has changed since.';

CREATE VIEW reconciler.last_runs AS
SELECT r.observed_at, r.settle, r.unverified, r.counts, r.observed_at = latest.at AS is_latest
FROM reconciler.proving_runs r, (
  SELECT observed_at AS at FROM reconciler.proving_runs ORDER BY observed_at DESC LIMIT 1
) AS latest
WHERE r.observed_at > latest.at - interval '1 hour' AND (r.observed_at = latest.at OR r.finished_at > latest.at);
COMMENT ON VIEW reconciler.last_runs IS
    'The last run that proved the ledger, and those that ended after it had begun: it need not have compared the tenants '
    'that they left in doubt.';

ALTER TABLE reconciler.changes ADD COLUMN is_latest boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN reconciler.changes.is_latest IS
    'True if "at" is only the latest time at which it can have happened: two lists showed the change, no version of its own.';
