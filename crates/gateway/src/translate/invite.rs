//! Invitations to groups, communities and channels.

use serde::Serialize;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::waproto::whatsapp::message::group_invite_message::GroupType;

use super::content::{Content, said};
use super::parties::Parties;
use super::time;

#[derive(Serialize)]
struct Invite<'a> {
    /// `group`, `community`, `newsletter`, `newsletter_admin`.
    kind: &'static str,
    chat: Option<String>,
    name: Option<&'a str>,
    code: Option<&'a str>,
    expires_at: Option<String>,
}

pub(super) fn of<'a>(message: &'a wa::Message, parties: &Parties<'_>) -> Option<Content<'a>> {
    let (invite, caption) = if let Some(group) = message.group_invite_message.as_option() {
        let invite = Invite {
            kind: match group.group_type {
                Some(GroupType::PARENT) => "community",
                Some(GroupType::DEFAULT) | None => "group",
            },
            chat: parties.name(&group.group_jid),
            name: said(&group.group_name),
            code: said(&group.invite_code),
            expires_at: expiry(group.invite_expiration),
        };
        (invite, &group.caption)
    } else if let Some(admin) = message.newsletter_admin_invite_message.as_option() {
        let invite = Invite {
            kind: "newsletter_admin",
            chat: parties.name(&admin.newsletter_jid),
            name: said(&admin.newsletter_name),
            code: None,
            expires_at: expiry(admin.invite_expiration),
        };
        (invite, &admin.caption)
    } else {
        let follower = message.newsletter_follower_invite_message_v2.as_option()?;
        let invite = Invite {
            kind: "newsletter",
            chat: parties.name(&follower.newsletter_jid),
            name: said(&follower.newsletter_name),
            code: None,
            expires_at: None,
        };
        (invite, &follower.caption)
    };
    let text = said(caption).or(invite.name).unwrap_or_default();
    Some(Content::new("invite", text).with("invite", invite))
}

fn expiry(unix_seconds: Option<i64>) -> Option<String> {
    time::seconds(unix_seconds.filter(|at| *at > 0))
}
