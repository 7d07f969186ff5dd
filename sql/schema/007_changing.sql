-- Who kept changing: a tenant that did in every run of an hour is reported.

ALTER TABLE reconciler.runs ADD COLUMN changing text[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN reconciler.runs.changing IS
    'The tenants that changed, or whose record did, between the two looks of this run: their drift was deferred.';
