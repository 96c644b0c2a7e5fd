//! Files: images, videos, sound, documents, stickers.
//!
//! What is needed to fetch one (its key and path) is no part of a row's metadata: it goes beside the row, as a
//! [`File`], to be sealed.

use domain::media::{Bytes32, File, Kind};
use serde::Serialize;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::waproto::whatsapp::message as proto;

use super::content::{Content, flag, said};
use super::kind;

/// What can be said of a file without having it.
#[derive(Serialize, Default)]
pub(super) struct Media<'a> {
    kind: &'static str,
    mimetype: Option<&'a str>,
    /// Bytes.
    size: Option<u64>,
    /// Of the file itself, in hex.
    sha256: Option<String>,
    file_name: Option<&'a str>,
    title: Option<&'a str>,
    width: Option<u32>,
    height: Option<u32>,
    duration_seconds: Option<u32>,
    page_count: Option<u32>,
    /// Recorded with the microphone button.
    voice: Option<bool>,
    /// A video that is shown as a GIF.
    gif: Option<bool>,
    /// A round video note.
    round: Option<bool>,
    animated: Option<bool>,
    emojis: Option<&'a str>,
}

macro_rules! file {
    ($kind:literal, $file:expr $(, $field:ident: $value:expr)*) => {
        Media {
            kind: $kind,
            mimetype: said(&$file.mimetype),
            size: $file.file_length,
            sha256: digest($file.file_sha256.as_deref()),
            $($field: $value,)*
            ..Media::default()
        }
    };
}

/// Characters of a path, and bytes of a name: phones stay far below.
const LONGEST_PATH: usize = 2048;
const LONGEST_NAME: usize = 1024;

/// What it takes to have a file; `None` where some of it was not said. (The file of a channel has no key.)
macro_rules! located {
    ($kind:ident, $file:expr, $name:expr) => {
        located(
            Kind::$kind,
            &$file.direct_path,
            [&$file.media_key, &$file.file_enc_sha256, &$file.file_sha256],
            $file.file_length,
            [said(&$file.mimetype), $name],
        )
    };
}

fn located(
    kind: Kind,
    path: &Option<String>,
    secrets: [&Option<Vec<u8>>; 3],
    size: Option<u64>,
    [mimetype, file_name]: [Option<&str>; 2],
) -> Option<File> {
    let path = path.as_ref().filter(|path| path.len() <= LONGEST_PATH)?;
    let [media_key, file_enc_sha256, file_sha256] =
        secrets.map(|bytes| Bytes32::try_from(bytes.as_deref()?).ok());
    let bounded = |text: &str| text[..text.floor_char_boundary(LONGEST_NAME)].to_owned();
    Some(File {
        kind,
        direct_path: path.clone(),
        media_key: media_key?,
        file_enc_sha256: file_enc_sha256?,
        file_sha256: file_sha256?,
        size: size?,
        mimetype: mimetype.map(bounded),
        file_name: file_name.map(bounded),
    })
}

fn digest(sha256: Option<&[u8]>) -> Option<String> {
    let sha256 = sha256.filter(|bytes| bytes.len() == 32)?;
    Some(hex::encode(sha256))
}

pub(super) fn image(image: &proto::ImageMessage) -> Media<'_> {
    file!("image", image, width: image.width, height: image.height)
}

pub(super) fn video(video: &proto::VideoMessage) -> Media<'_> {
    file!("video", video, width: video.width, height: video.height,
        duration_seconds: video.seconds, gif: flag(video.gif_playback))
}

pub(super) fn document(document: &proto::DocumentMessage) -> Media<'_> {
    file!("document", document, file_name: said(&document.file_name), title: said(&document.title),
        page_count: document.page_count)
}

fn audio(audio: &proto::AudioMessage) -> Media<'_> {
    file!("audio", audio, duration_seconds: audio.seconds, voice: flag(audio.ptt))
}

fn sticker(sticker: &proto::StickerMessage) -> Media<'_> {
    let lottie = flag(sticker.is_lottie);
    file!("sticker", sticker, width: sticker.width, height: sticker.height,
        animated: flag(sticker.is_animated).or(lottie), emojis: said(&sticker.emojis))
}

pub(super) fn of(message: &wa::Message) -> Option<Content<'_>> {
    if let Some(file) = message.image_message.as_option() {
        let once = flag(file.view_once);
        let found = located!(Image, file, None);
        Some(content("image", &file.caption, image(file), found).with("view_once", once))
    } else if let Some(file) = message.video_message.as_option() {
        Some(film(file, video(file)))
    } else if let Some(file) = message.ptv_message.as_option() {
        let note = Media {
            round: Some(true),
            ..video(file)
        };
        Some(film(file, note))
    } else if let Some(file) = message.audio_message.as_option() {
        let once = flag(file.view_once);
        let found = located!(Audio, file, None);
        Some(content("audio", &None, audio(file), found).with("view_once", once))
    } else if let Some(file) = message.document_message.as_option() {
        let found = located!(Document, file, said(&file.file_name));
        Some(content("document", &file.caption, document(file), found))
    } else if let Some(file) = message.sticker_message.as_option() {
        let found = located!(Sticker, file, None);
        Some(content("sticker", &None, sticker(file), found))
    } else {
        several(message)
    }
}

fn film<'a>(file: &'a proto::VideoMessage, media: Media<'a>) -> Content<'a> {
    let once = flag(file.view_once);
    let found = located!(Video, file, None);
    content("video", &file.caption, media, found).with("view_once", once)
}

fn content<'a>(
    message_type: &'static str,
    caption: &'a Option<String>,
    media: Media<'a>,
    file: Option<File>,
) -> Content<'a> {
    Content {
        file,
        ..Content::new(message_type, said(caption).unwrap_or_default()).with("media", media)
    }
}

#[derive(Serialize)]
struct Album {
    images: u32,
    videos: u32,
}

#[derive(Serialize)]
struct StickerPack<'a> {
    id: Option<&'a str>,
    name: Option<&'a str>,
    publisher: Option<&'a str>,
    description: Option<&'a str>,
    stickers: usize,
    origin: Option<String>,
}

/// An album's pictures follow as messages of their own, which say of which album they are a part.
fn several(message: &wa::Message) -> Option<Content<'_>> {
    if let Some(album) = message.album_message.as_option() {
        let album = Album {
            images: album.expected_image_count.unwrap_or_default(),
            videos: album.expected_video_count.unwrap_or_default(),
        };
        return Some(Content::new("album", "").with("album", album));
    }
    let pack = message.sticker_pack_message.as_option()?;
    let text = said(&pack.caption).or(said(&pack.name)).unwrap_or_default();
    let details = StickerPack {
        id: said(&pack.sticker_pack_id),
        name: said(&pack.name),
        publisher: said(&pack.publisher),
        description: said(&pack.pack_description),
        stickers: pack.stickers.len(),
        origin: pack.sticker_pack_origin.map(kind::word),
    };
    Some(Content::new("sticker_pack", text).with("sticker_pack", details))
}
