-- A person may move the ends of any lifetime of a tenant, split one or add one: what was kept before stays, and the
-- earlier lifetimes of the latest decision count. The rules: reconciler/core/lifetimes.py.

ALTER TABLE reconciler.closed_lives ADD COLUMN number bigint NOT NULL DEFAULT 0;
ALTER TABLE reconciler.closed_lives
    DROP CONSTRAINT closed_lives_pkey,
    ADD CONSTRAINT closed_lives_pkey PRIMARY KEY (tenant_name, number, created_at);
COMMENT ON TABLE reconciler.closed_lives IS
    'The earlier lifetimes of tenants that had several under one name: after each decision about them all of them again, '
    'under its number. Those of the highest number count, see reconciler.earlier_lifetimes.';
COMMENT ON COLUMN reconciler.closed_lives.number IS
    'The number of the decision, see reconciler.corrections; 0 until a person has decided about them.';
COMMENT ON COLUMN reconciler.closed_lives.deleted_at IS
    'When it ended; its beginning, if a person decided that there was no earlier one.';

CREATE VIEW reconciler.earlier_lifetimes AS
SELECT tenant_name, zitadel_org_id, created_at, deleted_at, reopened_at, reopened_by, note
FROM reconciler.closed_lives c
WHERE number = (SELECT max(number) FROM reconciler.closed_lives n WHERE n.tenant_name = c.tenant_name)
      AND deleted_at > created_at;
COMMENT ON VIEW reconciler.earlier_lifetimes IS
    'The lifetimes of each tenant that count besides the one in its row.';
