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

/// What is shown of a file, and what it takes to have it, where that was said.
pub(super) struct Found<'a> {
    media: Media<'a>,
    file: Option<File>,
}

pub(super) fn image(image: &proto::ImageMessage) -> Found<'_> {
    let media = file!("image", image, width: image.width, height: image.height);
    let file = located!(Image, image, None);
    Found { media, file }
}

pub(super) fn video(video: &proto::VideoMessage) -> Found<'_> {
    let media = file!("video", video, width: video.width, height: video.height,
        duration_seconds: video.seconds, gif: flag(video.gif_playback));
    let file = located!(Video, video, None);
    Found { media, file }
}

pub(super) fn document(document: &proto::DocumentMessage) -> Found<'_> {
    let name = said(&document.file_name);
    let media = file!("document", document, file_name: name, title: said(&document.title),
        page_count: document.page_count);
    let file = located!(Document, document, name);
    Found { media, file }
}

fn audio(audio: &proto::AudioMessage) -> Found<'_> {
    let media = file!("audio", audio, duration_seconds: audio.seconds, voice: flag(audio.ptt));
    let file = located!(Audio, audio, None);
    Found { media, file }
}

fn sticker(sticker: &proto::StickerMessage) -> Found<'_> {
    let lottie = flag(sticker.is_lottie);
    let media = file!("sticker", sticker, width: sticker.width, height: sticker.height,
        animated: flag(sticker.is_animated).or(lottie), emojis: said(&sticker.emojis));
    let file = located!(Sticker, sticker, None);
    Found { media, file }
}

pub(super) fn of(message: &wa::Message) -> Option<Content<'_>> {
    if let Some(file) = message.image_message.as_option() {
        let once = flag(file.view_once);
        Some(content("image", &file.caption, image(file)).with("view_once", once))
    } else if let Some(file) = message.video_message.as_option() {
        Some(film(file, video(file)))
    } else if let Some(file) = message.ptv_message.as_option() {
        let mut note = video(file);
        note.media.round = Some(true);
        Some(film(file, note))
    } else if let Some(file) = message.audio_message.as_option() {
        let once = flag(file.view_once);
        Some(content("audio", &None, audio(file)).with("view_once", once))
    } else if let Some(file) = message.document_message.as_option() {
        Some(content("document", &file.caption, document(file)))
    } else if let Some(file) = message.sticker_message.as_option() {
        Some(content("sticker", &None, sticker(file)))
    } else {
        several(message)
    }
}

fn film<'a>(file: &'a proto::VideoMessage, found: Found<'a>) -> Content<'a> {
    let once = flag(file.view_once);
    content("video", &file.caption, found).with("view_once", once)
}

fn content<'a>(
    message_type: &'static str,
    caption: &'a Option<String>,
    found: Found<'a>,
) -> Content<'a> {
    attached(
        Content::new(message_type, said(caption).unwrap_or_default()),
        Some(found),
    )
}

/// The content with a file of its own.
pub(super) fn attached<'a>(content: Content<'a>, found: Option<Found<'a>>) -> Content<'a> {
    match found {
        Some(Found { media, file }) => Content {
            file,
            ..content.with("media", media)
        },
        None => content,
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
