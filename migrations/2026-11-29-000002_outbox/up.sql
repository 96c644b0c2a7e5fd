-- What clients send through their connections, until the gateway that holds the session has sent it, and then
-- as the answer to whoever asks again under the same key.
CREATE TABLE whatsapp_outbox (
    id uuid PRIMARY KEY,
    client_id integer NOT NULL REFERENCES clients,
    connection_id uuid NOT NULL REFERENCES whatsapp_connections ON DELETE CASCADE,
    idempotency_key text,
    -- Of the request, so that a key that is used for something else is noticed.
    request_hash bytea NOT NULL,
    -- WhatsApp's id, the same at every attempt: whoever receives it twice shows it once.
    message_id text NOT NULL,
    "to" text NOT NULL,
    content json NOT NULL,
    status text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'sent', 'failed')),
    error text,
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    settled_at timestamptz
);
CREATE UNIQUE INDEX whatsapp_outbox_key ON whatsapp_outbox (client_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX whatsapp_outbox_queued ON whatsapp_outbox (connection_id, id) WHERE status = 'queued';
CREATE INDEX whatsapp_outbox_settled ON whatsapp_outbox (settled_at) WHERE settled_at IS NOT NULL;
