ALTER TABLE whatsapp_messages DROP COLUMN media;
