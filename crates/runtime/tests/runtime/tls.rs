//! `sslmode` against a server that offers TLS: whose certificate is believed.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use runtime::config::DatabaseConfig;
use runtime::postgres;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// An authority, and a certificate that it gave to `host`.
struct Certified {
    authority: String,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn certified(host: &str) -> Certified {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let host = CertificateParams::new([host.to_owned()]).unwrap();
    let certificate = host.signed_by(&key, &authority).unwrap();
    Certified {
        authority: pem(authority.der()),
        certificate: certificate.der().clone(),
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    }
}

fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

/// Whether a client with this `sslmode` goes on after it has seen the certificate.
async fn believes(server: &Certified, query: &str) -> bool {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![server.certificate.clone()], server.key.clone_key())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // PostgreSQL's way: the client asks for TLS, S is yes.
        stream.read_exact(&mut [0; 8]).await.unwrap();
        stream.write_all(b"S").await.unwrap();
        let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await else {
            return false;
        };
        // The start-up message comes only from a client that is content.
        matches!(stream.read(&mut [0; 8]).await, Ok(read) if read > 0)
    });
    let config = DatabaseConfig::from_url(&format!("postgres://u@127.0.0.1:{port}/d?{query}"));
    let connected = postgres::connect(&config.unwrap()).await;
    assert!(connected.is_err(), "that server speaks no further");
    served.await.unwrap()
}

fn root(folder: &Path, certified: &Certified) -> String {
    let path = folder.join("ca.pem");
    fs::write(&path, &certified.authority).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn require_and_prefer_encrypt_and_believe_anyone() {
    let server = certified("elsewhere.example");
    assert!(believes(&server, "sslmode=require").await);
    assert!(believes(&server, "sslmode=prefer").await);
}

#[tokio::test]
async fn verify_ca_wants_the_authority_and_no_name() {
    let (server, other) = (certified("elsewhere.example"), certified("127.0.0.1"));
    let folder = tempfile::tempdir().unwrap();
    let ca = root(folder.path(), &server);
    assert!(believes(&server, &format!("sslmode=verify-ca&sslrootcert={ca}")).await);
    assert!(believes(&server, &format!("sslmode=require&sslrootcert={ca}")).await);
    assert!(!believes(&other, &format!("sslmode=verify-ca&sslrootcert={ca}")).await);
    assert!(
        !believes(&server, "sslmode=verify-ca").await,
        "none of the built-in roots"
    );
}

#[tokio::test]
async fn verify_full_wants_the_authority_and_the_name() {
    let (here, elsewhere) = (certified("127.0.0.1"), certified("elsewhere.example"));
    let folder = tempfile::tempdir().unwrap();
    let ca = root(folder.path(), &here);
    assert!(believes(&here, &format!("sslmode=verify-full&sslrootcert={ca}")).await);
    let ca = root(folder.path(), &elsewhere);
    assert!(!believes(&elsewhere, &format!("sslmode=verify-full&sslrootcert={ca}")).await);
    assert!(
        !believes(&here, "sslmode=verify-full").await,
        "none of the built-in roots"
    );
}

#[tokio::test]
async fn a_root_certificate_that_cannot_be_read_is_named() {
    let url = "postgres://u@127.0.0.1:1/d?sslmode=verify-full&sslrootcert=/no/such.pem";
    let error = postgres::connect(&DatabaseConfig::from_url(url).unwrap())
        .await
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("sslrootcert: /no/such.pem"),
        "{error}"
    );
}
