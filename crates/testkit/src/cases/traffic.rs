//! What people write during a case: direct and to groups, in bursts, each text another.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::system::phones::Letter;
use crate::system::{Account, Phones};

/// How many messages come at once at most.
const LARGEST_BURST: usize = 40;
/// One of so many goes to a group.
const GROUPS: usize = 3;
const CONTACTS: usize = 12;

/// A message that the simulator took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub id: String,
    pub to: String,
    pub text: String,
}

/// People writing, in the background.
#[derive(Debug)]
pub struct Traffic {
    task: JoinHandle<anyhow::Result<Vec<Sent>>>,
    progress: watch::Receiver<usize>,
}

impl Traffic {
    /// `count` messages to random accounts, `rate` a second on the average.
    pub fn start(phones: Phones, accounts: Vec<Account>, count: usize, rate: f64) -> Self {
        let (counter, progress) = watch::channel(0);
        let task = tokio::spawn(async move {
            let start = Instant::now();
            let mut random = StdRng::from_rng(&mut rand::rng());
            let mut all = Vec::new();
            while all.len() < count {
                let burst = random
                    .random_range(1..=LARGEST_BURST)
                    .min(count - all.len());
                for _ in 0..burst {
                    let account = &accounts[random.random_range(0..accounts.len())];
                    all.push(write(&phones, account, all.len(), &mut random).await?);
                    counter.send_replace(all.len());
                }
                sleep_until(start + Duration::from_secs_f64(all.len() as f64 / rate)).await;
            }
            Ok(all)
        });
        Self { task, progress }
    }

    /// Waits until so many were sent.
    pub async fn reaches(&mut self, count: usize) -> anyhow::Result<()> {
        // An error is that of a task that ended, which `end` tells better.
        let _ = self.progress.wait_for(|sent| *sent >= count).await;
        Ok(())
    }

    /// Waits for the last, and returns all.
    pub async fn end(self) -> anyhow::Result<Vec<Sent>> {
        self.task.await?
    }
}

/// One message, direct or to a group.
async fn write(
    phones: &Phones,
    account: &Account,
    number: usize,
    random: &mut StdRng,
) -> anyhow::Result<Sent> {
    let contact = format!("4930{:07}", random.random_range(0..CONTACTS));
    let text = format!("{number}: é o recado número {number} 🎉");
    let group = format!("team of {}", account.phone);
    let letter = Letter {
        to: &account.phone,
        from: &[contact],
        text: &text,
        group: number.is_multiple_of(GROUPS).then_some(group.as_str()),
        name: None,
        count: 1,
        rate: None,
    };
    let ids = phones.write(&letter).await?;
    let [id] = <[String; 1]>::try_from(ids)
        .map_err(|ids| anyhow::anyhow!("one message was asked for, and {} were sent", ids.len()))?;
    Ok(Sent {
        id,
        to: account.phone.clone(),
        text,
    })
}

/// A direct message and one to a group, for every account: they need every session as it should be.
pub async fn write_to_all(
    phones: &Phones,
    accounts: &[Account],
    first: usize,
) -> anyhow::Result<Vec<Sent>> {
    let mut random = StdRng::from_rng(&mut rand::rng());
    let mut all = Vec::new();
    // The first number of each pair is for a group.
    let first = first.next_multiple_of(GROUPS);
    for (account, turn) in accounts.iter().zip(0..) {
        for number in [first + turn * GROUPS, first + turn * GROUPS + 1] {
            all.push(write(phones, account, number, &mut random).await?);
        }
    }
    Ok(all)
}
