-- Attempts take their place among the commits of events, so that what happens to a client's events has one order, which
-- can be read on from anywhere. Those of before have none.
ALTER TABLE whatsapp_delivery_attempts ADD COLUMN sequence bigint;
ALTER TABLE whatsapp_delivery_attempts
    ALTER COLUMN sequence SET DEFAULT nextval('whatsapp_webhook_events_sequence');
-- Each client's new entries are at one place, which is cheap to write and to read on from.
CREATE INDEX whatsapp_delivery_attempts_feed ON whatsapp_delivery_attempts (client_id, sequence)
    WHERE sequence IS NOT NULL;
