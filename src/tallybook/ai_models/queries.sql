-- The only SQL that writes ai_models, ai_model_prices, ai_model_aliases, ai_price_overrides, ai_model_syncs, ai_model_changes and ai_catalog_version; subscriptions read the last with a customer's terms.

-- name: lock_catalog
-- Waits for the right to change the catalog, held to the end of the transaction.
SELECT pg_advisory_xact_lock($1);

-- name: try_sync_lock
-- Takes a right (to sync, to re-rate), held by this connection until it is given back; false while another process has it.
SELECT pg_try_advisory_lock($1);

-- name: try_share_lock
-- Keeps others from taking such a right until the transaction ends; false while one has it.
SELECT pg_try_advisory_xact_lock_shared($1);

-- name: release_sync_lock
-- Gives such a right back.
SELECT pg_advisory_unlock($1);

-- name: current_version
-- Reads the number that every change of the catalog raises.
SELECT version FROM ai_catalog_version;

-- name: catalog_version
-- Reads the number that every change of the catalog raises, and when that was.
SELECT version, changed_at FROM ai_catalog_version;

-- name: raise_version
-- Raises the number that tells every process to load a new book.
UPDATE ai_catalog_version SET version = version + 1, changed_at = $1 RETURNING version;

-- name: all_models
-- Lists every model, with the latest of its prices.
SELECT m.*, p.price
FROM ai_models m
LEFT JOIN LATERAL (SELECT price FROM ai_model_prices WHERE model_id = m.id ORDER BY effective_from DESC LIMIT 1) p ON true;

-- name: all_prices
-- Lists every price row.
SELECT id, model_id, effective_from, price FROM ai_model_prices ORDER BY model_id, effective_from;

-- name: all_aliases
-- Lists the aliases of all tenants.
SELECT tenant_id, alias, model_id FROM ai_model_aliases;

-- name: all_overrides
-- Lists the overrides of all tenants, ended ones too: late events need them.
SELECT id, tenant_id, pattern, price, effective_from, effective_to, reaches_back, created_at FROM ai_price_overrides;

-- name: put_models
-- Adds models or brings them up to date; a listed model has no tombstone.
INSERT INTO ai_models (id, provider, name, type, context_window, output_max, other_units, deprecated_at, added_at, removed_at)
SELECT l.id, l.provider, l.name, l.type, l.context_window, l.output_max,
       ARRAY(SELECT jsonb_array_elements_text(l.other_units -> 'names')), l.deprecated_at, $9, l.removed_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::jsonb[], $8::timestamptz[], $10::timestamptz[])
    AS l (id, provider, name, type, context_window, output_max, other_units, deprecated_at, removed_at)
ORDER BY l.id
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, type = excluded.type, context_window = excluded.context_window, output_max = excluded.output_max,
    other_units = excluded.other_units, deprecated_at = excluded.deprecated_at, removed_at = excluded.removed_at;

-- name: add_prices
-- Adds price rows.
INSERT INTO ai_model_prices (model_id, effective_from, price)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::jsonb[]) AS l (model_id, effective_from, price)
ORDER BY l.model_id, l.effective_from;

-- name: latest_price_at
-- Reads when the newest price row of the catalog comes into force.
SELECT max(effective_from) FROM ai_model_prices;

-- name: add_sync
-- Records how a sync ended.
INSERT INTO ai_model_syncs (source, status, started_at, digest, etag, models, priced, changes, quarantined, repaired, error)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
RETURNING id;

-- name: add_changes
-- Records what a sync changed.
INSERT INTO ai_model_changes (sync_id, model_id, kind, changed_at, before, after)
SELECT $1, l.model_id, l.kind, $2, l.before, l.after
FROM unnest($3::text[], $4::text[], $5::jsonb[], $6::jsonb[]) WITH ORDINALITY AS l (model_id, kind, before, after, position)
ORDER BY l.position;

-- name: last_syncs
-- Lists the latest syncs, newest first.
SELECT * FROM ai_model_syncs ORDER BY id DESC LIMIT $1;

-- name: last_good_sync
-- Finds the latest sync that left the catalog as the source has it; `packaged` ones excluded.
SELECT * FROM ai_model_syncs WHERE status IN ('published', 'unchanged') AND source <> $1 ORDER BY id DESC LIMIT 1;

