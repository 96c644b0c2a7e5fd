use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Client, RequestBuilder, Response};
use serde::de::DeserializeOwned;

/// No call of ours waits longer; the API itself waits for a gateway for some seconds.
const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn client() -> anyhow::Result<Client> {
    runtime::tls::install_provider();
    let client = Client::builder().no_proxy().timeout(LIMIT).build();
    client.context("an HTTP client")
}

/// The answer of a call that succeeded; else an error that shows what was answered.
pub(super) async fn answer(request: RequestBuilder) -> anyhow::Result<Response> {
    let (client, request) = request.build_split();
    let request = request?;
    let what = format!("{} {}", request.method(), request.url());
    let response = client
        .execute(request)
        .await
        .with_context(|| what.clone())?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.text().await.unwrap_or_default();
    bail!("{what}: {status}: {body}")
}

/// The JSON of the answer.
pub(super) async fn json<T: DeserializeOwned>(request: RequestBuilder) -> anyhow::Result<T> {
    let body = answer(request).await?.bytes().await?;
    serde_json::from_slice(&body).with_context(|| {
        format!(
            "an answer of another form: {}",
            String::from_utf8_lossy(&body)
        )
    })
}
