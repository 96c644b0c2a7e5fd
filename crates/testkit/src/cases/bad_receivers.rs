//! Dispatchers under a steady load for many webhooks, most of whose receivers hang, fail, are busy or break
//! off, while the dispatchers are killed and stopped, Redis forgets and goes away, and PostgreSQL restarts.
//! Who behaves well gets everything, in order where that was asked for, and notices nothing of the others.
//!
//! The events are committed by the case itself: this is not about the gateway, which would cost more than
//! all that is looked at here.

mod faults;
mod judgement;
mod load;
mod receivers;

use std::time::Duration;

use anyhow::ensure;
use chrono::{DateTime, TimeDelta, Utc};
use domain::keyring::Keyring;
use futures_util::future::join_all;
use queue::Doorbell;
use runtime::config::RedisConfig;
use tokio::time::sleep;
use uuid::Uuid;

use super::invariants::Verdict;
use super::{Scale, WEBHOOK_TIMEOUT};
use crate::system::{Ground, Logs, Records};
use crate::{Process, Servers, eventually};
use faults::{Kind, Strike};
use judgement::{Kept, Seen};
use load::{Wanted, Writing};
use receivers::{Manner, Receivers};

const DISPATCHERS: usize = 3;
/// Until pools are open and caches warm.
const WARM_UP: Duration = Duration::from_secs(2);
/// What a dispatcher held when it was killed at last is due again after less.
const SETTLING: Duration = Duration::from_secs(60);
/// The 95th percentile from commit to receiver, in milliseconds, may be larger by this factor when others
/// misbehave; or it is small in any case.
const RATIO: f64 = 2.0;
const SMALL: f64 = 5.0;

/// Of ten webhooks.
const TEN: [Kept; 10] = [
    kept(Manner::Hang),
    kept(Manner::Well),
    kept(Manner::Fail),
    kept(Manner::Well),
    kept(Manner::Busy),
    kept(Manner::Well),
    kept(Manner::Cut),
    kept(Manner::Fail),
    kept(Manner::Hang),
    Kept {
        manner: Manner::Well,
        ordered: true,
    },
];

const fn kept(manner: Manner) -> Kept {
    Kept {
        manner,
        ordered: false,
    }
}

/// How much of it.
#[derive(Debug, Clone)]
pub struct Storm {
    /// Ten times as many webhooks.
    pub tens: usize,
    /// Events a second.
    pub rate: f64,
    /// How long it is measured what who behaves well notices, without the others and with them. Zero: it
    /// is not, and no bound is held.
    pub measured: Duration,
    /// How long faults strike.
    pub struck: Duration,
}

/// A case that was played, and what is to be told of it.
pub(super) struct Played {
    pub(super) verdict: Verdict,
    pub(super) kills: usize,
    pub(super) extra: Vec<(&'static str, String)>,
}

pub(super) async fn play(scale: &Scale) -> anyhow::Result<Played> {
    let storm = &scale.storm;
    let ground = Ground::prepare(Servers::start_durable().await).await?;
    let mut records = ground.records().await?;
    records.watch_steps_back().await?;
    let all: Vec<Kept> = TEN.into_iter().cycle().take(10 * storm.tens).collect();
    let receivers = Receivers::start(all.iter().map(|kept| kept.manner).collect()).await?;
    let wanted: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(number, kept)| Wanted {
            url: receivers.url(number),
            ordered: kept.ordered,
        })
        .collect();
    let keyring = Keyring::parse(ground.encryption_keys())?;
    let lines = load::link(ground.servers.database_url(), &keyring, &wanted).await?;
    let dispatchers =
        (0..DISPATCHERS).map(|_| ground.service("recado-dispatcher", WEBHOOK_TIMEOUT).start());
    let mut dispatchers = Logged {
        processes: join_all(dispatchers).await,
        logs: Logs(scale.logs.clone()),
    };

    let redis = RedisConfig::from_url(ground.servers.redis_url())?;
    let doorbell = Doorbell::new(runtime::redis::pool(&redis)?);
    let url = ground.servers.database_url();
    let writing = Writing::start(url, doorbell, lines.clone(), storm.rate);
    sleep(WARM_UP.min(storm.measured)).await;
    let well = phase(storm.measured).await;
    receivers.misbehave();
    let bad = phase(storm.measured).await;
    let processes = &mut dispatchers.processes;
    let strikes = faults::inflict(processes, &ground.servers, storm.struck).await?;
    let committed = writing.end().await?;

