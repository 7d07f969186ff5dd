"""What a database's two schemas hold, as lines that can be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

CATALOG = """
SELECT format('%s.%s.%s %s%s%s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
              CASE WHEN a.attnotnull THEN ' !' ELSE '' END,
              coalesce(' =' || pg_get_expr(d.adbin, d.adrelid), '')
                || CASE a.attidentity WHEN '' THEN '' ELSE ' identity' END)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE n.nspname IN ('public', 'reconciler') AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT format('%s: %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
WHERE connamespace IN ('public'::regnamespace, 'reconciler'::regnamespace) AND contype <> 'n'
UNION ALL
SELECT indexdef FROM pg_indexes WHERE schemaname IN ('public', 'reconciler')
"""
DETAILS = """
SELECT format('%s.%s is column %s', c.oid::regclass, a.attname,
              row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum))
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace IN ('public'::regnamespace, 'reconciler'::regnamespace) AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT format('view %s: %s', oid::regclass, pg_get_viewdef(oid)) FROM pg_class
WHERE relnamespace = 'reconciler'::regnamespace AND relkind = 'v'
UNION ALL
SELECT format('comment on %s %s: %s', objoid::regclass, objsubid, description)
FROM pg_description JOIN pg_class c ON c.oid = objoid AND classoid = 'pg_class'::regclass
WHERE c.relnamespace = 'reconciler'::regnamespace
"""


def catalog(connection: psycopg.Connection[Any], query: str = CATALOG) -> list[str]:
    """Return every column, constraint and index of both schemas, sorted; DETAILS are what else they have."""
    return sorted(line for (line,) in connection.execute(query.encode()))
