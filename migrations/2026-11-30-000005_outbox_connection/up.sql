-- A connection that is deleted takes its messages along: the settled ones, too, are found without reading all.
CREATE INDEX whatsapp_outbox_connection ON whatsapp_outbox (connection_id);