    let healthy: Vec<Uuid> = lines
        .iter()
        .zip(&all)
        .filter(|(_, kept)| kept.manner == Manner::Well)
        .map(|(line, _)| line.webhook)
        .collect();
    let mut records = ground.records().await?;
    settle(&mut records, &healthy).await;
    for dispatcher in &mut dispatchers.processes {
        let status = dispatcher.stop().await;
        ensure!(status.success(), "a dispatcher ended with {status}");
    }
    let seen = Seen {
        webhook_timeout: WEBHOOK_TIMEOUT,
        kept: all,
        committed,
        requests: receivers.log()?,
        events: records.events().await?,
        attempts: records.attempts().await?,
        steps_back: records.steps_back().await?,
        strikes,
    };
    let mut played = told(&seen);
    let violations = &mut played.verdict.violations;
    violations.extend(ground.verify().await?);
    violations.extend(records.losses().await?);
    if !storm.measured.is_zero() {
        compare(&mut played, &seen, well, bad);
    }
    Ok(played)
}

type Span = (DateTime<Utc>, DateTime<Utc>);

async fn phase(time: Duration) -> Span {
    let from = Utc::now();
    sleep(time).await;
    (from, Utc::now())
}

/// Waits until nothing is pending for those who behave well.
async fn settle(records: &mut Records, webhooks: &[Uuid]) {
    eventually(SETTLING, async || {
        match records.pending_of(webhooks).await {
            Ok(0) => Ok(()),
            Ok(pending) => Err(format!("{pending} events of healthy webhooks are pending")),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await;
}

fn told(seen: &Seen) -> Played {
    let count = |kind| {
        let of_it = |strike: &&Strike| strike.kind == kind;
        seen.strikes.iter().filter(of_it).count()
    };
    Played {
        verdict: judgement::judge(seen),
        kills: count(Kind::Kill),
        extra: vec![
            ("stops", count(Kind::Stop).to_string()),
            ("flushes", count(Kind::Flush).to_string()),
            ("redis_away", count(Kind::RedisAway).to_string()),
            ("postgres_away", count(Kind::PostgresAway).to_string()),
            ("events", seen.committed.len().to_string()),
            ("requests", seen.requests.len().to_string()),
        ],
    }
}

/// Tells what who behaves well noticed of the others, and holds it against the bound.
fn compare(played: &mut Played, seen: &Seen, well: Span, bad: Span) {
    let p95 = |(from, to)| percentile(&judgement::delays(seen, from, to), 0.95);
    let mut tell = |name, value: f64| played.extra.push((name, format!("{value:.2}")));
    tell("p95_ms", p95(well));
    tell("p95_ms_among_bad", p95(bad));
    let (well, bad) = (typical(p95, well), typical(p95, bad));
    tell("typical_p95_ms", well);
    tell("typical_p95_ms_among_bad", bad);
    // Not a number, if nothing arrived, is no good either.
    let bearable = bad <= SMALL || bad <= RATIO * well;
    if !bearable {
        played.verdict.violations.push(format!(
            "in a typical second the 95th percentile from commit to receiver is {bad:.2} ms among bad receivers, \
             and {well:.2} ms without"
        ));
    }
}

/// The median over the seconds of a phase: what holds up the machine for a moment is in one second of one
/// phase, and what bad receivers do to the others in all of one.
fn typical(measure: impl Fn(Span) -> f64, (from, to): Span) -> f64 {
    let second = TimeDelta::seconds(1);
    let seconds = std::iter::successors(Some(from), |at| Some(*at + second));
    let mut all: Vec<f64> = seconds
        .take_while(|at| *at + second <= to)
        .map(|at| measure((at, at + second)))
        .collect();
    all.sort_by(f64::total_cmp);
    percentile(&all, 0.5)
}

/// The smallest value that so large a share of the sorted values does not exceed.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

/// Dispatchers whose logs are kept when all is over, however it ended.
struct Logged {
    processes: Vec<Process>,
    logs: Logs,
}

impl Drop for Logged {
    fn drop(&mut self) {
        let named = self.processes.iter().zip(1..);
        self.logs
            .keep(named.map(|(process, number)| (format!("dispatcher-{number}"), process)));
    }
}
