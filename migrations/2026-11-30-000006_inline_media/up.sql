ALTER TABLE whatsapp_webhooks
    -- Bytes of the largest file that goes into the delivery itself. 0: none does.
    ADD COLUMN inline_media_bytes integer NOT NULL DEFAULT 0
        CHECK (inline_media_bytes BETWEEN 0 AND 1048576);
