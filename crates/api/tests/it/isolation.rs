//! A client sees its own things only, also when two have linked the same number.

use std::collections::BTreeSet;

use domain::connection::Connection;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::described;
use crate::gateway::Gateway;
use crate::media::file;
use crate::media_host::receive_on;
use crate::world::{Answer, Api, NUMBER, Tenant, id};

/// What one client has, to be asked for by another.
#[derive(Clone, Copy)]
struct Ids {
    webhook: Uuid,
    event: Uuid,
    user: Uuid,
    session: Uuid,
    media: Uuid,
}

/// Every call that takes an id: its method, its route, and its body.
fn calls(ids: Ids) -> Vec<(Method, &'static str, Option<Value>)> {
    let user = Some(json!({"user_id": ids.user}));
    vec![
        (Method::GET, "/api/webhooks/{id}", None),
        (
            Method::PATCH,
            "/api/webhooks/{id}",
            Some(json!({"max_retries": 1})),
        ),
        (Method::DELETE, "/api/webhooks/{id}", None),
        (Method::GET, "/api/webhooks/{id}/events", None),
        (Method::POST, "/api/webhooks/{id}/test", None),
        (Method::GET, "/api/webhooks/{id}/stats", None),
        (Method::POST, "/api/webhooks/{id}/replay", None),
        (Method::GET, "/api/webhooks/{id}/dead-letters", None),
        (Method::DELETE, "/api/webhooks/{id}/dead-letters", None),
        (Method::POST, "/api/webhooks/{id}/dead-letters/replay", None),
        (Method::GET, "/api/webhooks/{id}/secret", None),
        (Method::POST, "/api/webhooks/{id}/secret/rotate", None),
        (Method::GET, "/api/webhooks/events/{event_id}", None),
        (Method::POST, "/api/webhooks/events/{event_id}/retry", None),
        (Method::GET, "/api/media/{media_id}", None),
        (Method::GET, "/api/whatsapp/status/{user_id}", None),
        (Method::GET, "/api/whatsapp/qr/{user_id}", None),
        (
            Method::DELETE,
            "/api/whatsapp/connections/{session_id}",
            None,
        ),
        (Method::POST, "/api/whatsapp/disconnect", user.clone()),
        (Method::POST, "/api/whatsapp/logout", user),
        (
            Method::POST,
            "/api/whatsapp/send",
            Some(json!({"user_id": ids.user, "to": "5511911112222", "text": "x"})),
        ),
    ]
}

impl Ids {
    fn unknown() -> Self {
        let [webhook, event, user, session, media] = [(); 5].map(|()| Uuid::new_v4());
        Self {
            webhook,
            event,
            user,
            session,
            media,
        }
    }

    fn path(self, route: &str) -> String {
        route
            .replace("{id}", &self.webhook.to_string())
            .replace("{event_id}", &self.event.to_string())
            .replace("{media_id}", &self.media.to_string())
            .replace("{user_id}", &self.user.to_string())
            .replace("{session_id}", &self.session.to_string())
    }
}

/// A webhook with an event, and a session with a code.
async fn equip(tenant: &Tenant<'_>) -> Ids {
    let webhook = tenant.webhook(NUMBER).await;
    let user = Uuid::new_v4();
    let connect = json!({"user_id": user, "phone_number": NUMBER});
    let session = id(&tenant.post("/api/whatsapp/connect", connect).await.ok()["session_id"]);
    let mut conn = tenant.conn().await;
    let connection = Connection::find(&mut conn, session).await.unwrap().unwrap();
    let event = tenant.receive(&connection, &["3EB0"]).await[0];
    Ids {
        webhook,
        event,
        user,
        session,
        media: Uuid::new_v4(),
    }
}

#[tokio::test]
async fn another_clients_ids_are_not_there_on_any_route() {
    let api = Api::start().await;
    let (acme, other) = (api.tenant("acme").await, api.tenant("other").await);
    let gateway = Gateway::start(&api);
    let mut ids = equip(&acme).await;
    equip(&other).await;
    drop(gateway);
    let connection = Connection::find(&mut *api.conn().await, ids.session).await;
    ids.media = receive_on(&acme, &connection.unwrap().unwrap(), &file(1)).await;
    let snapshot = async || {
        let mut all = Vec::new();
        for (method, route, _) in calls(ids) {
            // The statistics tell the time, and so are others at each call.
            if method == Method::GET && !route.ends_with("/stats") {
                all.push(acme.get(&ids.path(route)).await.bytes);
            }
        }
        all
    };
    let before = snapshot().await;

    let unknown = Ids::unknown();
    for ((method, route, body), (_, _, unknown_body)) in calls(ids).into_iter().zip(calls(unknown))
    {
        let ask = async |path: String, body: Option<Value>| {
            let request = other.request(method.clone(), &path);
            let request = match &body {
                Some(body) => request.json(body),
                None => request,
            };
            Answer::of(request).await.problem(404)
        };
        let foreign = ask(ids.path(route), body).await;
        assert_eq!(
            foreign,
            ask(unknown.path(route), unknown_body).await,
            "{route}"
        );
    }
    assert_eq!(
        snapshot().await,
        before,
        "nothing was changed by the attempts"
    );
}

#[test]
fn every_route_with_an_id_is_tried() {
    let document = api::openapi::document();
    let routes: BTreeSet<String> = described::operations(&document)
        .map(|(path, ..)| path.to_owned())
        .filter(|path| path.contains('{'))
        .collect();
    let tried: BTreeSet<String> = calls(Ids::unknown())
        .into_iter()
        .map(|(_, route, _)| route.to_owned())
        .filter(|route| route.contains('{'))
        .collect();
    assert_eq!(routes, tried);
}

#[tokio::test]
async fn two_clients_with_one_number_each_see_their_own_messages_only() {
    let api = Api::start().await;
    let (acme, other) = (api.tenant("acme").await, api.tenant("other").await);
    let _gateway = Gateway::start(&api);
    let (ours, theirs) = (equip(&acme).await, equip(&other).await);
    assert_ne!(ours.event, theirs.event);

    for (tenant, ids) in [(&acme, ours), (&other, theirs)] {
        let webhooks = tenant.get("/api/webhooks/list").await.ok();
        assert_eq!(webhooks["count"], 1);
        assert_eq!(id(&webhooks["webhooks"][0]["id"]), ids.webhook);
        let connections = tenant.get("/api/whatsapp/connections").await.ok();
        assert_eq!(connections["count"], 1);
        assert_eq!(
            id(&connections["connections"][0]["session_id"]),
            ids.session
        );
        let events = tenant
            .get(&format!("/api/webhooks/{}/events", ids.webhook))
            .await
            .ok();
        assert_eq!(
            (&events["total"], id(&events["events"][0]["id"])),
            (&json!(1), ids.event)
        );
        let event = tenant
            .get(&format!("/api/webhooks/events/{}", ids.event))
            .await
            .ok();
        assert_eq!(event["event"]["payload"]["client_id"], tenant.id);
    }
}
