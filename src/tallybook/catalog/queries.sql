-- name: insert_feature
-- Adds a feature unless its code is taken.
INSERT INTO features (tenant_id, public_id, code, name, type, description, unit_name, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)
ON CONFLICT (tenant_id, code) WHERE deleted_at IS NULL DO NOTHING
RETURNING *;

-- name: feature_by_reference
-- The feature with this public id, or else with this code.
SELECT * FROM features
WHERE tenant_id = $1 AND (public_id = $2 OR code = $2) AND deleted_at IS NULL
ORDER BY (public_id = $2) DESC
LIMIT 1;

-- name: known_feature_codes
-- Which of these codes are features.
SELECT code FROM features WHERE tenant_id = $1 AND code = ANY ($2::text[]) AND deleted_at IS NULL;

-- name: hold_feature
-- The same feature as feature_by_reference, held by this transaction until it ends.
SELECT * FROM features
WHERE tenant_id = $1 AND (public_id = $2 OR code = $2) AND deleted_at IS NULL
ORDER BY (public_id = $2) DESC
LIMIT 1
FOR NO KEY UPDATE;

-- name: features_page
-- Features, newest first, from before a row id.
SELECT * FROM features
WHERE tenant_id = $1 AND ($2::bigint IS NULL OR id < $2) AND deleted_at IS NULL
ORDER BY id DESC
LIMIT $3;

-- name: update_feature
-- Writes all that can change of a feature.
UPDATE features
SET name = $2, description = $3, unit_name = $4, updated_at = $5
WHERE id = $1
RETURNING *;

-- name: delete_feature
-- Takes a feature out of the catalog; started periods that include it go on.
UPDATE features
SET deleted_at = $2, updated_at = $2
WHERE id = $1;

-- name: plans_with_feature
-- Codes of a few plans on offer that include a feature now.
SELECT plans.code
FROM plans
CROSS JOIN LATERAL (
    SELECT removed FROM plan_feature_revisions AS revision
    WHERE revision.plan_id = plans.id AND revision.feature_id = $2
    ORDER BY revision.id DESC
    LIMIT 1
) AS latest
WHERE plans.tenant_id = $1 AND plans.deleted_at IS NULL AND NOT latest.removed
ORDER BY plans.id
LIMIT 5;

-- name: insert_plan
-- Adds a plan unless its code is taken.
INSERT INTO plans (
    tenant_id, public_id, code, name, description, consumption_model, is_public, is_free, block_on_exhaustion, metadata,
    created_at, updated_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)
ON CONFLICT (tenant_id, code) WHERE deleted_at IS NULL DO NOTHING
RETURNING *;

-- name: plan_by_id
-- One plan by its row id, on offer or not.
SELECT * FROM plans
WHERE id = $1;

-- name: plan_by_reference
-- The plan on offer with this public id, or else with this code.
SELECT * FROM plans
WHERE tenant_id = $1 AND (public_id = $2 OR code = $2) AND deleted_at IS NULL
ORDER BY (public_id = $2) DESC
LIMIT 1;

-- name: hold_plan
-- The same plan as plan_by_reference, held by this transaction until it ends.
SELECT * FROM plans
WHERE tenant_id = $1 AND (public_id = $2 OR code = $2) AND deleted_at IS NULL
ORDER BY (public_id = $2) DESC
LIMIT 1
FOR NO KEY UPDATE;

-- name: plans_page
-- Plans on offer, newest first, from before a row id; optionally public ones only.
SELECT * FROM plans
WHERE tenant_id = $1 AND ($2::bigint IS NULL OR id < $2) AND ($3::boolean OR is_public) AND deleted_at IS NULL
ORDER BY id DESC
LIMIT $4;

-- name: update_plan
-- Writes all that can change of a plan.
UPDATE plans
SET name = $2, description = $3, metadata = $4, is_public = $5, updated_at = $6
WHERE id = $1
RETURNING *;

-- name: touch_plan
-- Notes that something in a plan changed.
UPDATE plans
SET updated_at = $2
WHERE id = $1;

-- name: delete_plan
-- Takes a plan off offer; subscriptions keep it.
UPDATE plans
SET deleted_at = $2, updated_at = $2
WHERE id = $1;

-- name: insert_feature_revision
-- Appends to the history of a feature on a plan.
INSERT INTO plan_feature_revisions (
    plan_id, feature_id, effective_at, removed, enabled, included_units, unlimited, overage_enabled, unit_price_nano,
    credits_per_unit, pricing_mode, margin_bps
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12);

-- name: features_of_plans
-- What plans include now, in the order it was first added.
SELECT latest.*, features.*
FROM (
    SELECT DISTINCT ON (plan_id, feature_id)
        plan_id, feature_id, removed, enabled, included_units, unlimited, overage_enabled, unit_price_nano, credits_per_unit,
        pricing_mode, margin_bps
    FROM plan_feature_revisions
    WHERE plan_id = ANY($1::integer[])
    ORDER BY plan_id, feature_id, id DESC
) AS latest
JOIN features ON features.id = latest.feature_id
WHERE NOT latest.removed
ORDER BY latest.plan_id, latest.feature_id;

