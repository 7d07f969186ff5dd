-- All that the ledger holds of one tenant: the queries of `reconciler explain`.

-- name: explain_lifetimes
-- Its lifetimes, the lifecycle row as the last of them.
SELECT zitadel_org_id, created_at, deleted_at, reopened_at, reopened_by, note
FROM reconciler.earlier_lifetimes WHERE tenant_name = %(tenant)s
UNION ALL
SELECT zitadel_org_id, created_at, deleted_at, NULL, NULL, NULL
FROM public.tenant_billing_lifecycle WHERE tenant_name = %(tenant)s
ORDER BY 2, 4 NULLS LAST

-- name: explain_events
-- Its events in the order in which the later one counts.
SELECT event_table, id, zitadel_org_id, skill_id, event_kind, occurred_at
FROM (
  SELECT 'tenant_skill_events' AS event_table, id, zitadel_org_id, skill_id, event_kind, occurred_at
  FROM public.tenant_skill_events WHERE tenant_name = %(tenant)s
  UNION ALL
  SELECT 'tenant_suspension_events', id, zitadel_org_id, NULL, event_kind, occurred_at
  FROM public.tenant_suspension_events WHERE tenant_name = %(tenant)s
) event
ORDER BY occurred_at, event_table, id

-- name: explain_corrections
-- By their moments. One without a moment, the organisation of a row, stands at the time of its run.
SELECT c.id, c.reason, c.zitadel_org_id, c.subject, c.action, c.recorded, c.observed,
       c.occurred_at, c.not_before, c.not_after, c.evidence,
       c.event_table, c.event_id, c.supersedes_event_id, c.life_began_at,
       c.closed_period, c.impact_chf, c.impact_min_chf, c.impact_max_chf,
       c.run_id, coalesce(c.decided_at, r.observed_at, r.started_at), c.taken_back_at, c.taken_back_by,
       c.resource_version, c.number, d.by, d.role, d.note
FROM reconciler.corrections c
LEFT JOIN reconciler.runs r ON r.id = c.run_id
LEFT JOIN LATERAL (SELECT by, role, note FROM reconciler.corrections
                   WHERE decision = c.decision AND by IS NOT NULL ORDER BY id LIMIT 1) d ON true
WHERE c.tenant_name = %(tenant)s
ORDER BY coalesce(c.occurred_at, r.observed_at, r.started_at), c.event_table, c.id

-- name: explain_reports
-- Its open reports. Those without a tenant are about the runs themselves.
SELECT r.tenant_name, r.reason, r.subject, r.zitadel_org_id, r.recorded, r.observed, r.since, e.expires_at
FROM reconciler.reports r
LEFT JOIN reconciler.exceptions e
       ON e.tenant_name = r.tenant_name AND e.reason = r.reason AND e.expires_at > now()
WHERE r.tenant_name = %(tenant)s AND r.tenant_name <> ''
ORDER BY r.reason, r.subject

-- name: explain_exceptions
SELECT tenant_name, reason, note, created_by, created_at, expires_at, expires_at <= now()
FROM reconciler.exceptions WHERE tenant_name = %(tenant)s
ORDER BY reason

-- name: explain_closings
-- What the closings hold of it, for each organisation.
SELECT c.month, c.number, l.org, sum(l.amount_chf), c.closed_at
FROM reconciler.closed_lines l JOIN reconciler.closings c ON c.id = l.closing
WHERE l.tenant_name = %(tenant)s
GROUP BY c.id, l.org ORDER BY c.month, c.number, l.org COLLATE "C"

-- name: explain_known_since
-- From when the history is known of the resource of its name that was created last.
SELECT (SELECT since FROM reconciler.tenants WHERE tenant_name = %(tenant)s ORDER BY created_at DESC, since LIMIT 1)

-- name: explain_gaps
SELECT from_at, until_at, why, manager FROM reconciler.gaps WHERE tenant_name = %(tenant)s ORDER BY from_at

-- name: explain_verified
-- When the last run over the cluster began that found the tenant true in its current lifetime, among the latest runs.
SELECT max(r.observed_at)
FROM public.tenant_billing_lifecycle l
JOIN (
  SELECT observed_at, unverified FROM reconciler.proving_runs WHERE compared = 'all'
  ORDER BY observed_at DESC LIMIT %(max_runs)s
) r ON r.observed_at >= l.created_at AND l.tenant_name <> ALL (r.unverified)
WHERE l.tenant_name = %(tenant)s
