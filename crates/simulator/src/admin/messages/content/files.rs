//! Files, of which nothing but their description exists.

use waproto::buffa::MessageField;
use waproto::whatsapp::Message;
use waproto::whatsapp::message::{
    AlbumMessage, AudioMessage, DocumentMessage, ImageMessage, StickerMessage, VideoMessage,
};

use super::{Type, Writing, wrapped};

/// A file's description, as all of them have it.
macro_rules! file {
    ($message:ident, $mimetype:literal $(, $field:ident: $value:expr)*) => {
        MessageField::some($message {
            mimetype: Some($mimetype.to_owned()),
            url: Some("https://mmg.whatsapp.net/v/t62.7118-24/simulated.enc".to_owned()),
            direct_path: Some("/v/t62.7118-24/simulated.enc".to_owned()),
            media_key: Some(vec![1; 32]),
            file_sha256: Some(vec![2; 32]),
            file_enc_sha256: Some(vec![3; 32]),
            file_length: Some(12_345),
            $($field: $value,)*
            ..$message::default()
        })
    };
}

pub(super) fn of(kind: Type, writing: &Writing<'_>) -> Option<Message> {
    let caption = writing.text();
    let mut message = Message::default();
    match kind {
        Type::Image => {
            message.image_message = file!(ImageMessage, "image/jpeg", caption: caption,
                width: Some(1280), height: Some(960));
        }
        Type::Video | Type::Gif => {
            message.video_message = file!(VideoMessage, "video/mp4", caption: caption,
                width: Some(640), height: Some(480), seconds: Some(7),
                gif_playback: Some(kind == Type::Gif));
        }
        Type::VideoNote => {
            message.ptv_message = file!(VideoMessage, "video/mp4", width: Some(400),
                height: Some(400), seconds: Some(7));
        }
        Type::Audio => {
            message.audio_message = file!(AudioMessage, "audio/mp4", seconds: Some(180));
        }
        Type::Voice => {
            message.audio_message = file!(AudioMessage, "audio/ogg; codecs=opus",
                seconds: Some(4), ptt: Some(true));
        }
        Type::Document => {
            let captioned = caption.is_some();
            message.document_message = file!(DocumentMessage, "application/pdf", caption: caption,
                file_name: Some("document.pdf".to_owned()), title: Some("Document".to_owned()),
                page_count: Some(2));
            if captioned {
                return Some(Message {
                    document_with_caption_message: wrapped(message),
                    ..Message::default()
                });
            }
        }
        Type::Sticker => {
            message.sticker_message = file!(StickerMessage, "image/webp", width: Some(512),
                height: Some(512), is_animated: Some(false));
        }
        Type::Album => {
            message.album_message = MessageField::some(AlbumMessage {
                expected_image_count: Some(2),
                ..AlbumMessage::default()
            });
        }
        _ => return None,
    }
    Some(message)
}
