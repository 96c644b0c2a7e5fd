//! Two gateways share the sessions. One of them is killed, stands still past its lease, or is told to end: the
//! other goes on with all of its sessions, nobody is replaced, and nothing is lost.

mod absence;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::ensure;
use chrono::Utc;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::stage::Stage;
use super::{Case, Scale};
use crate::eventually;
use crate::servers::Server;
use crate::system::Records;
use crate::system::records::Session;
use absence::Absences;

const PATIENCE: Duration = Duration::from_secs(60);
/// The default lease: the sessions of a gateway that was killed are back by then.
const LONGEST_TAKEOVER: Duration = Duration::from_secs(15);
/// Those of one that stands still are taken so soon after the end of its lease.
const TAKEN: Duration = Duration::from_secs(5);
/// A session that is handed over is away no longer.
const LONGEST_HANDOVER: Duration = Duration::from_secs(2);
/// What a gateway that was killed has acknowledged is known to the simulator after that.
const LAST_ACKS: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(250);
/// Of the traffic, in seconds: for one fault and what follows it.
const SHARE: f64 = 15.0;
/// A gateway that stands still does so in this part of the traffic; its takeover and the outage of PostgreSQL
/// that follows have the rest of it.
const EARLY: f64 = 0.25;
/// How long sessions take to move, at most, and messages that waited to be acknowledged.
const MOVES: f64 = 10.0;
/// Gateways leave a difference as it is up to this, and a tenth.
const UNEVEN: usize = 2;

/// How much of it.
#[derive(Debug, Clone)]
pub struct Takeover {
    pub accounts: usize,
    /// Messages a second.
    pub rate: f64,
    pub lease: Duration,
    /// How long PostgreSQL is away.
    pub away: Duration,
}

/// Traffic that lasts as long as the faults do.
pub(super) fn fitted(case: Case, scale: &Scale) -> Scale {
    let Takeover {
        accounts,
        rate,
        lease,
        away,
    } = scale.takeover;
    let (faults, share) = match case {
        Case::TakeoverPause => {
            let consequences = lease.as_secs_f64() + away.as_secs_f64() + 2.0 * MOVES;
            (1, consequences / (1.0 - EARLY))
        }
        _ => (2, SHARE),
    };
    Scale {
        accounts,
        rate,
        faults,
        messages: (rate * share) as usize * faults + 2 * accounts,
        ..scale.clone()
    }
}

pub(super) async fn kill(stage: &mut Stage) -> anyhow::Result<()> {
    let mut longest = Duration::ZERO;
    for fault in 0..stage.faults {
        both_hold(stage).await?;
        stage.moment(fault).await?;
        let victim = fault % stage.system.gateways.len();
        let absences = Absences::watch(&stage.system.phones);
        stage.system.gateways[victim].kill().await;
        one_holds_all(stage).await?;
        let away = absences.end().await?;
        ensure!(!away.is_empty(), "the gateway that was killed held nothing");
        longest = longest.max(away.longest());
        sleep(LAST_ACKS).await;
        stage.acked_is_committed().await?;
        stage.system.gateways[victim].start_again().await;
    }
    nobody_was_replaced(&sessions(stage).await?)?;
    stage.tell("longest_away_s", format!("{:.1}", longest.as_secs_f64()));
    ensure!(
        longest <= LONGEST_TAKEOVER,
        "a session was away for {longest:?}"
    );
    Ok(())
}

pub(super) async fn drain(stage: &mut Stage) -> anyhow::Result<()> {
    let mut longest = Duration::ZERO;
    for fault in 0..stage.faults {
        both_hold(stage).await?;
        let before = sessions(stage).await?;
        stage.moment(fault).await?;
        let victim = fault % stage.system.gateways.len();
        let absences = Absences::watch(&stage.system.phones);
        let status = stage.system.gateways[victim].stop().await;
        ensure!(status.success(), "a gateway ended with {status}");
        one_holds_all(stage).await?;
        let away = absences.end().await?;
        ensure!(!away.is_empty(), "the gateway that ended held nothing");
        longest = longest.max(away.longest());
        status_is_as_before(&before, &sessions(stage).await?)?;
        stage.system.gateways[victim].start_again().await;
    }
    nobody_was_replaced(&sessions(stage).await?)?;
    stage.tell("longest_away_s", format!("{:.2}", longest.as_secs_f64()));
    ensure!(
        longest <= LONGEST_HANDOVER,
        "a session was away for {longest:?}"
    );
    Ok(())
}

pub(super) async fn pause(stage: &mut Stage, takeover: &Takeover) -> anyhow::Result<()> {
    for fault in 0..stage.faults {
        both_hold(stage).await?;
        stage.moment_before(fault, EARLY).await?;
        let before = sessions(stage).await?;
        let sleeper = fault % stage.system.gateways.len();
        stage.system.gateways[sleeper].freeze().await;
        let frozen = Instant::now();
        one_holds_all(stage).await?;
        let taken = frozen.elapsed();
        stage.tell("taken_after_s", format!("{:.1}", taken.as_secs_f64()));
        ensure!(
            taken <= takeover.lease + TAKEN,
            "the sessions were taken after {taken:?}"
        );
        let taken = sessions(stage).await?;
        let lost = taken
            .iter()
            .zip(&before)
            .filter(|(now, then)| now.epoch != then.epoch)
            .count();
        let told = lost_sessions(stage, sleeper);
        stage.system.gateways[sleeper].thaw();
        eventually(PATIENCE, async || {
            match lost_sessions(stage, sleeper) - told {
                all if all == lost => Ok(()),
                some => Err(format!(
                    "of {lost} sessions it knows that {some} are another's"
                )),
            }
        })
        .await;
        status_is_as_before(&before, &sessions(stage).await?)?;
        both_hold(stage).await?;
        all_is_acked(stage).await;
        without_postgres(stage, takeover.away).await?;
    }
    nobody_was_replaced(&sessions(stage).await?)
}

