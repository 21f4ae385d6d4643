-- The book summed in one way and in another. Reads only; every statement wants a snapshot.

-- name: sum_events_and_hours
-- Sums raw events and hourly totals of customers $1 to $2, and counts the groups (customer, feature, hour, period, price) that differ.
WITH there AS (
    SELECT
        tenant_id, customer_id, feature_id, date_trunc('hour', occurred_at, 'UTC') AS hour, period_start, price_id,
        sum(CASE kind WHEN 0 THEN 1 ELSE -1 END)::numeric AS events, sum(quantity_nano) AS quantity_nano, sum(amount) AS amount,
        sum(cost_nano) AS cost_nano, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
        sum(cache_read_tokens) AS cache_read_tokens, sum(cache_write_tokens) AS cache_write_tokens
    FROM usage_events WHERE kind IN (0, 5) AND customer_id BETWEEN $1 AND $2
    GROUP BY 1, 2, 3, 4, 5, 6
), dropped AS (
    SELECT * FROM dropped_hourly WHERE customer_id BETWEEN $1 AND $2
), events AS (
    SELECT
        tenant_id, customer_id, feature_id, hour, period_start, price_id,
        coalesce(t.events, 0) + coalesce(d.events, 0) AS events,
        coalesce(t.quantity_nano, 0) + coalesce(d.quantity_nano, 0) AS quantity_nano,
        coalesce(t.amount, 0) + coalesce(d.amount, 0) AS amount,
        coalesce(t.cost_nano, 0) + coalesce(d.cost_nano, 0) AS cost_nano,
        coalesce(t.input_tokens, 0) + coalesce(d.input_tokens, 0) AS input_tokens,
        coalesce(t.output_tokens, 0) + coalesce(d.output_tokens, 0) AS output_tokens,
        coalesce(t.cache_read_tokens, 0) + coalesce(d.cache_read_tokens, 0) AS cache_read_tokens,
        coalesce(t.cache_write_tokens, 0) + coalesce(d.cache_write_tokens, 0) AS cache_write_tokens
    FROM there AS t
    FULL JOIN dropped AS d USING (tenant_id, customer_id, feature_id, hour, period_start, price_id)
), hours AS (
    SELECT * FROM usage_hourly WHERE customer_id BETWEEN $1 AND $2
), grouped AS (
    SELECT measure, event_side, hour_side
    FROM events AS e
    FULL JOIN hours AS h USING (tenant_id, customer_id, feature_id, hour, period_start, price_id)
    CROSS JOIN LATERAL (VALUES
        ('events', coalesce(e.events, 0), coalesce(h.events::numeric, 0)),
        ('quantity', coalesce(e.quantity_nano, 0), coalesce(h.quantity_nano, 0)),
        ('amount', coalesce(e.amount, 0), coalesce(h.amount, 0)),
        ('cost', coalesce(e.cost_nano, 0), coalesce(h.cost_nano, 0)),
        ('input tokens', coalesce(e.input_tokens, 0), coalesce(h.input_tokens, 0)),
        ('output tokens', coalesce(e.output_tokens, 0), coalesce(h.output_tokens, 0)),
        ('cache read tokens', coalesce(e.cache_read_tokens, 0), coalesce(h.cache_read_tokens, 0)),
        ('cache write tokens', coalesce(e.cache_write_tokens, 0), coalesce(h.cache_write_tokens, 0))
    ) AS sides (measure, event_side, hour_side)
)
SELECT
    measure, sum(event_side) AS event_side, sum(hour_side) AS hour_side,
    count(*) FILTER (WHERE event_side <> hour_side) AS differing
FROM grouped
GROUP BY measure;

-- name: differing_hours
-- The first $3 groups of customers $1 to $2 whose raw events and hourly totals differ, with both sides of every measure.
SELECT
    customer_id, feature_id, hour,
    ARRAY[e.events, e.quantity_nano, e.amount, e.cost_nano, e.input_tokens, e.output_tokens, e.cache_read_tokens,
        e.cache_write_tokens] AS event_sides,
    ARRAY[h.events, h.quantity_nano, h.amount, h.cost_nano, h.input_tokens, h.output_tokens, h.cache_read_tokens,
        h.cache_write_tokens] AS hour_sides
