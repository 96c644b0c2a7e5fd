//! Files at media hosts: the simulated WhatsApp's, and one that does what no simulator does.

use domain::connection::Connection;
use domain::inbox;
use domain::keyring::Keyring;
use domain::media::File;
use simulator::Simulator;
use testkit::MediaHost;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::world::{self, KEY, NUMBER, Tenant};

/// That of a simulated WhatsApp.
pub(crate) async fn start() -> MediaHost {
    let simulator = Simulator::start(simulator::Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        state: None,
    });
    MediaHost::at(simulator.await.unwrap().address())
}

/// A message with that file arrives; returns its id.
pub(crate) async fn receive(tenant: &Tenant<'_>, file: &File) -> Uuid {
    let connection = tenant.connection(NUMBER).await;
    receive_on(tenant, &connection, file).await
}

/// The same on a connection that is there.
pub(crate) async fn receive_on(tenant: &Tenant<'_>, connection: &Connection, file: &File) -> Uuid {
    let mut message = world::message(connection, "3EB0F11E");
    let keyring = Keyring::parse(KEY).unwrap();
    message.media = Some(file.seal(&keyring, message.id));
    let mut conn = tenant.conn().await;
    inbox::accept(&mut conn, &[&message]).await.unwrap();
    message.id
}

/// Answers with whatever a test writes.
pub(crate) struct RawHost(TcpListener);

impl RawHost {
    pub(crate) async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    /// The next request's head, and the way to answer it.
    pub(crate) async fn next(&self) -> (String, TcpStream) {
        let (mut stream, _) = self.0.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        (String::from_utf8(head).unwrap(), stream)
    }
}

/// The head of an answer with a file.
pub(crate) async fn begin(stream: &mut TcpStream, length: u64) {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
}
