//! What messages say beside their content.

use whatsapp_rust::waproto::whatsapp::message as proto;

use super::*;

fn in_context(context: wa::ContextInfo) -> wa::Message {
    let text = proto::ExtendedTextMessage {
        text: some("yes"),
        context_info: MessageField::some(context),
        ..Default::default()
    };
    holds!(extended_text_message: text)
}

#[test]
fn an_answer_shows_what_it_answers() {
    let quoted = holds!(image_message: proto::ImageMessage {
        caption: some("this one?"),
        media_key: Some(vec![9; 32]),
        ..Default::default()
    });
    insta::assert_json_snapshot!(content(&in_context(wa::ContextInfo {
        stanza_id: some("QUOTED"),
        participant: some("5511888888888@s.whatsapp.net"),
        quoted_message: MessageField::some(quoted),
        ..Default::default()
    })), @r#"
    {
      "content": "yes",
      "metadata": {
        "quoted": {
          "message_id": "QUOTED",
          "participant": "5511888888888",
          "text": "this one?",
          "type": "image"
        }
      },
      "type": "text"
    }
    "#);
}

#[test]
fn an_answer_to_a_status_names_its_chat() {
    insta::assert_json_snapshot!(content(&in_context(wa::ContextInfo {
        stanza_id: some("STATUS"),
        participant: some("5511888888888@s.whatsapp.net"),
        remote_jid: some("status@broadcast"),
        quoted_message: MessageField::some(wa::Message::default()),
        ..Default::default()
    })), @r#"
    {
      "content": "yes",
      "metadata": {
        "quoted": {
          "chat": "status@broadcast",
          "message_id": "STATUS",
          "participant": "5511888888888",
          "type": "unsupported"
        }
      },
      "type": "text"
    }
    "#);
}

#[test]
fn mentions_are_numbers_where_they_are_known_and_lids_where_not() {
    let context = wa::ContextInfo {
        mentioned_jid: vec![
            "5511777777777@s.whatsapp.net".to_owned(),
            "300000000000003@lid".to_owned(),
            "100000012345678@lid".to_owned(),
            "not an address".to_owned(),
        ],
        group_mentions: vec![wa::GroupMention {
            group_jid: some("120363021033254949@g.us"),
            group_subject: some("Family"),
        }],
        non_jid_mentions: Some(1),
        ..Default::default()
    };
    insta::assert_json_snapshot!(content(&in_context(context)), @r#"
    {
      "content": "yes",
      "metadata": {
        "group_mentions": [
          {
            "chat": "120363021033254949@g.us",
            "name": "Family"
          }
        ],
        "mentions": [
          "5511777777777",
          "300000000000003@lid",
          "5511999999999"
        ],
        "mentions_all": true
      },
      "type": "text"
    }
    "#);
}

#[test]
fn what_was_forwarded_says_how_often_and_from_which_channel() {
    insta::assert_json_snapshot!(content(&in_context(wa::ContextInfo {
        is_forwarded: Some(true),
        forwarding_score: Some(127),
        forwarded_newsletter_message_info: MessageField::some(
            wa::context_info::ForwardedNewsletterMessageInfo {
                newsletter_jid: some("120363000000000001@newsletter"),
                newsletter_name: some("News"),
                ..Default::default()
            },
        ),
        ..Default::default()
    })), @r#"
    {
      "content": "yes",
      "metadata": {
        "forwarded": {
          "newsletter": {
            "chat": "120363000000000001@newsletter",
            "name": "News"
          },
          "score": 127
        }
      },
      "type": "text"
    }
    "#);
}

#[test]
fn who_comes_from_an_advertisement_brings_it_along() {
    insta::assert_json_snapshot!(content(&in_context(wa::ContextInfo {
        external_ad_reply: MessageField::some(wa::context_info::ExternalAdReplyInfo {
            title: some("Lamps"),
            body: some("Light for all"),
            source_type: some("ad"),
            source_id: some("1200"),
            source_url: some("https://fb.me/1200"),
            media_type: Some(wa::context_info::external_ad_reply_info::MediaType::IMAGE),
            ctwa_clid: some("Afd"),
            r#ref: some("summer"),
            thumbnail: Some(vec![1; 4000]),
            ..Default::default()
        }),
        entry_point_conversion_source: some("ctwa_ad"),
        entry_point_conversion_app: some("facebook"),
        ..Default::default()
    })), @r#"
    {
      "content": "yes",
      "metadata": {
        "entry_point": {
          "app": "facebook",
          "source": "ctwa_ad"
        },
        "referral": {
          "body": "Light for all",
          "ctwa_clid": "Afd",
          "headline": "Lamps",
          "media_type": "image",
          "ref": "summer",
          "source_id": "1200",
          "source_type": "ad",
          "source_url": "https://fb.me/1200"
        }
      },
      "type": "text"
    }
    "#);
}

#[test]
fn a_message_that_vanishes_says_when() {
    let context = wa::ContextInfo {
        expiration: Some(604_800),
        ..Default::default()
    };
    let shown = content(&in_context(context));
    assert_eq!(shown["metadata"]["ephemeral_seconds"], 604_800);
    let mut stanza = info(direct());
    stanza.ephemeral_expiration = Some(86_400);
    let row = translated(&stanza, &says("hi"));
    assert_eq!(content_of(&row)["metadata"]["ephemeral_seconds"], 86_400);
}

#[test]
fn a_comment_names_what_it_comments_on() {
    let comment = proto::CommentMessage {
        message: MessageField::some(says("first!")),
        target_message_key: MessageField::some(wa::MessageKey {
            id: some("POST"),
            from_me: Some(false),
            participant: some("300000000000003@lid"),
            ..Default::default()
        }),
    };
    let message = holds!(comment_message: comment);
    insta::assert_json_snapshot!(content_of(&translated(&info(family()), &message)), @r#"
    {
      "content": "first!",
      "metadata": {
        "comment": {
          "message_id": "POST",
          "participant": "300000000000003@lid"
        }
      },
      "type": "text"
    }
    "#);
}

#[test]
fn a_links_preview_is_shown_with_the_text() {
    let text = proto::ExtendedTextMessage {
        text: some("see https://example.com"),
        matched_text: some("https://example.com"),
        title: some("Example"),
        description: some("A domain for examples"),
        media_key: Some(vec![1; 32]),
        ..Default::default()
    };
    insta::assert_json_snapshot!(content(&holds!(extended_text_message: text)), @r#"
    {
      "content": "see https://example.com",
      "metadata": {
        "link": {
          "description": "A domain for examples",
          "title": "Example",
          "url": "https://example.com"
        }
      },
      "type": "text"
    }
    "#);
}
