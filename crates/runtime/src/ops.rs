//! The ops port: `/livez` (the process runs), `/readyz` (it can work, and if not, why not) and
//! `/metrics` (Prometheus). It answers until the process ends, also while it stops.

mod readiness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{App, HttpResponse, HttpServer, Responder, get};
use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use metrics_process::Collector;

use crate::config::OpsConfig;
use crate::shutdown::Shutdown;
pub use readiness::{Readiness, Report, Status};

/// Between two clean-ups of the histograms, which would grow if nobody scraped them.
const UPKEEP: Duration = Duration::from_secs(5);

struct Ops {
    readiness: Readiness,
    metrics: PrometheusHandle,
    process: Collector,
    shutdown: Shutdown,
}

/// Serves the ops port until the hard stop; answers where it listens.
#[expect(
    clippy::unused_async,
    reason = "starts a server, which needs a tokio runtime around it"
)]
pub async fn serve(
    config: OpsConfig,
    readiness: Readiness,
    metrics: PrometheusHandle,
    shutdown: Shutdown,
) -> anyhow::Result<SocketAddr> {
    let process = Collector::default();
    process.describe();
    let hard = shutdown.hard().clone();
    let ops = Arc::new(Ops {
        readiness,
        metrics: metrics.clone(),
        process,
        shutdown,
    });
    let server = HttpServer::new(move || {
        let ops = Data::from(Arc::clone(&ops));
        App::new()
            .app_data(ops)
            .service(livez)
            .service(readyz)
            .service(scrape)
    })
    .workers(1)
    .disable_signals()
    .bind(config.address())
    .with_context(|| format!("the ops port {}", config.address()))?;
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(server);
    tokio::spawn(async move {
        let mut upkeep = tokio::time::interval(UPKEEP);
        loop {
            tokio::select! {
                _ = upkeep.tick() => metrics.run_upkeep(),
                () = hard.cancelled() => break handle.stop(false).await,
            }
        }
    });
    Ok(address)
}

#[get("/livez")]
async fn livez() -> impl Responder {
    HttpResponse::Ok().body("ok\n")
}

#[get("/readyz")]
async fn readyz(ops: Data<Ops>) -> impl Responder {
    let report = match ops.shutdown.soft().is_cancelled() {
        true => Report::stopping(),
        false => ops.readiness.report().await,
    };
    let code = match report.status {
        Status::Ok => StatusCode::OK,
        Status::Unavailable | Status::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    HttpResponse::build(code).json(report)
}

#[get("/metrics")]
async fn scrape(ops: Data<Ops>) -> impl Responder {
    ops.process.collect();
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4")
        .body(ops.metrics.render())
}
