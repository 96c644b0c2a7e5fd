-- A claim's deadline has a column of its own, which no index holds: with room left in its page, the row of a
-- rung event is claimed without a new entry in any index. Dispatchers older than this look at next_retry_at alone, and
-- would claim what newer ones hold: they are to be stopped first.
ALTER TABLE whatsapp_webhook_events ADD COLUMN claimed_until timestamptz;
UPDATE whatsapp_webhook_events SET claimed_until = next_retry_at
    WHERE status = 'pending' AND next_retry_at IS NOT NULL AND claim_token IS NOT NULL;
DO $$
DECLARE
    partition regclass;
BEGIN
    FOR partition IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'whatsapp_webhook_events'::regclass
    LOOP
        EXECUTE format('ALTER TABLE %s SET (fillfactor = 45)', partition);
    END LOOP;
END $$;
