-- Statements with words in braces are templates: composition.py fills in what a report groups by and filters.

-- name: hourly_facts
-- Usage from the hourly totals, summed by the ids that a report needs.
SELECT
    {ids}
    sum(h.events) AS events, sum(h.quantity_nano) AS quantity, sum(h.amount) AS amount, sum(h.cost_nano) AS cost,
    sum(h.input_tokens) AS input_tokens, sum(h.output_tokens) AS output_tokens,
    sum(h.cache_read_tokens) AS cache_read_tokens, sum(h.cache_write_tokens) AS cache_write_tokens
FROM usage_hourly AS h
WHERE {where}
{group}

-- name: event_facts
-- Usage from the raw events, less what was taken back, summed by the ids that a report needs.
SELECT
    {ids}
    sum(CASE e.kind WHEN 5 THEN -1 ELSE 1 END) AS events, sum(e.quantity_nano) AS quantity,
    sum(e.amount) FILTER (WHERE split_part(e.pool, '.', 2) = 'b') AS charge,
    sum(e.amount) FILTER (WHERE split_part(e.pool, '.', 2) = 'c') AS credits, sum(e.cost_nano) AS cost,
    sum(e.input_tokens) AS input_tokens, sum(e.output_tokens) AS output_tokens,
    sum(e.cache_read_tokens) AS cache_read_tokens, sum(e.cache_write_tokens) AS cache_write_tokens,
    sum(e.cache_write_1h_tokens) AS cache_write_1h_tokens, sum(e.web_searches) AS web_searches
FROM usage_events AS e
WHERE e.kind IN (0, 5) AND {where}
{group}

-- name: invoice_facts
-- Lines of issued invoices; a void one is no revenue.
SELECT
    {ids}
    count(*) AS lines, sum(l.exact_nano) AS exact, sum(l.amount_cents)::numeric * 10000000 AS revenue,
    coalesce(sum(l.amount_cents) FILTER (WHERE l.line_type = 'plan_base'), 0)::numeric * 10000000 AS base,
    coalesce(sum(l.amount_cents) FILTER (WHERE l.line_type <> 'plan_base'), 0)::numeric * 10000000 AS overage
FROM invoices AS i
INNER JOIN invoice_lines AS l ON l.invoice_id = i.id
WHERE i.status NOT IN ('draft', 'void') AND {where}
{group}

-- name: grouped
-- The rows of a report: the facts with the names of what they are about.
WITH facts AS (
    {facts}
), grouped AS MATERIALIZED (
    SELECT {keys} {measures}
    FROM facts AS f
    {joins}
    WHERE {where}
    {group}
)

-- name: page
-- One page of rows, then the totals of all rows; both of the same moment.
{grouped}
SELECT * FROM (
    SELECT false AS is_total, g.* FROM grouped AS g {after} ORDER BY {order} LIMIT {limit} {offset}
) AS page
UNION ALL
SELECT true, {nulls} {totals} FROM grouped

-- name: every_row
-- All rows, in order.
{grouped}
SELECT g.* FROM grouped AS g ORDER BY {order}

-- name: has_shared_prices
-- Whether some price row of the tenant is of several models.
SELECT EXISTS (SELECT FROM ai_price_overrides WHERE tenant_id = $1 AND strpos(pattern, '*') > 0)

-- name: instant_subscriptions
-- Subscriptions so short that their period has no second of its own: another one of the customer may have begun in the same.
SELECT customer_id, date_trunc('second', started_at) AS starts_at
FROM subscriptions
WHERE tenant_id = $1 AND date_trunc('second', ended_at) <= date_trunc('second', started_at)

-- name: was_used_in
-- Whether any of these customers has usage that the period with this start paid.
SELECT EXISTS (
    SELECT FROM unnest($2::bigint[], $3::timestamptz[]) AS wanted (customer_id, starts_at)
    INNER JOIN usage_hourly AS h ON h.tenant_id = $1 AND h.customer_id = wanted.customer_id AND h.period_start = wanted.starts_at
)

-- name: raw_usage_start
-- Since when all raw events of the tenant are there, by when they occurred; no row where none were dropped.
SELECT starts_at FROM raw_usage_starts WHERE tenant_id = $1

