//! A database with connections, and stores over them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use diesel::sql_types::Text;
use diesel::{QueryableByName, sql_query};
use diesel_async::RunQueryDsl;
use domain::client::Client;
use domain::connection::{Connection, Pairing};
use domain::event_type::EventType;
use domain::gateway::Gateway;
use domain::inbox;
use domain::keyring::Keyring;
use domain::lease::{Lease, Work, release};
use domain::message::NewMessage;
use gateway::hold::Hold;
use gateway::store::bodies::Bodies;
use gateway::store::inflight::Registry;
use gateway::store::pending_inbound::{LostBodies, LostBody};
use gateway::store::ratchets::Ratchets;
use gateway::store::{Shelf, Store, find_or_create_device};
use testkit::Database;
use uuid::Uuid;
use whatsapp_rust::async_trait;

pub(super) const KEYS: &str = "test:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

pub(super) struct World {
    pub(super) database: Database,
    pub(super) inflight: Arc<Registry>,
    pub(super) lost: Arc<Reports>,
    pub(super) connection_id: Uuid,
}

/// Remembers what was reported, and refuses when told to.
#[derive(Default)]
pub(super) struct Reports {
    taken: Mutex<Vec<String>>,
    refuse: Mutex<bool>,
}

impl Reports {
    /// Each as `connection chat sender id`.
    pub(super) fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }

    pub(super) fn refuse(&self, refuse: bool) {
        *self.refuse.lock().unwrap() = refuse;
    }
}

#[async_trait]
impl LostBodies for Reports {
    async fn report(&self, lost: LostBody<'_>) -> anyhow::Result<()> {
        anyhow::ensure!(!*self.refuse.lock().unwrap(), "refused");
        self.taken.lock().unwrap().push(format!(
            "{} {} {} {}",
            lost.connection_id, lost.chat, lost.sender, lost.message_id
        ));
        Ok(())
    }
}

impl World {
    pub(super) async fn new() -> Self {
        Self::over(Database::create().await).await
    }

    pub(super) async fn over(database: Database) -> Self {
        let connection_id = connect(&database, "5511999999999").await;
        Self {
            database,
            inflight: Arc::default(),
            lost: Arc::default(),
            connection_id,
        }
    }

    /// A store over the world's own connection; each call opens it anew.
    pub(super) async fn store(&self) -> Store {
        self.store_of(self.connection_id).await
    }

    pub(super) async fn store_of(&self, connection_id: Uuid) -> Store {
        self.open(connection_id, self.shelf()).await
    }

    /// A store over the world's own connection that has these keys.
    pub(super) async fn store_under(&self, keys: &str) -> Store {
        let shelf = Shelf {
            keyring: Arc::new(Keyring::parse(keys).unwrap()),
            ..self.shelf()
        };
        self.open(self.connection_id, shelf).await
    }

    async fn open(&self, connection_id: Uuid, shelf: Shelf) -> Store {
        self.open_under(unclaimed(connection_id), shelf).await
    }

    /// A store over the world's own connection, claimed by a gateway of its own.
    pub(super) async fn claimed_store(&self) -> Store {
        let mut conn = self.database.connect().await;
        let gateway = Gateway {
            id: Uuid::new_v4(),
            name: String::new(),
            capacity: 1,
            connect_rate: 1,
            sessions: 0,
            draining: false,
            lease_seconds: 60.0,
        };
        gateway.renew(&mut conn).await.unwrap();
        let claimed = Connection::claim(&mut conn, gateway.id, Work::Connect, 1).await;
        let lease = claimed.unwrap()[0].lease();
        release(&mut conn, &[lease]).await.unwrap();
        self.open_under(lease, self.shelf()).await
    }

    async fn open_under(&self, lease: Lease, shelf: Shelf) -> Store {
        let device_id = find_or_create_device(&mut self.database.connect().await, lease)
            .await
            .unwrap();
        Store::new(shelf, Hold::new(lease), device_id)
    }

    pub(super) async fn another_connection(&self) -> Uuid {
        connect(&self.database, "5511888888888").await
    }

    pub(super) fn shelf(&self) -> Shelf {
        Shelf {
            pool: self.database.pool(),
            keyring: Arc::new(Keyring::parse(KEYS).unwrap()),
            inflight: Arc::clone(&self.inflight),
            bodies: Bodies::new(
                self.database.pool(),
                Arc::clone(&self.inflight),
                Arc::default(),
            ),
            ratchets: Ratchets::new(self.database.pool()),
            lost_bodies: Arc::clone(&self.lost) as Arc<dyn LostBodies>,
            underway: Arc::default(),
        }
    }

    /// Commits a message as the hook would.
    pub(super) async fn commit(&self, message_id: &str) {
        let message = NewMessage {
            id: Uuid::now_v7(),
            client_id: 1,
            connection_id: self.connection_id,
            event_type: EventType::Message,
            message_id: message_id.to_owned(),
            chat: "1@s.whatsapp.net".to_owned(),
            from: "1".to_owned(),
            to: "2".to_owned(),
            message_type: "text".to_owned(),
            content: "hello".to_owned(),
            metadata: "{}".to_owned(),
            timestamp: "2026-11-24T12:00:00Z".parse().unwrap(),
            raw: None,
            media: None,
        };
        inbox::accept(&mut self.database.connect().await, &[&message])
            .await
            .unwrap();
    }

    /// Every row of every table of the store, as text, by table.
    pub(super) async fn dump(&self) -> BTreeMap<String, String> {
        #[derive(QueryableByName)]
        struct Value {
            #[diesel(sql_type = Text)]
            value: String,
        }
        let mut conn = self.database.connect().await;
        let tables: Vec<Value> = sql_query(
            r"SELECT tablename::text AS value FROM pg_tables WHERE tablename LIKE 'protocol\_%'",
        )
        .load(&mut conn)
        .await
        .unwrap();
        let mut dump = BTreeMap::new();
        for Value { value: table } in tables {
            let rows = format!(
                r"SELECT coalesce(string_agg(t::text, E'\n'), '') AS value FROM {table} AS t"
            );
            let rows: Value = sql_query(rows).get_result(&mut conn).await.unwrap();
            dump.insert(table, rows.value);
        }
        dump
    }
}

/// The hold on a connection that no gateway has claimed yet.
pub(super) fn unclaimed(connection_id: Uuid) -> Lease {
    Lease {
        connection_id,
        epoch: 0,
    }
}

async fn connect(database: &Database, phone: &str) -> Uuid {
    let mut conn = database.connect().await;
    let client = Client::ensure(&mut conn, "Acme").await.unwrap();
    Connection::connect(
        &mut conn,
        client.id,
        Uuid::new_v4(),
        &phone.parse().unwrap(),
        Pairing::Qr,
    )
    .await
    .unwrap()
    .id
}
