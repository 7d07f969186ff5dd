-- Whether a period is proven: the queries of reconciler/db/certificate.py.

-- name: certificate_facts
-- What is known of each tenant that could be in doubt, of those that the question is about; a tenant of which nobody
-- knows who pays could be anybody's. A tenant without a doubt may come too.
WITH lifetime AS NOT MATERIALIZED (
  -- of one tenant it is looked up by the primary keys
  SELECT tenant_name, zitadel_org_id, created_at, deleted_at FROM public.tenant_billing_lifecycle
  UNION ALL
  SELECT tenant_name, zitadel_org_id, created_at, deleted_at FROM reconciler.earlier_lifetimes
), last AS (
  SELECT unverified FROM reconciler.last_runs
), assumed AS NOT MATERIALIZED (
  -- what was dated by policy, and may have happened on one of several days
  SELECT tenant_name, not_before, not_after, reason FROM reconciler.corrections
  WHERE evidence IN ('none', 'change_log') AND taken_back_at IS NULL AND reason <> 'skill_open_after_deletion'
        AND not_before < %(until)s AND not_after > %(first)s
        AND (not_before AT TIME ZONE 'UTC')::date < ((not_after - interval '1 microsecond') AT TIME ZONE 'UTC')::date
), in_doubt AS (
  SELECT unnest(unverified) AS tenant_name FROM last
  UNION SELECT tenant_name FROM reconciler.reports WHERE tenant_name <> ''
  UNION SELECT tenant_name FROM reconciler.gaps WHERE from_at < %(until)s AND until_at > %(first)s
  UNION SELECT l.tenant_name FROM lifetime l
        WHERE l.created_at < %(until)s AND (l.deleted_at IS NULL OR l.deleted_at > %(first)s)
              AND NOT EXISTS (
                SELECT FROM reconciler.tenants t
                WHERE t.tenant_name = l.tenant_name
                      AND t.since <= greatest(l.created_at, %(first)s) + %(settle)s::interval
                      AND t.created_at < coalesce(l.deleted_at, 'infinity')
                      AND coalesce(t.deleting_at, t.gone_at, 'infinity') > l.created_at)
  UNION SELECT t.tenant_name FROM reconciler.tenants t
        WHERE NOT EXISTS (SELECT FROM lifetime l
                          WHERE l.tenant_name = t.tenant_name AND t.created_at < coalesce(l.deleted_at, 'infinity')
                                AND coalesce(t.deleting_at, t.gone_at, 'infinity') > l.created_at)
  UNION SELECT tenant_name FROM reconciler.tenants GROUP BY tenant_name HAVING count(*) > 1
  UNION SELECT tenant_name FROM assumed
), payer AS NOT MATERIALIZED (
  SELECT tenant_name, zitadel_org_id FROM lifetime
  UNION ALL SELECT tenant_name, org FROM reconciler.paid_days
  UNION ALL SELECT tenant_name, org FROM reconciler.tenants
  UNION ALL SELECT tenant_name, zitadel_org_id FROM reconciler.reports
  -- what is closed may be owed back
  UNION ALL SELECT tenant_name, org FROM reconciler.closed_lines
)
SELECT d.tenant_name,
       (SELECT coalesce(json_agg(json_build_array(created_at, deleted_at)), '[]')
        FROM lifetime l WHERE l.tenant_name = d.tenant_name)::text,
       (SELECT coalesce(json_agg(json_build_array(created_at, coalesce(deleting_at, gone_at), since, continues)), '[]')
        FROM reconciler.tenants t WHERE t.tenant_name = d.tenant_name)::text,
       (SELECT coalesce(json_agg(json_build_array(from_at, until_at, why, manager) ORDER BY from_at), '[]')
        FROM reconciler.gaps g WHERE g.tenant_name = d.tenant_name AND from_at < %(until)s AND until_at > %(first)s
       )::text,
       (SELECT coalesce(json_agg(json_build_array(not_before, not_after, reason) ORDER BY not_before, reason), '[]')
        FROM assumed a WHERE a.tenant_name = d.tenant_name)::text,
       (SELECT coalesce(json_agg(json_build_array(r.reason, e.reason IS NOT NULL) ORDER BY r.reason, r.subject), '[]')
        FROM reconciler.reports r
        LEFT JOIN reconciler.exceptions e
               ON e.tenant_name = r.tenant_name AND e.reason = r.reason AND e.expires_at > now()
        WHERE r.tenant_name = d.tenant_name)::text,
       (SELECT created_at FROM reconciler.exceptions e
        WHERE e.tenant_name = d.tenant_name AND e.reason = 'history_unproven' AND e.expires_at > now()),
       d.tenant_name IN (SELECT unnest(unverified) FROM last)
