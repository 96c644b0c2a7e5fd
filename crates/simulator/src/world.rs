//! Everything a simulator knows, shared by all its connections and the control API.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use tokio::runtime::Handle;
use wacore_binary::{Jid, Server};

use crate::account::Account;
use crate::calls::Calls;
use crate::device::Device;
use crate::faults::{Fate, Faults, Step};
use crate::groups::Groups;
use crate::handshake::ServerIdentity;
use crate::journal::{Batch, Found, Journal};
use crate::ledger::Ledger;
use crate::media::Media;
use crate::outbox::Outbox;
use crate::pairing::Pairings;
use crate::presence::Presences;
use crate::server::TlsIdentity;
use crate::stats::Stats;

/// Of those that are given out.
const FIRST_NUMBER: u64 = 5_511_900_000_001;

pub(crate) struct World {
    pub(crate) journal: Journal,
    pub(crate) identity: ServerIdentity,
    /// Made when TLS is first wanted.
    tls: Mutex<Option<TlsIdentity>>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) stats: Stats,
    pub(crate) groups: Groups,
    pub(crate) ledger: Ledger,
    pub(crate) outbox: Outbox,
    pub(crate) calls: Calls,
    pub(crate) media: Media,
    pub(crate) presences: Presences,
    pub(crate) pairings: Pairings,
    /// Where the senders' work runs, away from the sockets.
    pub(crate) runtime: Handle,
    accounts: RwLock<BTreeMap<String, Arc<Account>>>,
    by_lid: RwLock<HashMap<String, String>>,
    /// By the push name under which their clients register.
    by_name: RwLock<HashMap<String, String>>,
    /// The next number that may be free; held while one is being given out.
    numbering: Mutex<u64>,
    connections: AtomicU64,
}

impl World {
    pub(crate) fn open(state: Option<&Path>) -> Result<Self> {
        let (journal, mut found) = match state {
            Some(dir) => Journal::open(dir)?,
            None => (Journal::forgetful(), Found::new()),
        };
        let identity = match found.remove("server") {
            Some(value) => serde_json::from_slice(&value)?,
            None => {
                let identity = ServerIdentity::generate(unix_time().unsigned_abs())?;
                let mut batch = Batch::default();
                batch.put_json("server", &identity);
                journal.commit(batch);
                identity
            }
        };
        let tls = found.remove("tls");
        let tls = tls.map(|value| serde_json::from_slice(&value));
        let world = Self {
            journal,
            identity,
            tls: Mutex::new(tls.transpose()?),
            faults: Arc::default(),
            stats: Stats::default(),
            groups: Groups::default(),
            ledger: Ledger::default(),
            outbox: Outbox::default(),
            calls: Calls::default(),
            media: Media::default(),
            presences: Presences::default(),
            pairings: Pairings::default(),
            runtime: Handle::current(),
            accounts: RwLock::default(),
            by_lid: RwLock::default(),
            by_name: RwLock::default(),
            numbering: Mutex::new(FIRST_NUMBER),
            connections: AtomicU64::new(1),
        };
        world.restore(&found).context("the state cannot be read")?;
        Ok(world)
    }

