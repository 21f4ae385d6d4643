-- What is told to the outside: endpoints and their deliveries, thresholds and what was announced of them.

-- Where webhooks go. The secret signs, so it can be read; it is sealed where the installation has a key for that.
CREATE TABLE webhook_endpoints (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id       integer NOT NULL REFERENCES tenants (id),
    public_id       text NOT NULL UNIQUE,   -- whe_…
    url             text NOT NULL,
    events          text[] NOT NULL,        -- topics of the outbox
    description     text,
    api_version     text,                   -- what deliveries say they are shaped by; NULL: the newest
    secret          bytea NOT NULL,         -- whsec_…, plain or sealed
    secret_sealed   boolean NOT NULL,
    is_active       boolean NOT NULL DEFAULT true,
    disabled_reason text,                   -- why it was switched off, if nobody asked for that
    failures        smallint NOT NULL DEFAULT 0,    -- events in a row that could not be delivered
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL
);
CREATE INDEX webhook_endpoints_by_tenant ON webhook_endpoints (tenant_id, id);

-- One event to one endpoint. `body` is kept as it was signed and sent, so that every attempt sends the same bytes.
CREATE TABLE webhook_deliveries (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id       integer NOT NULL REFERENCES tenants (id),
    public_id       text NOT NULL UNIQUE,   -- whd_…
    endpoint_id     bigint NOT NULL REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    outbox_id       bigint,                 -- NULL: a test
    event_id        text NOT NULL,          -- whev_…, the same for all endpoints and attempts
    topic           text NOT NULL,
    emitted_at      timestamptz NOT NULL,
    body            text NOT NULL,
    state           text NOT NULL CHECK (state IN ('pending', 'delivered', 'failed')),
    attempts        smallint NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,            -- NULL: there will be none
    attempted_at    timestamptz,
    response_status smallint,               -- of the last attempt; NULL: no answer came
    error           text,                   -- of the last attempt, by code
    created_at      timestamptz NOT NULL,
    finished_at     timestamptz,
    UNIQUE (endpoint_id, outbox_id),
    CHECK ((state = 'pending') = (finished_at IS NULL)),
    CHECK ((state = 'pending') = (next_attempt_at IS NOT NULL))
);
CREATE INDEX webhook_deliveries_waiting ON webhook_deliveries (endpoint_id, id) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_by_endpoint ON webhook_deliveries (endpoint_id, id);
CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (finished_at);

-- Thresholds that a tenant sets for one of its customers or for all. Amounts are 1e-9 of the unit; a percent is 1e-9 of a percent.
CREATE TABLE alerts (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id       integer NOT NULL REFERENCES tenants (id),
    public_id       text NOT NULL UNIQUE,   -- alt_…
    name            text NOT NULL,
    metric          text NOT NULL CHECK (metric IN ('balance', 'spend', 'usage')),
    unit            text NOT NULL CHECK (unit IN ('amount', 'credits', 'units', 'percent')),
    threshold_nano  bigint NOT NULL CHECK (threshold_nano >= 0),
    customer_id     bigint REFERENCES customers (id) ON DELETE CASCADE, -- NULL: every customer
    feature_id      integer REFERENCES features (id),                   -- of usage
    is_active       boolean NOT NULL DEFAULT true,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    CHECK ((metric = 'usage') = (feature_id IS NOT NULL))
);
CREATE INDEX alerts_by_tenant ON alerts (tenant_id, id);

-- That an alert was announced for a customer and scope (a pool, or what it measures and the period's start), and is not armed again.
CREATE TABLE alert_crossings (
    alert_id        bigint NOT NULL REFERENCES alerts (id) ON DELETE CASCADE,
    customer_id     bigint NOT NULL,
    scope           text NOT NULL,
    tenant_id       integer NOT NULL REFERENCES tenants (id),
    crossed_at      timestamptz NOT NULL,
    PRIMARY KEY (alert_id, customer_id, scope)
);
CREATE INDEX alert_crossings_by_age ON alert_crossings (crossed_at);

-- What is remembered of a pool for the standard topics; a pool that was neither refilled nor low has no row.
CREATE TABLE pool_watches (
    customer_id     bigint NOT NULL,
    pool            text NOT NULL,
    tenant_id       integer NOT NULL REFERENCES tenants (id),
    adjusted        numeric(38, 0) NOT NULL,    -- the pool's corrections when last looked at: more of them is a refill
    refilled_to     numeric(38, 0),             -- what there was after the last refill; NULL: what it was opened with
    told_low        boolean NOT NULL,           -- announced, and not armed again
    told_depleted   boolean NOT NULL,
    PRIMARY KEY (customer_id, pool)
);

-- A customer has a handful of open pools and, with the years, very many closed ones; alerts look at the open ones with each pass of the rollup.
CREATE INDEX pool_balances_open ON pool_balances (customer_id) WHERE NOT closed;
