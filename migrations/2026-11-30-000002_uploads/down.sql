DROP TABLE whatsapp_uploads;
