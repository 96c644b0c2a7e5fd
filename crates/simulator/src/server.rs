//! The port: WebSocket and control API together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt, web};
use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;

mod media;
mod tls;

pub(crate) use tls::TlsIdentity;

use crate::faults::{Fate, Step};
use crate::world::World;
use crate::{admin, connection};

/// After this even a server that says nothing hangs up.
const SILENCE: Duration = Duration::from_secs(600);
/// The biggest frame of the protocol.
const MAX_FRAME: usize = 16 << 20;

pub struct Config {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Folder for what outlives a restart; `None` keeps everything in memory.
    pub state: Option<PathBuf>,
}

/// A running simulator. It goes on serving until it is stopped.
pub struct Simulator {
    address: SocketAddr,
    world: Arc<World>,
    server: ServerHandle,
    stopped: CancellationToken,
}

impl Simulator {
    /// Starts serving; must be called within a tokio runtime. Fails when the port is taken or
    /// the state can't be used.
    pub async fn start(config: Config) -> Result<Self> {
        let listen = config.listen;
        let listener = std::net::TcpListener::bind(listen)
            .with_context(|| format!("cannot listen on {listen}"))?;
        let address = listener.local_addr()?;
        let world = tokio::task::spawn_blocking(move || World::open(config.state.as_deref()));
        let world = Arc::new(world.await??);
        let shared = web::Data::from(world.clone());
        let server = HttpServer::new(move || {
            App::new()
                .app_data(shared.clone())
                .route("/ws/chat", web::get().to(chat))
                .configure(media::routes)
                .configure(admin::routes)
        })
        .disable_signals()
        .shutdown_timeout(1)
        .listen(listener)?
        .run();
        let handle = server.handle();
        tokio::spawn(server);
        Ok(Self {
            address,
            world,
            server: handle,
            stopped: CancellationToken::new(),
        })
    }

    /// Serves the same behind TLS too, at the address that it answers; port 0 takes a free one.
    pub async fn listen_tls(&self, listen: SocketAddr) -> Result<SocketAddr> {
        let identity = self.world.tls_identity()?;
        tls::serve(&identity, listen, self.address, self.stopped.clone()).await
    }

    /// The certificate that [`listen_tls`](Self::listen_tls) shows, as PEM.
    pub fn certificate(&self) -> Result<String> {
        Ok(self.world.tls_identity()?.pem())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resolves, with the reason, if the state can't be written any more.
    pub async fn failed(&self) -> String {
        self.world.journal.failed().await
    }

    /// Hangs up on everyone, writes what is left and gives port and folder free.
    pub async fn stop(self) {
        self.stopped.cancel();
        for account in self.world.accounts() {
            for device in account.devices() {
                if let Some(outlet) = &device.lock().outlet {
                    outlet.close();
                }
            }
        }
        self.server.stop(true).await;
        let world = self.world;
        // The writer finishes its queue first, which takes as long as the disk does.
        let _ = tokio::task::spawn_blocking(move || world.journal.close()).await;
    }
}

async fn chat(
    request: HttpRequest,
    body: web::Payload,
    world: web::Data<World>,
) -> actix_web::Result<HttpResponse> {
    if world.faults.of(None).refuse_connections {
        world.stats.connections_refused.add();
        return Ok(HttpResponse::ServiceUnavailable().finish());
    }
    match world.fate(None, Step::Upgrade) {
        Fate::GoesOn => {}
        Fate::Closed => {
            let error = std::io::Error::other("closed, as was wished");
            let torn = futures_util::stream::once(async { Err::<web::Bytes, _>(error) });
            return Ok(HttpResponse::Ok().streaming(torn));
        }
        Fate::Silent => {
            tokio::time::sleep(SILENCE).await;
            return Ok(HttpResponse::ServiceUnavailable().finish());
        }
    }
    let (response, socket, messages) = actix_ws::handle(&request, body)?;
    let messages = messages
        .max_frame_size(MAX_FRAME)
        .aggregate_continuations()
        .max_continuation_size(MAX_FRAME);
    let host = request.connection_info().host().to_owned();
    rt::spawn(connection::serve(
        world.into_inner(),
        host,
        socket,
        messages,
    ));
    Ok(response)
}
