-- The version of WhatsApp Web that is current, as one gateway found it out for all.
CREATE TABLE whatsapp_client_version (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- NULL: it was asked for and not found out yet.
    version text,
    found_at timestamptz,
    asked_at timestamptz NOT NULL
);
