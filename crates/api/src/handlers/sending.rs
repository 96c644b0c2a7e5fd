//! Sending: a request is written down, the gateway that holds the session sends it, and the same row tells
//! what came of it.

use actix_web::HttpResponse;
use actix_web::web::Data;
use diesel_async::AsyncPgConnection;
use domain::connection::{Connection, Status};
use domain::media::Kind as MediaKind;
use domain::outbox::{Body as Sent, Content, NewOutgoing, Outgoing, Target};
use domain::phone::Phone;
use domain::recipient::Recipient;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use uuid::Uuid;

use super::attachments::Attached;
use super::connections::NO_CONNECTION;
use crate::auth::Caller;
use crate::error::{ApiError, Kind, Problem};
use crate::extract::{Body, IdempotencyKey, parsed};
use crate::openapi::{answers, schema, values};
use crate::state::State;
use crate::wait;

/// What WhatsApp takes.
const LONGEST_TEXT: usize = 65_536;
const LONGEST_NAME: usize = 1_000;
const LONGEST_EMOJI: usize = 64;

/// What a request says, of which there is one.
pub(crate) const ONE_OF: [&str; 8] = [
    "text", "location", "contact", "reaction", "image", "video", "audio", "document",
];

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "a JSON object")]
pub(crate) struct Send {
    /// Whose session sends it.
    user_id: Uuid,
    #[serde(deserialize_with = "parsed")]
    #[schema(value_type = values::Recipient)]
    to: Recipient,
    /// Of at most 65,536 bytes.
    #[schema(min_length = 1, max_length = 65_536)]
    text: Option<String>,
    location: Option<Location>,
    contact: Option<Contact>,
    reaction: Option<Reaction>,
    image: Option<Attached>,
    video: Option<Attached>,
    audio: Option<Attached>,
    document: Option<Attached>,
    /// The id of a message that this one answers.
    reply_to: Option<String>,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Location {
    #[schema(minimum = -90, maximum = 90)]
    latitude: f64,
    #[schema(minimum = -180, maximum = 180)]
    longitude: f64,
    #[schema(min_length = 1, max_length = 1_000)]
    name: Option<String>,
    #[schema(min_length = 1, max_length = 1_000)]
    address: Option<String>,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Contact {
    #[schema(min_length = 1, max_length = 1_000)]
    name: String,
    #[serde(deserialize_with = "parsed")]
    #[schema(value_type = values::PhoneNumber)]
    phone_number: Phone,
}

#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Reaction {
    message_id: String,
    /// At most 64 bytes. Empty: the reaction is taken back.
    #[schema(max_length = 64)]
    emoji: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Sent)]
pub(crate) struct Answer<'a> {
    #[schema(schema_with = sent)]
    status: &'a str,
    /// WhatsApp's.
    message_id: &'a str,
}

/// Send a message
///
/// One of `text`, `location`, `contact`, `reaction`, `image`, `video`, `audio` and `document`. Waits for WhatsApp's answer.
/// What becomes of the message are `message.receipt` events.
#[utoipa::path(
    post,
    path = "/api/whatsapp/send",
    operation_id = "send_message",
    tag = "WhatsApp",
    params(IdempotencyKey),
    request_body(content = Send, examples(
        ("text" = (value = json!({
            "user_id": "6f1d3c1e-0b1c-4b56-9f7e-2f0f5b3c9a01", "to": "5511999999999", "text": "Olá!",
        }))),
        ("image" = (value = json!({
            "user_id": "6f1d3c1e-0b1c-4b56-9f7e-2f0f5b3c9a01", "to": "5511999999999",
            "image": {"url": "https://example.com/lamp.jpg", "caption": "This one?"},
        }))),
        ("reaction" = (value = json!({
            "user_id": "6f1d3c1e-0b1c-4b56-9f7e-2f0f5b3c9a01", "to": "5511999999999",
            "reaction": {"message_id": "3EB0F2C1D4A59B", "emoji": "👍"},
        }))),
    )),
    security(("bearer" = ["send"])),
    responses(
        (status = 200, description = "WhatsApp has it.", body = Answer),
        (status = 202, description = "It is written down, and WhatsApp has not confirmed it yet.", body = Answer),
        (status = 409, description = "The session is not connected.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The key was used for another message, WhatsApp did not take it, or it is not known whether it did.", body = Problem, content_type = "application/problem+json"),
        answers::Missing,
        answers::Body,
        answers::Caller,
    )
)]
pub(crate) async fn send(
    state: Data<State>,
    Caller(client): Caller,
    IdempotencyKey(key): IdempotencyKey,
    Body(request): Body<Send>,
) -> Result<HttpResponse, ApiError> {
    let asked = serde_json::to_vec(&request)?;
    let known = match key.as_deref() {
        Some(key) => {
            let mut conn = state.connection().await?;
            Outgoing::of_key(&mut conn, client.id, key).await?
        }
        None => None,
    };
    // What is looked up for a request may have changed since it came first.
    let outgoing = match known {
        Some(outgoing) => outgoing,
        None => write(&state, client.id, key.as_deref(), &request, &asked).await?,
    };
    if !outgoing.is_of(&asked) {
        return Err(ApiError::unprocessable(
            Kind::KeyUsed,
            "This Idempotency-Key was used for another message.",
        ));
    }
    let settled = wait::until(state.gateway_wait, async || {
        let mut conn = state.connection().await?;
        let found = Outgoing::find(&mut conn, outgoing.id).await?;
        Ok(found.filter(Outgoing::is_settled))
    });
    answer(&settled.await?.unwrap_or(outgoing))
}

