-- A webhook's events by their status, newest first, with and without a span of time. One index for it all: an event
-- leaves one entry when it is committed and one when its status changes, as it did in the index that goes.
CREATE INDEX whatsapp_webhook_events_listed ON whatsapp_webhook_events (webhook_id, status, sequence);

-- An event that was committed with its message is found by way of that: to index its WhatsApp id here, too, would
-- cost the recording of each delivery three quarters more. The others, such as receipts, are few (and those of before).
ALTER TABLE whatsapp_webhook_events ADD COLUMN message_stored boolean NOT NULL DEFAULT false;
CREATE INDEX whatsapp_webhook_events_unstored ON whatsapp_webhook_events (webhook_id, message_id)
    WHERE NOT message_stored AND message_id <> '';

-- Clients ask for a message's events by WhatsApp's id alone, also when the connection is gone.
CREATE INDEX whatsapp_messages_id ON whatsapp_messages (message_id, connection_id);

-- Services that are older list events and look for receipts without an index from here on.
DROP INDEX whatsapp_webhook_events_newest;
DROP INDEX whatsapp_webhook_events_receipts;
DROP INDEX whatsapp_messages_message;
