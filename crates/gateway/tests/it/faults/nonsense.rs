//! What no sane server says.

use serde_json::json;

use super::scene::{Scene, no_more_tasks_than, tasks};
use crate::rig::NUMBER;

async fn inject(scene: &Scene, kind: &str) {
    let path = format!("/admin/accounts/{NUMBER}/inject");
    let answer = scene
        .rig
        .post(&path, json!({"kind": kind}).to_string())
        .await;
    assert_eq!(answer["connections"], 1, "{kind}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_after_nonsense_and_no_other_notices() {
    // After a frame under another key nothing can be read any more, which is a silence.
    let scene = Scene::with_silence(8).await;
    scene.is_back().await;
    let tasks = tasks();
    for kind in [
        "malformed_stanza",
        "unknown_stanza",
        "incomplete_stanzas",
        "garbage_enc",
        "empty_message",
        "wrong_key",
        "truncated_frame",
    ] {
        inject(&scene, kind).await;
        scene.is_back().await;
    }
    let rows = scene.rig.rows().await;
    let odd = rows
        .iter()
        .find(|row| !matches!(&*row.event_type, "message" | "message.undecryptable"));
    assert_eq!(odd, None);
    // One of the messages of noise is of a kind that is none.
    let riddles = rows
        .iter()
        .filter(|row| row.metadata["reason"] == "unknown_encryption");
    assert_eq!(riddles.count(), 1);
    // A few of the library's caches and timers may be new; seven connections' worth is not.
    no_more_tasks_than(tasks + 5).await;
    scene.end().await;
}