FROM (
    SELECT
        tenant_id, customer_id, feature_id, hour, period_start, price_id, sum(events) AS events,
        sum(quantity_nano) AS quantity_nano, sum(amount) AS amount, sum(cost_nano) AS cost_nano,
        sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
        sum(cache_read_tokens) AS cache_read_tokens, sum(cache_write_tokens) AS cache_write_tokens
    FROM (
        SELECT
            tenant_id, customer_id, feature_id, date_trunc('hour', occurred_at, 'UTC') AS hour, period_start, price_id,
            CASE kind WHEN 0 THEN 1 ELSE -1 END::numeric AS events, quantity_nano::numeric, amount::numeric, cost_nano::numeric,
            input_tokens::numeric, output_tokens::numeric, cache_read_tokens::numeric, cache_write_tokens::numeric
        FROM usage_events WHERE kind IN (0, 5) AND customer_id BETWEEN $1 AND $2
        UNION ALL
        SELECT * FROM dropped_hourly WHERE customer_id BETWEEN $1 AND $2
    ) AS either
    GROUP BY 1, 2, 3, 4, 5, 6
) AS e
FULL JOIN (SELECT * FROM usage_hourly WHERE customer_id BETWEEN $1 AND $2) AS h
    USING (tenant_id, customer_id, feature_id, hour, period_start, price_id)
WHERE
    (e.events, e.quantity_nano, e.amount, e.cost_nano, e.input_tokens, e.output_tokens, e.cache_read_tokens, e.cache_write_tokens)
    IS DISTINCT FROM
    (h.events, h.quantity_nano, h.amount, h.cost_nano, h.input_tokens, h.output_tokens, h.cache_read_tokens, h.cache_write_tokens)
ORDER BY customer_id, hour, feature_id
LIMIT $3;

-- name: sum_pools
-- What balances, ledger and events (with what is in quarantine, given) say of the pools of customers $7 to $8: sums by measure, the
-- pools that differ, and how many rows of the ledger (customer, pool, hour, kind) do with the first $9 of them.
WITH moves AS MATERIALIZED (
    SELECT customer_id, pool, hour, kind, sum(change) AS change, sum(entries) AS entries
    FROM (
        SELECT
            e.customer_id, m.pool, date_trunc('hour', e.accepted_at, 'UTC') AS hour,
            (ARRAY['charge', 'adjustment', 'adjustment', 'expiry', '', 'void'])[e.kind + 1] AS kind, m.change::numeric, 1 AS entries
        FROM usage_events AS e
        CROSS JOIN LATERAL (VALUES
            (e.pool, e.spare_amount - e.amount, e.pool <> ''), ('credits', -e.spare_amount, e.spare_amount <> 0)
        ) AS m (pool, change, is_one)
        WHERE m.is_one AND e.customer_id BETWEEN $7 AND $8
        UNION ALL
        SELECT * FROM dropped_moves WHERE customer_id BETWEEN $7 AND $8
        UNION ALL
        SELECT * FROM unnest($1::bigint[], $2::text[], $3::timestamptz[], $4::text[], $5::numeric[], $6::bigint[])
    ) AS each (customer_id, pool, hour, kind, change, entries)
    GROUP BY 1, 2, 3, 4
), events AS (
    SELECT
        customer_id, pool, coalesce(-sum(change) FILTER (WHERE kind IN ('charge', 'void')), 0) AS charged,
        coalesce(sum(change) FILTER (WHERE kind = 'adjustment'), 0) AS adjusted,
        coalesce(-sum(change) FILTER (WHERE kind = 'expiry'), 0) AS expired
    FROM moves GROUP BY 1, 2
), ledger AS (
    SELECT
        customer_id, pool, coalesce(sum(amount) FILTER (WHERE kind = 'opening'), 0) AS opening,
        coalesce(-sum(amount) FILTER (WHERE kind IN ('charge', 'void')), 0) AS charged,
        coalesce(sum(amount) FILTER (WHERE kind = 'adjustment'), 0) AS adjusted,
        coalesce(-sum(amount) FILTER (WHERE kind = 'expiry'), 0) AS expired, bool_or(kind = 'expiry') AS was_closed
    FROM pool_ledger WHERE customer_id BETWEEN $7 AND $8 GROUP BY 1, 2
), balances AS (
    SELECT * FROM pool_balances WHERE customer_id BETWEEN $7 AND $8
), joined AS (
    SELECT customer_id, pool, b.tenant_id, measure, balance_side, ledger_side, event_side
    FROM balances AS b
    FULL JOIN ledger AS l USING (customer_id, pool)
    FULL JOIN events AS e USING (customer_id, pool)
    CROSS JOIN LATERAL (VALUES
        ('opening', coalesce(b.opening, 0), coalesce(l.opening, 0), coalesce(l.opening, 0)),
        ('charged', coalesce(b.charged, 0), coalesce(l.charged, 0), coalesce(e.charged, 0)),
        ('adjusted', coalesce(b.adjusted, 0), coalesce(l.adjusted, 0), coalesce(e.adjusted, 0)),
        ('expired', coalesce(b.expired, 0), coalesce(l.expired, 0), coalesce(e.expired, 0)),
        ('closed', b.closed::int, (b.closed AND coalesce(l.was_closed, false))::int, (b.closed AND coalesce(l.was_closed, false))::int)
    ) AS sides (measure, balance_side, ledger_side, event_side)
), ledger_rows AS (
    SELECT
        customer_id, pool, hour, kind, coalesce(l.amount, 0) AS amount, coalesce(m.change, 0) AS change,
        coalesce(l.entries, 0) AS entries, coalesce(m.entries, 0) AS moves
    FROM (SELECT * FROM pool_ledger WHERE kind <> 'opening' AND customer_id BETWEEN $7 AND $8) AS l
    FULL JOIN moves AS m USING (customer_id, pool, hour, kind)
    WHERE l.amount IS DISTINCT FROM m.change OR l.entries IS DISTINCT FROM m.entries
)
SELECT
    measure, NULL::bigint AS customer_id, NULL::text AS pool, NULL::integer AS tenant_id,
    sum(balance_side) AS balance_side, sum(ledger_side) AS ledger_side, sum(event_side) AS event_side, NULL::timestamptz AS hour
