//! Brings the sessions that this gateway holds to what the connections' rows ask for, claims free ones up to
//! its share, and gives up what is beyond it: woken by a doorbell, and by itself every second.

mod desk;
mod retry;
mod running;
mod share;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use domain::connection::{Connection, Status};
use domain::gateway::Gateway;
use domain::lease::{Lease, Work};
use queue::{ConnectionListener, News};
use runtime::config::DatabaseConfig;
use runtime::shutdown::Shutdown;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use self::desk::{Desk, View};
use self::retry::Retry;
use self::running::{Running, goal_of, in_order, is_paced};
use self::share::Share;
use crate::hold::Hold;
use crate::session::{Goal, Session, Shared};

const POLL: Duration = Duration::from_secs(1);
/// The same while sessions are given up, which those who take them must not wait for.
const GIVING: Duration = Duration::from_millis(200);
/// Rings that come thicker are answered together.
const BREATH: Duration = Duration::from_millis(50);
/// Sessions claimed at once that are to end; neither share nor capacity matters to them.
const ENDED_AT_ONCE: usize = 100;
/// Sessions that are given up at once, so that whoever takes them can start them soon.
const GIVEN_AT_ONCE: usize = 16;
/// Before the end of the grace period, what has not been taken by then is given up.
const LAST_MOMENT: Duration = Duration::from_secs(8);
/// Rings that are heard while another is answered; more wait in the subscription.
const HEARD: usize = 16;
/// Between two questions whether Redis is still there.
const LISTEN: Duration = Duration::from_secs(30);

/// Whether this gateway can hold sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    Holds,
    /// PostgreSQL does not answer; what is held stays, and nothing is acknowledged meanwhile.
    CutOff(String),
}

pub(crate) struct Supervisor {
    shared: Shared,
    desk: Desk,
    standing: watch::Sender<Standing>,
    sessions: JoinSet<anyhow::Result<()>>,
    tasks: HashMap<Id, Lease>,
    running: HashMap<Uuid, Running>,
    retries: HashMap<Uuid, Retry>,
    /// What is held and has no session that runs, the next one first.
    waiting: VecDeque<Connection>,
    /// What is held no longer, and PostgreSQL does not know it yet.
    ended: Vec<Lease>,
    /// As of the last look.
    share: Option<Share>,
    free: usize,
    looked: Instant,
    started: Instant,
    /// When all that is left is given up at once.
    last_moment: Option<Instant>,
    /// This gateway holds as many sessions as it may, and others wait, which was said.
    full: bool,
}

impl Supervisor {
    pub(crate) fn new(
        shared: Shared,
        database: DatabaseConfig,
        standing: watch::Sender<Standing>,
    ) -> Self {
        let limits = shared.limits;
        let gateway = Gateway {
            id: Uuid::now_v7(),
            name: hostname(),
            capacity: i32::try_from(limits.capacity.get()).unwrap_or(i32::MAX),
            connect_rate: i32::try_from(limits.connect_rate.get()).unwrap_or(i32::MAX),
            sessions: 0,
            draining: false,
            lease_seconds: limits.lease.as_secs_f64(),
        };
        tracing::info!(gateway = %gateway.id, "this gateway holds sessions under that name");
        Self {
            desk: Desk::new(database, gateway, shared.confirmed.clone()),
            shared,
            standing,
            sessions: JoinSet::new(),
            tasks: HashMap::new(),
            running: HashMap::new(),
            retries: HashMap::new(),
            waiting: VecDeque::new(),
            ended: Vec::new(),
            share: None,
            free: 0,
            looked: Instant::now(),
            started: Instant::now(),
            last_moment: None,
            full: false,
        }
    }

