-- name: take_number
-- Takes the next invoice number of an organization and mode; the row stays locked, so a rollback leaves no gap.
INSERT INTO invoice_counters AS c (organization_id, livemode, next_number)
VALUES ($1, $2, 2)
ON CONFLICT (organization_id, livemode) DO UPDATE SET next_number = c.next_number + 1
RETURNING next_number - 1 AS number;

-- name: insert_invoice
-- Issues an invoice.
INSERT INTO invoices (
    tenant_id, public_id, number, customer_id, subscription_id, billed_at, type, status, total_cents, period_start, period_end,
    issued_at, due_at, plan_name, created_at, updated_at, metadata
)
VALUES ($1, $2, $3, $4, $5, $6, $7, 'outstanding', $8, $9, $10, $11, $11, $12, $11, $11, $13)
RETURNING id;

-- name: insert_lines
-- Adds the lines of an invoice, in order.
INSERT INTO invoice_lines (
    invoice_id, position, line_type, feature_id, feature_name, description, pool, quantity_nano, unit_price_nano, amount_cents,
    exact_nano, included_nano, used_nano, overage_nano, charge_type
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15);

-- name: id_of_boundary
-- The invoice of a subscription at one period boundary.
SELECT id FROM invoices WHERE subscription_id = $1 AND billed_at = $2;

-- name: id_by_public_id
-- The row of a public id within one tenant.
SELECT id FROM invoices WHERE tenant_id = $1 AND public_id = $2;

-- name: invoice_rows
-- Invoices by id with the names of customer and subscription, newest first.
SELECT
    i.id, i.tenant_id, i.public_id, i.number, i.customer_id, c.public_id AS customer_public_id,
    c.external_id AS customer_external_id, i.subscription_id, s.public_id AS subscription_public_id, i.billed_at, i.type, i.status,
    i.currency, i.total_cents, i.period_start, i.period_end, i.issued_at, i.due_at, i.plan_name, i.metadata, i.created_at,
    i.updated_at
FROM invoices AS i
INNER JOIN customers AS c ON c.id = i.customer_id
LEFT JOIN subscriptions AS s ON s.id = i.subscription_id
WHERE i.id = ANY($1::bigint[])
ORDER BY i.id DESC;

-- name: lines_of_invoice
-- The lines of an invoice, in order.
SELECT
    line_type, description, quantity_nano, unit_price_nano, amount_cents, exact_nano, charge_type, feature_id, feature_name, pool,
    included_nano, used_nano, overage_nano
FROM invoice_lines
WHERE invoice_id = $1
ORDER BY position;

-- name: page_of_ids
-- One page of a tenant's invoices, newest first, optionally of one customer, subscription and status.
SELECT id FROM invoices
WHERE
    tenant_id = $1
    AND ($2::bigint IS NULL OR customer_id = $2)
    AND ($3::bigint IS NULL OR subscription_id = $3)
    AND ($4::text IS NULL OR status = $4)
    AND ($5::bigint IS NULL OR id < $5)
ORDER BY id DESC
LIMIT $6;

-- name: pools_of_period
-- What the book says of a customer's pools whose names fit a pattern.
SELECT pool, opening, charged, adjusted, balance FROM pool_balances
WHERE customer_id = $1 AND pool LIKE $2
ORDER BY pool;

-- name: insert_decisions
-- Keeps what became of the overage of pools, the first time it is decided.
INSERT INTO overage_decisions (customer_id, pool, tenant_id, verdict, overage_nano)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (customer_id, pool) DO NOTHING;

-- name: late_usage
-- Usage, less what was taken back, that a period pays although it happened before: by feature and the period it happened in.
SELECT f.code AS feature_code, b.starts_at, b.ends_at,
    sum(CASE e.kind WHEN 0 THEN 1 ELSE -1 END)::bigint AS events, sum(e.quantity_nano) AS quantity_nano
FROM usage_events AS e
INNER JOIN features AS f ON f.id = e.feature_id
LEFT JOIN LATERAL (
    SELECT p.starts_at, p.ends_at
    FROM billing_periods AS p INNER JOIN subscriptions AS s ON s.id = p.subscription_id
    WHERE s.customer_id = e.customer_id AND p.starts_at <= e.belongs_to AND e.belongs_to < p.ends_at
    ORDER BY p.starts_at DESC LIMIT 1
) AS b ON true
WHERE e.customer_id = $1 AND e.period_start = $2 AND e.belongs_to IS NOT NULL AND e.kind IN (0, 5) AND e.pool LIKE $3
GROUP BY f.code, b.starts_at, b.ends_at
ORDER BY b.starts_at, f.code;

-- name: rolled_up_to
-- The last log sequence of a partition that the book has read.
SELECT last_seq FROM log_offsets WHERE partition = $1;
