-- The only SQL that touches webhook_endpoints and webhook_deliveries.

-- name: count_endpoints
-- How many endpoints a tenant has.
SELECT count(*) FROM webhook_endpoints WHERE tenant_id = $1;

-- name: insert_endpoint
-- Adds an endpoint.
INSERT INTO webhook_endpoints (tenant_id, public_id, url, events, description, api_version, secret, secret_sealed, is_active, created_at, updated_at)
VALUES ($1, $2, $3, $4::text[], $5, $6, $7, $8, $9, $10, $10)
RETURNING id, tenant_id, public_id, url, events, description, api_version, is_active, disabled_reason, failures, created_at, updated_at;

-- name: endpoint
-- An endpoint of a tenant by its public id.
SELECT id, tenant_id, public_id, url, events, description, api_version, is_active, disabled_reason, failures, created_at, updated_at
FROM webhook_endpoints WHERE tenant_id = $1 AND public_id = $2;

-- name: endpoint_for_update
-- The same, and nobody else changes it until the transaction ends.
SELECT id, tenant_id, public_id, url, events, description, api_version, is_active, disabled_reason, failures, created_at, updated_at
FROM webhook_endpoints WHERE tenant_id = $1 AND public_id = $2 FOR UPDATE;

-- name: endpoints_page
-- One page of a tenant's endpoints, newest first.
SELECT id, tenant_id, public_id, url, events, description, api_version, is_active, disabled_reason, failures, created_at, updated_at
FROM webhook_endpoints WHERE tenant_id = $1 AND ($2::bigint IS NULL OR id < $2) ORDER BY id DESC LIMIT $3;

-- name: update_endpoint
-- Writes an endpoint's settings; one that is switched on begins with a clean record.
UPDATE webhook_endpoints
SET
    url = $2, events = $3::text[], description = $4, api_version = $5, updated_at = $7,
    failures = CASE WHEN $6 AND NOT is_active THEN 0 ELSE failures END,
    disabled_reason = CASE WHEN $6 <> is_active THEN NULL ELSE disabled_reason END, is_active = $6
WHERE id = $1
RETURNING id, tenant_id, public_id, url, events, description, api_version, is_active, disabled_reason, failures, created_at, updated_at;

-- name: delete_endpoint
-- Drops an endpoint and its deliveries.
DELETE FROM webhook_endpoints WHERE tenant_id = $1 AND public_id = $2 RETURNING id;

-- name: secret
-- The stored secret of an endpoint.
SELECT secret, secret_sealed FROM webhook_endpoints WHERE id = $1;

-- name: listening
-- Endpoints of some tenants that are switched on, each until it has been sent to: none is dropped in between.
SELECT id, tenant_id, public_id, url, events, description, api_version, is_active, disabled_reason, failures, created_at, updated_at
FROM webhook_endpoints WHERE tenant_id = ANY ($1::integer[]) AND is_active ORDER BY id FOR KEY SHARE;

-- name: insert_deliveries
-- Queues messages; what was queued for an endpoint before stays as it is.
INSERT INTO webhook_deliveries
    (tenant_id, public_id, endpoint_id, outbox_id, event_id, topic, emitted_at, body, state, next_attempt_at, created_at)
SELECT tenant_id, public_id, endpoint_id, outbox_id, event_id, topic, emitted_at, body, 'pending', $9, $9
FROM unnest($1::integer[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::timestamptz[], $8::text[])
    AS queued (tenant_id, public_id, endpoint_id, outbox_id, event_id, topic, emitted_at, body)
ON CONFLICT (endpoint_id, outbox_id) DO NOTHING
RETURNING id;

-- name: insert_attempted
-- Notes a message that was sent once and is not sent again.
INSERT INTO webhook_deliveries (
    tenant_id, public_id, endpoint_id, event_id, topic, emitted_at, body, state, attempts, attempted_at, response_status, error, created_at, finished_at
)
SELECT tenant_id, $2, id, $3, $4, $5, $6, $7, 1, $8, $9, $10, $5, $8 FROM webhook_endpoints WHERE id = $1
RETURNING id;

-- name: due
-- What is to be attempted now, the oldest $2 of each endpoint, in order.
SELECT
    d.id, d.public_id, d.endpoint_id, d.event_id, d.topic, d.emitted_at, d.body, d.state, d.attempts, d.next_attempt_at, d.attempted_at,
    d.response_status, d.error, d.created_at, d.finished_at, e.url, e.secret, e.secret_sealed
FROM webhook_endpoints AS e
CROSS JOIN LATERAL (
    SELECT * FROM webhook_deliveries AS w
    WHERE w.endpoint_id = e.id AND w.state = 'pending' AND w.next_attempt_at <= $1
    ORDER BY w.id LIMIT $2
) AS d
WHERE e.is_active AND NOT e.id = ANY ($3::bigint[])
ORDER BY d.endpoint_id, d.id;

-- name: settle
-- Notes what became of an attempt, unless another one was noted meanwhile.
UPDATE webhook_deliveries
SET
    attempts = attempts + 1, state = $3, next_attempt_at = $4, attempted_at = $5, response_status = $6, error = $7,
    finished_at = CASE WHEN $3 = 'pending' THEN NULL ELSE $5::timestamptz END
WHERE id = $1 AND attempts = $2 AND state = 'pending'
RETURNING endpoint_id;

-- name: note_success
-- An endpoint answered: its failures no longer are in a row.
UPDATE webhook_endpoints SET failures = 0 WHERE id = $1 AND failures <> 0;

-- name: note_failure
-- An event could not be delivered; the one too many in a row switches the endpoint off.
UPDATE webhook_endpoints
SET failures = failures + 1, is_active = failures + 1 < $2, disabled_reason = CASE WHEN failures + 1 < $2 THEN NULL ELSE $3 END, updated_at = $4
WHERE id = $1 AND is_active
RETURNING is_active, public_id;

-- name: give_up_pending
-- Gives up what waits for an endpoint that was switched off.
UPDATE webhook_deliveries SET state = 'failed', next_attempt_at = NULL, finished_at = $2, error = $3
WHERE endpoint_id = $1 AND state = 'pending';

-- name: deliveries_page
-- One page of an endpoint's deliveries, newest first.
SELECT
    id, public_id, endpoint_id, event_id, topic, emitted_at, body, state, attempts, next_attempt_at, attempted_at, response_status, error,
    created_at, finished_at
FROM webhook_deliveries
WHERE endpoint_id = $1 AND ($2::text IS NULL OR state = $2) AND ($3::bigint IS NULL OR id < $3)
ORDER BY id DESC LIMIT $4;

-- name: resend
-- Queues a finished delivery once more, with all its attempts; one that waits anyway is sent now.
UPDATE webhook_deliveries SET state = 'pending', attempts = 0, next_attempt_at = $3, finished_at = NULL, error = NULL, response_status = NULL
WHERE endpoint_id = $1 AND public_id = $2
RETURNING
    id, public_id, endpoint_id, event_id, topic, emitted_at, body, state, attempts, next_attempt_at, attempted_at, response_status, error,
    created_at, finished_at;

-- name: forget_deliveries
-- Drops a bounded number of deliveries that were finished before a moment.
DELETE FROM webhook_deliveries WHERE id IN (SELECT id FROM webhook_deliveries WHERE finished_at < $1 LIMIT $2) RETURNING id;

-- name: backlog
-- How many deliveries wait for their first or next attempt.
SELECT count(*) FROM webhook_deliveries WHERE state = 'pending';
