DROP INDEX whatsapp_delivery_attempts_feed;
ALTER TABLE whatsapp_delivery_attempts DROP COLUMN sequence;
