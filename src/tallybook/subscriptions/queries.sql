-- name: insert_subscription
-- Creates a subscription; violates subscriptions_one_open when the customer has an open one.
INSERT INTO subscriptions (
    tenant_id, public_id, customer_id, plan_id, price_id, name, status, started_at, trial_ends_at, anchor_at,
    cancel_at, canceled_at, created_at, updated_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, CASE WHEN $11::timestamptz IS NULL THEN NULL ELSE $12::timestamptz END, $12, $12)
RETURNING id;

-- name: subscription_rows
-- Subscriptions by id with the names of customer, plan and price, newest first.
SELECT
    s.id, s.tenant_id, s.public_id, s.customer_id, c.public_id AS customer_public_id, c.external_id AS customer_external_id,
    c.full_name AS customer_name, s.plan_id, p.public_id AS plan_public_id, p.name AS plan_name, p.consumption_model,
    p.block_on_exhaustion, p.is_free, s.price_id, r.public_id AS price_public_id,
    CASE WHEN p.is_free THEN NULL ELSE r.billing_interval END AS billing_interval,
    s.name, s.status, s.started_at, s.trial_ends_at, s.anchor_at, s.cancel_at, s.cancel_reason, s.canceled_at, s.ended_at,
    s.created_at, s.updated_at
FROM subscriptions AS s
INNER JOIN customers AS c ON c.id = s.customer_id
INNER JOIN plans AS p ON p.id = s.plan_id
LEFT JOIN plan_prices AS r ON r.id = s.price_id
WHERE s.id = ANY($1::bigint[])
ORDER BY s.id DESC;

-- name: id_by_public_id
-- The row of a public id within one tenant.
SELECT id FROM subscriptions WHERE tenant_id = $1 AND public_id = $2;

-- name: open_id_of_customer
-- The one subscription of a customer that is not canceled.
SELECT id FROM subscriptions WHERE customer_id = $1 AND status <> 'canceled';

-- name: lock_subscription
-- Holds a subscription until the transaction ends, so that its changes come one after the other.
SELECT id FROM subscriptions WHERE id = $1 FOR UPDATE;

-- name: page_of_ids
-- One page of a tenant's subscriptions, newest first, optionally of one customer and one status.
SELECT id FROM subscriptions
WHERE
    tenant_id = $1
    AND ($2::bigint IS NULL OR customer_id = $2)
    AND ($3::text IS NULL OR status = $3)
    AND ($4::bigint IS NULL OR id < $4)
ORDER BY id DESC
LIMIT $5;

-- name: schedule_cancellation
-- Notes when a subscription is to end, who asked for it when, and why.
UPDATE subscriptions
SET cancel_at = $2, cancel_reason = coalesce($3, cancel_reason), canceled_at = $4, updated_at = $4
WHERE id = $1;

-- name: unschedule_cancellation
-- Takes a scheduled cancellation back.
UPDATE subscriptions SET cancel_at = NULL, cancel_reason = NULL, canceled_at = NULL, updated_at = $2 WHERE id = $1;

-- name: end_subscription
-- Ends a subscription for good; one that was never asked to end is noted as asked for at its end.
UPDATE subscriptions
SET status = 'canceled', cancel_at = $2, ended_at = $2, canceled_at = coalesce(canceled_at, $3), updated_at = $3
WHERE id = $1 AND status <> 'canceled'
RETURNING id;

-- name: activate_subscription
-- Ends a trial.
UPDATE subscriptions SET status = 'active', updated_at = $2 WHERE id = $1 AND status = 'trialing' RETURNING id;

-- name: insert_period
-- Opens a usage period; nothing happens when it is there already.
INSERT INTO billing_periods (subscription_id, tenant_id, starts_at, ends_at, state, feature_revision, price_revision)
VALUES ($1, $2, $3, $4, 'open', $5, $6)
ON CONFLICT (subscription_id, starts_at) DO NOTHING;

-- name: unclosed_period
-- The one period of a subscription that is not closed.
SELECT p.subscription_id, p.tenant_id, t.organization_id, t.livemode, s.customer_id, p.starts_at, p.ends_at, p.state, p.closing_seq,
    p.feature_revision, p.price_revision
FROM billing_periods AS p
INNER JOIN subscriptions AS s ON s.id = p.subscription_id
INNER JOIN tenants AS t ON t.id = p.tenant_id
WHERE p.subscription_id = $1 AND p.state <> 'closed';

