-- What a migration looks up in the system catalogs, and the locks under which it runs.

-- name: migration_lock
-- Migrations run one after the other. It is released with the transaction, so it also works behind a pooler.
SELECT pg_advisory_xact_lock(hashtextextended('reconciler.migrate', 0))

-- name: try_build_lock
-- It is only tried, never waited for: a session that waits inside a query keeps a snapshot, and a concurrent index
-- build waits for every older snapshot, so the two would wait for each other.
SELECT pg_try_advisory_xact_lock(hashtextextended('reconciler.migrate.build', 0))

-- name: existing_objects
-- Every schema, table, view and usable index that could be one of ours, worded as in the migration's report.
SELECT 'schema ' || nspname FROM pg_catalog.pg_namespace WHERE nspname = 'reconciler'
UNION ALL
SELECT CASE WHEN c.relkind IN ('r', 'p') THEN 'table ' WHEN c.relkind = 'v' THEN 'view ' ELSE 'index ' END
       || n.nspname || '.' || c.relname
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
WHERE n.nspname IN ('public', 'reconciler')
  AND (c.relkind IN ('r', 'p', 'v') OR c.relkind IN ('i', 'I') AND i.indisvalid)

-- name: existing_rows
SELECT 'row public.platform_pricing ' || id FROM public.platform_pricing

-- name: index_state
-- One index: its oid and whether it is valid (both null if it does not exist), and whether any session is building an
-- index on its table. For a session of another role, pg_stat_progress_create_index shows only the pid; but the lock
-- that a build holds on its table from start to end is visible to everybody.
SELECT i.indexrelid, i.indisvalid,
       EXISTS (
           SELECT FROM pg_catalog.pg_locks l
           JOIN pg_catalog.pg_stat_progress_create_index p USING (pid)
           WHERE l.locktype = 'relation' AND l.relation = %(table)s::regclass AND l.granted
             AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
       )
FROM (SELECT to_regclass(%(index)s) AS oid) AS named
LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = named.oid

-- name: partitions
-- A partitioned table and everything below it, from the top; nothing if it is not partitioned. Each with its parent,
-- and whether an index of it is a part of this index already.
SELECT t.relid::oid, coalesce(t.parentrelid::oid, 0), t.isleaf,
       format('%%I', n.nspname), format('%%I.%%I', n.nspname, c.relname),
       EXISTS (
           SELECT FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_index i ON i.indexrelid = h.inhrelid
           WHERE i.indrelid = t.relid AND h.inhparent = to_regclass(%(index)s)
       )
FROM pg_partition_tree(%(table)s::regclass) t
JOIN pg_catalog.pg_class c ON c.oid = t.relid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
ORDER BY t.level, t.relid

-- name: session
-- The server process, and what the role or the database has set that could end the build of an index.
SELECT pg_backend_pid(), current_setting('statement_timeout'), current_setting('lock_timeout'),
       current_setting('transaction_timeout', true)

-- name: set_timeouts
-- Of the session: a build cannot run inside a transaction. The last one is new in PostgreSQL 17.
SELECT set_config('statement_timeout', %(statement)s, false), set_config('lock_timeout', %(lock)s, false),
       CASE WHEN current_setting('transaction_timeout', true) IS NOT NULL
            THEN set_config('transaction_timeout', %(transaction)s, false) END

-- name: has_steps
-- Whether schema reconciler exists, and has had steps: version 0.1.0 had none.
SELECT to_regnamespace('reconciler') IS NOT NULL,
       EXISTS (SELECT FROM pg_catalog.pg_tables WHERE schemaname = 'reconciler' AND tablename = 'migrations')

-- name: last_step
-- The last numbered step that the schema has had, and the version that applied it.
SELECT number, name, version FROM reconciler.migrations ORDER BY number DESC LIMIT 1

-- name: record_step
INSERT INTO reconciler.migrations (number, name, version) VALUES (%(number)s, %(name)s, %(version)s)
