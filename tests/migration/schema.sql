-- What the migrations make of an empty database. Written by `make schema`; do not edit.

CREATE FUNCTION public.ai_model_prices_are_never_edited() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    RAISE EXCEPTION 'a price row is never edited or deleted; publish a new one with a later effective_from';
END
$$;

CREATE TABLE public.ai_catalog_version (
    singleton boolean DEFAULT true NOT NULL,
    version bigint NOT NULL,
    changed_at timestamp with time zone NOT NULL,
    CONSTRAINT ai_catalog_version_singleton_check CHECK (singleton)
);

CREATE TABLE public.ai_model_aliases (
    id bigint NOT NULL,
    tenant_id integer NOT NULL,
    alias text NOT NULL,
    model_id text NOT NULL,
    created_at timestamp with time zone NOT NULL
);

ALTER TABLE public.ai_model_aliases ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.ai_model_aliases_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.ai_model_changes (
    id bigint NOT NULL,
    sync_id bigint NOT NULL,
    model_id text NOT NULL,
    kind text NOT NULL,
    changed_at timestamp with time zone NOT NULL,
    before jsonb,
    after jsonb,
    CONSTRAINT ai_model_changes_kind_check CHECK ((kind = ANY (ARRAY['added'::text, 'removed'::text, 'returned'::text, 'priced'::text, 'repriced'::text, 'described'::text])))
);

ALTER TABLE public.ai_model_changes ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.ai_model_changes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE SEQUENCE public.ai_price_ids
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE public.ai_model_prices (
    id bigint DEFAULT nextval('public.ai_price_ids'::regclass) NOT NULL,
    model_id text NOT NULL,
    effective_from timestamp with time zone NOT NULL,
    price jsonb NOT NULL
);

CREATE TABLE public.ai_model_syncs (
    id bigint NOT NULL,
    source text NOT NULL,
    status text NOT NULL,
    started_at timestamp with time zone NOT NULL,
    digest text,
    etag text,
    models integer DEFAULT 0 NOT NULL,
    priced integer DEFAULT 0 NOT NULL,
    changes jsonb DEFAULT '{}'::jsonb NOT NULL,
    quarantined jsonb DEFAULT '[]'::jsonb NOT NULL,
    repaired jsonb DEFAULT '[]'::jsonb NOT NULL,
    error text,
    CONSTRAINT ai_model_syncs_status_check CHECK ((status = ANY (ARRAY['published'::text, 'unchanged'::text, 'refused'::text, 'failed'::text])))
);

ALTER TABLE public.ai_model_syncs ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.ai_model_syncs_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.ai_models (
    id text NOT NULL,
    number bigint NOT NULL,
    provider text NOT NULL,
    name text NOT NULL,
    type text NOT NULL,
    context_window bigint,
    output_max bigint,
    other_units text[] DEFAULT '{}'::text[] NOT NULL,
    deprecated_at timestamp with time zone,
    added_at timestamp with time zone NOT NULL,
    removed_at timestamp with time zone,
    CONSTRAINT ai_models_context_window_check CHECK ((context_window > 0)),
    CONSTRAINT ai_models_output_max_check CHECK ((output_max > 0))
);

ALTER TABLE public.ai_models ALTER COLUMN number ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.ai_models_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.ai_price_overrides (
    id bigint DEFAULT nextval('public.ai_price_ids'::regclass) NOT NULL,
    tenant_id integer NOT NULL,
    pattern text NOT NULL,
    price jsonb NOT NULL,
    effective_from timestamp with time zone NOT NULL,
    effective_to timestamp with time zone,
    reaches_back boolean NOT NULL,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT ai_price_overrides_check CHECK ((effective_to >= effective_from))
);

CREATE TABLE public.alert_crossings (
    alert_id bigint NOT NULL,
    customer_id bigint NOT NULL,
    scope text NOT NULL,
    tenant_id integer NOT NULL,
    crossed_at timestamp with time zone NOT NULL
);

CREATE TABLE public.alerts (
    id bigint NOT NULL,
    tenant_id integer NOT NULL,
    public_id text NOT NULL,
    name text NOT NULL,
    metric text NOT NULL,
    unit text NOT NULL,
    threshold_nano bigint NOT NULL,
    customer_id bigint,
    feature_id integer,
    is_active boolean DEFAULT true NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT alerts_check CHECK (((metric = 'usage'::text) = (feature_id IS NOT NULL))),
    CONSTRAINT alerts_metric_check CHECK ((metric = ANY (ARRAY['balance'::text, 'spend'::text, 'usage'::text]))),
    CONSTRAINT alerts_threshold_nano_check CHECK ((threshold_nano >= 0)),
    CONSTRAINT alerts_unit_check CHECK ((unit = ANY (ARRAY['amount'::text, 'credits'::text, 'units'::text, 'percent'::text])))
);

ALTER TABLE public.alerts ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.alerts_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.api_keys (
    id text NOT NULL,
    tenant_id integer NOT NULL,
    name text NOT NULL,
    public_part text NOT NULL,
    secret_sha256 bytea NOT NULL,
    permissions jsonb,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    last_used_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT api_keys_secret_sha256_check CHECK ((length(secret_sha256) = 32))
);

