//! Several sessions of one gateway, of which one is in for something.

use domain::connection::Connection;
use domain::webhook::Webhook;
use serde_json::{Value, json};
use testkit::eventually;
use tokio::time::Duration;

use crate::rig::{ANA, Holder, LIMIT, NUMBER, Rig};

/// Longer than any pause of the client library's in these tests.
pub(super) const LONG: Duration = Duration::from_secs(90);
const OTHERS: [&str; 2] = ["5511988880001", "5511988880002"];

pub(super) struct Scene {
    pub(super) rig: Rig,
    pub(super) gateway: Holder,
    pub(super) victim: Connection,
    /// Of the victim's number, for `connection.*`.
    pub(super) webhook: Webhook,
    others: Vec<Connection>,
    /// Before there was a gateway.
    tasks: usize,
}

impl Scene {
    pub(super) async fn set() -> Self {
        Self::with_silence(90).await
    }

    /// A socket may be silent for so many seconds.
    pub(super) async fn with_silence(seconds: u64) -> Self {
        let rig = Rig::start().await;
        let webhook = rig.webhook(&["connection.*"]).await;
        let tasks = tasks();
        let gateway = rig.gateway_with(&[("GATEWAY_SILENCE_SECONDS", &seconds.to_string())]);
        let mut others = Vec::new();
        for number in OTHERS {
            others.push(rig.link(number).await);
        }
        let victim = rig.link(NUMBER).await;
        Self {
            rig,
            gateway,
            victim,
            webhook,
            others,
            tasks,
        }
    }

    pub(super) async fn faults(&self, faults: Value) {
        self.rig.post("/admin/faults", faults.to_string()).await;
    }

    pub(super) async fn hang_up(&self) {
        let path = format!("/admin/accounts/{NUMBER}/disconnect");
        self.rig.post(&path, String::new()).await;
    }

    pub(super) async fn stat(&self, name: &str) -> u64 {
        self.rig.get("/admin/stats").await[name].as_u64().unwrap()
    }

    async fn write(&self, number: &str) -> String {
        let message = json!({"to": number, "from": ANA, "text": "still there?"});
        self.rig.send(message).await.remove(0)
    }

    async fn has(&self, number: &str, id: &str) -> bool {
        let rows = self.rig.rows().await;
        rows.iter()
            .any(|row| row.message_id == id && row.event_type == "message" && row.to == number)
    }

    /// Nothing has become of the others, and they go on receiving.
    pub(super) async fn others_are_untouched(&self) {
        for (number, before) in OTHERS.iter().zip(&self.others) {
            let id = self.write(number).await;
            eventually(LIMIT, async || self.has(number, &id).await).await;
            let row = self.rig.row(before.id).await;
            assert_eq!(
                (row.status.as_str(), row.transition, row.epoch),
                ("connected", before.transition, before.epoch)
            );
        }
    }

    /// Waits until it is so, while the others receive all the time.
    pub(super) async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        eventually(LONG, async || match is_so().await {
            true => Ok(()),
            false => {
                self.others_are_untouched().await;
                Err(format!("not {what}"))
            }
        })
        .await;
    }

    pub(super) async fn until_row(&self, status: &str, reason: Option<&str>) -> Connection {
        let is_so = async || {
            let row = self.rig.row(self.victim.id).await;
            (row.status.as_str(), row.reason.as_deref()) == (status, reason)
        };
        self.until(&format!("{status} ({reason:?})"), is_so).await;
        self.rig.row(self.victim.id).await
    }

    /// The victim is connected and receives.
    pub(super) async fn is_back(&self) {
        let id = self.write(NUMBER).await;
        self.until("received", async || self.has(NUMBER, &id).await)
            .await;
        self.until_row("connected", None).await;
        self.others_are_untouched().await;
    }

    /// The last event of the victim's connection.
    pub(super) async fn told(&self) -> (String, Value) {
        let events = self.rig.events(&self.webhook).await;
        let last = events.last().unwrap();
        (last.event_type.clone(), last.metadata["reason"].clone())
    }

    pub(super) async fn end(self) {
        self.gateway.stop().await;
        // Connections of the test's own HTTP client may be new.
        no_more_tasks_than(self.tasks + 4).await;
    }
}

pub(super) fn tasks() -> usize {
    let metrics = tokio::runtime::Handle::current().metrics();
    metrics.num_alive_tasks()
}

/// How many tasks there are once things are at rest: no more than that.
pub(super) async fn no_more_tasks_than(limit: usize) {
    eventually(LIMIT, async || match tasks() {
        tasks if tasks <= limit => Ok(()),
        tasks => Err(format!("{tasks} tasks, {limit} were to be")),
    })
    .await;
}
