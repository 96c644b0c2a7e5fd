//! What a message costs in statements.

use serde_json::json;

use crate::rig::{ANA, NUMBER, Rig, http};

const MESSAGES: usize = 40;

/// The sum of a counter, or the count of a histogram, over its labels.
fn counted(metrics: &str, name: &str) -> f64 {
    let lines = metrics.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
    });
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_message_is_a_commit_a_row_a_delete_and_a_flush() {
    let rig = Rig::start().await;
    let gateway = rig.program().start().await;
    rig.link(NUMBER).await;
    let metrics = async || {
        let url = format!("{}/metrics", gateway.url("OPS_PORT"));
        http().get(url).send().await.unwrap().text().await.unwrap()
    };
    // The first one of a contact makes a session.
    let write = async || {
        rig.send(json!({"to": NUMBER, "from": ANA, "text": "hi"}))
            .await;
        rig.wait_for_acks(NUMBER).await;
    };
    for _ in 0..3 {
        write().await;
    }
    let before = metrics().await;
    for _ in 0..MESSAGES {
        write().await;
    }
    let after = metrics().await;
    let each = |name: &str| (counted(&after, name) - counted(&before, name)) / MESSAGES as f64;
    let commits = each("recado_gateway_commit_seconds_count");
    let rows = each("recado_gateway_bodies_rows_count");
    let flushes = each("recado_gateway_ratchets_rows_count");
    let statements = flushes + each("recado_gateway_store_statements_total");
    assert!((0.99..=1.01).contains(&commits), "{commits} commits");
    assert!((0.99..=1.01).contains(&rows), "{rows} bodies");
    // A flush of sessions gathers what came within 25 ms: one each, when messages come one by one.
    assert!(
        statements <= 1.5,
        "{statements} statements of the store, {flushes} of them flushes:\n{after}"
    );
}