CREATE TABLE public.billing_periods (
    subscription_id bigint NOT NULL,
    tenant_id integer NOT NULL,
    starts_at timestamp with time zone NOT NULL,
    ends_at timestamp with time zone NOT NULL,
    state text NOT NULL,
    feature_revision bigint NOT NULL,
    price_revision bigint,
    closing_seq bigint,
    deferred_at timestamp with time zone,
    closed_at timestamp with time zone,
    expired_at timestamp with time zone,
    CONSTRAINT billing_periods_check CHECK ((starts_at < ends_at)),
    CONSTRAINT billing_periods_state_check CHECK ((state = ANY (ARRAY['open'::text, 'closing'::text, 'closed'::text])))
);

CREATE TABLE public.customer_terms (
    customer_id bigint NOT NULL,
    tenant_id integer NOT NULL,
    version bigint NOT NULL
);

CREATE TABLE public.customers (
    id bigint NOT NULL,
    tenant_id integer NOT NULL,
    public_id text NOT NULL,
    external_id text,
    email text NOT NULL,
    full_name text,
    tax_document text,
    timezone text,
    metadata jsonb,
    address jsonb,
    ai_margin_bps integer,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT customers_ai_margin_bps_check CHECK (((ai_margin_bps >= 0) AND (ai_margin_bps <= 10000000)))
);

ALTER TABLE public.customers ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.customers_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.dropped_hourly (
    tenant_id integer NOT NULL,
    customer_id bigint NOT NULL,
    feature_id integer NOT NULL,
    hour timestamp with time zone NOT NULL,
    period_start timestamp with time zone NOT NULL,
    price_id bigint NOT NULL,
    events numeric(38,0) NOT NULL,
    quantity_nano numeric(38,0) NOT NULL,
    amount numeric(38,0) NOT NULL,
    cost_nano numeric(38,0) NOT NULL,
    input_tokens numeric(38,0) NOT NULL,
    output_tokens numeric(38,0) NOT NULL,
    cache_read_tokens numeric(38,0) NOT NULL,
    cache_write_tokens numeric(38,0) NOT NULL
);

CREATE TABLE public.dropped_months (
    month date NOT NULL,
    events bigint NOT NULL,
    dropped_at timestamp with time zone NOT NULL
);

CREATE TABLE public.dropped_moves (
    customer_id bigint NOT NULL,
    pool text NOT NULL,
    hour timestamp with time zone NOT NULL,
    kind text NOT NULL,
    change numeric(38,0) NOT NULL,
    entries numeric(38,0) NOT NULL
);

CREATE TABLE public.features (
    id integer NOT NULL,
    tenant_id integer NOT NULL,
    public_id text NOT NULL,
    code text NOT NULL,
    name text NOT NULL,
    type text NOT NULL,
    description text,
    unit_name text,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    deleted_at timestamp with time zone,
    CONSTRAINT features_code_check CHECK ((code ~ '^[a-z0-9_]+$'::text)),
    CONSTRAINT features_type_check CHECK ((type = ANY (ARRAY['boolean'::text, 'usage'::text, 'seats'::text, 'quota'::text])))
);

