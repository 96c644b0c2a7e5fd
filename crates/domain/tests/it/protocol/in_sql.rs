use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use domain::claim::{self, Claimed, Park, Release};
use domain::event::Event;
use domain::parking::{self, Reason};
use domain::record::{Outcome, Record, record};
use domain::statement::Statement;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRunner};
use uuid::Uuid;

use super::{ATTEMPTS, Due, Flaw, Limits, State, Status, Step, Work};
use crate::world::{self, World, accept};

const LIMITS: Limits = Limits {
    events: 2,
    crashes: 3,
    pauses: 0,
    requeues: 3,
    outages: 2,
};
const WALKS: usize = 6;
const STEPS: usize = 60;

/// What a dispatcher knows of the claim that the model's dispatcher has.
#[derive(Clone)]
struct Held {
    claimed: Claimed,
    token: Uuid,
    record: Option<Record>,
}

/// The model and the database beside it.
struct Walk<'a> {
    world: &'a World,
    conn: AsyncPgConnection,
    ids: Vec<Uuid>,
    held: [Option<Held>; 2],
}

#[derive(QueryableByName, Debug)]
struct Row {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Nullable<SqlUuid>)]
    claim_token: Option<Uuid>,
    #[diesel(sql_type = Integer)]
    attempt_count: i32,
    #[diesel(sql_type = Nullable<Bool>)]
    is_due: Option<bool>,
    #[diesel(sql_type = Bool)]
    waits: bool,
}

#[derive(QueryableByName)]
struct Webhook {
    #[diesel(sql_type = Bool)]
    open: bool,
    #[diesel(sql_type = Nullable<Bool>)]
    looks: Option<bool>,
    #[diesel(sql_type = BigInt)]
    attempts: i64,
}

fn due(is_due: Option<bool>) -> Due {
    match is_due {
        Some(true) => Due::Now,
        Some(false) => Due::Later,
        None => Due::Never,
    }
}

