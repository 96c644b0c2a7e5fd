//! A webhook receiver: it records every request and answers as it was told, well or badly.

pub mod answer;
pub mod control;
mod handler;
pub mod raw;
pub mod record;
pub mod signature;

use std::any::Any;
use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::panicking;
use std::time::Duration;

use actix_web::dev::{Extensions, Server, ServerHandle};
use actix_web::web::{self, Data};
use actix_web::{App, HttpServer};
use tokio::time::sleep;

use crate::eventually;
pub use answer::{Answer, Ending};
pub use raw::{RawReceiver, Step};
pub use record::{Received, Record};

/// A receiver in this process. It stops with this value.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    record: Arc<Record>,
    server: ServerHandle,
}

impl Receiver {
    /// Listens on a free port of 127.0.0.1 and answers 200 to everything.
    pub async fn start() -> Self {
        Self::listen("127.0.0.1:0".parse().expect("an address")).await
    }

    /// Listens where another receiver did before.
    pub async fn listen(address: SocketAddr) -> Self {
        let record = Arc::new(Record::default());
        let (address, server) = serve(address, Arc::clone(&record), Surface::Plain, 1)
            .unwrap_or_else(|error| panic!("a receiver at {address}: {error}"));
        let handle = server.handle();
        tokio::spawn(server);
        Self {
            address,
            record,
            server: handle,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path, which starts with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// From now on, answers so to requests for the path.
    pub fn answer(&self, path: &str, answer: Answer) {
        self.record.script(path, [answer]);
    }

    /// Answers to the next requests for the path, one by one; the last of them to all others.
    pub fn answers(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.record.script(path, answers);
    }

    /// All requests so far, in the order of their arrival.
    pub fn received(&self) -> Vec<Received> {
        self.record.since(0)
    }

    /// The requests for one path so far.
    pub fn received_at(&self, path: &str) -> Vec<Received> {
        self.received()
            .into_iter()
            .filter(|request| request.path == path)
            .collect()
    }

    /// Waits until `count` requests have arrived, and returns all there are.
    pub async fn wait_for(&self, count: usize, limit: Duration) -> Vec<Received> {
        eventually(limit, async || {
            let received = self.received();
            let enough = received.len() >= count;
            if enough {
                Ok(received)
            } else {
                Err(format!("{} of {count} arrived", received.len()))
            }
        })
        .await
    }

    /// How many requests for the path are unanswered right now.
    pub fn in_flight(&self, path: &str) -> usize {
        self.record.flights(path).now
    }

    /// How many requests for the path were unanswered at once, at most.
    pub fn most_at_once(&self, path: &str) -> usize {
        self.record.flights(path).most
    }

    /// Stops listening and drops all connections.
    pub async fn stop(&self) {
        self.server.stop(false).await;
    }
}

impl Drop for Receiver {
    /// Panics when a delivery was not what the published schema promises, whatever the test looked at.
    fn drop(&mut self) {
        // The command is given by the call; only its completion would have to be awaited.
        drop(self.server.stop(false));
        if let Some(error) = self.record.schema_error().filter(|_| !panicking()) {
            panic!("a delivery is not as in docs/payload.schema.json: {error}");
        }
    }
}

/// What a receiver serves beside recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surface {
    Plain,
    /// `/_control` and `/sink`: see [`control`].
    Controlled,
}

/// A receiver's server, which listens already, and where.
pub fn serve(
    address: SocketAddr,
    record: Arc<Record>,
    surface: Surface,
    workers: usize,
) -> std::io::Result<(SocketAddr, Server)> {
    let server = HttpServer::new(move || {
        App::new()
            .app_data(Data::from(Arc::clone(&record)))
            .app_data(web::PayloadConfig::new(handler::LARGEST_BODY))
            .configure(|app| {
                if surface == Surface::Controlled {
                    control::routes(app);
                }
            })
            .default_service(web::to(handler::receive))
    })
    .on_connect(keep_socket)
    .workers(workers)
    .disable_signals()
    .shutdown_timeout(1)
    .bind(address)?;
    let address = server.addrs()[0];
    Ok((address, server.run()))
}

/// A second handle on the request's connection, for what HTTP doesn't offer: to cut it without an
/// answer, and to see that the client is gone while there is no answer yet.
#[derive(Debug)]
struct Socket(TcpStream);

impl Socket {
    fn cut(&self) {
        // Fails only when the other side was faster.
        let _ = self.0.shutdown(Shutdown::Both);
    }

    /// Waits until the client has closed the connection.
    async fn closed(&self) {
        loop {
            match self.0.peek(&mut [0]) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn keep_socket(connection: &dyn Any, data: &mut Extensions) {
    let stream = connection.downcast_ref::<actix_web::rt::net::TcpStream>();
    let stream = stream.expect("a receiver speaks plain HTTP");
    if let Ok(handle) = stream.as_fd().try_clone_to_owned() {
        data.insert(Socket(TcpStream::from(handle)));
    }
}
