//! The same service behind TLS, with a certificate of the simulator's own.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::base64_bytes;

/// So many connections at a time.
const MAX_CONNECTIONS: usize = 20_000;

/// Clients are told to trust it, so it outlives a restart.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct TlsIdentity {
    #[serde(with = "base64_bytes")]
    certificate: Vec<u8>,
    #[serde(with = "base64_bytes")]
    key: Vec<u8>,
}

impl TlsIdentity {
    pub(crate) fn generate() -> Result<Self> {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names)?;
        Ok(Self {
            certificate: made.cert.der().to_vec(),
            key: made.signing_key.serialize_der(),
        })
    }

    /// The certificate, for those who shall trust it.
    pub(crate) fn pem(&self) -> String {
        let text = BASE64_STANDARD.encode(&self.certificate);
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        for line in text.as_bytes().chunks(64) {
            pem.extend(line.iter().map(|byte| char::from(*byte)));
            pem.push('\n');
        }
        pem + "-----END CERTIFICATE-----\n"
    }

    fn acceptor(&self) -> Result<TlsAcceptor> {
        let key = PrivatePkcs8KeyDer::from(self.key.clone());
        let certificate = CertificateDer::from(self.certificate.clone());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key))?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// Takes TLS off and hands on to the plain port, until it is cancelled. The address.
pub(super) async fn serve(
    identity: &TlsIdentity,
    listen: SocketAddr,
    plain: SocketAddr,
    stopped: CancellationToken,
) -> Result<SocketAddr> {
    let acceptor = identity.acceptor()?;
    let listener = TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopped.cancelled() => return,
            };
            let Ok((socket, _)) = accepted else {
                continue;
            };
            let Ok(place) = room.clone().try_acquire_owned() else {
                continue;
            };
            let (acceptor, stopped) = (acceptor.clone(), stopped.clone());
            tokio::spawn(async move {
                tokio::select! {
                    result = hand_on(acceptor, socket, plain) => {
                        if let Err(error) = result {
                            tracing::debug!("a TLS connection ended: {error:#}");
                        }
                    }
                    () = stopped.cancelled() => {}
                }
                drop(place);
            });
        }
    });
    Ok(address)
}

async fn hand_on(acceptor: TlsAcceptor, socket: TcpStream, plain: SocketAddr) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut outer = acceptor.accept(socket).await?;
    let mut inner = TcpStream::connect(plain).await?;
    inner.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut outer, &mut inner).await?;
    Ok(())
}
