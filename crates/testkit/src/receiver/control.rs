//! How a receiver that is a process of its own is asked and told things:
//!
//! - `POST /_control/secrets` `{"secret": "whsec_…", "webhook_id"?}`: check signatures with it
//! - `GET /_control/received?since=N`: what came after sequence number N, as a list
//! - `DELETE /_control/received`: forget it
//! - `POST /_control/behaviour` an [`Answer`] and `{"path", "times"?}`: answer so, so many times
//!   (for ever without it); `DELETE`: answer 200 again
//! - `/sink`, and all below: answered with 200 and only counted; `GET /_control/sunk` has the count

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use actix_web::web::{Data, Json, Payload, Query, ServiceConfig};
use actix_web::{HttpResponse, Responder, delete, get, post, web};
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::answer::Answer;
use super::record::{Received, Record, Secret};

/// Adds the control calls and the sink.
pub(super) fn routes(app: &mut ServiceConfig) {
    app.service(web::resource(["/sink", "/sink/{rest:.*}"]).to(sink))
        .service(sunk)
        .service(tell)
        .service(list)
        .service(forget)
        .service(behave)
        .service(behave_well);
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    webhook_id: Option<String>,
    secret: String,
}

#[post("/_control/secrets")]
async fn tell(record: Data<Record>, told: Json<Told>) -> impl Responder {
    let Told { webhook_id, secret } = told.into_inner();
    record.tell(Secret { webhook_id, secret });
    HttpResponse::NoContent()
}

#[derive(Debug, Deserialize)]
struct Since {
    #[serde(default)]
    since: u64,
}

/// A request, as the list shows it.
#[derive(Debug, Serialize)]
struct Listed {
    sequence: u64,
    method: String,
    path: String,
    /// The header `webhook-id`.
    webhook_id: Option<String>,
    /// The header `X-Webhook-Event-ID`.
    event_id: Option<String>,
    attempt: Option<u32>,
    /// Whether a secret that was told fits; null while none was told.
    signature_ok: Option<bool>,
    /// Why its body is not what the published schema promises; null when it is, or is no delivery.
    schema_error: Option<String>,
    #[serde(serialize_with = "micros")]
    received_at: DateTime<Utc>,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Listed {
    fn new(request: Received, secrets: &[Secret]) -> Self {
        let header = |name| request.header(name).map(str::to_owned);
        let fits = |known: &Secret| request.verify(&known.secret).is_ok();
        Self {
            webhook_id: header("webhook-id"),
            event_id: header("x-webhook-event-id"),
            attempt: header("x-webhook-attempt").and_then(|attempt| attempt.parse().ok()),
            signature_ok: (!secrets.is_empty()).then(|| secrets.iter().any(fits)),
            sequence: request.sequence,
            schema_error: request.schema_error,
            received_at: request.arrived,
            body: String::from_utf8_lossy(&request.body).into_owned(),
            method: request.method,
            path: request.path,
            headers: request.headers.into_iter().collect(),
        }
    }
}

fn micros<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Micros, true))
}

#[get("/_control/received")]
async fn list(record: Data<Record>, query: Query<Since>) -> impl Responder {
    let secrets = record.secrets();
    let received = record.since(query.since).into_iter();
    Json(
        received
            .map(|request| Listed::new(request, &secrets))
            .collect::<Vec<_>>(),
    )
}

#[delete("/_control/received")]
async fn forget(record: Data<Record>) -> impl Responder {
    record.forget();
    HttpResponse::NoContent()
}

#[derive(Debug, Deserialize)]
struct Behaviour {
    path: String,
    times: Option<usize>,
}

#[post("/_control/behaviour")]
async fn behave(record: Data<Record>, told: Json<Map<String, Value>>) -> impl Responder {
    // In two steps, since serde can't refuse unknown fields of a flattened struct.
    let (own, answer) = told
        .into_inner()
        .into_iter()
        .partition(|(name, _)| name == "path" || name == "times");
    let behaviour = Behaviour::deserialize(Value::Object(own));
    let answer = Answer::deserialize(Value::Object(answer));
    match (behaviour, answer) {
        (Ok(Behaviour { path, times: None }), Ok(answer)) => record.script(&path, [answer]),
        (
            Ok(Behaviour {
                path,
                times: Some(times),
            }),
            Ok(answer),
        ) => {
            let some = std::iter::repeat_n(answer, times.min(10_000));
            record.script(&path, some.chain([Answer::ok()]));
        }
        (Err(error), _) | (_, Err(error)) => {
            return HttpResponse::BadRequest().body(format!("{error}\n"));
        }
    }
    HttpResponse::NoContent().finish()
}

#[delete("/_control/behaviour")]
async fn behave_well(record: Data<Record>) -> impl Responder {
    record.unscript();
    HttpResponse::NoContent()
}

async fn sink(record: Data<Record>, mut body: Payload) -> impl Responder {
    while let Some(Ok(_)) = body.next().await {}
    record.sunk.fetch_add(1, Ordering::Relaxed);
    HttpResponse::Ok()
}

#[get("/_control/sunk")]
async fn sunk(record: Data<Record>) -> impl Responder {
    Json(serde_json::json!({ "count": record.sunk.load(Ordering::Relaxed) }))
}
