//! A logged-in device: what it says, and who answers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use wacore_binary::builder::NodeBuilder;
use wacore_binary::{Node, NodeRef};
use waproto::whatsapp::ClientPayload;

use crate::account::Account;
use crate::connection::{Incoming, Outlet};
use crate::device::Device;
use crate::faults::{Fate, Settings, Step};
use crate::journal::Position;
use crate::offline::{PATIENCE, Phase};
use crate::stanza::{bytes_in, iq_error, jid, required, stream_error, text};
use crate::world::{World, unix_time};
use crate::{calls, iq, presence, receipts, router};

/// How long an ack waits for one to overtake it.
const OVERTAKING: Duration = Duration::from_millis(500);

/// One connection of a linked device.
pub(crate) struct Member {
    pub(crate) world: Arc<World>,
    pub(crate) account: Arc<Account>,
    pub(crate) device: Arc<Device>,
    pub(crate) outlet: Outlet,
    /// What the client calls this server.
    pub(crate) host: String,
    /// An ack that waits for the next one to overtake it.
    held: Arc<Mutex<Option<(Node, Position)>>>,
}

/// Logs the device in and serves it until the connection ends.
pub(crate) async fn serve(
    world: &Arc<World>,
    host: String,
    payload: &ClientPayload,
    noise_key: [u8; 32],
    outlet: Outlet,
    mut incoming: Incoming,
) -> Result<()> {
    let (account, device) = match admit(world, payload, noise_key) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            world.stats.logins_rejected.add();
            tracing::info!(user = ?payload.username, reason = refusal.reason, "login refused");
            outlet.send(&refusal.stanza(), 0);
            outlet.close_soon();
            while incoming.next().await?.is_some() {}
            return Ok(());
        }
    };
    world.stats.logins.add();
    tracing::debug!(phone = account.phone, device = device.id, "logged in");
    let member = Member {
        world: world.clone(),
        account,
        device,
        outlet,
        host,
        held: Arc::default(),
    };
    member.attach();
    let result = match member.fate(Step::Success) {
        Fate::GoesOn => member.listen(&mut incoming).await,
        Fate::Closed => {
            member.outlet.close();
            Ok(())
        }
        Fate::Silent => {
            while incoming.next().await?.is_some() {}
            Ok(())
        }
    };
    member.detach();
    result
}

/// `<failure reason/>`
pub(crate) struct Refusal {
    pub(crate) reason: u16,
    ban_seconds: u64,
}

impl Refusal {
    const UNKNOWN_DEVICE: Self = Self::of(401);
    const BANNED: Self = Self::of(403);
    /// The ban for a while, which says for how long and why.
    const TEMPORARY: u16 = 402;

    const fn of(reason: u16) -> Self {
        Self {
            reason,
            ban_seconds: 0,
        }
    }

    /// The one that was wished for.
    pub(crate) fn wished(faults: &Settings) -> Option<Self> {
        let refusal = Self {
            reason: faults.failure,
            ban_seconds: faults.ban_seconds,
        };
        (faults.failure != 0).then_some(refusal)
    }

    pub(crate) fn stanza(&self) -> Node {
        let failure = NodeBuilder::new("failure")
            .attr("reason", self.reason)
            .attr("location", "sim");
        match self.reason {
            Self::TEMPORARY => failure
                .attr("code", 101)
                .attr("expire", self.ban_seconds)
                .build(),
            _ => failure.build(),
        }
    }
}

fn admit(
    world: &World,
    payload: &ClientPayload,
    noise_key: [u8; 32],
) -> Result<(Arc<Account>, Arc<Device>), Refusal> {
    let phone = payload.username.unwrap_or_default().to_string();
    if let Some(refusal) = Refusal::wished(&world.faults.of(Some(&phone))) {
        return Err(refusal);
    }
    let id = u16::try_from(payload.device.unwrap_or_default()).unwrap_or_default();
    let account = world.find(&phone).ok_or(Refusal::UNKNOWN_DEVICE)?;
    if account.standing().banned {
        return Err(Refusal::BANNED);
    }
    let device = account.device(id).ok_or(Refusal::UNKNOWN_DEVICE)?;
    if device.lock().profile.noise_key != noise_key {
        return Err(Refusal::UNKNOWN_DEVICE);
    }
    Ok((account, device))
}

impl Member {
    /// Takes the device over; a connection that had it is told that it was replaced.
    fn attach(&self) {
        let mut state = self.device.lock();
        if let Some(previous) = state.outlet.replace(self.outlet.clone()) {
            previous.send(&stream_error(None, Some("replaced")), 0);
            previous.close_soon();
        }
        state.phase = Phase::Passive;
        let success = NodeBuilder::new("success")
            .attr("t", unix_time())
            .attr("props", 27)
            .attr("companion_enc_static", "")
            .attr("location", "sim")
            .attr("lid", self.account.lid_jid())
            .attr("creation", self.account.created)
            .build();
        self.outlet.send(&success, self.world.journal.tail());
    }

