//! Files.

use whatsapp_rust::waproto::whatsapp::message as proto;

use domain::keyring::Keyring;
use domain::media::Kind;

use super::*;

fn image() -> proto::ImageMessage {
    proto::ImageMessage {
        caption: some("look"),
        mimetype: some("image/jpeg"),
        file_sha256: Some(vec![7; 32]),
        file_enc_sha256: Some(vec![8; 32]),
        media_key: Some(vec![9; 32]),
        direct_path: some("/v/t62"),
        url: some("https://mmg.whatsapp.net/v/t62"),
        file_length: Some(12_345),
        width: Some(640),
        height: Some(480),
        ..Default::default()
    }
}

#[test]
fn an_image_shows_its_caption_and_nothing_that_opens_it() {
    let row = translated(&info(direct()), &holds!(image_message: image()));
    insta::assert_json_snapshot!(content_of(&row), @r#"
    {
      "content": "look",
      "metadata": {
        "media": {
          "height": 480,
          "id": "019ab697-e800-865b-acd4-308d305ac92e",
          "kind": "image",
          "mimetype": "image/jpeg",
          "sha256": "0707070707070707070707070707070707070707070707070707070707070707",
          "size": 12345,
          "width": 640
        }
      },
      "type": "image"
    }
    "#);
    for secret in [
        "t62",
        "media_key",
        "direct_path",
        &hex::encode([9; 32]),
        &hex::encode([8; 32]),
    ] {
        assert!(!row.metadata.contains(secret), "{secret}");
    }
    assert_eq!(row.raw, None);
}

fn file(source: &wa::Message) -> Option<File> {
    message(&owner(), &info(direct()), source, &Numbers::default()).file
}

#[test]
fn what_opens_a_file_stands_sealed_in_its_row() {
    let keyring = Keyring::parse("k:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
    let source = holds!(image_message: image());
    let kept = file(&source).unwrap();
    let translated = message(&owner(), &info(direct()), &source, &Numbers::default());
    let row = translated.sealed(&keyring);
    let opened = File::open(&keyring, row.id, row.media.as_deref().unwrap()).unwrap();
    assert_eq!(opened, kept);
    assert_eq!((opened.kind, opened.size), (Kind::Image, 12_345));
    assert_eq!(opened.direct_path, "/v/t62");
    assert_eq!(
        (opened.media_key.0, opened.file_enc_sha256.0),
        ([9; 32], [8; 32])
    );
}

#[test]
fn each_kind_of_file_is_kept_as_what_it_is_encrypted_as() {
    macro_rules! kept {
        ($field:ident: $message:ident) => {
            file(&holds!($field: proto::$message {
                file_sha256: Some(vec![7; 32]),
                file_enc_sha256: Some(vec![8; 32]),
                media_key: Some(vec![9; 32]),
                direct_path: some("/v/t62"),
                file_length: Some(1),
                ..Default::default()
            }))
            .unwrap()
            .kind
        };
    }
    assert_eq!(kept!(image_message: ImageMessage), Kind::Image);
    assert_eq!(kept!(video_message: VideoMessage), Kind::Video);
    assert_eq!(kept!(ptv_message: VideoMessage), Kind::Video);
    assert_eq!(kept!(audio_message: AudioMessage), Kind::Audio);
    assert_eq!(kept!(document_message: DocumentMessage), Kind::Document);
    assert_eq!(kept!(sticker_message: StickerMessage), Kind::Sticker);
}

#[test]
fn a_file_that_is_not_fully_described_has_no_id() {
    let whole = image();
    let incomplete = [
        proto::ImageMessage {
            media_key: None,
            ..whole.clone()
        },
        proto::ImageMessage {
            media_key: Some(vec![9; 31]),
            ..whole.clone()
        },
        proto::ImageMessage {
            direct_path: some(&"/".repeat(2049)),
            ..whole.clone()
        },
        proto::ImageMessage {
            file_length: None,
            ..whole
        },
    ];
    for image in incomplete {
        let source = holds!(image_message: image);
        assert_eq!(file(&source), None);
        assert_eq!(content(&source)["metadata"]["media"]["id"], Value::Null);
    }
}

#[test]
fn videos_gifs_and_video_notes_are_videos() {
    let video = |gif: bool| proto::VideoMessage {
        mimetype: some("video/mp4"),
        seconds: Some(7),
        gif_playback: Some(gif),
        file_length: Some(99),
        ..Default::default()
    };
    let all = [
        content(&holds!(video_message: video(false))),
        content(&holds!(video_message: video(true))),
        content(&holds!(ptv_message: video(false))),
    ];
    insta::assert_json_snapshot!(all, @r#"
    [
      {
        "content": "",
        "metadata": {
          "media": {
            "duration_seconds": 7,
            "kind": "video",
            "mimetype": "video/mp4",
            "size": 99
          }
        },
        "type": "video"
      },
      {
        "content": "",
        "metadata": {
          "media": {
            "duration_seconds": 7,
            "gif": true,
            "kind": "video",
            "mimetype": "video/mp4",
            "size": 99
          }
        },
        "type": "video"
      },
      {
        "content": "",
        "metadata": {
          "media": {
            "duration_seconds": 7,
            "kind": "video",
            "mimetype": "video/mp4",
            "round": true,
            "size": 99
          }
        },
        "type": "video"
      }
    ]
    "#);
}

#[test]
fn a_voice_message_is_audio_that_was_recorded() {
    let audio = |voice: bool| {
        let audio = proto::AudioMessage {
            mimetype: some("audio/ogg; codecs=opus"),
            seconds: Some(3),
            ptt: Some(voice),
            ..Default::default()
        };
        content(&holds!(audio_message: audio))
    };
    insta::assert_json_snapshot!([audio(true), audio(false)], @r#"
    [
      {
        "content": "",
        "metadata": {
          "media": {
            "duration_seconds": 3,
            "kind": "audio",
            "mimetype": "audio/ogg; codecs=opus",
            "voice": true
          }
        },
        "type": "audio"
      },
      {
        "content": "",
        "metadata": {
          "media": {
            "duration_seconds": 3,
            "kind": "audio",
            "mimetype": "audio/ogg; codecs=opus"
          }
        },
        "type": "audio"
      }
    ]
    "#);
}

#[test]
fn a_document_is_found_in_the_wrapper_that_gives_it_a_caption() {
    let document = proto::DocumentMessage {
        caption: some("the contract"),
        file_name: some("contract.pdf"),
        title: some("Contract"),
        mimetype: some("application/pdf"),
        page_count: Some(4),
        ..Default::default()
    };
    let inner = holds!(document_message: document);
    let message = wraps!(document_with_caption_message: inner);
    insta::assert_json_snapshot!(content(&message), @r#"
    {
      "content": "the contract",
      "metadata": {
        "media": {
          "file_name": "contract.pdf",
          "kind": "document",
          "mimetype": "application/pdf",
          "page_count": 4,
          "title": "Contract"
        }
      },
      "type": "document"
    }
    "#);
}

#[test]
fn a_sticker_says_whether_it_moves() {
    let sticker = proto::StickerMessage {
        mimetype: some("image/webp"),
        is_animated: Some(true),
        emojis: some("😀"),
        width: Some(512),
        height: Some(512),
        ..Default::default()
    };
    let inner = holds!(sticker_message: sticker);
    let message = wraps!(lottie_sticker_message: inner);
    insta::assert_json_snapshot!(content(&message), @r#"
    {
      "content": "",
      "metadata": {
        "media": {
          "animated": true,
          "emojis": "😀",
          "height": 512,
          "kind": "sticker",
          "mimetype": "image/webp",
          "width": 512
        }
      },
      "type": "sticker"
    }
    "#);
}

#[test]
fn what_may_be_seen_once_says_so_whichever_way_it_is_wrapped() {
    let inner = || holds!(image_message: image());
    let mut flagged = inner();
    flagged.image_message.get_or_insert_default().view_once = Some(true);
    let once = [
        wraps!(view_once_message: inner()),
        wraps!(view_once_message_v2: inner()),
        wraps!(view_once_message_v2_extension: inner()),
        wraps!(ephemeral_message: wraps!(view_once_message: inner())),
        flagged,
    ];
    for message in &once {
        let shown = content(message);
        assert_eq!(shown["type"], "image");
        assert_eq!(shown["metadata"]["view_once"], true);
    }
    assert_eq!(content(&inner())["metadata"].get("view_once"), None);
}

#[test]
fn an_album_is_announced_and_its_pictures_say_that_they_are_a_part_of_it() {
    let album = proto::AlbumMessage {
        expected_image_count: Some(2),
        expected_video_count: Some(1),
        ..Default::default()
    };
    let mut picture = holds!(image_message: image());
    let context = picture.message_context_info.get_or_insert_default();
    context.message_secret = Some(vec![1; 32]);
    context.message_association = MessageField::some(wa::MessageAssociation {
        association_type: Some(wa::message_association::AssociationType::MEDIA_ALBUM),
        parent_message_key: MessageField::some(wa::MessageKey {
            id: some("ALBUM"),
            from_me: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    });
    let all = [
        content(&holds!(album_message: album)),
        content(&wraps!(associated_child_message: picture)),
    ];
    insta::assert_json_snapshot!(all, @r#"
    [
      {
        "content": "",
        "metadata": {
          "album": {
            "images": 2,
            "videos": 1
          }
        },
        "type": "album"
      },
      {
        "content": "look",
        "metadata": {
          "media": {
            "height": 480,
            "id": "019ab697-e800-865b-acd4-308d305ac92e",
            "kind": "image",
            "mimetype": "image/jpeg",
            "sha256": "0707070707070707070707070707070707070707070707070707070707070707",
            "size": 12345,
            "width": 640
          },
          "part_of": {
            "kind": "media_album",
            "message_id": "ALBUM",
            "participant": "5511999999999"
          }
        },
        "type": "image"
      }
    ]
    "#);
}

#[test]
fn a_sticker_pack_is_described() {
    let pack = proto::StickerPackMessage {
        sticker_pack_id: some("pack-1"),
        name: some("Cats"),
        publisher: some("Bia"),
        stickers: vec![Default::default(); 3],
        ..Default::default()
    };
    insta::assert_json_snapshot!(content(&holds!(sticker_pack_message: pack)), @r#"
    {
      "content": "Cats",
      "metadata": {
        "sticker_pack": {
          "id": "pack-1",
          "name": "Cats",
          "publisher": "Bia",
          "stickers": 3
        }
      },
      "type": "sticker_pack"
    }
    "#);
}
