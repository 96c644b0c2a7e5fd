//! A client finds a file gone and asks its account's phone, which puts it back elsewhere.

use anyhow::{Context as _, Result};
use wacore::crypto::hkdf_sha256_into;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Node, NodeRef};
use wacore_libsignal::crypto::{aes_256_gcm_decrypt, aes_256_gcm_encrypt};
use waproto::buffa::Message as _;
use waproto::whatsapp::MediaRetryNotification;
use waproto::whatsapp::media_retry_notification::ResultType;

use super::MediaKey;
use crate::session::Member;
use crate::stanza::{bytes_in, leaf};
use crate::world::unix_time;

/// What a phone answers that doesn't have the file either.
const NOT_FOUND: u8 = 2;

/// Requests and answers are sealed with a key made of the file's.
fn seal(key: &MediaKey) -> Result<[u8; 32]> {
    let mut sealing = [0; 32];
    hkdf_sha256_into(
        key,
        None,
        b"WhatsApp Media Retry Notification",
        &mut sealing,
    )?;
    Ok(sealing)
}

/// `<receipt type=server-error>` about a message's file. Which file that is shows by the key that
/// opens the request; the phone knows all that were made here.
pub(crate) fn asked(member: &Member, node: &NodeRef<'_>, id: &str) -> Result<()> {
    let request = node.get_optional_child("encrypt").context("no request")?;
    let sealed = bytes_in(request, "enc_p").context("no request")?;
    let nonce = bytes_in(request, "enc_iv").context("no nonce")?;
    let nonce: &[u8; 12] = nonce.try_into().context("a nonce has twelve bytes")?;
    let opens = |key: &MediaKey| {
        let mut request = Vec::new();
        seal(key).is_ok_and(|key| {
            aes_256_gcm_decrypt(&key, nonce, id.as_bytes(), sealed, &mut request).is_ok()
        })
    };
    let lost = member.faults().media_lost;
    let found = Some(()).filter(|()| !lost);
    let found = found.and_then(|()| member.world.media.put_back(opens));
    let answer = match found {
        Some((path, key)) => put_back(&path, &key, id)?,
        None => NodeBuilder::new("error").attr("code", NOT_FOUND).build(),
    };
    let mut children = vec![answer];
    // Of which chat and member the message is, as the client has said it.
    children.extend(node.get_optional_child("rmr").map(NodeRef::to_owned));
    let notification = NodeBuilder::new("notification")
        .attr("from", member.account.jid())
        .attr("id", id)
        .attr("t", unix_time())
        .attr("type", "mediaretry")
        .children(children)
        .build();
    member.device.post(&member.world, &notification);
    Ok(())
}

fn put_back(path: &str, key: &MediaKey, id: &str) -> Result<Node> {
    let answer = MediaRetryNotification {
        stanza_id: Some(id.to_owned()),
        direct_path: Some(path.to_owned()),
        result: Some(ResultType::SUCCESS),
        ..Default::default()
    };
    let nonce: [u8; 12] = rand::random();
    let mut sealed = Vec::new();
    let plain = answer.encode_to_vec();
    aes_256_gcm_encrypt(&seal(key)?, &nonce, id.as_bytes(), &plain, &mut sealed)?;
    Ok(NodeBuilder::new("encrypt")
        .children([leaf("enc_p", sealed), leaf("enc_iv", nonce)])
        .build())
}
