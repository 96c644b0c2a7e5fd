use std::num::NonZeroUsize;
use std::time::Duration;

use domain::address::AddressPolicy;
use domain::keyring::Keyring;
use ipnet::IpNet;
use media::HostConfig;
use runtime::config::{ConfigError, DatabaseConfig, Env, Mode, OpsConfig, RedisConfig};
use secrecy::ExposeSecret;

/// The reference of the dispatcher's own variables.
pub const DEFAULTS: &str = include_str!("defaults.toml");

const DEFAULT_OPS_PORT: u16 = 9082;
/// An attempt that takes longer than this is no delivery any more; claims last longer than it.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(300);

/// What a dispatcher needs to know, checked.
#[derive(Debug)]
pub struct Config {
    pub database: DatabaseConfig,
    pub redis: RedisConfig,
    pub ops: OpsConfig,
    pub keyring: Keyring,
    pub sending: SendingConfig,
    pub media: HostConfig,
    /// Attempts in flight at once, over all webhooks.
    pub concurrency: usize,
    /// `None` keeps everything.
    pub retention_days: Option<u32>,
}

/// How requests are sent, and where to.
#[derive(Debug, Clone)]
pub struct SendingConfig {
    /// For one attempt in all.
    pub timeout: Duration,
    pub addresses: AddressPolicy,
    /// Whether a webhook without TLS is refused.
    pub https_only: bool,
}

impl Config {
    /// Reads and checks the variables; connects to nothing.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let keyring = Keyring::parse(env.encryption_keys()?.expose_secret())
            .map_err(|error| ConfigError::new("ENCRYPTION_KEYS", error))?;
        let concurrency: NonZeroUsize = env.required("DISPATCHER_CONCURRENCY")?;
        let retention_days: u32 = env.required("RETENTION_DAYS")?;
        Ok(Self {
            database: DatabaseConfig::from_env(env)?,
            redis: RedisConfig::from_env(env)?,
            ops: OpsConfig::from_env(env, DEFAULT_OPS_PORT)?,
            keyring,
            sending: SendingConfig::from_env(env)?,
            media: HostConfig::from_env(env)?,
            concurrency: concurrency.get(),
            retention_days: (retention_days > 0).then_some(retention_days),
        })
    }
}

impl SendingConfig {
    fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let timeout = Duration::from_millis(env.required("WEBHOOK_TIMEOUT")?);
        if timeout.is_zero() || timeout > LONGEST_TIMEOUT {
            let problem = format!("must be 1 to {}", LONGEST_TIMEOUT.as_millis());
            return Err(ConfigError::new("WEBHOOK_TIMEOUT", problem));
        }
        let allowed: Vec<IpNet> = env.list("WEBHOOK_ALLOWED_CIDRS")?;
        Ok(Self {
            timeout,
            addresses: AddressPolicy::new(allowed),
            https_only: env.mode() == Mode::Production,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[(&str, &str)] = &[
        ("DATABASE_URL", "postgres://h/d"),
        ("REDIS_URL", "redis://h"),
        (
            "ENCRYPTION_KEYS",
            "k:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        ),
        ("WEBHOOK_TIMEOUT", "10000"),
        ("DISPATCHER_CONCURRENCY", "256"),
        ("RETENTION_DAYS", "30"),
        ("WHATSAPP_MEDIA_URL", "https://mmg.whatsapp.net"),
        ("MEDIA_TIMEOUT", "3000"),
    ];

    fn config(changed: &[(&'static str, &'static str)]) -> Result<Config, ConfigError> {
        let pairs = GOOD.iter().chain(changed).copied();
        Config::from_env(&Env::from_pairs(pairs).unwrap())
    }

    #[test]
    fn production_is_strict_and_development_is_not() {
        let strict = config(&[]).unwrap();
        assert!(strict.sending.https_only);
        assert!(
            !strict
                .sending
                .addresses
                .permits("127.0.0.1".parse().unwrap())
        );
        let loose = config(&[
            ("APP_ENV", "development"),
            ("WEBHOOK_ALLOWED_CIDRS", "127.0.0.0/8"),
        ]);
        let loose = loose.unwrap().sending;
        assert!(!loose.https_only && loose.addresses.permits("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn no_retention_means_for_ever() {
        assert_eq!(config(&[]).unwrap().retention_days, Some(30));
        let forever = config(&[("RETENTION_DAYS", "0")]).unwrap();
        assert_eq!(forever.retention_days, None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (variable, value) in [
            ("WEBHOOK_TIMEOUT", "0"),
            ("WEBHOOK_TIMEOUT", "300001"),
            ("WEBHOOK_TIMEOUT", "10s"),
            ("DISPATCHER_CONCURRENCY", "0"),
            ("RETENTION_DAYS", "-1"),
            ("WHATSAPP_MEDIA_URL", "http://mmg.whatsapp.net"),
            ("WEBHOOK_ALLOWED_CIDRS", "10.0.0.0"),
            ("ENCRYPTION_KEYS", "nonsense"),
            ("OPS_PORT", "65536"),
        ] {
            let error = config(&[(variable, value)]).unwrap_err();
            assert_eq!(error.variable, variable);
        }
    }
}
