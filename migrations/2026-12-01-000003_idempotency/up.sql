-- Requests under a client's Idempotency-Key, and what was answered to them, for a day. (Messages have their keys in
-- whatsapp_outbox.)
CREATE TABLE idempotency_keys (
    client_id integer NOT NULL REFERENCES clients,
    key text NOT NULL,
    -- Which request it is, as a hash. Sealed, as a guess at what a body holds could be checked against it.
    fingerprint bytea NOT NULL,
    -- Who does it, and until when nobody else may; once it is done, since when.
    holder uuid NOT NULL,
    claimed_until timestamptz NOT NULL,
    -- The answer, once there is one. Its body is sealed: it may hold secrets.
    status integer CHECK (status BETWEEN 200 AND 299),
    content_type text,
    body bytea,
    PRIMARY KEY (client_id, key),
    CHECK ((status IS NULL) = (body IS NULL))
);
CREATE INDEX idempotency_keys_claimed ON idempotency_keys (claimed_until);
