DROP TABLE whatsapp_client_version;
