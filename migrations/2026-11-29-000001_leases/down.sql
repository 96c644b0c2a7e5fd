DROP FUNCTION lease_settle(uuid[]);
DROP FUNCTION lease_stands(uuid, bigint);
DROP FUNCTION lease_is_held(uuid, bigint);
DROP INDEX whatsapp_connections_free;
DROP INDEX whatsapp_connections_held;
ALTER TABLE whatsapp_connections DROP owner, DROP owner_since, DROP epoch;
DROP TABLE whatsapp_gateways;