-- name: lock_period
-- Holds a period until the transaction ends; of several closers, one gets it and the others find it closed afterwards.
SELECT p.subscription_id, p.tenant_id, t.organization_id, t.livemode, s.customer_id, p.starts_at, p.ends_at, p.state, p.closing_seq,
    p.feature_revision, p.price_revision
FROM billing_periods AS p
INNER JOIN subscriptions AS s ON s.id = p.subscription_id
INNER JOIN tenants AS t ON t.id = p.tenant_id
WHERE p.subscription_id = $1 AND p.starts_at = $2
FOR UPDATE OF p;

-- name: due_periods
-- Periods to close: those that have begun to close, and those that ended by the tenant's clock. Earliest first, but those that
-- could not be billed when last tried come after all others, so that however many they are, they keep nobody waiting.
-- $1 is the real time less the grace for events under way; a simulated clock has no grace. $3: of one tenant only.
SELECT p.subscription_id, p.tenant_id, t.organization_id, t.livemode, s.customer_id, p.starts_at, p.ends_at, p.state, p.closing_seq,
    p.feature_revision, p.price_revision
FROM (
    SELECT * FROM billing_periods WHERE state = 'closing'
    UNION ALL
    SELECT ended.*
    FROM tenants AS clocks
    CROSS JOIN LATERAL (
        SELECT * FROM billing_periods AS o
        WHERE
            o.tenant_id = clocks.id AND o.state = 'open' AND o.state <> 'closed'
            AND o.ends_at <= coalesce(clocks.simulated_at, $1::timestamptz)
        OFFSET 0
    ) AS ended
    WHERE $3::integer IS NULL OR clocks.id = $3
) AS p
INNER JOIN subscriptions AS s ON s.id = p.subscription_id
INNER JOIN tenants AS t ON t.id = p.tenant_id
WHERE $3::integer IS NULL OR p.tenant_id = $3
ORDER BY p.deferred_at NULLS FIRST, p.ends_at, p.subscription_id
LIMIT $2;

-- name: next_deadline
-- The end of the tenant's period that ends first, if it is not after a given time.
SELECT min(ends_at) AS ends_at FROM billing_periods WHERE tenant_id = $1 AND state <> 'closed' AND ends_at <= $2;

-- name: count_deadlines
-- How many of the tenant's open periods end until a given time.
SELECT count(*) AS deadlines FROM billing_periods WHERE tenant_id = $1 AND state <> 'closed' AND ends_at <= $2;

-- name: begin_closing
-- Stops a period from taking usage, once: no row comes back when that has happened before.
UPDATE billing_periods SET state = 'closing', ends_at = $3
WHERE subscription_id = $1 AND starts_at = $2 AND state = 'open'
RETURNING subscription_id;

-- name: forget_closing_seqs
-- Has every period that is being closed marked anew: the till was made anew, and a mark it lost may never be passed.
UPDATE billing_periods SET closing_seq = NULL WHERE state = 'closing' AND closing_seq IS NOT NULL;

-- name: save_closing_seq
-- Notes how far the book has to read; the first place noted stays.
UPDATE billing_periods SET closing_seq = $3
WHERE subscription_id = $1 AND starts_at = $2 AND state = 'closing' AND closing_seq IS NULL;

-- name: defer_period
-- Notes when a period could not be billed, in real time.
UPDATE billing_periods SET deferred_at = $3 WHERE subscription_id = $1 AND starts_at = $2 AND state = 'closing';

-- name: close_period
-- Closes a period for good.
UPDATE billing_periods SET state = 'closed', closed_at = $3 WHERE subscription_id = $1 AND starts_at = $2 AND state = 'closing';

-- name: unexpired_periods
-- Closed periods whose pools the till may still hold, longest closed first.
SELECT p.subscription_id, p.tenant_id, t.organization_id, t.livemode, s.customer_id, p.starts_at, p.ends_at, p.state, p.closing_seq,
    p.feature_revision, p.price_revision
FROM billing_periods AS p
INNER JOIN subscriptions AS s ON s.id = p.subscription_id
INNER JOIN tenants AS t ON t.id = p.tenant_id
WHERE p.state = 'closed' AND p.expired_at IS NULL
ORDER BY p.closed_at
LIMIT $1;

