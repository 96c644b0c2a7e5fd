//! Calls: a contact rings, a device answers, someone hangs up. Only the signalling; there is no
//! sound.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use serde::Serialize;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node, NodeRef};
use waproto::buffa::{Message as _, MessageField};
use waproto::whatsapp::Message;

use crate::account::Account;
use crate::delivery::{self, Addressing};
use crate::device::Device;
use crate::ledger::rfc3339;
use crate::session::Member;
use crate::stanza::{jid, message_id, required, text};
use crate::world::{World, unix_millis, unix_time};

/// So many calls are remembered.
const MAX_CALLS: usize = 10_000;
/// What a phone can do, as a real one says it.
const CAPABILITY: [u8; 7] = [0x01, 0x05, 0xf7, 0x09, 0xe0, 0xbb, 0x13];

/// A call and what became of it.
#[derive(Clone, Serialize)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) video: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    /// How it names the contact.
    #[serde(skip)]
    addressing: Addressing,
    pub(crate) started_at: String,
    pub(crate) ended_at: Option<String>,
    /// What devices said to it: `accept`, `reject`, `terminate` …
    pub(crate) answers: Vec<String>,
}

#[derive(Default)]
pub(crate) struct Calls {
    recent: Mutex<VecDeque<Call>>,
}

impl Calls {
    fn add(&self, call: Call) {
        let mut recent = self.recent.lock().expect("no panic here");
        if recent.len() == MAX_CALLS {
            recent.pop_front();
        }
        recent.push_back(call);
    }

    pub(crate) fn list(&self, to: Option<&str>) -> Vec<Call> {
        let recent = self.recent.lock().expect("no panic here");
        let wanted = |call: &&Call| to.is_none_or(|to| call.to == to);
        recent.iter().filter(wanted).cloned().collect()
    }

    fn change<T>(&self, id: &str, change: impl FnOnce(&mut Call) -> T) -> Option<T> {
        let mut recent = self.recent.lock().expect("no panic here");
        // The newest are the ones that are spoken of.
        let call = recent.iter_mut().rev().find(|call| call.id == id)?;
        Some(change(call))
    }

    fn answered(&self, id: &str, answer: &str) {
        const MAX_ANSWERS: usize = 100;
        self.change(id, |call| {
            if call.answers.len() < MAX_ANSWERS {
                call.answers.push(answer.to_owned());
            }
        });
    }
}

/// The contact calls: every device of the account rings.
pub(crate) fn ring(
    world: &World,
    account: &Account,
    contact: &Account,
    video: bool,
    group: Option<&str>,
    addressing: Addressing,
) -> Result<Call> {
    let call = Call {
        id: hex(&rand::random::<[u8; 16]>()),
        from: contact.phone.clone(),
        to: account.phone.clone(),
        video,
        group: group.map(|group| format!("{group}@g.us")),
        addressing,
        started_at: rfc3339(unix_millis()),
        ended_at: None,
        answers: vec![],
    };
    world.calls.add(call.clone());
    for device in account.devices() {
        let offer = offer(world, contact, &device, &call)?;
        device.post(world, &stanza(contact, addressing, offer));
    }
    Ok(call)
}

fn offer(world: &World, contact: &Account, device: &Arc<Device>, call: &Call) -> Result<Node> {
    let key = Message {
        call: MessageField::some(waproto::whatsapp::message::Call {
            call_key: Some(rand::random::<[u8; 32]>().to_vec()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let sealed = delivery::seal_for(world, contact, device, &key.encode_to_vec())?;
    let audio = ["8000", "16000"].map(|rate| {
        NodeBuilder::new("audio")
            .attr("enc", "opus")
            .attr("rate", rate)
            .build()
    });
    let mut children = audio.to_vec();
    if call.video {
        let video = NodeBuilder::new("video")
            .attr("enc", "h264")
            .attr("dec", "h264")
            .attr("orientation", 0)
            .attr("screen_width", 1920)
            .attr("screen_height", 1080)
            .attr("device_orientation", 0);
        children.push(video.build());
    }
    children.extend([
        NodeBuilder::new("net").attr("medium", 3).build(),
        NodeBuilder::new("capability")
            .attr("ver", 1)
            .bytes(CAPABILITY)
            .build(),
        NodeBuilder::new("enc")
            .attr("v", 2)
            .attr("type", sealed.kind)
            .attr("count", 0)
            .bytes(sealed.bytes)
            .build(),
        NodeBuilder::new("encopt").attr("keygen", 2).build(),
    ]);
    let mut offer = action("offer", contact, call)
        .attr("device_class", "2016")
        .attr("joinable", 1);
    if call.addressing != Addressing::LidOnly {
        offer = offer.attr("caller_pn", contact.jid());
    }
    if let Some(group) = &call.group {
        offer = offer.attr("group-jid", group.parse::<Jid>()?);
    }
    Ok(offer.children(children).build())
}

/// Whoever called hangs up, or the server says who else took it. `None`: no such call.
pub(crate) fn terminate(
    world: &World,
    id: &str,
    reason: Option<&str>,
    duration: Option<u32>,
) -> Result<Option<Call>> {
    let ended = world.calls.change(id, |call| {
        call.ended_at.get_or_insert(rfc3339(unix_millis()));
        call.clone()
    });
    let Some(call) = ended else {
        return Ok(None);
    };
    let contact = world.account(&call.from)?;
    let mut terminate = action("terminate", &contact, &call);
    if let Some(reason) = reason {
        terminate = terminate.attr("reason", reason);
    }
    if let Some(seconds) = duration {
        terminate = terminate
            .attr("duration", seconds)
            .attr("audio_duration", seconds);
    }
    let stanza = stanza(&contact, call.addressing, terminate.build());
    for device in world.account(&call.to)?.devices() {
        device.post(world, &stanza);
    }
    Ok(Some(call))
}

fn named(account: &Account, addressing: Addressing) -> Jid {
    match addressing {
        Addressing::Pn => account.jid(),
        Addressing::Lid | Addressing::LidOnly => account.lid_jid(),
    }
}

fn action(tag: &'static str, creator: &Account, call: &Call) -> NodeBuilder {
    NodeBuilder::new(tag)
        .attr("call-id", call.id.as_str())
        .attr("call-creator", named(creator, call.addressing))
}

fn stanza(from: &Account, addressing: Addressing, action: Node) -> Node {
    NodeBuilder::new("call")
        .attr("from", named(from, addressing))
        .attr("id", message_id())
        .attr("t", unix_time())
        .attr("notify", from.standing().name)
        .attr("platform", "android")
        .attr("version", "2.25.1.1")
        .children([action])
        .build()
}

/// `<call>` of a client: noted with the call that it is about, and acknowledged.
pub(crate) fn heard(member: &Member, node: &NodeRef<'_>) -> Result<()> {
    let action = node.children().and_then(|children| children.first());
    let kind = action.map(|action| action.tag.to_string());
    if let (Some(action), Some(kind)) = (action, &kind)
        && let Some(id) = text(action, "call-id")
    {
        member.world.calls.answered(&id, kind);
    }
    let mut ack = NodeBuilder::new("ack")
        .attr("class", "call")
        .attr("id", required(node, "id")?)
        .attr("t", unix_time());
    if let Some(to) = jid(node, "to") {
        ack = ack.attr("from", to);
    }
    if let Some(kind) = kind {
        ack = ack.attr("type", kind);
    }
    member.acknowledge(ack.build(), 0);
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02X}");
    }
    text
}