FROM joined GROUP BY measure
UNION ALL
SELECT measure, customer_id, pool, tenant_id, balance_side, ledger_side, event_side, NULL
FROM joined
WHERE balance_side <> ledger_side OR balance_side <> event_side
UNION ALL
SELECT 'ledger rows', NULL, NULL, NULL, count(*), count(*), count(*), NULL FROM ledger_rows
UNION ALL
(
    SELECT kind, customer_id, pool, NULL, amount, entries, change, hour
    FROM ledger_rows ORDER BY customer_id, pool, hour LIMIT $9
);

-- name: wrong_tenants
-- The first $3 pools and ledger rows of customers $1 to $2 that stand under another tenant than their customer.
SELECT r.customer_id, r.pool, r.place
FROM (
    SELECT customer_id, pool, tenant_id, 'balance' AS place FROM pool_balances WHERE customer_id BETWEEN $1 AND $2
    UNION ALL
    SELECT customer_id, pool, tenant_id, 'ledger' FROM pool_ledger WHERE customer_id BETWEEN $1 AND $2
) AS r
INNER JOIN customers AS c ON c.id = r.customer_id
WHERE r.tenant_id <> c.tenant_id
ORDER BY r.customer_id, r.pool LIMIT $3;

-- name: mispriced_events
-- The first $3 AI events of customers $1 to $2 whose cost is not their tokens at their prices, or whose amount is not that with their
-- margin (nor 0, as for unlimited use). Rounding is checked to half a unit.
SELECT e.customer_id, e.event_id, e.partition, e.seq, e.position
FROM usage_events AS e
CROSS JOIN LATERAL (
    SELECT
        (e.input_tokens - e.cache_read_tokens - e.cache_write_tokens)::numeric * e.input_pico
        + e.output_tokens::numeric * e.output_pico + e.cache_read_tokens::numeric * e.cache_read_pico
        + (e.cache_write_tokens - e.cache_write_1h_tokens)::numeric * e.cache_write_pico
        + e.cache_write_1h_tokens::numeric * e.cache_write_1h_pico + e.web_searches::numeric * e.web_search_pico AS pico
) AS cost
WHERE
    e.price_id <> 0 AND e.kind = 0 AND e.customer_id BETWEEN $1 AND $2
    AND (
        abs(e.cost_nano::numeric * 1000 - cost.pico) > 500
        OR (e.amount <> 0 AND abs(e.amount::numeric * 10000000 - cost.pico * (10000 + e.margin_bps)) > 5000000)
    )
LIMIT $3;

-- name: misplaced_identities
-- The first $3 events of customers $1 to $2 that nobody finds by their digest, because they are indexed as something else.
SELECT customer_id, event_id, partition, seq, position
FROM usage_events
WHERE
    customer_id BETWEEN $1 AND $2 AND identity IS DISTINCT FROM
    ((floor(extract(epoch FROM accepted_at) / 86400)::bigint - 18262) << 48)
    | CASE length(digest) WHEN 16 THEN ('x' || encode(substr(digest, 1, 6), 'hex'))::bit(48)::bigint ELSE 0 END
LIMIT $3;

