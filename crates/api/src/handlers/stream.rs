//! What happens to a client's events, as server-sent events. It is read from PostgreSQL, so that a stream misses nothing,
//! goes on where another ended, on whatever instance, and needs nothing but the database.

use std::convert::Infallible;
use std::time::Duration;

use actix_web::http::header::{HeaderMap, RETRY_AFTER};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use domain::feed::{self, Happening};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use super::events::EventBody;
use super::webhooks;
use crate::auth::{self, Caller};
use crate::error::{ApiError, Kind};
use crate::extract::{LastEventId, Query};
use crate::openapi::answers;
use crate::state::State;
use crate::streams::{self, Full, OUTAGE, PAUSE, Room};

/// Between two looks at what happened, when nothing did for a while. At any time it is nine times what the last one took
/// at least, which is more for those who have many webhooks.
const IDLE: Duration = Duration::from_secs(1);
/// Without anything else, something is sent so often, that a connection that is gone is noticed.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// A token that is revoked, or whose time is over, is found out in less.
const TRUST: Duration = Duration::from_millis(500);
/// For a first look at how far all is to be seen. What is waited for is a write that was begun before.
const BEGIN: Duration = Duration::from_secs(40);

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Of this webhook only.
    #[param(required = false, nullable = false)]
    webhook_id: Option<Uuid>,
}

/// Follow what happens
///
/// Server-sent events, from now on: an `event` for each event that is committed, as lists of events show it, and a
/// `delivery` (the schema `Delivery`) for each attempt that is recorded. They come in one order, about a second late; half a
/// minute, if the database is held up. Each has an `id`: say the last one as `Last-Event-ID`, and the stream goes on behind
/// it, as far back as events are kept. A webhook that is deleted is left out.
#[utoipa::path(
    get,
    path = "/api/events/stream",
    operation_id = "stream_events",
    tag = "Events",
    params(Wanted, LastEventId),
    security(("bearer" = ["read"])),
    responses(
        (status = 200, description = "It has no end, but that of the token, or of the instance that serves it.",
         content_type = "text/event-stream", body = String, example = json!(EXAMPLE)),
        answers::Missing,
        answers::Caller,
    )
)]
pub(crate) async fn follow(
    state: Data<State>,
    Caller(client): Caller,
    LastEventId(last): LastEventId,
    Query(wanted): Query<Wanted>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let room = state.streams.room(client.id).map_err(refused)?;
    if let Some(webhook_id) = wanted.webhook_id {
        let mut conn = state.connection().await?;
        webhooks::find(&mut conn, client.id, webhook_id).await?;
    }
    let mut answer = HttpResponse::Ok();
    answer
        .content_type("text/event-stream")
        // Or nginx waits for more.
        .insert_header(("X-Accel-Buffering", "no"));
    if request.method() == Method::HEAD {
        return Ok(answer.finish());
    }
    let mut reached = state.streams.reached();
    let begin = timeout(BEGIN, reached.wait_for(Option::is_some)).await;
    let begin = begin.ok().and_then(|begin| *begin.ok()?);
    let begin = begin.ok_or_else(|| {
        let detail = "It is not known yet from where on there is something to tell.";
        ApiError::unavailable(Kind::Status, detail)
    })?;
    let follower = Follower {
        client_id: client.id,
        webhook_id: wanted.webhook_id,
        // After a disaster numbers may be lower than they were.
        after: last.map_or(begin, |last| last.min(begin)),
        reached,
        headers: request.headers().clone(),
        trusted: Instant::now(),
        look_at: Instant::now(),
        read_at: Instant::now(),
        pause: PAUSE,
        spoke: None,
        state,
        _room: room,
    };
    let chunks = stream::unfold(follower, async |mut follower| {
        let chunk = follower.next().await?;
        Some((Ok::<_, Infallible>(chunk), follower))
    });
    Ok(answer.streaming(Box::pin(chunks)))
}

fn refused(full: Full) -> ApiError {
    match full {
        Full::OfClient => {
            let most = streams::OF_CLIENT;
            let detail = format!("You have {most} streams open, and may have no more.");
            ApiError::plain(StatusCode::TOO_MANY_REQUESTS, detail).with(RETRY_AFTER, "10")
        }
        Full::OfAll => {
            ApiError::unavailable(Kind::Status, "There are as many streams as there may be.")
        }
    }
}

/// One client's place in what happens.
struct Follower {
    state: Data<State>,
    client_id: i32,
    webhook_id: Option<Uuid>,
    /// All up to this number was told.
    after: i64,
    reached: watch::Receiver<Option<i64>>,
    /// Of the request: they carry the token.
    headers: HeaderMap,
    /// When the token was looked at.
    trusted: Instant,
    look_at: Instant,
    read_at: Instant,
    pause: Duration,
    /// When something was sent.
    spoke: Option<Instant>,
    _room: Room,
}

impl Follower {
    /// What is to be sent next; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let chunk = match self.spoke {
            Some(spoke) => self.wait(spoke + HEARTBEAT).await?,
            None => format!("retry: 1000\nid: {}\n\n", self.after),
        };
        self.spoke = Some(Instant::now());
        Some(chunk.into())
    }

    /// Looks until there is something to tell, or it is time to say that there is nothing.
    async fn wait(&mut self, heartbeat: Instant) -> Option<String> {
        let closing = self.state.closing.clone();
        loop {
            tokio::select! {
                () = sleep_until(self.look_at) => {}
                () = closing.cancelled() => return None,
            }
            self.look_at = Instant::now() + PAUSE;
            match self.look().await {
                Ok(happened) if !happened.is_empty() => {
                    return Some(happened.into_iter().map(frame).collect());
                }
                Ok(_) => {}
                Err(error) if error.status_code() == StatusCode::UNAUTHORIZED => return None,
                // It goes on where it was.
                Err(_) => self.look_at += OUTAGE,
            }
            if Instant::now() >= heartbeat {
                return Some(format!(":\nid: {}\n\n", self.after));
            }
        }
    }

    async fn look(&mut self) -> Result<Vec<Happening>, ApiError> {
        if self.trusted.elapsed() >= TRUST {
            auth::identify(&self.state, &self.headers).await?;
            self.trusted = Instant::now();
        }
        let through = self.reached.borrow().unwrap_or(self.after);
        self.after = self.after.min(through);
        let began = Instant::now();
        if through == self.after || began < self.read_at {
            return Ok(Vec::new());
        }
        let mut conn = self.state.connection().await?;
        let (happened, through) = feed::read(
            &mut conn,
            self.client_id,
            self.webhook_id,
            self.after,
            through,
        )
        .await?;
        self.after = through;
        self.pause = match happened.is_empty() {
            true => (self.pause * 3 / 2).min(IDLE),
            false => PAUSE,
        };
        self.read_at = Instant::now() + self.pause.max(began.elapsed() * 9);
        Ok(happened)
    }
}

/// As it is sent: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.
fn frame(happening: Happening) -> String {
    let sequence = happening.sequence();
    let (name, data) = match happening {
        Happening::Event(event) => ("event", json(&EventBody::from(*event))),
        Happening::Delivery(delivery) => ("delivery", json(&delivery)),
    };
    format!("id: {sequence}\nevent: {name}\ndata: {data}\n\n")
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("names and values that JSON has")
}

const EXAMPLE: &str = "id: 4711\nevent: delivery\ndata: {\"event_id\":\"0193…\",\"attempt\":1,\"http_status\":200,…}\n\n";
