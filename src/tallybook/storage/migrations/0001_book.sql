-- The book. Every row of a tenant's data carries tenant_id: one tenant is one organization in one mode (live or sandbox).
-- Amounts: *_nano is 1e-9 USD, quantity_nano 1e-9 of a unit, *_pico 1e-12 USD, *_cents cents, *_bps basis points.

-- ── installation and tenancy ──────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE installation (
    singleton   boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    epoch       text NOT NULL,              -- random; also held by every partition of the till
    former_epoch text,                      -- before the till was last made anew from the book
    partitions  smallint NOT NULL CHECK (partitions BETWEEN 1 AND 1024),
    till_made_at timestamptz,               -- when the till was given the epoch; from then on a till without it is a lost one
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE organizations (
    id          text PRIMARY KEY,           -- org_…
    name        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tenants (
    id              integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations (id),
    livemode        boolean NOT NULL,
    terms_version   bigint NOT NULL DEFAULT 1,  -- raised by every change of plan, price, feature or clock
    simulated_at    timestamptz,                -- sandbox test clock: what time it is; NULL means the real time
    UNIQUE (organization_id, livemode),
    CHECK (NOT (livemode AND simulated_at IS NOT NULL))
);

CREATE TABLE api_keys (
    id              text PRIMARY KEY,       -- key_…
    tenant_id       integer NOT NULL REFERENCES tenants (id),
    name            text NOT NULL,
    public_part     text NOT NULL UNIQUE,   -- what stands in the key after ck_ and finds the row
    secret_sha256   bytea NOT NULL CHECK (length(secret_sha256) = 32),
    permissions     jsonb,                  -- NULL: full access
    expires_at      timestamptz,
    revoked_at      timestamptz,
    last_used_at    timestamptz,
    created_at      timestamptz NOT NULL
);
CREATE INDEX api_keys_by_tenant ON api_keys (tenant_id, created_at);

-- A key that somebody signed in with in a browser. The cookie holds the only copy of what the digest is of.
CREATE TABLE web_sessions (
    digest          bytea PRIMARY KEY CHECK (length(digest) = 32),
    key_id          text NOT NULL REFERENCES api_keys (id),
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL
);
CREATE INDEX web_sessions_by_key ON web_sessions (key_id, created_at);

CREATE TABLE idempotency_keys (
    tenant_id       integer NOT NULL REFERENCES tenants (id),
    key_digest      bytea NOT NULL,
    fingerprint     bytea NOT NULL,         -- of operation and body
    status          smallint NOT NULL,
    response        bytea NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, key_digest)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- Raised by every change of a customer's subscription or period; absent means 0.
CREATE TABLE customer_terms (
    customer_id     bigint PRIMARY KEY,
    tenant_id       integer NOT NULL REFERENCES tenants (id),
    version         bigint NOT NULL
);

-- A change of terms that the till must know before the change is answered. Written in the transaction of the change.
CREATE TABLE terms_bumps (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id       integer NOT NULL REFERENCES tenants (id),
    customer_id     bigint,                 -- NULL: the whole tenant
    version         bigint NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    delivered_at    timestamptz
);
CREATE INDEX terms_bumps_waiting ON terms_bumps (tenant_id, id) WHERE delivered_at IS NULL;

CREATE TABLE outbox (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id       integer NOT NULL REFERENCES tenants (id),
    topic           text NOT NULL,          -- invoice.created, subscription.canceled …
    payload         jsonb NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    delivered_at    timestamptz
);
CREATE INDEX outbox_waiting ON outbox (id) WHERE delivered_at IS NULL;

-- ── customers and catalog ─────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE customers (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id       integer NOT NULL REFERENCES tenants (id),
    public_id       text NOT NULL UNIQUE,   -- cus_…
    external_id     text,
    email           text NOT NULL,
    full_name       text,
    tax_document    text,
    timezone        text,
    metadata        jsonb,
    address         jsonb,
    ai_margin_bps   integer CHECK (ai_margin_bps BETWEEN 0 AND 10000000),  -- instead of the plans' margins; NULL: theirs
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL
);
CREATE UNIQUE INDEX customers_by_external_id ON customers (tenant_id, external_id) WHERE external_id IS NOT NULL;
CREATE INDEX customers_by_tenant ON customers (tenant_id, id);

CREATE TABLE features (
    id              integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id       integer NOT NULL REFERENCES tenants (id),
    public_id       text NOT NULL UNIQUE,   -- feat_…
    code            text NOT NULL CHECK (code ~ '^[a-z0-9_]+$'),
    name            text NOT NULL,
    type            text NOT NULL CHECK (type IN ('boolean', 'usage', 'seats', 'quota')),
    description     text,
    unit_name       text,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    deleted_at      timestamptz
);
CREATE UNIQUE INDEX features_by_code ON features (tenant_id, code) WHERE deleted_at IS NULL;

CREATE TABLE plans (
    id                  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id           integer NOT NULL REFERENCES tenants (id),
    public_id           text NOT NULL UNIQUE,   -- plan_…
    code                text NOT NULL,
    name                text NOT NULL,
    description         text,
    consumption_model   text CHECK (consumption_model IN ('metered', 'credits', 'balance')),
    is_public           boolean NOT NULL DEFAULT true,
    is_free             boolean NOT NULL DEFAULT false,
    block_on_exhaustion boolean,
    sort_order          integer NOT NULL DEFAULT 0,
    metadata            jsonb,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    deleted_at          timestamptz
);
CREATE UNIQUE INDEX plans_by_code ON plans (tenant_id, code) WHERE deleted_at IS NULL;

-- Append-only: the latest revision of (plan, feature) is the current one. A started period keeps the revision in force
-- when it began, and takes from later ones only what benefits the customer.
CREATE TABLE plan_feature_revisions (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan_id             integer NOT NULL REFERENCES plans (id),
    feature_id          integer NOT NULL REFERENCES features (id),
    effective_at        timestamptz NOT NULL,   -- the tenant's clock
    removed             boolean NOT NULL DEFAULT false,
    enabled             boolean NOT NULL,
    included_units      bigint NOT NULL CHECK (included_units >= 0),
    unlimited           boolean NOT NULL,
    overage_enabled     boolean NOT NULL,
    unit_price_nano     bigint NOT NULL CHECK (unit_price_nano >= 0),   -- metered overage, or the fixed price of a balance plan
    credits_per_unit    integer CHECK (credits_per_unit >= 0),
    pricing_mode        text NOT NULL CHECK (pricing_mode IN ('fixed', 'ai_model')),
    margin_bps          integer CHECK (margin_bps >= 0)
);
CREATE INDEX plan_feature_revisions_by_plan ON plan_feature_revisions (plan_id, feature_id, id);

CREATE TABLE plan_prices (
    id                  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan_id             integer NOT NULL REFERENCES plans (id),
    public_id           text NOT NULL UNIQUE,   -- price_…
    billing_interval    text NOT NULL CHECK (billing_interval IN ('weekly', 'monthly', 'quarterly', 'semiannual', 'yearly', 'one_time')),
    is_default          boolean NOT NULL,
    metadata            jsonb NOT NULL DEFAULT '{}',
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    archived_at         timestamptz
);
CREATE INDEX plan_prices_by_plan ON plan_prices (plan_id, id);

-- Append-only: a period's allowance comes from the revision in force when it began; a renewal charges the latest.
CREATE TABLE plan_price_revisions (
    id                      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    price_id                integer NOT NULL REFERENCES plan_prices (id),
    effective_at            timestamptz NOT NULL,
    price_cents             bigint NOT NULL CHECK (price_cents >= 0),
    trial_days              integer NOT NULL DEFAULT 0 CHECK (trial_days >= 0),
    included_balance_nano   bigint CHECK (included_balance_nano >= 0),
    included_credits        bigint CHECK (included_credits >= 0)
);
CREATE INDEX plan_price_revisions_by_price ON plan_price_revisions (price_id, id);

-- ── subscriptions, periods, invoices ──────────────────────────────────────────────────────────────────────────────────

CREATE TABLE subscriptions (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id       integer NOT NULL REFERENCES tenants (id),
    public_id       text NOT NULL UNIQUE,   -- sub_…
    customer_id     bigint NOT NULL REFERENCES customers (id),
    plan_id         integer NOT NULL REFERENCES plans (id),
    price_id        integer REFERENCES plan_prices (id),    -- NULL: a free plan without a price
    name            text NOT NULL,
    status          text NOT NULL CHECK (status IN ('trialing', 'active', 'canceled')),
    started_at      timestamptz NOT NULL,
    trial_ends_at   timestamptz,
    anchor_at       timestamptz NOT NULL,   -- where paid periods are counted from: the start, or the trial's end
    cancel_at       timestamptz,
    cancel_reason   text,
    canceled_at     timestamptz,            -- when the cancellation was asked for
    ended_at        timestamptz,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL
);
CREATE UNIQUE INDEX subscriptions_one_open ON subscriptions (customer_id) WHERE status <> 'canceled';
CREATE INDEX subscriptions_by_customer ON subscriptions (customer_id, id);
CREATE INDEX subscriptions_by_tenant ON subscriptions (tenant_id, id);

-- Usage periods. Exactly one row per subscription is not closed; later periods follow by rule.
CREATE TABLE billing_periods (
    subscription_id bigint NOT NULL REFERENCES subscriptions (id),
    tenant_id       integer NOT NULL REFERENCES tenants (id),
    starts_at       timestamptz NOT NULL,
    ends_at         timestamptz NOT NULL,
    state           text NOT NULL CHECK (state IN ('open', 'closing', 'closed')),
    feature_revision bigint NOT NULL,       -- the last of its plan's feature revisions that was there when it began
    price_revision  bigint,                 -- the price revision that grants its balance and credits; NULL: it has no price
    closing_seq     bigint,                 -- log sequence of the tick appended after the till knew of the closing
    deferred_at     timestamptz,            -- when it was last tried, and could not be billed; real time
    closed_at       timestamptz,
    expired_at      timestamptz,            -- when the till dropped the pools of the closed period; NULL: still to do
    PRIMARY KEY (subscription_id, starts_at),
    CHECK (starts_at < ends_at)
);
CREATE UNIQUE INDEX billing_periods_one_open ON billing_periods (subscription_id) WHERE state <> 'closed';
CREATE INDEX billing_periods_closing ON billing_periods (subscription_id) WHERE state = 'closing';
CREATE INDEX billing_periods_deadlines ON billing_periods (tenant_id, ends_at) WHERE state <> 'closed';
CREATE INDEX billing_periods_unexpired ON billing_periods (closed_at) WHERE state = 'closed' AND expired_at IS NULL;

CREATE TABLE invoice_counters (
    organization_id text NOT NULL REFERENCES organizations (id),
    livemode        boolean NOT NULL,
    next_number     bigint NOT NULL,
    PRIMARY KEY (organization_id, livemode)
);

CREATE TABLE invoices (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id       integer NOT NULL REFERENCES tenants (id),
    public_id       text NOT NULL UNIQUE,   -- inv_…
    number          bigint NOT NULL,
    customer_id     bigint NOT NULL REFERENCES customers (id),
    subscription_id bigint REFERENCES subscriptions (id),
    billed_at       timestamptz NOT NULL,   -- the period boundary it belongs to
    type            text NOT NULL,
    status          text NOT NULL CHECK (status IN ('draft', 'outstanding', 'paid', 'void', 'uncollectible')),
    currency        text NOT NULL DEFAULT 'usd',
    total_cents     bigint NOT NULL,
    period_start    timestamptz NOT NULL,
    period_end      timestamptz NOT NULL,
    issued_at       timestamptz NOT NULL,
    due_at          timestamptz NOT NULL,
    plan_name       text,
    metadata        jsonb NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    UNIQUE (tenant_id, number),
    UNIQUE (subscription_id, billed_at)
);
CREATE INDEX invoices_by_customer ON invoices (customer_id, id);
CREATE INDEX invoices_by_tenant ON invoices (tenant_id, id);
CREATE INDEX invoices_by_time ON invoices (tenant_id, billed_at);

CREATE TABLE invoice_lines (
    invoice_id      bigint NOT NULL REFERENCES invoices (id),
    position        smallint NOT NULL,
    line_type       text NOT NULL,
    feature_id      integer REFERENCES features (id),
    feature_name    text,
    description     text NOT NULL,
    pool            text,                   -- the pool it bills, if any
    quantity_nano   numeric(38, 0) NOT NULL,
    unit_price_nano bigint NOT NULL,
    amount_cents    bigint NOT NULL,
    exact_nano      numeric(38, 0) NOT NULL,    -- before rounding to cents: amount_cents * 1e7 + remainder
    included_nano   numeric(38, 0),
    used_nano       numeric(38, 0),
    overage_nano    numeric(38, 0),
    charge_type     text NOT NULL DEFAULT 'standard' CHECK (charge_type IN ('standard', 'advance', 'true_up')),
    PRIMARY KEY (invoice_id, position)
);

-- What was decided about a feature's overage when its period was billed; a pool that did not go below zero has no row.
CREATE TABLE overage_decisions (
    customer_id     bigint NOT NULL REFERENCES customers (id),
    pool            text NOT NULL,
    tenant_id       integer NOT NULL REFERENCES tenants (id),
    verdict         text NOT NULL CHECK (verdict IN ('billed', 'free_plan', 'trial', 'unlimited', 'overage_off')),
    overage_nano    numeric(38, 0) NOT NULL,    -- used beyond what was included
    PRIMARY KEY (customer_id, pool)
);

CREATE TABLE test_clock_runs (
    id              text PRIMARY KEY,       -- tcr_…
    tenant_id       integer NOT NULL REFERENCES tenants (id),
    status          text NOT NULL CHECK (status IN ('pending', 'running', 'completed', 'failed')),
    started_at_time timestamptz NOT NULL,
    target_time     timestamptz NOT NULL,
    estimated       integer NOT NULL,
    completed       integer NOT NULL DEFAULT 0,     -- deadlines processed so far
    failed          integer NOT NULL DEFAULT 0,
    items           jsonb NOT NULL DEFAULT '[]',    -- what became of the latest of them
    error           text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX test_clock_runs_by_tenant ON test_clock_runs (tenant_id, created_at);
CREATE UNIQUE INDEX test_clock_runs_one_at_a_time ON test_clock_runs (tenant_id) WHERE status IN ('pending', 'running');

-- ── what the rollup writes ────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE log_offsets (
    partition       smallint PRIMARY KEY,
    epoch           text,                   -- of the till that the sequence belongs to; NULL until one was made from the book
    last_seq        bigint NOT NULL DEFAULT 0,
    accepted_at     timestamptz,            -- of the last entry rolled up
    rolled_at       timestamptz
);

-- Raw events, partitioned by the month of accepted_at; the rollup makes the months it needs.
CREATE TABLE usage_events (
    tenant_id           integer NOT NULL,
    customer_id         bigint NOT NULL,
    feature_id          integer NOT NULL,
    digest              bytea NOT NULL,         -- 16 bytes of the identity (tenant, customer, event id)
    identity            bigint NOT NULL,        -- days since 2020 when it was accepted, then the first 6 bytes of the digest: what is
                                                -- looked up by digest; new events go to the end of its index, however many there are
    event_id            text,                   -- as the caller sent it
    kind                smallint NOT NULL,      -- core.usage_log.Kind
    occurred_at         timestamptz NOT NULL,   -- the event's own timestamp: the caller's word
    accepted_at         timestamptz NOT NULL,   -- when the till took it
    rolled_at           timestamptz NOT NULL,   -- when the book got it
    period_start        timestamptz NOT NULL,   -- the billing period that pays
    belongs_to          timestamptz,            -- a late event: the closed period it happened in
    pool                text NOT NULL,
    quantity_nano       bigint NOT NULL,
    amount              bigint NOT NULL,        -- taken from the pool, in the pool's own unit * 1e-9
    spare_amount        bigint NOT NULL DEFAULT 0,  -- the part of amount that purchased credits paid
    cost_nano           bigint NOT NULL DEFAULT 0,
    margin_bps          integer NOT NULL DEFAULT 0,
    price_id            bigint NOT NULL DEFAULT 0,  -- ai_model_prices.id; 0: no AI model
    model               text,
    matched_by          text,
    service_tier        text,
    input_tokens        bigint NOT NULL DEFAULT 0,
    output_tokens       bigint NOT NULL DEFAULT 0,
    cache_read_tokens   bigint NOT NULL DEFAULT 0,
    cache_write_tokens  bigint NOT NULL DEFAULT 0,
    cache_write_1h_tokens bigint NOT NULL DEFAULT 0,
    web_searches        integer NOT NULL DEFAULT 0,
    input_pico          bigint NOT NULL DEFAULT 0,
    output_pico         bigint NOT NULL DEFAULT 0,
    cache_read_pico     bigint NOT NULL DEFAULT 0,
    cache_write_pico    bigint NOT NULL DEFAULT 0,
    cache_write_1h_pico bigint NOT NULL DEFAULT 0,
    web_search_pico     bigint NOT NULL DEFAULT 0,  -- per call
    catalog_version     bigint NOT NULL DEFAULT 0,  -- of the price book that priced it; 0: no AI model
    properties          jsonb,
    reason              text,                   -- of a correction or a void, as the caller gave it
    voids               text,                   -- a void: seq-position of what it takes back, same partition
    fingerprint         bytea NOT NULL,         -- 8 bytes of the payload, 4 of the Idempotency-Key: tells a repeat from a conflict
    partition           smallint NOT NULL,
    seq                 bigint NOT NULL,
    position            integer NOT NULL,       -- within the log entry
    pool_left           bigint NOT NULL DEFAULT 0,  -- what the answer said was left after it, in the pool …
    spare_left          bigint NOT NULL DEFAULT 0   -- … and in the spare pool: a repeat is told the same
) PARTITION BY RANGE (accepted_at);
CREATE INDEX usage_events_by_customer ON usage_events (customer_id, occurred_at);
CREATE INDEX usage_events_by_identity ON usage_events (identity);
CREATE INDEX usage_events_voids ON usage_events (customer_id, voids) WHERE voids IS NOT NULL;
CREATE INDEX usage_events_late ON usage_events (customer_id, period_start) WHERE belongs_to IS NOT NULL;
CREATE INDEX usage_events_by_time ON usage_events USING brin (occurred_at);  -- for reports over all customers; next to free to keep

-- How far the search for identities that were counted twice has come: when the last finished one began.
CREATE TABLE usage_sweeps (
    singleton           boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    swept_until         timestamptz NOT NULL
);

CREATE TABLE usage_hourly (
    tenant_id           integer NOT NULL,
    customer_id         bigint NOT NULL,
    feature_id          integer NOT NULL,
    hour                timestamptz NOT NULL,   -- of occurred_at
    period_start        timestamptz NOT NULL,   -- the billing period that pays
    price_id            bigint NOT NULL,
    events              bigint NOT NULL,
    quantity_nano       numeric(38, 0) NOT NULL,
    amount              numeric(38, 0) NOT NULL,
    cost_nano           numeric(38, 0) NOT NULL,
    input_tokens        numeric(38, 0) NOT NULL,
    output_tokens       numeric(38, 0) NOT NULL,
    cache_read_tokens   numeric(38, 0) NOT NULL,
    cache_write_tokens  numeric(38, 0) NOT NULL,
    PRIMARY KEY (tenant_id, customer_id, feature_id, hour, period_start, price_id)
) WITH (fillfactor = 60);    -- a row is changed many times in its hour: with room beside it, no index has to learn of that
CREATE INDEX usage_hourly_by_customer ON usage_hourly (customer_id, hour);
CREATE INDEX usage_hourly_by_time ON usage_hourly USING brin (hour);

-- One row a pool: what the till held after last_seq.
CREATE TABLE pool_balances (
    customer_id     bigint NOT NULL,
    pool            text NOT NULL,          -- core.pools
    tenant_id       integer NOT NULL,
    opening         numeric(38, 0) NOT NULL,    -- what the terms granted when it was (re)opened
    charged         numeric(38, 0) NOT NULL,
    adjusted        numeric(38, 0) NOT NULL,    -- grants, top-ups, corrections; signed
    expired         numeric(38, 0) NOT NULL,    -- taken away when the period was closed
    balance         numeric(38, 0) GENERATED ALWAYS AS (opening + adjusted - charged - expired) STORED,
    closed          boolean NOT NULL DEFAULT false,
    PRIMARY KEY (customer_id, pool)
) WITH (fillfactor = 60);

CREATE TABLE pool_ledger (
    customer_id     bigint NOT NULL,
    pool            text NOT NULL,
    hour            timestamptz NOT NULL,   -- of accepted_at
    kind            text NOT NULL CHECK (kind IN ('opening', 'charge', 'void', 'adjustment', 'expiry')),
    tenant_id       integer NOT NULL,
    amount          numeric(38, 0) NOT NULL,    -- signed change of the pool
    entries         bigint NOT NULL,
    PRIMARY KEY (customer_id, pool, hour, kind)
) WITH (fillfactor = 60);

-- A log entry or record that cannot be applied: kept whole, and counted in every sum.
CREATE TABLE quarantine (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partition       smallint NOT NULL,
    seq             bigint NOT NULL,
    position        integer,                -- NULL: the whole entry
    reason          text NOT NULL,
    payload         bytea NOT NULL,
    accepted_at     timestamptz,            -- when the till took it; NULL where the entry does not say
    booked          boolean NOT NULL,       -- whether the pools have its effect already, and only the event is missing
    created_at      timestamptz NOT NULL DEFAULT now(),
    dropped_at      timestamptz,            -- an operator gave it up; the row stays, and its booked effect stays in the sums
    dropped_because text,
    CHECK ((dropped_at IS NULL) = (dropped_because IS NULL))
);

-- Customers whose pools did not reconcile: the till takes no charge of them, and neither does one made again from the book.
CREATE TABLE frozen_customers (
    customer_id     bigint PRIMARY KEY,
    tenant_id       integer NOT NULL,
    reason          text NOT NULL,          -- names the pool
    frozen_at       timestamptz NOT NULL DEFAULT now()
);