-- name: events_beyond_offsets
-- Partitions with an event that stands further in the log than the book says that it has read.
SELECT e.partition, e.seq, coalesce(o.last_seq, 0) AS last_seq
FROM (SELECT partition, max(seq) AS seq FROM usage_events GROUP BY partition) AS e
LEFT JOIN log_offsets AS o USING (partition)
WHERE e.seq > coalesce(o.last_seq, 0)
ORDER BY e.partition;

-- name: quarantined_items
-- What is in quarantine, or was dropped from it and has changed pools all the same.
SELECT id, payload, accepted_at, booked, dropped_at IS NOT NULL AS dropped FROM quarantine WHERE booked OR dropped_at IS NULL ORDER BY id;

-- name: sum_invoices
-- Compares invoices with their lines, lines with their exact amounts, and billed overage with what the pools say; `places` names the
-- first that differ. A feature's pool that was closed below zero is on an invoice line, or was decided to be nobody's to pay.
WITH totals AS (
    SELECT i.public_id, i.total_cents, coalesce(sum(l.amount_cents), 0) AS lines_cents
    FROM invoices AS i LEFT JOIN invoice_lines AS l ON l.invoice_id = i.id
    GROUP BY i.id, i.public_id, i.total_cents
), rounding AS (
    SELECT
        i.public_id, l.position,
        abs(l.exact_nano - l.amount_cents::numeric * 10000000) <= 5000000
        AND abs(l.exact_nano * 1000000000 - l.quantity_nano * l.unit_price_nano) <= 500000000
        AND CASE l.line_type
            WHEN 'feature_overage' THEN l.quantity_nano = l.overage_nano AND l.used_nano - l.included_nano = l.overage_nano
            WHEN 'balance_overage' THEN l.exact_nano = l.overage_nano AND l.quantity_nano = 1000000000
            ELSE l.quantity_nano = 1000000000
        END IS NOT FALSE AS is_right
    FROM invoice_lines AS l INNER JOIN invoices AS i ON i.id = l.invoice_id
), billed AS (
    SELECT i.customer_id, l.pool, l.line_type, sum(l.overage_nano) AS billed
    FROM invoice_lines AS l JOIN invoices AS i ON i.id = l.invoice_id
    WHERE l.pool IS NOT NULL
    GROUP BY 1, 2, 3
), overdrawn AS (
    SELECT
        customer_id, pool, closed, greatest(0, charged - opening - adjusted) AS beyond,
        greatest(0, least(charged, charged - opening - adjusted)) AS beyond_usage, split_part(pool, '.', 2) = 'b' AS is_balance,
        split_part(pool, '.', 2) LIKE 'f%' AS is_feature
    FROM pool_balances
), compared AS (
    SELECT
        customer_id, pool, coalesce(b.billed, 0) AS billed,
        CASE WHEN b.billed IS NULL AND NOT o.closed THEN o.beyond_usage ELSE 0 END AS still_open,
        coalesce(o.beyond_usage, 0) AS billable
    FROM (SELECT * FROM billed WHERE line_type = 'balance_overage') AS b
    FULL JOIN (SELECT * FROM overdrawn WHERE is_balance) AS o USING (customer_id, pool)
), features AS (
    SELECT
        customer_id, pool, coalesce(o.beyond, 0) AS beyond, coalesce(b.billed, 0) AS billed,
        CASE WHEN d.verdict <> 'billed' THEN d.overage_nano ELSE 0 END AS waived,
        d.overage_nano IS NOT DISTINCT FROM o.beyond AS is_decided
    FROM (SELECT * FROM billed WHERE line_type = 'feature_overage') AS b
    FULL JOIN overage_decisions AS d USING (customer_id, pool)
    FULL JOIN (SELECT * FROM overdrawn WHERE is_feature) AS o USING (customer_id, pool)
    WHERE b.billed IS NOT NULL OR d.verdict IS NOT NULL OR (o.closed AND o.beyond > 0)
), numbers AS (
    SELECT t.id AS tenant_id, coalesce(max(c.next_number) - 1, 0) AS given, count(i.id) AS found, coalesce(max(i.number), 0) AS last
    FROM tenants AS t
    LEFT JOIN invoice_counters AS c ON c.organization_id = t.organization_id AND c.livemode = t.livemode
    LEFT JOIN invoices AS i ON i.tenant_id = t.id
    GROUP BY t.id
), strangers AS (
    SELECT i.public_id FROM invoices AS i JOIN subscriptions AS s ON s.id = i.subscription_id
    WHERE s.customer_id <> i.customer_id OR s.tenant_id <> i.tenant_id
)
SELECT 'invoice totals = their lines (cents)' AS what,
    coalesce(sum(total_cents), 0) AS left_side, coalesce(sum(lines_cents), 0) AS right_side,
    count(*) FILTER (WHERE total_cents <> lines_cents) AS differing,
    (array_agg('invoice ' || public_id) FILTER (WHERE total_cents <> lines_cents))[:20] AS places
