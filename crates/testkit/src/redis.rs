//! A Redis database per test: one of the shared server's numbered databases, which no other test
//! uses meanwhile. What belongs to the whole server is shared: pub/sub channels, `FLUSHALL`. A
//! test of these starts its own server ([`crate::Servers`]).

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::RngExt;
use redis::Client;
use runtime::config::RedisConfig;
use runtime::redis::Pool;

use crate::eventually;
use crate::shared::{Addresses, sibling};

/// An empty database, leased until this value is dropped.
#[derive(Debug)]
pub struct RedisDatabase {
    url: String,
    /// Locked by this test. The kernel unlocks it when the process dies, in whatever way.
    _lease: File,
}

impl RedisDatabase {
    /// Leases a database of the shared server and empties it.
    pub async fn acquire() -> Self {
        let server = Addresses::shared().await.redis_url;
        let client = Client::open(server.as_str()).expect("the address of the shared Redis");
        let mut connection = client
            .get_multiplexed_async_connection()
            .await
            .unwrap_or_else(|error| panic!("Redis for tests: {error}"));
        let (_, databases): (String, u16) = redis::cmd("CONFIG")
            .arg(&["GET", "databases"])
            .query_async(&mut connection)
            .await
            .expect("Redis says how many databases it has");
        let leases = leases_of(&client);
        // Database 0 is nobody's.
        let (number, lease) =
            eventually(Duration::from_secs(60), async || lease(&leases, databases)).await;
        redis::pipe()
            .cmd("SELECT")
            .arg(number)
            .cmd("FLUSHDB")
            .exec_async(&mut connection)
            .await
            .expect("the leased database can be emptied");
        Self {
            url: sibling(&server, &number.to_string()),
            _lease: lease,
        }
    }

    /// For `REDIS_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// For what makes pools and connections of its own.
    pub fn config(&self) -> RedisConfig {
        RedisConfig::from_url(&self.url).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A new pool.
    pub fn pool(&self) -> Pool {
        runtime::redis::pool(&self.config()).expect("a pool that connects to nothing yet")
    }

    /// For connections of one's own.
    pub fn client(&self) -> Client {
        runtime::redis::client(&self.config()).expect("the address was good a moment ago")
    }
}

/// Where the leases of a server are kept: every test on this machine has to find the same place.
fn leases_of(client: &Client) -> PathBuf {
    let server = client.get_connection_info().addr().to_string();
    let user = rustix::process::getuid().as_raw();
    let server = server.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    let folder = env::temp_dir().join(format!("recado-test-redis-{server}-{user}"));
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}

/// A database that nobody has: database 0 is left alone, the others are tried from a random one.
fn lease(leases: &Path, databases: u16) -> Option<(u16, File)> {
    let others = databases.checked_sub(1).filter(|others| *others > 0)?;
    let first = rand::rng().random_range(0..others);
    (0..others).find_map(|step| {
        let number = 1 + (first + step) % others;
        let file = File::create(leases.join(number.to_string())).ok()?;
        file.try_lock().ok().map(|()| (number, file))
    })
}
