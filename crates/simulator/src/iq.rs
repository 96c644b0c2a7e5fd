//! Questions of a logged-in client. What isn't known gets the protocol's own error, except that
//! settings (`type=set`) are accepted in silence.

use anyhow::Result;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Node, NodeRef};

use crate::device_list;
use crate::faults::{Fate, Step};
use crate::journal::{Batch, Position};
use crate::session::Member;
use crate::stanza::{empty, iq_error, iq_result, required, text};

mod groups;
mod keys;
mod media;
mod usync;

pub(crate) use keys::{phone_keys, warn_of_few_prekeys};

/// What a question leads to: children of the result, or an error, once a position is durable.
pub(crate) struct Reply {
    content: Result<Vec<Node>, (u16, &'static str)>,
    position: Position,
}

impl Reply {
    fn with(children: Vec<Node>) -> Self {
        Self {
            content: Ok(children),
            position: 0,
        }
    }

    fn done() -> Self {
        Self::with(vec![])
    }

    fn error(code: u16, text: &'static str) -> Self {
        Self {
            content: Err((code, text)),
            position: 0,
        }
    }

    fn after(mut self, position: Position) -> Self {
        self.position = position;
        self
    }
}

pub(crate) fn answer(member: &Member, node: &NodeRef<'_>) -> Result<()> {
    let kind = text(node, "type").unwrap_or_default();
    if kind == "result" || kind == "error" {
        return Ok(());
    }
    let id = required(node, "id")?;
    if node.get_optional_child("active").is_some() {
        match member.fate(Step::Passive) {
            Fate::GoesOn => {}
            Fate::Silent => return Ok(()),
            Fate::Closed => {
                member.outlet.close();
                return Ok(());
            }
        }
    }
    let topic = text(node, "xmlns").unwrap_or_default();
    let reply = match topic.as_str() {
        "encrypt" => keys::answer(member, node)?,
        "usync" => usync::answer(member, node)?,
        "w:g2" => groups::answer(member, node, &kind)?,
        "w:sync:app:state" => app_state(node),
        "md" if node.get_optional_child("remove-companion-device").is_some() => {
            return log_out(member, &id);
        }
        "passive" | "w:p" => Reply::done(),
        "w:m" if node.get_optional_child("media_conn").is_some() => media::connection(member),
        "abt" => Reply::with(vec![props()]),
        "w" => Reply::with(vec![empty("props")]),
        "blocklist" => Reply::with(vec![
            NodeBuilder::new("list").attr("matched", "false").build(),
        ]),
        "privacy" => privacy(node),
        _ if kind == "set" => Reply::done(),
        _ => Reply::error(501, "feature-not-implemented"),
    };
    let stanza = match reply.content {
        Ok(children) => iq_result(&id, children),
        Err((code, text)) => {
            tracing::debug!(xmlns = topic, code, "a question without an answer");
            iq_error(&id, code, text)
        }
    };
    member.reply(&stanza, reply.position);
    if topic == "passive" && node.get_optional_child("active").is_some() {
        member.activate();
    }
    keys::share_app_state_key_when_due(member, &topic, node)
}

/// No A/B tests run here.
fn props() -> Node {
    NodeBuilder::new("props")
        .attr("protocol", 1)
        .attr("ab_key", "")
        .attr("hash", "")
        .attr("refresh", 86_400)
        .attr("refresh_id", 1)
        .build()
}

fn privacy(node: &NodeRef<'_>) -> Reply {
    if node.get_optional_child("tokens").is_some() {
        return Reply::with(vec![empty("tokens")]);
    }
    const SETTINGS: [&str; 6] = [
        "last",
        "online",
        "profile",
        "status",
        "groupadd",
        "readreceipts",
    ];
    let categories = SETTINGS.map(|name| {
        NodeBuilder::new("category")
            .attr("name", name)
            .attr("value", "all")
            .build()
    });
    Reply::with(vec![
        NodeBuilder::new("privacy").children(categories).build(),
    ])
}

/// Every collection is empty, and stays so: patches are accepted and not kept.
fn app_state(node: &NodeRef<'_>) -> Reply {
    let collections = node.get_optional_child("sync").into_iter();
    let collections = collections.flat_map(|sync| sync.get_children_by_tag("collection"));
    let collections = collections.map(|collection| {
        NodeBuilder::new("collection")
            .attr("name", text(collection, "name").unwrap_or_default())
            .attr("version", text(collection, "version").unwrap_or("0".into()))
            .attr("type", "result")
            .build()
    });
    let sync = NodeBuilder::new("sync").children(collections).build();
    Reply::with(vec![sync])
}

/// The device leaves its account.
fn log_out(member: &Member, id: &str) -> Result<()> {
    let mut batch = Batch::default();
    if let Some(device) = member.account.remove_device(member.device.id) {
        device.erase(&device.lock(), &mut batch);
    }
    let position = member.world.journal.commit(batch);
    member.reply(&iq_result(id, vec![]), position);
    member.outlet.close_soon();
    device_list::announce(&member.account)?;
    tracing::info!(
        phone = member.account.phone,
        device = member.device.id,
        "logged out by itself"
    );
    Ok(())
}
