ALTER TABLE whatsapp_connections DROP retry_at;
