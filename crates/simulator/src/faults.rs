//! How the server misbehaves, to everyone or to one account; all off at start.

use std::collections::HashMap;
use std::sync::{RwLock, RwLockWriteGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How far a connection comes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    Off,
    /// The WebSocket is asked for.
    Upgrade,
    /// The client's hello is here.
    Hello,
    /// The server's hello is sent.
    ServerHello,
    /// The client has finished the handshake.
    Finish,
    /// A device is told that it is logged in.
    Success,
    /// A device wants to be active.
    Passive,
}

macro_rules! wishes {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $off:expr),+ $(,)?) => {
        /// What is asked for; what is left out stays as it is.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct Request {
            /// Only this account.
            pub(crate) account: Option<String>,
            /// First everything is as at the start; without an account, for all accounts.
            #[serde(default)]
            pub(crate) reset: bool,
            $($name: Option<$type>),+
        }

        /// Faults that were asked for, or not.
        #[derive(Clone, Copy, Default, Serialize)]
        struct Wish { $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] $name: Option<$type>),+ }

        /// The faults that hold.
        #[derive(Clone, Copy, Serialize)]
        pub(crate) struct Settings { $($(#[$doc])* pub(crate) $name: $type),+ }

        impl Wish {
            fn change(&mut self, request: &Request) {
                $(if request.$name.is_some() { self.$name = request.$name; })+
            }

            fn over(self, below: Self) -> Settings {
                Settings { $($name: self.$name.or(below.$name).unwrap_or($off)),+ }
            }
        }
    };
}

wishes! {
    /// Receipts are treated as if they had never come.
    drop_acks: bool = false,
    /// New connections are answered with 503.
    refuse_connections: bool = false,
    /// What every stanza to a client waits before it goes out.
    latency_ms: u64 = 0,
    /// The connection ends there.
    close_at: Step = Step::Off,
    /// From there on the server says nothing.
    stall_at: Step = Step::Off,
    /// The reason that logins and registrations fail with; 0 is none.
    failure: u16 = 0,
    /// Of a failure 402: how long the ban lasts.
    ban_seconds: u64 = 3_600,
    /// Clients' messages and receipts get no `<ack>`.
    lose_acks: bool = false,
    /// They get it later.
    ack_delay_ms: u64 = 0,
    /// Of two acks the later one comes first.
    reorder_acks: bool = false,
    /// Phones that are asked for a message once more send nothing.
    forgetful: bool = false,
    /// So many messages are not read by their contact at first.
    unread: u64 = 0,
    /// What uploads and downloads are refused with; 0 is nothing.
    media_status: u16 = 0,
    /// Phones that are asked for a file that is gone don't have it either.
    media_lost: bool = false,
}

#[derive(Default)]
pub(crate) struct Faults {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    all: Wish,
    by_account: HashMap<String, Wish>,
}

impl Faults {
    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner
            .write()
            .expect("no panic while holding the faults")
    }

    /// The account is named by its number alone.
    pub(crate) fn set(&self, request: &Request) {
        let mut inner = self.write();
        if request.reset {
            match &request.account {
                Some(account) => drop(inner.by_account.remove(account)),
                None => *inner = Inner::default(),
            }
        }
        match &request.account {
            Some(account) => inner
                .by_account
                .entry(account.clone())
                .or_default()
                .change(request),
            None => inner.all.change(request),
        }
    }

    /// What holds for everyone, and under `accounts` what was asked for single ones.
    pub(crate) fn shown(&self) -> Value {
        let inner = self.inner.read().expect("no panic here");
        let all = inner.all.over(Wish::default());
        let mut shown = serde_json::to_value(all).expect("plain values");
        let accounts = &inner.by_account;
        shown["accounts"] = serde_json::to_value(accounts).expect("string keys, plain values");
        shown
    }

    /// For that account, or for who isn't known yet.
    pub(crate) fn of(&self, account: Option<&str>) -> Settings {
        let inner = self.inner.read().expect("no panic here");
        let own = account.and_then(|account| inner.by_account.get(account));
        own.copied().unwrap_or_default().over(inner.all)
    }

    /// Whether a contact fails to read what the account has sent; so many times, and no more.
    pub(crate) fn take_unread(&self, account: &str) -> bool {
        if self.of(Some(account)).unread == 0 {
            return false;
        }
        let mut inner = self.write();
        let inner = &mut *inner;
        let own = inner.by_account.get_mut(account);
        let own = own.and_then(|own| own.unread.as_mut());
        let Some(left) = own.or(inner.all.unread.as_mut()) else {
            return false;
        };
        let some = *left > 0;
        *left = left.saturating_sub(1);
        some
    }
}

impl Settings {
    pub(crate) fn latency(&self) -> Duration {
        Duration::from_millis(self.latency_ms)
    }

    pub(crate) fn ack_delay(&self) -> Duration {
        Duration::from_millis(self.ack_delay_ms)
    }

    /// Whether a connection that has come so far goes on.
    pub(crate) fn at(&self, step: Step) -> Fate {
        match (self.close_at == step, self.stall_at == step) {
            (true, _) => Fate::Closed,
            (_, true) => Fate::Silent,
            _ => Fate::GoesOn,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    GoesOn,
    Closed,
    Silent,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(faults: &Faults, json: &str) {
        faults.set(&serde_json::from_str(json).unwrap());
    }

    #[test]
    fn an_accounts_faults_stand_before_those_of_all() {
        let faults = Faults::default();
        set(&faults, r#"{"drop_acks": true, "unread": 1}"#);
        set(
            &faults,
            r#"{"account": "1", "drop_acks": false, "close_at": "hello"}"#,
        );
        assert!(faults.of(None).drop_acks);
        assert!(!faults.of(Some("1")).drop_acks);
        assert_eq!(faults.of(Some("1")).at(Step::Hello), Fate::Closed);
        assert_eq!(faults.of(Some("2")).at(Step::Hello), Fate::GoesOn);
        assert!(faults.take_unread("1"));
        assert!(!faults.take_unread("2"));
        set(&faults, r#"{"account": "1", "reset": true}"#);
        assert!(faults.of(Some("1")).drop_acks);
        set(&faults, r#"{"reset": true, "latency_ms": 3}"#);
        assert!(!faults.of(None).drop_acks);
        assert_eq!(faults.of(None).latency_ms, 3);
    }
}
