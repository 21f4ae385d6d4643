-- name: insert_customer
-- Adds a customer unless its external id is taken.
INSERT INTO customers (
    tenant_id, public_id, external_id, email, full_name, tax_document, timezone, metadata, address, created_at, updated_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)
ON CONFLICT (tenant_id, external_id) WHERE external_id IS NOT NULL DO NOTHING
RETURNING *;

-- name: customer_by_reference
-- The customer with this public id, or else with this external id.
SELECT * FROM customers
WHERE tenant_id = $1 AND (public_id = $2 OR external_id = $2)
ORDER BY (public_id = $2) DESC
LIMIT 1;

-- name: customer_for_update
-- One customer by its row id, held by this transaction until it ends.
SELECT * FROM customers
WHERE id = $1
FOR NO KEY UPDATE;

-- name: customer_by_id
-- One customer by its row id.
SELECT * FROM customers
WHERE tenant_id = $1 AND id = $2;

-- name: update_customer
-- Writes all that can change of a customer.
UPDATE customers
SET external_id = $2, email = $3, full_name = $4, tax_document = $5, timezone = $6, metadata = $7, address = $8, updated_at = $9
WHERE id = $1
RETURNING *;

-- name: customers_page
-- Customers, newest first, from before a row id; optionally one external id, or those in whose texts a pattern occurs.
SELECT * FROM customers
WHERE tenant_id = $1
  AND ($2::bigint IS NULL OR id < $2)
  AND ($3::text IS NULL OR external_id = $3)
  AND ($4::text IS NULL OR email ILIKE $4 OR full_name ILIKE $4 OR external_id ILIKE $4 OR public_id = $5)
ORDER BY id DESC
LIMIT $6;

-- name: set_ai_margin
-- Writes a customer's own margin on AI usage.
UPDATE customers SET ai_margin_bps = $2, updated_at = $3
WHERE id = $1
RETURNING *;

-- name: customer_anywhere
-- The tenant and row id of the customer with this public id, for an operator who speaks for all tenants.
SELECT tenant_id, id FROM customers WHERE public_id = $1;

-- name: public_ids
-- Public ids by row id, for an operator who speaks for all tenants.
SELECT id, public_id FROM customers WHERE id = ANY ($1::bigint[]);
