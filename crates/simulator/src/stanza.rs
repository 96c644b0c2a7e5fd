//! Reading and writing stanzas.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Jid, Node, NodeRef};

/// The server's own address.
pub(crate) const SERVER: &str = "s.whatsapp.net";

/// A stanza as it goes into a frame.
pub(crate) fn encode(node: &Node) -> Bytes {
    let bytes = wacore_binary::marshal(node).expect("a Vec takes every node");
    Bytes::from(bytes)
}

pub(crate) fn text(node: &NodeRef<'_>, attribute: &str) -> Option<String> {
    Some(node.get_attr(attribute)?.as_str().into_owned())
}

pub(crate) fn required(node: &NodeRef<'_>, attribute: &str) -> Result<String> {
    text(node, attribute).with_context(|| format!("<{}> without {attribute}", node.tag))
}

pub(crate) fn jid(node: &NodeRef<'_>, attribute: &str) -> Option<Jid> {
    node.get_attr(attribute)?.to_jid()
}

/// The bytes in the child of that name.
pub(crate) fn bytes_in<'n>(node: &'n NodeRef<'_>, child: &str) -> Option<&'n [u8]> {
    node.get_optional_child(child)?.content_bytes()
}

/// An unsigned number of at most four bytes, big-endian.
pub(crate) fn number(bytes: &[u8]) -> Option<u32> {
    let mut whole = [0; 4];
    let start = 4usize.checked_sub(bytes.len())?;
    whole[start..].copy_from_slice(bytes);
    Some(u32::from_be_bytes(whole))
}

/// `<tag>bytes</tag>`
pub(crate) fn leaf(tag: &'static str, bytes: impl Into<Vec<u8>>) -> Node {
    NodeBuilder::new(tag).bytes(bytes).build()
}

pub(crate) fn empty(tag: &'static str) -> Node {
    NodeBuilder::new(tag).build()
}

pub(crate) fn iq_result(id: &str, children: Vec<Node>) -> Node {
    let iq = NodeBuilder::new("iq")
        .attr("from", SERVER)
        .attr("type", "result")
        .attr("id", id);
    match children.is_empty() {
        true => iq.build(),
        false => iq.children(children).build(),
    }
}

pub(crate) fn iq_error(id: &str, code: u16, text: &str) -> Node {
    let error = NodeBuilder::new("error")
        .attr("code", code)
        .attr("text", text)
        .build();
    NodeBuilder::new("iq")
        .attr("from", SERVER)
        .attr("type", "error")
        .attr("id", id)
        .children([error])
        .build()
}

/// `<ib><tag …/></ib>`
pub(crate) fn ib(child: Node) -> Node {
    NodeBuilder::new("ib")
        .attr("from", SERVER)
        .children([child])
        .build()
}

/// `<stream:error>` with a code, a conflict, or both.
pub(crate) fn stream_error(code: Option<&str>, conflict: Option<&str>) -> Node {
    let mut error = NodeBuilder::new("stream:error");
    if let Some(code) = code {
        error = error.attr("code", code);
    }
    if let Some(kind) = conflict {
        let conflict = NodeBuilder::new("conflict").attr("type", kind).build();
        error = error.children([conflict]);
    }
    error.build()
}

/// A WhatsApp message id as phones make them.
pub(crate) fn message_id() -> String {
    use std::fmt::Write as _;
    let mut id = String::with_capacity(22);
    id.push_str("3EB0");
    for byte in rand::random::<[u8; 9]>() {
        let _ = write!(id, "{byte:02X}");
    }
    id
}
