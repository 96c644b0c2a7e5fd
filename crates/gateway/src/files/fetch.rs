//! Fetching a file from a URL that a client gave.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response};

use super::guard::{self, Resolver};
use super::{Content, Failure};
use crate::config::Sources;

/// What a file may take in all, and what its host may be silent for.
const FILE: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(10);
/// Bytes of a media type.
const LONGEST_TYPE: usize = 255;

pub(super) struct Fetcher {
    http: Client,
    sources: Sources,
}

impl Fetcher {
    pub(super) fn new(sources: Sources) -> anyhow::Result<Self> {
        let addresses = Arc::new(sources.addresses.clone());
        let http = runtime::http::client()?
            .dns_resolver(Arc::new(Resolver(addresses)))
            .timeout(FILE)
            .read_timeout(SILENCE)
            // A connection that is used again was checked for another file, maybe long ago.
            .pool_max_idle_per_host(0);
        Ok(Self {
            http: http.build().context("the client")?,
            sources,
        })
    }

    /// The file, if it has at most so many bytes.
    pub(super) async fn fetch(&self, url: &str, largest: usize) -> Result<Content, Failure> {
        let url = guard::admit(url, &self.sources)?;
        let answer = self.http.get(url).send().await.map_err(unanswered)?;
        match answer.status().as_u16() {
            200 => {}
            status @ (408 | 425 | 429 | 500..) => {
                return Err(unfetched(format!("the URL answered {status}")));
            }
            300..400 => return Err(refused("the URL redirects, which is not followed")),
            status => return Err(refused(format!("the URL answered {status}"))),
        }
        let mimetype = said_type(&answer);
        let bytes = read(answer, largest).await?;
        Ok(Content { bytes, mimetype })
    }
}

async fn read(mut answer: Response, largest: usize) -> Result<Vec<u8>, Failure> {
    let too_large = || refused(format!("the file is larger than {largest} bytes"));
    let announced = answer.content_length().unwrap_or_default();
    if announced > largest as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(announced as usize);
    while let Some(piece) = answer.chunk().await.map_err(unanswered)? {
        if bytes.len() + piece.len() > largest {
            return Err(too_large());
        }
        bytes.extend_from_slice(&piece);
    }
    match bytes.is_empty() {
        true => Err(refused("the file is empty")),
        false => Ok(bytes),
    }
}

fn said_type(answer: &Response) -> Option<String> {
    let said = answer.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    (said.contains('/') && said.len() <= LONGEST_TYPE).then(|| said.to_owned())
}

fn unfetched(why: impl Into<String>) -> Failure {
    Failure::Unfetched(why.into())
}

fn refused(why: impl Into<String>) -> Failure {
    Failure::Refused(why.into())
}

/// Not what the system said: that would tell a client of the network that we are in.
fn unanswered(error: reqwest::Error) -> Failure {
    if guard::is_forbidden(&error) {
        return refused(guard::Forbidden.to_string());
    }
    unfetched(match error.is_timeout() {
        true => "the URL did not answer in time",
        false if error.is_connect() => "the URL's host cannot be reached",
        false => "the URL's answer broke off",
    })
}
