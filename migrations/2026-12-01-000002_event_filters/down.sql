DROP INDEX whatsapp_messages_id;
CREATE INDEX whatsapp_messages_message ON whatsapp_messages (connection_id, message_id);
DROP INDEX whatsapp_webhook_events_unstored;
CREATE INDEX whatsapp_webhook_events_receipts ON whatsapp_webhook_events (webhook_id, message_id)
    WHERE event_type = 'message.receipt' AND status = 'pending';
ALTER TABLE whatsapp_webhook_events DROP COLUMN message_stored;
DROP INDEX whatsapp_webhook_events_listed;
CREATE INDEX whatsapp_webhook_events_newest ON whatsapp_webhook_events (webhook_id, sequence DESC);