FROM in_doubt d
WHERE (%(tenant)s::text IS NULL OR d.tenant_name IN (%(tenant)s, '*'))
      AND (%(org)s::text IS NULL OR d.tenant_name = '*' OR EXISTS (
             SELECT FROM payer p
             WHERE p.tenant_name = d.tenant_name
                   AND coalesce(p.zitadel_org_id, 'unknown') IN (%(org)s::text, 'unknown'))
           OR NOT EXISTS (SELECT FROM payer p WHERE p.tenant_name = d.tenant_name))
ORDER BY d.tenant_name COLLATE "C"

-- name: accepted_of_month
-- What the closings of a month accept of it.
SELECT DISTINCT one ->> 'tenant', one ->> 'cause', one ->> 'detail'
FROM reconciler.closings CROSS JOIN jsonb_array_elements(accepted) AS one WHERE month = %(month)s

-- name: last_proof
-- The clock, up to when the last run that compared all tenants has verified the ledger, for how many tenants the last
-- runs could not, and up to when the last of them knows what has changed. The portal may still have been writing the rows
-- of what changed within settle of a run: its own, or what is asked where that is longer.
WITH last AS MATERIALIZED (
  SELECT * FROM reconciler.last_runs
)
SELECT clock_timestamp(), whole.until, (SELECT count(DISTINCT name) FROM last, unnest(unverified) AS name),
       whole.settle, newest.until
FROM (SELECT) AS nothing LEFT JOIN LATERAL (
  SELECT observed_at - greatest(settle, %(settle)s::interval) AS until FROM last WHERE is_latest LIMIT 1
) AS newest ON true LEFT JOIN LATERAL (
  SELECT observed_at - greatest(settle, %(settle)s::interval) AS until, settle
  FROM reconciler.proving_runs WHERE compared = 'all'
  ORDER BY observed_at DESC LIMIT 1
) AS whole ON true

-- name: unverified
-- The tenants that the last runs could not prove, and up to when an earlier run proved each.
-- No run has proved a tenant since its report was opened, so the search begins there. A run before its lifetime began
-- proved nothing about it.
WITH last AS (
  SELECT DISTINCT unnest(unverified) AS tenant_name FROM reconciler.last_runs
)
SELECT t.tenant_name, CASE WHEN proof.until > l.created_at THEN proof.until END
FROM last t
LEFT JOIN public.tenant_billing_lifecycle l ON l.tenant_name = t.tenant_name
LEFT JOIN LATERAL (
  SELECT earlier.observed_at - greatest(earlier.settle, %(settle)s::interval) AS until
  FROM (
    SELECT observed_at, settle, unverified FROM reconciler.proving_runs
    WHERE compared = 'all' AND observed_at <= coalesce(
            (SELECT min(since) FROM reconciler.reports r WHERE r.tenant_name = t.tenant_name), 'infinity')
    ORDER BY observed_at DESC LIMIT %(max_runs)s
  ) AS earlier
  WHERE t.tenant_name <> ALL (earlier.unverified)
  ORDER BY earlier.observed_at DESC LIMIT 1
) AS proof ON true
ORDER BY t.tenant_name COLLATE "C" LIMIT %(max_rows)s
