//! Which version of WhatsApp Web sessions say they are: as configured, or the newest that WhatsApp's own page
//! names, which one gateway asks for and PostgreSQL keeps for all. No session waits for any of it: each takes the
//! newest that is known when it begins.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use domain::client_version;
use queue::Doorbell;
use runtime::postgres::Pool;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use url::Url;
use whatsapp_rust::wacore::version::parse_sw_js;

use crate::config::{BUILT_IN, Version, WhatsApp};

/// Between two looks at what others have found out.
const LOOK: Duration = Duration::from_secs(60);
/// What the first look may take before sessions begin without it.
const FIRST_LOOK: Duration = Duration::from_secs(2);
const FETCH: Duration = Duration::from_secs(20);
/// The page has some 10 KiB.
const LONGEST_PAGE: usize = 4 * 1024 * 1024;
/// WhatsApp answers those who look like a browser.
const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/131.0.0.0 Safari/537.36";

/// Clones are one and the same.
#[derive(Debug, Clone)]
pub(crate) struct Versions {
    current: watch::Sender<Version>,
    doubted: Arc<Notify>,
}

impl Versions {
    pub(crate) fn new(whatsapp: &WhatsApp) -> Self {
        Self {
            current: watch::Sender::new(whatsapp.version.unwrap_or(BUILT_IN)),
            doubted: Arc::default(),
        }
    }

    pub(crate) fn current(&self) -> Version {
        *self.current.borrow()
    }

    /// WhatsApp says that it is too old.
    pub(crate) fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Takes over what is known already.
    pub(crate) async fn recall(&self, pool: &Pool) {
        match timeout(FIRST_LOOK, self.look(pool)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("the last known version could not be read: {error:#}"),
            Err(_) => tracing::warn!("the last known version could not be read in time"),
        }
    }

    /// Keeps it current; never returns.
    pub(crate) async fn keep(self, page: Url, pool: Pool, doorbell: Doorbell) {
        let mut doubted = false;
        loop {
            if let Err(error) = self.refresh(&page, &pool, &doorbell, doubted).await {
                tracing::warn!(version = %self.current(), "the newest version of WhatsApp Web \
                    could not be found out; the last one that is known is used: {error:#}");
            }
            doubted = tokio::select! {
                () = self.doubted.notified() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
        }
    }

    async fn look(&self, pool: &Pool) -> anyhow::Result<()> {
        let known = client_version::find(&mut *pool.get().await?).await?;
        if let Some(known) = known {
            self.take(known.parse().context("the version that is kept")?);
        }
        Ok(())
    }

    async fn refresh(
        &self,
        page: &Url,
        pool: &Pool,
        doorbell: &Doorbell,
        doubted: bool,
    ) -> anyhow::Result<()> {
        self.look(pool).await?;
        if !client_version::claim(&mut *pool.get().await?, doubted).await? {
            return Ok(());
        }
        let found = timeout(FETCH, fetch(page)).await.context("in time")??;
        let freed = client_version::record(&mut *pool.get().await?, &found.to_string()).await?;
        self.take(found);
        if freed {
            doorbell.ring_connections().await?;
        }
        Ok(())
    }

    /// Never an older one than this build knows.
    fn take(&self, found: Version) {
        let version = found.max(BUILT_IN);
        let changed = self.current.send_if_modified(|current| {
            let changed = *current != version;
            *current = version;
            changed
        });
        if changed {
            tracing::info!(%version, "sessions say from now on that they are of this version");
        }
    }
}

async fn fetch(page: &Url) -> anyhow::Result<Version> {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(FETCH / 2)
        .user_agent(BROWSER)
        .build()?;
    let request = client.get(page.clone()).header("sec-fetch-site", "none");
    let mut answer = request.send().await?.error_for_status()?;
    let mut text = Vec::new();
    while let Some(part) = answer.chunk().await? {
        anyhow::ensure!(
            text.len() + part.len() <= LONGEST_PAGE,
            "the page does not end"
        );
        text.extend_from_slice(&part);
    }
    named(&String::from_utf8_lossy(&text)).context("the page names no version")
}

/// `client_revision`; the library also makes do with a page that names none.
fn named(page: &str) -> Option<Version> {
    let (primary, secondary, tertiary) = parse_sw_js(page)?;
    (tertiary > 0).then_some(Version(primary, secondary, tertiary))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_its_revision_or_none() {
        let page = r#"self.x=JSON.parse('{"client_revision":1030000000,"y":1}')"#;
        assert_eq!(named(page), Some(Version(2, 3000, 1_030_000_000)));
        assert_eq!(named("<html>sign in to this network</html>"), None);
        assert_eq!(named("assets-manifest-98765 "), None);
    }

    #[test]
    fn a_version_that_is_older_than_the_build_is_not_taken() {
        let versions = Versions {
            current: watch::Sender::new(BUILT_IN),
            doubted: Arc::default(),
        };
        versions.take(Version(2, 3000, 7));
        assert_eq!(versions.current(), BUILT_IN);
        let newer = Version(2, 3000, BUILT_IN.2 + 1);
        versions.take(newer);
        assert_eq!(versions.current(), newer);
    }
}
