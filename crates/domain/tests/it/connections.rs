use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use domain::client::Client;
use domain::connection::{Code, ConnectError, Connection, Desired, Pairing, Status};
use domain::phone::Phone;
use domain::schema::whatsapp_webhook_events as events;
use uuid::Uuid;

use crate::world::{NUMBER, World, lease, register};

fn number() -> Phone {
    NUMBER.parse().unwrap()
}

#[tokio::test]
async fn a_number_is_live_under_one_user_of_a_client_at_a_time() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let other_user = Uuid::new_v4();
    let taken = Connection::connect(
        &mut conn,
        world.client.id,
        other_user,
        &number(),
        Pairing::Qr,
    )
    .await;
    assert!(matches!(taken, Err(ConnectError::NumberTaken)));

    let other_client = Client::insert(&mut conn, "other").await.unwrap().id;
    Connection::connect(&mut conn, other_client, other_user, &number(), Pairing::Qr)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_connected_session_is_not_connected_again_and_a_lost_one_is() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let (client, user, id) = (
        world.client.id,
        world.connection.user_id,
        world.connection.id,
    );
    Connection::transition(&mut conn, lease(id), Status::Connected, None)
        .await
        .unwrap();
    let again = Connection::connect(&mut conn, client, user, &number(), Pairing::Qr).await;
    assert!(matches!(again, Err(ConnectError::AlreadyConnected)));

    Connection::transition(&mut conn, lease(id), Status::Disconnected, Some("replaced"))
        .await
        .unwrap();
    let row = Connection::of_user(&mut conn, client, user)
        .await
        .unwrap()
        .unwrap();
    assert!(row.is(Desired::Disconnected));
    let back = Connection::connect(&mut conn, client, user, &number(), Pairing::Qr)
        .await
        .unwrap();
    assert_eq!(
        (back.id, back.status.as_str(), back.reason),
        (id, "reconnecting", None)
    );
}

#[tokio::test]
async fn a_linked_device_keeps_its_number_until_it_is_logged_out() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let (client, user, id) = (
        world.client.id,
        world.connection.user_id,
        world.connection.id,
    );
    let other: Phone = "4915112345678".parse().unwrap();
    Connection::identify(&mut conn, lease(id), "5511988887777:1@s.whatsapp.net", None)
        .await
        .unwrap();
    let refused = Connection::connect(&mut conn, client, user, &other, Pairing::Qr).await;
    assert!(matches!(refused, Err(ConnectError::OtherNumber)));

    Connection::transition(&mut conn, lease(id), Status::LoggedOut, None)
        .await
        .unwrap();
    let moved = Connection::connect(&mut conn, client, user, &other, Pairing::Qr)
        .await
        .unwrap();
    assert_eq!(
        (moved.phone_number.as_str(), moved.jid),
        ("4915112345678", None)
    );
}

#[tokio::test]
async fn a_code_is_not_shown_for_another_number_than_it_was_made_for() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let (client, user) = (world.client.id, world.connection.user_id);
    Connection::show_code(
        &mut conn,
        lease(world.connection.id),
        Code::Qr("2@code"),
        20.0,
    )
    .await
    .unwrap();
    for (number, code) in [(NUMBER, Some("2@code")), ("4915112345678", None)] {
        let phone: Phone = number.parse().unwrap();
        let asked = Connection::connect(&mut conn, client, user, &phone, Pairing::Qr).await;
        assert_eq!(asked.unwrap().qr_code.as_deref(), code, "{number}");
    }
}

#[tokio::test]
async fn each_change_of_status_is_told_once() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    register(&mut conn, world.client.id, NUMBER, &["connection.*"]).await;
    let id = world.connection.id;

    let open = Connection::transition(&mut conn, lease(id), Status::Connected, None)
        .await
        .unwrap();
    let same = Connection::transition(&mut conn, lease(id), Status::Connected, None)
        .await
        .unwrap();
    let closed = Connection::transition(&mut conn, lease(id), Status::Reconnecting, None)
        .await
        .unwrap();
    let reopened = Connection::transition(&mut conn, lease(id), Status::Connected, None)
        .await
        .unwrap();
    assert_eq!(
        (open.len(), same.len(), closed.len(), reopened.len()),
        (1, 0, 1, 1)
    );

    let told: Vec<String> = events::table
        .order(events::sequence)
        .select(events::event_type)
        .load(&mut conn)
        .await
        .unwrap();
    assert_eq!(
        told,
        ["connection.open", "connection.closed", "connection.open"]
    );
}