-- name: count_other_features
-- How many features besides $2 a plan includes, or did after $3.
SELECT count(*)
FROM (
    SELECT DISTINCT ON (feature_id) removed, effective_at
    FROM plan_feature_revisions
    WHERE plan_id = $1 AND feature_id <> $2
    ORDER BY feature_id, id DESC
) AS latest
WHERE NOT removed OR effective_at > $3;

-- name: revisions_for_period
-- Per feature of a plan the revision in force when a period began and those that followed until now, in order.
-- $4 is the last revision that was there when the period began; NULL: it has not begun, and its start decides.
SELECT revision.*, features.code, features.name, features.unit_name, features.type
FROM plan_feature_revisions AS revision
JOIN features ON features.id = revision.feature_id
WHERE revision.plan_id = $1
  AND (
    revision.effective_at <= $3 AND CASE WHEN $4::bigint IS NULL THEN revision.effective_at > $2 ELSE revision.id > $4 END
    OR revision.id = (
        SELECT max(earlier.id) FROM plan_feature_revisions AS earlier
        WHERE earlier.plan_id = revision.plan_id
          AND earlier.feature_id = revision.feature_id
          AND CASE WHEN $4 IS NULL THEN earlier.effective_at <= least($2::timestamptz, $3::timestamptz) ELSE earlier.id <= $4 END
    )
  )
ORDER BY revision.feature_id, revision.id;

-- name: edition
-- The last revisions of a plan's features and of a price at a moment (NULL: now); of a price that is younger, its first one.
SELECT
    coalesce((SELECT max(id) FROM plan_feature_revisions WHERE plan_id = $1 AND ($3::timestamptz IS NULL OR effective_at <= $3)), 0)
        AS features,
    coalesce(
        (SELECT max(id) FROM plan_price_revisions WHERE price_id = $2 AND ($3::timestamptz IS NULL OR effective_at <= $3)),
        (SELECT min(id) FROM plan_price_revisions WHERE price_id = $2)
    ) AS price;

-- name: insert_price
-- Adds a price to a plan, not as its default.
INSERT INTO plan_prices (plan_id, public_id, billing_interval, is_default, metadata, created_at, updated_at)
VALUES ($1, $2, $3, false, $4, $5, $5)
RETURNING id;

-- name: insert_price_revision
-- Appends to the history of what a price charges and grants.
INSERT INTO plan_price_revisions (price_id, effective_at, price_cents, trial_days, included_balance_nano, included_credits)
VALUES ($1, $2, $3, $4, $5, $6);

-- name: prices_of_plans
-- The prices on offer of plans as they are now, oldest first.
SELECT prices.*, latest.price_cents, latest.trial_days, latest.included_balance_nano, latest.included_credits
FROM plan_prices AS prices
CROSS JOIN LATERAL (
    SELECT * FROM plan_price_revisions AS revision
    WHERE revision.price_id = prices.id
    ORDER BY revision.id DESC
    LIMIT 1
) AS latest
WHERE prices.plan_id = ANY($1::integer[]) AND prices.archived_at IS NULL
ORDER BY prices.plan_id, prices.id;

-- name: price_at
-- A price with a revision ($3), else the one in force at a moment (NULL: the latest), or with its first one if it is younger than that.
SELECT prices.id AS price_id, prices.public_id, prices.billing_interval, plans.consumption_model, chosen.price_cents,
       chosen.trial_days, chosen.included_balance_nano, chosen.included_credits
FROM plan_prices AS prices
JOIN plans ON plans.id = prices.plan_id
JOIN plan_price_revisions AS chosen ON chosen.id = coalesce(
    $3::bigint,
    (SELECT max(id) FROM plan_price_revisions WHERE price_id = $1 AND ($2::timestamptz IS NULL OR effective_at <= $2)),
    (SELECT min(id) FROM plan_price_revisions WHERE price_id = $1)
)
WHERE prices.id = $1;

-- name: update_price
-- Writes the metadata of a price.
UPDATE plan_prices
SET metadata = $2, updated_at = $3
WHERE id = $1;

-- name: set_default_price
-- Makes one price on offer the default of its plan, and the others not.
UPDATE plan_prices
SET is_default = (id = $2), updated_at = $3
WHERE plan_id = $1 AND archived_at IS NULL AND is_default <> (id = $2);

-- name: archive_price
-- Takes a price off offer; subscriptions bound to it keep it.
UPDATE plan_prices
SET archived_at = $2, updated_at = $2, is_default = false
WHERE id = $1;

-- name: tenants_pricing_by_model
-- Tenants that have a plan with a feature that is priced by AI model now.
SELECT DISTINCT t.id, t.organization_id, t.livemode
FROM (SELECT DISTINCT ON (plan_id, feature_id) plan_id, pricing_mode, removed FROM plan_feature_revisions ORDER BY plan_id, feature_id, id DESC) AS r
INNER JOIN plans AS p ON p.id = r.plan_id
INNER JOIN tenants AS t ON t.id = p.tenant_id
WHERE r.pricing_mode = 'ai_model' AND NOT r.removed
ORDER BY t.id;