FROM totals
UNION ALL
SELECT 'invoice lines rounded right', count(*), count(*) FILTER (WHERE is_right), 0,
    (array_agg('invoice ' || public_id || ' line ' || position) FILTER (WHERE NOT is_right))[:20]
FROM rounding
UNION ALL
SELECT 'balance overage = invoiced + open (nano-USD)', coalesce(sum(billable), 0), coalesce(sum(billed + still_open), 0),
    count(*) FILTER (WHERE billable <> billed + still_open),
    (array_agg('customer ' || customer_id || ' pool ' || pool) FILTER (WHERE billable <> billed + still_open))[:20]
FROM compared
UNION ALL
SELECT 'feature overage of closed periods = invoiced + waived (nano-units)', coalesce(sum(beyond), 0),
    coalesce(sum(billed + waived), 0), count(*) FILTER (WHERE NOT is_decided OR beyond <> billed + waived),
    (array_agg('customer ' || customer_id || ' pool ' || pool) FILTER (WHERE NOT is_decided OR beyond <> billed + waived))[:20]
FROM features
UNION ALL
SELECT 'invoice numbers given = invoices', coalesce(sum(given), 0), coalesce(sum(found), 0),
    count(*) FILTER (WHERE given <> found OR given <> last),
    (array_agg('tenant ' || tenant_id || ' of ' || given || ' has ' || found || ', last ' || last)
        FILTER (WHERE given <> found OR given <> last))[:20]
FROM numbers
UNION ALL
SELECT 'invoices of another customer than their subscription', count(*), 0, count(*), (array_agg('invoice ' || public_id))[:20]
FROM strangers;

-- name: customers_with_pools
-- Customers that the book has pools of.
SELECT DISTINCT customer_id, tenant_id FROM pool_balances;

-- name: pools_of_customers
-- All pools of some customers, with what they were opened with where that can be told: a pool that was opened again after it had
-- expired has the sum of both.
SELECT
    customer_id, pool, balance, closed,
    CASE WHEN NOT EXISTS (
        SELECT FROM pool_ledger AS l WHERE l.customer_id = p.customer_id AND l.pool = p.pool AND l.kind = 'expiry'
    ) THEN opening END AS opening
FROM pool_balances AS p
WHERE customer_id = ANY ($1::bigint[]);

-- name: terms_told
-- Terms versions of some customers, and whether the till has been told of them all.
SELECT t.customer_id, t.version, NOT EXISTS (
    SELECT FROM terms_bumps AS b WHERE b.customer_id = t.customer_id AND b.tenant_id = t.tenant_id AND b.delivered_at IS NULL
) AS is_told
FROM customer_terms AS t WHERE t.customer_id = ANY ($1::bigint[]);

-- name: epoch_of_installation
-- The epoch that every partition of the till must have; none before the installation is made.
SELECT epoch FROM installation;

-- name: count_identities
-- How many identities the book knows that the till must remember, by partition, generation and bucket: accepted since $1, of what
-- stands in the partitions $3 up to the sequences $4. A generation has $2 seconds; a bucket is the first 14 bits of the identity.
SELECT
    e.partition, floor(extract(epoch FROM e.accepted_at) / $2)::bigint AS generation,
    get_byte(e.digest, 0) * 64 + (get_byte(e.digest, 1) >> 2) AS bucket, count(*) AS identities
FROM usage_events AS e
INNER JOIN unnest($3::smallint[], $4::bigint[]) AS upto (partition, seq) ON upto.partition = e.partition AND e.seq <= upto.seq
WHERE e.accepted_at >= $1 AND e.kind IN (0, 1, 2, 5)
GROUP BY 1, 2, 3;

-- name: identities_of_buckets
-- The identities of some buckets, of what was accepted since $1 and stands in partition $2 up to sequence $3, with whose they are.
SELECT tenant_id, customer_id, event_id, kind, digest, fingerprint, accepted_at
FROM usage_events
WHERE
    accepted_at >= $1 AND partition = $2 AND seq <= $3 AND kind IN (0, 1, 2, 5)
    AND get_byte(digest, 0) * 64 + (get_byte(digest, 1) >> 2) = ANY ($4::integer[]);
