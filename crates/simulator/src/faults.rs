//! How the server misbehaves; all off at start.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Default)]
pub(crate) struct Faults {
    drop_acks: AtomicBool,
    refuse_connections: AtomicBool,
    latency_ms: AtomicU64,
    unread: AtomicU64,
    media_status: AtomicU16,
}

/// What is asked for; what is left out stays as it is.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wish {
    pub(crate) drop_acks: Option<bool>,
    pub(crate) refuse_connections: Option<bool>,
    pub(crate) latency_ms: Option<u64>,
    pub(crate) unread: Option<u64>,
    /// 0 is none.
    pub(crate) media_status: Option<u16>,
}

impl Faults {
    pub(crate) fn set(&self, wish: &Wish) {
        if let Some(on) = wish.drop_acks {
            self.drop_acks.store(on, Ordering::Relaxed);
        }
        if let Some(on) = wish.refuse_connections {
            self.refuse_connections.store(on, Ordering::Relaxed);
        }
        if let Some(milliseconds) = wish.latency_ms {
            self.latency_ms.store(milliseconds, Ordering::Relaxed);
        }
        if let Some(count) = wish.unread {
            self.unread.store(count, Ordering::Relaxed);
        }
        if let Some(status) = wish.media_status {
            self.media_status.store(status, Ordering::Relaxed);
        }
    }

    pub(crate) fn current(&self) -> Wish {
        Wish {
            drop_acks: Some(self.drop_acks()),
            refuse_connections: Some(self.refuse_connections()),
            latency_ms: Some(self.latency_ms.load(Ordering::Relaxed)),
            unread: Some(self.unread.load(Ordering::Relaxed)),
            media_status: Some(self.media_status.load(Ordering::Relaxed)),
        }
    }

    /// Receipts are treated as if they had never come.
    pub(crate) fn drop_acks(&self) -> bool {
        self.drop_acks.load(Ordering::Relaxed)
    }

    /// New connections are answered with 503.
    pub(crate) fn refuse_connections(&self) -> bool {
        self.refuse_connections.load(Ordering::Relaxed)
    }

    /// Whether a contact fails to read what it just got; so many times, and no more.
    pub(crate) fn take_unread(&self) -> bool {
        let left = |left: u64| left.checked_sub(1);
        let taken = self
            .unread
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        taken.is_ok()
    }

    /// What uploads and downloads are refused with.
    pub(crate) fn media_status(&self) -> Option<u16> {
        Some(self.media_status.load(Ordering::Relaxed)).filter(|status| *status != 0)
    }

    /// What every stanza to a client waits before it goes out.
    pub(crate) fn latency(&self) -> Duration {
        Duration::from_millis(self.latency_ms.load(Ordering::Relaxed))
    }
}
