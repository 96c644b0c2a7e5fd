//! The tables that operators query (the migrations in `migrations/` are their definition). Of a webhook
//! what its circuit and its parked events need is left out: only statements use it.

diesel::table! {
    clients (id) {
        id -> Integer,
        name -> Text,
        status -> Text,
        created_at -> Timestamptz,
        rate_limit_per_second -> Nullable<Integer>,
    }
}

diesel::table! {
    client_tokens (id) {
        id -> Uuid,
        client_id -> Integer,
        name -> Text,
        token_hash -> Bytea,
        created_at -> Timestamptz,
        revoked_at -> Nullable<Timestamptz>,
        scopes -> Array<Text>,
        expires_at -> Nullable<Timestamptz>,
        last_used_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    whatsapp_connections (id) {
        id -> Uuid,
        client_id -> Integer,
        user_id -> Uuid,
        phone_number -> Text,
        phone_key -> Text,
        pairing -> Text,
        desired -> Text,
        status -> Text,
        reason -> Nullable<Text>,
        transition -> BigInt,
        jid -> Nullable<Text>,
        lid -> Nullable<Text>,
        qr_code -> Nullable<Text>,
        pairing_code -> Nullable<Text>,
        code_expires_at -> Nullable<Timestamptz>,
        last_update -> Timestamptz,
        created_at -> Timestamptz,
        deleted_at -> Nullable<Timestamptz>,
        owner -> Nullable<Uuid>,
        owner_since -> Timestamptz,
        epoch -> BigInt,
        retry_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    whatsapp_webhooks (id) {
        id -> Uuid,
        client_id -> Integer,
        phone_number -> Text,
        phone_key -> Text,
        webhook_url -> Text,
        is_active -> Bool,
        status -> Text,
        failure_count -> Integer,
        max_retries -> Integer,
        last_error -> Nullable<Text>,
        last_success_at -> Nullable<Timestamptz>,
        last_attempt_at -> Nullable<Timestamptz>,
        event_types -> Array<Text>,
        metadata -> Jsonb,
        secret -> Bytea,
        previous_secret -> Nullable<Bytea>,
        previous_secret_expires_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        deleted_at -> Nullable<Timestamptz>,
        custom_headers -> Nullable<Bytea>,
        rate_limit_per_second -> Nullable<Integer>,
        max_in_flight -> Integer,
        batch_max_events -> Nullable<Integer>,
        batch_max_wait_ms -> Nullable<Integer>,
        ordered -> Bool,
        allowed_ip_ranges -> Array<Text>,
        inline_media_bytes -> Integer,
    }
}

diesel::table! {
    whatsapp_messages (id) {
        id -> Uuid,
        client_id -> Integer,
        connection_id -> Uuid,
        event_type -> Text,
        message_id -> Text,
        chat -> Text,
        from -> Text,
        to -> Text,
        message_type -> Text,
        content -> Text,
        metadata -> Json,
        timestamp -> Timestamptz,
        raw -> Nullable<Bytea>,
        fan_out -> Integer,
        created_at -> Timestamptz,
        media -> Nullable<Bytea>,
    }
}

diesel::table! {
    whatsapp_webhook_events (id) {
        id -> Uuid,
        sequence -> BigInt,
        client_id -> Integer,
        webhook_id -> Uuid,
        connection_id -> Nullable<Uuid>,
        source_id -> Uuid,
        event_type -> Text,
        message_id -> Text,
        chat -> Text,
        from -> Text,
        to -> Text,
        message_type -> Text,
        content -> Text,
        metadata -> Json,
        timestamp -> Timestamptz,
        status -> Text,
        attempt_count -> Integer,
        claim_token -> Nullable<Uuid>,
        next_retry_at -> Nullable<Timestamptz>,
        parked -> Nullable<Text>,
        http_status -> Nullable<Integer>,
        error -> Nullable<Text>,
        response -> Nullable<Text>,
        created_at -> Timestamptz,
        delivered_at -> Nullable<Timestamptz>,
        order_key -> Nullable<Text>,
        dead_letter_deleted_at -> Nullable<Timestamptz>,
        claimed_until -> Nullable<Timestamptz>,
        message_stored -> Bool,
    }
}

diesel::table! {
    whatsapp_delivery_attempts (id) {
        id -> Uuid,
        event_id -> Uuid,
        client_id -> Integer,
        webhook_id -> Uuid,
        attempt -> Integer,
        started_at -> Timestamptz,
        duration_ms -> Integer,
        http_status -> Nullable<Integer>,
        error_class -> Nullable<Text>,
        error -> Nullable<Text>,
        response -> Nullable<Text>,
        superseded -> Bool,
        batch_id -> Nullable<Uuid>,
        probe -> Bool,
        sequence -> Nullable<BigInt>,
    }
}

diesel::table! {
    whatsapp_dead_letters (event_id) {
        event_id -> Uuid,
        client_id -> Integer,
        webhook_id -> Uuid,
        connection_id -> Nullable<Uuid>,
        source_id -> Uuid,
        event_type -> Text,
        message_id -> Text,
        chat -> Text,
        from -> Text,
        to -> Text,
        message_type -> Text,
        content -> Text,
        metadata -> Json,
        timestamp -> Timestamptz,
        attempt_count -> Integer,
        http_status -> Nullable<Integer>,
        error -> Nullable<Text>,
        response -> Nullable<Text>,
        reason -> Text,
        created_at -> Timestamptz,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    clients,
    client_tokens,
    whatsapp_connections,
    whatsapp_webhooks,
    whatsapp_webhook_events,
    whatsapp_delivery_attempts,
);
