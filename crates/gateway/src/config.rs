//! What the gateway reads from its environment; the defaults stand in `config/defaults.toml`.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use domain::address::AddressPolicy;
use domain::keyring::Keyring;
use runtime::config::{ConfigError, DatabaseConfig, Env, Mode, OpsConfig, RedisConfig};
use secrecy::ExposeSecret;
use url::Url;

/// The defaults of the gateway's own variables.
pub const DEFAULTS: &str = include_str!("config/defaults.toml");
/// Where `OPS_PORT` is not set.
const OPS_PORT: u16 = 9081;

#[derive(Debug, Clone)]
pub struct Config {
    pub database: DatabaseConfig,
    pub redis: RedisConfig,
    pub ops: OpsConfig,
    pub keyring: Arc<Keyring>,
    pub whatsapp: WhatsApp,
    pub limits: Limits,
    pub sources: Sources,
}

/// Where the files may be that clients ask to be sent: where their webhooks may be.
#[derive(Debug, Clone)]
pub struct Sources {
    pub addresses: AddressPolicy,
    pub https_only: bool,
}

/// The server at the other end.
#[derive(Debug, Clone)]
pub struct WhatsApp {
    pub url: Url,
    /// `None`: the newest that is known.
    pub version: Option<Version>,
    /// The page that names the newest; `None` where it is not asked.
    pub version_url: Option<Url>,
}

/// What is used where nothing newer is known.
pub const BUILT_IN: Version = Version(2, 3000, 1_026_131_876);

/// How much one gateway takes on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Sessions at once.
    pub capacity: NonZeroUsize,
    /// Sessions started per second.
    pub connect_rate: NonZeroU32,
    /// Messages that one session sends per second.
    pub send_rate: NonZeroU32,
    /// How long its sessions stay its own when it does not renew.
    pub lease: Duration,
    /// How long a socket may be silent before another is opened.
    pub silence: Duration,
}

/// The version of WhatsApp Web that the client says it is: `2.3000.N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

#[derive(Debug, thiserror::Error)]
#[error("must be three numbers with dots between them, such as 2.3000.1026131876")]
pub struct VersionError;

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('.').map(str::parse);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(primary)), Some(Ok(secondary)), Some(Ok(tertiary)), None) => {
                Ok(Self(primary, secondary, tertiary))
            }
            _ => Err(VersionError),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Config {
    pub fn load(env: &Env) -> Result<Self, ConfigError> {
        Ok(Self {
            database: DatabaseConfig::from_env(env)?,
            redis: RedisConfig::from_env(env)?,
            ops: OpsConfig::from_env(env, OPS_PORT)?,
            keyring: keyring(env)?,
            whatsapp: whatsapp(env)?,
            limits: Limits {
                capacity: env.required("GATEWAY_CAPACITY")?,
                connect_rate: env.required("GATEWAY_CONNECT_RATE")?,
                send_rate: env.required("GATEWAY_SEND_RATE")?,
                lease: lease(env)?,
                silence: silence(env)?,
            },
            sources: Sources {
                addresses: AddressPolicy::new(env.list("WEBHOOK_ALLOWED_CIDRS")?),
                https_only: env.mode() == Mode::Production,
            },
        })
    }
}

/// It is renewed every second, and a renewal may take some.
fn lease(env: &Env) -> Result<Duration, ConfigError> {
    match env.required("GATEWAY_LEASE_SECONDS")? {
        seconds @ 5..=3600 => Ok(Duration::from_secs(seconds)),
        _ => Err(ConfigError::new(
            "GATEWAY_LEASE_SECONDS",
            "must be between 5 and 3600",
        )),
    }
}

/// The library has its own way to notice, which takes up to 50 s; healthy sockets are silent for 30.
fn silence(env: &Env) -> Result<Duration, ConfigError> {
    let least = if cfg!(feature = "simulator") { 1 } else { 60 };
    match env.required("GATEWAY_SILENCE_SECONDS")? {
        seconds if (least..=3600).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(ConfigError::new(
            "GATEWAY_SILENCE_SECONDS",
            "must be between 60 and 3600",
        )),
    }
}

fn keyring(env: &Env) -> Result<Arc<Keyring>, ConfigError> {
    let keys = env.encryption_keys()?;
    Keyring::parse(keys.expose_secret())
        .map(Arc::new)
        .map_err(|problem| ConfigError::new("ENCRYPTION_KEYS", problem))
}

fn whatsapp(env: &Env) -> Result<WhatsApp, ConfigError> {
    let url = whatsapp_url(env)?;
    let text: String = env.required("WHATSAPP_VERSION")?;
    let version = match text.as_str() {
        "auto" => None,
        text => Some(text.parse().map_err(|error: VersionError| {
            ConfigError::new("WHATSAPP_VERSION", format!("{error}, or auto"))
        })?),
    };
    let page: Url = env.required("WHATSAPP_VERSION_URL")?;
    if !matches!(page.scheme(), "http" | "https") {
        let problem = "must be an http:// or https:// address";
        return Err(ConfigError::new("WHATSAPP_VERSION_URL", problem));
    }
    // The simulator takes any version, and a build for it asks nobody outside.
    let asks = version.is_none() && (!cfg!(feature = "simulator") || is_loopback(&page));
    Ok(WhatsApp {
        url,
        version,
        version_url: asks.then_some(page),
    })
}

