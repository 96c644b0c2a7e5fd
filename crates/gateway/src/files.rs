//! The files that clients send: fetched from where they are, and put where WhatsApp's phones fetch them.

mod fetch;
mod guard;
mod plain;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use domain::keyring::Keyring;
use domain::media::{Bytes32, File, Kind};
use domain::outbox::{Attachment, Source};
use domain::upload::Upload;
use runtime::postgres::Pool;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use uuid::Uuid;
use whatsapp_rust::Client;
use whatsapp_rust::upload::{UploadOptions, UploadResponse};
use whatsapp_rust::wacore::download::MediaType;

use self::fetch::Fetcher;
pub(crate) use self::plain::Plain;
use crate::config::Sources;

/// Files that one gateway has in memory at once, each in the clear and encrypted.
const AT_ONCE: usize = 2;
/// What one waits for its turn, while its session sends nothing else.
const TURN: Duration = Duration::from_secs(10);
/// What WhatsApp may take for one.
const UPLOAD: Duration = Duration::from_secs(120);
/// Bytes of a file: what WhatsApp shows as a picture, a video or sound, and what it hands on.
const LARGEST_SHOWN: usize = 16 * 1024 * 1024;
const LARGEST_DOCUMENT: usize = 64 * 1024 * 1024;

pub(crate) struct Files {
    pool: Pool,
    keyring: Arc<Keyring>,
    fetcher: Fetcher,
    turns: Semaphore,
}

/// A file that WhatsApp has, as a message describes it.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) file: File,
    /// Of a file that was put there just now.
    pub(crate) fresh: Option<Fresh>,
}

#[derive(Debug, Clone)]
pub(crate) struct Fresh {
    pub(crate) url: String,
    /// When its key was made, in seconds.
    pub(crate) keyed_at: i64,
    pub(crate) sidecar: Option<Vec<u8>>,
}

/// Why a file is not there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It never will be.
    Refused(String),
    /// Its URL does not give it now.
    Unfetched(String),
    /// WhatsApp does not take it now, or the database is away.
    Later(String),
    /// Others' files took every turn for too long. Nothing was tried.
    Crowded,
}

/// A file and what its source says that it is.
struct Content {
    bytes: Vec<u8>,
    mimetype: Option<String>,
}

impl Files {
    pub(crate) fn new(pool: Pool, keyring: Arc<Keyring>, sources: Sources) -> anyhow::Result<Self> {
        Ok(Self {
            pool,
            keyring,
            fetcher: Fetcher::new(sources).context("the client for files")?,
            turns: Semaphore::new(AT_ONCE),
        })
    }

    /// Has the file put where phones fetch it. That of a received message is there already.
    pub(crate) async fn place(
        &self,
        client: &Client,
        client_id: i32,
        attachment: &Attachment,
    ) -> Result<Placed, Failure> {
        if let Source::Message(message) = attachment.source {
            return self.forward(client_id, message, attachment).await;
        }
        let _turn = turn(&self.turns, TURN).await?;
        let content = match &attachment.source {
            Source::Url(url) => self.fetcher.fetch(url, largest(attachment.kind)).await?,
            Source::Upload(id) => self.uploaded(client_id, *id).await?,
            Source::Message(_) => unreachable!("it was forwarded"),
        };
        let mimetype = mimetype(attachment, content.mimetype)?;
        let options = UploadOptions::new();
        let placing = client.upload(content.bytes, media_type(attachment.kind), options);
        match timeout(UPLOAD, placing).await {
            Ok(Ok(placed)) => Ok(Placed::new(attachment, mimetype, placed)),
            Ok(Err(error)) => Err(later(format!("WhatsApp did not take the file: {error}"))),
            Err(_) => Err(later("WhatsApp took too long to take the file")),
        }
    }

