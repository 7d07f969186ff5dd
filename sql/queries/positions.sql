-- What is remembered from run to run: the queries of reconciler/db/positions.py.

-- name: sightings
-- The tenants of which the staged list shows something else than what is remembered: both sides; of one that is gone,
-- the uid that has its name now, empty where that cannot be read; of a new one, the tenant that had its name. Nothing is
-- known where another run has moved the position: what it remembers may be younger than this list.
-- Of a restored cluster all are returned: what it undid is not to be seen. `names` restricts it to some.
WITH known AS (
  SELECT uid, tenant_name, resource_version, generation, org, packages, suspended, suspend_is_set, created_at,
         deleting_at, since, is_current, gone_at, unwritten_since
  FROM reconciler.tenants
  WHERE source = %(source)s AND (%(names)s::text[] IS NULL OR tenant_name = ANY (%(names)s::text[]))
        AND (SELECT (position, position_at) IS NOT DISTINCT FROM (%(last_position)s::text, %(last_at)s::timestamptz)
             FROM reconciler.source)
)
SELECT o.tenant_name, o.namespace, o.uid, o.org, o.packages, o.suspended, o.resource_version, o.detail,
       CASE WHEN heir.tenant_name IS NOT NULL THEN coalesce(heir.uid, '') END,
       t.*, forerunner.*
FROM staged o
FULL JOIN known t ON t.uid = o.uid
LEFT JOIN staged heir ON o.tenant_name IS NULL AND heir.tenant_name = t.tenant_name
LEFT JOIN known forerunner
       ON t.uid IS NULL AND forerunner.tenant_name = o.tenant_name AND forerunner.gone_at IS NULL
WHERE (t.uid IS NOT NULL OR o.is_live IS NOT NULL AND o.uid IS NOT NULL)
      AND (o.tenant_name IS NOT NULL OR t.gone_at IS NULL)
      AND (%(is_restored)s OR (t.resource_version, t.is_current, t.gone_at)
                              IS DISTINCT FROM (o.resource_version, true, NULL))

-- name: restored_before
-- The tenants that an earlier run has seen under another uid, and that are as they were under the uid before.
SELECT t.uid
FROM reconciler.tenants t JOIN reconciler.tenants f ON f.uid = t.follows
WHERE t.source = %(source)s AND t.gone_at IS NULL AND NOT t.continues
      AND (t.org, t.packages, t.suspended) IS NOT DISTINCT FROM (f.org, f.packages, f.suspended)

-- name: continue_tenants
-- Who is taken for the same tenant as the one before is known for as long.
UPDATE reconciler.tenants t SET continues = true, since = f.since
FROM reconciler.tenants f
WHERE t.source = %(source)s AND t.uid = ANY (%(continuing)s::text[]) AND f.uid = t.follows

-- name: move_position
-- Only if the position is still the one that the run began with, and of the source that is pinned. `at` is empty where
-- the log did not reach the list, and `whole_at` where it left a tenant unproven.
UPDATE reconciler.source
SET position = %(position)s, position_at = coalesce(%(at)s::timestamptz, position_at),
    whole_at = coalesce(%(whole_at)s::timestamptz, whole_at)
WHERE identity = %(source)s
      AND (position, position_at) IS NOT DISTINCT FROM (%(last_position)s::text, %(last_at)s::timestamptz)

-- name: sighted_table
-- What a list showed, for this transaction only.
CREATE TEMPORARY TABLE sighted (
  state text NOT NULL,        -- seen, vanished, unreadable
  uid text NOT NULL,
  tenant_name text,
  resource_version text,
  generation bigint,
  org text,
  packages text[],
  suspended boolean,
  suspend_is_set boolean,
  created_at timestamptz,
  deleting_at timestamptz,
  since timestamptz,
  follows text
) ON COMMIT DROP

-- name: copy_sighted
COPY sighted FROM STDIN

-- name: gaps_table
CREATE TEMPORARY TABLE sighted_gaps (
  uid text NOT NULL, tenant_name text NOT NULL, from_at timestamptz NOT NULL, until_at timestamptz NOT NULL, why text NOT NULL, manager text
) ON COMMIT DROP