-- name: features_of_code
-- All features that ever had a code: a deleted one may have had it too.
SELECT id FROM features WHERE tenant_id = $1 AND code = $2 ORDER BY id

-- name: events
-- Single records of the log, newest first by when they say they occurred.
SELECT
    {keys},
    e.digest, e.event_id, e.kind, e.occurred_at, e.accepted_at, e.period_start, e.belongs_to, e.pool, e.quantity_nano, e.amount,
    e.spare_amount, e.cost_nano, e.margin_bps, e.model, e.matched_by, e.service_tier, e.input_tokens, e.output_tokens,
    e.cache_read_tokens, e.cache_write_tokens, e.cache_write_1h_tokens, e.web_searches, e.input_pico, e.output_pico,
    e.cache_read_pico, e.cache_write_pico, e.cache_write_1h_pico, e.web_search_pico, e.price_id, e.catalog_version, e.properties,
    e.reason, e.voids, e.partition, e.seq, e.position
FROM usage_events AS e
INNER JOIN customers AS c ON c.id = e.customer_id
LEFT JOIN features AS ft ON ft.id = e.feature_id
LEFT JOIN subscriptions AS s ON s.id = nullif(split_part(e.pool, '.', 1), 'credits')::bigint
LEFT JOIN plans AS p ON p.id = s.plan_id
WHERE {where}
ORDER BY e.occurred_at DESC, e.partition DESC, e.seq DESC, e.position DESC
{limit}

-- name: billed_line
-- One line of an invoice and what the book says of the pool it bills.
SELECT
    i.public_id AS invoice_id, l.position, l.line_type, l.description, l.amount_cents, l.exact_nano, l.included_nano, l.used_nano,
    l.overage_nano, i.customer_id, c.public_id AS customer_public_id, l.pool, b.opening, b.charged, b.adjusted
FROM invoices AS i
INNER JOIN invoice_lines AS l ON l.invoice_id = i.id
INNER JOIN customers AS c ON c.id = i.customer_id
LEFT JOIN pool_balances AS b ON b.customer_id = i.customer_id AND b.pool = l.pool
WHERE i.tenant_id = $1 AND i.public_id = $2 AND l.position = $3

-- name: running_pools
-- The pools of billing periods that run, with what decides whether usage beyond them is billed; a trial's grant began with it.
SELECT
    s.customer_id, c.public_id AS customer, coalesce(c.external_id, '') AS external, s.public_id AS subscription, p.code AS plan,
    s.plan_id, p.is_free, coalesce(p.block_on_exhaustion, false) AS blocks, s.started_at, s.trial_ends_at, bp.starts_at, bp.ends_at, b.pool,
    b.opening, b.adjusted, b.charged, coalesce(ft.code, '') AS feature,
    CASE WHEN split_part(b.pool, '.', 2) = 'c' THEN (
        SELECT sum(h.amount) FROM usage_hourly AS h
        WHERE h.customer_id = s.customer_id AND h.tenant_id = s.tenant_id AND h.hour >= bp.starts_at - interval '500 days'
            AND h.period_start >= to_timestamp(split_part(b.pool, '.', 3)::bigint)
    ) END AS credits_used
FROM billing_periods AS bp
INNER JOIN subscriptions AS s ON s.id = bp.subscription_id
INNER JOIN customers AS c ON c.id = s.customer_id
INNER JOIN plans AS p ON p.id = s.plan_id
INNER JOIN pool_balances AS b
    ON b.customer_id = s.customer_id AND NOT b.closed AND split_part(b.pool, '.', 1) = s.id::text
    AND split_part(b.pool, '.', 3) IN (
        extract(epoch FROM date_trunc('second', bp.starts_at))::bigint::text,
        CASE WHEN bp.starts_at < s.trial_ends_at THEN extract(epoch FROM date_trunc('second', s.started_at))::bigint::text END
    )
LEFT JOIN features AS ft ON 'f' || ft.id = split_part(b.pool, '.', 2)
WHERE
    bp.tenant_id = $1 AND bp.state = 'open' AND ($2::bigint IS NULL OR s.customer_id = $2) AND ($3::text IS NULL OR p.code = $3)
