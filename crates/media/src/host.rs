use std::time::Duration;

use anyhow::Context;
use domain::media::File;
use reqwest::{Client, Response};
use tokio::time::timeout;
use url::Url;

use crate::config::HostConfig;
use crate::decrypt::{Tampered, encrypted_size};
use crate::download::Download;
use crate::place;

/// Why a file can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("WhatsApp keeps it no more")]
    Gone,
    #[error("the media host can't be reached")]
    Away(#[source] reqwest::Error),
    #[error("the media host did not answer in time")]
    Late,
    /// It gives nobody anything at the moment.
    #[error("the media host is busy: it answered {0}")]
    Busy(u16),
    #[error("the media host answered {0}")]
    Unexpected(u16),
    #[error("it is not the file that was sent")]
    Tampered(#[from] Tampered),
}

impl Error {
    /// Whether others will hardly fare better at the moment. (With other statuses the host may have its say on a
    /// path that some sender made up.)
    pub fn is_the_hosts(&self) -> bool {
        matches!(self, Self::Away(_) | Self::Late | Self::Busy(429 | 503))
    }

    pub(crate) fn of_request(error: reqwest::Error) -> Self {
        match error.is_timeout() {
            true => Self::Late,
            // The path is as good as the file.
            false => Self::Away(error.without_url()),
        }
    }
}

/// The way to WhatsApp's files.
pub struct Host {
    http: Client,
    url: Url,
    timeout: Duration,
}

impl Host {
    pub fn new(config: HostConfig) -> anyhow::Result<Self> {
        let http = runtime::http::client()?.read_timeout(config.timeout);
        Ok(Self {
            http: http.build().context("the client of the media host")?,
            url: config.url,
            timeout: config.timeout,
        })
    }

    /// Asks for the file; answers as soon as it is known that there is one of its length.
    pub async fn open(&self, file: &File) -> Result<Download, Error> {
        let answer = self.ask(place::url(&self.url, file)).await?;
        let announced = answer.content_length();
        match announced.is_none_or(|length| length == encrypted_size(file.size)) {
            true => Ok(Download::new(answer, file)),
            false => Err(Tampered::Size.into()),
        }
    }

    async fn ask(&self, url: Url) -> Result<Response, Error> {
        let answer = timeout(self.timeout, self.http.get(url).send()).await;
        let answer = answer.map_err(|_| Error::Late)?;
        let answer = answer.map_err(Error::of_request)?;
        match answer.status().as_u16() {
            200 => Ok(answer),
            // 403: the path was signed for a time that is over.
            403 | 404 | 410 => Err(Error::Gone),
            status @ (429 | 500..) => Err(Error::Busy(status)),
            status => Err(Error::Unexpected(status)),
        }
    }
}
