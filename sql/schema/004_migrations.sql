-- From here on, a file is a step: applied once, in order, and recorded in this table. See reconciler/db/schema.py.

CREATE TABLE reconciler.migrations (
    number     int         PRIMARY KEY,
    name       text        NOT NULL,
    version    text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE reconciler.migrations IS
    'The numbered steps that this schema has had. A run on a schema that lacks one, or has one that it does not know, '
    'is refused.';
COMMENT ON COLUMN reconciler.migrations.version IS
    'The version of the reconciler that applied it: no older one runs on this schema any more.';
