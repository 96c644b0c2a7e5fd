DROP TABLE whatsapp_dead_letters, whatsapp_delivery_attempts, whatsapp_webhook_events, whatsapp_messages,
    whatsapp_webhooks, whatsapp_connections, client_tokens, clients;
DROP SEQUENCE whatsapp_webhook_events_sequence;
