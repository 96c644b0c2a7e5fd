ALTER TABLE whatsapp_webhooks DROP COLUMN inline_media_bytes;
