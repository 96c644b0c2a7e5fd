//! Messages inside of messages: wrappers that say how long or how often one may be seen, what it belongs
//! to, or that it was written on another device of the account.

use whatsapp_rust::waproto::whatsapp as wa;

/// Real messages have two or three wrappers around them.
const DEEPEST: usize = 16;

/// A message without its wrappers, and what they said.
#[derive(Clone, Copy)]
pub(super) struct Unwrapped<'a> {
    pub(super) message: &'a wa::Message,
    pub(super) view_once: bool,
    /// It is the new form of an earlier message.
    pub(super) edited: bool,
    /// The message that this one comments on.
    pub(super) commented: Option<&'a wa::MessageKey>,
    /// What it is a part of, such as an album.
    pub(super) association: Option<&'a wa::MessageAssociation>,
}

macro_rules! inside {
    ($message:ident: $($field:ident)+) => {
        None$(.or_else(|| $message.$field.as_option().and_then(|wrapper| wrapper.message.as_option())))+
    };
}

/// What stands inside of all wrappers; where there are too many, the wrapper at which it was given up.
pub(super) fn unwrap(message: &wa::Message) -> Unwrapped<'_> {
    let mut unwrapped = Unwrapped {
        message,
        view_once: false,
        edited: false,
        commented: None,
        association: None,
    };
    for _ in 0..DEEPEST {
        if !unwrapped.peel() {
            break;
        }
    }
    unwrapped
}

impl<'a> Unwrapped<'a> {
    fn peel(&mut self) -> bool {
        let message = self.message;
        let association = message.message_context_info.message_association.as_option();
        self.association = self.association.or(association);
        let once =
            inside!(message: view_once_message view_once_message_v2 view_once_message_v2_extension);
        let edited = inside!(message: edited_message);
        let comment = inside!(message: comment_message);
        if comment.is_some() {
            self.commented = message.comment_message.target_message_key.as_option();
        }
        self.view_once |= once.is_some();
        self.edited |= edited.is_some();
        let inner = once.or(edited).or(comment).or_else(|| other(message));
        self.message = inner.unwrap_or(message);
        inner.is_some()
    }
}

fn other(message: &wa::Message) -> Option<&wa::Message> {
    inside!(message:
        device_sent_message ephemeral_message document_with_caption_message group_mentioned_message
        bot_invoke_message bot_task_message bot_forwarded_message lottie_sticker_message
        event_cover_image status_mention_message status_add_yours poll_creation_option_image_message
        poll_creation_message_v4 associated_child_message group_status_message group_status_message_v2
        group_status_mention_message limit_sharing_message question_message question_reply_message
        spoiler_message newsletter_admin_profile_message newsletter_admin_profile_message_v2
        newsletter_admin_profile_status_message
    )
}
