-- name: ensure_offsets
-- Gives each partition its row, once.
INSERT INTO log_offsets (partition)
SELECT unnest($1::smallint[])
ON CONFLICT (partition) DO NOTHING;

-- name: offsets
-- How far the book has read each of these partitions.
SELECT partition, last_seq FROM log_offsets WHERE partition = ANY ($1::smallint[]);

-- name: advance_offsets
-- Moves offsets that still stand where this pass began and belong to the till it read; returns those moved. Rows are locked in order.
WITH pass AS (
    SELECT *
    FROM unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::timestamptz[]) AS pass (partition, previous, last, accepted_at)
), locked AS (
    SELECT partition FROM log_offsets WHERE partition = ANY ($1::smallint[]) ORDER BY partition FOR UPDATE
)
UPDATE log_offsets AS held
SET last_seq = pass.last, accepted_at = coalesce(pass.accepted_at, held.accepted_at), rolled_at = $5
FROM pass, locked
WHERE
    held.partition = pass.partition AND locked.partition = pass.partition AND held.last_seq = pass.previous
    AND (held.epoch IS NULL OR $6::text IS NULL OR held.epoch = $6)
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
INSERT INTO quarantine (partition, seq, position, reason, payload, accepted_at, booked)
SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::integer[], $4::text[], $5::bytea[], $6::timestamptz[], $7::boolean[]);

-- name: months_made
-- Names of the month partitions of raw events.
SELECT relid::text AS name FROM pg_partition_tree('usage_events') WHERE isleaf;

-- name: lock_months
-- Lets one process at a time make month partitions, until its transaction ends; a lock of the table also shows what others just made.
LOCK TABLE usage_events IN SHARE UPDATE EXCLUSIVE MODE;

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
-- What each feature of a customer's subscription ($4) used and took from its pool in one billing period, as far as the book has read.
-- Hourly totals don't know the subscription: where another one of the customer has a period with the same start, events are summed.
WITH shared AS MATERIALIZED (
    SELECT EXISTS (
        SELECT 1 FROM billing_periods AS p INNER JOIN subscriptions AS s ON s.id = p.subscription_id
        WHERE s.customer_id = $2 AND p.starts_at = $3 AND s.id <> $4::bigint
    ) AS is_shared
), counted AS (
    SELECT feature_id, quantity_nano, amount FROM usage_hourly
    WHERE tenant_id = $1 AND customer_id = $2 AND period_start = $3 AND NOT (SELECT is_shared FROM shared)
    UNION ALL
    SELECT feature_id, quantity_nano, amount FROM usage_events
    WHERE
        customer_id = $2 AND period_start = $3 AND kind IN (0, 5) AND pool LIKE $4 || '.%'
        AND tenant_id = $1 AND (SELECT is_shared FROM shared)
)
SELECT feature_id, sum(quantity_nano) AS quantity_nano, sum(amount) AS amount FROM counted GROUP BY feature_id;

-- name: customers_with_model_usage
-- Customers with usage that was priced by AI model in some hours; of one tenant and of one customer where these are given.
SELECT DISTINCT h.tenant_id, t.organization_id, t.livemode, h.customer_id, c.public_id
FROM usage_hourly AS h
INNER JOIN tenants AS t ON t.id = h.tenant_id
INNER JOIN customers AS c ON c.id = h.customer_id
WHERE h.price_id <> 0 AND h.hour >= $1 AND h.hour < $2
  AND ($3::integer IS NULL OR h.tenant_id = $3) AND ($4::bigint IS NULL OR h.customer_id = $4)
ORDER BY h.tenant_id, h.customer_id;

-- name: model_usage_of_customer
-- One customer's usage that was priced by AI model in some hours and is not taken back, with all that a charge is computed from.
SELECT
    date_trunc('hour', e.occurred_at, 'UTC') AS hour, e.occurred_at, e.feature_id, e.pool, e.period_start, e.model, e.service_tier,
    e.margin_bps, e.amount, e.cost_nano, e.price_id, e.input_tokens, e.output_tokens, e.cache_read_tokens, e.cache_write_tokens,
    e.cache_write_1h_tokens, e.web_searches, e.input_pico, e.output_pico, e.cache_read_pico, e.cache_write_pico,
    e.cache_write_1h_pico, e.web_search_pico, e.catalog_version
FROM usage_events AS e
WHERE
    e.customer_id = $1 AND e.occurred_at >= $2 AND e.occurred_at < $3 AND e.kind = 0 AND e.price_id <> 0
    AND NOT EXISTS (
        SELECT FROM usage_events AS v
        WHERE v.customer_id = e.customer_id AND v.voids = e.seq || '-' || e.position AND v.partition = e.partition
    );

