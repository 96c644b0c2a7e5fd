//! The demo, step by step.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use chrono::Utc;
use testkit::system::phones::Letter;
use testkit::system::{Account, Ground, Settings, System};
use testkit::{Pid, Servers, eventually};
use tokio::time::sleep;
use uuid::Uuid;

use crate::deliveries::Deliveries;
use crate::offers::{curl_is_here, offers};
use crate::terminal::{Steps, note, qr_code, say};

/// The number of README.md's examples.
const PHONE: &str = "5511988888888";
const ANA: (&str, &str) = ("Ana", "5521977770001");
const BRUNO: (&str, &str) = ("Bruno", "5521977770002");
const GROUP: &str = "Padaria";
const PATIENCE: Duration = Duration::from_secs(30);
/// How often what arrived is looked for, once there is nothing else to do.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) struct Play {
    run_dir: PathBuf,
    started: SystemTime,
    steps: Steps,
    deliveries: Deliveries,
}

impl Play {
    pub(crate) fn new(run_dir: &Path, started: SystemTime) -> Self {
        Self {
            run_dir: run_dir.to_owned(),
            started,
            steps: Steps::default(),
            deliveries: Deliveries::default(),
        }
    }

    /// All of it. Without `check` it never ends by itself.
    pub(crate) async fn perform(mut self, check: bool) -> anyhow::Result<()> {
        let mut system = self.launch().await?;
        let account = self.connect(&system).await?;
        self.receive(&system).await?;
        self.survive(&mut system).await?;
        self.offer(&system, &account, check).await?;
        let first = self.deliveries.first_after(self.started);
        let first = first
            .context("nothing arrived, or before the start")?
            .as_secs_f64();
        say(format_args!(
            "\ndemo: the first message was delivered {first:.1} s after the start"
        ));
        if check {
            system.stop().await?;
            self.deliveries.assert_whole()?;
            say(format_args!("demo: {}", self.deliveries));
            return Ok(());
        }
        say(format_args!("demo: {}", self.deliveries));
        say("\nAll of it stays up until Ctrl-C; what arrives is shown here.");
        loop {
            sleep(LOOK).await;
            self.deliveries.look(&system).await?;
        }
    }

    async fn launch(&mut self) -> anyhow::Result<System> {
        self.steps.next("PostgreSQL and Redis of the demo's own");
        let servers = Servers::start_durable_in(&self.run_dir).await;
        self.steps
            .done("running, with fsync and an append-only file");
        self.steps.next("Schema, a client and its token");
        let ground = Ground::prepare(servers).await?;
        self.steps
            .done("recado-api migrate; recado-api client create demo");
        self.steps
            .next("Services, a WhatsApp simulator and a webhook receiver");
        let settings = Settings {
            logs: Some(self.run_dir.join("logs")),
            ..Settings::default()
        };
        let system = ground.launch(settings).await?;
        for (name, pid) in system.processes() {
            note(process(&name, pid));
        }
        self.steps.done("all are ready");
        Ok(system)
    }

    async fn connect(&mut self, system: &System) -> anyhow::Result<Account> {
        self.steps.next("Connecting the number +55 11 98888-8888");
        let user = Uuid::new_v4();
        let session = system.users.connect(user, PHONE).await?;
        let code = system.users.qr_code(user).await?;
        say(qr_code(&code)?);
        note("a simulated phone scans the code …");
        system.phones.scan(&code, PHONE).await?;
        system.connected(user).await;
        self.steps.done("connected");
        self.steps.next("Registering a webhook at the receiver");
        let webhook = system.register(PHONE).await?;
        self.steps.done("registered; the receiver knows its secret");
        Ok(Account {
            phone: PHONE.to_owned(),
            user,
            session,
            webhook,
        })
    }

    async fn receive(&mut self, system: &System) -> anyhow::Result<()> {
        self.steps.next("Messages come in, direct and from a group");
        for (contact, group, text) in [
            (ANA, None, "Oi! Vocês abrem hoje?"),
            (BRUNO, None, "Bom dia, quero um bolo"),
            (ANA, Some(GROUP), "Pessoal, quem traz o pão?"),
            (BRUNO, Some(GROUP), "Eu levo 🥖"),
            (ANA, None, "Obrigada!"),
        ] {
            self.write(system, contact, group, text).await?;
            self.deliveries.wait(system, PATIENCE).await;
        }
        self.steps.done("all delivered");
        Ok(())
    }

