//! The receiver that the figures are taken at: a process of its own that costs next to nothing. It answers
//! 200, or never under [`HANG`], notes when what arrived, and tells on request.

mod arrivals;
mod head;
mod remote;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use arrivals::Arrivals;
pub(crate) use arrivals::{Summary, now};
use head::{Head, parse};
pub(crate) use remote::Sink;

/// Requests for a path that begins like this are read and never answered.
pub(crate) const HANG: &str = "/hang";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";
const BAD: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const BACKLOG: u32 = 1024;
/// More than a delivery has, so that one read takes a whole one.
const BUFFER: usize = 8 * 1024;

#[derive(Debug, Args)]
pub(crate) struct Place {
    #[arg(long)]
    port: u16,
    /// On so many further addresses of the loopback network
    #[arg(long, default_value_t = 0)]
    hosts: u16,
}

/// The address of one of the further hosts.
pub(crate) fn host(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 1, high, low)
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Arrivals>>);

impl Log {
    fn open(&self) -> MutexGuard<'_, Arrivals> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until the process is killed.
pub(crate) async fn serve(place: &Place) -> anyhow::Result<()> {
    // A listener for each host, and the connections.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )?;
    let log = Log::default();
    let mut listeners = JoinSet::new();
    let further = (0..place.hosts).map(host);
    for address in std::iter::once(Ipv4Addr::LOCALHOST).chain(further) {
        let address = SocketAddr::from((address, place.port));
        let listener = listen(address).with_context(|| address.to_string())?;
        listeners.spawn(accept(listener, log.clone()));
    }
    while let Some(ended) = listeners.join_next().await {
        ended??;
    }
    Ok(())
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(listener: TcpListener, log: Log) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // The caller may go when it likes.
        tokio::spawn(converse(stream, log.clone()));
    }
}

/// One connection, request after request.
async fn converse(mut stream: TcpStream, log: Log) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        loop {
            let (head, end) = match parse(&buffer) {
                Ok(Some(request)) => request,
                Ok(None) => break,
                Err(_) => return stream.write_all(BAD).await,
            };
            match answer(&head, &log) {
                Answer::Static(bytes) => stream.write_all(bytes).await?,
                Answer::Made(bytes) => stream.write_all(&bytes).await?,
                Answer::Never => {}
            }
            buffer.drain(..end);
        }
    }
}

enum Answer {
    Static(&'static [u8]),
    Made(Vec<u8>),
    Never,
}

fn answer(head: &Head<'_>, log: &Log) -> Answer {
    match head.path {
        "/_sink/reset" => {
            *log.open() = Arrivals::default();
            Answer::Static(OK)
        }
        "/_sink/count" => made(&log.open().count()),
        "/_sink/summary" => made(&log.open().summary()),
        "/_sink/times" => made(&log.open().times()),
        path if path.starts_with(HANG) => {
            log.open().hung();
            Answer::Never
        }
        _ => {
            log.open().answered(head.id);
            Answer::Static(OK)
        }
    }
}

fn made(value: &impl serde::Serialize) -> Answer {
    let body = serde_json::to_vec(value).expect("numbers and ids are JSON");
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    Answer::Made([head.into_bytes(), body].concat())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use testkit::{eventually, free_port};
    use tokio::time::timeout;

    use super::*;
    use crate::baseline;

    const SOON: Duration = Duration::from_secs(10);

    /// Serves as long as the test runs; answers its port.
    async fn served(hosts: u16) -> u16 {
        let place = Place {
            port: free_port(),
            hosts,
        };
        let port = place.port;
        tokio::spawn(async move { serve(&place).await });
        let last = hosts.checked_sub(1).map_or(Ipv4Addr::LOCALHOST, host);
        eventually(SOON, async || TcpStream::connect((last, port)).await).await;
        port
    }

    async fn exchange(stream: &mut TcpStream, request: &str) -> String {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 1024];
        let length = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }

    async fn summary(port: u16) -> Summary {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        let answer = exchange(&mut stream, "GET /_sink/summary HTTP/1.1\r\n\r\n").await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    #[tokio::test]
    async fn what_the_baseline_sends_arrives_once_each() {
        let port = served(2).await;
        for address in [Ipv4Addr::LOCALHOST, host(1)] {
            let url = format!("http://{address}:{port}/hooks/");
            baseline::send(&baseline::Load::small(url, 100))
                .await
                .unwrap();
        }
        let summary = summary(port).await;
        assert_eq!((summary.answered, summary.distinct), (200, 100));
    }

    #[tokio::test]
    async fn what_hangs_is_counted_and_never_answered() {
        let port = served(0).await;
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        let request = format!("POST {HANG}/1 HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        eventually(SOON, async || summary(port).await.hung == 1).await;
        let answer = timeout(Duration::from_millis(50), stream.read_u8()).await;
        assert!(answer.is_err(), "{answer:?}");
        assert_eq!(summary(port).await.answered, 0);
    }

    #[tokio::test]
    async fn nonsense_is_refused_and_the_connection_closed() {
        let port = served(0).await;
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        let answer = exchange(&mut stream, "nonsense\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
}