-- name: copy_gaps
COPY sighted_gaps FROM STDIN

-- name: drop_proven
-- Of these tenants the change log showed what happened, or will.
DELETE FROM sighted_gaps WHERE uid = ANY (%(proven)s::text[])

-- name: know_created
-- The change log showed the creation of these tenants.
UPDATE sighted SET since = created_at WHERE uid = ANY (%(created)s::text[])

-- name: know_ended
-- What was on when the deletion of these tenants was asked for. What their spec became after that is not billed.
UPDATE sighted SET packages = ARRAY(SELECT jsonb_array_elements_text(e.value))
FROM jsonb_each(%(ended)s::jsonb) AS e WHERE sighted.uid = e.key

-- name: remember_tenants
INSERT INTO reconciler.tenants AS t (
  source, uid, tenant_name, resource_version, generation, org, packages, suspended, suspend_is_set, created_at,
  deleting_at, since, follows)
SELECT %(source)s, uid, tenant_name, resource_version, generation, org, packages, suspended, suspend_is_set, created_at,
       deleting_at, since, follows
FROM sighted WHERE state = 'seen'
ON CONFLICT (source, uid) DO UPDATE
SET tenant_name = excluded.tenant_name, resource_version = excluded.resource_version, generation = excluded.generation,
    org = excluded.org, packages = excluded.packages, suspended = excluded.suspended,
    suspend_is_set = excluded.suspend_is_set, deleting_at = excluded.deleting_at, is_current = true, gone_at = NULL,
    unwritten_since = CASE WHEN excluded.generation = t.generation THEN t.unwritten_since END

-- name: forget_vanished
-- What the list lacked, or showed and could not be read, stays as it was.
UPDATE reconciler.tenants t
SET gone_at = CASE WHEN s.state = 'vanished' THEN %(at)s::timestamptz END, is_current = s.state <> 'unreadable'
FROM sighted s
WHERE t.source = %(remembered)s AND t.uid = s.uid AND s.state <> 'seen'

-- name: mark_unwritten
-- The tenants whose state in the list is not in the ledger, and those where it is by now.
UPDATE reconciler.tenants
SET unwritten_since = CASE WHEN unwritten_since IS NULL THEN coalesce(%(last_at)s::timestamptz, %(at)s) END
WHERE source = %(source)s AND gone_at IS NULL
      AND (%(names)s::text[] IS NULL OR tenant_name = ANY (%(names)s::text[]))
      AND (unwritten_since IS NULL AND tenant_name = ANY (%(unwritten)s::text[])
           OR unwritten_since IS NOT NULL AND tenant_name <> ALL (%(unwritten)s::text[]))

-- name: keep_gaps
-- A gap that begins before the last one of its tenant ends is one with it.
WITH widened AS (
  UPDATE reconciler.gaps g
  SET until_at = greatest(g.until_at, s.until_at), why = s.why, manager = coalesce(s.manager, g.manager)
  FROM sighted_gaps s
  WHERE g.source = %(source)s AND g.tenant_name = s.tenant_name AND g.until_at >= s.from_at
  RETURNING g.tenant_name
)
INSERT INTO reconciler.gaps (source, tenant_name, from_at, until_at, why, manager)
SELECT DISTINCT ON (tenant_name) %(source)s, tenant_name, from_at, until_at, why, manager
FROM sighted_gaps -- of two tenants of one name, both have the same one
WHERE tenant_name NOT IN (SELECT tenant_name FROM widened)
ORDER BY tenant_name, why

-- name: remembered
-- These tenants as they are remembered.
SELECT uid, tenant_name, resource_version, generation, org, packages, suspended, suspend_is_set, created_at,
       deleting_at, since, is_current, gone_at, unwritten_since
FROM reconciler.tenants
WHERE source = %(source)s AND uid = ANY (%(uids)s::text[])