-- name: has_synced_digest
-- Whether a list with this digest was taken from this source before.
SELECT EXISTS (SELECT FROM ai_model_syncs WHERE source = $1 AND digest = $2 AND status IN ('published', 'unchanged', 'refused'));

-- name: changes_since
-- Lists what changed since a moment and after a change, oldest first.
SELECT id, model_id, kind, changed_at, before, after FROM ai_model_changes
WHERE changed_at >= $1 AND kind = ANY ($2::text[]) AND id > $3
ORDER BY id LIMIT $4;

-- name: price_by_id
-- Reads a price row of the catalog or an own price: they draw their ids from one sequence.
SELECT effective_from, price FROM ai_model_prices WHERE id = $1
UNION ALL
SELECT effective_from, price FROM ai_price_overrides WHERE id = $1;

-- name: list_models
-- Lists models after a number, newest first, by text in id or name and by provider.
SELECT m.*, p.price
FROM ai_models m
LEFT JOIN LATERAL (SELECT price FROM ai_model_prices WHERE model_id = m.id ORDER BY effective_from DESC LIMIT 1) p ON true
WHERE m.number < $1
  AND ($2::text IS NULL OR strpos(lower(m.id), lower($2)) > 0 OR strpos(lower(m.name), lower($2)) > 0)
  AND ($3::text IS NULL OR lower(m.provider) = lower($3))
  AND ($4 OR m.removed_at IS NULL)
ORDER BY m.number DESC LIMIT $5;

-- name: model_by_id
-- Finds a model by its exact id.
SELECT m.*, p.price
FROM ai_models m
LEFT JOIN LATERAL (SELECT price FROM ai_model_prices WHERE model_id = m.id ORDER BY effective_from DESC LIMIT 1) p ON true
WHERE m.id = $1;

-- name: prices_of_model
-- Lists the price rows of a model, newest first.
SELECT id, model_id, effective_from, price FROM ai_model_prices WHERE model_id = $1 ORDER BY effective_from DESC;

-- name: put_alias
-- Sets what a tenant's own word for a model means.
INSERT INTO ai_model_aliases (tenant_id, alias, model_id, created_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant_id, alias) DO UPDATE SET model_id = excluded.model_id, created_at = excluded.created_at;

-- name: remove_alias
-- Removes an alias.
DELETE FROM ai_model_aliases WHERE tenant_id = $1 AND alias = $2 RETURNING alias;

-- name: aliases_of_tenant
-- Lists a tenant's aliases from before an id, newest first.
SELECT id, alias, model_id, created_at FROM ai_model_aliases WHERE tenant_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3;

-- name: count_aliases
-- Counts a tenant's aliases other than one.
SELECT count(*) FROM ai_model_aliases WHERE tenant_id = $1 AND alias <> $2;

-- name: alias_of_tenant
-- Reads one alias of a tenant.
SELECT id, alias, model_id, created_at FROM ai_model_aliases WHERE tenant_id = $1 AND alias = $2;

-- name: add_override
-- Adds a tenant's own price.
INSERT INTO ai_price_overrides (tenant_id, pattern, price, effective_from, created_at, reaches_back) VALUES ($1, $2, $3, $4, $5, $6)
RETURNING id, tenant_id, pattern, price, effective_from, effective_to, reaches_back, created_at;

-- name: end_override
-- Ends a tenant's own price, once and not before it began.
UPDATE ai_price_overrides SET effective_to = GREATEST($3, effective_from)
WHERE tenant_id = $1 AND id = $2 AND effective_to IS NULL
RETURNING id, tenant_id, pattern, price, effective_from, effective_to, reaches_back, created_at;

-- name: end_overrides_of_pattern
-- Ends a tenant's own prices under a pattern that go on, each not before it began.
UPDATE ai_price_overrides SET effective_to = GREATEST($3, effective_from)
WHERE tenant_id = $1 AND pattern = $2 AND effective_to IS NULL;

-- name: count_overrides
-- Counts a tenant's own prices.
SELECT count(*) FROM ai_price_overrides WHERE tenant_id = $1;

-- name: overrides_of_tenant
-- Lists a tenant's own prices from before an id, newest first, ended ones too.
SELECT id, tenant_id, pattern, price, effective_from, effective_to, reaches_back, created_at FROM ai_price_overrides
WHERE tenant_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3;