    /// Supervises until the shutdown or until nothing can be committed any more; returns when the sessions
    /// have ended and are others' to take.
    pub(crate) async fn run(mut self, listener: ConnectionListener, shutdown: &Shutdown) {
        let (sender, mut heard) = mpsc::channel(HEARD);
        let mut listening = std::pin::pin!(listen(listener, sender));
        let abandoned = self.shared.abandoned.clone();
        self.look().await;
        while !self.is_drained() {
            let (next_look, next_turn) = (self.next_look(), self.next_turn());
            tokio::select! {
                biased;
                () = shutdown.hard().cancelled() => break,
                () = abandoned.cancelled() => break,
                () = shutdown.soft().cancelled(), if self.last_moment.is_none() => {
                    let left = shutdown.grace().saturating_sub(LAST_MOMENT);
                    self.last_moment = Some(Instant::now() + left);
                    self.look().await;
                }
                Some(ended) = self.sessions.join_next_with_id() => self.end(ended).await,
                Some(news) = heard.recv() => match news {
                    News::ToSend(connections) => self.poke(&connections),
                    News::Wanted => {
                        sleep_until(self.looked + BREATH).await;
                        // A look finds all of that as well.
                        while heard.try_recv().is_ok() {}
                        self.look().await;
                    }
                },
                () = sleep_until(next_look) => self.look().await,
                () = sleep_until(next_turn) => self.start_more().await,
                () = &mut listening => {}
            }
        }
        self.sessions.abort_all();
        while self.sessions.join_next().await.is_some() {}
        if let Err(error) = self.desk.retire().await {
            tracing::warn!("the sessions are free when this gateway's lease is over: {error:#}");
        }
        // Nobody waits for it: the others look every second.
        let _ = self.shared.doorbell.ring_connections().await;
    }

    fn is_drained(&self) -> bool {
        self.last_moment.is_some() && self.running.is_empty()
    }

    fn next_look(&self) -> Instant {
        let gives = match self.share {
            Some(share) => self.running.len() > share.tolerated,
            None => false,
        };
        self.looked + if gives { GIVING } else { POLL }
    }

    /// When one more session may be started.
    fn next_turn(&self) -> Instant {
        let now = Instant::now();
        let due = self.waiting.iter().any(|row| self.is_due(row, now));
        let turn = match (due || self.room() > 0) && self.last_moment.is_none() {
            true => self.shared.turns.with(|pace| pace.next()),
            false => now + POLL,
        };
        turn.max(self.started + BREATH)
    }

    /// How many free connections this gateway should claim.
    fn room(&self) -> usize {
        let held = self.running.len() + self.waiting.len();
        match (self.share, self.last_moment) {
            (Some(share), None) => share.sessions.saturating_sub(held).min(self.free),
            _ => 0,
        }
    }

    /// Compares the rows with the sessions.
    async fn look(&mut self) {
        self.tell_ended().await;
        let sessions = self.running.len() + self.waiting.len();
        let draining = self.last_moment.is_some();
        let view = self.desk.look(sessions, draining).await;
        self.looked = Instant::now();
        match view {
            Ok(view) => {
                self.stand(Standing::Holds);
                self.reconcile(view);
                self.start_more().await;
            }
            Err(error) => {
                self.stand(Standing::CutOff(format!("{error:#}")));
                if draining {
                    self.share = Some(Share::default());
                }
            }
        }
        self.give();
        self.measure();
    }

    fn stand(&self, standing: Standing) {
        let changed = self.standing.send_if_modified(|now| {
            let changed = std::mem::discriminant(now) != std::mem::discriminant(&standing);
            now.clone_from(&standing);
            changed
        });
        match standing {
            Standing::CutOff(why) if changed => {
                tracing::warn!(error = why, "PostgreSQL is away: sessions stay");
            }
            Standing::Holds if changed => tracing::info!("PostgreSQL is there"),
            _ => {}
        }
    }

    fn reconcile(&mut self, view: View) {
        self.shared.bell.ring(view.events);
        self.free = view.free;
        self.share = Some(Share::of(&view.me, &view.peers, view.free));
        let held: HashMap<Uuid, Connection> =
            view.held.into_iter().map(|row| (row.id, row)).collect();
        for (id, running) in &self.running {
            match held.get(id) {
                Some(row) if row.lease() == running.hold.lease() => running.aim(row),
                _ => running.hold.lose(),
            }
        }
        self.poke(&view.sending);
        self.retries.retain(|id, _| held.contains_key(id));
        let over: HashSet<Lease> = self.ended.iter().copied().collect();
        let (wanted, settled): (Vec<_>, Vec<_>) = held
            .into_values()
            .filter(|row| !self.running.contains_key(&row.id) && !over.contains(&row.lease()))
            .partition(Connection::wants_an_owner);
        self.ended.extend(settled.iter().map(Connection::lease));
        self.waiting = in_order(wanted);
    }

