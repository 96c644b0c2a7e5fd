ALTER TABLE whatsapp_outbox DROP COLUMN unconfirmed;
DROP INDEX whatsapp_outbox_connection;
