-- Whether corrections still stand, for `reconciler explain` and `reconciler status`.

-- name: written_rows
-- What these corrections wrote, and the row that each wrote as the ledger shows it now: the event of its id; or the
-- lifetime that began when the corrected one did, and else the last one. Each event is looked up by its id, however many
-- there are in all.
WITH asked AS MATERIALIZED (
  SELECT * FROM reconciler.corrections
  WHERE id = ANY (%(ids)s::bigint[]) AND event_table <> 'payers'
        -- a row in the future that a person took back has no event that follows it
        AND (event_id IS NOT NULL OR takes_back_event_id IS NULL)
), skill_event AS MATERIALIZED (
  --[ postgresql
  SELECT e.* FROM asked CROSS JOIN LATERAL (
    SELECT id, tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at FROM public.tenant_skill_events
    WHERE id = event_id OFFSET 0
  ) e WHERE event_table = 'tenant_skill_events'
  --[ citus
  SELECT id, tenant_name, zitadel_org_id, skill_id, event_kind, occurred_at FROM public.tenant_skill_events
  WHERE id IN (SELECT event_id FROM asked WHERE event_table = 'tenant_skill_events')
  --]
), suspension_event AS MATERIALIZED (
  --[ postgresql
  SELECT e.* FROM asked CROSS JOIN LATERAL (
    SELECT id, tenant_name, zitadel_org_id, event_kind, occurred_at FROM public.tenant_suspension_events
    WHERE id = event_id OFFSET 0
  ) e WHERE event_table = 'tenant_suspension_events'
  --[ citus
  SELECT id, tenant_name, zitadel_org_id, event_kind, occurred_at FROM public.tenant_suspension_events
  WHERE id IN (SELECT event_id FROM asked WHERE event_table = 'tenant_suspension_events')
  --]
), found AS (
  SELECT c.id, e.tenant_name, e.zitadel_org_id, e.skill_id, e.event_kind, e.occurred_at AS at,
         NULL::timestamptz AS deleted_at
  FROM asked c JOIN skill_event e ON e.id = c.event_id WHERE c.event_table = 'tenant_skill_events'
  UNION ALL
  SELECT c.id, e.tenant_name, e.zitadel_org_id, NULL, e.event_kind, e.occurred_at, NULL
  FROM asked c JOIN suspension_event e ON e.id = c.event_id WHERE c.event_table = 'tenant_suspension_events'
  UNION ALL
  SELECT c.id, l.tenant_name, l.zitadel_org_id, NULL, NULL, l.created_at, l.deleted_at
  FROM asked c CROSS JOIN LATERAL (
    SELECT tenant_name, zitadel_org_id, created_at, deleted_at
    FROM public.tenant_billing_lifecycle WHERE tenant_name = c.tenant_name
    UNION ALL
    SELECT tenant_name, zitadel_org_id, created_at, deleted_at
    FROM reconciler.earlier_lifetimes WHERE tenant_name = c.tenant_name
  ) l WHERE c.event_table = 'tenant_billing_lifecycle'
)
SELECT DISTINCT ON (c.id) c.id, c.taken_back_at,
       coalesce(c.decided_at, (SELECT coalesce(observed_at, started_at) FROM reconciler.runs r WHERE r.id = c.run_id)),
       c.tenant_name, c.zitadel_org_id, c.subject, c.reason, c.action, c.occurred_at, c.observed,
       c.taken_back_by,
       shown.tenant_name, shown.zitadel_org_id, shown.skill_id, shown.event_kind, shown.at, shown.deleted_at
FROM asked c LEFT JOIN found AS shown ON shown.id = c.id
-- the id of an event is unique in each part of a partitioned table only
ORDER BY c.id, shown.tenant_name <> c.tenant_name, coalesce(c.life_began_at, c.occurred_at) IS DISTINCT FROM shown.at,
         shown.at DESC
