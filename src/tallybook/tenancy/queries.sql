-- The only SQL that touches organizations, tenants, api_keys, web_sessions, idempotency_keys, customer_terms, terms_bumps, outbox and installation.

-- name: add_organization
-- Adds an organization.
INSERT INTO organizations (id, name) VALUES ($1, $2);

-- name: add_tenant
-- Adds one mode of an organization.
INSERT INTO tenants (organization_id, livemode) VALUES ($1, $2)
RETURNING id, organization_id, livemode;

-- name: tenant_of_organization
-- Finds one mode of an organization.
SELECT id, organization_id, livemode FROM tenants WHERE organization_id = $1 AND livemode = $2;

-- name: organizations
-- Lists organizations, oldest first.
SELECT id FROM organizations ORDER BY created_at, id LIMIT $1;

-- name: simulated_at
-- Reads the test clock of a tenant; NULL means the real time.
SELECT simulated_at FROM tenants WHERE id = $1;

-- name: set_simulated_at
-- Moves a sandbox clock forward, raises the terms version and queues it for the till; no row when it would go back.
WITH moved AS (
    UPDATE tenants SET simulated_at = $2, terms_version = terms_version + 1
    WHERE id = $1 AND NOT livemode AND (simulated_at IS NULL OR simulated_at <= $2)
    RETURNING id, terms_version
)
INSERT INTO terms_bumps (tenant_id, customer_id, version)
SELECT id, NULL, terms_version FROM moved
RETURNING version;

-- name: bump_tenant_terms
-- Raises the terms version of a whole tenant and queues it for the till.
WITH raised AS (
    UPDATE tenants SET terms_version = terms_version + 1 WHERE id = $1 RETURNING id, terms_version
)
INSERT INTO terms_bumps (tenant_id, customer_id, version)
SELECT id, NULL, terms_version FROM raised
RETURNING version;

-- name: bump_customer_terms
-- Raises the terms version of one customer and queues it for the till.
WITH raised AS (
    INSERT INTO customer_terms (customer_id, tenant_id, version) VALUES ($2, $1, 1)
    ON CONFLICT (customer_id) DO UPDATE SET version = customer_terms.version + 1
    RETURNING customer_id, version
)
INSERT INTO terms_bumps (tenant_id, customer_id, version)
SELECT $1, customer_id, version FROM raised
RETURNING version;

-- name: undelivered_bumps_of_tenant
-- Lists what the till may not know yet of one tenant, oldest first.
SELECT b.id, b.tenant_id, t.organization_id, t.livemode, b.customer_id, b.version
FROM terms_bumps b JOIN tenants t ON t.id = b.tenant_id
WHERE b.tenant_id = $1 AND b.delivered_at IS NULL AND b.id > $3
ORDER BY b.id LIMIT $2;

-- name: tenants_with_undelivered_bumps
-- Lists tenants of which the till may not know everything yet, by number.
SELECT t.id, t.organization_id, t.livemode FROM tenants t
WHERE t.id > $2 AND EXISTS (SELECT FROM terms_bumps b WHERE b.tenant_id = t.id AND b.delivered_at IS NULL)
ORDER BY t.id LIMIT $1;

-- name: mark_bumps_delivered
-- Notes that the till knows these changes.
UPDATE terms_bumps SET delivered_at = $2 WHERE id = ANY ($1::bigint[]) AND delivered_at IS NULL;

-- name: announce
-- Queues a webhook in the transaction of what it tells of.
INSERT INTO outbox (tenant_id, topic, payload) VALUES ($1, $2, $3) RETURNING id;

-- name: waiting_announcements
-- Webhooks that wait, oldest first, but those that another transaction holds.
SELECT o.id, o.tenant_id, t.organization_id, t.livemode, o.topic, o.payload, o.created_at
FROM outbox AS o INNER JOIN tenants AS t ON t.id = o.tenant_id
WHERE o.delivered_at IS NULL
ORDER BY o.id LIMIT $1
FOR UPDATE OF o SKIP LOCKED;

-- name: mark_announced
-- Notes that webhooks are on their way.
UPDATE outbox SET delivered_at = $2 WHERE id = ANY ($1::bigint[]);

-- name: oldest_announcement
-- Since when the oldest webhook waits.
SELECT created_at FROM outbox WHERE delivered_at IS NULL ORDER BY id LIMIT 1;

