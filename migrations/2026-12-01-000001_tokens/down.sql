ALTER TABLE client_tokens
    DROP COLUMN last_used_at,
    DROP COLUMN expires_at,
    DROP COLUMN scopes;
