-- Delivery as a webhook wants it: its options, its circuit, and where events wait that can't go now.

ALTER TABLE clients
    -- Deliveries a second, over all of the client's webhooks. NULL: as fast as they go.
    ADD COLUMN rate_limit_per_second integer CHECK (rate_limit_per_second > 0);

ALTER TABLE whatsapp_webhooks
    -- A JSON object of header names and values, sealed as a whole.
    ADD COLUMN custom_headers bytea,
    ADD COLUMN rate_limit_per_second integer CHECK (rate_limit_per_second > 0),
    -- Requests under way at once, for each dispatcher.
    ADD COLUMN max_in_flight integer NOT NULL DEFAULT 16 CHECK (max_in_flight > 0),
    ADD COLUMN batch_max_events integer CHECK (batch_max_events > 0),
    ADD COLUMN batch_max_wait_ms integer CHECK (batch_max_wait_ms >= 0),
    -- Whether a chat's next event waits for the one before it.
    ADD COLUMN ordered boolean NOT NULL DEFAULT false,
    ADD COLUMN allowed_ip_ranges text[] NOT NULL DEFAULT '{}',
    -- The circuit, which is open while status is 'failed': since when, how many probes have failed, and
    -- the sequence of the event that the last probe took.
    ADD COLUMN opened_at timestamptz,
    ADD COLUMN probes integer NOT NULL DEFAULT 0,
    ADD COLUMN probed bigint NOT NULL DEFAULT 0,
    -- When the parked events are to be looked at: one of them probes an open circuit, or so many become
    -- due. Never NULL while there are any.
    ADD COLUMN look_at timestamptz,
    ADD COLUMN release_step integer NOT NULL DEFAULT 16 CHECK (release_step > 0),
    -- Counts changes of the circuit; the source of the webhook.* events' ids.
    ADD COLUMN transition bigint NOT NULL DEFAULT 0,
    ADD CHECK ((batch_max_events IS NULL) = (batch_max_wait_ms IS NULL));
UPDATE whatsapp_webhooks SET opened_at = now() WHERE status = 'failed';
CREATE INDEX whatsapp_webhooks_look ON whatsapp_webhooks (look_at) WHERE is_active AND deleted_at IS NULL;
-- Of a deleted one, what is parked is still to become dead letters.
CREATE INDEX whatsapp_webhooks_bury ON whatsapp_webhooks (look_at) WHERE deleted_at IS NOT NULL;

ALTER TABLE whatsapp_webhook_events
    -- The chat, where the webhook wanted order when this was committed.
    ADD COLUMN order_key text;
UPDATE whatsapp_webhook_events SET parked = 'inactive' WHERE status = 'pending' AND next_retry_at IS NULL;
UPDATE whatsapp_webhooks SET look_at = now()
    WHERE id IN (SELECT webhook_id FROM whatsapp_webhook_events WHERE status = 'pending' AND next_retry_at IS NULL);
DROP INDEX whatsapp_webhook_events_due;
CREATE INDEX whatsapp_webhook_events_due ON whatsapp_webhook_events (next_retry_at)
    WHERE status = 'pending' AND next_retry_at IS NOT NULL;
DROP INDEX whatsapp_webhook_events_pending;
CREATE INDEX whatsapp_webhook_events_parked ON whatsapp_webhook_events (webhook_id, sequence)
    WHERE status = 'pending' AND next_retry_at IS NULL;
CREATE INDEX whatsapp_webhook_events_chats ON whatsapp_webhook_events (webhook_id, order_key, sequence)
    WHERE status = 'pending' AND order_key IS NOT NULL;

-- An event's id begins as its source's does (48 bits of milliseconds): its source leads to it by a range of
-- the primary key, and needs no index that is written three times for each event.
DROP INDEX whatsapp_webhook_events_source;

ALTER TABLE whatsapp_delivery_attempts
    -- The batch that the event was sent in.
    ADD COLUMN batch_id uuid,
    -- A try whether the receiver is back; it uses up no attempt of its event.
    ADD COLUMN probe boolean NOT NULL DEFAULT false;
-- Ids are in time order: a webhook's last hour is one range.
CREATE INDEX whatsapp_delivery_attempts_webhook ON whatsapp_delivery_attempts (webhook_id, id);
-- The primary key finds an event's attempts, so that one index less is written.
DROP INDEX whatsapp_delivery_attempts_event;
ALTER TABLE whatsapp_delivery_attempts DROP CONSTRAINT whatsapp_delivery_attempts_pkey;
ALTER TABLE whatsapp_delivery_attempts ADD PRIMARY KEY (event_id, id);

-- No more foreign keys on what thousands share: to check one locks the webhook's row, and whoever changes it
-- meanwhile leaves a version behind at which two that wait for the row deadlock. Webhooks' rows never go.
ALTER TABLE whatsapp_dead_letters DROP CONSTRAINT whatsapp_dead_letters_webhook_id_fkey;
