//! Delivering again what is settled, or was given up, by the thousand.
//!
//! It goes in steps, each a small transaction on a connection of its own: a million events are no long
//! lock and no long snapshot, and delivery goes on meanwhile. What is requeued is parked, so that it flows
//! in the steps in which parked events do, and crushes no receiver. Events are locked before their webhook,
//! and one that another holds is not waited for: it is tried again a little later.

mod events;
mod letters;

use std::str::FromStr;
use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::Uuid as SqlUuid;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

pub use self::events::Events;
pub use self::letters::{Deletion, Letters};
use crate::statement::Statement;

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many are done, and there may be more.
    Done(usize),
    /// So many are done; others are held by somebody else, and are tried again by a step a moment later.
    Held(usize),
    /// There is no more.
    End,
    /// The webhook was deleted, or is not active: the rest would go nowhere.
    NoReceiver,
}

/// Which of the settled events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    Failed,
    Delivered,
    All,
}

impl Settled {
    fn statuses(self) -> &'static [&'static str] {
        match self {
            Self::Failed => &["failed"],
            Self::Delivered => &["delivered"],
            Self::All => &["failed", "delivered"],
        }
    }
}

impl FromStr for Settled {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "failed" => Ok(Self::Failed),
            "delivered" => Ok(Self::Delivered),
            "all" => Ok(Self::All),
            _ => {
                Err("must be \"failed\", \"delivered\" or \"all\" (what is pending is on its way)")
            }
        }
    }
}

/// Before a step that tries again what somebody else held.
pub const PAUSE: Duration = Duration::from_millis(50);

/// Rows of a step.
const ROWS: i64 = 1000;
/// Steps that try what another holds before it is left to that one.
const TRIES: u32 = 50;

/// What a step found to do, and how much of it it did.
fn done(wanted: usize, done: usize, tries: &mut u32) -> Step {
    if done < wanted && *tries < TRIES {
        *tries += 1;
        return Step::Held(done);
    }
    *tries = 0;
    Step::Done(done)
}

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = SqlUuid)]
    id: Uuid,
}

/// The least and the greatest: by them PostgreSQL leaves partitions out, which it can't by an array.
fn bounds(ids: &[Uuid]) -> Option<(Uuid, Uuid)> {
    Some((*ids.iter().min()?, *ids.iter().max()?))
}

/// Sets when to look at what has been parked for the webhook. `false` where it takes nothing any more.
async fn look(conn: &mut AsyncPgConnection, webhook_id: Uuid) -> QueryResult<bool> {
    let looked = Statement::new(
        "UPDATE whatsapp_webhooks SET look_at = coalesce(look_at, now())
         WHERE id = ? AND is_active AND deleted_at IS NULL",
    )
    .bind::<SqlUuid, _>(webhook_id)
    .execute(conn)
    .await?;
    Ok(looked == 1)
}

/// A transaction that parks events and then finds nobody to look at them is undone.
fn undone(result: QueryResult<usize>) -> QueryResult<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(diesel::result::Error::RollbackTransaction) => Ok(None),
        Err(error) => Err(error),
    }
}
