//! Files of messages, from WhatsApp's media host to the client. A file that is small enough is checked before
//! its first byte is answered with; of a larger one the end is held back until then.

mod pump;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{StatusCode, header};
use bytes::Bytes;
use domain::media::File;
use futures_util::Stream;
use media::{Error, Host};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::pump::Pump;
use crate::config::MediaConfig;
use crate::error::{ApiError, Kind};

/// The largest file that is checked as a whole before it is answered with.
const WHOLE: u64 = 256 * 1024;
/// What such a file may take.
const WHOLE_TIME: Duration = Duration::from_secs(30);
/// Seconds after which to ask again when too many downloads are under way.
const BUSY: &str = "5";

/// The way to WhatsApp's files.
pub(crate) struct Media {
    host: Host,
    downloads: Arc<Semaphore>,
}

/// A file's bytes. An error in the middle ends the connection, so that nobody takes a part for the whole.
pub(crate) type FileBody = Pin<Box<dyn Stream<Item = Result<Bytes, Cut>>>>;

/// What was begun cannot be brought to a good end; the reason is in the log.
#[derive(Debug, thiserror::Error)]
#[error("the file was cut off")]
pub(crate) struct Cut;

impl Media {
    pub(crate) fn new(config: MediaConfig) -> anyhow::Result<Self> {
        Ok(Self {
            host: Host::new(config.host)?,
            downloads: Arc::new(Semaphore::new(config.downloads.get())),
        })
    }

    /// The file, as soon as it is known that there is one.
    pub(crate) async fn open(&self, file: &File) -> Result<FileBody, ApiError> {
        let Ok(permit) = Arc::clone(&self.downloads).try_acquire_owned() else {
            let detail = "Too many files are being downloaded at the moment.";
            return Err(ApiError::unavailable(Kind::Status, detail).with(header::RETRY_AFTER, BUSY));
        };
        let download = self.host.open(file).await.map_err(problem)?;
        if file.size > WHOLE {
            return Ok(Box::pin(Pump::start(download, permit)));
        }
        let whole = timeout(WHOLE_TIME, download.whole()).await;
        let whole = whole.unwrap_or(Err(Error::Late)).map_err(problem)?;
        count("whole");
        Ok(Box::pin(futures_util::stream::iter([Ok(whole)])))
    }
}

fn problem(error: Error) -> ApiError {
    let answer = match &error {
        Error::Gone => return gone(),
        Error::Late => return late(),
        Error::Away(_) | Error::Busy(_) => away(),
        Error::Unexpected(_) | Error::Tampered(_) => broken(),
    };
    tracing::warn!("a file: {:#}", anyhow::Error::from(error));
    answer
}

fn gone() -> ApiError {
    count("gone");
    let detail = "WhatsApp keeps this file no more. Only who sent it can send it again.";
    ApiError::of(StatusCode::GONE, Kind::MediaGone, detail)
}

fn broken() -> ApiError {
    count("broken");
    let detail = "What WhatsApp has is not the file that was sent.";
    ApiError::of(StatusCode::BAD_GATEWAY, Kind::MediaBroken, detail)
}

fn away() -> ApiError {
    count("away");
    let detail = "WhatsApp's media host cannot be reached at the moment.";
    ApiError::unavailable(Kind::MediaAway, detail)
}

fn late() -> ApiError {
    count("late");
    let detail = "WhatsApp's media host did not answer in time.";
    ApiError::of(StatusCode::GATEWAY_TIMEOUT, Kind::MediaAway, detail)
}

fn count(outcome: &'static str) {
    metrics::counter!("recado_api_media_total", "outcome" => outcome).increment(1);
}