    /// Says to those of these connections' sessions that run here that there is something to send.
    fn poke(&self, connections: &[Uuid]) {
        for running in connections.iter().filter_map(|id| self.running.get(id)) {
            running.poked.notify_one();
        }
    }

    /// Starts what is held, then claims what is free, as the pace allows.
    async fn start_more(&mut self) {
        if self.last_moment.is_some() {
            self.ended
                .extend(self.waiting.drain(..).map(|row| row.lease()));
            return self.tell_ended().await;
        }
        self.start_waiting();
        if self.free > 0 {
            self.claim(Work::End, ENDED_AT_ONCE).await;
            let turns = self
                .shared
                .turns
                .with(|pace| pace.available(Instant::now()));
            let connecting = self.waiting.iter().filter(|row| is_paced(row));
            let turns = turns.saturating_sub(connecting.count());
            self.claim(Work::Connect, self.room().min(turns)).await;
            self.start_waiting();
        }
        self.started = Instant::now();
    }

    async fn claim(&mut self, work: Work, limit: usize) {
        if limit == 0 {
            return;
        }
        match self.desk.claim(work, limit).await {
            Ok(claimed) => {
                self.free = match claimed.len() < limit && work == Work::Connect {
                    true => 0,
                    false => self.free.saturating_sub(claimed.len()),
                };
                self.waiting.extend(claimed);
            }
            Err(error) => {
                self.free = 0;
                tracing::warn!("free connections could not be claimed: {error:#}");
            }
        }
    }

    fn start_waiting(&mut self) {
        let now = Instant::now();
        for row in std::mem::take(&mut self.waiting) {
            let turn = self.is_due(&row, now) && (!is_paced(&row) || self.take_turn(now));
            match turn {
                true => self.start(row),
                false => self.waiting.push_back(row),
            }
        }
    }

    /// What was lost and claimed anew in one moment still has its last session, whose end must not be taken for
    /// the next one's.
    fn is_due(&self, row: &Connection, now: Instant) -> bool {
        if self.running.contains_key(&row.id) {
            return false;
        }
        let retry = self.retries.get(&row.id);
        retry.is_none_or(|retry| retry.is_due(now, goal_of(row)))
    }

    fn take_turn(&self, now: Instant) -> bool {
        self.shared.turns.with(|pace| {
            let due = pace.is_due(now);
            if due {
                pace.start(now);
            }
            due
        })
    }

    fn start(&mut self, row: Connection) {
        let hold = Hold::new(row.lease());
        let (goal, wanted) = watch::channel(goal_of(&row));
        let (told, status) = watch::channel(Status::Reconnecting);
        let running = Running {
            hold: hold.clone(),
            goal,
            status,
            phone_number: row.phone_number.clone(),
            linked: row.jid.is_some(),
            pairing: row.pairing(),
            poked: Arc::default(),
            since: Instant::now(),
        };
        let (id, lease) = (row.id, row.lease());
        let poked = Arc::clone(&running.poked);
        let session = Session::new(row, hold, self.shared.clone(), wanted, told, poked);
        let task = self.sessions.spawn(session.run());
        self.tasks.insert(task.id(), lease);
        self.running.insert(id, running);
    }

    /// Takes note of a session that has ended, and of all others that have.
    async fn end(&mut self, ended: Result<(Id, anyhow::Result<()>), JoinError>) {
        self.note(ended);
        while let Some(ended) = self.sessions.try_join_next_with_id() {
            self.note(ended);
        }
        if !self.is_drained() {
            self.tell_ended().await;
        }
    }

