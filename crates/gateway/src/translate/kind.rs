//! The protobuf field that a message came in.

use whatsapp_rust::waproto::whatsapp as wa;

macro_rules! kinds {
    ($($field:ident)+) => {
        /// The field's name in the protobuf, in snake case; `None` when this build knows none that is set.
        /// Wrappers and what travels beside a message come last.
        pub(super) fn of(message: &wa::Message) -> Option<&'static str> {
            if message.conversation.is_some() {
                return Some("conversation");
            }
            $(if message.$field.is_set() {
                return Some(stringify!($field));
            })+
            None
        }
    };
}

kinds! {
    extended_text_message image_message video_message audio_message document_message sticker_message
    location_message live_location_message contact_message contacts_array_message reaction_message
    enc_reaction_message poll_creation_message poll_creation_message_v2 poll_creation_message_v3
    poll_creation_message_v5 poll_update_message poll_result_snapshot_message list_message
    list_response_message buttons_message buttons_response_message template_message
    template_button_reply_message interactive_message interactive_response_message
    highly_structured_message product_message order_message invoice_message send_payment_message
    request_payment_message decline_payment_request_message cancel_payment_request_message
    payment_invite_message group_invite_message keep_in_chat_message pin_in_chat_message
    request_phone_number_message scheduled_call_creation_message scheduled_call_edit_message
    call call_log_messsage bcall_message ptv_message album_message sticker_pack_message event_message
    enc_event_response_message comment_message enc_comment_message newsletter_admin_invite_message
    placeholder_message secret_encrypted_message message_history_bundle message_history_notice
    rich_response_message sticker_sync_rmr_message chat protocol_message
    document_with_caption_message edited_message group_mentioned_message bot_invoke_message
    lottie_sticker_message event_cover_image status_mention_message group_status_message
    ephemeral_message view_once_message view_once_message_v2 view_once_message_v2_extension
    device_sent_message
}