    async fn survive(&mut self, system: &mut System) -> anyhow::Result<()> {
        self.steps
            .next("The dispatcher is killed (kill -9), and a message comes in");
        let mut records = system.records().await?;
        eventually(PATIENCE, async || match records.pending().await {
            Ok(0) => Ok(()),
            Ok(pending) => Err(format!("{pending} deliveries are not recorded")),
            Err(error) => Err(format!("{error:#}")),
        })
        .await;
        system.dispatchers[0].kill().await;
        let id = self.write(system, BRUNO, None, "Alguém aí?").await?;
        eventually(PATIENCE, async || {
            let ledger = system
                .phones
                .ledger()
                .await
                .map_err(|error| format!("{error:#}"))?;
            let acked = ledger
                .iter()
                .any(|message| message.id == id && message.acked_at.is_some());
            if acked {
                Ok(())
            } else {
                Err("WhatsApp has no receipt".to_owned())
            }
        })
        .await;
        ensure!(
            records.pending().await? == 1,
            "the message is acknowledged, but does not wait"
        );
        self.steps
            .done("WhatsApp has its receipt; the message waits in PostgreSQL");
        self.steps.next("The dispatcher is started again");
        let restarted = Instant::now();
        system.dispatchers[0].start_again().await;
        note(process("dispatcher-1", system.dispatchers[0].pid()));
        self.deliveries.wait(system, PATIENCE).await;
        let took = restarted.elapsed().as_secs_f64();
        self.steps.done(format_args!(
            "delivered {took:.1} s after the start; nothing was lost"
        ));
        Ok(())
    }

    async fn offer(
        &mut self,
        system: &System,
        account: &Account,
        check: bool,
    ) -> anyhow::Result<()> {
        say("\nWhere it all is");
        for (what, address) in [
            ("API", system.users.url()),
            ("API token", system.token()),
            ("simulator", system.phones.url()),
            ("receiver", &system.postbox.url("/")),
            ("PostgreSQL", system.servers.database_url()),
            ("Redis", system.servers.redis_url()),
        ] {
            note(format_args!("{what:<11} {address}"));
        }
        say("\nTry");
        let offers = offers(system, account, ANA.1);
        for offer in &offers {
            note(format_args!("# {}", offer.what));
            note(&offer.line);
        }
        if !check {
            return Ok(());
        }
        if !curl_is_here() {
            say("\ncurl is not installed here, so these lines were not tried");
            return Ok(());
        }
        self.steps.next("These lines are tried");
        let [message, events, connections] = offers;
        let at = Utc::now();
        let sent = message.take().await?;
        let id = sent["ids"][0]
            .as_str()
            .context("the simulator named no id")?;
        self.deliveries.expect([id.to_owned()], at);
        self.deliveries.wait(system, PATIENCE).await;
        let listed = events.take().await?;
        ensure!(
            listed["count"] == 3,
            "three events were asked for: {listed}"
        );
        let connected = connections.take().await?;
        let status = &connected["connections"][0]["status"];
        ensure!(
            status == "connected",
            "a connected number was expected: {connected}"
        );
        self.steps.done("each does what it says");
        Ok(())
    }

    async fn write(
        &mut self,
        system: &System,
        (name, contact): (&str, &str),
        group: Option<&str>,
        text: &str,
    ) -> anyhow::Result<String> {
        let letter = Letter {
            to: PHONE,
            from: &[contact.to_owned()],
            text,
            group,
            name: Some(name),
            count: 1,
            rate: None,
        };
        let at = Utc::now();
        let ids = system.phones.write(&letter).await?;
        let id = ids.first().context("the simulator named no id")?.clone();
        self.deliveries.expect(ids, at);
        let place = group
            .map(|group| format!(" in the group {group}"))
            .unwrap_or_default();
        note(format_args!("→ {name} writes{place}: “{text}”"));
        Ok(id)
    }
}

fn process(name: &str, pid: Pid) -> String {
    format!("{name:<13} pid {}", pid.as_raw_nonzero())
}
