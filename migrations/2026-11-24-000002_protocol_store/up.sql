-- The WhatsApp sessions: what a linked device must remember, one device per connection.
--
-- Every table hangs off its device, so that deleting the device row deletes its keys. Private and
-- symmetric key material, and what may hold it (message bodies hold message secrets and, from the
-- account's own phone, app state keys), is sealed by the keyring for its own table, column and row.
-- Public keys and look-up columns are plain. Times that WhatsApp gave are unix seconds, as it gave them.
-- Addresses sort as bytes, so that all of one user's are one range.

CREATE TABLE protocol_devices (
    device_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connection_id uuid NOT NULL UNIQUE REFERENCES whatsapp_connections ON DELETE CASCADE,
    -- Sealed. NULL until the device's keys are made.
    data bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE protocol_identities (
    device_id integer NOT NULL REFERENCES protocol_devices ON DELETE CASCADE,
    address text COLLATE "C" NOT NULL,
    public_key bytea NOT NULL,
    PRIMARY KEY (device_id, address)
);

CREATE TABLE protocol_sessions (
    device_id integer NOT NULL REFERENCES protocol_devices ON DELETE CASCADE,
    address text COLLATE "C" NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (device_id, address)
);

CREATE TABLE protocol_prekeys (
    device_id integer NOT NULL REFERENCES protocol_devices ON DELETE CASCADE,
    prekey_id bigint NOT NULL,
    record bytea NOT NULL,
    uploaded boolean NOT NULL,
    PRIMARY KEY (device_id, prekey_id)
);

CREATE TABLE protocol_signed_prekeys (
    device_id integer NOT NULL REFERENCES protocol_devices ON DELETE CASCADE,
    prekey_id bigint NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (device_id, prekey_id)
);

CREATE TABLE protocol_sender_keys (
    device_id integer NOT NULL REFERENCES protocol_devices ON DELETE CASCADE,
    address text COLLATE "C" NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (device_id, address)
);

CREATE TABLE protocol_sender_key_devices (
    device_id integer NOT NULL REFERENCES protocol_devices ON DELETE CASCADE,
    group_jid text NOT NULL,
    device_jid text NOT NULL,
    has_key boolean NOT NULL,
    PRIMARY KEY (device_id, group_jid, device_jid)
);
CREATE INDEX protocol_sender_key_devices_device ON protocol_sender_key_devices (device_id, device_jid);

CREATE TABLE protocol_app_state_keys (
    device_id integer NOT NULL REFERENCES protocol_devices ON DELETE CASCADE,
    key_id bytea NOT NULL,
    key_data bytea NOT NULL,
    fingerprint bytea NOT NULL,
    "timestamp" bigint NOT NULL,
    -- The order of storing: the latest is the one in use.
    sequence bigserial NOT NULL,
    PRIMARY KEY (device_id, key_id)
);

CREATE TABLE protocol_app_state_versions (
    device_id integer NOT NULL REFERENCES protocol_devices ON DELETE CASCADE,
    collection text NOT NULL,
    state bytea NOT NULL,
    PRIMARY KEY (device_id, collection)
);

CREATE TABLE protocol_app_state_macs (
    device_id integer NOT NULL REFERENCES protocol_devices ON DELETE CASCADE,
    collection text NOT NULL,
    index_mac bytea NOT NULL,
    value_mac bytea NOT NULL,
    PRIMARY KEY (device_id, collection, index_mac)
);

CREATE TABLE protocol_lid_mappings (
    device_id integer NOT NULL REFERENCES protocol_devices ON DELETE CASCADE,
    lid text NOT NULL,
    phone_number text NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    learning_source text NOT NULL,
    -- Tells the later of two mappings of one second.
    sequence bigserial NOT NULL,
    PRIMARY KEY (device_id, lid)
);
CREATE INDEX protocol_lid_mappings_phone_number
    ON protocol_lid_mappings (device_id, phone_number, updated_at DESC, sequence DESC);

CREATE TABLE protocol_base_keys (
    device_id integer NOT NULL REFERENCES protocol_devices ON DELETE CASCADE,
    address text NOT NULL,
    message_id text NOT NULL,
    public_key bytea NOT NULL,
    PRIMARY KEY (device_id, address, message_id)
);

CREATE TABLE protocol_device_lists (
    device_id integer NOT NULL REFERENCES protocol_devices ON DELETE CASCADE,
    user_part text NOT NULL,
    -- The library's own record, as JSON.
    record text NOT NULL,
    PRIMARY KEY (device_id, user_part)
);

CREATE TABLE protocol_group_metadata (
    device_id integer NOT NULL REFERENCES protocol_devices ON DELETE CASCADE,
    group_jid text NOT NULL,
    metadata bytea NOT NULL,
    PRIMARY KEY (device_id, group_jid)
);

CREATE TABLE protocol_tc_tokens (
    device_id integer NOT NULL REFERENCES protocol_devices ON DELETE CASCADE,
    jid text NOT NULL,
    -- NULL: only our own token's issue is on record.
    token bytea,
    token_timestamp bigint NOT NULL,
    sender_timestamp bigint,
    PRIMARY KEY (device_id, jid)
);

CREATE TABLE protocol_sent_messages (
    device_id integer NOT NULL REFERENCES protocol_devices ON DELETE CASCADE,
    chat_jid text NOT NULL,
    message_id text NOT NULL,
    payload bytea NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (device_id, chat_jid, message_id)
);
CREATE INDEX protocol_sent_messages_stored_at ON protocol_sent_messages (device_id, stored_at);

-- Messages between their decryption and their commit. Rows come and go with every message.
CREATE TABLE protocol_pending_inbound (
    device_id integer NOT NULL REFERENCES protocol_devices ON DELETE CASCADE,
    -- SHA-256 of chat, sender and id: what a stranger chose to write there has any length.
    key bytea NOT NULL,
    chat text NOT NULL,
    sender text NOT NULL,
    message_id text NOT NULL,
    -- NULL: settled without a message; a copy that comes again is acknowledged and no more.
    body bytea,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (device_id, key)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

CREATE TABLE protocol_message_secrets (
    device_id integer NOT NULL REFERENCES protocol_devices ON DELETE CASCADE,
    chat text NOT NULL,
    sender text NOT NULL,
    message_id text NOT NULL,
    secret bytea NOT NULL,
    -- 0: kept for ever.
    expires_at bigint NOT NULL,
    -- 0: not known.
    message_timestamp bigint NOT NULL,
    PRIMARY KEY (device_id, chat, sender, message_id)
);
CREATE INDEX protocol_message_secrets_expires_at
    ON protocol_message_secrets (device_id, expires_at) WHERE expires_at <> 0;
