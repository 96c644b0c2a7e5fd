//! Lists of events, asked for over HTTP, where there are ten million of them and others are delivered meanwhile.

use std::time::Duration;

use anyhow::{Context, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use diesel_async::AsyncPgConnection;
use domain::client::{NewToken, Token};
use domain::scope::Scope;
use domain::token;
use domain::webhook::Webhook;
use rand::RngExt;
use reqwest::Client;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use testkit::{Database, Process, Program};
use tokio::time::{Instant, interval};
use uuid::Uuid;

use super::{Extent, urls};
use crate::history;
use crate::machine::Usage;
use crate::percentile::percentile;
use crate::report::Row;
use crate::seed::{KEYS, Numbers, message_id};
use crate::stage::{Stage, stop};
use crate::steady::{Gateway, WARM_UP};

pub(super) const ROWS: [&str; 3] = [PAGE, FIRST, FILTERED];
const PAGE: &str = "events_query_p99_ms";
const FIRST: &str = "events_first_page_p99_ms";
const FILTERED: &str = "events_filtered_p99_ms";

const EVENTS: usize = 10_000_000;
const WEBHOOKS: usize = 50;
/// Deliveries.
const PER_SECOND: u32 = 500;
/// Requests.
const PACE: Duration = Duration::from_millis(10);
const TIME: Duration = Duration::from_secs(30);
/// Pages that are turned from one place.
const PAGES: usize = 10;

/// Turns pages at random places of the whole.
pub(super) async fn measure(extent: &Extent) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::start(0).await?;
    let database = stage.clear().await?;
    let mut conn = database.connect().await;
    let numbers = Numbers::link(&mut conn, &urls(&stage, WEBHOOKS)).await?;
    let began = Instant::now();
    history::seed(&mut conn, EVENTS).await?;
    println!("{EVENTS} events in {:.0} s", began.elapsed().as_secs_f64());
    let client = numbers.connections[0].client_id;
    let (api, reader) = Reader::start(&stage, &database, &mut conn, client).await?;
    let mut gateway = Gateway::new(numbers, conn, stage.doorbell()?);
    let dispatcher = stage.dispatcher(&database).await;
    let mut processes = stage.processes(std::slice::from_ref(&dispatcher));
    processes.push(("api".to_owned(), api.pid()));

    let (mut page, mut first, mut filtered) = (vec![], vec![], vec![]);
    let mut note = String::new();
    round(&mut gateway, &reader, WARM_UP).await?;
    for number in 1..=extent.rounds {
        let before = Usage::now(&processes);
        let took = round(&mut gateway, &reader, TIME).await?;
        let busy = before.until(&Usage::now(&processes));
        let shown = |of: &[f64]| {
            format!(
                "p50 {:.2}, p99 {:.2}, max {:.2} ms",
                percentile(of, 0.5),
                percentile(of, 0.99),
                percentile(of, 1.0)
            )
        };
        note = format!(
            "{} pages by cursor: {}; first pages: {}; filtered: {}; processors busy: {busy}",
            took.page.len(),
            shown(&took.page),
            shown(&took.first),
            shown(&took.filtered),
        );
        println!("round {number}: {note}");
        page.push(percentile(&took.page, 0.99));
        first.push(percentile(&took.first, 0.99));
        filtered.push(percentile(&took.filtered, 0.99));
    }
    stop(vec![dispatcher, api]).await?;
    Ok(vec![
        Row::of(PAGE, "ms", page).with_note(note),
        Row::of(FIRST, "ms", first),
        Row::of(FILTERED, "ms", filtered),
    ])
}

/// Milliseconds, sorted.
#[derive(Default)]
struct Took {
    /// Of pages by cursor.
    page: Vec<f64>,
    /// Of first pages without a filter, which count as well.
    first: Vec<f64>,
    /// Of first pages with one.
    filtered: Vec<f64>,
}

/// Messages are committed and delivered while pages are turned.
async fn round(gateway: &mut Gateway, reader: &Reader, time: Duration) -> anyhow::Result<Took> {
    let known = gateway.committed;
    let (_, took) = tokio::try_join!(gateway.work(PER_SECOND, time), reader.read(time, known))?;
    Ok(took)
}

