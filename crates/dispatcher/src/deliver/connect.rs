//! How a connection is made: the name is resolved, its addresses are checked, and only then is one of
//! them connected to.

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use thiserror::Error;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower_service::Service;

use crate::guard::{Forbidden, Guard};

/// After this the next one of several addresses is tried.
const NEXT_ADDRESS: Duration = Duration::from_secs(1);

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
pub(crate) struct Guarded(pub(super) Arc<Checks>);

/// What a connection has to pass.
pub(crate) struct Checks {
    pub(super) guard: Guard,
    pub(super) ranges: Vec<IpNet>,
    pub(super) lookups: Arc<Lookups>,
}

/// Names that are being looked up. The system looks up on threads, of which there is a limit, and one that
/// waits for a name server can't be called off: a name has one at a time, or a few webhooks whose name
/// server is silent would keep all others from new connections.
#[derive(Default)]
pub(crate) struct Lookups(Mutex<HashMap<String, Arc<Semaphore>>>);

/// Names that are kept in mind; beyond that those that nobody waits for are forgotten.
const NAMES: usize = 1000;

impl Lookups {
    async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let turn = self.turn(host).acquire_owned().await;
        let host = host.to_owned();
        // In a task of its own: the turn ends with the look-up, also when nobody waits for it any more.
        let lookup = tokio::spawn(async move {
            let found = lookup_host((host.as_str(), port)).await;
            drop(turn);
            found.map(Iterator::collect)
        });
        lookup.await.map_err(io::Error::other)?
    }

    fn turn(&self, host: &str) -> Arc<Semaphore> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= NAMES {
            names.retain(|_, turn| turn.available_permits() == 0 || Arc::strong_count(turn) > 1);
        }
        let turn = names.entry(host.to_owned());
        Arc::clone(turn.or_insert_with(|| Arc::new(Semaphore::new(1))))
    }
}

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
            let found = resolve(&uri, &checks.lookups).await?;
            let permitted = checks
                .guard
                .permitted(found.into_iter(), &checks.ranges)
                .map_err(ConnectError::Forbidden)?;
            let stream = first(&permitted).await.map_err(ConnectError::Refused)?;
            // Requests are small, and written whole.
            stream.set_nodelay(true).map_err(ConnectError::Refused)?;
            Ok(TokioIo::new(stream))
        })
    }
}

async fn resolve(uri: &Uri, lookups: &Lookups) -> Result<Vec<SocketAddr>, ConnectError> {
    let host = uri.host().ok_or(ConnectError::Dns)?;
    let is_https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let found = lookups.look_up(host, port).await;
    let found = found.map_err(|_| ConnectError::Dns)?;
    match found.is_empty() {
        true => Err(ConnectError::Dns),
        false => Ok(found),
    }
}

/// A connection to the first address that takes one. None that doesn't answer keeps the next one from its
/// turn.
async fn first(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let (last, others) = match addresses.split_last() {
        Some(split) => split,
        None => return Err(failed),
    };
    for address in others {
        match timeout(NEXT_ADDRESS, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = io::ErrorKind::TimedOut.into(),
        }
    }
    TcpStream::connect(last)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::AddrNotAvailable => failed,
            _ => error,
        })
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
