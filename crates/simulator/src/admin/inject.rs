//! What a sane server never says, said to an account's devices.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;
use wacore_binary::Node;
use wacore_binary::builder::NodeBuilder;

use super::accounts::subject;
use super::{Answer, Refused, parse};
use crate::connection::Outlet;
use crate::stanza::{message_id, stream_error};
use crate::world::{World, unix_time};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamError {
    code: Option<String>,
    conflict: Option<String>,
    /// The client has to hang up itself.
    #[serde(default)]
    stay: bool,
}

/// `<stream:error>`, and the end of the connection.
pub(super) async fn end_stream(
    world: web::Data<World>,
    phone: web::Path<String>,
    request: HttpRequest,
    body: web::Bytes,
) -> Answer {
    let wanted: StreamError = parse(&body)?;
    if wanted.code.is_none() && wanted.conflict.is_none() {
        return Err(Refused::bad_request("a code, a conflict, or both"));
    }
    let error = stream_error(wanted.code.as_deref(), wanted.conflict.as_deref());
    said(&world, &phone, &request, |outlet| {
        outlet.send(&error, 0);
        if !wanted.stay {
            outlet.close_soon();
        }
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Injection {
    kind: Kind,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// In a frame of the connection, bytes that are no stanza.
    MalformedStanza,
    /// A stanza that nobody knows.
    UnknownStanza,
    /// Stanzas without what every one of their kind has.
    IncompleteStanzas,
    /// A message whose `<enc>` is noise.
    GarbageEnc,
    /// A message with neither `<enc>` nor anything else.
    EmptyMessage,
    /// A frame under another key.
    WrongKey,
    /// A frame that ends early, and with it the connection.
    TruncatedFrame,
}

pub(super) async fn inject(
    world: web::Data<World>,
    phone: web::Path<String>,
    request: HttpRequest,
    body: web::Bytes,
) -> Answer {
    let Injection { kind } = parse(&body)?;
    said(&world, &phone, &request, |outlet| kind.say(outlet))
}

fn said(world: &World, phone: &str, request: &HttpRequest, say: impl Fn(&Outlet)) -> Answer {
    let (_, devices) = subject(world, phone, request)?;
    let mut told = 0;
    for device in &devices {
        if let Some(outlet) = &device.lock().outlet {
            say(outlet);
            told += 1;
        }
    }
    Ok(HttpResponse::Ok().json(json!({ "connections": told })))
}

impl Kind {
    fn say(self, outlet: &Outlet) {
        match self {
            Self::MalformedStanza => {
                // A list of 200, of which nothing follows.
                outlet.deliver(vec![0, 0xf8, 200, 0xff, 0x81, 0x03].into(), 0, None);
            }
            Self::UnknownStanza => outlet.send(&named("surprise").build(), 0),
            Self::IncompleteStanzas => {
                for tag in [
                    "message",
                    "receipt",
                    "notification",
                    "iq",
                    "call",
                    "ib",
                    "ack",
                ] {
                    outlet.send(&NodeBuilder::new(tag).build(), 0);
                }
            }
            Self::GarbageEnc => {
                for kind in ["msg", "pkmsg", "skmsg", "riddle"] {
                    outlet.send(&message(Some(kind)), 0);
                }
            }
            Self::EmptyMessage => outlet.send(&message(None), 0),
            Self::WrongKey => {
                let mut frame = vec![0, 0, 64];
                frame.extend(rand::random::<[u8; 32]>());
                frame.extend(rand::random::<[u8; 32]>());
                outlet.garbage(frame);
            }
            Self::TruncatedFrame => {
                outlet.garbage(vec![0, 1, 0, 1, 2, 3]);
                outlet.close();
            }
        }
    }
}

fn named(tag: &'static str) -> NodeBuilder {
    NodeBuilder::new(tag)
        .attr("from", "5511900000000@s.whatsapp.net")
        .attr("id", message_id())
        .attr("t", unix_time())
}

fn message(enc: Option<&'static str>) -> Node {
    let message = named("message").attr("type", "text");
    let Some(kind) = enc else {
        return message.build();
    };
    let noise: [u8; 32] = rand::random();
    let enc = NodeBuilder::new("enc")
        .attr("v", 2)
        .attr("type", kind)
        .bytes([noise, rand::random()].concat());
    message.children([enc.build()]).build()
}