-- name: add_api_key
-- Adds a key; only a hash of its secret is stored.
INSERT INTO api_keys (id, tenant_id, name, public_part, secret_sha256, permissions, expires_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
RETURNING id, tenant_id, name, public_part, permissions, expires_at, revoked_at, last_used_at, created_at;

-- name: api_key_by_public_part
-- Finds a key and its tenant by the public part.
SELECT k.id, k.secret_sha256, k.permissions, k.expires_at, k.revoked_at, t.id AS tenant_id, t.organization_id, t.livemode
FROM api_keys k JOIN tenants t ON t.id = k.tenant_id
WHERE k.public_part = $1;

-- name: api_keys
-- Lists the keys of a tenant that were not revoked, newest first.
SELECT id, tenant_id, name, public_part, permissions, expires_at, revoked_at, last_used_at, created_at
FROM api_keys WHERE tenant_id = $1 AND revoked_at IS NULL
ORDER BY created_at DESC, id DESC LIMIT $2;

-- name: api_keys_after
-- Continues the list of keys after the one with this id.
SELECT id, tenant_id, name, public_part, permissions, expires_at, revoked_at, last_used_at, created_at
FROM api_keys
WHERE tenant_id = $1 AND revoked_at IS NULL
  AND (created_at, id) < (SELECT c.created_at, c.id FROM api_keys c WHERE c.tenant_id = $1 AND c.id = $3)
ORDER BY created_at DESC, id DESC LIMIT $2;

-- name: revoke_api_key
-- Revokes a key of a tenant; no row when it has none such, or it was revoked before.
UPDATE api_keys SET revoked_at = $3 WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL RETURNING id;

-- name: tenant_of_api_key
-- Finds the tenant of a key by the key's id.
SELECT t.id, t.organization_id, t.livemode FROM api_keys k JOIN tenants t ON t.id = k.tenant_id WHERE k.id = $1;

-- name: touch_api_keys
-- Notes when keys were last used; never sets the time back.
UPDATE api_keys SET last_used_at = u.used_at
FROM unnest($1::text[], $2::timestamptz[]) AS u (id, used_at)
WHERE api_keys.id = u.id AND (api_keys.last_used_at IS NULL OR api_keys.last_used_at < u.used_at);

-- name: lock_idempotency_key
-- Takes the right to answer a key until the end of the transaction; false while another request has it.
SELECT pg_try_advisory_xact_lock($1);

-- name: stored_response
-- Finds what was answered to a key since a moment.
SELECT fingerprint, status, response FROM idempotency_keys WHERE tenant_id = $1 AND key_digest = $2 AND created_at > $3;

-- name: store_response
-- Keeps what is being answered to a key, in place of one too old to count.
INSERT INTO idempotency_keys (tenant_id, key_digest, fingerprint, status, response, created_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (tenant_id, key_digest) DO UPDATE
SET fingerprint = excluded.fingerprint, status = excluded.status, response = excluded.response, created_at = excluded.created_at;

-- name: forget_responses
-- Drops a bounded number of responses stored before a moment.
DELETE FROM idempotency_keys
WHERE (tenant_id, key_digest) IN (SELECT tenant_id, key_digest FROM idempotency_keys WHERE created_at < $1 LIMIT $2)
RETURNING tenant_id;

-- name: forget_bumps
-- Drops a bounded number of changes of terms that the till was told of before a moment.
DELETE FROM terms_bumps WHERE id IN (SELECT id FROM terms_bumps WHERE delivered_at < $1 LIMIT $2) RETURNING id;

-- name: forget_announcements
-- Drops a bounded number of webhooks that were delivered before a moment.
DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE delivered_at < $1 LIMIT $2) RETURNING id;

-- name: install
-- Fixes epoch and partitions of a new installation; does nothing on one that has them.
INSERT INTO installation (epoch, partitions) VALUES ($1, $2) ON CONFLICT (singleton) DO NOTHING;

-- name: installation
-- Reads epoch and partitions, and whether the till was given the epoch.
SELECT epoch, partitions, till_made_at IS NOT NULL AS till_made, former_epoch FROM installation;

-- name: note_till_made
-- Notes that the till has the epoch: from now on one without it is a lost till, not a new one.
UPDATE installation SET till_made_at = now() WHERE till_made_at IS NULL;

-- name: renew_epoch
-- Gives the installation a new epoch: a till with the old one is refused from here on.
UPDATE installation SET former_epoch = epoch, epoch = $1, till_made_at = coalesce(till_made_at, now())
RETURNING epoch, partitions, true AS till_made, former_epoch;

-- name: tenant_terms_versions
-- How often the terms of each tenant have changed.
SELECT id, terms_version FROM tenants;

-- name: customer_terms_versions
-- How often the terms of each customer have changed, those that ever did, in parts.
SELECT tenant_id, customer_id, version FROM customer_terms WHERE customer_id > $1 ORDER BY customer_id LIMIT $2;

-- name: add_web_session
-- Adds a session, and drops what expired and the oldest of a key that has too many.
WITH crowded AS (
    SELECT digest FROM web_sessions WHERE key_id = $2 ORDER BY created_at DESC OFFSET $5 - 1
), dropped AS (
    DELETE FROM web_sessions WHERE expires_at <= $3 OR digest IN (SELECT digest FROM crowded)
)
INSERT INTO web_sessions (digest, key_id, created_at, expires_at) VALUES ($1, $2, $3, $4);

-- name: key_of_web_session
-- Finds the key behind a session that has not expired, while the key is good.
SELECT k.id, k.tenant_id, t.organization_id, t.livemode, k.permissions, k.expires_at
FROM web_sessions AS s
INNER JOIN api_keys AS k ON k.id = s.key_id
INNER JOIN tenants AS t ON t.id = k.tenant_id
WHERE s.digest = $1 AND s.expires_at > $2 AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > $2);

-- name: drop_web_session
-- Ends a session.
DELETE FROM web_sessions WHERE digest = $1;

-- name: organization_name
-- Reads the name of an organization.
SELECT name FROM organizations WHERE id = $1;