#[tokio::test]
async fn a_qr_code_is_shown_until_the_status_changes() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let id = world.connection.id;
    Connection::show_code(&mut conn, lease(id), Code::Qr("2@ref,key"), 20.0)
        .await
        .unwrap();
    let shown = Connection::find(&mut conn, id).await.unwrap().unwrap();
    assert_eq!(shown.qr_code.as_deref(), Some("2@ref,key"));
    assert!(shown.code_expires_at.unwrap() > chrono::Utc::now());

    Connection::transition(&mut conn, lease(id), Status::Connected, None)
        .await
        .unwrap();
    let connected = Connection::find(&mut conn, id).await.unwrap().unwrap();
    assert_eq!((connected.qr_code, connected.code_expires_at), (None, None));
}

#[tokio::test]
async fn a_log_out_is_not_taken_back_by_a_wish_to_disconnect() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let (client, user) = (world.client.id, world.connection.user_id);
    for desired in [
        Desired::Disconnected,
        Desired::LoggedOut,
        Desired::Disconnected,
    ] {
        Connection::desire(&mut conn, client, user, desired)
            .await
            .unwrap()
            .unwrap();
    }
    let row = Connection::of_user(&mut conn, client, user)
        .await
        .unwrap()
        .unwrap();
    assert!(row.is(Desired::LoggedOut));

    let back = Connection::connect(&mut conn, client, user, &number(), Pairing::Qr).await;
    assert!(back.unwrap().is(Desired::Connected));
}

#[tokio::test]
async fn a_log_out_that_was_asked_for_outlives_the_session() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let (client, user) = (world.client.id, world.connection.user_id);
    Connection::desire(&mut conn, client, user, Desired::LoggedOut)
        .await
        .unwrap();
    let id = world.connection.id;
    Connection::transition(&mut conn, lease(id), Status::Disconnected, Some("replaced"))
        .await
        .unwrap();
    let row = Connection::find(&mut conn, id).await.unwrap().unwrap();
    assert!(row.is(Desired::LoggedOut) && row.wants_an_owner());
}

#[tokio::test]
async fn two_requests_to_connect_a_new_user_are_one_connection() {
    let world = World::new().await;
    let (mut one, mut two) = (world.conn().await, world.conn().await);
    let (client, user) = (world.client.id, Uuid::new_v4());
    let phone: Phone = "5511977776666".parse().unwrap();
    let (a, b) = tokio::join!(
        Connection::connect(&mut one, client, user, &phone, Pairing::Qr),
        Connection::connect(&mut two, client, user, &phone, Pairing::Qr)
    );
    assert_eq!(a.unwrap().id, b.unwrap().id);
}

#[tokio::test]
async fn an_expired_code_is_not_shown_to_clients() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let (client, user, id) = (
        world.client.id,
        world.connection.user_id,
        world.connection.id,
    );
    Connection::show_code(&mut conn, lease(id), Code::Qr("2@code"), 20.0)
        .await
        .unwrap();
    let fresh = Connection::of_user(&mut conn, client, user)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(fresh.qr_code.as_deref(), Some("2@code"));

    Connection::show_code(&mut conn, lease(id), Code::Qr("2@code"), -1.0)
        .await
        .unwrap();
    let expired = Connection::of_user(&mut conn, client, user)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(expired.qr_code, None);
}

#[tokio::test]
async fn a_number_may_change_once_its_device_is_forgotten() {
    let world = World::new().await;
    let mut conn = world.conn().await;
    let (client, user, id) = (
        world.client.id,
        world.connection.user_id,
        world.connection.id,
    );
    let other: Phone = "4915112345678".parse().unwrap();
    Connection::identify(
        &mut conn,
        lease(id),
        "5511988887777:1@s.whatsapp.net",
        Some("1@lid"),
    )
    .await
    .unwrap();
    Connection::forget_device(&mut conn, lease(id))
        .await
        .unwrap();
    let moved = Connection::connect(&mut conn, client, user, &other, Pairing::Qr)
        .await
        .unwrap();
    assert_eq!(moved.phone_number, "4915112345678");
    assert_eq!((moved.jid, moved.lid), (None, None));
}