ALTER TABLE public.features ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.features_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.frozen_customers (
    customer_id bigint NOT NULL,
    tenant_id integer NOT NULL,
    reason text NOT NULL,
    frozen_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.idempotency_keys (
    tenant_id integer NOT NULL,
    key_digest bytea NOT NULL,
    fingerprint bytea NOT NULL,
    status smallint NOT NULL,
    response bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.installation (
    singleton boolean DEFAULT true NOT NULL,
    epoch text NOT NULL,
    former_epoch text,
    partitions smallint NOT NULL,
    till_made_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT installation_partitions_check CHECK (((partitions >= 1) AND (partitions <= 1024))),
    CONSTRAINT installation_singleton_check CHECK (singleton)
);

CREATE TABLE public.invoice_counters (
    organization_id text NOT NULL,
    livemode boolean NOT NULL,
    next_number bigint NOT NULL
);

CREATE TABLE public.invoice_lines (
    invoice_id bigint NOT NULL,
    "position" smallint NOT NULL,
    line_type text NOT NULL,
    feature_id integer,
    feature_name text,
    description text NOT NULL,
    pool text,
    quantity_nano numeric(38,0) NOT NULL,
    unit_price_nano bigint NOT NULL,
    amount_cents bigint NOT NULL,
    exact_nano numeric(38,0) NOT NULL,
    included_nano numeric(38,0),
    used_nano numeric(38,0),
    overage_nano numeric(38,0),
    charge_type text DEFAULT 'standard'::text NOT NULL,
    CONSTRAINT invoice_lines_charge_type_check CHECK ((charge_type = ANY (ARRAY['standard'::text, 'advance'::text, 'true_up'::text])))
);

CREATE TABLE public.invoices (
    id bigint NOT NULL,
    tenant_id integer NOT NULL,
    public_id text NOT NULL,
    number bigint NOT NULL,
    customer_id bigint NOT NULL,
    subscription_id bigint,
    billed_at timestamp with time zone NOT NULL,
    type text NOT NULL,
    status text NOT NULL,
    currency text DEFAULT 'usd'::text NOT NULL,
    total_cents bigint NOT NULL,
    period_start timestamp with time zone NOT NULL,
    period_end timestamp with time zone NOT NULL,
    issued_at timestamp with time zone NOT NULL,
    due_at timestamp with time zone NOT NULL,
    plan_name text,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT invoices_status_check CHECK ((status = ANY (ARRAY['draft'::text, 'outstanding'::text, 'paid'::text, 'void'::text, 'uncollectible'::text])))
);

ALTER TABLE public.invoices ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.invoices_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.log_offsets (
    partition smallint NOT NULL,
    epoch text,
    last_seq bigint DEFAULT 0 NOT NULL,
    accepted_at timestamp with time zone,
    rolled_at timestamp with time zone
);

CREATE TABLE public.organizations (
    id text NOT NULL,
    name text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.outbox (
    id bigint NOT NULL,
    tenant_id integer NOT NULL,
    topic text NOT NULL,
    payload jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    delivered_at timestamp with time zone
);

ALTER TABLE public.outbox ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.outbox_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.overage_decisions (
    customer_id bigint NOT NULL,
    pool text NOT NULL,
    tenant_id integer NOT NULL,
    verdict text NOT NULL,
    overage_nano numeric(38,0) NOT NULL,
    CONSTRAINT overage_decisions_verdict_check CHECK ((verdict = ANY (ARRAY['billed'::text, 'free_plan'::text, 'trial'::text, 'unlimited'::text, 'overage_off'::text])))
);

CREATE TABLE public.plan_feature_revisions (
    id bigint NOT NULL,
    plan_id integer NOT NULL,
    feature_id integer NOT NULL,
    effective_at timestamp with time zone NOT NULL,
    removed boolean DEFAULT false NOT NULL,
    enabled boolean NOT NULL,
    included_units bigint NOT NULL,
    unlimited boolean NOT NULL,
    overage_enabled boolean NOT NULL,
    unit_price_nano bigint NOT NULL,
    credits_per_unit integer,
    pricing_mode text NOT NULL,
    margin_bps integer,
    CONSTRAINT plan_feature_revisions_credits_per_unit_check CHECK ((credits_per_unit >= 0)),
    CONSTRAINT plan_feature_revisions_included_units_check CHECK ((included_units >= 0)),
    CONSTRAINT plan_feature_revisions_margin_bps_check CHECK ((margin_bps >= 0)),
    CONSTRAINT plan_feature_revisions_pricing_mode_check CHECK ((pricing_mode = ANY (ARRAY['fixed'::text, 'ai_model'::text]))),
    CONSTRAINT plan_feature_revisions_unit_price_nano_check CHECK ((unit_price_nano >= 0))
);

ALTER TABLE public.plan_feature_revisions ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.plan_feature_revisions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.plan_price_revisions (
    id bigint NOT NULL,
    price_id integer NOT NULL,
    effective_at timestamp with time zone NOT NULL,
    price_cents bigint NOT NULL,
    trial_days integer DEFAULT 0 NOT NULL,
    included_balance_nano bigint,
    included_credits bigint,
    CONSTRAINT plan_price_revisions_included_balance_nano_check CHECK ((included_balance_nano >= 0)),
    CONSTRAINT plan_price_revisions_included_credits_check CHECK ((included_credits >= 0)),
    CONSTRAINT plan_price_revisions_price_cents_check CHECK ((price_cents >= 0)),
    CONSTRAINT plan_price_revisions_trial_days_check CHECK ((trial_days >= 0))
);

ALTER TABLE public.plan_price_revisions ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.plan_price_revisions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.plan_prices (
    id integer NOT NULL,
    plan_id integer NOT NULL,
    public_id text NOT NULL,
    billing_interval text NOT NULL,
    is_default boolean NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    archived_at timestamp with time zone,
    CONSTRAINT plan_prices_billing_interval_check CHECK ((billing_interval = ANY (ARRAY['weekly'::text, 'monthly'::text, 'quarterly'::text, 'semiannual'::text, 'yearly'::text, 'one_time'::text])))
);

ALTER TABLE public.plan_prices ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.plan_prices_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.plans (
    id integer NOT NULL,
    tenant_id integer NOT NULL,
    public_id text NOT NULL,
    code text NOT NULL,
    name text NOT NULL,
    description text,
    consumption_model text,
    is_public boolean DEFAULT true NOT NULL,
    is_free boolean DEFAULT false NOT NULL,
    block_on_exhaustion boolean,
    sort_order integer DEFAULT 0 NOT NULL,
    metadata jsonb,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    deleted_at timestamp with time zone,
    CONSTRAINT plans_consumption_model_check CHECK ((consumption_model = ANY (ARRAY['metered'::text, 'credits'::text, 'balance'::text])))
);

ALTER TABLE public.plans ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.plans_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.pool_balances (
    customer_id bigint NOT NULL,
    pool text NOT NULL,
    tenant_id integer NOT NULL,
    opening numeric(38,0) NOT NULL,
    charged numeric(38,0) NOT NULL,
    adjusted numeric(38,0) NOT NULL,
    expired numeric(38,0) NOT NULL,
    balance numeric(38,0) GENERATED ALWAYS AS ((((opening + adjusted) - charged) - expired)) STORED,
    closed boolean DEFAULT false NOT NULL
)
WITH (fillfactor='60');

CREATE TABLE public.pool_ledger (
    customer_id bigint NOT NULL,
    pool text NOT NULL,
    hour timestamp with time zone NOT NULL,
    kind text NOT NULL,
    tenant_id integer NOT NULL,
    amount numeric(38,0) NOT NULL,
    entries bigint NOT NULL,
    CONSTRAINT pool_ledger_kind_check CHECK ((kind = ANY (ARRAY['opening'::text, 'charge'::text, 'void'::text, 'adjustment'::text, 'expiry'::text])))
)
WITH (fillfactor='60');

CREATE TABLE public.pool_watches (
    customer_id bigint NOT NULL,
    pool text NOT NULL,
    tenant_id integer NOT NULL,
    adjusted numeric(38,0) NOT NULL,
    refilled_to numeric(38,0),
    told_low boolean NOT NULL,
    told_depleted boolean NOT NULL
);

CREATE TABLE public.quarantine (
    id bigint NOT NULL,
    partition smallint NOT NULL,
    seq bigint NOT NULL,
    "position" integer,
    reason text NOT NULL,
    payload bytea NOT NULL,
    accepted_at timestamp with time zone,
    booked boolean NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    dropped_at timestamp with time zone,
    dropped_because text,
    CONSTRAINT quarantine_check CHECK (((dropped_at IS NULL) = (dropped_because IS NULL)))
);

ALTER TABLE public.quarantine ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.quarantine_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.raw_usage_starts (
    tenant_id integer NOT NULL,
    starts_at timestamp with time zone NOT NULL
);

CREATE TABLE public.schema_migrations (
    name text NOT NULL,
    sha256 bytea NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT schema_migrations_sha256_check CHECK ((length(sha256) = 32))
);

CREATE TABLE public.subscriptions (
    id bigint NOT NULL,
    tenant_id integer NOT NULL,
    public_id text NOT NULL,
    customer_id bigint NOT NULL,
    plan_id integer NOT NULL,
    price_id integer,
    name text NOT NULL,
    status text NOT NULL,
    started_at timestamp with time zone NOT NULL,
    trial_ends_at timestamp with time zone,
    anchor_at timestamp with time zone NOT NULL,
    cancel_at timestamp with time zone,
    cancel_reason text,
    canceled_at timestamp with time zone,
    ended_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT subscriptions_status_check CHECK ((status = ANY (ARRAY['trialing'::text, 'active'::text, 'canceled'::text])))
);

ALTER TABLE public.subscriptions ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.subscriptions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.tenants (
    id integer NOT NULL,
    organization_id text NOT NULL,
    livemode boolean NOT NULL,
    terms_version bigint DEFAULT 1 NOT NULL,
    simulated_at timestamp with time zone,
    CONSTRAINT tenants_check CHECK ((NOT (livemode AND (simulated_at IS NOT NULL))))
);

ALTER TABLE public.tenants ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.tenants_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.terms_bumps (
    id bigint NOT NULL,
    tenant_id integer NOT NULL,
    customer_id bigint,
    version bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    delivered_at timestamp with time zone
);

ALTER TABLE public.terms_bumps ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.terms_bumps_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.test_clock_runs (
    id text NOT NULL,
    tenant_id integer NOT NULL,
    status text NOT NULL,
    started_at_time timestamp with time zone NOT NULL,
    target_time timestamp with time zone NOT NULL,
    estimated integer NOT NULL,
    completed integer DEFAULT 0 NOT NULL,
    failed integer DEFAULT 0 NOT NULL,
    items jsonb DEFAULT '[]'::jsonb NOT NULL,
    error text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT test_clock_runs_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'running'::text, 'completed'::text, 'failed'::text])))
);

