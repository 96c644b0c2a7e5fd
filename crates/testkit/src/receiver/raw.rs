//! A receiver that breaks rules below those of HTTP: what it does with a connection is a list of steps.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

/// A head that is longer is no request of ours.
const LONGEST_HEAD: usize = 64 * 1024;

/// One thing to do with a connection. After the last of them it is closed.
#[derive(Debug, Clone)]
pub enum Step {
    /// Reads a whole request.
    Read,
    Send(Vec<u8>),
    /// Sends a byte after each pause.
    Drip(Vec<u8>, Duration),
    /// Sends it again and again until the client is gone.
    Endless(Vec<u8>),
    /// Reads and says nothing until the client is gone.
    Listen,
    /// Doesn't even read.
    Hold,
    /// Closes the connection by a reset.
    Reset,
}

impl Step {
    pub fn send(bytes: impl AsRef<[u8]>) -> Self {
        Self::Send(bytes.as_ref().to_vec())
    }

    pub fn drip(bytes: impl AsRef<[u8]>, pause: Duration) -> Self {
        Self::Drip(bytes.as_ref().to_vec(), pause)
    }

    pub fn endless(bytes: impl AsRef<[u8]>) -> Self {
        Self::Endless(bytes.as_ref().to_vec())
    }
}

/// A receiver in this process. It stops with this value.
#[derive(Debug)]
pub struct RawReceiver {
    address: SocketAddr,
    counts: Arc<Counts>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicUsize,
    open: AtomicUsize,
    sent: AtomicU64,
}

impl RawReceiver {
    /// Listens on a free port of 127.0.0.1 and does these steps with every connection.
    pub async fn start(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::listen(steps, async |stream| Ok(stream)).await
    }

    /// The same behind TLS, with a certificate that nobody has reason to trust.
    pub async fn start_self_signed(steps: impl IntoIterator<Item = Step>) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(self_signed()));
        Self::listen(steps, move |stream| acceptor.accept(stream)).await
    }

    async fn listen<S, F>(
        steps: impl IntoIterator<Item = Step>,
        open: impl Fn(TcpStream) -> F + Clone + Send + 'static,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        F: Future<Output = io::Result<S>> + Send + 'static,
    {
        let steps: Arc<[Step]> = steps.into_iter().collect();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                if matches!(steps.last(), Some(Step::Reset)) {
                    let _ = stream.set_zero_linger();
                }
                let (steps, counts, open) = (Arc::clone(&steps), Arc::clone(&shared), open.clone());
                connections.spawn(async move {
                    counts.open.fetch_add(1, Ordering::SeqCst);
                    // An error is a client that has gone, as most do.
                    if let Ok(mut stream) = open(stream).await {
                        let _ = counts.play(&steps, &mut stream).await;
                    }
                    counts.open.fetch_sub(1, Ordering::SeqCst);
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            counts,
            task: task.abort_handle(),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http` or `https`, whichever the client is to speak.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/in", self.address)
    }

    /// Whole requests that were read.
    pub fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }

    /// Connections that neither side has closed.
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::SeqCst)
    }

    /// Bytes that the system took from us, over all connections.
    pub fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::SeqCst)
    }
}

impl Drop for RawReceiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Counts {
    async fn play<S>(&self, steps: &[Step], stream: &mut S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        for step in steps {
            match step {
                Step::Read => {
                    read_request(stream).await?;
                    self.requests.fetch_add(1, Ordering::SeqCst);
                }
                Step::Send(bytes) => self.send(stream, bytes).await?,
                Step::Drip(bytes, pause) => {
                    for byte in bytes {
                        sleep(*pause).await;
                        self.send(stream, &[*byte]).await?;
                    }
                }
                Step::Endless(bytes) => loop {
                    self.send(stream, bytes).await?;
                },
                Step::Listen => while stream.read(&mut [0; 1024]).await? > 0 {},
                Step::Hold => std::future::pending().await,
                Step::Reset => return Ok(()),
            }
        }
        stream.shutdown().await
    }

    async fn send<S: AsyncWrite + Unpin>(&self, stream: &mut S, bytes: &[u8]) -> io::Result<()> {
        stream.write_all(bytes).await?;
        stream.flush().await?;
        self.sent.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        Ok(())
    }
}

/// Reads as much as a request with a `Content-Length` has.
async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<()> {
    let mut read = Vec::new();
    loop {
        if let Some(length) = request_length(&read)
            && read.len() >= length
        {
            return Ok(());
        }
        if read.len() > LONGEST_HEAD + (16 << 20) || stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Head and body, once the head is there.
fn request_length(read: &[u8]) -> Option<usize> {
    let end = read.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
    let mut lines = head.lines();
    let body = lines.find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    Some(end + body.unwrap_or(0))
}

fn self_signed() -> ServerConfig {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]);
    let made = made.expect("a certificate for an address");
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.into()], PrivateKeyDer::Pkcs8(key))
        .expect("a certificate with its key")
}
