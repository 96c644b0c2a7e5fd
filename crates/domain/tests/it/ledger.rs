//! From a WhatsApp message id to every attempt, in the statement that the documentation gives.

use chrono::{DateTime, Utc};
use diesel::QueryableByName;
use diesel::sql_types::{Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use domain::claim::claim;
use domain::record::{Outcome, record};
use uuid::Uuid;

use crate::world::{self, World};

const PAGE: &str = include_str!("../../../../docs/ARCHITECTURE.md");

#[derive(Debug, QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    message_id: String,
    #[diesel(sql_type = SqlUuid)]
    event: Uuid,
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Nullable<Integer>)]
    attempt: Option<i32>,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    started_at: Option<DateTime<Utc>>,
    #[diesel(sql_type = Nullable<Integer>)]
    http_status: Option<i32>,
}

async fn ask(world: &World, message_id: &str) -> Vec<Row> {
    let begins = PAGE.find("SELECT m.message_id").expect("the page has it");
    let statement = PAGE[begins..].split("```").next().unwrap();
    let connection = world.connection.id;
    let statement = statement
        .replace(
            "connection_id = '…'",
            &format!("connection_id = '{connection}'"),
        )
        .replace("'3EB0…'", &format!("'{message_id}'"));
    assert!(!statement.contains('…'), "{statement}");
    diesel::sql_query(statement.trim_end().trim_end_matches(';'))
        .load(&mut world.conn().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_message_id_leads_to_every_attempt_in_the_order_in_which_they_were_made() {
    let mut world = World::new().await;
    world.at = Utc::now();
    let mut conn = world.conn().await;
    let event = world.accept(&["3EB0A", "3EB0B"]).await[0];
    let waiting = ask(&world, "3EB0A").await;
    assert_eq!((waiting.len(), waiting[0].attempt), (1, None));

    for outcome in [Outcome::RetryIn(0.0), Outcome::Delivered] {
        let token = Uuid::new_v4();
        let claimed = claim(&mut conn, &[event], token, 60.0).await.unwrap();
        record(&mut conn, &[world::record(&claimed[0], token, outcome)])
            .await
            .unwrap();
    }
    let rows = ask(&world, "3EB0A").await;
    let seen: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row.message_id.as_str(),
                row.event,
                row.status.as_str(),
                row.attempt,
                row.http_status,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("3EB0A", event, "delivered", Some(1), Some(500)),
            ("3EB0A", event, "delivered", Some(2), Some(200)),
        ]
    );
    assert!(rows[0].started_at <= rows[1].started_at);
    assert!(ask(&world, "3EB0C").await.is_empty());
}
