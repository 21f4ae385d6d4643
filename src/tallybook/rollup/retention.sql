-- Months of raw events that are dropped when they are old enough, and what stays of them.

-- name: lock_month
-- Keeps everybody else from dropping or making months, and rows from arriving in this one, until the transaction ends.
LOCK TABLE {month} IN SHARE MODE;

-- name: unbilled_usage
-- A customer with events in a month of arrival that a period pays which is not closed, if there is one. Periods behind one that is not
-- closed have no row yet, and may have usage all the same.
SELECT s.customer_id
FROM billing_periods AS p
INNER JOIN subscriptions AS s ON s.id = p.subscription_id
WHERE p.state <> 'closed' AND EXISTS (
    SELECT FROM usage_events AS e
    WHERE
        e.customer_id = s.customer_id AND e.accepted_at >= $1 AND e.accepted_at < $2 AND e.period_start >= p.starts_at
        AND split_part(e.pool, '.', 1) IN (s.id::text, 'credits')
)
LIMIT 1;

-- name: keep_hourly
-- Keeps what the events of a month of arrival say of hourly totals.
INSERT INTO dropped_hourly AS d (
    tenant_id, customer_id, feature_id, hour, period_start, price_id,
    events, quantity_nano, amount, cost_nano, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens
)
SELECT
    tenant_id, customer_id, feature_id, date_trunc('hour', occurred_at, 'UTC'), period_start, price_id,
    sum(CASE kind WHEN 0 THEN 1 ELSE -1 END), sum(quantity_nano), sum(amount), sum(cost_nano), sum(input_tokens),
    sum(output_tokens), sum(cache_read_tokens), sum(cache_write_tokens)
FROM usage_events
WHERE accepted_at >= $1 AND accepted_at < $2 AND kind IN (0, 5)
GROUP BY 1, 2, 3, 4, 5, 6
ON CONFLICT (customer_id, feature_id, hour, period_start, price_id, tenant_id) DO UPDATE SET
    events = d.events + excluded.events,
    quantity_nano = d.quantity_nano + excluded.quantity_nano,
    amount = d.amount + excluded.amount,
    cost_nano = d.cost_nano + excluded.cost_nano,
    input_tokens = d.input_tokens + excluded.input_tokens,
    output_tokens = d.output_tokens + excluded.output_tokens,
    cache_read_tokens = d.cache_read_tokens + excluded.cache_read_tokens,
    cache_write_tokens = d.cache_write_tokens + excluded.cache_write_tokens;

-- name: keep_moves
-- Keeps what the events of a month of arrival did to pools.
INSERT INTO dropped_moves AS d (customer_id, pool, hour, kind, change, entries)
SELECT
    e.customer_id, m.pool, date_trunc('hour', e.accepted_at, 'UTC'),
    (ARRAY['charge', 'adjustment', 'adjustment', 'expiry', '', 'void'])[e.kind + 1], sum(m.change), count(*)
FROM usage_events AS e
CROSS JOIN LATERAL (VALUES
    (e.pool, e.spare_amount - e.amount, e.pool <> ''), ('credits', -e.spare_amount, e.spare_amount <> 0)
) AS m (pool, change, is_one)
WHERE m.is_one AND e.accepted_at >= $1 AND e.accepted_at < $2
GROUP BY 1, 2, 3, 4
ON CONFLICT (customer_id, pool, hour, kind) DO UPDATE SET
    change = d.change + excluded.change, entries = d.entries + excluded.entries;

-- name: note_starts
-- Notes since when the raw usage of each tenant in a month of arrival is whole: behind the last hour that loses any.
INSERT INTO raw_usage_starts AS r (tenant_id, starts_at)
SELECT tenant_id, date_trunc('hour', max(occurred_at), 'UTC') + interval '1 hour'
FROM usage_events
WHERE accepted_at >= $1 AND accepted_at < $2
GROUP BY tenant_id
ON CONFLICT (tenant_id) DO UPDATE SET starts_at = greatest(r.starts_at, excluded.starts_at);

-- name: note_dropped
-- Notes a month of arrival that is dropped, and how much was in it. Returns that.
INSERT INTO dropped_months AS m (month, events, dropped_at)
SELECT ($1::timestamptz AT TIME ZONE 'UTC')::date, count(*), $3 FROM usage_events WHERE accepted_at >= $1 AND accepted_at < $2
ON CONFLICT (month) DO UPDATE SET events = m.events + excluded.events, dropped_at = excluded.dropped_at
RETURNING events;

-- name: detach_month
-- Takes the month out of the table; waits for readers of all months, and is waited for meanwhile.
ALTER TABLE usage_events DETACH PARTITION {month};

-- name: hold_months
-- Keeps months from being dropped until the transaction ends; waits for one that is about to go. Takes no snapshot.
LOCK TABLE usage_events IN ACCESS SHARE MODE;

-- name: raw_usage_start
-- Since when all raw usage of a tenant is there, by when it occurred; NULL where nothing was dropped.
SELECT starts_at FROM raw_usage_starts WHERE tenant_id = $1;

-- name: lost_model_usage
-- The end of the last hour in [$1, $2) that lost usage priced by AI model, of one tenant and of one customer where these are given;
-- NULL where none did.
SELECT max(hour) + interval '1 hour'
FROM dropped_hourly
WHERE
    price_id <> 0 AND hour >= $1 AND hour < $2 AND ($3::integer IS NULL OR tenant_id = $3)
    AND ($4::bigint IS NULL OR customer_id = $4);

-- name: months_dropped
-- How many months of arrival were dropped.
SELECT count(*) FROM dropped_months;