    fn note(&mut self, ended: Result<(Id, anyhow::Result<()>), JoinError>) {
        let (task, problem) = match ended {
            Ok((task, Ok(()))) => (task, None),
            Ok((task, Err(error))) => (task, Some(format!("{error:#}"))),
            Err(error) => (error.id(), Some(error.to_string())),
        };
        let Some(lease) = self.tasks.remove(&task) else {
            return;
        };
        let id = lease.connection_id;
        let Some(running) = self.running.remove(&id) else {
            return;
        };
        match problem {
            Some(problem) if !running.hold.is_lost() => {
                let lasted = running.since.elapsed();
                let goal = *running.goal.borrow();
                let retry = self.retries.entry(id).or_default();
                let pause = retry.failed(lasted, goal);
                metrics::counter!("recado_gateway_session_failures_total").increment(1);
                tracing::error!(connection_id = %id, error = problem, ?pause,
                    "a session failed and is started again");
            }
            _ => {
                self.retries.remove(&id);
                self.ended.push(lease);
            }
        }
    }

    /// Gives up what has ended, so that others may go on with what is still to be done.
    async fn tell_ended(&mut self) {
        if self.ended.is_empty() {
            return;
        }
        match self.desk.release(&self.ended).await {
            Ok(()) => {
                self.ended.clear();
                // A ring that is lost costs a second.
                let _ = self.shared.doorbell.ring_connections().await;
            }
            Err(error) => tracing::warn!("sessions could not be given up yet: {error:#}"),
        }
    }

    /// Ends sessions beyond the share, as many as those who would take them can start soon.
    fn give(&mut self) {
        let Some(share) = self.share else { return };
        let (draining, now) = (self.last_moment.is_some(), Instant::now());
        if self.running.len() <= share.tolerated || share.takers_rate == 0 && !draining {
            return;
        }
        let (leaving, mut staying): (Vec<_>, Vec<_>) =
            self.running.values().partition(|running| running.leaves());
        let surplus = staying.len().saturating_sub(share.sessions);
        let last_moment = self.last_moment.is_some_and(|moment| moment <= now);
        let step = match share.takers_rate == 0 || last_moment {
            true => surplus,
            false => {
                let soon = (share.takers_rate as f64 * GIVING.as_secs_f64()) as usize;
                let under_way = self.free + leaving.len();
                soon.clamp(1, GIVEN_AT_ONCE).saturating_sub(under_way)
            }
        };
        // Before the code of one that is not linked somebody may sit.
        staying.sort_by_key(|running| !running.linked);
        for running in staying.into_iter().take(step.min(surplus)) {
            running.goal.send_replace(Goal::HandedOver);
        }
    }

    fn measure(&mut self) {
        let connected = self.running.values().filter(|each| each.is_connected());
        let connected = connected.count();
        let others = self.running.len() - connected;
        metrics::gauge!("recado_gateway_sessions", "status" => "connected").set(connected as f64);
        metrics::gauge!("recado_gateway_sessions", "status" => "reconnecting").set(others as f64);
        metrics::gauge!("recado_gateway_sessions", "status" => "waiting")
            .set(self.waiting.len() as f64);
        metrics::gauge!("recado_gateway_connections_free").set(self.free as f64);
        let held = self.running.len() + self.waiting.len();
        let full = self.free > 0 && held >= self.shared.limits.capacity.get();
        if full && !self.full {
            tracing::warn!(
                waiting = self.free,
                capacity = self.shared.limits.capacity,
                "connections wait: this gateway is full"
            );
        }
        self.full = full;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "nobody sets it; a name for operators on which nothing depends"
)]
fn hostname() -> String {
    std::env::var("HOSTNAME").unwrap_or_default()
}

/// Never returns. Without Redis the poll is what is left.
async fn listen(mut listener: ConnectionListener, heard: mpsc::Sender<News>) {
    let mut away = false;
    loop {
        match listener.wait(LISTEN).await {
            Ok(Some(news)) => {
                away = false;
                // Its receiver is there as long as this is polled.
                let _ = heard.send(news).await;
            }
            Ok(None) => {}
            Err(error) => {
                if !std::mem::replace(&mut away, true) {
                    tracing::warn!(%error, "Redis is away: connections are looked at every second");
                }
            }
        }
    }
}
