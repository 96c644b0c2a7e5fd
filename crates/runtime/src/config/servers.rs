use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};
use secrecy::{ExposeSecret, SecretString};

use super::{ConfigError, Env};
use crate::postgres::{Endpoint, InvalidUrl};

/// Where PostgreSQL is: `DATABASE_URL`, or `DB_HOST` and the rest; and `DATABASE_POOL_SIZE`.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    pub(crate) endpoint: Endpoint,
    /// The most connections that [`crate::postgres::pool`] opens.
    pub pool_size: usize,
}

impl DatabaseConfig {
    /// Reads and checks the variables; connects to nothing.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let endpoint = match env.secret("DATABASE_URL")? {
            Some(url) => endpoint(&url).map_err(|error| ConfigError::new("DATABASE_URL", error))?,
            None => {
                let host = env.optional::<String>("DB_HOST")?;
                let host = host.ok_or_else(|| {
                    ConfigError::new("DATABASE_URL", "is not set, and neither is DB_HOST")
                })?;
                Endpoint::from_parts(
                    &host,
                    env.required("DB_PORT")?,
                    &env.required::<String>("DB_USER")?,
                    env.secret("DB_PASS")?.as_ref(),
                    &env.required::<String>("DB_NAME")?,
                )
            }
        };
        let pool_size: NonZeroUsize = env.required("DATABASE_POOL_SIZE")?;
        Ok(Self {
            endpoint,
            pool_size: pool_size.get(),
        })
    }

    /// The database at `url`, with the default pool size.
    pub fn from_url(url: &str) -> Result<Self, ConfigError> {
        Self::from_env(&Env::from_pairs([("DATABASE_URL", url)])?)
    }
}

fn endpoint(url: &SecretString) -> Result<Endpoint, InvalidUrl> {
    Endpoint::parse(url.expose_secret())
}

/// Where Redis is: `REDIS_URL`, or `REDIS_HOST` and the rest; and `REDIS_POOL_SIZE`.
#[derive(Clone)]
pub struct RedisConfig {
    pub(crate) connection: ConnectionInfo,
    /// The most connections that [`crate::redis::pool`] opens.
    pub pool_size: usize,
}

impl RedisConfig {
    /// Reads and checks the variables; connects to nothing.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let connection = match env.secret("REDIS_URL")? {
            Some(url) => redis_url(&url)?,
            None => {
                let host = env.optional::<String>("REDIS_HOST")?;
                let host = host.ok_or_else(|| {
                    ConfigError::new("REDIS_URL", "is not set, and neither is REDIS_HOST")
                })?;
                let address = ConnectionAddr::Tcp(host, env.required("REDIS_PORT")?);
                let mut login =
                    RedisConnectionInfo::default().set_db(env.required::<u16>("REDIS_DB")?.into());
                if let Some(password) = env.secret("REDIS_PASSWORD")? {
                    login = login.set_password(password.expose_secret());
                }
                let connection = address.into_connection_info();
                connection
                    .map_err(|_| ConfigError::new("REDIS_HOST", "is not a host"))?
                    .set_redis_settings(login)
            }
        };
        let pool_size: NonZeroUsize = env.required("REDIS_POOL_SIZE")?;
        Ok(Self {
            connection,
            pool_size: pool_size.get(),
        })
    }

    /// The Redis at `url`, with the default pool size.
    pub fn from_url(url: &str) -> Result<Self, ConfigError> {
        Self::from_env(&Env::from_pairs([("REDIS_URL", url)])?)
    }
}

fn redis_url(url: &SecretString) -> Result<ConnectionInfo, ConfigError> {
    let wrong = "must be redis://[user:password@]host[:port][/database], or rediss:// for TLS";
    let parsed = url.expose_secret().into_connection_info();
    parsed.map_err(|_| ConfigError::new("REDIS_URL", wrong))
}

/// Shows the address only.
impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("address", &self.connection.addr().to_string())
            .field("pool_size", &self.pool_size)
            .finish_non_exhaustive()
    }
}

