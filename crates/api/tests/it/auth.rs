use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::client::{Client, NewToken, Token};
use domain::scope::Scope;
use domain::token;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::described;
use crate::world::{Answer, Api, Tenant};

/// Every route that needs a scope, by the description, asked for what isn't there.
fn guarded() -> Vec<(Method, String, Scope)> {
    let document = api::openapi::document();
    let operations = described::operations(&document);
    let guarded = operations.filter(|(path, ..)| path.starts_with("/api/"));
    let guarded = guarded.map(|(path, method, operation)| {
        let scope = &operation["security"][0]["bearer"][0];
        let parts = path.split('/').map(|part| match part.starts_with('{') {
            true => "019ac1b2-7c00-8e1f-9d3a-5b6c7d8e9f00",
            false => part,
        });
        let path = parts.collect::<Vec<_>>().join("/");
        let method = method.to_uppercase().parse().unwrap();
        (method, path, scope.as_str().unwrap().parse().unwrap())
    });
    guarded.collect()
}

/// Another token of the tenant.
async fn another(
    tenant: &Tenant<'_>,
    scopes: &[Scope],
    expires_at: Option<DateTime<Utc>>,
) -> (SecretString, Token) {
    let token = token::new_api_token();
    let new = NewToken {
        scopes,
        expires_at,
        ..NewToken::of(tenant.id, "another", &token)
    };
    let mut conn = tenant.conn().await;
    let row = Token::insert(&mut conn, &new).await.unwrap();
    (token, row)
}

#[tokio::test]
async fn a_token_opens_the_routes_of_its_scopes_and_no_other() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let guarded = guarded();
    assert!(guarded.len() >= 26);
    for scope in Scope::ALL {
        let (token, _) = another(&acme, &[scope], None).await;
        let ask = async |method: Method, path: &str| {
            let request = api.request(method, path);
            Answer::of(request.bearer_auth(token.expose_secret())).await
        };
        ask(Method::GET, "/me").await.ok();
        for (method, path, needed) in &guarded {
            let answer = ask(method.clone(), path).await;
            if *needed == scope {
                assert!(![401, 403].contains(&answer.status), "{method} {path}");
                continue;
            }
            let problem = answer.problem(403);
            let detail = problem["detail"].as_str().unwrap();
            assert!(
                detail.contains(needed.as_str()),
                "{method} {path}: {detail}"
            );
            let challenge = answer.header("www-authenticate");
            let expected = format!(r#"Bearer error="insufficient_scope", scope="{needed}""#);
            assert_eq!(challenge, expected);
        }
    }
}

#[tokio::test]
async fn a_token_ends_by_itself_and_its_use_is_noted_to_the_minute() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let me = async |token: &SecretString| {
        let request = api.request(Method::GET, "/me");
        Answer::of(request.bearer_auth(token.expose_secret())).await
    };
    let hour = Duration::from_secs(3600);
    let (over, _) = another(&acme, &Scope::ALL, Some(Utc::now() - hour)).await;
    me(&over).await.problem(401);

    let (good, row) = another(&acme, &Scope::ALL, Some(Utc::now() + hour)).await;
    assert_eq!(row.last_used_at, None);
    let used = async || {
        me(&good).await.ok();
        let mut conn = api.conn().await;
        let tokens = Token::list(&mut conn, acme.id).await.unwrap();
        let found = tokens.into_iter().find(|token| token.id == row.id);
        found.unwrap().last_used_at.unwrap()
    };
    let first = used().await;
    assert!(Utc::now() - first < chrono::TimeDelta::minutes(1));
    assert_eq!(used().await, first);
}

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
    let second = Api::start_with(&[
        ("DATABASE_URL", api.database.url()),
        ("REDIS_URL", api.redis.url()),
    ])
    .await;
    let at_second = async || {
        let request = second.request(Method::GET, "/me");
        Answer::of(request.bearer_auth(acme.token.expose_secret())).await
    };
    at_second().await.ok();
    let tokens = Token::list(&mut conn, acme.id).await.unwrap();
    Token::revoke(&mut conn, tokens[0].id).await.unwrap();
    acme.get("/me").await.problem(401);
    at_second().await.problem(401);

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
