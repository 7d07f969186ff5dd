-- How things stand: the queries of `reconciler status`.
--
-- However long the history is, none of these reads more than a bounded part of it.

-- name: status_reports
-- First the reports about the runs themselves, then those that nobody has accepted, the latest first. Each row has the
-- total.
SELECT r.tenant_name, r.reason, r.subject, r.zitadel_org_id, r.recorded, r.observed, r.since, e.expires_at,
       count(*) OVER ()
FROM reconciler.reports r
LEFT JOIN reconciler.exceptions e
       ON e.tenant_name = r.tenant_name AND e.reason = r.reason AND e.expires_at > now()
ORDER BY r.tenant_name <> '', e.expires_at IS NOT NULL, r.since DESC, r.tenant_name COLLATE "C", r.reason, r.subject
LIMIT %(max_rows)s

-- name: status_exceptions
-- Those in force, and those that expired lately or whose report is open. Each row has the total.
SELECT tenant_name, reason, note, created_by, created_at, expires_at, expires_at <= now(), count(*) OVER ()
FROM reconciler.exceptions e
WHERE expires_at > now() - %(since)s::interval
      OR EXISTS (SELECT FROM reconciler.reports r WHERE r.tenant_name = e.tenant_name AND r.reason = e.reason)
ORDER BY expires_at, tenant_name COLLATE "C", reason
LIMIT %(max_rows)s

-- name: status_corrections
-- How many rows were corrected on each UTC day, as the runs' own rows say.
SELECT (r.observed_at AT TIME ZONE 'UTC')::date AS day, sum(done.number::bigint)::bigint
FROM reconciler.runs r
CROSS JOIN jsonb_each(r.counts) AS found (reason, actions)
CROSS JOIN jsonb_each_text(found.actions) AS done (action, number)
WHERE r.outcome = 'corrected' AND r.observed_at >= %(since)s AND done.action NOT IN ('report', 'defer')
GROUP BY day ORDER BY day

-- name: status_latest_corrections
-- Those of which the ledger is asked whether they stand.
SELECT id FROM reconciler.corrections ORDER BY id DESC LIMIT %(max_rows)s

-- name: status_decisions
-- What people decided lately, by the number, the latest first, and what became of it. Each row has the total. Of a
-- lifetime or a payer the row about that counts, else the first one that was appended.
WITH made AS (
  SELECT DISTINCT ON (decision) decision, tenant_name, subject, reason, event_table, takes_back_event_id, observed,
         not_before, not_after, by, decided_at, note, taken_back_at, taken_back_by
  FROM reconciler.corrections
  WHERE decision IS NOT NULL AND run_id IS NULL AND decided_at > now() - %(since)s::interval
  ORDER BY decision, event_id IS NOT NULL, id
)
SELECT m.decision, m.tenant_name, m.subject, m.reason,
       CASE WHEN m.event_table = 'payers' THEN concat('paid for by ', m.observed)
            WHEN m.event_table = 'tenant_billing_lifecycle' THEN concat('lived ', m.observed)
            WHEN m.reason <> 'retracted' THEN m.observed
            WHEN m.takes_back_event_id IS NULL
            THEN concat('number ', (SELECT min(c.number) FROM reconciler.corrections c
                                    WHERE c.tenant_name = m.tenant_name AND c.taken_back_by = m.decision))
            ELSE concat(CASE m.event_table WHEN 'tenant_skill_events' THEN 'skill:' ELSE 'suspension:' END,
                        m.takes_back_event_id) END,
       m.not_before, nullif(m.not_after, 'infinity'), m.by, m.decided_at, m.note,
       (SELECT count(*) FROM reconciler.corrections c WHERE c.decision = m.decision AND c.run_id IS NOT NULL),
       CASE WHEN m.taken_back_by IS NOT NULL THEN concat('number ', m.taken_back_by)
            WHEN m.taken_back_at IS NOT NULL THEN 'an unknown hand' END,
       count(*) OVER ()
FROM made m ORDER BY m.decision DESC LIMIT %(max_rows)s

-- name: status_owed
-- Who was never notified of the corrections of which run, for as long as a later run makes up for it. Each row has the
-- total.
SELECT r.id, each.key, r.finished_at, count(*) OVER ()
FROM reconciler.runs r CROSS JOIN jsonb_each(r.notified) AS each
WHERE jsonb_path_exists(r.notified, '$.* ? (@ == null)') AND r.started_at > now() - interval '30 days'
      AND each.value = 'null'
ORDER BY r.started_at, each.key COLLATE "C" LIMIT %(max_rows)s

-- name: status_runs
-- The latest runs, without those that began after now.
SELECT id, started_at, finished_at, outcome, source, tenants_observed, tenants_recorded, counts, error, compared
FROM reconciler.runs WHERE started_at <= now() ORDER BY started_at DESC, finished_at DESC LIMIT %(max_rows)s

-- name: status_last_day
-- How far the runs of the last day could read the change log, how many seconds lay between two lists, and how many
-- changes waited after the last of them. Runs over files have no log, and the first run of all had nothing to read.
SELECT count(*), count(*) FILTER (WHERE log = 'reached'), count(*) FILTER (WHERE log = 'partly'),
       count(*) FILTER (WHERE log = 'lost'), percentile_disc(0.5) WITHIN GROUP (ORDER BY seconds), max(seconds),
       coalesce((array_agg(waiting ORDER BY started_at DESC))[1], 0)
FROM (
  SELECT started_at, history ->> 'log' AS log, (history ->> 'seconds')::bigint AS seconds,
         (history ->> 'waiting')::bigint AS waiting
  FROM reconciler.runs WHERE started_at > now() - interval '1 day' AND started_at <= now()
) AS run
WHERE log <> 'none' AND seconds IS NOT NULL

-- name: status_future_runs
-- How many runs observed after now, and when the last of them did. A run starts when it observes, give or take seconds.
SELECT count(*), max(observed_at) FROM reconciler.runs
WHERE started_at > now() - interval '1 hour' AND observed_at > now()
