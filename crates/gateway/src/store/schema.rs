//! The protocol store's tables; `migrations/2026-11-24-000002_protocol_store` is their definition.

diesel::table! {
    protocol_devices (device_id) {
        device_id -> Integer,
        connection_id -> Uuid,
        data -> Nullable<Bytea>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    protocol_identities (device_id, address) {
        device_id -> Integer,
        address -> Text,
        public_key -> Bytea,
    }
}

diesel::table! {
    protocol_sessions (device_id, address) {
        device_id -> Integer,
        address -> Text,
        record -> Bytea,
    }
}

diesel::table! {
    protocol_prekeys (device_id, prekey_id) {
        device_id -> Integer,
        prekey_id -> BigInt,
        record -> Bytea,
        uploaded -> Bool,
    }
}

diesel::table! {
    protocol_signed_prekeys (device_id, prekey_id) {
        device_id -> Integer,
        prekey_id -> BigInt,
        record -> Bytea,
    }
}

diesel::table! {
    protocol_sender_keys (device_id, address) {
        device_id -> Integer,
        address -> Text,
        record -> Bytea,
    }
}

diesel::table! {
    protocol_sender_key_devices (device_id, group_jid, device_jid) {
        device_id -> Integer,
        group_jid -> Text,
        device_jid -> Text,
        has_key -> Bool,
    }
}

diesel::table! {
    protocol_app_state_keys (device_id, key_id) {
        device_id -> Integer,
        key_id -> Bytea,
        key_data -> Bytea,
        fingerprint -> Bytea,
        timestamp -> BigInt,
        sequence -> BigInt,
    }
}

diesel::table! {
    protocol_app_state_versions (device_id, collection) {
        device_id -> Integer,
        collection -> Text,
        state -> Bytea,
    }
}

diesel::table! {
    protocol_app_state_macs (device_id, collection, index_mac) {
        device_id -> Integer,
        collection -> Text,
        index_mac -> Bytea,
        value_mac -> Bytea,
    }
}

diesel::table! {
    protocol_lid_mappings (device_id, lid) {
        device_id -> Integer,
        lid -> Text,
        phone_number -> Text,
        created_at -> BigInt,
        updated_at -> BigInt,
        learning_source -> Text,
        sequence -> BigInt,
    }
}

diesel::table! {
    protocol_base_keys (device_id, address, message_id) {
        device_id -> Integer,
        address -> Text,
        message_id -> Text,
        public_key -> Bytea,
    }
}

diesel::table! {
    protocol_device_lists (device_id, user_part) {
        device_id -> Integer,
        user_part -> Text,
        record -> Text,
    }
}

diesel::table! {
    protocol_group_metadata (device_id, group_jid) {
        device_id -> Integer,
        group_jid -> Text,
        metadata -> Bytea,
    }
}

diesel::table! {
    protocol_tc_tokens (device_id, jid) {
        device_id -> Integer,
        jid -> Text,
        token -> Nullable<Bytea>,
        token_timestamp -> BigInt,
        sender_timestamp -> Nullable<BigInt>,
    }
}

diesel::table! {
    protocol_sent_messages (device_id, chat_jid, message_id) {
        device_id -> Integer,
        chat_jid -> Text,
        message_id -> Text,
        payload -> Bytea,
        stored_at -> Timestamptz,
    }
}

diesel::table! {
    protocol_pending_inbound (device_id, key) {
        device_id -> Integer,
        key -> Bytea,
        chat -> Text,
        sender -> Text,
        message_id -> Text,
        body -> Nullable<Bytea>,
        stored_at -> Timestamptz,
    }
}

diesel::table! {
    protocol_message_secrets (device_id, chat, sender, message_id) {
        device_id -> Integer,
        chat -> Text,
        sender -> Text,
        message_id -> Text,
        secret -> Bytea,
        expires_at -> BigInt,
        message_timestamp -> BigInt,
    }
}
