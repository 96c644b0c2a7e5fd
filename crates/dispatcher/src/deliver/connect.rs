//! How a connection is made: the name is resolved, its addresses are checked, and only then is one of
//! them connected to.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use thiserror::Error;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tower_service::Service;

use crate::guard::{Forbidden, Guard};

/// Why there is no connection.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    #[error(transparent)]
    Forbidden(Forbidden),
    #[error("the host name does not resolve")]
    Dns,
    #[error("no connection: {0}")]
    Refused(io::Error),
    #[error("no connection within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
}

type Connecting<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Connects to permitted addresses within the webhook's ranges.
#[derive(Clone)]
pub(crate) struct Guarded(pub(super) Arc<(Guard, Vec<IpNet>)>);

impl Service<Uri> for Guarded {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = Connecting<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let checks = Arc::clone(&self.0);
        Box::pin(async move {
            let (guard, ranges) = &*checks;
            let found = resolve(&uri).await?;
            let permitted = guard
                .permitted(found.into_iter(), ranges)
                .map_err(ConnectError::Forbidden)?;
            let stream = first(&permitted).await.map_err(ConnectError::Refused)?;
            // Requests are small, and written whole.
            stream.set_nodelay(true).map_err(ConnectError::Refused)?;
            Ok(TokioIo::new(stream))
        })
    }
}

async fn resolve(uri: &Uri) -> Result<Vec<SocketAddr>, ConnectError> {
    let host = uri.host().ok_or(ConnectError::Dns)?;
    let is_https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let found = lookup_host((host, port)).await;
    let found: Vec<_> = found.map_err(|_| ConnectError::Dns)?.collect();
    match found.is_empty() {
        true => Err(ConnectError::Dns),
        false => Ok(found),
    }
}

/// A connection to the first address that takes one.
async fn first(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Bounds the time of a connection, its TLS handshake included.
#[derive(Clone)]
pub(crate) struct InTime<S> {
    pub(super) inner: S,
    pub(super) limit: Duration,
}

impl<S> Service<Uri> for InTime<S>
where
    S: Service<Uri, Error: Into<Box<dyn Error + Send + Sync>>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Connecting<S::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, limit) = (self.inner.call(uri), self.limit);
        Box::pin(async move {
            match timeout(limit, connecting).await {
                Ok(connected) => connected.map_err(Into::into),
                Err(_) => Err(ConnectError::TimedOut(limit).into()),
            }
        })
    }
}
