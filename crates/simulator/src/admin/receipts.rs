//! Contacts, or an account's other devices, say what became of messages.

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::json;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node};

use super::{Answer, OneOrMany, Refused, group_id, paired, parse, written};
use crate::account::Account;
use crate::delivery::Addressing;
use crate::world::{World, phone_number, unix_time};

/// So many ids go into one stanza.
const CHUNK: usize = 256;
/// More than this in one call is a mistake.
const MAX_IDS: usize = 100_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    account: String,
    from: OneOrMany,
    ids: Vec<String>,
    kind: Kind,
    group: Option<String>,
    /// In a group: who of it, when `from` isn't that.
    participant: Option<String>,
    #[serde(default)]
    addressing: Addressing,
    /// All of `from` in one stanza for each message.
    #[serde(default)]
    aggregated: bool,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Delivered,
    Inactive,
    Read,
    Played,
    ServerError,
    /// Another device of the account has what was sent.
    Sender,
    ReadSelf,
    PlayedSelf,
}

impl Kind {
    fn wire(self) -> Option<&'static str> {
        match self {
            Self::Delivered => None,
            Self::Inactive => Some("inactive"),
            Self::Read => Some("read"),
            Self::Played => Some("played"),
            Self::ServerError => Some("server-error"),
            Self::Sender => Some("sender"),
            Self::ReadSelf => Some("read-self"),
            Self::PlayedSelf => Some("played-self"),
        }
    }

    fn is_own(self) -> bool {
        matches!(self, Self::Sender | Self::ReadSelf | Self::PlayedSelf)
    }
}

/// Who says it, by the name the stanza uses, and by the other one.
fn named(account: &Account, addressing: Addressing) -> (Jid, Jid) {
    match addressing {
        Addressing::Pn => (account.jid(), account.lid_jid()),
        Addressing::Lid | Addressing::LidOnly => (account.lid_jid(), account.jid()),
    }
}

impl Request {
    fn stanza(&self, id: &str) -> NodeBuilder {
        let receipt = NodeBuilder::new("receipt")
            .attr("id", id)
            .attr("t", unix_time());
        match self.kind.wire() {
            Some(kind) => receipt.attr("type", kind),
            None => receipt,
        }
    }

    /// One stanza for up to [`CHUNK`] messages.
    fn simple(
        &self,
        account: &Account,
        who: &Account,
        group: Option<&Jid>,
        ids: &[String],
    ) -> Node {
        let mut receipt = self.stanza(&ids[0]);
        let speaker = if self.kind.is_own() { account } else { who };
        let (by, beside) = named(speaker, self.addressing);
        receipt = match group {
            Some(group) => receipt.attr("from", group.clone()).attr("participant", by),
            None => receipt.attr("from", by),
        };
        if group.is_some() && self.addressing == Addressing::Lid {
            receipt = receipt.attr("participant_pn", beside);
        }
        if group.is_none() && self.kind.is_own() {
            receipt = receipt.attr("recipient", named(who, self.addressing).0);
        }
        let items = ids[1..].iter();
        let items: Vec<Node> = items
            .map(|id| NodeBuilder::new("item").attr("id", id.as_str()).build())
            .collect();
        match items.is_empty() {
            true => receipt.build(),
            false => {
                let list = NodeBuilder::new("list").children(items).build();
                receipt.children([list]).build()
            }
        }
    }

    /// What all of them say of one message.
    fn aggregate(&self, everyone: &[std::sync::Arc<Account>], group: &Jid, id: &str) -> Node {
        let users = everyone.iter().map(|who| {
            let (by, beside) = named(who, self.addressing);
            let user = NodeBuilder::new("user")
                .attr("jid", by)
                .attr("t", unix_time());
            match self.addressing {
                Addressing::Lid => user.attr("participant_pn", beside).build(),
                _ => user.build(),
            }
        });
        let participants = NodeBuilder::new("participants")
            .attr("key", id)
            .children(users)
            .build();
        self.stanza(id)
            .attr("from", group.clone())
            .children([participants])
            .build()
    }
}

/// Sends the receipts to every device of the account; those that are away get them later.
pub(super) async fn send(world: web::Data<World>, body: web::Bytes) -> Answer {
    let request: Request = parse(&body)?;
    if !(1..=MAX_IDS).contains(&request.ids.len()) {
        return Err(Refused::bad_request(format!("ids: 1 to {MAX_IDS} of them")));
    }
    let account = paired(&world, &request.account)?;
    let group = match &request.group {
        Some(group) => {
            let found = world.groups.find(group_id(group));
            let found = found.ok_or_else(|| Refused::not_found(format!("no group {group}")))?;
            Some(Jid::group(found.id.as_str()))
        }
        None => None,
    };
    let numbers = match &request.participant {
        Some(_) if group.is_none() => {
            return Err(Refused::bad_request("participant is of a group"));
        }
        Some(one) => std::slice::from_ref(one),
        None => request.from.numbers(),
    };
    let mut everyone = Vec::new();
    for number in numbers {
        let number = phone_number(number).map_err(Refused::bad_request)?;
        everyone.push(world.account(&number).map_err(Refused::bad_request)?);
    }
    let stanzas: Vec<Node> = match (&group, request.aggregated) {
        (Some(group), true) => {
            let ids = request.ids.iter();
            ids.map(|id| request.aggregate(&everyone, group, id))
                .collect()
        }
        (None, true) => return Err(Refused::bad_request("aggregated receipts are of a group")),
        (group, false) => {
            let chunks = |who| {
                let chunks = request.ids.chunks(CHUNK);
                let group = group.as_ref();
                let request = &request;
                let account = &account;
                chunks.map(move |ids| request.simple(account, who, group, ids))
            };
            everyone.iter().flat_map(|who| chunks(who)).collect()
        }
    };
    for device in account.devices() {
        for stanza in &stanzas {
            device.post(&world, stanza);
        }
    }
    written(&world).await?;
    Ok(HttpResponse::Ok().json(json!({ "stanzas": stanzas.len() })))
}
