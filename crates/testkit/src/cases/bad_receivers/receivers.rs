//! Many receivers behind one port, light enough for thousands of requests a second: `/0`, `/1` and so on,
//! each with manners of its own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, anyhow};
use chrono::{DateTime, Utc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use uuid::Uuid;

/// A delivery has about fifteen.
const HEADERS: usize = 32;
/// More is no delivery.
const LONGEST_REQUEST: usize = 64 * 1024;
/// So many requests are kept. It is a multiple of what a case sends.
const MOST: usize = 2_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Well,
    /// Never answers.
    Hang,
    /// 500
    Fail,
    /// 429, with `Retry-After`.
    Busy,
    /// Closes the connection in the middle of the body.
    Cut,
}

impl Manner {
    fn answer(self) -> &'static [u8] {
        match self {
            Self::Well => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            Self::Hang => b"",
            Self::Fail => b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\noh",
            Self::Busy => {
                b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 2\r\ncontent-length: 0\r\n\r\n"
            }
            Self::Cut => b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        }
    }
}

/// A delivery as it arrived, as short as it can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) event: Uuid,
    /// The receiver's number.
    pub(super) receiver: usize,
    /// `X-Webhook-Timestamp`, in milliseconds since 1970: when the attempt began. With the event it names
    /// the attempt.
    pub(super) began: i64,
    pub(super) arrived: DateTime<Utc>,
}

/// The receivers in this process. They stop with this value.
pub(super) struct Receivers {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    manners: Vec<Manner>,
    /// Before, all answer well.
    misbehave: AtomicBool,
    log: Mutex<Vec<Request>>,
}

impl Receivers {
    /// One for each of these manners; until they are [let loose](Self::misbehave) all answer well.
    pub(super) async fn start(manners: Vec<Manner>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            manners,
            misbehave: AtomicBool::new(false),
            log: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            task: task.abort_handle(),
        })
    }

    pub(super) fn url(&self, receiver: usize) -> String {
        format!("http://{}/{receiver}", self.address)
    }

    /// From now on each has its own manner.
    pub(super) fn misbehave(&self) {
        self.shared.misbehave.store(true, Ordering::SeqCst);
    }

    /// Every request in the order of arrival. An error when there were too many to keep.
    pub(super) fn log(&self) -> anyhow::Result<Vec<Request>> {
        let log = self.shared.log();
        anyhow::ensure!(log.len() < MOST, "more than {MOST} requests");
        Ok(log.clone())
    }
}

impl Drop for Receivers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        // An error is a dispatcher that was killed, or that has waited long enough.
        connections.spawn(async move { shared.converse(stream).await });
        while connections.try_join_next().is_some() {}
    }
}

impl Shared {
    async fn converse(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = Vec::with_capacity(8 * 1024);
        loop {
            if buffer.len() > LONGEST_REQUEST || stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            while let Some((request, end)) = parse(&buffer)? {
                buffer.drain(..end);
                let manner = self.take(request)?;
                stream.write_all(manner.answer()).await?;
                if manner == Manner::Cut {
                    return Ok(stream.shutdown().await?);
                }
            }
        }
    }

    fn take(&self, request: Request) -> anyhow::Result<Manner> {
        let manner = self.manners.get(request.receiver);
        let manner = *manner.context("a receiver that there isn't")?;
        let mut log = self.log();
        if log.len() < MOST {
            log.push(request);
        }
        Ok(match self.misbehave.load(Ordering::SeqCst) {
            true => manner,
            false => Manner::Well,
        })
    }

    fn log(&self) -> MutexGuard<'_, Vec<Request>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first request in the buffer, and where it ends with its body; `None` while it isn't whole.
fn parse(buffer: &[u8]) -> anyhow::Result<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(buffer)? else {
        return Ok(None);
    };
    let header = |name: &str| {
        let mut headers = request.headers.iter();
        let found = headers.find(|header| header.name.eq_ignore_ascii_case(name));
        let found = found.with_context(|| format!("a delivery without {name}"))?;
        str::from_utf8(found.value).map_err(|error| anyhow!(error))
    };
    let end = head + header("content-length")?.parse::<usize>()?;
    if buffer.len() < end {
        return Ok(None);
    }
    let began = DateTime::parse_from_rfc3339(header("x-webhook-timestamp")?)?;
    let path = request.path.unwrap_or_default().trim_start_matches('/');
    let request = Request {
        event: header("webhook-id")?.parse()?,
        receiver: path.parse()?,
        began: began.timestamp_millis(),
        arrived: Utc::now(),
    };
    Ok(Some((request, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_found_when_it_is_whole() {
        let bytes =
            b"POST /7 HTTP/1.1\r\nHost: x\r\nX-Webhook-Timestamp: 1970-01-01T00:00:01.234Z\r\n\
            Webhook-Id: 01890a5d-ac96-774b-bcce-b302099a8057\r\nContent-Length: 2\r\n\r\n{}next";
        let end = bytes.len() - 4;
        for part in 0..end {
            assert!(parse(&bytes[..part]).unwrap().is_none(), "{part}");
        }
        let (request, found) = parse(bytes).unwrap().unwrap();
        assert_eq!((request.receiver, request.began, found), (7, 1234, end));
        assert!(parse(b"GET / HTTP/1.1\r\n\r\n").is_err());
    }
}