CREATE TABLE public.usage_events (
    tenant_id integer NOT NULL,
    customer_id bigint NOT NULL,
    feature_id integer NOT NULL,
    digest bytea NOT NULL,
    identity bigint NOT NULL,
    event_id text,
    kind smallint NOT NULL,
    occurred_at timestamp with time zone NOT NULL,
    accepted_at timestamp with time zone NOT NULL,
    rolled_at timestamp with time zone NOT NULL,
    period_start timestamp with time zone NOT NULL,
    belongs_to timestamp with time zone,
    pool text NOT NULL,
    quantity_nano bigint NOT NULL,
    amount bigint NOT NULL,
    spare_amount bigint DEFAULT 0 NOT NULL,
    cost_nano bigint DEFAULT 0 NOT NULL,
    margin_bps integer DEFAULT 0 NOT NULL,
    price_id bigint DEFAULT 0 NOT NULL,
    model text,
    matched_by text,
    service_tier text,
    input_tokens bigint DEFAULT 0 NOT NULL,
    output_tokens bigint DEFAULT 0 NOT NULL,
    cache_read_tokens bigint DEFAULT 0 NOT NULL,
    cache_write_tokens bigint DEFAULT 0 NOT NULL,
    cache_write_1h_tokens bigint DEFAULT 0 NOT NULL,
    web_searches integer DEFAULT 0 NOT NULL,
    input_pico bigint DEFAULT 0 NOT NULL,
    output_pico bigint DEFAULT 0 NOT NULL,
    cache_read_pico bigint DEFAULT 0 NOT NULL,
    cache_write_pico bigint DEFAULT 0 NOT NULL,
    cache_write_1h_pico bigint DEFAULT 0 NOT NULL,
    web_search_pico bigint DEFAULT 0 NOT NULL,
    catalog_version bigint DEFAULT 0 NOT NULL,
    properties jsonb,
    reason text,
    voids text,
    fingerprint bytea NOT NULL,
    partition smallint NOT NULL,
    seq bigint NOT NULL,
    "position" integer NOT NULL,
    pool_left bigint DEFAULT 0 NOT NULL,
    spare_left bigint DEFAULT 0 NOT NULL
)
PARTITION BY RANGE (accepted_at);

