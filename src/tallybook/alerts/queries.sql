-- The only SQL that touches alerts, alert_crossings and pool_watches.

-- name: standings
-- Open pools of some customers, by customer, that may be something to tell of; all of them where the tenant has alerts.
WITH asking AS (SELECT DISTINCT tenant_id FROM alerts WHERE is_active)
SELECT
    p.customer_id, p.tenant_id, t.organization_id, t.livemode, p.pool, p.opening, p.charged, p.adjusted, p.balance,
    w.adjusted AS watched_adjusted, w.refilled_to, w.told_low, w.told_depleted, p.tenant_id IN (SELECT tenant_id FROM asking) AS has_alerts
FROM unnest($1::bigint[]) AS changed (customer_id)
CROSS JOIN LATERAL (SELECT * FROM pool_balances AS b WHERE b.customer_id = changed.customer_id AND NOT b.closed OFFSET 0) AS p
INNER JOIN tenants AS t ON t.id = p.tenant_id
LEFT JOIN pool_watches AS w ON w.customer_id = p.customer_id AND w.pool = p.pool
WHERE
    w.pool IS NOT NULL OR p.pool = 'credits' OR p.adjusted > 0 OR (p.opening > 0 AND p.balance * 5 <= p.opening)
    OR p.tenant_id IN (SELECT tenant_id FROM asking)
ORDER BY p.customer_id, p.pool;

-- name: watch
-- Remembers something of pools.
INSERT INTO pool_watches (customer_id, pool, tenant_id, adjusted, refilled_to, told_low, told_depleted)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::integer[], $4::numeric[], $5::numeric[], $6::boolean[], $7::boolean[])
ON CONFLICT (customer_id, pool) DO UPDATE SET
    adjusted = excluded.adjusted, refilled_to = excluded.refilled_to, told_low = excluded.told_low, told_depleted = excluded.told_depleted;

-- name: alerts_of_tenants
-- The alerts of some tenants that are switched on.
SELECT
    a.id, a.tenant_id, a.public_id, a.name, a.metric, a.unit, a.threshold_nano, a.customer_id, a.feature_id, a.is_active, a.created_at, a.updated_at,
    coalesce(c.external_id, c.public_id) AS customer, f.code AS feature_code
FROM alerts AS a LEFT JOIN customers AS c ON c.id = a.customer_id LEFT JOIN features AS f ON f.id = a.feature_id
WHERE a.tenant_id = ANY ($1::integer[]) AND a.is_active
ORDER BY a.id;

-- name: used_of_features
-- What some customers used of some features in the running period of their subscription, for plans whose pools don't count units.
SELECT s.customer_id, s.id AS subscription_id, b.starts_at, h.feature_id, sum(h.quantity_nano) AS quantity_nano
FROM subscriptions AS s
INNER JOIN plans AS p ON p.id = s.plan_id AND p.consumption_model IN ('credits', 'balance')
INNER JOIN billing_periods AS b ON b.subscription_id = s.id AND b.state <> 'closed'
INNER JOIN usage_hourly AS h
    ON h.tenant_id = s.tenant_id AND h.customer_id = s.customer_id AND h.feature_id = ANY ($2::integer[]) AND h.period_start = b.starts_at
    AND h.hour >= b.starts_at - interval '400 days'
WHERE s.customer_id = ANY ($1::bigint[]) AND s.status <> 'canceled'
GROUP BY s.customer_id, s.id, b.starts_at, h.feature_id;

-- name: crossings
-- What was announced of some alerts for some customers.
SELECT alert_id, customer_id, scope FROM alert_crossings WHERE alert_id = ANY ($1::bigint[]) AND customer_id = ANY ($2::bigint[]);

-- name: note_crossing
-- Notes that an alert is announced; no row when it was before.
INSERT INTO alert_crossings (alert_id, customer_id, scope, tenant_id, crossed_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (alert_id, customer_id, scope) DO NOTHING
RETURNING alert_id;

-- name: arm_again
-- Forgets that an alert was announced for a customer and scope.
DELETE FROM alert_crossings WHERE alert_id = $1 AND customer_id = $2 AND scope = $3;

-- name: arm_all_again
-- Forgets all that was announced of an alert.
DELETE FROM alert_crossings WHERE alert_id = $1;

-- name: count_alerts
-- How many alerts a tenant has.
SELECT count(*) FROM alerts WHERE tenant_id = $1;

-- name: insert_alert
-- Adds an alert.
INSERT INTO alerts (tenant_id, public_id, name, metric, unit, threshold_nano, customer_id, feature_id, is_active, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)
RETURNING id;

-- name: update_alert
-- Writes an alert's settings.
UPDATE alerts SET name = $2, unit = $3, threshold_nano = $4, is_active = $5, updated_at = $6 WHERE id = $1;

-- name: delete_alert
-- Drops an alert.
DELETE FROM alerts WHERE tenant_id = $1 AND public_id = $2 RETURNING id;

-- name: alert
-- An alert of a tenant by its public id.
SELECT
    a.id, a.tenant_id, a.public_id, a.name, a.metric, a.unit, a.threshold_nano, a.customer_id, a.feature_id, a.is_active, a.created_at, a.updated_at,
    coalesce(c.external_id, c.public_id) AS customer, f.code AS feature_code
FROM alerts AS a LEFT JOIN customers AS c ON c.id = a.customer_id LEFT JOIN features AS f ON f.id = a.feature_id
WHERE a.tenant_id = $1 AND a.public_id = $2;

-- name: hold_alert
-- Keeps others from changing an alert until the transaction ends.
SELECT id FROM alerts WHERE tenant_id = $1 AND public_id = $2 FOR UPDATE;

-- name: alerts_page
-- One page of a tenant's alerts, newest first, optionally those that look at one customer alone.
SELECT
    a.id, a.tenant_id, a.public_id, a.name, a.metric, a.unit, a.threshold_nano, a.customer_id, a.feature_id, a.is_active, a.created_at, a.updated_at,
    coalesce(c.external_id, c.public_id) AS customer, f.code AS feature_code
FROM alerts AS a LEFT JOIN customers AS c ON c.id = a.customer_id LEFT JOIN features AS f ON f.id = a.feature_id
WHERE a.tenant_id = $1 AND ($2::bigint IS NULL OR a.customer_id = $2) AND ($3::bigint IS NULL OR a.id < $3)
ORDER BY a.id DESC LIMIT $4;

-- name: forget_watches
-- Drops a bounded number of rows about pools that are closed.
DELETE FROM pool_watches WHERE (customer_id, pool) IN (
    SELECT w.customer_id, w.pool FROM pool_watches AS w
    INNER JOIN pool_balances AS p ON p.customer_id = w.customer_id AND p.pool = w.pool AND p.closed
    LIMIT $1
)
RETURNING pool;

-- name: forget_crossings
-- Drops a bounded number of crossings that are older than any period can be.
DELETE FROM alert_crossings WHERE (alert_id, customer_id, scope) IN (
    SELECT alert_id, customer_id, scope FROM alert_crossings WHERE crossed_at < $1 LIMIT $2
)
RETURNING alert_id;