    fn detach(&self) {
        let mut state = self.device.lock();
        if state
            .outlet
            .as_ref()
            .is_some_and(|o| o.id == self.outlet.id)
        {
            state.outlet = None;
            state.phase = Phase::Passive;
            drop(state);
            presence::left(&self.world, &self.account, self.device.id);
        }
    }

    async fn listen(&self, incoming: &mut Incoming) -> Result<()> {
        while let Some(stanza) = incoming.next().await? {
            self.world.stats.stanzas_in.add();
            let node = stanza.get();
            if let Err(error) = self.hear(node) {
                tracing::warn!(
                    phone = self.account.phone,
                    device = self.device.id,
                    "<{}> failed: {error:#}",
                    node.tag
                );
                self.refuse(node);
            }
        }
        Ok(())
    }

    /// What waits for an answer gets one.
    fn refuse(&self, node: &NodeRef<'_>) {
        let id = text(node, "id").unwrap_or_default();
        match &*node.tag {
            "iq" => self.reply(&iq_error(&id, 500, "internal-server-error"), 0),
            "message" => {
                let mut nack = NodeBuilder::new("ack")
                    .attr("class", "message")
                    .attr("id", id)
                    .attr("error", 404);
                if let Some(to) = jid(node, "to") {
                    nack = nack.attr("from", to);
                }
                self.reply(&nack.build(), 0);
            }
            _ => {}
        }
    }

    fn hear(&self, node: &NodeRef<'_>) -> Result<()> {
        match &*node.tag {
            "iq" => iq::answer(self, node),
            "message" => router::route(self, node),
            "receipt" => receipts::receipt(self, node),
            "ack" => receipts::bare_ack(self, node),
            "call" => calls::heard(self, node),
            "ib" => self.ib(node),
            "presence" => presence::presence_heard(self, node),
            "chatstate" => presence::chatstate_heard(self, node),
            // What else comes needs no answer.
            _ => Ok(()),
        }
    }

    fn ib(&self, node: &NodeRef<'_>) -> Result<()> {
        if let Some(batch) = node.get_optional_child("offline_batch") {
            let count = required(batch, "count")?;
            let count = count.parse().context("a batch of no number")?;
            self.device.drain(&self.world, count);
        }
        Ok(())
    }

    /// The client is active: what waited for it may come.
    pub(crate) fn activate(&self) {
        self.device.activate(&self.world);
        let (world, device) = (self.world.clone(), self.device.clone());
        let connection = self.outlet.id;
        self.world.runtime.spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            let untouched = {
                let state = device.lock();
                let same = state.outlet.as_ref().is_some_and(|o| o.id == connection);
                same && matches!(state.phase, Phase::Draining { next: 0, .. })
            };
            if untouched {
                device.drain(&world, usize::MAX);
            }
        });
    }

    pub(crate) fn reply(&self, node: &Node, position: Position) {
        self.outlet.send(node, position);
    }

    pub(crate) fn faults(&self) -> Settings {
        self.world.faults.of(Some(&self.account.phone))
    }

    pub(crate) fn fate(&self, step: Step) -> Fate {
        self.world.fate(Some(&self.account.phone), step)
    }

    /// The `<ack>` of something that the client has sent.
    pub(crate) fn acknowledge(&self, ack: Node, position: Position) {
        let faults = self.faults();
        if faults.lose_acks {
            return;
        }
        if faults.reorder_acks {
            let held = self.held.lock().expect("no panic here").take();
            if let Some((earlier, of)) = held {
                self.reply(&ack, position);
                self.reply(&earlier, of);
                return;
            }
            *self.held.lock().expect("no panic here") = Some((ack, position));
            let (held, outlet) = (self.held.clone(), self.outlet.clone());
            self.world.runtime.spawn(async move {
                tokio::time::sleep(OVERTAKING).await;
                let alone = held.lock().expect("no panic here").take();
                if let Some((ack, position)) = alone {
                    outlet.send(&ack, position);
                }
            });
            return;
        }
        if faults.ack_delay_ms == 0 {
            self.reply(&ack, position);
            return;
        }
        let outlet = self.outlet.clone();
        self.world.runtime.spawn(async move {
            tokio::time::sleep(faults.ack_delay()).await;
            outlet.send(&ack, position);
        });
    }

    /// `<registration>` of a stanza, as a number.
    pub(crate) fn registration_in(node: &NodeRef<'_>) -> Option<u32> {
        crate::stanza::number(bytes_in(node, "registration")?)
    }
}
