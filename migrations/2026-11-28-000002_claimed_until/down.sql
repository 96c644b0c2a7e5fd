-- A claim's deadline is the event's due time again.
UPDATE whatsapp_webhook_events SET next_retry_at = claimed_until
    WHERE status = 'pending' AND next_retry_at IS NOT NULL AND claim_token IS NOT NULL
        AND claimed_until IS NOT NULL;
ALTER TABLE whatsapp_webhook_events DROP COLUMN claimed_until;
DO $$
DECLARE
    partition regclass;
BEGIN
    FOR partition IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'whatsapp_webhook_events'::regclass
    LOOP
        EXECUTE format('ALTER TABLE %s RESET (fillfactor)', partition);
    END LOOP;
END $$;
