//! Brings the sessions to what the connections' rows ask for: woken by a doorbell, and by itself every
//! second.

mod pace;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use domain::connection::{Connection, Desired, Status};
use queue::ConnectionListener;
use runtime::shutdown::Shutdown;
use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use uuid::Uuid;

use self::pace::{Pace, Retry};
use crate::config::Limits;
use crate::session::{Goal, RESTORE, Session, Shared};

const POLL: Duration = Duration::from_secs(1);
/// What one look at the rows may take.
const LOOK: Duration = Duration::from_secs(5);
/// Rows that one look corrects.
const TOLD_AT_ONCE: usize = 100;
/// Between two questions whether Redis is still there.
const LISTEN: Duration = Duration::from_secs(30);

pub(crate) struct Supervisor {
    shared: Shared,
    limits: Limits,
    sessions: JoinSet<anyhow::Result<()>>,
    tasks: HashMap<Id, Uuid>,
    running: HashMap<Uuid, Running>,
    retries: HashMap<Uuid, Retry>,
    /// Rows that want a session and have none, the next one first.
    waiting: VecDeque<Connection>,
    pace: Pace,
    /// When rows that still say `connected`, as the last gateway left them, are told that they are not.
    honest_from: Instant,
    /// The last look at the rows failed, which was said.
    blind: bool,
    /// This gateway holds as many sessions as it may, which was said.
    full: bool,
}

struct Running {
    goal: watch::Sender<Goal>,
    status: watch::Receiver<Status>,
    phone_number: String,
    since: Instant,
}

impl Supervisor {
    pub(crate) fn new(shared: Shared, limits: Limits) -> Self {
        Self {
            shared,
            pace: Pace::new(limits.connect_rate),
            limits,
            sessions: JoinSet::new(),
            tasks: HashMap::new(),
            running: HashMap::new(),
            retries: HashMap::new(),
            waiting: VecDeque::new(),
            honest_from: Instant::now() + RESTORE,
            blind: false,
            full: false,
        }
    }

    /// Supervises until the shutdown begins or the sessions are abandoned; returns when they have ended.
    pub(crate) async fn run(mut self, listener: ConnectionListener, shutdown: &Shutdown) {
        let rung = Notify::new();
        let mut listening = std::pin::pin!(listen(listener, &rung));
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let abandoned = self.shared.abandoned.clone();
        loop {
            let next_start = self.pace.next();
            tokio::select! {
                biased;
                () = shutdown.soft().cancelled() => break,
                () = abandoned.cancelled() => break,
                Some(ended) = self.sessions.join_next_with_id() => self.ended(ended),
                () = rung.notified() => self.look(shutdown).await,
                _ = poll.tick() => self.look(shutdown).await,
                () = tokio::time::sleep_until(next_start), if self.has_room() => {
                    self.start_waiting();
                }
                () = &mut listening => {}
            }
        }
        self.hand_over(shutdown).await;
    }

