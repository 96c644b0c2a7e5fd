//! Files of messages, from WhatsApp's media host to the client, decrypted on the way.
//!
//! The media host gives a file to whoever knows its path, so no session and no gateway is needed. What it
//! gives is believed in nothing: [`decrypt`] holds the end of a file back until all of it was checked, and a
//! file that is small enough is checked before its first byte is answered with.

mod decrypt;
mod place;
mod pump;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{StatusCode, header};
use anyhow::Context;
use bytes::Bytes;
use domain::media::File;
use futures_util::Stream;
use reqwest::{Client, Response};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use url::Url;

use self::decrypt::Decryptor;
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
    http: Client,
    host: Url,
    timeout: Duration,
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
        let http = runtime::http::client()?.read_timeout(config.timeout);
        Ok(Self {
            http: http.build().context("the client of the media host")?,
            host: config.host,
            timeout: config.timeout,
            downloads: Arc::new(Semaphore::new(config.downloads.get())),
        })
    }

    /// The file, as soon as it is known that there is one.
    pub(crate) async fn open(&self, file: &File) -> Result<FileBody, ApiError> {
        let Ok(permit) = Arc::clone(&self.downloads).try_acquire_owned() else {
            let detail = "Too many files are being downloaded at the moment.";
            return Err(ApiError::unavailable(Kind::Status, detail).with(header::RETRY_AFTER, BUSY));
        };
        let answer = self.fetch(file).await?;
        let decryptor = Decryptor::new(file);
        if file.size > WHOLE {
            return Ok(Box::pin(Pump::start(answer, decryptor, permit)));
        }
        let whole = timeout(WHOLE_TIME, pump::whole(answer, decryptor)).await;
        let whole = whole.map_err(|_| late())?.map_err(|error| {
            tracing::warn!("a file of the media host: {error:#}");
            count("broken");
            broken()
        })?;
        count("whole");
        Ok(Box::pin(futures_util::stream::iter([Ok(whole.into())])))
    }

    async fn fetch(&self, file: &File) -> Result<Response, ApiError> {
        let url = place::url(&self.host, file);
        let answer = match timeout(self.timeout, self.http.get(url).send()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if error.is_timeout() => return Err(late()),
            Err(_) => return Err(late()),
            Ok(Err(error)) => {
                // The path is as good as the file.
                tracing::warn!(
                    "the media host: {:#}",
                    anyhow::Error::from(error.without_url())
                );
                return Err(away());
            }
        };
        match answer.status().as_u16() {
            200 => {}
            // 403: the path was signed for a time that is over.
            403 | 404 | 410 => return Err(gone()),
            429 | 500.. => return Err(away()),
            status => {
                tracing::warn!(status, "the media host");
                return Err(broken());
            }
        }
        let announced = answer.content_length();
        match announced.is_none_or(|length| length == decrypt::encrypted_size(file.size)) {
            true => Ok(answer),
            false => Err(broken()),
        }
    }
}

fn gone() -> ApiError {
    count("gone");
    let detail = "WhatsApp keeps this file no more. Only who sent it can send it again.";
    ApiError::of(StatusCode::GONE, Kind::MediaGone, detail)
}

fn broken() -> ApiError {
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
