DROP TABLE whatsapp_outbox;
