-- What fetching and decrypting a message's file takes, sealed.
ALTER TABLE whatsapp_messages ADD COLUMN media bytea;
