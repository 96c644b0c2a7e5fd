-- Tokens that may do part of what their client may, and that end by themselves.
ALTER TABLE client_tokens
    ADD COLUMN scopes text[] NOT NULL DEFAULT '{read,write,connect,send}'
        CHECK (scopes <> '{}' AND scopes <@ '{read,write,connect,send}'::text[]),
    ADD COLUMN expires_at timestamptz,
    -- Kept to the minute.
    ADD COLUMN last_used_at timestamptz;
