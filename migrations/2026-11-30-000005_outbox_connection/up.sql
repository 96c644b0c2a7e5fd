-- A connection that is deleted takes its messages along: the settled ones, too, are found without reading all.
CREATE INDEX whatsapp_outbox_connection ON whatsapp_outbox (connection_id);

-- An attempt may have reached WhatsApp, which did not say so: whatever comes of it later, the message may be there.
ALTER TABLE whatsapp_outbox ADD COLUMN unconfirmed boolean NOT NULL DEFAULT false;
-- Of those that are under way, it is not known what was tried.
UPDATE whatsapp_outbox SET unconfirmed = true WHERE status = 'queued' AND attempts > 0;
