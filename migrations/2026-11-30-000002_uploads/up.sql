-- Files that clients put here to send them. Like the content of messages they are not sealed; they live for a day.
CREATE TABLE whatsapp_uploads (
    id uuid PRIMARY KEY,
    client_id integer NOT NULL REFERENCES clients,
    mimetype text NOT NULL,
    size integer NOT NULL,
    sha256 bytea NOT NULL,
    content bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
-- Pictures and sound are compressed already.
ALTER TABLE whatsapp_uploads ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE INDEX whatsapp_uploads_client ON whatsapp_uploads (client_id);
CREATE INDEX whatsapp_uploads_created ON whatsapp_uploads (created_at);