-- name: rerated_hours_of_customer
-- What earlier re-ratings took for usage of some hours, negative where they gave back, and in how many adjustments.
SELECT occurred_at AS hour, sum(amount) AS amount, count(*) AS adjustments
FROM usage_events
WHERE customer_id = $1 AND occurred_at >= $2 AND occurred_at < $3 AND kind = 1 AND properties ? 'reratedHour'
GROUP BY occurred_at;

-- name: last_rerate_of_hour
-- The prices that the last re-rating of a customer's hour used, and how far it had read the customer's log.
SELECT properties ->> 'reratedPrices' AS prices, properties ->> 'reratedThrough' AS through
FROM usage_events
WHERE customer_id = $1 AND occurred_at = $2 AND kind = 1 AND properties ? 'reratedPrices'
ORDER BY seq DESC, position DESC LIMIT 1;

-- name: edition_of_period
-- The plan of a subscription, and for a period of it that has begun its end and the last revision that was there at its beginning.
SELECT s.plan_id, p.ends_at, p.feature_revision
FROM subscriptions AS s
LEFT JOIN billing_periods AS p ON p.subscription_id = s.id AND p.starts_at = $2
WHERE s.id = $1;

-- name: usage_by_identity
-- The usage that was first counted ($4: how often) under each of these identities since a time; one probe of an index for each of the
-- days $5, counted from 2020.
SELECT e.*
FROM unnest($1::bytea[], $3::bigint[]) AS wanted (digest, low)
CROSS JOIN LATERAL (
    SELECT counted.*
    FROM (
        SELECT n << 48 AS high, timestamptz '2020-01-01 00:00+00' + n * interval '24 hours' AS starts_at FROM unnest($5::bigint[]) AS n
    ) AS days
    CROSS JOIN LATERAL (
        SELECT * FROM usage_events AS u
        WHERE
            u.identity = days.high + wanted.low AND u.digest = wanted.digest AND u.kind = 0
            AND u.accepted_at >= $2 AND u.accepted_at >= days.starts_at AND u.accepted_at < days.starts_at + interval '24 hours'
        OFFSET 0
    ) AS counted
    ORDER BY counted.seq, counted.position
    LIMIT $4
) AS e;

-- name: last_accepted
-- When the till took the last of what the book has read.
SELECT max(accepted_at) FROM log_offsets;

-- name: first_day_of_usage
-- When the oldest month of events that is there begins.
SELECT to_date(right(min(relid::text), 7), 'YYYY_MM')::timestamp AT TIME ZONE 'UTC' FROM pg_partition_tree('usage_events') WHERE isleaf;

-- name: names_of_event
-- What the outside calls a customer and a feature.
SELECT c.public_id AS customer_public_id, f.code AS feature_code
FROM customers AS c CROSS JOIN features AS f
WHERE c.id = $1 AND f.id = $2;

-- name: void_of_event
-- What took back the event at a place of a customer's log.
SELECT * FROM usage_events WHERE customer_id = $1 AND voids = $2 AND partition = $3;

-- name: repeated_identities
-- Identities under which more than one usage event of these customers was counted since a time.
SELECT digest
FROM usage_events
WHERE customer_id = ANY ($1::bigint[]) AND kind = 0 AND accepted_at >= $2
GROUP BY digest
HAVING count(*) > 1;

-- name: voided_places
-- Which places of customers' logs are taken back.
SELECT customer_id, partition, voids
FROM usage_events
WHERE (customer_id, partition, voids) IN (SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::text[]));

-- name: customers_with_usage
-- Customers that something was charged to since a time, by the ledger's hours.
SELECT DISTINCT l.customer_id, l.tenant_id, t.organization_id, t.livemode
FROM pool_ledger AS l
INNER JOIN tenants AS t ON t.id = l.tenant_id
WHERE l.kind = 'charge' AND l.hour >= $1
ORDER BY l.customer_id;

-- name: swept_until
-- When the last finished search for repeats in all of the book began.
SELECT swept_until FROM usage_sweeps;

-- name: note_swept
-- Notes a finished search; an older one never takes the place of a newer.
INSERT INTO usage_sweeps AS s (swept_until) VALUES ($1)
ON CONFLICT (singleton) DO UPDATE SET swept_until = greatest(s.swept_until, excluded.swept_until);

-- name: try_claim_sweep
-- Lets one worker at a time search all of the book for repeats, until it lets go or its connection ends.
SELECT pg_try_advisory_lock(x'74a11b03'::bigint) AS claimed;

