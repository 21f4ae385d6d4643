-- name: ensure_offsets
-- Gives each partition its row, once.
INSERT INTO log_offsets (partition)
SELECT unnest($1::smallint[])
ON CONFLICT (partition) DO NOTHING;

-- name: offsets
-- How far the book has read each of these partitions.
SELECT partition, last_seq FROM log_offsets WHERE partition = ANY ($1::smallint[]);

-- name: advance_offsets
-- Moves offsets that still stand where this pass began, and returns those moved; rows are locked in order.
WITH pass AS (
    SELECT *
    FROM unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::timestamptz[]) AS pass (partition, previous, last, accepted_at)
), locked AS (
    SELECT partition FROM log_offsets WHERE partition = ANY ($1::smallint[]) ORDER BY partition FOR UPDATE
)
UPDATE log_offsets AS held
SET last_seq = pass.last, accepted_at = coalesce(pass.accepted_at, held.accepted_at), rolled_at = $5
FROM pass, locked
WHERE held.partition = pass.partition AND locked.partition = pass.partition AND held.last_seq = pass.previous
RETURNING held.partition;

-- name: add_hourly
-- Adds to hourly totals; $4 holds Unix hours, $5 Unix seconds.
INSERT INTO usage_hourly (
    tenant_id, customer_id, feature_id, hour, period_start, price_id,
    events, quantity_nano, amount, cost_nano, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens
)
SELECT
    tenant_id, customer_id, feature_id,
    timestamptz 'epoch' + hour * interval '1 hour', timestamptz 'epoch' + period_start_s * interval '1 second', price_id,
    events, quantity_nano, amount, cost_nano, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens
FROM unnest(
    $1::integer[], $2::bigint[], $3::integer[], $4::bigint[], $5::bigint[], $6::bigint[],
    $7::bigint[], $8::numeric[], $9::numeric[], $10::numeric[], $11::numeric[], $12::numeric[], $13::numeric[], $14::numeric[]
) AS added (
    tenant_id, customer_id, feature_id, hour, period_start_s, price_id,
    events, quantity_nano, amount, cost_nano, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens
)
ON CONFLICT (tenant_id, customer_id, feature_id, hour, period_start, price_id) DO UPDATE SET
    events = usage_hourly.events + excluded.events,
    quantity_nano = usage_hourly.quantity_nano + excluded.quantity_nano,
    amount = usage_hourly.amount + excluded.amount,
    cost_nano = usage_hourly.cost_nano + excluded.cost_nano,
    input_tokens = usage_hourly.input_tokens + excluded.input_tokens,
    output_tokens = usage_hourly.output_tokens + excluded.output_tokens,
    cache_read_tokens = usage_hourly.cache_read_tokens + excluded.cache_read_tokens,
    cache_write_tokens = usage_hourly.cache_write_tokens + excluded.cache_write_tokens;

-- name: add_pools
-- Adds changes to pools; whether a pool is closed is what its latest change says.
INSERT INTO pool_balances (customer_id, pool, tenant_id, opening, charged, adjusted, expired, closed)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::integer[], $4::numeric[], $5::numeric[], $6::numeric[], $7::numeric[], $8::boolean[])
ON CONFLICT (customer_id, pool) DO UPDATE SET
    opening = pool_balances.opening + excluded.opening,
    charged = pool_balances.charged + excluded.charged,
    adjusted = pool_balances.adjusted + excluded.adjusted,
    expired = pool_balances.expired + excluded.expired,
    closed = excluded.closed;

-- name: add_ledger
-- Adds to the hourly ledger of pools; $3 holds Unix hours.
INSERT INTO pool_ledger (customer_id, pool, hour, kind, tenant_id, amount, entries)
SELECT customer_id, pool, timestamptz 'epoch' + hour * interval '1 hour', kind, tenant_id, amount, entries
FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::integer[], $6::numeric[], $7::bigint[])
    AS added (customer_id, pool, hour, kind, tenant_id, amount, entries)
ON CONFLICT (customer_id, pool, hour, kind) DO UPDATE SET
    amount = pool_ledger.amount + excluded.amount,
    entries = pool_ledger.entries + excluded.entries;

-- name: add_quarantined
-- Keeps what could not be applied.
INSERT INTO quarantine (partition, seq, position, reason, payload)
SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::integer[], $4::text[], $5::bytea[]);

-- name: months_made
-- Names of the month partitions of raw events.
SELECT relid::text AS name FROM pg_partition_tree('usage_events') WHERE isleaf;

-- name: lock_months
-- Lets one process at a time make month partitions, until its transaction ends.
SELECT pg_advisory_xact_lock(x'74a11b02'::bigint);

-- name: join_workers
-- Says that this connection's worker takes part; the lock is shared and ends with the connection.
SELECT pg_advisory_lock_shared($1, $2);

-- name: workers
-- How many workers take part.
SELECT count(*) FROM pg_locks
WHERE
    locktype = 'advisory' AND classid = $1::integer::oid AND objid = $2::integer::oid AND objsubid = 2 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database());

-- name: try_lease
-- Takes a partition unless another worker has it; the lease ends with the connection.
SELECT pg_try_advisory_lock($1, $2);

-- name: end_lease
-- Gives a partition back.
SELECT pg_advisory_unlock($1, $2);

-- name: feature_totals
-- What each feature of a customer used and took from its pool in one billing period, as far as the book has read.
SELECT feature_id, sum(quantity_nano) AS quantity_nano, sum(amount) AS amount
FROM usage_hourly
WHERE tenant_id = $1 AND customer_id = $2 AND period_start = $3
GROUP BY feature_id;
