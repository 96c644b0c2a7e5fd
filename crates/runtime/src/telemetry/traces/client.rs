use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use reqwest::Body;
use tokio::runtime::{Builder, Runtime};

use crate::http;

/// What a collector may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Runs on the thread that exports, which has nothing else to do, and not among the tasks of the service.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    runtime: Runtime,
}

impl Client {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            http: http::client()?.timeout(TIMEOUT).build()?,
            runtime: Builder::new_current_thread().enable_all().build()?,
        })
    }

    async fn send(&self, request: Request<Body>) -> reqwest::Result<Response<Bytes>> {
        let answer = self.http.execute(request.try_into()?).await?;
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        *response.body_mut() = answer.bytes().await?;
        Ok(response)
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = self.runtime.block_on(self.send(request.map(Body::from)));
        // Its URL may have a password.
        sent.map_err(|error| error.without_url().into())
    }
}
