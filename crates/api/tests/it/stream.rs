//! What happens, followed as it does.

use diesel_async::{AsyncConnection, SimpleAsyncConnection};
use domain::client::Token;
use reqwest::{Method, RequestBuilder, Response};
use secrecy::ExposeSecret;
use serde_json::Value;
use testkit::eventually;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::dispatcher::{SECOND, fail};
use crate::world::{Answer, Api, NUMBER, Tenant, id, message};

const PATH: &str = "/api/events/stream";

/// A stream that is open.
pub(crate) struct Stream {
    response: Response,
    buffer: String,
}

/// One of its items.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) data: Value,
}

impl Stream {
    async fn open(tenant: &Tenant<'_>, query: &str, last: Option<&str>) -> Self {
        let mut request = tenant.request(Method::GET, &format!("{PATH}{query}"));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        Self::of(request).await
    }

    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            buffer: String::new(),
        }
    }

    /// The next item; `None` when the stream has ended. What only moves the id is passed over.
    pub(crate) async fn next(&mut self) -> Option<Item> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| {
                let mut lines = block.lines();
                lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            };
            if let Some(data) = field("data") {
                return Some(Item {
                    id: field("id").unwrap().to_owned(),
                    name: field("event").unwrap().to_owned(),
                    data: serde_json::from_str(data).unwrap(),
                });
            }
        }
    }

    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let block = block.to_owned();
                self.buffer = rest.to_owned();
                return Some(block);
            }
            let chunk = timeout(20 * SECOND, self.response.chunk()).await;
            let chunk = chunk.expect("the stream goes on, or ends").unwrap()?;
            self.buffer.push_str(str::from_utf8(&chunk).unwrap());
        }
    }

    async fn expect(&mut self, name: &str, event: Uuid) -> Item {
        let item = self.next().await.expect("it goes on");
        let member = if name == "event" { "id" } else { "event_id" };
        assert_eq!((item.name.as_str(), id(&item.data[member])), (name, event));
        item
    }
}

#[tokio::test]
async fn what_happens_is_told_in_order_and_a_stream_goes_on_where_another_ended() {
    let api = Api::start().await;
    let (acme, other) = (api.tenant("acme").await, api.tenant("other").await);
    let webhook = acme.webhook(NUMBER).await;
    other.webhook(NUMBER).await;
    let (ours, theirs) = (
        acme.connection(NUMBER).await,
        other.connection(NUMBER).await,
    );
    acme.receive(&ours, &["before"]).await;

    let mut stream = Stream::open(&acme, "", None).await;
    let mut of_other = Stream::open(&other, "", None).await;
    let events = acme.receive(&ours, &["A", "B"]).await;
    let first = stream.expect("event", events[0]).await;
    assert_eq!(
        (&first.data["message_id"], &first.data["content"]),
        (&"A".into(), &"content of A".into())
    );
    stream.expect("event", events[1]).await;
    fail(&api, events[0]).await;
    let told = stream.expect("delivery", events[0]).await.data;
    assert_eq!(
        (&told["attempt"], &told["http_status"], &told["status"]),
        (&1.into(), &500.into(), &"failed".into())
    );
    assert_eq!(id(&told["webhook_id"]), webhook);
    drop(stream);
    let later = acme.receive(&ours, &["C"]).await[0];

    // From there on, whatever happened meanwhile, and once.
    let mut again = Stream::open(&acme, "", Some(&first.id)).await;
    again.expect("event", events[1]).await;
    again.expect("delivery", events[0]).await;
    let last = again.expect("event", later).await;
    let newest = acme.receive(&ours, &["D"]).await[0];
    again.expect("event", newest).await;
    Stream::open(&acme, "", Some(&last.id))
        .await
        .expect("event", newest)
        .await;

    // Nothing of it is for anybody else.
    let event = other.receive(&theirs, &["A"]).await[0];
    of_other.expect("event", event).await;
    let of_one = format!("?webhook_id={webhook}");
    let answer = Answer::of(other.request(Method::GET, &format!("{PATH}{of_one}"))).await;
    answer.problem(404);
    Stream::open(&acme, &of_one, Some(&last.id))
        .await
        .expect("event", newest)
        .await;
}

#[tokio::test]
async fn what_is_committed_late_is_told_before_what_has_a_greater_number() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    acme.webhook(NUMBER).await;
    let connection = acme.connection(NUMBER).await;
    let mut stream = Stream::open(&acme, "", None).await;
    // Takes its number, and ends when it is told to.
    let (end, ended) = oneshot::channel();
    let (began, begun) = oneshot::channel();
    let late = message(&connection, "late");
    let mut conn = api.conn().await;
    let committing = tokio::spawn(async move {
        conn.transaction(async |conn| {
            conn.batch_execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                .await?;
            let accepted = domain::inbox::accept(conn, &[&late]).await?;
            began.send(accepted.events[0]).unwrap();
            ended.await.unwrap();
            diesel::QueryResult::Ok(())
        })
        .await
    });
    let late = begun.await.unwrap();
    // Meanwhile the stream says for some seconds that there is nothing.
    let opening = stream.block().await.unwrap();
    let nothing = stream.block().await.unwrap();
    assert_eq!(
        opening.strip_prefix("retry: 1000"),
        nothing.strip_prefix(':')
    );
    let early = acme.receive(&connection, &["early"]).await[0];
    end.send(()).unwrap();
    committing.await.unwrap().unwrap();
    stream.expect("event", late).await;
    stream.expect("event", early).await;
}

#[tokio::test]
async fn a_stream_ends_with_its_token_or_its_instance() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let mut stream = Stream::open(&acme, "", None).await;
    let mut conn = api.conn().await;
    let token = Token::list(&mut conn, acme.id).await.unwrap().remove(0);
    let began = Instant::now();
    Token::revoke(&mut conn, token.id).await.unwrap();
    assert!(stream.next().await.is_none());
    assert!(began.elapsed() < SECOND);

    let other = api.tenant("other").await;
    let mut stream = Stream::open(&other, "", None).await;
    api.stop();
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_client_has_twenty_streams_and_no_more() {
    let api = Api::start().await;
    let (acme, other) = (api.tenant("acme").await, api.tenant("other").await);
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(Stream::open(&acme, "", None).await);
    }
    let refused = Answer::of(acme.request(Method::GET, PATH)).await;
    refused.problem(429);
    assert_eq!(refused.header("retry-after"), "10");
    Stream::open(&other, "", None).await;
    // One that its client left is closed when there is something to send.
    drop(streams);
    eventually(30 * SECOND, async || {
        match acme
            .request(Method::GET, PATH)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
        {
            200 => Ok(()),
            status => Err(status),
        }
    })
    .await;
}

#[tokio::test]
async fn an_id_that_is_none_is_refused() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    for wrong in ["x", "-1", "+1", "1.0", "99999999999999999999"] {
        let request = acme
            .request(Method::GET, PATH)
            .header("Last-Event-ID", wrong);
        assert_eq!(
            Answer::of(request).await.field(),
            "Last-Event-ID",
            "{wrong}"
        );
    }
    let request = acme.request(Method::GET, &format!("{PATH}?webhook=1"));
    assert_eq!(Answer::of(request).await.field(), "webhook");
    let head = acme.request(Method::HEAD, PATH).send().await.unwrap();
    assert_eq!(head.status(), 200);
    let anonymous = api.request(Method::GET, PATH);
    Answer::of(anonymous).await.problem(401);
    assert!(!acme.token.expose_secret().is_empty());
}
