-- A failed event has a dead letter, unless its client deleted that: then this says so, and what has neither
-- is a loss.
ALTER TABLE whatsapp_webhook_events ADD COLUMN dead_letter_deleted_at timestamptz;