impl Walk<'_> {
    /// Takes a step of the model in the database.
    async fn take(&mut self, state: &State, step: Step) {
        match step {
            Step::Ring(who, event) => {
                let token = Uuid::new_v4();
                let claimed = claim::claim(&mut self.conn, &self.ids[event..=event], token, 600.0);
                let claimed = claimed.await.unwrap();
                self.hold(who, event, claimed, token);
            }
            Step::Poll(who, event) => {
                let token = Uuid::new_v4();
                let claimed = claim::claim_due(&mut self.conn, 10, token, 600.0).await;
                self.hold(who, event, claimed.unwrap(), token);
            }
            Step::Probe(who, event) => {
                let token = Uuid::new_v4();
                let claimed = claim::claim_probes(&mut self.conn, 10, token, 600.0).await;
                self.hold(who, event, claimed.unwrap(), token);
            }
            Step::Answer(who, well) => self.answer(state, who, well),
            Step::Record(who) | Step::RecordUnheard(who) => {
                let held = self.held[who].clone().unwrap();
                let outcome = held.record.unwrap();
                record(&mut self.conn, &[outcome]).await.unwrap();
                if matches!(step, Step::Record(_)) {
                    self.held[who] = None;
                }
            }
            Step::GiveBack(who) => self.give_back(who, None).await,
            Step::Park(who) => {
                let park = Park {
                    reason: Reason::Backlog,
                    step: 16,
                };
                self.give_back(who, Some(park)).await;
            }
            Step::Crash(who) => self.held[who] = None,
            Step::Wait(event) => world::set_due(&mut self.conn, self.ids[event]).await,
            Step::WaitForLook => {
                self.sql("UPDATE whatsapp_webhooks SET look_at = now() - interval '1 s'")
                    .await;
            }
            Step::Requeue(event) => {
                let client = self.world.client.id;
                Event::requeue(&mut self.conn, client, self.ids[event])
                    .await
                    .unwrap();
            }
            Step::Open => {
                self.sql(
                    "UPDATE whatsapp_webhooks
                     SET status = 'failed', opened_at = now(), look_at = now() + interval '1 h'",
                )
                .await;
            }
            Step::SetAside => drop(parking::set_aside(&mut self.conn, 10).await.unwrap()),
            Step::Follow => drop(parking::park_followers(&mut self.conn, 10).await.unwrap()),
            Step::Flow if state.open => {
                let idle = claim::claim_probes(&mut self.conn, 10, Uuid::new_v4(), 600.0).await;
                assert!(idle.unwrap().is_empty());
            }
            Step::Flow => drop(parking::release_parked(&mut self.conn, 10).await.unwrap()),
            Step::Post(_) | Step::Pause(_) | Step::Wake(_) => {}
        }
        // The model opens circuits by itself.
        self.sql("UPDATE whatsapp_webhooks SET failure_count = 0")
            .await;
    }

    async fn sql(&mut self, text: &str) {
        self.conn.batch_execute(text).await.unwrap();
    }

    fn hold(&mut self, who: usize, event: usize, claimed: Vec<Claimed>, token: Uuid) {
        let [claimed] = <[Claimed; 1]>::try_from(claimed).expect("one claim");
        assert_eq!(claimed.id, self.ids[event]);
        self.held[who] = Some(Held {
            claimed,
            token,
            record: None,
        });
    }

    fn answer(&mut self, state: &State, who: usize, well: bool) {
        let Work::Posts(model) = state.dispatchers[who].work else {
            panic!("nothing was posted");
        };
        let held = self.held[who].as_mut().unwrap();
        assert_eq!(held.claimed.probe, model.probe);
        let last = held.claimed.attempt_count + 1 >= i32::from(ATTEMPTS);
        let outcome = match well {
            true => Outcome::Delivered,
            false if held.claimed.probe => Outcome::ProbeFailed,
            false if last => Outcome::Dead {
                reason: "the last attempt failed".to_owned(),
                gone: false,
            },
            false => Outcome::RetryIn(600.0),
        };
        held.record = Some(world::record(&held.claimed, held.token, outcome));
    }

    async fn give_back(&mut self, who: usize, park: Option<Park>) {
        let held = self.held[who].take().unwrap();
        let release = Release {
            event_id: held.claimed.id,
            webhook_id: held.claimed.webhook_id,
            token: held.token,
            delay_seconds: 0.0,
            park,
        };
        claim::release(&mut self.conn, &[release]).await.unwrap();
    }

    /// Whether the database says what the model says.
    async fn compare(&mut self, state: &State, steps: &[Step]) {
        let rows: Vec<Row> = Statement::new(
            "SELECT id, status, claim_token, attempt_count,
                 next_retry_at <= now() AND (claimed_until IS NULL OR claimed_until <= now()) AS is_due,
                 coalesce(parked = 'order', false) AS waits
             FROM whatsapp_webhook_events",
        )
        .load(&mut self.conn)
        .await
        .unwrap();
        for (place, model) in state.events[..state.count].iter().enumerate() {
            let row = rows.iter().find(|row| row.id == self.ids[place]).unwrap();
            let status = match row.status.as_str() {
                "pending" => Status::Pending,
                "delivered" => Status::Delivered,
                _ => Status::Failed,
            };
            let stands = |who: usize| {
                let claim = state.dispatchers[who].work.claim();
                claim.is_some_and(|c| c.event == place && model.token == Some(c.token))
            };
            let holder = (0..2).find(|who| stands(*who));
            let held = holder.map(|who| self.held[who].as_ref().unwrap().token);
            if let Some(token) = held {
                assert_eq!(row.claim_token, Some(token), "{steps:?}");
            }
            assert_eq!(
                row.claim_token.is_some(),
                model.token.is_some(),
                "{steps:?}"
            );
            let found = (status, row.attempt_count, due(row.is_due), row.waits);
            let attempts = i32::from(model.attempts);
            let expected = (model.status, attempts, model.due, model.waits);
            assert_eq!(found, expected, "event {place} after {steps:?}");
        }
        let webhook: Webhook = Statement::new(
            "SELECT status = 'failed' AS open, look_at <= now() AS looks,
                 (SELECT count(*) FROM whatsapp_delivery_attempts) AS attempts
             FROM whatsapp_webhooks",
        )
        .get_result(&mut self.conn)
        .await
        .unwrap();
        let answers = steps.iter().filter(|step| matches!(step, Step::Answer(..)));
        assert!(webhook.attempts <= answers.count() as i64, "{steps:?}");
        assert_eq!(webhook.open, state.open, "{steps:?}");
        assert_eq!(due(webhook.looks), state.look, "{steps:?}");
    }
}

/// Walks through the model at random, each step beside it in PostgreSQL: both must say the same.
#[tokio::test]
async fn the_statements_do_what_the_model_says() {
    let mut runner = TestRunner::new(Config::default());
    let choices = proptest::collection::vec(proptest::num::u16::ANY, STEPS);
    let mut steps = 0;
    for _ in 0..WALKS {
        let world = World::new().await;
        let mut conn = world.conn().await;
        let prepare = "UPDATE whatsapp_webhooks SET ordered = true, look_at = NULL";
        conn.batch_execute(prepare).await.unwrap();
        let messages = [world.message("first"), world.message("second")];
        let ids = accept(&mut conn, &messages).await.events;
        let later = "UPDATE whatsapp_webhook_events SET next_retry_at = now() + interval '10 min'";
        conn.batch_execute(later).await.unwrap();
        let mut walk = Walk {
            world: &world,
            conn,
            ids,
            held: [None, None],
        };
        let (mut state, mut taken) = (State::new(LIMITS), Vec::new());
        for choice in choices.new_tree(&mut runner).unwrap().current() {
            let open: Vec<(Step, State)> = state
                .steps()
                .into_iter()
                .filter_map(|step| Some((step, state.beside(step, Flaw::None)?)))
                .collect();
            let Some((step, next)) = open.get(usize::from(choice) % open.len().max(1)) else {
                break;
            };
            taken.push(*step);
            walk.take(&state, *step).await;
            walk.compare(next, &taken).await;
            state = *next;
        }
        steps += taken.len();
    }
    assert!(
        steps > WALKS * STEPS / 2,
        "they end too soon: {steps} steps"
    );
}