/// Nobody drops a session, nothing is acknowledged, and afterwards all is as it was.
async fn without_postgres(stage: &mut Stage, away: Duration) -> anyhow::Result<()> {
    let before = sessions(stage).await?;
    stage.system.servers.stop(Server::Postgres).await;
    let gone = Instant::now();
    sleep(LAST_ACKS).await;
    let acked = acked(stage).await?;
    while gone.elapsed() < away {
        let online = stage.system.phones.online().await?;
        ensure!(
            online == before.len(),
            "{online} of {} sessions are left while PostgreSQL is away",
            before.len()
        );
        sleep(LOOK).await;
    }
    let since = self::acked(stage).await?;
    ensure!(
        acked == since,
        "acknowledged {acked}, then {since} messages while PostgreSQL is away"
    );
    stage.system.servers.resume(Server::Postgres).await;
    eventually(PATIENCE, async || match self::acked(stage).await {
        Ok(now) if now > since => Ok(()),
        Ok(_) => Err("nothing is acknowledged".to_owned()),
        Err(error) => Err(format!("{error:#}")),
    })
    .await;
    let after = sessions(stage).await?;
    let moved = after.iter().find(|session| !before.contains(session));
    ensure!(
        moved.is_none(),
        "a session moved while PostgreSQL was away: {moved:?}"
    );
    Ok(())
}

/// Waits until no session is busy with what it missed: all but the last second's messages are acknowledged.
async fn all_is_acked(stage: &Stage) {
    eventually(PATIENCE, async || {
        match stage.system.phones.ledger().await {
            Ok(ledger) => {
                let recent = Utc::now() - LAST_ACKS;
                let late: Vec<_> = ledger
                    .iter()
                    .filter(|message| message.acked_at.is_none() && message.sent_at < recent)
                    .map(|message| &message.id)
                    .collect();
                match late.is_empty() {
                    true => Ok(()),
                    false => Err(format!("not acknowledged: {late:?}")),
                }
            }
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await;
}

async fn acked(stage: &Stage) -> anyhow::Result<usize> {
    let ledger = stage.system.phones.ledger().await?;
    let acked = ledger.iter().filter(|message| message.acked_at.is_some());
    Ok(acked.count())
}

/// How many sessions a gateway has said that it lost.
fn lost_sessions(stage: &Stage, gateway: usize) -> usize {
    let logs = stage.system.gateways[gateway].logs();
    logs.matches("another gateway has taken a session over")
        .count()
}

async fn sessions(stage: &Stage) -> anyhow::Result<Vec<Session>> {
    stage.system.records().await?.sessions().await
}

/// Waits until two share the sessions, about evenly, and all are open.
async fn both_hold(stage: &Stage) -> anyhow::Result<()> {
    until(stage, |holdings| {
        let (most, least) = (holdings.iter().max(), holdings.iter().min());
        match (holdings.len(), most, least) {
            (2, Some(most), Some(least)) => most - least <= 2 * (UNEVEN + least / 10),
            _ => false,
        }
    })
    .await
}

/// Waits until one gateway has them all, and all are open.
async fn one_holds_all(stage: &Stage) -> anyhow::Result<()> {
    until(stage, |holdings| holdings.len() == 1).await
}

async fn until(stage: &Stage, so: impl Fn(&[usize]) -> bool) -> anyhow::Result<()> {
    let mut records = stage.system.records().await?;
    eventually(PATIENCE, async || {
        let look = async {
            let (holdings, all) = holdings(&mut records).await?;
            anyhow::Ok((holdings, all, stage.system.phones.online().await?))
        };
        match look.await {
            Ok((holdings, all, online)) if online == all && so(&holdings) => Ok(()),
            Ok(seen) => Err(format!("{seen:?}")),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await;
    Ok(())
}

/// How many sessions each gateway holds, those that nobody holds being one more, and how many there are.
async fn holdings(records: &mut Records) -> anyhow::Result<(Vec<usize>, usize)> {
    let sessions = records.sessions().await?;
    let mut held: HashMap<Option<Uuid>, usize> = HashMap::new();
    for session in &sessions {
        *held.entry(session.owner).or_default() += 1;
    }
    Ok((held.into_values().collect(), sessions.len()))
}

fn status_is_as_before(before: &[Session], after: &[Session]) -> anyhow::Result<()> {
    let told: HashSet<_> = before.iter().map(|one| (one.id, one.transition)).collect();
    let changed = after
        .iter()
        .find(|one| !told.contains(&(one.id, one.transition)));
    ensure!(
        changed.is_none(),
        "a session's status has changed: {changed:?}"
    );
    Ok(())
}

fn nobody_was_replaced(sessions: &[Session]) -> anyhow::Result<()> {
    let replaced = sessions
        .iter()
        .find(|session| session.reason.as_deref() == Some("replaced"));
    ensure!(replaced.is_none(), "a session was replaced: {replaced:?}");
    Ok(())
}
