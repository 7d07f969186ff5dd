-- Fold old clean runs into one row a day: the queries of reconciler/db/prune.py. The rule: reconciler/core/folding.py.

-- name: may_prune
-- True for the owner of the table, who is none of the roles of sql/roles.sql.
SELECT has_table_privilege('reconciler.runs', 'DELETE') AND has_table_privilege('reconciler.runs', 'UPDATE')

-- name: foldable_until
-- The start of the first UTC day of which every run stays: they are younger than `age`, lie at or after the position,
-- whose lists still date changes, or are among the last ones, which `reconciler status` lists.
SELECT date_trunc('day', least(
         now() - %(age)s::interval, (SELECT min(position_at) FROM reconciler.source),
         (SELECT min(started_at) FROM (SELECT started_at FROM reconciler.runs
                                       WHERE started_at <= now() ORDER BY started_at DESC LIMIT %(last_runs)s) last)))

-- name: day_of_clean_runs
-- The first UTC day from this one on with a run that succeeded.
SELECT date_trunc('day', min(observed_at)) FROM reconciler.runs
WHERE outcome IN ('clean', 'corrected', 'drift') AND observed_at >= %(from)s AND observed_at < %(until)s

-- name: opened_reports
-- When the open reports were opened on this day.
SELECT since FROM reconciler.reports WHERE since >= %(day)s AND since < %(day)s::timestamptz + interval '1 day'
ORDER BY since

-- name: clean_runs_of_day
-- The latest first. One says more than which reports are accepted if it found or deferred anything else, notified
-- anybody, left time unproven, or is the run that a correction or a closing names.
SELECT id, observed_at, source, unverified, counts::text,
       EXISTS (SELECT FROM jsonb_each(counts) AS found (reason, actions), jsonb_object_keys(actions) AS action
               WHERE action <> 'report')
       OR changing <> '{}' OR notified <> '{}' OR error IS NOT NULL
       OR coalesce((history ->> 'gaps')::bigint, 0) > 0
       OR EXISTS (SELECT FROM reconciler.corrections c WHERE c.run_id = r.id)
       OR EXISTS (SELECT FROM reconciler.closings c WHERE c.run_id = r.id),
       compared = 'all'
FROM reconciler.runs r
WHERE outcome = 'clean' AND mode = 'run'
      AND observed_at >= %(day)s AND observed_at < %(day)s::timestamptz + interval '1 day'
ORDER BY observed_at DESC, id DESC

-- name: fold_runs
-- The run that stays counts those that go, and those that had been folded into them.
WITH gone AS (
  DELETE FROM reconciler.runs r USING unnest(%(gone)s::uuid[], %(into)s::uuid[]) AS pair (id, into_id)
  WHERE r.id = pair.id
  RETURNING pair.into_id, r.folded + 1 AS number
)
UPDATE reconciler.runs r SET folded = r.folded + g.number
FROM (SELECT into_id, sum(number)::int AS number FROM gone GROUP BY into_id) g
WHERE r.id = g.into_id