fn is_loopback(page: &Url) -> bool {
    match page.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        _ => false,
    }
}

/// Outside of development a session goes over TLS, unless this build is made for the simulator.
fn whatsapp_url(env: &Env) -> Result<Url, ConfigError> {
    let error = |problem| ConfigError::new("WHATSAPP_URL", problem);
    let url: Url = env.required("WHATSAPP_URL")?;
    let plain = cfg!(feature = "simulator") || env.mode() == Mode::Development;
    match url.scheme() {
        "wss" => Ok(url),
        "ws" if plain => Ok(url),
        "ws" => Err(error("must be wss:// in production")),
        _ => Err(error("must be a ws:// or wss:// address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = "a:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn load(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let base = [
            ("APP_ENV", "development"),
            ("DATABASE_URL", "postgres://u@h/d"),
            ("REDIS_URL", "redis://h"),
            ("ENCRYPTION_KEYS", KEYS),
            ("WHATSAPP_URL", "wss://web.whatsapp.com/ws/chat"),
            ("WHATSAPP_VERSION", "auto"),
            ("WHATSAPP_VERSION_URL", "https://web.whatsapp.com/sw.js"),
            ("GATEWAY_CAPACITY", "10"),
            ("GATEWAY_CONNECT_RATE", "5"),
            ("GATEWAY_SEND_RATE", "5"),
            ("GATEWAY_LEASE_SECONDS", "15"),
            ("GATEWAY_SILENCE_SECONDS", "90"),
        ];
        let env = Env::from_pairs(base.into_iter().chain(pairs.iter().copied()))?;
        Config::load(&env)
    }

    fn variable(pairs: &[(&str, &str)]) -> &'static str {
        load(pairs).unwrap_err().variable
    }

    #[test]
    fn the_embedded_defaults_name_the_real_server_and_in_development_the_simulator() {
        let (everywhere, development) = DEFAULTS.split_once("[development]").unwrap();
        let host = |defaults: &'static str| {
            let lines = defaults.lines().filter(|line| !line.starts_with('#'));
            let pairs = lines.filter_map(|line| {
                let (name, value) = line.split_once('=')?;
                Some((name.trim(), value.trim().trim_matches('"')))
            });
            let pairs: Vec<_> = pairs.collect();
            assert!(!pairs.is_empty());
            let url = load(&pairs).unwrap().whatsapp.url;
            url.host_str().map(str::to_owned)
        };
        assert_eq!(host(everywhere).as_deref(), Some("web.whatsapp.com"));
        assert_eq!(host(development).as_deref(), Some("127.0.0.1"));
    }

    #[test]
    fn a_version_that_is_configured_is_used_and_no_page_is_asked() {
        let fixed = load(&[("WHATSAPP_VERSION", "2.3000.1")]).unwrap().whatsapp;
        assert_eq!(
            (fixed.version, fixed.version_url),
            (Some(Version(2, 3000, 1)), None)
        );
        let auto = load(&[]).unwrap().whatsapp;
        assert_eq!(auto.version, None);
        let outside = !cfg!(feature = "simulator");
        assert_eq!(auto.version_url.is_some(), outside);
        let near = ("WHATSAPP_VERSION_URL", "http://127.0.0.1:1/sw.js");
        assert!(load(&[near]).unwrap().whatsapp.version_url.is_some());
    }

    #[test]
    fn each_bad_value_names_its_variable() {
        for (name, value) in [
            ("WHATSAPP_URL", "https://web.whatsapp.com"),
            ("WHATSAPP_URL", "web.whatsapp.com"),
            ("WHATSAPP_VERSION", "2.3000"),
            ("WHATSAPP_VERSION", "2.3000.1.4"),
            ("WHATSAPP_VERSION", "latest"),
            ("WHATSAPP_VERSION_URL", "ftp://web.whatsapp.com/sw.js"),
            ("GATEWAY_CAPACITY", "0"),
            ("GATEWAY_CONNECT_RATE", "-1"),
            ("GATEWAY_SEND_RATE", "0"),
            ("GATEWAY_LEASE_SECONDS", "1"),
            ("WEBHOOK_ALLOWED_CIDRS", "loopback"),
            ("GATEWAY_SILENCE_SECONDS", "0"),
            ("ENCRYPTION_KEYS", "a:short"),
        ] {
            assert_eq!(variable(&[(name, value)]), name, "{name}={value}");
        }
    }

    #[cfg(not(feature = "simulator"))]
    #[test]
    fn production_speaks_to_whatsapp_over_tls_only() {
        let plain = ("WHATSAPP_URL", "ws://127.0.0.1:1/ws/chat");
        assert!(load(&[plain]).is_ok());
        assert_eq!(
            variable(&[plain, ("APP_ENV", "production")]),
            "WHATSAPP_URL"
        );
    }
}
