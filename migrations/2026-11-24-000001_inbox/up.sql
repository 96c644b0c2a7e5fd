-- The durable inbox: who the clients are, what they connected, what arrived, and what became of it.
--
-- The three growing tables are range-partitioned by id. Ids are UUIDv8 or UUIDv7, whose first 48 bits are
-- milliseconds, so a range of ids is a range of time: retention drops a partition instead of deleting rows.
-- They carry no foreign keys: a key check would lock the one webhook row that thousands of inserts share.

CREATE TABLE clients (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'inactive')),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE client_tokens (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    client_id integer NOT NULL REFERENCES clients,
    name text NOT NULL,
    -- SHA-256 of the token: 256 random bits need no slow hash.
    token_hash bytea NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);
CREATE INDEX client_tokens_client ON client_tokens (client_id);

CREATE TABLE whatsapp_connections (
    id uuid PRIMARY KEY,
    client_id integer NOT NULL REFERENCES clients,
    user_id uuid NOT NULL,
    phone_number text NOT NULL,
    -- The form in which numbers are compared (Brazil's ninth digit and its like removed).
    phone_key text NOT NULL,
    pairing text NOT NULL DEFAULT 'qr' CHECK (pairing IN ('qr', 'code')),
    -- What the client asked for; the gateway brings status to it.
    desired text NOT NULL CHECK (desired IN ('connected', 'disconnected', 'logged_out')),
    status text NOT NULL CHECK (status IN ('connected', 'reconnecting', 'disconnected', 'logged_out')),
    reason text,
    -- Counts changes of status; the source of the connection.* events' ids.
    transition bigint NOT NULL DEFAULT 0,
    jid text,
    lid text,
    qr_code text,
    pairing_code text,
    code_expires_at timestamptz,
    last_update timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Set by the API; the row goes once the gateway has unlinked the device.
    deleted_at timestamptz
);
CREATE UNIQUE INDEX whatsapp_connections_user ON whatsapp_connections (client_id, user_id)
    WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX whatsapp_connections_live_number ON whatsapp_connections (client_id, phone_key)
    WHERE deleted_at IS NULL AND desired = 'connected';

CREATE TABLE whatsapp_webhooks (
    id uuid PRIMARY KEY,
    client_id integer NOT NULL REFERENCES clients,
    phone_number text NOT NULL,
    phone_key text NOT NULL,
    webhook_url text NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'failed')),
    failure_count integer NOT NULL DEFAULT 0,
    max_retries integer NOT NULL DEFAULT 3 CHECK (max_retries > 0),
    last_error text,
    last_success_at timestamptz,
    last_attempt_at timestamptz,
    event_types text[] NOT NULL DEFAULT '{message}',
    metadata jsonb NOT NULL DEFAULT '{}',
    -- Sealed by the keyring, as are all secrets at rest.
    secret bytea NOT NULL,
    previous_secret bytea,
    previous_secret_expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE UNIQUE INDEX whatsapp_webhooks_live ON whatsapp_webhooks (client_id, phone_key)
    WHERE deleted_at IS NULL;

CREATE TABLE whatsapp_messages (
    id uuid PRIMARY KEY,
    client_id integer NOT NULL,
    connection_id uuid NOT NULL,
    event_type text NOT NULL,
    message_id text NOT NULL,
    chat text NOT NULL,
    "from" text NOT NULL,
    "to" text NOT NULL,
    message_type text NOT NULL,
    content text NOT NULL,
    -- json, not jsonb: it is stored as it was written, and an escaped NUL in it is no error.
    metadata json NOT NULL,
    "timestamp" timestamptz NOT NULL,
    -- The protobuf of what could not be translated or stored as text.
    raw bytea,
    -- How many events this message became when it was committed.
    fan_out integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
) PARTITION BY RANGE (id);
CREATE INDEX whatsapp_messages_message ON whatsapp_messages (connection_id, message_id);
CREATE TABLE whatsapp_messages_default PARTITION OF whatsapp_messages DEFAULT;

CREATE SEQUENCE whatsapp_webhook_events_sequence;

CREATE TABLE whatsapp_webhook_events (
    id uuid PRIMARY KEY,
    -- The order of commit, in the order of arrival within a chat. Ids and timestamps give no order.
    sequence bigint NOT NULL DEFAULT nextval('whatsapp_webhook_events_sequence'),
    client_id integer NOT NULL,
    webhook_id uuid NOT NULL,
    connection_id uuid,
    source_id uuid NOT NULL,
    event_type text NOT NULL,
    message_id text NOT NULL,
    chat text NOT NULL,
    "from" text NOT NULL,
    "to" text NOT NULL,
    message_type text NOT NULL,
    content text NOT NULL,
    metadata json NOT NULL,
    "timestamp" timestamptz NOT NULL,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'failed')),
    attempt_count integer NOT NULL DEFAULT 0,
    -- The claim under which a dispatcher may record an outcome; next_retry_at is then its deadline.
    claim_token uuid,
    -- When the poller may claim the event. NULL while pending: parked, and parked says why.
    next_retry_at timestamptz,
    parked text,
    http_status integer,
    error text,
    response text,
    created_at timestamptz NOT NULL DEFAULT now(),
    delivered_at timestamptz
) PARTITION BY RANGE (id);
CREATE INDEX whatsapp_webhook_events_due ON whatsapp_webhook_events (next_retry_at)
    WHERE status = 'pending';
CREATE INDEX whatsapp_webhook_events_pending ON whatsapp_webhook_events (webhook_id, sequence)
    WHERE status = 'pending';
CREATE INDEX whatsapp_webhook_events_newest ON whatsapp_webhook_events (webhook_id, sequence DESC);
CREATE INDEX whatsapp_webhook_events_source ON whatsapp_webhook_events (source_id);
CREATE TABLE whatsapp_webhook_events_default PARTITION OF whatsapp_webhook_events DEFAULT;

CREATE TABLE whatsapp_delivery_attempts (
    id uuid PRIMARY KEY,
    event_id uuid NOT NULL,
    client_id integer NOT NULL,
    webhook_id uuid NOT NULL,
    attempt integer NOT NULL,
    started_at timestamptz NOT NULL,
    duration_ms integer NOT NULL,
    http_status integer,
    error_class text,
    error text,
    response text,
    -- The outcome came under a claim that was no longer held; it is on record but changed nothing.
    superseded boolean NOT NULL
) PARTITION BY RANGE (id);
CREATE INDEX whatsapp_delivery_attempts_event ON whatsapp_delivery_attempts (event_id);
CREATE TABLE whatsapp_delivery_attempts_default PARTITION OF whatsapp_delivery_attempts DEFAULT;

CREATE TABLE whatsapp_dead_letters (
    event_id uuid PRIMARY KEY,
    client_id integer NOT NULL REFERENCES clients,
    webhook_id uuid NOT NULL REFERENCES whatsapp_webhooks,
    connection_id uuid,
    source_id uuid NOT NULL,
    event_type text NOT NULL,
    message_id text NOT NULL,
    chat text NOT NULL,
    "from" text NOT NULL,
    "to" text NOT NULL,
    message_type text NOT NULL,
    content text NOT NULL,
    metadata json NOT NULL,
    "timestamp" timestamptz NOT NULL,
    attempt_count integer NOT NULL,
    http_status integer,
    error text,
    response text,
    reason text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX whatsapp_dead_letters_webhook ON whatsapp_dead_letters (webhook_id, created_at DESC);
