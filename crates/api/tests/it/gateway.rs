//! What a gateway does to the rows of connections, without WhatsApp behind it.

use std::time::Duration;

use diesel_async::{AsyncPgConnection, RunQueryDsl};
use domain::connection::{Code, Connection, Desired, Pairing, Status};
use domain::gateway::Gateway as Row;
use domain::lease::Work;
use runtime::postgres::Pool;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::world::Api;

/// As long as WhatsApp's.
pub(crate) const CODE: &str = "2@2vyrc2iIxwqcUYjNMXwdf0GLLi3ONx5hcBrCzIDaV6a8CXZWrXjRdBVLiWzc9w1lGgsvNmSSvQ0OCr+w5KpYGXKn,Oq6bJbsKb1yGYHK2lwu2pbKH5LGw0tPmvQbXRhq9lXg=,8Jb5Rq8gGXmVt1h0n3o9c1VbW1l0m2Qq3S0dYxJtWmU=,mFQmCkBz2s0R0p1GzZq0G0F4b1m8B0y7x6w5v4u3t2s=";

pub(crate) const TYPED: &str = "ABCD-EFGH";

/// Stops with this value.
pub(crate) struct Gateway(JoinHandle<()>);

impl Gateway {
    pub(crate) fn start(api: &Api) -> Self {
        Self(tokio::spawn(reconcile_for_ever(api.database.pool())))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn reconcile_for_ever(pool: Pool) {
    let gateway = Row {
        id: Uuid::new_v4(),
        name: "of a test".to_owned(),
        capacity: 100,
        connect_rate: 100,
        sessions: 0,
        draining: false,
        lease_seconds: 60.0,
    };
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        tick.tick().await;
        let mut conn = pool.get().await.unwrap();
        gateway.renew(&mut conn).await.unwrap();
        for work in [Work::Connect, Work::End] {
            Connection::claim(&mut conn, gateway.id, work, 100)
                .await
                .unwrap();
        }
        send(&mut conn).await;
        for row in Connection::held(&mut conn, gateway.id).await.unwrap() {
            reconcile(&mut conn, &row).await;
        }
    }
}

async fn reconcile(conn: &mut AsyncPgConnection, row: &Connection) {
    let reached = |status: Status| row.status == status.as_str();
    if row.is(Desired::Connected) && row.jid.is_some() && !reached(Status::Connected) {
        Connection::transition(conn, row.lease(), Status::Connected, None)
            .await
            .unwrap();
    } else if row.is(Desired::Connected)
        && row.jid.is_none()
        && row.qr_code.is_none()
        && row.pairing_code.is_none()
    {
        let code = match row.pairing() {
            Pairing::Qr => Code::Qr(CODE),
            Pairing::Code => Code::Pairing(TYPED),
        };
        Connection::show_code(conn, row.lease(), code, 60.0)
            .await
            .unwrap();
    } else if row.is(Desired::Disconnected) {
        // Unless something else is wanted since the row was read.
        Connection::fulfil(conn, row.lease(), Desired::Disconnected, None)
            .await
            .unwrap();
    } else if row.is(Desired::LoggedOut) {
        Connection::fulfil(conn, row.lease(), Desired::LoggedOut, None)
            .await
            .unwrap();
        if row.deleted_at.is_some() {
            Connection::remove(conn, row.lease()).await.unwrap();
        }
    }
}

/// A text `later` stays where it is, `never` is refused, and `maybe` is never answered.
async fn send(conn: &mut AsyncPgConnection) {
    let settle = "UPDATE whatsapp_outbox SET settled_at = now(),
            status = CASE WHEN content->>'text' IN ('never', 'maybe') THEN 'failed' ELSE 'sent' END,
            unconfirmed = content->>'text' IS NOT DISTINCT FROM 'maybe',
            error = CASE content->>'text' WHEN 'never' THEN 'WhatsApp refused it: 479'
                WHEN 'maybe' THEN 'WhatsApp did not answer' END
        WHERE status = 'queued' AND content->>'text' IS DISTINCT FROM 'later'";
    diesel::sql_query(settle).execute(conn).await.unwrap();
}
