//! What a message says about itself beside its content: what it answers, whom it mentions, where it was
//! forwarded from, what advertisement it came from, how long it lasts.

use serde::Serialize;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::waproto::whatsapp::context_info::ExternalAdReplyInfo;
use whatsapp_rust::waproto::whatsapp::context_info::external_ad_reply_info::MediaType;

use super::bounds::ITEMS;
use super::change::{Target, elsewhere};
use super::content::{self, Content, flag, said};
use super::kind;
use super::parties::Parties;
use super::wrapper::{Unwrapped, unwrap};

#[derive(Serialize)]
struct Quoted<'a> {
    message_id: &'a str,
    /// Who wrote it.
    participant: Option<String>,
    /// Where it is, if that is another chat.
    chat: Option<String>,
    r#type: Option<&'static str>,
    text: Option<String>,
}

#[derive(Serialize)]
struct GroupMention<'a> {
    chat: Option<String>,
    name: Option<&'a str>,
}

#[derive(Serialize)]
struct Forwarded<'a> {
    /// How often; from 127 on WhatsApp says "many times".
    score: u32,
    /// The channel that it comes from.
    newsletter: Option<Newsletter<'a>>,
}

#[derive(Serialize)]
struct Newsletter<'a> {
    chat: Option<String>,
    name: Option<&'a str>,
}

/// An advertisement that the sender came from, or a card that looks like one.
#[derive(Serialize)]
struct Referral<'a> {
    source_type: Option<&'a str>,
    source_id: Option<&'a str>,
    source_url: Option<&'a str>,
    source_app: Option<&'a str>,
    headline: Option<&'a str>,
    body: Option<&'a str>,
    media_type: Option<&'static str>,
    media_url: Option<&'a str>,
    image_url: Option<&'a str>,
    thumbnail_url: Option<&'a str>,
    ctwa_clid: Option<&'a str>,
    r#ref: Option<&'a str>,
}

/// How the sender came to write, as WhatsApp names it.
#[derive(Serialize)]
struct EntryPoint<'a> {
    source: &'a str,
    app: Option<&'a str>,
}

#[derive(Serialize)]
struct PartOf<'a> {
    #[serde(flatten)]
    whole: Target<'a>,
    kind: Option<String>,
}

/// Adds what belongs to the message, whatever it is.
pub(super) fn add(content: &mut Content<'_>, unwrapped: &Unwrapped<'_>, parties: &Parties<'_>) {
    if unwrapped.view_once {
        content.put("view_once", true);
    }
    let comment = parties.info().comment_target.as_ref();
    if let Some(key) = unwrapped.commented.or(comment) {
        content.put("comment", Target::of(key, parties));
    }
    if let Some(association) = unwrapped.association {
        let whole = association.parent_message_key.as_option();
        content.put(
            "part_of",
            whole.map(|key| PartOf {
                whole: Target::of(key, parties),
                kind: association.association_type.map(kind::word),
            }),
        );
    }
    let context = of(unwrapped.message);
    let expiration = context.and_then(|context| context.expiration);
    let expiration = expiration.or(parties.info().ephemeral_expiration);
    if let Some(seconds) = expiration.filter(|seconds| *seconds > 0) {
        let kept = content.details.entry("ephemeral_seconds");
        kept.or_insert_with(|| seconds.into());
    }
    if let Some(context) = context {
        add_context(content, context, parties);
    }
}

fn add_context(content: &mut Content<'_>, context: &wa::ContextInfo, parties: &Parties<'_>) {
    content.put("quoted", quoted(context, parties));
    if !context.mentioned_jid.is_empty() {
        let mentioned = context.mentioned_jid.iter().take(ITEMS + 1);
        let mentions = mentioned.filter_map(|address| parties.name(&Some(address.clone())));
        content.put("mentions", mentions.collect::<Vec<_>>());
    }
    if !context.group_mentions.is_empty() {
        let groups = context.group_mentions.iter().map(|group| GroupMention {
            chat: parties.name(&group.group_jid),
            name: said(&group.group_subject),
        });
        content.put("group_mentions", groups.collect::<Vec<_>>());
    }
    let all = context.non_jid_mentions.map(|how_many| how_many > 0);
    content.put("mentions_all", flag(all));
    content.put("forwarded", forwarded(context, parties));
    let ad = context.external_ad_reply.as_option();
    content.put("referral", ad.map(referral));
    let source = said(&context.entry_point_conversion_source);
    content.put(
        "entry_point",
        source.map(|source| EntryPoint {
            source,
            app: said(&context.entry_point_conversion_app),
        }),
    );
}

