-- Closed months: what was billed for a month, as often as somebody closed it. Each closing holds the difference to the
-- ones before it, so that a month's closings add up to its usage and each difference is owed once. Rows are only added.
-- The rules: reconciler/core/closing.py.

CREATE TABLE reconciler.closings (
    id                     bigint         PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    source                 text           NOT NULL,
    month                  date           NOT NULL,
    number                 int            NOT NULL,
    org                    text,
    closed_at              timestamptz    NOT NULL DEFAULT now(),
    by                     text           NOT NULL,
    role                   text           NOT NULL DEFAULT current_user,
    note                   text           NOT NULL,
    run_id                 uuid           NOT NULL,
    prices                 jsonb          NOT NULL,
    accepted               jsonb          NOT NULL,
    total_chf              numeric(20, 2) NOT NULL,
    corrections_seen       bigint         NOT NULL,
    skill_events_seen      bigint         NOT NULL,
    suspension_events_seen bigint         NOT NULL,
    CONSTRAINT closings_month_check CHECK (extract(day FROM month) = 1),
    CONSTRAINT closings_month_number UNIQUE (month, number)
);
COMMENT ON TABLE reconciler.closings IS
    'Each time that a month was closed. The first closing of a month keeps its prices and VAT rate for every organisation '
    'and all later reckoning of that month.';
COMMENT ON COLUMN reconciler.closings.source IS 'The uid of the cluster''s kube-system namespace.';
COMMENT ON COLUMN reconciler.closings.month IS 'The UTC month, by its first day.';
COMMENT ON COLUMN reconciler.closings.number IS 'The first closing of a month is 1.';
COMMENT ON COLUMN reconciler.closings.org IS 'The organisation that it is of; empty: everybody, also who appears later.';
COMMENT ON COLUMN reconciler.closings.by IS 'Who closed it, as the command was told.';
COMMENT ON COLUMN reconciler.closings.role IS 'The database role that wrote it.';
COMMENT ON COLUMN reconciler.closings.note IS 'Why it was closed then.';
COMMENT ON COLUMN reconciler.closings.run_id IS 'The last run that had proved the month, see reconciler.runs.';
COMMENT ON COLUMN reconciler.closings.prices IS
    'The prices in CHF before VAT and the VAT rate in percent: {"fee", "vat", "skills": {ID: price of a day}}. Those of '
    'the highest number count.';
COMMENT ON COLUMN reconciler.closings.accepted IS
    'What was not proven of the month and somebody accepted: [{"tenant", "cause", "detail"}]. It holds for the month''s '
    'later closings.';
COMMENT ON COLUMN reconciler.closings.total_chf IS 'The sum of its lines.';
COMMENT ON COLUMN reconciler.closings.corrections_seen IS
    'The highest id of reconciler.corrections at that time: what changes the month afterwards has a higher one.';
COMMENT ON COLUMN reconciler.closings.skill_events_seen IS 'The same of tenant_skill_events.';
COMMENT ON COLUMN reconciler.closings.suspension_events_seen IS 'The same of tenant_suspension_events.';

CREATE TABLE reconciler.closed_lines (
    closing     bigint         NOT NULL,
    org         text           NOT NULL,
    tenant_name text           NOT NULL,
    item        text,
    days        int            NOT NULL,
    price_chf   numeric(13, 5),
    amount_chf  numeric(14, 2) NOT NULL
);
COMMENT ON TABLE reconciler.closed_lines IS
    'What each closing holds of each line, which is one item of one tenant for one organisation: the difference to all '
    'earlier closings of the month together.';
COMMENT ON COLUMN reconciler.closed_lines.closing IS 'See reconciler.closings.';
COMMENT ON COLUMN reconciler.closed_lines.org IS 'The organisation that pays.';
COMMENT ON COLUMN reconciler.closed_lines.item IS 'The skill; empty: the monthly fee.';
COMMENT ON COLUMN reconciler.closed_lines.days IS 'The UTC days; negative where there are fewer than were closed.';
COMMENT ON COLUMN reconciler.closed_lines.price_chf IS
    'The price of a day, of the fee that of the whole month; empty if the skill had none.';
COMMENT ON COLUMN reconciler.closed_lines.amount_chf IS
    'In CHF before VAT: what the organisation owes for it; negative: what is owed to it.';
CREATE UNIQUE INDEX uniq_closed_lines ON reconciler.closed_lines (closing, tenant_name, org, (item IS NULL), coalesce(item, ''));
CREATE INDEX closed_lines_tenant ON reconciler.closed_lines (tenant_name);

CREATE VIEW reconciler.kept_prices AS
SELECT DISTINCT ON (month) month, prices FROM reconciler.closings ORDER BY month, number DESC;
COMMENT ON VIEW reconciler.kept_prices IS 'The prices of each closed month.';

CREATE VIEW reconciler.closed_months AS
SELECT month, bool_or(org IS NULL) AS is_for_everybody, array_remove(array_agg(DISTINCT org), NULL) AS orgs
FROM reconciler.closings GROUP BY month;
COMMENT ON VIEW reconciler.closed_months IS
    'For which organisations each month is closed: for everybody, also who appears later, or for these.';

-- what a run has looked at
ALTER TABLE reconciler.source
    ADD COLUMN corrections_seen bigint NOT NULL DEFAULT 0,
    ADD COLUMN closed_months_checked jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN reconciler.source.corrections_seen IS
    'The highest id of reconciler.corrections that a run has looked at for changes of closed months.';
COMMENT ON COLUMN reconciler.source.closed_months_checked IS
    'When a run last looked at all lines of each closed month, not only at those of tenants with new rows.';
