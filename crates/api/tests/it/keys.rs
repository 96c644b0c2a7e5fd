//! `recado-api keys`, by the real program.

use domain::keyring::Keyring;
use domain::webhook::{Webhook, open_secret};
use secrecy::ExposeSecret;
use serde_json::json;
use testkit::Program;
use testkit::process::Output;

use crate::world::{Api, KEY, NUMBER};

const NEW: &str = "new:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";

async fn keys(api: &Api, command: &str, keys: &str) -> Output {
    Program::new("recado-api")
        .env("DATABASE_URL", api.database.url())
        .env("ENCRYPTION_KEYS", keys)
        .arg("keys")
        .arg(command)
        .run()
        .await
}

fn line<'a>(output: &'a Output, begins: &str) -> Vec<&'a str> {
    let mut lines = output.stdout.lines();
    let line = lines.find(|line| line.starts_with(begins));
    line.unwrap_or_else(|| panic!("{output:?}"))
        .split('\t')
        .collect()
}

#[tokio::test]
async fn secrets_are_sealed_under_a_new_key_while_the_api_serves() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    let webhook = acme.webhook(NUMBER).await;
    let path = format!("/api/webhooks/{webhook}");
    let headers = json!({"custom_headers": {"X-Token": "hunter2"}});
    acme.patch(&path, headers).await.ok();
    let secret = acme.get(&format!("{path}/secret")).await.ok();

    let both = format!("{NEW},{KEY}");
    let status = keys(&api, "status", &both).await;
    let secrets = "whatsapp_webhooks\tsecret\t";
    assert_eq!(line(&status, secrets)[2..], ["test", "1", "older"]);

    // Without the key that sealed them nothing is done, and the row is named.
    let refused = keys(&api, "rotate", NEW).await;
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(
        line(&refused, secrets)[2..],
        ["0 sealed anew", "1 failed", "0 left"]
    );
    let named =
        format!("recado-api: whatsapp_webhooks.secret of {webhook}: sealed under the key \"test\"");
    assert!(
        refused.stderr.lines().any(|line| line.starts_with(&named)),
        "{}",
        refused.stderr
    );

    for sealed_anew in ["1 sealed anew", "0 sealed anew"] {
        let rotated = keys(&api, "rotate", &both).await;
        assert!(rotated.status.success(), "{}", rotated.stderr);
        assert_eq!(rotated.stderr, "");
        for column in ["secret", "custom_headers"] {
            let told = line(&rotated, &format!("whatsapp_webhooks\t{column}\t"))[2..].to_vec();
            assert_eq!(told, [sealed_anew, "0 failed", "0 left"]);
        }
        assert_eq!(line(&rotated, "protocol_sessions\t")[2], "0 sealed anew");
    }
    let status = keys(&api, "status", &both).await;
    assert_eq!(line(&status, secrets)[2..], ["new", "1", "newest"]);
    let status = keys(&api, "status", KEY).await;
    assert_eq!(
        line(&status, secrets)[2..],
        ["new", "1", "not in ENCRYPTION_KEYS"]
    );

    let row = Webhook::find(&mut *acme.conn().await, acme.id, webhook)
        .await
        .unwrap()
        .unwrap();
    let opened = open_secret(&Keyring::parse(NEW).unwrap(), webhook, &row.secret).unwrap();
    assert_eq!(secret["secret"], opened.expose_secret());
}

#[tokio::test]
async fn keys_that_cannot_be_read_are_a_wrong_configuration() {
    let api = Api::start().await;
    let refused = keys(&api, "rotate", "nonsense").await;
    assert_eq!(
        (refused.status.code(), refused.stdout.as_str()),
        (Some(64), "")
    );
    assert!(refused.stderr.contains("ENCRYPTION_KEYS") && !refused.stderr.contains("nonsense"));
}
