//! The demo and the fault cases in a small size, on the real programs. Each has a whole system of its own
//! and needs the machine for itself.
#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

mod demo;
mod kinds;
mod load;
mod quickstart;

use std::time::Duration;

use testkit::cases::bad_receivers::Storm;
use testkit::cases::{self, Case, Passed, Scale, Takeover};
use tokio::sync::{Mutex, MutexGuard};

/// One at a time, where the tests of a binary share a process.
static MACHINE: Mutex<()> = Mutex::const_new(());

async fn alone() -> MutexGuard<'static, ()> {
    MACHINE.lock().await
}

async fn holds(case: Case) {
    let passed = pass(case).await;
    assert_eq!((passed.figures.sent, passed.figures.lost), (120, 0));
}

async fn pass(case: Case) -> Passed {
    let _alone = alone().await;
    let scale = Scale {
        messages: 120,
        accounts: 5,
        rate: 12.0,
        faults: 2,
        storm: Storm {
            tens: 1,
            rate: 100.0,
            measured: Duration::ZERO,
            struck: Duration::from_secs(2),
        },
        takeover: Takeover {
            accounts: 8,
            rate: 20.0,
            lease: Duration::from_secs(5),
            away: Duration::from_secs(6),
        },
        logs: None,
    };
    let passed = cases::run(case, &scale).await.unwrap();
    eprintln!("{case}: {passed}");
    passed
}

#[tokio::test]
async fn nothing_is_lost_when_the_gateway_is_killed() {
    holds(Case::GatewayKill).await;
}

#[tokio::test]
async fn nothing_is_lost_when_dispatchers_are_killed() {
    holds(Case::DispatcherKill).await;
}

#[tokio::test]
async fn a_dispatcher_that_slept_through_its_claims_changes_nothing() {
    holds(Case::DispatcherPause).await;
}

#[tokio::test]
async fn nothing_is_lost_when_redis_forgets_everything() {
    holds(Case::RedisFlush).await;
}

#[tokio::test]
async fn nothing_is_lost_while_redis_is_away() {
    holds(Case::RedisDown).await;
}

#[tokio::test]
async fn nothing_is_lost_when_postgres_restarts_or_is_away_while_the_gateway_is_killed() {
    holds(Case::PostgresRestart).await;
}

async fn goes_on(case: Case) {
    let passed = pass(case).await;
    assert!(passed.figures.sent > 100 && passed.figures.lost == 0);
}

#[tokio::test]
async fn another_gateway_goes_on_where_one_was_killed() {
    goes_on(Case::TakeoverKill).await;
}

#[tokio::test]
async fn a_gateway_that_slept_through_its_lease_leaves_the_sessions_alone() {
    goes_on(Case::TakeoverPause).await;
}

#[tokio::test]
async fn a_gateway_that_ends_hands_its_sessions_over() {
    goes_on(Case::TakeoverDrain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_behaves_well_gets_everything_though_others_do_not_and_all_are_struck() {
    let passed = pass(Case::BadReceivers).await;
    assert!(passed.figures.sent > 500 && passed.figures.lost == 0);
}
