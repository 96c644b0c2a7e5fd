//! `recado-api verify`, by the real program.

use diesel_async::SimpleAsyncConnection;
use domain::verify::Rule;
use serde_json::{Value, json};

use crate::admin::{lines, run};
use crate::dispatcher::fail;
use crate::world::{Api, NUMBER};

#[tokio::test]
async fn a_kept_promise_is_a_line_for_each_rule_and_a_broken_one_is_named_and_exit_1() {
    let api = Api::start().await;
    let acme = api.tenant("acme").await;
    acme.webhook(NUMBER).await;
    let connection = acme.connection(NUMBER).await;
    let events = acme.receive(&connection, &["A", "B"]).await;
    fail(&api, events[0]).await;
    let url = api.database.url();

    let kept = lines(url, &["verify"]).await;
    let rules: Vec<&str> = kept.iter().map(|line| line[1].as_str()).collect();
    assert_eq!(rules, Rule::ALL.map(Rule::as_str));
    assert!(kept.iter().all(|line| line[0] == "ok"), "{kept:?}");
    assert_eq!(kept[0][2..4], ["2 checked", "0 violations"]);

    // A warning is told, and breaks nothing.
    let late = "UPDATE whatsapp_webhook_events SET next_retry_at = now() - interval '1 hour'
         WHERE status = 'pending'";
    api.conn().await.batch_execute(late).await.unwrap();
    let warned = lines(url, &["verify"]).await;
    let due = warned.last().unwrap();
    assert_eq!((due[0].as_str(), due[1].as_str()), ("warning", "due"));
    assert!(
        due[3].starts_with("1 violations, the oldest for 36"),
        "{due:?}"
    );
    assert_eq!(due[5], events[1].to_string());

    let lost = "DELETE FROM whatsapp_dead_letters";
    api.conn().await.batch_execute(lost).await.unwrap();
    let broken = run(url, &["verify"]).await;
    assert_eq!(
        (broken.status.code(), broken.stderr.as_str()),
        (Some(1), "")
    );
    let named = broken
        .stdout
        .lines()
        .find(|line| line.starts_with("broken\t"))
        .unwrap();
    assert!(
        named.contains("\tsettled\t") && named.ends_with(&events[0].to_string()),
        "{named}"
    );

    let broken = run(url, &["verify", "--json"]).await;
    assert_eq!(broken.status.code(), Some(1));
    let answer: Value = serde_json::from_str(&broken.stdout).unwrap();
    assert_eq!(answer["ok"], false);
    let settled = &answer["rules"][1];
    assert_eq!(
        (&settled["rule"], &settled["verdict"], &settled["ids"]),
        (&json!("settled"), &json!("broken"), &json!([events[0]]))
    );
}
