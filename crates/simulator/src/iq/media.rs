//! `w:m`: where files are uploaded and fetched.

use wacore_binary::builder::NodeBuilder;

use super::Reply;
use crate::session::Member;
use crate::stanza::empty;

/// The host is the one that the client has connected to.
pub(super) fn connection(member: &Member) -> Reply {
    let host = NodeBuilder::new("host")
        .attr("hostname", member.host.as_str())
        .attr("type", "primary")
        .children([empty("upload"), empty("download")])
        .build();
    let connection = NodeBuilder::new("media_conn")
        .attr("auth", member.world.media.auth.as_str())
        .attr("ttl", 3_600)
        .attr("auth_ttl", 21_600)
        .attr("max_buckets", 12)
        .children([host])
        .build();
    Reply::with(vec![connection])
}