fn quoted<'a>(context: &'a wa::ContextInfo, parties: &Parties<'_>) -> Option<Quoted<'a>> {
    let message_id = said(&context.stanza_id)?;
    let message = context.quoted_message.as_option();
    let shown = message.map(|message| content::lasting(unwrap(message).message, parties));
    let (kind, text) = match shown {
        Some(Some(quoted)) => (
            Some(quoted.message_type),
            Some(quoted.text.into_owned()).filter(|text| !text.is_empty()),
        ),
        Some(None) => (Some("unsupported"), None),
        None => (None, None),
    };
    Some(Quoted {
        message_id,
        participant: parties.name(&context.participant),
        chat: elsewhere(&context.remote_jid, parties),
        r#type: kind,
        text,
    })
}

fn forwarded<'a>(context: &'a wa::ContextInfo, parties: &Parties<'_>) -> Option<Forwarded<'a>> {
    let newsletter = context.forwarded_newsletter_message_info.as_option();
    let score = context.forwarding_score.unwrap_or_default();
    let is_forwarded = context.is_forwarded == Some(true) || score > 0 || newsletter.is_some();
    is_forwarded.then(|| Forwarded {
        score,
        newsletter: newsletter.map(|newsletter| Newsletter {
            chat: parties.name(&newsletter.newsletter_jid),
            name: said(&newsletter.newsletter_name),
        }),
    })
}

fn referral(ad: &ExternalAdReplyInfo) -> Referral<'_> {
    Referral {
        source_type: said(&ad.source_type),
        source_id: said(&ad.source_id),
        source_url: said(&ad.source_url),
        source_app: said(&ad.source_app),
        headline: said(&ad.title),
        body: said(&ad.body),
        media_type: match ad.media_type {
            Some(MediaType::IMAGE) => Some("image"),
            Some(MediaType::VIDEO) => Some("video"),
            Some(MediaType::NONE) | None => None,
        },
        media_url: said(&ad.media_url),
        image_url: said(&ad.original_image_url),
        thumbnail_url: said(&ad.thumbnail_url),
        ctwa_clid: said(&ad.ctwa_clid),
        r#ref: said(&ad.r#ref),
    }
}

/// The addresses of people that a message names beside its sender.
pub(super) fn people(message: &wa::Message) -> impl Iterator<Item = &str> {
    let context = of(message);
    let quoted = context.and_then(|context| context.participant.as_deref());
    let mentioned = context
        .into_iter()
        .flat_map(|context| &context.mentioned_jid);
    let keys = [
        &message.reaction_message.key,
        &message.protocol_message.key,
        &message.poll_update_message.poll_creation_message_key,
    ];
    let keys = keys
        .into_iter()
        .filter_map(|key| key.participant.as_deref());
    quoted
        .into_iter()
        .chain(keys)
        .chain(mentioned.map(String::as_str))
}

/// The context of a message, or of an edited one's new form.
fn of(message: &wa::Message) -> Option<&wa::ContextInfo> {
    let new = message.protocol_message.edited_message.as_option();
    new.and_then(|new| find(unwrap(new).message))
        .or_else(|| find(message))
}

macro_rules! first_context {
    ($message:ident: $($field:ident)+) => {
        None$(.or_else(|| $message.$field.context_info.as_option()))+
    };
}

fn find(message: &wa::Message) -> Option<&wa::ContextInfo> {
    first_context!(message:
        extended_text_message image_message video_message ptv_message audio_message document_message
        sticker_message sticker_pack_message album_message location_message live_location_message
        contact_message contacts_array_message poll_creation_message poll_creation_message_v2
        poll_creation_message_v3 poll_creation_message_v5 poll_creation_message_v6
        poll_result_snapshot_message poll_result_snapshot_message_v3 list_message
        list_response_message buttons_message buttons_response_message template_message
        template_button_reply_message interactive_message interactive_response_message
        product_message order_message group_invite_message newsletter_admin_invite_message
        newsletter_follower_invite_message_v2 event_message event_invite_message
        request_phone_number_message
    )
}
