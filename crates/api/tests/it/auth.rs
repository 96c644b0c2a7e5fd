use domain::client::{Client, Token};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::json;

use crate::world::{Answer, Api};

#[tokio::test]
async fn whoever_has_no_good_token_is_told_so_and_nothing_else() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let token = acme.token.expose_secret().to_owned();
    for authorization in [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some(token.clone()),
        Some(format!("Basic {token}")),
        Some("Bearer rcd_unknown".to_owned()),
        Some(format!("Bearer {token} {token}")),
    ] {
        for (method, path) in [
            (Method::GET, "/me"),
            (Method::GET, "/api/webhooks/list"),
            (Method::POST, "/api/webhooks/register"),
            (Method::GET, "/api/webhooks/not-a-uuid"),
            (Method::GET, "/api/no/such/route"),
            (Method::PUT, "/api/webhooks/list"),
        ] {
            let mut request = api.request(method, path).body("{not json");
            if let Some(value) = &authorization {
                request = request.header("Authorization", value);
            }
            let answer = Answer::of(request).await;
            answer.problem(401);
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
}

#[tokio::test]
async fn a_good_token_says_whose_it_is() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let me = json!({"id": acme.id, "name": "acme", "status": "active"});
    assert_eq!(acme.get("/me").await.ok(), me);
    let lower = api.request(Method::GET, "/me").header(
        "authorization",
        format!("bearer {}", acme.token.expose_secret()),
    );
    assert_eq!(Answer::of(lower).await.ok(), me);
}

#[tokio::test]
async fn a_revoked_token_and_a_deactivated_client_are_refused_at_once() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let other = api.tenant("other").await;
    let mut conn = api.conn().await;
    let tokens = Token::list(&mut conn, acme.id).await.unwrap();
    Token::revoke(&mut conn, tokens[0].id).await.unwrap();
    acme.get("/me").await.problem(401);

    other.get("/me").await.ok();
    Client::deactivate(&mut conn, other.id).await.unwrap();
    other.get("/me").await.problem(401);
}

#[tokio::test]
async fn health_needs_no_token() {
    let api = Api::start().await;
    let answer = Answer::of(api.request(Method::GET, "/health")).await;
    assert_eq!(answer.ok(), json!({"status": "ok"}));
    let head = Answer::of(api.request(Method::HEAD, "/health")).await;
    assert_eq!((head.status, head.bytes.len()), (200, 0));
}
