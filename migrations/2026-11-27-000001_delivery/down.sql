ALTER TABLE whatsapp_delivery_attempts DROP CONSTRAINT whatsapp_delivery_attempts_pkey;
ALTER TABLE whatsapp_delivery_attempts ADD PRIMARY KEY (id);
CREATE INDEX whatsapp_delivery_attempts_event ON whatsapp_delivery_attempts (event_id);
CREATE INDEX whatsapp_webhook_events_source ON whatsapp_webhook_events (source_id);
ALTER TABLE whatsapp_dead_letters
    ADD CONSTRAINT whatsapp_dead_letters_webhook_id_fkey FOREIGN KEY (webhook_id) REFERENCES whatsapp_webhooks;
DROP INDEX whatsapp_delivery_attempts_webhook;
ALTER TABLE whatsapp_delivery_attempts DROP COLUMN batch_id, DROP COLUMN probe;
DROP INDEX whatsapp_webhook_events_chats;
DROP INDEX whatsapp_webhook_events_parked;
CREATE INDEX whatsapp_webhook_events_pending ON whatsapp_webhook_events (webhook_id, sequence)
    WHERE status = 'pending';
DROP INDEX whatsapp_webhook_events_due;
CREATE INDEX whatsapp_webhook_events_due ON whatsapp_webhook_events (next_retry_at)
    WHERE status = 'pending';
ALTER TABLE whatsapp_webhook_events DROP COLUMN order_key;
DROP INDEX whatsapp_webhooks_bury;
DROP INDEX whatsapp_webhooks_look;
ALTER TABLE whatsapp_webhooks
    DROP COLUMN custom_headers,
    DROP COLUMN rate_limit_per_second,
    DROP COLUMN max_in_flight,
    DROP COLUMN batch_max_events,
    DROP COLUMN batch_max_wait_ms,
    DROP COLUMN ordered,
    DROP COLUMN allowed_ip_ranges,
    DROP COLUMN opened_at,
    DROP COLUMN probes,
    DROP COLUMN probed,
    DROP COLUMN look_at,
    DROP COLUMN release_step,
    DROP COLUMN transition;
ALTER TABLE clients DROP COLUMN rate_limit_per_second;