-- name: save_expired
-- Notes that the till has dropped the pools of a closed period.
UPDATE billing_periods SET expired_at = $3
WHERE subscription_id = $1 AND starts_at = $2 AND state = 'closed' AND expired_at IS NULL;

-- name: insert_clock_run
-- Starts an advance of the test clock; violates test_clock_runs_one_at_a_time while another is under way.
INSERT INTO test_clock_runs (id, tenant_id, status, started_at_time, target_time, estimated)
VALUES ($1, $2, 'pending', $3, $4, $5)
RETURNING id;

-- name: latest_clock_run
-- The tenant's last advance of the test clock.
SELECT
    r.id, r.tenant_id, t.organization_id, t.livemode, r.status, r.started_at_time, r.target_time, r.estimated, r.completed, r.failed,
    r.items, r.error
FROM test_clock_runs AS r
INNER JOIN tenants AS t ON t.id = r.tenant_id
WHERE r.tenant_id = $1
ORDER BY r.created_at DESC
LIMIT 1;

-- name: unfinished_clock_runs
-- Advances that are waiting or were left half done, the one that nobody has looked at for longest first.
SELECT
    r.id, r.tenant_id, t.organization_id, t.livemode, r.status, r.started_at_time, r.target_time, r.estimated, r.completed, r.failed,
    r.items, r.error
FROM test_clock_runs AS r
INNER JOIN tenants AS t ON t.id = r.tenant_id
WHERE r.status IN ('pending', 'running')
ORDER BY r.updated_at
LIMIT $1;

-- name: try_claim_clock
-- Claims a tenant's test clock for this connection; of several workers one gets it, until it lets go or its connection ends.
SELECT pg_try_advisory_lock($1, $2) AS claimed;

-- name: release_clock
-- Lets go of a claimed test clock.
SELECT pg_advisory_unlock($1, $2) AS released;

-- name: clock_run_started
-- Notes that somebody works on the run.
UPDATE test_clock_runs SET status = 'running', updated_at = now() WHERE id = $1 AND status IN ('pending', 'running') RETURNING id;

-- name: note_deadline
-- Adds a processed deadline to the run that turns the tenant's clock, if there is one, and keeps the latest $5 of the items.
UPDATE test_clock_runs
SET
    completed = completed + $3, failed = failed + $4, updated_at = now(),
    items = (
        SELECT coalesce(jsonb_agg(kept.item ORDER BY kept.place), '[]'::jsonb)
        FROM (
            SELECT item, place
            FROM jsonb_array_elements(test_clock_runs.items || $2::jsonb) WITH ORDINALITY AS everything (item, place)
            ORDER BY place DESC
            LIMIT $5
        ) AS kept
    )
WHERE tenant_id = $1 AND status IN ('pending', 'running');

-- name: clock_run_ended
-- Ends a run: completed, or failed with the reason.
UPDATE test_clock_runs SET status = $2, error = $3, updated_at = now() WHERE id = $1 AND status IN ('pending', 'running');

-- name: terms_of_customer
-- A customer by public or external id, how old its terms are, its open subscription and the period that is not closed.
SELECT
    c.id AS customer_id, c.public_id AS customer_public_id, c.external_id, t.terms_version AS tenant_version,
    coalesce(v.version, 0) AS customer_version, t.simulated_at, c.ai_margin_bps,
    (SELECT version FROM ai_catalog_version) AS catalog_version,
    s.id AS subscription_id, s.public_id, s.status, s.plan_id, s.price_id,
    p.consumption_model, p.is_free, p.block_on_exhaustion,
    CASE WHEN p.is_free THEN NULL ELSE r.billing_interval END AS billing_interval,
    s.started_at, s.anchor_at, s.trial_ends_at, s.cancel_at, b.starts_at, b.ends_at, b.state AS period_state,
    b.feature_revision, b.price_revision
FROM customers AS c
INNER JOIN tenants AS t ON t.id = c.tenant_id
LEFT JOIN customer_terms AS v ON v.customer_id = c.id
LEFT JOIN billing_periods AS b
    INNER JOIN subscriptions AS s ON s.id = b.subscription_id
    INNER JOIN plans AS p ON p.id = s.plan_id
    LEFT JOIN plan_prices AS r ON r.id = s.price_id
    ON s.customer_id = c.id AND s.status <> 'canceled' AND b.state <> 'closed'
WHERE c.tenant_id = $1 AND (c.public_id = $2 OR c.external_id = $2);