/// Checks a request and writes it down for the gateways. When another was written under its key meanwhile,
/// returns that one.
async fn write(
    state: &State,
    client_id: i32,
    key: Option<&str>,
    request: &Send,
    asked: &[u8],
) -> Result<Outgoing, ApiError> {
    let said = request.said()?;
    if let Said::File(kind, file) = &said {
        file.check_url(state, *kind).await?;
    }
    let outgoing = {
        let mut conn = state.connection().await?;
        let found = Connection::of_user(&mut conn, client_id, request.user_id).await?;
        let connection = found.ok_or_else(|| ApiError::not_found(NO_CONNECTION))?;
        let content = request.content(said, state, &mut conn, &connection).await?;
        if connection.status != Status::Connected.as_str() {
            let detail = format!("The session is {}: connect it first.", connection.status);
            return Err(ApiError::conflict(Kind::NotConnected, detail));
        }
        let new = NewOutgoing {
            client_id,
            connection_id: connection.id,
            idempotency_key: key,
            request: asked,
            message_id: &message_id(),
            to: request.to.as_str(),
            content: &content,
        };
        Outgoing::insert(&mut conn, &new).await?
    };
    state.ring_outbox(outgoing.connection_id).await;
    Ok(outgoing)
}

fn sent() -> RefOr<Schema> {
    schema::one_of(&["sent", "queued"])
}

fn answer(outgoing: &Outgoing) -> Result<HttpResponse, ApiError> {
    let mut answer = match outgoing.status.as_str() {
        "sent" => HttpResponse::Ok(),
        "queued" => HttpResponse::Accepted(),
        _ => {
            let why = outgoing.error.as_deref().unwrap_or("no reason given");
            let (kind, what) = match outgoing.unconfirmed {
                true => (
                    Kind::NotConfirmed,
                    "It is not confirmed that the message was sent",
                ),
                false => (Kind::NotSent, "The message was not sent"),
            };
            return Err(ApiError::unprocessable(kind, format!("{what}: {why}.")));
        }
    };
    Ok(answer.json(Answer {
        status: &outgoing.status,
        message_id: &outgoing.message_id,
    }))
}