struct Reader {
    http: Client,
    url: String,
    token: SecretString,
    webhooks: Vec<Uuid>,
}

#[derive(Deserialize)]
struct Page {
    count: usize,
    next_cursor: Option<String>,
}

impl Reader {
    async fn start(
        stage: &Stage,
        database: &Database,
        conn: &mut AsyncPgConnection,
        client_id: i32,
    ) -> anyhow::Result<(Process, Self)> {
        let token = token::new_api_token();
        let new = NewToken {
            client_id,
            name: "bench",
            token: &token,
            scopes: &[Scope::Read],
            expires_at: None,
        };
        Token::insert(conn, &new).await?;
        let webhooks = Webhook::list(conn, client_id, WEBHOOKS as i64, None).await?;
        let api = Program::service("recado-api")
            .port("PORT")
            .env("DATABASE_URL", database.url())
            .env("REDIS_URL", stage.servers.redis_url())
            .env("ENCRYPTION_KEYS", KEYS)
            .env("RATE_LIMIT_PER_CLIENT", 0)
            .env("RATE_LIMIT_PER_ADDRESS", 0)
            .start()
            .await;
        let mut webhooks: Vec<Uuid> = webhooks.iter().map(|webhook| webhook.id).collect();
        // The oldest is the one with half of the events.
        webhooks.reverse();
        let reader = Self {
            http: Client::builder().no_proxy().build()?,
            url: format!("http://127.0.0.1:{}", api.port("PORT")),
            token,
            webhooks,
        };
        Ok((api, reader))
    }

    async fn read(&self, time: Duration, known: usize) -> anyhow::Result<Took> {
        let mut took = Took::default();
        let mut pace = interval(PACE);
        let end = Instant::now() + time;
        while Instant::now() < end {
            // Half of the time of the webhook that has half of them.
            let place = match rand::random() {
                true => 0,
                false => rand::rng().random_range(0..self.webhooks.len()),
            };
            let webhook = self.webhooks[place];
            pace.tick().await;
            self.ask(webhook, "", &mut took.first).await?;
            if known > 0 {
                pace.tick().await;
                // The numbers took turns, in the order of the webhooks.
                let number = 1 + place + rand::rng().random_range(0..known / WEBHOOKS) * WEBHOOKS;
                let query = format!("message_id={}", message_id(number));
                let page = self.ask(webhook, &query, &mut took.filtered).await?;
                ensure!(page.count == 1, "{} events of message {number}", page.count);
            }
            let until = moment();
            let since = until - TimeDelta::days(3);
            let filter = match rand::rng().random_range(0..3) {
                0 => format!("until={until:?}"),
                1 => format!("until={until:?}&since={since:?}"),
                _ => format!("until={until:?}&status=failed"),
            };
            pace.tick().await;
            let mut page = self.ask(webhook, &filter, &mut took.filtered).await?;
            for _ in 0..PAGES {
                let Some(cursor) = &page.next_cursor else {
                    break;
                };
                let next = format!("{filter}&cursor={cursor}");
                pace.tick().await;
                page = self.ask(webhook, &next, &mut took.page).await?;
            }
        }
        for all in [&mut took.page, &mut took.first, &mut took.filtered] {
            all.sort_by(f64::total_cmp);
        }
        Ok(took)
    }

    async fn ask(&self, webhook: Uuid, query: &str, took: &mut Vec<f64>) -> anyhow::Result<Page> {
        let url = format!("{}/api/webhooks/{webhook}/events?{query}", self.url);
        let began = Instant::now();
        let request = self.http.get(&url).bearer_auth(self.token.expose_secret());
        let answer = request.send().await?.error_for_status()?.bytes().await?;
        took.push(began.elapsed().as_secs_f64() * 1000.0);
        serde_json::from_slice(&answer).with_context(|| url)
    }
}

/// One of the month, with some days before it.
fn moment() -> DateTime<Utc> {
    let days = history::DAYS as i64;
    let second = rand::rng().random_range(86_400..(days - 5) * 86_400);
    Utc::now() - TimeDelta::seconds(second)
}
