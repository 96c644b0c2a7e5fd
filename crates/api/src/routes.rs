//! Every URL of the API.

use actix_web::dev::Handler;
use actix_web::http::{Method, StatusCode, header};
use actix_web::middleware::from_fn;
use actix_web::web::{self, ServiceConfig};
use actix_web::{FromRequest, Resource, Responder, Route, guard};

use crate::auth::authenticate;
use crate::error::ApiError;
use crate::handlers::{
    clients, connections, dead_letters, events, health, media, pairing, replays, samples, secrets,
    sending, stats, webhooks,
};

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(at("/health", [get(health::show)]))
        .service(at("/me", [get(clients::me)]).wrap(from_fn(authenticate)))
        .service(
            web::scope("/api")
                .wrap(from_fn(authenticate))
                .service(at("/webhooks/register", [post(webhooks::register)]))
                .service(at("/webhooks/list", [get(webhooks::list)]))
                .service(at("/webhooks/events/{event_id}", [get(events::show)]))
                .service(at(
                    "/webhooks/events/{event_id}/retry",
                    [post(events::retry)],
                ))
                .service(at(
                    "/webhooks/{id}",
                    [
                        get(webhooks::show),
                        patch(webhooks::update),
                        delete(webhooks::remove),
                    ],
                ))
                .service(at("/webhooks/{id}/events", [get(events::list)]))
                .service(at("/webhooks/{id}/test", [post(samples::send)]))
                .service(at("/webhooks/{id}/stats", [get(stats::show)]))
                .service(at("/webhooks/{id}/replay", [post(replays::replay)]))
                .service(at(
                    "/webhooks/{id}/dead-letters",
                    [get(dead_letters::list), delete(dead_letters::remove)],
                ))
                .service(at(
                    "/webhooks/{id}/dead-letters/replay",
                    [post(dead_letters::replay)],
                ))
                .service(at("/webhooks/{id}/secret", [get(secrets::show)]))
                .service(at("/webhooks/{id}/secret/rotate", [post(secrets::rotate)]))
                .service(at("/media", [post(media::upload)]))
                .service(at("/media/{media_id}", [get(media::show)]))
                .service(at("/whatsapp/connect", [post(pairing::connect)]))
                .service(at("/whatsapp/qr/{user_id}", [get(pairing::qr)]))
                .service(at("/whatsapp/status/{user_id}", [get(connections::status)]))
                .service(at("/whatsapp/disconnect", [post(connections::disconnect)]))
                .service(at("/whatsapp/logout", [post(connections::logout)]))
                .service(at("/whatsapp/send", [post(sending::send)]))
                .service(at("/whatsapp/connections", [get(connections::list)]))
                .service(at(
                    "/whatsapp/connections/{session_id}",
                    [delete(connections::remove)],
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

macro_rules! methods {
    ($($name:ident => $method:ident, $guard:expr;)+) => {$(
        fn $name<F, Args>(handler: F) -> (Method, Route)
        where
            F: Handler<Args, Output: Responder + 'static>,
            Args: FromRequest + 'static,
        {
            (Method::$method, web::route().guard($guard).to(handler))
        }
    )+};
}

methods! {
    get => GET, guard::Any(guard::Get()).or(guard::Head());
    post => POST, guard::Post();
    patch => PATCH, guard::Patch();
    delete => DELETE, guard::Delete();
}
