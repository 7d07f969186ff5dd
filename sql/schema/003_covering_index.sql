-- The latest state of every key is DISTINCT ON (tenant_name, skill_id) ... ORDER BY tenant_name, skill_id,
-- occurred_at DESC, id DESC. These indexes hold the events in exactly that order and include event_kind, so it is one
-- index-only scan without a sort. (The portal's own index has neither the id nor the kind.)
--
-- CONCURRENTLY does not block the portal's inserts. It cannot run inside a transaction: run one statement at a time.

CREATE INDEX CONCURRENTLY IF NOT EXISTS reconciler_skill_state
    ON public.tenant_skill_events (tenant_name, skill_id, occurred_at DESC, id DESC) INCLUDE (event_kind);

CREATE INDEX CONCURRENTLY IF NOT EXISTS reconciler_suspension_state
    ON public.tenant_suspension_events (tenant_name, occurred_at DESC, id DESC) INCLUDE (event_kind);