-- name: release_sweep
-- Lets go of the search.
SELECT pg_advisory_unlock(x'74a11b03'::bigint);

-- name: begin_epoch
-- From now on the offsets belong to a till with this epoch; a pass over the log of the one before finds them moved.
WITH locked AS (SELECT partition FROM log_offsets ORDER BY partition FOR UPDATE)
UPDATE log_offsets AS held SET epoch = $1
FROM locked WHERE locked.partition = held.partition
RETURNING held.partition, held.last_seq, held.accepted_at;

-- name: skip_lost
-- Moves an offset over entries that are lost, if it still stands before them.
UPDATE log_offsets SET last_seq = $3, rolled_at = $4 WHERE partition = $1 AND last_seq = $2 RETURNING partition;

-- name: open_pools
-- Pools that are not closed, with what they were opened with and what is left.
SELECT customer_id, tenant_id, pool, opening, balance FROM pool_balances WHERE NOT closed;

-- name: reopened_pools
-- Pools that were opened again after they had expired: their opening can't be told from the sums of both.
SELECT p.customer_id, p.tenant_id, p.pool FROM pool_balances AS p
WHERE NOT p.closed AND EXISTS (
    SELECT FROM pool_ledger AS l WHERE l.customer_id = p.customer_id AND l.pool = p.pool AND l.kind = 'expiry'
);

-- name: identities_since
-- What the till remembers of what it accepted since a time: the amount it added to the pool, and what it found while doing it.
SELECT
    partition, digest, fingerprint, accepted_at, pool_left, spare_left,
    CASE kind WHEN 2 THEN pool_left WHEN 5 THEN spare_amount - amount ELSE -amount END AS amount,
    CASE kind WHEN 1 THEN -spare_amount WHEN 2 THEN amount + pool_left ELSE spare_amount END AS found
FROM usage_events
WHERE accepted_at >= $1 AND kind IN (0, 1, 2, 5);

-- name: quarantined_since
-- What is or was in quarantine and was accepted since a time.
SELECT partition, seq, position, payload, accepted_at FROM quarantine WHERE accepted_at >= $1 OR accepted_at IS NULL;

-- name: freeze
-- Notes that a customer's pools take nothing; a first reason stays.
INSERT INTO frozen_customers (customer_id, tenant_id, reason) VALUES ($1, $2, $3)
ON CONFLICT (customer_id) DO NOTHING;

-- name: thaw
-- Forgets it.
DELETE FROM frozen_customers WHERE customer_id = $1;

-- name: frozen
-- Customers whose pools take nothing, those frozen first before the others.
SELECT customer_id, tenant_id, reason, frozen_at FROM frozen_customers ORDER BY frozen_at, customer_id;

-- name: hold_frozen
-- A frozen customer, kept so until the transaction ends.
SELECT customer_id FROM frozen_customers WHERE customer_id = $1 FOR UPDATE;

-- name: add_pools_again
-- Adds changes that come long after their time: a pool that was closed meanwhile stays closed.
INSERT INTO pool_balances (customer_id, pool, tenant_id, opening, charged, adjusted, expired, closed)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::integer[], $4::numeric[], $5::numeric[], $6::numeric[], $7::numeric[], $8::boolean[])
ON CONFLICT (customer_id, pool) DO UPDATE SET
    opening = pool_balances.opening + excluded.opening,
    charged = pool_balances.charged + excluded.charged,
    adjusted = pool_balances.adjusted + excluded.adjusted,
    expired = pool_balances.expired + excluded.expired,
    closed = pool_balances.closed OR excluded.closed;

-- name: quarantined
-- What is in quarantine and was not dropped; with $1, also what was.
SELECT id, partition, seq, position, reason, payload, accepted_at, booked, created_at, dropped_at, dropped_because
FROM quarantine WHERE $1 OR dropped_at IS NULL ORDER BY id;

-- name: unbooked
-- What pools lack while it is in quarantine, in some partitions; as many items as $2 says.
SELECT partition, seq, position, reason, payload, accepted_at, booked
FROM quarantine WHERE NOT booked AND dropped_at IS NULL AND partition = ANY ($1::smallint[]) ORDER BY id LIMIT $2;

-- name: take_from_quarantine
-- Takes an item out for good; whoever comes second finds nothing.
DELETE FROM quarantine WHERE id = $1 AND dropped_at IS NULL RETURNING id;

-- name: drop_from_quarantine
-- Gives an item up, and keeps the row.
UPDATE quarantine SET dropped_at = $2, dropped_because = $3 WHERE id = $1 AND dropped_at IS NULL RETURNING id;
