-- What stays of raw events when their month is dropped: sums, so that hourly totals, pools and ledger can be compared with them for ever.

CREATE TABLE dropped_months (
    month           date PRIMARY KEY,       -- of accepted_at, its first day, UTC
    events          bigint NOT NULL,        -- records of the log that it held
    dropped_at      timestamptz NOT NULL
);

-- Since when all of a tenant's raw usage is there, by when it occurred; a tenant that lost none has no row.
CREATE TABLE raw_usage_starts (
    tenant_id       integer PRIMARY KEY,
    starts_at       timestamptz NOT NULL
);

-- What dropped events said of hourly totals.
CREATE TABLE dropped_hourly (
    tenant_id           integer NOT NULL,
    customer_id         bigint NOT NULL,
    feature_id          integer NOT NULL,
    hour                timestamptz NOT NULL,   -- of occurred_at
    period_start        timestamptz NOT NULL,
    price_id            bigint NOT NULL,
    events              numeric(38, 0) NOT NULL,
    quantity_nano       numeric(38, 0) NOT NULL,
    amount              numeric(38, 0) NOT NULL,
    cost_nano           numeric(38, 0) NOT NULL,
    input_tokens        numeric(38, 0) NOT NULL,
    output_tokens       numeric(38, 0) NOT NULL,
    cache_read_tokens   numeric(38, 0) NOT NULL,
    cache_write_tokens  numeric(38, 0) NOT NULL,
    PRIMARY KEY (customer_id, feature_id, hour, period_start, price_id, tenant_id)
);

-- What dropped events did to pools.
CREATE TABLE dropped_moves (
    customer_id     bigint NOT NULL,
    pool            text NOT NULL,
    hour            timestamptz NOT NULL,   -- of accepted_at
    kind            text NOT NULL,          -- as in pool_ledger
    change          numeric(38, 0) NOT NULL,
    entries         numeric(38, 0) NOT NULL,
    PRIMARY KEY (customer_id, pool, hour, kind)
);