/// What a request says, as it came.
enum Said<'a> {
    Text(&'a str),
    Location(&'a Location),
    Contact(&'a Contact),
    Reaction(&'a Reaction),
    File(MediaKind, &'a Attached),
}

impl Send {
    /// The one thing that it says.
    fn said(&self) -> Result<Said<'_>, ApiError> {
        let said = [
            self.text.as_ref().map(|text| Said::Text(text)),
            self.location.as_ref().map(Said::Location),
            self.contact.as_ref().map(Said::Contact),
            self.reaction.as_ref().map(Said::Reaction),
            self.image
                .as_ref()
                .map(|file| Said::File(MediaKind::Image, file)),
            self.video
                .as_ref()
                .map(|file| Said::File(MediaKind::Video, file)),
            self.audio
                .as_ref()
                .map(|file| Said::File(MediaKind::Audio, file)),
            self.document
                .as_ref()
                .map(|file| Said::File(MediaKind::Document, file)),
        ];
        let mut said = said.into_iter().flatten();
        match (said.next(), said.next()) {
            (Some(said), None) => Ok(said),
            _ => {
                let detail = "there must be one of text, location, contact, reaction, image, video, \
                              audio and document";
                Err(ApiError::field("text", detail))
            }
        }
    }

    async fn content(
        &self,
        said: Said<'_>,
        state: &State,
        conn: &mut AsyncPgConnection,
        connection: &Connection,
    ) -> Result<Content, ApiError> {
        let body = match said {
            Said::Text(text) => Sent::Text {
                text: checked("text", text, LONGEST_TEXT)?,
            },
            Said::Location(location) => location.checked()?,
            Said::Contact(contact) => Sent::Contact {
                name: checked("contact.name", &contact.name, LONGEST_NAME)?,
                phone_number: contact.phone_number.as_str().to_owned(),
            },
            Said::Reaction(reaction) => {
                let id = &reaction.message_id;
                Sent::Reaction {
                    target: self
                        .target(conn, connection, "reaction.message_id", id)
                        .await?,
                    emoji: reaction.checked_emoji()?,
                }
            }
            Said::File(kind, attached) => Sent::Media(
                attached
                    .checked(state, conn, connection.client_id, kind)
                    .await?,
            ),
        };
        let reply_to = match &self.reply_to {
            Some(_) if self.reaction.is_some() => {
                return Err(ApiError::field("reply_to", "a reaction is no reply"));
            }
            Some(id) => Some(self.target(conn, connection, "reply_to", id).await?),
            None => None,
        };
        Ok(Content { body, reply_to })
    }

    async fn target(
        &self,
        conn: &mut AsyncPgConnection,
        connection: &Connection,
        field: &str,
        message_id: &str,
    ) -> Result<Target, ApiError> {
        let (client, to) = (connection.client_id, self.to.as_str());
        let found = match message_id.contains('\0') {
            true => None,
            false => Target::find(conn, client, connection.id, to, message_id).await?,
        };
        let detail = "this connection has no message of that id in the chat with `to`";
        found.ok_or_else(|| ApiError::field(field, detail))
    }
}

impl Location {
    fn checked(&self) -> Result<Sent, ApiError> {
        let within = |field: &str, value: f64, limit: f64| match value.abs() <= limit {
            true => Ok(value),
            false => Err(ApiError::field(
                field,
                format!("must be between -{limit} and {limit}"),
            )),
        };
        let text = |field: &str, text: &Option<String>| {
            let text = text.as_deref();
            text.map(|text| checked(field, text, LONGEST_NAME))
                .transpose()
        };
        Ok(Sent::Location {
            latitude: within("location.latitude", self.latitude, 90.0)?,
            longitude: within("location.longitude", self.longitude, 180.0)?,
            name: text("location.name", &self.name)?,
            address: text("location.address", &self.address)?,
        })
    }
}

impl Reaction {
    /// Empty: the reaction is taken back.
    fn checked_emoji(&self) -> Result<String, ApiError> {
        match self.emoji.is_empty() {
            true => Ok(String::new()),
            false => checked("reaction.emoji", &self.emoji, LONGEST_EMOJI),
        }
    }
}

pub(super) fn checked(field: &str, text: &str, longest: usize) -> Result<String, ApiError> {
    if text.is_empty() {
        return Err(ApiError::field(field, "must not be empty"));
    }
    if text.len() > longest {
        let detail = format!("must not be longer than {longest} bytes");
        return Err(ApiError::field(field, detail));
    }
    if text.contains('\0') {
        return Err(ApiError::field(field, "must not hold a NUL character"));
    }
    Ok(text.to_owned())
}

/// As WhatsApp's own web client makes them: 3EB0, and 18 hexadecimal digits.
fn message_id() -> String {
    let random: [u8; 9] = rand::rng().random();
    let digits = random.iter().map(|byte| format!("{byte:02X}"));
    std::iter::once("3EB0".to_owned()).chain(digits).collect()
}