CREATE TABLE public.usage_hourly (
    tenant_id integer NOT NULL,
    customer_id bigint NOT NULL,
    feature_id integer NOT NULL,
    hour timestamp with time zone NOT NULL,
    period_start timestamp with time zone NOT NULL,
    price_id bigint NOT NULL,
    events bigint NOT NULL,
    quantity_nano numeric(38,0) NOT NULL,
    amount numeric(38,0) NOT NULL,
    cost_nano numeric(38,0) NOT NULL,
    input_tokens numeric(38,0) NOT NULL,
    output_tokens numeric(38,0) NOT NULL,
    cache_read_tokens numeric(38,0) NOT NULL,
    cache_write_tokens numeric(38,0) NOT NULL
)
WITH (fillfactor='60');

CREATE TABLE public.usage_sweeps (
    singleton boolean DEFAULT true NOT NULL,
    swept_until timestamp with time zone NOT NULL,
    CONSTRAINT usage_sweeps_singleton_check CHECK (singleton)
);

CREATE TABLE public.web_sessions (
    digest bytea NOT NULL,
    key_id text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    CONSTRAINT web_sessions_digest_check CHECK ((length(digest) = 32))
);

CREATE TABLE public.webhook_deliveries (
    id bigint NOT NULL,
    tenant_id integer NOT NULL,
    public_id text NOT NULL,
    endpoint_id bigint NOT NULL,
    outbox_id bigint,
    event_id text NOT NULL,
    topic text NOT NULL,
    emitted_at timestamp with time zone NOT NULL,
    body text NOT NULL,
    state text NOT NULL,
    attempts smallint DEFAULT 0 NOT NULL,
    next_attempt_at timestamp with time zone,
    attempted_at timestamp with time zone,
    response_status smallint,
    error text,
    created_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    CONSTRAINT webhook_deliveries_check CHECK (((state = 'pending'::text) = (finished_at IS NULL))),
    CONSTRAINT webhook_deliveries_check1 CHECK (((state = 'pending'::text) = (next_attempt_at IS NOT NULL))),
    CONSTRAINT webhook_deliveries_state_check CHECK ((state = ANY (ARRAY['pending'::text, 'delivered'::text, 'failed'::text])))
);

ALTER TABLE public.webhook_deliveries ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.webhook_deliveries_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.webhook_endpoints (
    id bigint NOT NULL,
    tenant_id integer NOT NULL,
    public_id text NOT NULL,
    url text NOT NULL,
    events text[] NOT NULL,
    description text,
    api_version text,
    secret bytea NOT NULL,
    secret_sealed boolean NOT NULL,
    is_active boolean DEFAULT true NOT NULL,
    disabled_reason text,
    failures smallint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL
);

ALTER TABLE public.webhook_endpoints ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.webhook_endpoints_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY public.ai_catalog_version
    ADD CONSTRAINT ai_catalog_version_pkey PRIMARY KEY (singleton);

ALTER TABLE ONLY public.ai_model_aliases
    ADD CONSTRAINT ai_model_aliases_id_key UNIQUE (id);

ALTER TABLE ONLY public.ai_model_aliases
    ADD CONSTRAINT ai_model_aliases_pkey PRIMARY KEY (tenant_id, alias);

ALTER TABLE ONLY public.ai_model_changes
    ADD CONSTRAINT ai_model_changes_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.ai_model_prices
    ADD CONSTRAINT ai_model_prices_model_id_effective_from_key UNIQUE (model_id, effective_from);

ALTER TABLE ONLY public.ai_model_prices
    ADD CONSTRAINT ai_model_prices_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.ai_model_syncs
    ADD CONSTRAINT ai_model_syncs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.ai_models
    ADD CONSTRAINT ai_models_number_key UNIQUE (number);

ALTER TABLE ONLY public.ai_models
    ADD CONSTRAINT ai_models_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.ai_price_overrides
    ADD CONSTRAINT ai_price_overrides_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.alert_crossings
    ADD CONSTRAINT alert_crossings_pkey PRIMARY KEY (alert_id, customer_id, scope);

ALTER TABLE ONLY public.alerts
    ADD CONSTRAINT alerts_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.alerts
    ADD CONSTRAINT alerts_public_id_key UNIQUE (public_id);

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_public_part_key UNIQUE (public_part);

ALTER TABLE ONLY public.billing_periods
    ADD CONSTRAINT billing_periods_pkey PRIMARY KEY (subscription_id, starts_at);

ALTER TABLE ONLY public.customer_terms
    ADD CONSTRAINT customer_terms_pkey PRIMARY KEY (customer_id);

ALTER TABLE ONLY public.customers
    ADD CONSTRAINT customers_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.customers
    ADD CONSTRAINT customers_public_id_key UNIQUE (public_id);

