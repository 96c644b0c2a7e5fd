-- A receipt takes the place of an earlier one of the same message that has not gone out yet. Nothing but receipts
-- is in here, and no claim writes what it holds.
CREATE INDEX whatsapp_webhook_events_receipts ON whatsapp_webhook_events (webhook_id, message_id)
    WHERE event_type = 'message.receipt' AND status = 'pending';
