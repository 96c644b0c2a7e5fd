//! The fault cases: what Recado promises, held against the real binaries while they are killed and
//! their servers taken away. `recado-chaos` runs them in full size, the tests in a small one.

pub mod bad_receivers;
mod dispatcher_kill;
mod dispatcher_pause;
mod gateway_kill;
pub mod invariants;
mod oversleep;
mod postgres_restart;
mod redis_down;
mod redis_flush;
mod stage;
mod takeover;
pub mod traffic;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use tokio::time::timeout;

use crate::system::{Settings, System};
use bad_receivers::{Played, Storm};
use invariants::{Figures, Rules};
use stage::Stage;
pub use takeover::Takeover;

/// A dispatcher's claim lasts longer by some seconds, and what it held when it was killed waits so long.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// In which a case must be over, whatever happens.
const LIMIT: Duration = Duration::from_secs(300);

/// A fault, many times over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    GatewayKill,
    DispatcherKill,
    DispatcherPause,
    RedisFlush,
    RedisDown,
    PostgresRestart,
    TakeoverKill,
    TakeoverPause,
    TakeoverDrain,
    BadReceivers,
}

impl Case {
    pub const ALL: [Self; 10] = [
        Self::GatewayKill,
        Self::DispatcherKill,
        Self::DispatcherPause,
        Self::RedisFlush,
        Self::RedisDown,
        Self::PostgresRestart,
        Self::TakeoverKill,
        Self::TakeoverPause,
        Self::TakeoverDrain,
        Self::BadReceivers,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::GatewayKill => "gateway-kill",
            Self::DispatcherKill => "dispatcher-kill",
            Self::DispatcherPause => "dispatcher-pause",
            Self::RedisFlush => "redis-flush",
            Self::RedisDown => "redis-down",
            Self::PostgresRestart => "postgres-restart",
            Self::TakeoverKill => "takeover-kill",
            Self::TakeoverPause => "takeover-pause",
            Self::TakeoverDrain => "takeover-drain",
            Self::BadReceivers => "bad-receivers",
        }
    }

    fn rules(self) -> Rules {
        Rules {
            outcomes_get_lost: self == Self::DispatcherKill,
        }
    }

    fn dispatchers(self) -> usize {
        match self {
            Self::DispatcherKill | Self::DispatcherPause => 2,
            _ => 1,
        }
    }

    fn gateways(self) -> usize {
        match self {
            Self::TakeoverKill | Self::TakeoverPause | Self::TakeoverDrain => 2,
            _ => 1,
        }
    }

    /// The scale with what this case needs of it.
    fn fitted(self, scale: &Scale) -> Scale {
        match self {
            Self::TakeoverKill | Self::TakeoverPause | Self::TakeoverDrain => {
                takeover::fitted(self, scale)
            }
            Self::DispatcherPause => dispatcher_pause::fitted(scale),
            _ => scale.clone(),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Names those that there are.
#[derive(Debug, thiserror::Error)]
#[error("there is no case {0:?}; there are {all}", all = Case::ALL.map(Case::name).join(", "))]
pub struct NoSuchCase(String);

impl FromStr for Case {
    type Err = NoSuchCase;

    fn from_str(name: &str) -> Result<Self, NoSuchCase> {
        let case = Self::ALL.into_iter().find(|case| case.name() == name);
        case.ok_or_else(|| NoSuchCase(name.to_owned()))
    }
}

/// How much of it.
#[derive(Debug, Clone)]
pub struct Scale {
    pub messages: usize,
    pub accounts: usize,
    /// Messages a second, on the average.
    pub rate: f64,
    /// How often the fault strikes.
    pub faults: usize,
    /// Of the case that needs no accounts.
    pub storm: Storm,
    /// Of the cases in which gateways take sessions from each other.
    pub takeover: Takeover,
    /// Where the processes' logs are put.
    pub logs: Option<PathBuf>,
}

/// A case that was passed.
#[derive(Debug, Clone)]
pub struct Passed {
    pub figures: Figures,
    /// How often the fault struck.
    pub kills: usize,
    /// What else is to be told of this case: name and value.
    pub extra: Vec<(&'static str, String)>,
    pub took: Duration,
}

impl fmt::Display for Passed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} kills={}", self.figures, self.kills)?;
        for (name, value) in &self.extra {
            write!(formatter, " {name}={value}")?;
        }
        write!(formatter, " seconds={:.1}", self.took.as_secs_f64())
    }
}

/// Runs a case on a system of its own. Panics where a part doesn't start or a wait is in vain.
pub async fn run(case: Case, scale: &Scale) -> anyhow::Result<Passed> {
    let started = Instant::now();
    let scale = &Scale {
        logs: scale.logs.as_ref().map(|logs| logs.join(case.name())),
        ..case.fitted(scale)
    };
    let played = async {
        match case {
            Case::BadReceivers => bad_receivers::play(scale).await,
            _ => play(case, scale).await,
        }
    };
    let Ok(played) = timeout(LIMIT, played).await else {
        bail!("it was not over after {} s", LIMIT.as_secs());
    };
    let played = played?;
    let verdict = played.verdict;
    ensure!(
        verdict.violations.is_empty(),
        "{} ({})",
        verdict.violations.join("; "),
        verdict.figures
    );
    Ok(Passed {
        figures: verdict.figures,
        kills: played.kills,
        extra: played.extra,
        took: started.elapsed(),
    })
}

/// With people who write, from their phones to the receiver.
async fn play(case: Case, scale: &Scale) -> anyhow::Result<Played> {
    let system = System::start(Settings {
        webhook_timeout: WEBHOOK_TIMEOUT,
        gateways: case.gateways(),
        dispatchers: case.dispatchers(),
        lease: scale.takeover.lease,
        logs: scale.logs.clone(),
    })
    .await?;
    let mut stage = Stage::set(system, scale).await?;
    match case {
        Case::GatewayKill => gateway_kill::inflict(&mut stage).await?,
        Case::DispatcherKill => dispatcher_kill::inflict(&mut stage).await?,
        Case::DispatcherPause => dispatcher_pause::inflict(&mut stage).await?,
        Case::RedisFlush => redis_flush::inflict(&mut stage).await?,
        Case::RedisDown => redis_down::inflict(&mut stage).await?,
        Case::PostgresRestart => postgres_restart::inflict(&mut stage).await?,
        Case::TakeoverKill => takeover::kill(&mut stage).await?,
        Case::TakeoverPause => takeover::pause(&mut stage, &scale.takeover).await?,
        Case::TakeoverDrain => takeover::drain(&mut stage).await?,
        Case::BadReceivers => bail!("{case} needs no phones"),
    }
    let (told, observed) = stage.end().await?;
    let mut verdict = invariants::judge(&observed, case.rules());
    verdict.violations.extend(told.broken);
    Ok(Played {
        verdict,
        kills: told.kills,
        extra: told.extra,
    })
}