ALTER TABLE ONLY public.dropped_hourly
    ADD CONSTRAINT dropped_hourly_pkey PRIMARY KEY (customer_id, feature_id, hour, period_start, price_id, tenant_id);

ALTER TABLE ONLY public.dropped_months
    ADD CONSTRAINT dropped_months_pkey PRIMARY KEY (month);

ALTER TABLE ONLY public.dropped_moves
    ADD CONSTRAINT dropped_moves_pkey PRIMARY KEY (customer_id, pool, hour, kind);

ALTER TABLE ONLY public.features
    ADD CONSTRAINT features_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.features
    ADD CONSTRAINT features_public_id_key UNIQUE (public_id);

ALTER TABLE ONLY public.frozen_customers
    ADD CONSTRAINT frozen_customers_pkey PRIMARY KEY (customer_id);

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (tenant_id, key_digest);

ALTER TABLE ONLY public.installation
    ADD CONSTRAINT installation_pkey PRIMARY KEY (singleton);

ALTER TABLE ONLY public.invoice_counters
    ADD CONSTRAINT invoice_counters_pkey PRIMARY KEY (organization_id, livemode);

ALTER TABLE ONLY public.invoice_lines
    ADD CONSTRAINT invoice_lines_pkey PRIMARY KEY (invoice_id, "position");

ALTER TABLE ONLY public.invoices
    ADD CONSTRAINT invoices_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.invoices
    ADD CONSTRAINT invoices_public_id_key UNIQUE (public_id);

ALTER TABLE ONLY public.invoices
    ADD CONSTRAINT invoices_subscription_id_billed_at_key UNIQUE (subscription_id, billed_at);

ALTER TABLE ONLY public.invoices
    ADD CONSTRAINT invoices_tenant_id_number_key UNIQUE (tenant_id, number);

ALTER TABLE ONLY public.log_offsets
    ADD CONSTRAINT log_offsets_pkey PRIMARY KEY (partition);

ALTER TABLE ONLY public.organizations
    ADD CONSTRAINT organizations_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.overage_decisions
    ADD CONSTRAINT overage_decisions_pkey PRIMARY KEY (customer_id, pool);

ALTER TABLE ONLY public.plan_feature_revisions
    ADD CONSTRAINT plan_feature_revisions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.plan_price_revisions
    ADD CONSTRAINT plan_price_revisions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.plan_prices
    ADD CONSTRAINT plan_prices_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.plan_prices
    ADD CONSTRAINT plan_prices_public_id_key UNIQUE (public_id);

ALTER TABLE ONLY public.plans
    ADD CONSTRAINT plans_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.plans
    ADD CONSTRAINT plans_public_id_key UNIQUE (public_id);

ALTER TABLE ONLY public.pool_balances
    ADD CONSTRAINT pool_balances_pkey PRIMARY KEY (customer_id, pool);

ALTER TABLE ONLY public.pool_ledger
    ADD CONSTRAINT pool_ledger_pkey PRIMARY KEY (customer_id, pool, hour, kind);

ALTER TABLE ONLY public.pool_watches
    ADD CONSTRAINT pool_watches_pkey PRIMARY KEY (customer_id, pool);

ALTER TABLE ONLY public.quarantine
    ADD CONSTRAINT quarantine_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.raw_usage_starts
    ADD CONSTRAINT raw_usage_starts_pkey PRIMARY KEY (tenant_id);

ALTER TABLE ONLY public.schema_migrations
    ADD CONSTRAINT schema_migrations_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.subscriptions
    ADD CONSTRAINT subscriptions_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.subscriptions
    ADD CONSTRAINT subscriptions_public_id_key UNIQUE (public_id);

ALTER TABLE ONLY public.tenants
    ADD CONSTRAINT tenants_organization_id_livemode_key UNIQUE (organization_id, livemode);

ALTER TABLE ONLY public.tenants
    ADD CONSTRAINT tenants_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.terms_bumps
    ADD CONSTRAINT terms_bumps_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.test_clock_runs
    ADD CONSTRAINT test_clock_runs_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.usage_hourly
    ADD CONSTRAINT usage_hourly_pkey PRIMARY KEY (tenant_id, customer_id, feature_id, hour, period_start, price_id);

ALTER TABLE ONLY public.usage_sweeps
    ADD CONSTRAINT usage_sweeps_pkey PRIMARY KEY (singleton);

ALTER TABLE ONLY public.web_sessions
    ADD CONSTRAINT web_sessions_pkey PRIMARY KEY (digest);

ALTER TABLE ONLY public.webhook_deliveries
    ADD CONSTRAINT webhook_deliveries_endpoint_id_outbox_id_key UNIQUE (endpoint_id, outbox_id);

ALTER TABLE ONLY public.webhook_deliveries
    ADD CONSTRAINT webhook_deliveries_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.webhook_deliveries
    ADD CONSTRAINT webhook_deliveries_public_id_key UNIQUE (public_id);

ALTER TABLE ONLY public.webhook_endpoints
    ADD CONSTRAINT webhook_endpoints_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.webhook_endpoints
    ADD CONSTRAINT webhook_endpoints_public_id_key UNIQUE (public_id);

CREATE INDEX ai_model_changes_by_time ON public.ai_model_changes USING btree (changed_at, id);

CREATE INDEX ai_price_overrides_by_tenant ON public.ai_price_overrides USING btree (tenant_id, id);

