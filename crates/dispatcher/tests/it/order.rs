use std::collections::HashMap;

use domain::webhook::Changes;
use testkit::Answer;
use uuid::Uuid;

use crate::world::World;

fn ordered() -> Changes {
    Changes {
        ordered: Some(true),
        max_retries: Some(2),
        ..Changes::default()
    }
}

/// The numbers that were received of each chat, in order.
fn received(world: &World, path: &str) -> HashMap<String, Vec<u64>> {
    let mut chats: HashMap<String, Vec<u64>> = HashMap::new();
    for request in world.receiver.received_at(path) {
        let body = request.json();
        let content = body["content"].as_str().unwrap_or_default().to_owned();
        let (chat, number) = content.split_once(' ').unwrap();
        chats
            .entry(chat.to_owned())
            .or_default()
            .push(number.parse().unwrap());
    }
    chats
}

#[tokio::test]
async fn each_chat_is_received_in_the_order_of_its_commits_from_two_dispatchers() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    world.change(&hook, &ordered()).await;
    let (one, two) = (world.dispatcher().await, world.dispatcher().await);
    let mut ids: Vec<Uuid> = Vec::new();
    for number in 0..30 {
        for chat in ["anna", "bruno", "clara"] {
            ids.extend(world.write(&hook, chat, &format!("{chat} {number}")).await);
        }
    }
    world.all(&ids, "delivered").await;
    let chats = received(&world, "/in");
    for chat in ["anna", "bruno", "clara"] {
        assert_eq!(chats[chat], (0..30).collect::<Vec<u64>>(), "{chat}");
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_chat_whose_first_event_fails_waits_and_the_others_go_on() {
    let world = World::new().await;
    let hook = world.hook("/in").await;
    world.change(&hook, &ordered()).await;
    world
        .receiver
        .answers("/in", [Answer::status(500), Answer::ok()]);
    let running = world.dispatcher().await;
    let first = world.write(&hook, "anna", "anna 0").await;
    world.attempted(first[0], 1).await;
    let second = world.write(&hook, "anna", "anna 1").await;
    let other = world.write(&hook, "bruno", "bruno 0").await;
    world.all(&other, "delivered").await;
    world.make_due(&second).await;
    // The poller looks at it, and puts it aside.
    world.parked(second[0], "order").await;
    assert_eq!(received(&world, "/in")["anna"], [0]);

    // Its last attempt fails too, and then the next one's turn has come.
    world
        .receiver
        .answers("/in", [Answer::status(500), Answer::ok()]);
    world.make_due(&first).await;
    world.all(&second, "delivered").await;
    assert_eq!(world.event(first[0]).await.status, "failed");
    assert_eq!(received(&world, "/in")["anna"], [0, 0, 1]);
    running.stop().await;
}
