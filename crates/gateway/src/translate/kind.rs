//! What a message that is not understood is called.

use whatsapp_rust::waproto::buffa::Enumeration;
use whatsapp_rust::waproto::whatsapp as wa;

/// The field that the message came in; what the devices of an account or a chat tell each other has
/// its own type behind it. `None` when this build knows nothing of what is set.
pub(super) fn of(message: &wa::Message) -> Option<String> {
    let field = field(message)?;
    let protocol = message.protocol_message.as_option();
    Some(match protocol.and_then(|protocol| protocol.r#type) {
        Some(kind) if field == "protocol_message" => format!("{field}.{}", word(kind)),
        _ => field.to_owned(),
    })
}

/// A protobuf's name for one of several things, as this API writes names.
pub(super) fn word(value: impl Enumeration) -> String {
    value.proto_name().to_ascii_lowercase()
}

macro_rules! fields {
    ($($field:ident)+) => {
        /// The field's name in the protobuf, in snake case. Wrappers and what travels beside a message come
        /// last.
        fn field(message: &wa::Message) -> Option<&'static str> {
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

fields! {
    extended_text_message image_message video_message ptv_message audio_message document_message
    sticker_message sticker_pack_message album_message location_message live_location_message
    contact_message contacts_array_message reaction_message enc_reaction_message poll_creation_message
    poll_creation_message_v2 poll_creation_message_v3 poll_creation_message_v5 poll_creation_message_v6
    poll_update_message poll_add_option_message poll_result_snapshot_message
    poll_result_snapshot_message_v3 list_message list_response_message buttons_message
    buttons_response_message template_message template_button_reply_message interactive_message
    interactive_response_message highly_structured_message product_message order_message
    invoice_message send_payment_message request_payment_message decline_payment_request_message
    cancel_payment_request_message payment_invite_message payment_reminder_message
    split_payment_message group_invite_message newsletter_admin_invite_message
    newsletter_follower_invite_message_v2 event_message event_invite_message
    enc_event_response_message keep_in_chat_message pin_in_chat_message request_phone_number_message
    scheduled_call_creation_message scheduled_call_edit_message call call_log_messsage bcall_message
    comment_message enc_comment_message placeholder_message secret_encrypted_message
    conditional_reveal_message message_history_bundle message_history_notice rich_response_message
    sticker_sync_rmr_message status_notification_message status_question_answer_message
    question_response_message status_quoted_message status_sticker_interaction_message chat
    protocol_message group_root_key_share root_secret_distribute_message document_with_caption_message
    edited_message ephemeral_message view_once_message view_once_message_v2
    view_once_message_v2_extension group_mentioned_message bot_invoke_message bot_task_message
    bot_forwarded_message lottie_sticker_message event_cover_image status_mention_message
    status_add_yours poll_creation_option_image_message poll_creation_message_v4
    associated_child_message group_status_message group_status_message_v2
    group_status_mention_message limit_sharing_message question_message question_reply_message
    spoiler_message newsletter_admin_profile_message newsletter_admin_profile_message_v2
    newsletter_admin_profile_status_message device_sent_message
}