CREATE INDEX alert_crossings_by_age ON public.alert_crossings USING btree (crossed_at);

CREATE INDEX alerts_by_tenant ON public.alerts USING btree (tenant_id, id);

CREATE INDEX api_keys_by_tenant ON public.api_keys USING btree (tenant_id, created_at);

CREATE INDEX billing_periods_closing ON public.billing_periods USING btree (subscription_id) WHERE (state = 'closing'::text);

CREATE INDEX billing_periods_deadlines ON public.billing_periods USING btree (tenant_id, ends_at) WHERE (state <> 'closed'::text);

CREATE UNIQUE INDEX billing_periods_one_open ON public.billing_periods USING btree (subscription_id) WHERE (state <> 'closed'::text);

CREATE INDEX billing_periods_unexpired ON public.billing_periods USING btree (closed_at) WHERE ((state = 'closed'::text) AND (expired_at IS NULL));

CREATE UNIQUE INDEX customers_by_external_id ON public.customers USING btree (tenant_id, external_id) WHERE (external_id IS NOT NULL);

CREATE INDEX customers_by_tenant ON public.customers USING btree (tenant_id, id);

CREATE UNIQUE INDEX features_by_code ON public.features USING btree (tenant_id, code) WHERE (deleted_at IS NULL);

CREATE INDEX idempotency_keys_by_age ON public.idempotency_keys USING btree (created_at);

CREATE INDEX invoices_by_customer ON public.invoices USING btree (customer_id, id);

CREATE INDEX invoices_by_tenant ON public.invoices USING btree (tenant_id, id);

CREATE INDEX invoices_by_time ON public.invoices USING btree (tenant_id, billed_at);

CREATE INDEX outbox_waiting ON public.outbox USING btree (id) WHERE (delivered_at IS NULL);

CREATE INDEX plan_feature_revisions_by_plan ON public.plan_feature_revisions USING btree (plan_id, feature_id, id);

CREATE INDEX plan_price_revisions_by_price ON public.plan_price_revisions USING btree (price_id, id);

CREATE INDEX plan_prices_by_plan ON public.plan_prices USING btree (plan_id, id);

CREATE UNIQUE INDEX plans_by_code ON public.plans USING btree (tenant_id, code) WHERE (deleted_at IS NULL);

CREATE INDEX pool_balances_open ON public.pool_balances USING btree (customer_id) WHERE (NOT closed);

CREATE INDEX subscriptions_by_customer ON public.subscriptions USING btree (customer_id, id);

CREATE INDEX subscriptions_by_tenant ON public.subscriptions USING btree (tenant_id, id);

CREATE UNIQUE INDEX subscriptions_one_open ON public.subscriptions USING btree (customer_id) WHERE (status <> 'canceled'::text);

CREATE INDEX terms_bumps_waiting ON public.terms_bumps USING btree (tenant_id, id) WHERE (delivered_at IS NULL);

CREATE INDEX test_clock_runs_by_tenant ON public.test_clock_runs USING btree (tenant_id, created_at);

CREATE UNIQUE INDEX test_clock_runs_one_at_a_time ON public.test_clock_runs USING btree (tenant_id) WHERE (status = ANY (ARRAY['pending'::text, 'running'::text]));

CREATE INDEX usage_events_by_customer ON ONLY public.usage_events USING btree (customer_id, occurred_at);

CREATE INDEX usage_events_by_identity ON ONLY public.usage_events USING btree (identity);

CREATE INDEX usage_events_by_time ON ONLY public.usage_events USING brin (occurred_at);

CREATE INDEX usage_events_late ON ONLY public.usage_events USING btree (customer_id, period_start) WHERE (belongs_to IS NOT NULL);

CREATE INDEX usage_events_voids ON ONLY public.usage_events USING btree (customer_id, voids) WHERE (voids IS NOT NULL);

CREATE INDEX usage_hourly_by_customer ON public.usage_hourly USING btree (customer_id, hour);

CREATE INDEX usage_hourly_by_time ON public.usage_hourly USING brin (hour);

CREATE INDEX web_sessions_by_key ON public.web_sessions USING btree (key_id, created_at);

CREATE INDEX webhook_deliveries_by_age ON public.webhook_deliveries USING btree (finished_at);

CREATE INDEX webhook_deliveries_by_endpoint ON public.webhook_deliveries USING btree (endpoint_id, id);

CREATE INDEX webhook_deliveries_waiting ON public.webhook_deliveries USING btree (endpoint_id, id) WHERE (state = 'pending'::text);

CREATE INDEX webhook_endpoints_by_tenant ON public.webhook_endpoints USING btree (tenant_id, id);

CREATE TRIGGER ai_model_prices_are_never_edited BEFORE DELETE OR UPDATE ON public.ai_model_prices FOR EACH ROW EXECUTE FUNCTION public.ai_model_prices_are_never_edited();

ALTER TABLE ONLY public.ai_model_aliases
    ADD CONSTRAINT ai_model_aliases_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);

ALTER TABLE ONLY public.ai_model_changes
    ADD CONSTRAINT ai_model_changes_model_id_fkey FOREIGN KEY (model_id) REFERENCES public.ai_models(id);

ALTER TABLE ONLY public.ai_model_changes
    ADD CONSTRAINT ai_model_changes_sync_id_fkey FOREIGN KEY (sync_id) REFERENCES public.ai_model_syncs(id);

