-- Distribute the ledger over the workers of a Citus cluster. Run this on the coordinator as the owner of the ledger's
-- tables, after `reconciler migrate`, when no portal and no run is writing:
--
--     psql "$DATABASE_URL" -f sql/citus.sql
--     psql "$DATABASE_URL" -v shards=64 -f sql/citus.sql
--
-- It may be run any number of times, and `reconciler migrate` may be run after it. Only the events are distributed, by
-- tenant; every other table stays on the coordinator. docs/scale.md says why, and that few ledgers need this.

\set ON_ERROR_STOP on
\if :{?shards}
\else
  \set shards 32
\endif

BEGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL search_path = pg_catalog;
SET LOCAL citus.multi_shard_modify_mode = sequential;
SELECT set_config('citus.shard_count', :'shards', true) \g /dev/null

CREATE TEMPORARY TABLE to_distribute ON COMMIT DROP AS
SELECT name::regclass AS relation, relname FROM unnest(ARRAY[
  'public.tenant_skill_events', 'public.tenant_suspension_events']) AS name
JOIN pg_class c ON c.oid = name::regclass
WHERE NOT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = c.oid);

-- a primary key must hold the column by which its table is distributed
SELECT format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %2$I PRIMARY KEY (tenant_name, %s)', relation, conname,
              (SELECT string_agg(quote_ident(attname), ', ' ORDER BY place)
               FROM unnest(conkey) WITH ORDINALITY AS key (number, place)
               JOIN pg_attribute ON attrelid = conrelid AND attnum = number))
FROM to_distribute JOIN pg_constraint ON conrelid = relation AND contype = 'p'
WHERE (SELECT attnum FROM pg_attribute WHERE attrelid = conrelid AND attname = 'tenant_name') <> ALL (conkey) \gexec

-- the ids that a worker draws begin at 2^48: every event after one of them would count as older
SELECT format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (id < 281474976710656)', relation,
              relname || '_written_on_coordinator')
FROM to_distribute
WHERE NOT EXISTS (SELECT FROM pg_constraint
                  WHERE conrelid = relation AND conname = relname || '_written_on_coordinator') \gexec

-- that key is no longer an index of the ids alone, by which runs look for what is new
SELECT format('CREATE INDEX %I ON %s (id)', relname || '_by_id', relation)
FROM to_distribute WHERE to_regclass('public.' || relname || '_by_id') IS NULL \gexec

SELECT create_distributed_table(relation, 'tenant_name', colocate_with => 'none')
FROM to_distribute WHERE relname = 'tenant_skill_events' \g /dev/null
SELECT create_distributed_table(relation, 'tenant_name', colocate_with => 'public.tenant_skill_events')
FROM to_distribute WHERE relname = 'tenant_suspension_events' \g /dev/null
COMMIT;

-- what was copied to the workers still lies here, too
SELECT truncate_local_data_after_distributing_table(name::regclass) FROM unnest(ARRAY[
  'public.tenant_skill_events', 'public.tenant_suspension_events']) AS name \g /dev/null