-- name: position_moved
-- True if another run has moved the position, of whatever source.
SELECT (position, position_at) IS DISTINCT FROM (%(last_position)s::text, %(last_at)s::timestamptz)
FROM reconciler.source

-- name: left_in_doubt
-- What the run that was written last could not prove.
SELECT unnest(unverified) FROM (
  SELECT unverified FROM reconciler.proving_runs WHERE observed_at > now() - interval '1 day'
  ORDER BY finished_at DESC LIMIT 1
) AS last

-- name: kept_changes
-- The changes that are kept, but not where another run has moved the position.
SELECT uid, tenant_name, resource_version, kind, nullif(skill, ''), org, not_before, not_after, at, created_at, event_id,
       is_latest
FROM reconciler.changes
WHERE source = %(source)s
      AND (SELECT (position, position_at) IS NOT DISTINCT FROM (%(last_position)s::text, %(last_at)s::timestamptz)
           FROM reconciler.source)

-- name: earlier_lists
-- The lists since the position, the latest last, as far as they are needed to date a change. The list of a run that a
-- safety limit has stopped was good, too: such a run has taken the log in.
SELECT resource_version::bigint, observed_at FROM (
  SELECT resource_version, observed_at FROM reconciler.runs
  WHERE source = %(source)s AND mode = 'run'
        AND (outcome IN ('clean', 'corrected', 'drift') OR outcome = 'blocked' AND history ->> 'log' <> 'none')
        AND observed_at >= %(last_at)s AND resource_version ~ '^[0-9]{1,18}$'
        AND started_at >= %(last_at)s -- the same moment, which has an index for every outcome
  ORDER BY started_at DESC LIMIT %(max_runs)s
) AS run
ORDER BY 1, 2

-- name: tenants_named
-- Every tenant that had one of these names; one that a person took for the one before it counts from that one's creation.
SELECT t.tenant_name, t.uid, CASE WHEN t.continues THEN least(t.created_at, f.created_at) ELSE t.created_at END
FROM reconciler.tenants t LEFT JOIN reconciler.tenants f ON (f.source, f.uid) = (t.source, t.follows)
WHERE t.source = %(source)s AND t.tenant_name = ANY (%(names)s::text[])

-- name: restored_tenants
-- Who had these names when a person decided since when they lived, that beginning, and the creation if it is remembered.
SELECT c.tenant_name, c.uid, c.life_began_at, (
         SELECT t.created_at FROM reconciler.tenants t WHERE t.source = %(source)s AND t.uid = c.uid)
FROM reconciler.corrections c
WHERE c.tenant_name = ANY (%(names)s::text[]) AND c.event_table = 'tenant_billing_lifecycle'
      AND c.evidence = 'decided' AND c.uid IS NOT NULL
ORDER BY c.id

-- name: our_events
-- Which of these events a run has written.
SELECT tenant_name, event_table, event_id FROM reconciler.corrections
WHERE tenant_name = ANY (%(names)s::text[]) AND event_id = ANY (%(ids)s::bigint[])

-- name: forget_changes
DELETE FROM reconciler.changes c
USING unnest(%(uids)s::text[], %(versions)s::text[], %(kinds)s::text[], %(skills)s::text[])
      AS done (uid, resource_version, kind, skill)
WHERE c.source = %(source)s
      AND (c.uid, c.resource_version, c.kind, c.skill) = (done.uid, done.resource_version, done.kind, done.skill)

-- name: copy_changes
COPY reconciler.changes (
  source, uid, tenant_name, resource_version, kind, skill, org, not_before, not_after, at, created_at, is_latest)
FROM STDIN

-- name: claim_changes
-- Which events this run has appended for them.
UPDATE reconciler.changes c SET event_id = o.event_id
FROM reconciler.corrections o
WHERE o.run_id = %(run_id)s AND o.event_id IS NOT NULL AND c.source = %(source)s
      AND (c.uid, c.resource_version) = (o.uid, o.resource_version) AND c.skill = coalesce(o.subject, '')
      AND c.kind = CASE o.observed WHEN 'running' THEN 'resumed' ELSE o.observed END