ALTER TABLE ONLY public.ai_model_prices
    ADD CONSTRAINT ai_model_prices_model_id_fkey FOREIGN KEY (model_id) REFERENCES public.ai_models(id);

ALTER TABLE ONLY public.ai_price_overrides
    ADD CONSTRAINT ai_price_overrides_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);

ALTER TABLE ONLY public.alert_crossings
    ADD CONSTRAINT alert_crossings_alert_id_fkey FOREIGN KEY (alert_id) REFERENCES public.alerts(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.alert_crossings
    ADD CONSTRAINT alert_crossings_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);

ALTER TABLE ONLY public.alerts
    ADD CONSTRAINT alerts_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES public.customers(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.alerts
    ADD CONSTRAINT alerts_feature_id_fkey FOREIGN KEY (feature_id) REFERENCES public.features(id);

ALTER TABLE ONLY public.alerts
    ADD CONSTRAINT alerts_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);

ALTER TABLE ONLY public.billing_periods
    ADD CONSTRAINT billing_periods_subscription_id_fkey FOREIGN KEY (subscription_id) REFERENCES public.subscriptions(id);

ALTER TABLE ONLY public.billing_periods
    ADD CONSTRAINT billing_periods_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);

ALTER TABLE ONLY public.customer_terms
    ADD CONSTRAINT customer_terms_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);

ALTER TABLE ONLY public.customers
    ADD CONSTRAINT customers_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);

ALTER TABLE ONLY public.features
    ADD CONSTRAINT features_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);

ALTER TABLE ONLY public.invoice_counters
    ADD CONSTRAINT invoice_counters_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations(id);

ALTER TABLE ONLY public.invoice_lines
    ADD CONSTRAINT invoice_lines_feature_id_fkey FOREIGN KEY (feature_id) REFERENCES public.features(id);

ALTER TABLE ONLY public.invoice_lines
    ADD CONSTRAINT invoice_lines_invoice_id_fkey FOREIGN KEY (invoice_id) REFERENCES public.invoices(id);

ALTER TABLE ONLY public.invoices
    ADD CONSTRAINT invoices_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES public.customers(id);

ALTER TABLE ONLY public.invoices
    ADD CONSTRAINT invoices_subscription_id_fkey FOREIGN KEY (subscription_id) REFERENCES public.subscriptions(id);

ALTER TABLE ONLY public.invoices
    ADD CONSTRAINT invoices_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);

ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);

ALTER TABLE ONLY public.overage_decisions
    ADD CONSTRAINT overage_decisions_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES public.customers(id);

ALTER TABLE ONLY public.overage_decisions
    ADD CONSTRAINT overage_decisions_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);

ALTER TABLE ONLY public.plan_feature_revisions
    ADD CONSTRAINT plan_feature_revisions_feature_id_fkey FOREIGN KEY (feature_id) REFERENCES public.features(id);

ALTER TABLE ONLY public.plan_feature_revisions
    ADD CONSTRAINT plan_feature_revisions_plan_id_fkey FOREIGN KEY (plan_id) REFERENCES public.plans(id);

ALTER TABLE ONLY public.plan_price_revisions
    ADD CONSTRAINT plan_price_revisions_price_id_fkey FOREIGN KEY (price_id) REFERENCES public.plan_prices(id);

ALTER TABLE ONLY public.plan_prices
    ADD CONSTRAINT plan_prices_plan_id_fkey FOREIGN KEY (plan_id) REFERENCES public.plans(id);

ALTER TABLE ONLY public.plans
    ADD CONSTRAINT plans_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);

ALTER TABLE ONLY public.pool_watches
    ADD CONSTRAINT pool_watches_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);

ALTER TABLE ONLY public.subscriptions
    ADD CONSTRAINT subscriptions_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES public.customers(id);

ALTER TABLE ONLY public.subscriptions
    ADD CONSTRAINT subscriptions_plan_id_fkey FOREIGN KEY (plan_id) REFERENCES public.plans(id);

ALTER TABLE ONLY public.subscriptions
    ADD CONSTRAINT subscriptions_price_id_fkey FOREIGN KEY (price_id) REFERENCES public.plan_prices(id);

ALTER TABLE ONLY public.subscriptions
    ADD CONSTRAINT subscriptions_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);

ALTER TABLE ONLY public.tenants
    ADD CONSTRAINT tenants_organization_id_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations(id);

ALTER TABLE ONLY public.terms_bumps
    ADD CONSTRAINT terms_bumps_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);

ALTER TABLE ONLY public.test_clock_runs
    ADD CONSTRAINT test_clock_runs_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);

ALTER TABLE ONLY public.web_sessions
    ADD CONSTRAINT web_sessions_key_id_fkey FOREIGN KEY (key_id) REFERENCES public.api_keys(id);

ALTER TABLE ONLY public.webhook_deliveries
    ADD CONSTRAINT webhook_deliveries_endpoint_id_fkey FOREIGN KEY (endpoint_id) REFERENCES public.webhook_endpoints(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.webhook_deliveries
    ADD CONSTRAINT webhook_deliveries_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);

ALTER TABLE ONLY public.webhook_endpoints
    ADD CONSTRAINT webhook_endpoints_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenants(id);