ORDER BY c.public_id, b.pool

-- name: pools_running_low
-- Of the pools above, those with the least left of what was included: up to a share in percent, and so many rows.
WITH running AS (
    {running_pools}
), counted AS (
    SELECT
        r.*,
        CASE WHEN r.pool LIKE '%.f%' THEN r.opening ELSE r.opening + r.adjusted END AS included,
        r.opening + r.adjusted - r.charged + CASE WHEN r.pool LIKE '%.c.%' THEN coalesce(spare.balance, 0) ELSE 0 END AS left_over
    FROM running AS r
    LEFT JOIN pool_balances AS spare ON spare.customer_id = r.customer_id AND spare.pool = 'credits'
)
SELECT * FROM counted
WHERE included > 0 AND left_over * 100 <= included * $4::integer
ORDER BY left_over / included, customer, pool
LIMIT $5::integer

-- name: has_usage
-- Whether a tenant has any usage at all.
SELECT EXISTS (SELECT FROM usage_hourly WHERE tenant_id = $1)

-- name: invoices_of_month
-- Invoices of boundaries in a stretch of time, with all of their lines.
SELECT
    i.number, i.public_id AS invoice, c.public_id AS customer, c.external_id AS external, i.plan_name AS plan, i.status, i.type,
    i.billed_at, i.period_start, i.period_end, i.issued_at, i.total_cents, l.position, l.line_type, ft.code AS feature, l.description,
    l.quantity_nano, l.unit_price_nano, l.amount_cents, l.exact_nano, l.pool
FROM invoices AS i
INNER JOIN invoice_lines AS l ON l.invoice_id = i.id
INNER JOIN customers AS c ON c.id = i.customer_id
LEFT JOIN features AS ft ON ft.id = l.feature_id
WHERE i.tenant_id = $1 AND i.billed_at >= $2 AND i.billed_at < $3
ORDER BY i.number, l.position

-- name: total_of_invoices
-- What invoices of boundaries in a stretch of time ask for in all, by their own totals.
SELECT count(*) AS invoices, coalesce(sum(total_cents), 0)::bigint AS cents
FROM invoices
WHERE tenant_id = $1 AND billed_at >= $2 AND billed_at < $3 AND status NOT IN ('draft', 'void')

-- name: ledger_of_lines
-- Per line of these invoices, what the ledger of the pool that it bills says: what is left, and what usage took.
SELECT
    l.line_type, l.unit_price_nano, l.exact_nano,
    coalesce(sum(g.amount) FILTER (WHERE g.kind <> 'expiry'), 0) AS left_over,
    coalesce(-sum(g.amount) FILTER (WHERE g.kind IN ('charge', 'void')), 0) AS charged
FROM invoices AS i
INNER JOIN invoice_lines AS l ON l.invoice_id = i.id
LEFT JOIN pool_ledger AS g ON g.customer_id = i.customer_id AND g.pool = l.pool
WHERE i.tenant_id = $1 AND i.billed_at >= $2 AND i.billed_at < $3 AND i.status NOT IN ('draft', 'void')
GROUP BY i.id, l.position, l.line_type, l.unit_price_nano, l.exact_nano

-- name: unbilled_periods
-- Billing periods that ended before a time and are not billed yet.
SELECT count(*) FROM billing_periods WHERE tenant_id = $1 AND ends_at < $2 AND state <> 'closed'

-- name: statement_head
-- An invoice and whom it is for.
SELECT
    i.id, i.number, i.status, i.total_cents, i.period_start, i.period_end, i.issued_at, i.due_at, i.plan_name, c.full_name, c.email,
    c.external_id, c.public_id AS customer
FROM invoices AS i
INNER JOIN customers AS c ON c.id = i.customer_id
WHERE i.tenant_id = $1 AND i.public_id = $2

-- name: statement_lines
-- The lines of an invoice, in order.
SELECT line_type, description, quantity_nano, unit_price_nano, amount_cents FROM invoice_lines WHERE invoice_id = $1 ORDER BY position