    async fn uploaded(&self, client_id: i32, id: Uuid) -> Result<Content, Failure> {
        let mut conn = self.pool.get().await.map_err(later)?;
        let upload = Upload::find(&mut conn, client_id, id)
            .await
            .map_err(later)?;
        let content = Upload::content(&mut conn, client_id, id)
            .await
            .map_err(later)?;
        match upload.zip(content) {
            Some((upload, bytes)) => Ok(Content {
                bytes,
                mimetype: Some(upload.mimetype),
            }),
            None => Err(Failure::Refused(
                "the uploaded file is no longer here".to_owned(),
            )),
        }
    }

    async fn forward(
        &self,
        client_id: i32,
        message: Uuid,
        attachment: &Attachment,
    ) -> Result<Placed, Failure> {
        let mut conn = self.pool.get().await.map_err(later)?;
        let sealed = File::find_sealed(&mut conn, client_id, message)
            .await
            .map_err(later)?;
        let refused = |why: &str| Failure::Refused(why.to_owned());
        let sealed =
            sealed.ok_or_else(|| refused("the message with the file is no longer here"))?;
        let file = File::open(&self.keyring, message, &sealed).map_err(later)?;
        if file.kind != attachment.kind {
            return Err(refused("the message's file is of another kind"));
        }
        let file = File {
            mimetype: attachment.mimetype.clone().or(file.mimetype),
            file_name: attachment.file_name.clone().or(file.file_name),
            ..file
        };
        Ok(Placed { file, fresh: None })
    }
}

impl Placed {
    fn new(attachment: &Attachment, mimetype: String, placed: UploadResponse) -> Self {
        Self {
            file: File {
                kind: attachment.kind,
                direct_path: placed.direct_path,
                media_key: Bytes32(placed.media_key),
                file_enc_sha256: Bytes32(placed.file_enc_sha256),
                file_sha256: Bytes32(placed.file_sha256),
                size: placed.file_length,
                mimetype: Some(mimetype),
                file_name: attachment.file_name.clone(),
            },
            fresh: Some(Fresh {
                url: placed.url,
                keyed_at: placed.media_key_timestamp,
                sidecar: placed.streaming_sidecar,
            }),
        }
    }
}

async fn turn(turns: &Semaphore, limit: Duration) -> Result<SemaphorePermit<'_>, Failure> {
    let turn = timeout(limit, turns.acquire()).await;
    turn.map_err(|_| Failure::Crowded)?.map_err(later)
}

fn later(why: impl ToString) -> Failure {
    Failure::Later(why.to_string())
}

fn largest(kind: Kind) -> usize {
    match kind {
        Kind::Document => LARGEST_DOCUMENT,
        Kind::Image | Kind::Video | Kind::Audio | Kind::Sticker => LARGEST_SHOWN,
    }
}

fn media_type(kind: Kind) -> MediaType {
    match kind {
        Kind::Image => MediaType::Image,
        Kind::Video => MediaType::Video,
        Kind::Audio => MediaType::Audio,
        Kind::Document => MediaType::Document,
        Kind::Sticker => MediaType::Sticker,
    }
}

/// What the client says that it is, or else its source.
fn mimetype(attachment: &Attachment, said: Option<String>) -> Result<String, Failure> {
    let said = attachment.mimetype.clone().or(said);
    let mimetype = attachment.kind.media_type(said.as_deref());
    mimetype.map(str::to_owned).ok_or_else(|| {
        let (kind, said) = (attachment.kind.as_str(), said.unwrap_or_default());
        Failure::Refused(format!("the file is no {kind}: it is said to be {said}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_waits_for_its_turn_and_not_for_ever() {
        let turns = Semaphore::new(1);
        let first = turn(&turns, TURN).await.ok();
        assert!(first.is_some());
        let none = turn(&turns, Duration::from_millis(10)).await;
        assert_eq!(none.err(), Some(Failure::Crowded));
        let (second, ()) = tokio::join!(turn(&turns, TURN), async move { drop(first) });
        assert!(second.is_ok());
    }
}
