-- When a session is tried again that WhatsApp has turned away for a while; nobody claims it before.
ALTER TABLE whatsapp_connections ADD retry_at timestamptz;