    /// Accounts first, then their devices, then what hangs on those.
    fn restore(&self, found: &Found) -> Result<()> {
        let kind = |kind: &'static str| {
            let from = format!("{kind}/");
            let entries = found.range(from.clone()..);
            entries
                .take_while(move |(key, _)| key.starts_with(&from))
                .map(move |(key, value)| (&key[kind.len() + 1..], value.as_slice()))
        };
        for (_, value) in kind("account") {
            self.insert(Arc::new(Account::restore(value)?));
        }
        for (name, value) in kind("device") {
            let (phone, id) = name.split_once('.').context("a device without id")?;
            let device = Device::new(phone, id.parse()?, serde_json::from_slice(value)?);
            if let Some(prekeys) = found.get(&device.prekeys_key()) {
                let handed_out = found.get(&device.handed_out_key());
                device.restore_prekeys(prekeys, handed_out.map(Vec::as_slice))?;
            }
            self.known(phone)?.add_device(Arc::new(device));
        }
        for (name, value) in kind("queue") {
            let (device, number) = name.split_once('/').context("no number")?;
            let (phone, id) = device.split_once('.').context("a device without id")?;
            let device = self.known(phone)?.device(id.parse()?);
            let device = device.context("messages for an unknown device")?;
            device.lock().queue.restore(number, value)?;
        }
        for what in ["session", "senderkey", "distributed", "onetime"] {
            for (name, value) in kind(what) {
                let (phone, rest) = name.split_once('/').context("no owner")?;
                self.known(phone)?.handset().restore(what, rest, value)?;
            }
        }
        for (_, value) in kind("group") {
            self.groups.restore(value)?;
        }
        for (number, value) in kind("ledger") {
            self.ledger.restore(number, value)?;
        }
        for (number, value) in kind("outbox") {
            self.outbox.restore(number, value)?;
        }
        Ok(())
    }

    pub(crate) fn tls_identity(&self) -> Result<TlsIdentity> {
        let mut tls = self.tls.lock().expect("no panic here");
        if let Some(identity) = &*tls {
            return Ok(identity.clone());
        }
        let identity = TlsIdentity::generate()?;
        let mut batch = Batch::default();
        batch.put_json("tls", &identity);
        self.journal.commit(batch);
        *tls = Some(identity.clone());
        Ok(identity)
    }

    fn insert(&self, account: Arc<Account>) {
        let lid = (account.lid.clone(), account.phone.clone());
        let mut by_lid = self.by_lid.write().expect("no panic here");
        by_lid.insert(lid.0, lid.1);
        if let Some(name) = account.standing().registered_as {
            let mut by_name = self.by_name.write().expect("no panic here");
            by_name.insert(name, account.phone.clone());
        }
        let mut accounts = self.accounts.write().expect("no panic here");
        accounts.insert(account.phone.clone(), account);
    }

    fn known(&self, phone: &str) -> Result<Arc<Account>> {
        self.find(phone)
            .with_context(|| format!("{phone} is not there"))
    }

    pub(crate) fn find(&self, phone: &str) -> Option<Arc<Account>> {
        let accounts = self.accounts.read().expect("no panic here");
        accounts.get(phone).cloned()
    }

    /// The account with that number; everyone is on WhatsApp, so it is made when new.
    pub(crate) fn account(&self, phone: &str) -> Result<Arc<Account>> {
        if let Some(account) = self.find(phone) {
            return Ok(account);
        }
        let _numbering = self.numbering.lock().expect("no panic here");
        if let Some(account) = self.find(phone) {
            return Ok(account);
        }
        let account = self.make(phone)?;
        Ok(account)
    }

    /// An account with a number that no one has.
    pub(crate) fn new_account(&self) -> Result<Arc<Account>> {
        let mut next = self.numbering.lock().expect("no panic here");
        let taken = |number: &u64| self.find(&number.to_string()).is_some();
        let number = (*next..)
            .find(|number| !taken(number))
            .context("no number is left")?;
        *next = number + 1;
        self.make(&number.to_string())
    }

    /// The account whose clients register under that name.
    pub(crate) fn named(&self, name: &str) -> Option<Arc<Account>> {
        let by_name = self.by_name.read().expect("no panic here");
        by_name.get(name).and_then(|phone| self.find(phone))
    }

    /// Clients that register under that name belong to the account from now on.
    pub(crate) fn name(&self, account: &Account, name: &str) {
        account.change(|standing| {
            standing.registered_as = Some(name.to_owned());
            standing.name = name.to_owned();
        });
        let mut by_name = self.by_name.write().expect("no panic here");
        by_name.insert(name.to_owned(), account.phone.clone());
    }

    fn make(&self, phone: &str) -> Result<Arc<Account>> {
        let lid = loop {
            let lid = rand::random_range(100_000_000_000_000..1_000_000_000_000_000_u64);
            let lid = lid.to_string();
            let by_lid = self.by_lid.read().expect("no panic here");
            if !by_lid.contains_key(&lid) {
                break lid;
            }
        };
        let account = Arc::new(Account::create(phone, lid, unix_time())?);
        self.keep(&account);
        self.insert(account.clone());
        Ok(account)
    }

    pub(crate) fn keep(&self, account: &Account) {
        let mut batch = Batch::default();
        account.keep(&mut batch);
        self.journal.commit(batch);
    }

    pub(crate) fn accounts(&self) -> Vec<Arc<Account>> {
        let accounts = self.accounts.read().expect("no panic here");
        accounts.values().cloned().collect()
    }

    /// The account behind a phone number or LID address.
    pub(crate) fn resolve(&self, jid: &Jid) -> Result<Arc<Account>> {
        match jid.server {
            Server::Pn => self.account(&phone_number(&jid.user)?),
            Server::Lid => {
                let by_lid = self.by_lid.read().expect("no panic here");
                let phone = by_lid.get(jid.user.as_str()).context("an unknown LID")?;
                self.known(phone)
            }
            _ => bail!("{jid} is no number"),
        }
    }

    /// What becomes of a connection that has come so far.
    pub(crate) fn fate(&self, account: Option<&str>, step: Step) -> Fate {
        let fate = self.faults.of(account).at(step);
        if fate != Fate::GoesOn {
            self.stats.connections_spoiled.add();
        }
        fate
    }

    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }
}

/// A number as people write it, as digits; what isn't one is an error.
pub(crate) fn phone_number(text: &str) -> Result<String> {
    let text = text.split('@').next().unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let other = |c: char| !c.is_ascii_digit() && !" +-().".contains(c);
    if text.contains(other) || !(7..=15).contains(&digits.len()) || digits.starts_with('0') {
        bail!("{text:?} is not a phone number (7 to 15 digits, with country code)");
    }
    Ok(digits)
}

pub(crate) fn unix_time() -> i64 {
    unix_millis() / 1000
}

pub(crate) fn unix_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(since.expect("the clock is past 1970").as_millis()).expect("within i64")
}
