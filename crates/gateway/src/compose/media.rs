//! Messages with a file. What only somebody who looks into the file could say (its width, its length in
//! seconds, a small picture of it) is left out: phones find it out when they have it.

use domain::media::Kind;
use domain::outbox::Attachment;
use whatsapp_rust::buffa::MessageField;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::waproto::whatsapp::message as part;

use crate::files::Placed;

/// Where phones look for a file that was received before.
const MEDIA_HOST: &str = "https://mmg.whatsapp.net";

macro_rules! described {
    ($message:ident, $placed:expr, $context:expr $(, $field:ident: $value:expr)*) => {{
        let (file, fresh) = (&$placed.file, $placed.fresh.as_ref());
        MessageField::some(part::$message {
            url: Some(match fresh {
                Some(fresh) => fresh.url.clone(),
                None => format!("{MEDIA_HOST}{}", file.direct_path),
            }),
            direct_path: Some(file.direct_path.clone()),
            mimetype: file.mimetype.clone(),
            media_key: Some(file.media_key.0.to_vec()),
            media_key_timestamp: fresh.map(|fresh| fresh.keyed_at),
            file_sha256: Some(file.file_sha256.0.to_vec()),
            file_enc_sha256: Some(file.file_enc_sha256.0.to_vec()),
            file_length: Some(file.size),
            context_info: $context,
            $($field: $value,)*
            ..Default::default()
        })
    }};
}

pub(super) fn of(
    attachment: &Attachment,
    placed: &Placed,
    context: MessageField<wa::ContextInfo>,
) -> wa::Message {
    let caption = attachment.caption.clone();
    let sidecar = || {
        placed
            .fresh
            .as_ref()
            .and_then(|fresh| fresh.sidecar.clone())
    };
    let mut message = wa::Message::default();
    match attachment.kind {
        Kind::Image => {
            message.image_message = described!(ImageMessage, placed, context, caption: caption);
        }
        Kind::Video => {
            message.video_message = described!(VideoMessage, placed, context, caption: caption,
                streaming_sidecar: sidecar());
        }
        Kind::Audio => {
            message.audio_message = described!(AudioMessage, placed, context,
                ptt: Some(attachment.voice), streaming_sidecar: sidecar());
        }
        Kind::Document => {
            let name = placed.file.file_name.clone();
            let document = described!(DocumentMessage, placed, context, caption: caption,
                title: name.clone(), file_name: name);
            message.document_message = document;
        }
        Kind::Sticker => {
            message.sticker_message = described!(StickerMessage, placed, context);
        }
    }
    message
}
