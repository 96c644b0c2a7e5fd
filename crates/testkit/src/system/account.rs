//! A number with its session and its webhook.

use std::ops::Range;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use super::System;
use crate::eventually;

const PATIENCE: Duration = Duration::from_secs(30);
/// Sessions that are being linked at once.
const AT_ONCE: usize = 8;

/// A WhatsApp number that is connected, and whose messages go to the receiver.
#[derive(Debug, Clone)]
pub struct Account {
    pub phone: String,
    pub user: Uuid,
    pub session: Uuid,
    pub webhook: Uuid,
}

impl System {
    /// Registers a webhook at the receiver, under a path that the number names, and tells the receiver
    /// its secret.
    pub async fn register(&self, phone: &str) -> anyhow::Result<Uuid> {
        let url = self.postbox.url(&format!("/hooks/{phone}"));
        let registered = self.users.register(phone, &url).await?;
        let (id, secret) = (registered.id, &registered.secret);
        self.postbox.tell_secret(id, secret).await?;
        Ok(id)
    }

    /// Waits until the session is open.
    pub async fn connected(&self, user: Uuid) {
        eventually(PATIENCE, async || match self.users.status(user).await {
            Ok(status) if status == "connected" => Ok(()),
            Ok(status) => Err(format!("the session of {user} is {status}, not connected")),
            Err(error) => Err(format!("{error:#}")),
        })
        .await;
    }

    /// Connects a number as people do, with a webhook.
    pub async fn open(&self, phone: &str) -> anyhow::Result<Account> {
        let (user, session) = self.scan(phone).await?;
        let webhook = self.register(phone).await?;
        self.connected(user).await;
        Ok(Account {
            phone: phone.to_owned(),
            user,
            session,
            webhook,
        })
    }

    /// Asks for a session and scans its code; returns the user and the session.
    async fn scan(&self, phone: &str) -> anyhow::Result<(Uuid, Uuid)> {
        let user = Uuid::new_v4();
        let session = self.users.connect(user, phone).await?;
        let code = self.users.qr_code(user).await?;
        self.phones.scan(&code, phone).await?;
        Ok((user, session))
    }

    /// Connects numbers without webhooks; returns them.
    pub async fn link_many(&self, numbers: Range<usize>) -> anyhow::Result<Vec<String>> {
        let phones: Vec<_> = numbers.map(|n| format!("49155500{n:05}")).collect();
        stream::iter(phones)
            .map(async |phone| {
                let (user, _) = self.scan(&phone).await?;
                self.connected(user).await;
                Ok(phone)
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Connects so many numbers.
    pub async fn open_many(&self, count: usize) -> anyhow::Result<Vec<Account>> {
        let phones: Vec<_> = (0..count).map(|n| format!("49155500{n:05}")).collect();
        stream::iter(&phones)
            .map(|phone| self.open(phone))
            .buffered(AT_ONCE)
            .try_collect()
            .await
    }
}
