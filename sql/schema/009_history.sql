-- What happened between two runs: each run remembers every tenant as its list showed it, and names the time of which
-- that does not prove what happened. The rules: reconciler/core/history.py. Everything is keyed by the source, so that
-- more than one cluster can be told apart.

ALTER TABLE reconciler.source
    ADD COLUMN position text,
    ADD COLUMN position_at timestamptz,
    ADD COLUMN skill_events_seen bigint NOT NULL DEFAULT 0,
    ADD COLUMN suspension_events_seen bigint NOT NULL DEFAULT 0,
    ADD COLUMN events_near text,
    ADD COLUMN events_checked_at timestamptz;
COMMENT ON COLUMN reconciler.source.position IS
    'The resourceVersion up to which it is known what happened: that of the list that reconciler.tenants is of.';
COMMENT ON COLUMN reconciler.source.position_at IS 'When the run that listed it began.';
COMMENT ON COLUMN reconciler.source.skill_events_seen IS
    'The highest id of tenant_skill_events that a run has looked at for contradictions.';
COMMENT ON COLUMN reconciler.source.suspension_events_seen IS 'The same of tenant_suspension_events.';
COMMENT ON COLUMN reconciler.source.events_near IS
    'How many events had one of the 10,000 ids up to each of the two, and the sum of those ids: as long as that stays so, '
    'no event came later with a lower id.';
COMMENT ON COLUMN reconciler.source.events_checked_at IS
    'When a run last looked at all events for contradictions, not only at new ones.';

CREATE TABLE reconciler.tenants (
    source           text        NOT NULL,
    uid              text        NOT NULL,
    tenant_name      text        NOT NULL,
    resource_version text        NOT NULL,
    generation       bigint,
    org              text,
    packages         text[]      NOT NULL,
    suspended        bool        NOT NULL,
    suspend_is_set   bool        NOT NULL,
    created_at       timestamptz NOT NULL,
    deleting_at      timestamptz,
    since            timestamptz NOT NULL,
    is_current       bool        NOT NULL DEFAULT true,
    gone_at          timestamptz,
    unwritten_since  timestamptz,
    follows          text,
    continues        bool        NOT NULL DEFAULT false,
    PRIMARY KEY (source, uid)
);
COMMENT ON TABLE reconciler.tenants IS
    'Every tenant as the last list showed it, whether its rows in the ledger are right or not; kept after its deletion. '
    'Rows are written only where something changed.';
COMMENT ON COLUMN reconciler.tenants.source IS 'The uid of the cluster''s kube-system namespace.';
COMMENT ON COLUMN reconciler.tenants.uid IS 'Which tenant of that name it is: metadata.uid.';
COMMENT ON COLUMN reconciler.tenants.org IS 'The organisation on its label; empty if it has none.';
COMMENT ON COLUMN reconciler.tenants.suspend_is_set IS
    'spec.suspend is a boolean. If it is not, the status decides, whose changes move no generation.';
COMMENT ON COLUMN reconciler.tenants.since IS
    'From when its history is known, but for the rows of reconciler.gaps: its creation, if that could be proved when it '
    'was first seen, else the time of the list that first showed it.';
COMMENT ON COLUMN reconciler.tenants.is_current IS 'False if the last list showed it, and it could not be read.';
COMMENT ON COLUMN reconciler.tenants.gone_at IS 'When a list first lacked it.';
COMMENT ON COLUMN reconciler.tenants.unwritten_since IS
    'What the last list showed of it is not in the ledger: since when a change can be that no run has written. Empty if '
    'the ledger agrees.';
COMMENT ON COLUMN reconciler.tenants.follows IS
    'The uid that its name had before: the tenant was deleted and recreated between two lists.';
COMMENT ON COLUMN reconciler.tenants.continues IS
    'A person took it for the same tenant as the one that it follows, with --accept-source: the cluster was restored.';

CREATE INDEX tenants_name ON reconciler.tenants (tenant_name);
CREATE INDEX tenants_unwritten ON reconciler.tenants (source, uid) WHERE unwritten_since IS NOT NULL;
CREATE INDEX tenants_follow ON reconciler.tenants (source, uid) WHERE follows IS NOT NULL;

CREATE TABLE reconciler.gaps (
    source      text        NOT NULL,
    tenant_name text        NOT NULL,
    from_at     timestamptz NOT NULL,
    until_at    timestamptz NOT NULL,
    why         text        NOT NULL,
    manager     text,
    PRIMARY KEY (source, tenant_name, from_at)
);
COMMENT ON TABLE reconciler.gaps IS
    'Time of which no run could prove what happened to a tenant. A gap stays; gaps that adjoin are one row.';
COMMENT ON COLUMN reconciler.gaps.tenant_name IS
    'A tenant, or * for tenants that came and went between two lists, which neither of them shows.';
COMMENT ON COLUMN reconciler.gaps.why IS 'Why it is not proven; the latest reason where gaps that adjoin have several.';
COMMENT ON COLUMN reconciler.gaps.manager IS
    'The field manager that wrote last, where the spec had changed more than once between two lists.';

CREATE INDEX gaps_tenant ON reconciler.gaps (tenant_name);
CREATE INDEX gaps_until ON reconciler.gaps (until_at);

ALTER TABLE reconciler.runs ADD COLUMN history jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN reconciler.runs.history IS
    'What the run could prove of the time since the run before: whether it read a change log, how many seconds lay '
    'between the two lists, and how many tenants have a new gap.';

ALTER TABLE reconciler.corrections ADD COLUMN taken_back_by bigint;
COMMENT ON COLUMN reconciler.corrections.taken_back_by IS
    'The number of the correction that took this one back, because the portal''s row disproved it; empty if it stands, or '
    'if an unknown hand undid it.';
COMMENT ON COLUMN reconciler.corrections.taken_back_at IS
    'When another correction took this one back; or when a run found that the ledger no longer shows what it wrote, and '
    'wrote it again. Empty while it stands.';
COMMENT ON COLUMN reconciler.corrections.supersedes_event_id IS
    'The latest event before, which was wrong, or the event that is taken back; empty if there was none.';
