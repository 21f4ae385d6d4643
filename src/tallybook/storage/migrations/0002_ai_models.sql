-- The AI model catalog. Prices are jsonb in the form of model_catalog/ (ai_models.price_codec): exact decimal text, USD per million
-- tokens, USD per 1,000 web searches.

-- One sequence for all price rows: usage_events.price_id is an id of ai_model_prices or of ai_price_overrides.
CREATE SEQUENCE ai_price_ids AS bigint;

CREATE TABLE ai_models (
    id              text PRIMARY KEY,       -- anthropic/claude-sonnet-4.6
    number          bigint GENERATED ALWAYS AS IDENTITY UNIQUE,     -- order of arrival; cursors of lists
    provider        text NOT NULL,
    name            text NOT NULL,
    type            text NOT NULL,          -- language, embedding …; new words appear, so no enum
    context_window  bigint CHECK (context_window > 0),
    output_max      bigint CHECK (output_max > 0),
    other_units     text[] NOT NULL DEFAULT '{}',   -- listed prices that token pricing leaves out
    deprecated_at   timestamptz,
    added_at        timestamptz NOT NULL,
    removed_at      timestamptz             -- a tombstone: gone from the list, still prices late events
);

-- Effective-dated. A row is written once and holds for ever: history never moves.
CREATE TABLE ai_model_prices (
    id              bigint PRIMARY KEY DEFAULT nextval('ai_price_ids'),
    model_id        text NOT NULL REFERENCES ai_models (id),
    effective_from  timestamptz NOT NULL,
    price           jsonb NOT NULL,
    UNIQUE (model_id, effective_from)
);

CREATE FUNCTION ai_model_prices_are_never_edited() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a price row is never edited or deleted; publish a new one with a later effective_from';
END
$$;
CREATE TRIGGER ai_model_prices_are_never_edited BEFORE UPDATE OR DELETE ON ai_model_prices
    FOR EACH ROW EXECUTE FUNCTION ai_model_prices_are_never_edited();

-- A tenant's own words for models.
CREATE TABLE ai_model_aliases (
    id              bigint GENERATED ALWAYS AS IDENTITY UNIQUE,     -- cursors of lists
    tenant_id       integer NOT NULL REFERENCES tenants (id),
    alias           text NOT NULL,
    model_id        text NOT NULL,          -- of the catalog, or of an own model
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, alias)
);

-- A tenant's own prices, and own models: an exact id that the catalog does not know. Only effective_to is ever changed, once.
CREATE TABLE ai_price_overrides (
    id              bigint PRIMARY KEY DEFAULT nextval('ai_price_ids'),
    tenant_id       integer NOT NULL REFERENCES tenants (id),
    pattern         text NOT NULL,          -- a model id, or a glob with *
    price           jsonb NOT NULL,
    effective_from  timestamptz NOT NULL,
    effective_to    timestamptz,
    reaches_back    boolean NOT NULL,       -- set without a date: a model's first price then also prices what happened before
    created_at      timestamptz NOT NULL,   -- real time; the dates above are by the tenant's clock
    CHECK (effective_to >= effective_from)
);
CREATE INDEX ai_price_overrides_by_tenant ON ai_price_overrides (tenant_id, id);

-- Every sync that ended, the failed ones too.
CREATE TABLE ai_model_syncs (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source          text NOT NULL,          -- an address, a file name, or 'packaged'
    status          text NOT NULL CHECK (status IN ('published', 'unchanged', 'refused', 'failed')),
    started_at      timestamptz NOT NULL,
    digest          text,                   -- sha256 of the list
    etag            text,
    models          integer NOT NULL DEFAULT 0,
    priced          integer NOT NULL DEFAULT 0,
    changes         jsonb NOT NULL DEFAULT '{}',    -- how many of each kind
    quarantined     jsonb NOT NULL DEFAULT '[]',    -- [{model, reason}]
    repaired        jsonb NOT NULL DEFAULT '[]',    -- [{model, reason}]
    error           text
);

CREATE TABLE ai_model_changes (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync_id         bigint NOT NULL REFERENCES ai_model_syncs (id),
    model_id        text NOT NULL REFERENCES ai_models (id),
    kind            text NOT NULL CHECK (kind IN ('added', 'removed', 'returned', 'priced', 'repriced', 'described')),
    changed_at      timestamptz NOT NULL,
    before          jsonb,                  -- the price before and after, where there was one
    after           jsonb
);
CREATE INDEX ai_model_changes_by_time ON ai_model_changes (changed_at, id);

-- Raised by every change that a price book can show; processes look at it every few seconds.
CREATE TABLE ai_catalog_version (
    singleton       boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    version         bigint NOT NULL,
    changed_at      timestamptz NOT NULL
);
INSERT INTO ai_catalog_version (version, changed_at) VALUES (0, 'epoch');
