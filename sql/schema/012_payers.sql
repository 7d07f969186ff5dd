-- Who pays for which days, where that is not the organisation of the lifetime. The rules: reconciler/core/billing.py.

CREATE TABLE reconciler.payers (
    source      text        NOT NULL,
    tenant_name text        NOT NULL,
    number      bigint      NOT NULL,
    org         text        NOT NULL,
    from_day    date        NOT NULL,
    until_day   date        NOT NULL DEFAULT 'infinity',
    PRIMARY KEY (tenant_name, number, from_day),
    CONSTRAINT payers_days_check CHECK (from_day < until_day),
    -- days of a year that a program can hold
    CONSTRAINT payers_year_check CHECK (
        from_day >= '0001-01-01' AND (until_day <= '9999-12-31' OR until_day = 'infinity'))
);
COMMENT ON TABLE reconciler.payers IS
    'Which organisation pays for which UTC days of a tenant, where a person decided that. Where several rows hold a day, '
    'that of the highest number counts; where none does, the organisation of the lifetime pays.';
COMMENT ON COLUMN reconciler.payers.source IS 'The uid of the cluster''s kube-system namespace; empty before a run.';
COMMENT ON COLUMN reconciler.payers.number IS 'The number of the decision, see reconciler.corrections.';
COMMENT ON COLUMN reconciler.payers.org IS 'The organisation that pays.';
COMMENT ON COLUMN reconciler.payers.from_day IS 'The first UTC day.';
COMMENT ON COLUMN reconciler.payers.until_day IS 'The UTC day after the last one; infinity: until the lifetime ends.';

CREATE VIEW reconciler.paid_days AS
WITH edge AS (
  SELECT tenant_name, from_day AS day FROM reconciler.payers
  UNION
  SELECT tenant_name, until_day FROM reconciler.payers
), part AS (
  SELECT tenant_name, day AS from_day, lead(day) OVER (PARTITION BY tenant_name ORDER BY day) AS until_day FROM edge
)
SELECT part.tenant_name, payer.org, part.from_day, part.until_day
FROM part CROSS JOIN LATERAL (
  SELECT org FROM reconciler.payers p
  WHERE p.tenant_name = part.tenant_name AND p.from_day <= part.from_day AND p.until_day >= part.until_day
  ORDER BY number DESC LIMIT 1
) payer
WHERE part.until_day IS NOT NULL;
COMMENT ON VIEW reconciler.paid_days IS
    'Who pays for the days of each tenant of which a person decided that, each day once.';
