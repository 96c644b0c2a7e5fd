//! Every URL of the API, and what a token needs for it.

use actix_web::dev::Handler;
use actix_web::http::{Method, StatusCode, header};
use actix_web::middleware::from_fn;
use actix_web::web::{self, ServiceConfig};
use actix_web::{FromRequest, Resource, Responder, Route, guard};
use domain::scope::Scope::{self, Connect, Read, Send, Write};

use crate::auth::{authenticate, permit};
use crate::error::ApiError;
use crate::extract::{Bounds, JSON};
use crate::handlers::media::{FILE, take_turn};
use crate::handlers::{
    clients, connections, dead_letters, docs, events, health, media, pairing, replays, samples,
    secrets, sending, stats, stream, webhooks,
};
use crate::once;

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(at("/health", [open(health::show)]))
        .service(at("/openapi.json", [open(docs::description)]))
        .service(at("/docs", [open(docs::page)]))
        .service(at("/docs/{file}", [open(docs::file)]))
        .service(at("/me", [open(clients::me)]).wrap(from_fn(authenticate)))
        .service(
            web::scope("/api")
                .wrap(from_fn(authenticate))
                .service(at("/webhooks/register", [once(Write, webhooks::register)]))
                .service(at("/webhooks/list", [get(Read, webhooks::list)]))
                .service(at("/webhooks/events/{event_id}", [get(Read, events::show)]))
                .service(at(
                    "/webhooks/events/{event_id}/retry",
                    [once(Write, events::retry)],
                ))
                .service(at(
                    "/webhooks/{id}",
                    [
                        get(Read, webhooks::show),
                        patch(Write, webhooks::update),
                        delete(Write, webhooks::remove),
                    ],
                ))
                .service(at("/webhooks/{id}/events", [get(Read, events::list)]))
                .service(at("/webhooks/{id}/test", [once(Write, samples::send)]))
                .service(at("/webhooks/{id}/stats", [get(Read, stats::show)]))
                .service(at("/webhooks/{id}/replay", [once(Write, replays::replay)]))
                .service(at(
                    "/webhooks/{id}/dead-letters",
                    [
                        get(Read, dead_letters::list),
                        delete(Write, dead_letters::remove),
                    ],
                ))
                .service(at(
                    "/webhooks/{id}/dead-letters/replay",
                    [once(Write, dead_letters::replay)],
                ))
                .service(at("/webhooks/{id}/secret", [get(Write, secrets::show)]))
                .service(at(
                    "/webhooks/{id}/secret/rotate",
                    [once(Write, secrets::rotate)],
                ))
                .service(at("/events/stream", [get(Read, stream::follow)]))
                .service(at("/media", [upload(Send, media::upload)]))
                .service(at("/media/{media_id}", [get(Read, media::show)]))
                .service(at("/whatsapp/connect", [once(Connect, pairing::connect)]))
                .service(at("/whatsapp/qr/{user_id}", [get(Connect, pairing::qr)]))
                .service(at(
                    "/whatsapp/status/{user_id}",
                    [get(Read, connections::status)],
                ))
                .service(at(
                    "/whatsapp/disconnect",
                    [once(Connect, connections::disconnect)],
                ))
                .service(at("/whatsapp/logout", [once(Connect, connections::logout)]))
                .service(at("/whatsapp/send", [post(Send, sending::send)]))
                .service(at("/whatsapp/connections", [get(Read, connections::list)]))
                .service(at(
                    "/whatsapp/connections/{session_id}",
                    [delete(Connect, connections::remove)],
                )),
        )
        .default_service(web::to(async || {
            Err::<String, _>(ApiError::not_found("such route"))
        }));
}

/// A path and its methods; any other method is a 405 that lists them.
fn at<const N: usize>(path: &str, methods: [(Method, Route); N]) -> Resource {
    let allowed: Vec<&str> = methods.iter().map(|(method, _)| method.as_str()).collect();
    // What can be read can be asked for its head.
    let allowed = allowed.join(", ").replace("GET", "GET, HEAD");
    let resource = web::resource(path).default_service(web::to(move || {
        let detail = format!("The methods here are: {allowed}.");
        let refused = ApiError::plain(StatusCode::METHOD_NOT_ALLOWED, detail)
            .with(header::ALLOW, allowed.clone());
        async { Err::<String, _>(refused) }
    }));
    methods
        .into_iter()
        .fold(resource, |resource, (_, route)| resource.route(route))
}

/// A GET that any token may, or that needs none.
fn open<F, Args>(handler: F) -> (Method, Route)
where
    F: Handler<Args, Output: Responder + 'static>,
    Args: FromRequest + 'static,
{
    let reads = guard::Any(guard::Get()).or(guard::Head());
    (Method::GET, web::route().guard(reads).to(handler))
}

macro_rules! methods {
    ($($name:ident => $method:ident, $guard:expr $(, $wrapped:expr)?;)+) => {$(
        fn $name<F, Args>(scope: Scope, handler: F) -> (Method, Route)
        where
            F: Handler<Args, Output: Responder + 'static>,
            Args: FromRequest + 'static,
        {
            let route = web::route().guard($guard).to(handler);
            $(let route = $wrapped(route);)?
            let permit = from_fn(move |request, next| permit(scope, request, next));
            (Method::$method, route.wrap(permit))
        }
    )+};
}

methods! {
    get => GET, guard::Any(guard::Get()).or(guard::Head());
    post => POST, guard::Post();
    patch => PATCH, guard::Patch();
    delete => DELETE, guard::Delete();
    // What is done once under an `Idempotency-Key`.
    once => POST, guard::Post(), |route| keyed(route, JSON);
    upload => POST, guard::Post(), |route| keyed(route, FILE).wrap(from_fn(take_turn));
}

fn keyed(route: Route, bounds: Bounds) -> Route {
    route.wrap(from_fn(move |state, request, next| {
        once::once(bounds, state, request, next)
    }))
}
