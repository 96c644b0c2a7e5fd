//! What is inside an `<enc>`, and the `<enc>` itself.

use anyhow::{Context as _, Result};
use wacore::messages::MessageUtils;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node, NodeContent, OwnedNodeRef};
use wacore_libsignal::protocol::PreKeySignalMessage;
use waproto::buffa::{Message as _, MessageField};
use waproto::whatsapp::Message;
use waproto::whatsapp::message::SenderKeyDistributionMessage;

use crate::handset::Sealed;
use crate::stanza::encode;

/// A length-delimited field of a protobuf.
pub(super) fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 12);
    for mut value in [u64::from(number << 3 | 2), bytes.len() as u64] {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }
    out.extend_from_slice(bytes);
    out
}

/// A sender key in a message, alone or with what was written.
pub(super) fn distribution(group: &str, key: Vec<u8>, content: Option<&[u8]>) -> Vec<u8> {
    let message = Message {
        sender_key_distribution_message: MessageField::some(SenderKeyDistributionMessage {
            group_id: Some(Jid::group(group).to_string()),
            axolotl_sender_key_distribution_message: Some(key),
        }),
        ..Default::default()
    };
    let mut bytes = message.encode_to_vec();
    // Protobufs that follow one another are one message.
    bytes.extend_from_slice(content.unwrap_or_default());
    bytes
}

/// The same stanza around another ciphertext.
pub(super) fn with_enc(stanza: &[u8], enc: Node) -> Result<Vec<u8>> {
    let node = OwnedNodeRef::new(stanza[1..].to_vec())?;
    let mut node = node.to_owned_node();
    node.content = Some(NodeContent::Nodes(vec![enc]));
    Ok(encode(&node).to_vec())
}

pub(super) fn pad(content: &[u8]) -> Vec<u8> {
    MessageUtils::pad_message_v2(content.to_vec())
}

pub(super) fn enc(sealed: &Sealed, count: Option<u32>) -> Node {
    let mut enc = NodeBuilder::new("enc")
        .attr("v", 2)
        .attr("type", sealed.kind);
    if let Some(count) = count {
        enc = enc.attr("count", count);
    }
    enc.bytes(sealed.bytes.as_slice()).build()
}

/// Spoils the MAC or the signature; the envelope around it stays readable.
pub(super) fn damaged(sealed: &Sealed, corrupt: bool) -> Result<Sealed> {
    let mut bytes = sealed.bytes.clone();
    if corrupt {
        let mut end = bytes.len();
        if sealed.kind == "pkmsg" {
            let outer = PreKeySignalMessage::try_from(sealed.bytes.as_slice())?;
            let inner = outer.message().serialized();
            let at = bytes.windows(inner.len()).position(|part| part == inner);
            end = at.context("a pkmsg holds its message")? + inner.len();
        }
        bytes[end - 1] ^= 0xff;
    }
    Ok(Sealed {
        kind: sealed.kind,
        bytes,
    })
}
