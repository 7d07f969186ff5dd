-- Whether corrections still stand, for `reconciler explain` and `reconciler status`.

-- name: written_rows
-- What these corrections wrote, and the row that each wrote as the ledger shows it now: the event of its id; or the
-- lifetime that began when the corrected one did, and else the last one. Each row is looked up by itself, however many
-- there are in all.
SELECT c.id, c.taken_back_at,
       coalesce(c.decided_at, (SELECT coalesce(observed_at, started_at) FROM reconciler.runs r WHERE r.id = c.run_id)),
       c.tenant_name, c.zitadel_org_id, c.subject, c.reason, c.action, c.occurred_at, c.observed,
       c.taken_back_by,
       shown.tenant_name, shown.zitadel_org_id, shown.skill_id, shown.event_kind, shown.at, shown.deleted_at
FROM reconciler.corrections c LEFT JOIN LATERAL (
  SELECT * FROM (
    SELECT tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at AS at, NULL::timestamptz AS deleted_at
    FROM public.tenant_skill_events WHERE c.event_table = 'tenant_skill_events' AND id = c.event_id
    UNION ALL
    SELECT tenant_name, zitadel_org_id, NULL, event_kind, occurred_at, NULL
    FROM public.tenant_suspension_events WHERE c.event_table = 'tenant_suspension_events' AND id = c.event_id
    UNION ALL
    SELECT tenant_name, zitadel_org_id, NULL, NULL, created_at, deleted_at
    FROM public.tenant_billing_lifecycle
    WHERE c.event_table = 'tenant_billing_lifecycle' AND tenant_name = c.tenant_name
    UNION ALL
    SELECT tenant_name, zitadel_org_id, NULL, NULL, created_at, deleted_at
    FROM reconciler.earlier_lifetimes WHERE c.event_table = 'tenant_billing_lifecycle' AND tenant_name = c.tenant_name
  ) AS found
  -- the id of an event is unique in each part of a partitioned table only
  ORDER BY tenant_name <> c.tenant_name, coalesce(c.life_began_at, c.occurred_at) IS DISTINCT FROM at, at DESC
  LIMIT 1
) AS shown ON true
WHERE c.id = ANY (%(ids)s::bigint[]) AND c.event_table <> 'payers'
      -- a row in the future that a person took back has no event that follows it
      AND (c.event_id IS NOT NULL OR c.takes_back_event_id IS NULL)
ORDER BY c.id
