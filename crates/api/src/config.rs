//! What the API is told by its environment, checked at start.

use std::num::NonZeroUsize;
use std::time::Duration;

use domain::address::AddressPolicy;
use domain::keyring::Keyring;
use ipnet::IpNet;
use media::HostConfig;
use runtime::config::{ConfigError, DatabaseConfig, Env, HttpConfig, Mode, OpsConfig, RedisConfig};
use secrecy::{ExposeSecret, SecretString};

/// The defaults of the variables that the API alone reads.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// As the dispatcher has it.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(300);
/// The ring, the claim, and the record of what came of an attempt.
const AROUND_AN_ATTEMPT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Config {
    pub http: HttpConfig,
    pub ops: OpsConfig,
    pub database: DatabaseConfig,
    pub redis: RedisConfig,
    pub keyring: Keyring,
    pub receivers: ReceiverConfig,
    pub media: MediaConfig,
    pub limits: LimitConfig,
    /// How long a call waits for a gateway to act.
    pub gateway_wait: Duration,
    /// How long a call waits for the outcome of an attempt that it caused.
    pub attempt_wait: Duration,
    /// The token of the client that development gets for free.
    pub dev_token: Option<SecretString>,
}

/// Where webhooks may point.
#[derive(Debug)]
pub struct ReceiverConfig {
    pub require_https: bool,
    pub addresses: AddressPolicy,
}

/// How the files of messages are brought.
#[derive(Debug)]
pub struct MediaConfig {
    pub host: HostConfig,
    /// At once.
    pub downloads: NonZeroUsize,
}

/// How many requests a second are answered; 0: as many as come.
#[derive(Debug)]
pub struct LimitConfig {
    pub per_client: u32,
    pub per_address: u32,
    /// At once; more wait until they are accepted.
    pub connections: NonZeroUsize,
    /// Who may say in `X-Forwarded-For` where a request came from.
    pub trusted_proxies: Vec<IpNet>,
}

impl Config {
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        Ok(Self {
            http: HttpConfig::from_env(env, 8080)?,
            ops: OpsConfig::from_env(env, 9080)?,
            database: DatabaseConfig::from_env(env)?,
            redis: RedisConfig::from_env(env)?,
            keyring: keyring(env)?,
            receivers: ReceiverConfig {
                require_https: env.mode() == Mode::Production,
                addresses: AddressPolicy::new(env.list("WEBHOOK_ALLOWED_CIDRS")?),
            },
            media: MediaConfig {
                host: HostConfig::from_env(env)?,
                downloads: env.required("MEDIA_DOWNLOADS")?,
            },
            limits: LimitConfig {
                per_client: env.required("RATE_LIMIT_PER_CLIENT")?,
                per_address: env.required("RATE_LIMIT_PER_ADDRESS")?,
                connections: env.required("MAX_CONNECTIONS")?,
                trusted_proxies: env.list("TRUSTED_PROXIES")?,
            },
            gateway_wait: Duration::from_millis(env.required("GATEWAY_WAIT")?),
            attempt_wait: attempt_wait(env)?,
            dev_token: dev_token(env)?,
        })
    }
}

/// An attempt's own time, and some for what lies around it.
fn attempt_wait(env: &Env) -> Result<Duration, ConfigError> {
    const VARIABLE: &str = "WEBHOOK_TIMEOUT";
    let timeout = Duration::from_millis(env.required(VARIABLE)?);
    if timeout.is_zero() || timeout > LONGEST_TIMEOUT {
        let problem = format!("must be 1 to {}", LONGEST_TIMEOUT.as_millis());
        return Err(ConfigError::new(VARIABLE, problem));
    }
    Ok(timeout + AROUND_AN_ATTEMPT)
}

pub(crate) fn keyring(env: &Env) -> Result<Keyring, ConfigError> {
    let keys = env.encryption_keys()?;
    Keyring::parse(keys.expose_secret()).map_err(|error| ConfigError::new("ENCRYPTION_KEYS", error))
}

fn dev_token(env: &Env) -> Result<Option<SecretString>, ConfigError> {
    const VARIABLE: &str = "DEV_CLIENT_TOKEN";
    let token = env.secret(VARIABLE)?;
    if let Some(token) = &token {
        if env.mode() == Mode::Production {
            return Err(ConfigError::new(VARIABLE, "must not be set in production"));
        }
        let text = token.expose_secret();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let problem = "must be one word of ASCII: it is sent in a header";
            return Err(ConfigError::new(VARIABLE, problem));
        }
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "k:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn config(changes: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let base = [
            ("APP_ENV", "development"),
            ("DATABASE_URL", "postgres://h/d"),
            ("REDIS_URL", "redis://h"),
            ("ENCRYPTION_KEYS", KEY),
            ("GATEWAY_WAIT", "8000"),
            ("WEBHOOK_TIMEOUT", "10000"),
            ("WHATSAPP_MEDIA_URL", "https://mmg.whatsapp.net"),
            ("MEDIA_TIMEOUT", "10000"),
            ("MEDIA_DOWNLOADS", "64"),
            ("RATE_LIMIT_PER_CLIENT", "100"),
            ("RATE_LIMIT_PER_ADDRESS", "200"),
            ("MAX_CONNECTIONS", "10000"),
        ];
        let pairs = base.iter().chain(changes).copied();
        Config::from_env(&Env::from_pairs(pairs)?)
    }

    #[test]
    fn development_takes_http_and_production_does_not() {
        assert!(!config(&[]).unwrap().receivers.require_https);
        let production = config(&[("APP_ENV", "production")]).unwrap();
        assert!(production.receivers.require_https);
    }

    #[test]
    fn a_dev_token_is_refused_in_production_and_when_no_header_could_carry_it() {
        let refused = |pairs: &[(&str, &str)]| config(pairs).unwrap_err().to_string();
        assert_eq!(
            refused(&[("APP_ENV", "production"), ("DEV_CLIENT_TOKEN", "hunter2")]),
            "DEV_CLIENT_TOKEN: must not be set in production"
        );
        assert!(!refused(&[("DEV_CLIENT_TOKEN", "hunter 2")]).contains("hunter"));
        assert!(
            config(&[("DEV_CLIENT_TOKEN", "dev")])
                .unwrap()
                .dev_token
                .is_some()
        );
    }

    #[test]
    fn bad_values_name_their_variable() {
        for (variable, value) in [
            ("ENCRYPTION_KEYS", "nokey"),
            ("WEBHOOK_ALLOWED_CIDRS", "10.0.0.0/8,loopback"),
            ("GATEWAY_WAIT", "8s"),
            ("WEBHOOK_TIMEOUT", "0"),
            ("WEBHOOK_TIMEOUT", "300001"),
            ("PORT", "80800"),
            ("WHATSAPP_MEDIA_URL", "ftp://mmg.whatsapp.net"),
            ("MEDIA_DOWNLOADS", "0"),
            ("RATE_LIMIT_PER_CLIENT", "-1"),
            ("RATE_LIMIT_PER_ADDRESS", "many"),
            ("TRUSTED_PROXIES", "10.0.0.0"),
            ("MAX_CONNECTIONS", "0"),
        ] {
            assert_eq!(config(&[(variable, value)]).unwrap_err().variable, variable);
        }
    }
}