    /// Compares the rows with the sessions.
    async fn look(&mut self, shutdown: &Shutdown) {
        let rows = tokio::select! {
            rows = timeout(LOOK, self.rows()) => rows,
            () = shutdown.soft().cancelled() => return,
        };
        match rows.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {LOOK:?}"))) {
            Ok(rows) => {
                self.blind = false;
                self.reconcile(rows);
                self.start_waiting();
                self.tell_waiting().await;
            }
            Err(error) if !std::mem::replace(&mut self.blind, true) => {
                tracing::warn!("the connections cannot be read: {error:#}");
            }
            Err(_) => {}
        }
        self.measure();
    }

    /// Corrects rows whose turn is long in coming. No session of theirs can run meanwhile.
    async fn tell_waiting(&mut self) {
        if Instant::now() < self.honest_from {
            return;
        }
        let (pool, bell) = (&self.shared.pool, &self.shared.bell);
        let stale = self
            .waiting
            .iter_mut()
            .filter(|row| row.status == Status::Connected.as_str());
        let tell = async {
            let mut conn = pool.get().await?;
            for row in stale.take(TOLD_AT_ONCE) {
                let (status, reason) = (Status::Reconnecting, Some("connection_lost"));
                bell.ring(Connection::transition(&mut conn, row.id, status, reason).await?);
                row.status = status.as_str().to_owned();
            }
            anyhow::Ok(())
        };
        // The next look finds what is left.
        if let Ok(Err(error)) = timeout(LOOK, tell).await {
            tracing::warn!("connections that wait could not be told: {error:#}");
        }
    }

    async fn rows(&self) -> anyhow::Result<Vec<Connection>> {
        let mut conn = self.shared.pool.get().await?;
        Ok(Connection::to_reconcile(&mut conn).await?)
    }

    fn reconcile(&mut self, rows: Vec<Connection>) {
        let mut unlisted: Vec<Uuid> = Vec::new();
        let listed: HashMap<Uuid, Connection> = rows.into_iter().map(|row| (row.id, row)).collect();
        for (id, running) in &self.running {
            match listed.get(id) {
                Some(row) => running.aim(row),
                None => unlisted.push(*id),
            }
        }
        for id in unlisted {
            // Its row is gone, or says that there is nothing to do.
            self.running[&id].goal.send_replace(Goal::HandedOver);
        }
        self.retries.retain(|id, _| listed.contains_key(id));
        let idle = listed
            .into_values()
            .filter(|row| !self.running.contains_key(&row.id));
        let mut waiting: Vec<Connection> = idle.collect();
        // To end a session is soon done. Somebody looks at a screen for those that are not linked yet.
        waiting.sort_by_key(|row| (place(goal_of(row)), row.jid.is_some(), row.created_at));
        self.waiting = waiting.into();
    }

    /// Whether there is a next one that may start when it is its time. Those that are to end may always.
    fn has_room(&self) -> bool {
        self.waiting.front().is_some_and(|next| {
            goal_of(next) != Goal::Connected || self.running.len() < self.limits.capacity.get()
        })
    }

    fn start_waiting(&mut self) {
        let now = Instant::now();
        while self.has_room() {
            let Some(row) = self.waiting.pop_front() else {
                break;
            };
            let goal = goal_of(&row);
            // To be disconnected it need not connect.
            let paced = goal != Goal::Disconnected;
            if paced && !self.pace.is_due(now) {
                self.waiting.push_front(row);
                break;
            }
            match self.retries.get(&row.id) {
                Some(retry) if !retry.is_due(now, goal) => {}
                _ => {
                    if paced {
                        self.pace.start(now);
                    }
                    self.start(row);
                }
            }
        }
    }

    fn start(&mut self, row: Connection) {
        let id = row.id;
        let (goal, wanted) = watch::channel(goal_of(&row));
        let (told, status) = watch::channel(Status::Reconnecting);
        let running = Running {
            goal,
            status,
            phone_number: row.phone_number.clone(),
            since: Instant::now(),
        };
        let session = Session::new(row, self.shared.clone(), wanted, told);
        let task = self.sessions.spawn(session.run());
        self.tasks.insert(task.id(), id);
        self.running.insert(id, running);
    }

    fn ended(&mut self, ended: Result<(Id, anyhow::Result<()>), JoinError>) {
        let (task, problem) = match ended {
            Ok((task, Ok(()))) => (task, None),
            Ok((task, Err(error))) => (task, Some(format!("{error:#}"))),
            Err(error) => (error.id(), Some(error.to_string())),
        };
        let Some(id) = self.tasks.remove(&task) else {
            return;
        };
        let running = self.running.remove(&id);
        match problem {
            None => {
                self.retries.remove(&id);
            }
            Some(problem) => {
                let lasted = running
                    .as_ref()
                    .map_or(Duration::ZERO, |running| running.since.elapsed());
                let goal = running.map_or(Goal::Connected, |running| *running.goal.borrow());
                let retry = self.retries.entry(id).or_default();
                let pause = retry.failed(lasted, goal);
                metrics::counter!("recado_gateway_session_failures_total").increment(1);
                tracing::error!(connection_id = %id, error = problem, ?pause,
                    "a session failed and is started again");
            }
        }
    }

    /// Ends all sessions; the hard stop cuts off those that take too long.
    async fn hand_over(&mut self, shutdown: &Shutdown) {
        for running in self.running.values() {
            running.goal.send_replace(Goal::HandedOver);
        }
        let all = async { while self.sessions.join_next().await.is_some() {} };
        tokio::select! {
            () = all => {}
            () = shutdown.hard().cancelled() => self.sessions.abort_all(),
        }
    }

    fn measure(&mut self) {
        let connected = |running: &&Running| *running.status.borrow() == Status::Connected;
        let connected = self.running.values().filter(connected).count();
        let others = self.running.len() - connected;
        metrics::gauge!("recado_gateway_sessions", "status" => "connected").set(connected as f64);
        metrics::gauge!("recado_gateway_sessions", "status" => "reconnecting").set(others as f64);
        metrics::gauge!("recado_gateway_sessions", "status" => "waiting")
            .set(self.waiting.len() as f64);
        let full = !self.waiting.is_empty() && self.running.len() >= self.limits.capacity.get();
        if full && !self.full {
            tracing::warn!(
                waiting = self.waiting.len(),
                capacity = self.limits.capacity,
                "connections wait: this gateway is full"
            );
        }
        self.full = full;
    }
}

impl Running {
    /// Passes on what the row wants; also that it says otherwise than the session, which then says it again:
    /// who asks for a session anew before its end was begun resets the row, and nothing else would happen.
    fn aim(&self, row: &Connection) {
        let goal = match goal_of(row) {
            // It was registered anew for another number before it was linked.
            Goal::Connected if row.phone_number != self.phone_number => Goal::HandedOver,
            goal => goal,
        };
        let connected = *self.status.borrow() == Status::Connected;
        let forgotten = connected && row.status != Status::Connected.as_str();
        self.goal.send_if_modified(|aimed| {
            let changed = *aimed != goal || forgotten;
            *aimed = goal;
            changed
        });
    }
}

/// In the queue of those that want a session.
fn place(goal: Goal) -> u8 {
    match goal {
        Goal::Disconnected => 0,
        Goal::LoggedOut => 1,
        Goal::Connected | Goal::HandedOver => 2,
    }
}

fn goal_of(row: &Connection) -> Goal {
    if row.deleted_at.is_some() || row.is(Desired::LoggedOut) {
        Goal::LoggedOut
    } else if row.is(Desired::Disconnected) {
        Goal::Disconnected
    } else {
        Goal::Connected
    }
}

/// Never returns. Without Redis the poll is what is left.
async fn listen(mut listener: ConnectionListener, rung: &Notify) {
    let mut away = false;
    loop {
        match listener.wait(LISTEN).await {
            Ok(true) => {
                away = false;
                rung.notify_one();
            }
            Ok(false) => {}
            Err(error) => {
                if !std::mem::replace(&mut away, true) {
                    tracing::warn!(%error, "Redis is away: connections are looked at every second");
                }
            }
        }
    }
}