/// Where the service's own HTTP server listens: `BIND_ADDRESS` and `PORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpConfig {
    pub bind: IpAddr,
    /// 0 lets the system choose.
    pub port: u16,
}

impl HttpConfig {
    /// Reads the variables; `default_port` is the service's.
    pub fn from_env(env: &Env, default_port: u16) -> Result<Self, ConfigError> {
        Ok(Self {
            bind: env.required("BIND_ADDRESS")?,
            port: env.or("PORT", default_port)?,
        })
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.bind, self.port)
    }
}

/// Where health and metrics are served: `BIND_ADDRESS` and `OPS_PORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpsConfig {
    pub bind: IpAddr,
    /// 0 lets the system choose.
    pub port: u16,
}

impl OpsConfig {
    /// Reads the variables; `default_port` is the service's.
    pub fn from_env(env: &Env, default_port: u16) -> Result<Self, ConfigError> {
        Ok(Self {
            bind: env.required("BIND_ADDRESS")?,
            port: env.or("OPS_PORT", default_port)?,
        })
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.bind, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        Env::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn the_seed_systems_names_work() {
        let env = env(&[
            ("DB_HOST", "db.example"),
            ("DB_USER", "recado"),
            ("DB_PASS", "p@ss/word"),
            ("DB_NAME", "recado"),
            ("REDIS_HOST", "redis.example"),
            ("REDIS_PASSWORD", "hunter2"),
            ("REDIS_DB", "3"),
        ]);
        let database = DatabaseConfig::from_env(&env).unwrap();
        assert_eq!(database.pool_size, 16);
        let redis = RedisConfig::from_env(&env).unwrap();
        assert_eq!(redis.connection.addr().to_string(), "redis.example:6379");
        assert_eq!(redis.connection.redis_settings().db(), 3);
        assert_eq!(
            redis.connection.redis_settings().password(),
            Some("hunter2")
        );
        let shown = format!("{database:?} {redis:?}");
        assert!(
            !shown.contains("p@ss") && !shown.contains("hunter2"),
            "{shown}"
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |pairs: &[(&str, &str)]| DatabaseConfig::from_env(&env(pairs)).unwrap_err();
        assert_eq!(
            error(&[]).to_string(),
            "DATABASE_URL: is not set, and neither is DB_HOST"
        );
        assert_eq!(error(&[("DB_HOST", "h")]).variable, "DB_USER");
        assert_eq!(
            error(&[("DB_HOST", "h"), ("DB_USER", "u")]).variable,
            "DB_NAME"
        );
        assert_eq!(
            RedisConfig::from_env(&env(&[])).unwrap_err().variable,
            "REDIS_URL"
        );
    }

    #[test]
    fn a_bad_url_is_refused_without_showing_it() {
        for url in ["mysql://u:hunter2@h/d", "postgres://u:hunter2@h:port/d"] {
            let error = DatabaseConfig::from_url(url).unwrap_err();
            assert_eq!(error.variable, "DATABASE_URL");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        for url in ["http://:hunter2@h", "redis://:hunter2@h:port", "hunter2"] {
            let error = RedisConfig::from_url(url).unwrap_err();
            assert_eq!(error.variable, "REDIS_URL");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_pool_of_nothing_is_refused() {
        let env = env(&[
            ("DATABASE_URL", "postgres://h/d"),
            ("DATABASE_POOL_SIZE", "0"),
        ]);
        assert_eq!(
            DatabaseConfig::from_env(&env).unwrap_err().variable,
            "DATABASE_POOL_SIZE"
        );
    }

    #[test]
    fn development_listens_on_this_machine_only() {
        let ports = |mode| {
            let env = env(&[("APP_ENV", mode), ("PORT", "1")]);
            (
                HttpConfig::from_env(&env, 8080).unwrap(),
                OpsConfig::from_env(&env, 9080).unwrap(),
            )
        };
        let (http, ops) = ports("development");
        assert_eq!(http.address().to_string(), "127.0.0.1:1");
        assert_eq!(ops.address().to_string(), "127.0.0.1:9080");
        assert_eq!(ports("production").1.address().to_string(), "0.0.0.0:9080");
    }
}
