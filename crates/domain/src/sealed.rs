//! Every sealed column there is, and by what name each of its rows is sealed: what opens a value must
//! know it, and so must what seals it anew under another key.
//!
//! Nothing else can be sealed: a [`Place`] is made here only, and a [`Keyring`] takes no other.

pub mod rotation;

use secrecy::{ExposeSecret, SecretString};

use crate::keyring::{Aad, Keyring, SealError};

/// A sealed column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    table: &'static str,
    column: &'static str,
    /// The column by whose name it is sealed, where a value moves from one to another.
    sealed_as: &'static str,
    /// The name of a row, as a value of the table's own columns.
    row: &'static str,
}

macro_rules! places {
    ($($name:ident = $table:literal . $column:literal as $sealed_as:literal, $row:literal;)+) => {
        $(pub const $name: Place = Place {
            table: $table,
            column: $column,
            sealed_as: $sealed_as,
            row: $row,
        };)+

        /// All of them.
        pub const PLACES: &[Place] = &[$($name),+];
    };
}

places! {
    WEBHOOK_SECRET = "whatsapp_webhooks"."secret" as "secret", "id::text";
    // A rotation moves the present secret here as it is.
    WEBHOOK_PREVIOUS_SECRET = "whatsapp_webhooks"."previous_secret" as "secret", "id::text";
    WEBHOOK_HEADERS = "whatsapp_webhooks"."custom_headers" as "custom_headers", "id::text";
    // What it takes to have a message's file.
    MESSAGE_MEDIA = "whatsapp_messages"."media" as "media", "id::text";
    // The gateway's. The device is part of every row's name: no device's keys open under another's.
    DEVICE = "protocol_devices"."data" as "data", "device_id || '/'";
    SESSION = "protocol_sessions"."record" as "record", "device_id || '/' || address";
    SENDER_KEY = "protocol_sender_keys"."record" as "record", "device_id || '/' || address";
    PREKEY = "protocol_prekeys"."record" as "record", "device_id || '/' || prekey_id";
    SIGNED_PREKEY = "protocol_signed_prekeys"."record" as "record", "device_id || '/' || prekey_id";
    APP_STATE_KEY = "protocol_app_state_keys"."key_data" as "key_data",
        "device_id || '/' || encode(key_id, 'hex')";
    TC_TOKEN = "protocol_tc_tokens"."token" as "token", "device_id || '/' || jid";
    SENT_MESSAGE = "protocol_sent_messages"."payload" as "payload",
        "device_id || '/' || chat_jid || '/' || message_id";
    PENDING_BODY = "protocol_pending_inbound"."body" as "body", "device_id || '/' || encode(key, 'hex')";
    MESSAGE_SECRET = "protocol_message_secrets"."secret" as "secret",
        "device_id || '/' || chat || '/' || sender || '/' || message_id";
    // What clients asked for under a key, and what they were answered.
    FINGERPRINT = "idempotency_keys"."fingerprint" as "fingerprint", "client_id || '/' || key";
    ANSWER = "idempotency_keys"."body" as "body", "client_id || '/' || key";
}

impl Place {
    pub const fn table(self) -> &'static str {
        self.table
    }

    pub const fn column(self) -> &'static str {
        self.column
    }

    /// Encrypts what is to stand in the row of that name, under the newest key.
    pub fn seal(self, keyring: &Keyring, row: &str, plaintext: &[u8]) -> Vec<u8> {
        keyring.seal(self.aad(row), plaintext)
    }

    /// Decrypts what stands in the row of that name.
    pub fn open(self, keyring: &Keyring, row: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        keyring.open(self.aad(row), sealed)
    }

    pub(crate) fn seal_text(self, keyring: &Keyring, row: &str, text: &SecretString) -> Vec<u8> {
        self.seal(keyring, row, text.expose_secret().as_bytes())
    }

    pub(crate) fn open_text(
        self,
        keyring: &Keyring,
        row: &str,
        sealed: &[u8],
    ) -> Result<SecretString, SealError> {
        let opened = self.open(keyring, row, sealed)?;
        let text = String::from_utf8(opened).map_err(|_| SealError::Form)?;
        Ok(text.into())
    }

    fn aad(self, row: &str) -> Aad<'_> {
        Aad {
            table: self.table,
            column: self.sealed_as,
            row,
        }
    }
}
