use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::Config;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};

/// Where a database is and how far its certificate is trusted. Its `Debug` has no password.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    config: Config,
    trust: Trust,
}

/// What a server's certificate must show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Nothing: the line is encrypted, against listeners only.
    Anyone,
    /// That an authority signed it.
    Authority(Roots),
    /// That, and that it is this host's.
    Host(Roots),
}

/// Whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Roots {
    /// Mozilla's list, compiled in.
    BuiltIn,
    /// A PEM file, read at each connection, so that it can be replaced while the process runs.
    File(PathBuf),
}

/// Why a database URL was refused; it never repeats a part that may be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidUrl {
    #[error("must start with postgres:// or postgresql://")]
    Scheme,
    #[error("sslmode must be disable, prefer, require, verify-ca or verify-full")]
    SslMode,
    #[error("sslrootcert is not percent-encoded UTF-8")]
    RootCertificate,
    #[error("{0}")]
    Malformed(String),
    #[error("names no host")]
    NoHost,
}

impl Endpoint {
    /// Reads a URL. `sslmode` and `sslrootcert` mean what they mean to libpq, except that roots
    /// are built in where no file is named. (tokio-postgres knows neither `verify-ca` nor
    /// `verify-full`.)
    pub(crate) fn parse(url: &str) -> Result<Self, InvalidUrl> {
        if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
            return Err(InvalidUrl::Scheme);
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut mode = None;
        let mut roots = Roots::BuiltIn;
        let mut rest = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => roots = Roots::File(percent_decoded(value)?),
                _ => rest.push(parameter),
            }
        }
        let (ssl_mode, trust) = match (mode.unwrap_or("prefer"), roots) {
            ("disable", _) => (SslMode::Disable, Trust::Anyone),
            ("prefer", _) => (SslMode::Prefer, Trust::Anyone),
            // As in libpq, a root certificate turns require into verify-ca.
            ("require", Roots::BuiltIn) => (SslMode::Require, Trust::Anyone),
            ("require" | "verify-ca", roots) => (SslMode::Require, Trust::Authority(roots)),
            ("verify-full", roots) => (SslMode::Require, Trust::Host(roots)),
            _ => return Err(InvalidUrl::SslMode),
        };
        let config = Config::from_str(&format!("{base}?{}", rest.join("&")))
            .map_err(|error| InvalidUrl::Malformed(malformed(&error)))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(InvalidUrl::NoHost);
        }
        Ok(Self::new(config, ssl_mode, trust))
    }

    /// The database of the separate variables; `sslmode` is `prefer`.
    pub(crate) fn from_parts(
        host: &str,
        port: u16,
        user: &str,
        password: Option<&SecretString>,
        database: &str,
    ) -> Self {
        let mut config = Config::new();
        config.host(host).port(port).user(user).dbname(database);
        if let Some(password) = password {
            config.password(password.expose_secret());
        }
        Self::new(config, SslMode::Prefer, Trust::Anyone)
    }

    fn new(mut config: Config, ssl_mode: SslMode, trust: Trust) -> Self {
        config.ssl_mode(ssl_mode);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(3));
        }
        if config.get_application_name().is_none() {
            let program = std::env::current_exe().ok();
            if let Some(name) = program
                .as_deref()
                .and_then(|path| path.file_name()?.to_str())
            {
                config.application_name(name);
            }
        }
        if config.get_target_session_attrs() == TargetSessionAttrs::Any {
            // Every service writes. In a failover an address may lead to a standby for a while: a
            // connection to it would answer, fail every write, and stay in its pool.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        // A host that vanished without a word is noticed within half a minute.
        config
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(3))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(20));
        Self { config, trust }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn trust(&self) -> &Trust {
        &self.trust
    }
}

/// The reason without the value: tokio-postgres puts it in the source and names the key only.
fn malformed(error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error);
    cause.map_or_else(
        || error.to_string(),
        |cause| format!("is malformed: {cause}"),
    )
}

fn percent_decoded(text: &str) -> Result<PathBuf, InvalidUrl> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(|path| PathBuf::from(path.as_ref()))
        .map_err(|_| InvalidUrl::RootCertificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<(SslMode, Trust), InvalidUrl> {
        let endpoint = Endpoint::parse(&format!("postgres://u:p@h:5433/d{query}"))?;
        assert_eq!(endpoint.config.get_ports(), [5433]);
        assert_eq!(endpoint.config.get_dbname(), Some("d"));
        Ok((endpoint.config.get_ssl_mode(), endpoint.trust))
    }

    #[test]
    fn every_sslmode_of_libpq_but_allow_is_understood() {
        let file = || Roots::File(PathBuf::from("/etc/my ca.pem"));
        let cases = [
            ("", SslMode::Prefer, Trust::Anyone),
            ("?sslmode=disable", SslMode::Disable, Trust::Anyone),
            ("?sslmode=prefer", SslMode::Prefer, Trust::Anyone),
            ("?sslmode=require", SslMode::Require, Trust::Anyone),
            (
                "?sslmode=verify-ca",
                SslMode::Require,
                Trust::Authority(Roots::BuiltIn),
            ),
            (
                "?sslmode=verify-full",
                SslMode::Require,
                Trust::Host(Roots::BuiltIn),
            ),
            (
                "?sslrootcert=/etc/my%20ca.pem&sslmode=require",
                SslMode::Require,
                Trust::Authority(file()),
            ),
            (
                "?sslmode=verify-full&sslrootcert=/etc/my%20ca.pem",
                SslMode::Require,
                Trust::Host(file()),
            ),
        ];
        for (query, mode, trust) in cases {
            assert_eq!(read(query), Ok((mode, trust)), "{query}");
        }
        assert_eq!(read("?sslmode=allow"), Err(InvalidUrl::SslMode));
        assert_eq!(read("?sslmode="), Err(InvalidUrl::SslMode));
        assert_eq!(read("?sslrootcert=%ff"), Err(InvalidUrl::RootCertificate));
    }

    #[test]
    fn other_parameters_are_kept_and_unknown_ones_refused() {
        let endpoint = Endpoint::parse(
            "postgresql://h/d?connect_timeout=9&sslmode=disable&application_name=mine",
        )
        .unwrap();
        assert_eq!(
            endpoint.config.get_connect_timeout(),
            Some(&Duration::from_secs(9))
        );
        assert_eq!(endpoint.config.get_application_name(), Some("mine"));
        assert!(matches!(
            read("?colour=blue"),
            Err(InvalidUrl::Malformed(_))
        ));
    }

    #[test]
    fn the_program_names_itself_to_the_server() {
        let endpoint = Endpoint::parse("postgres://h/d").unwrap();
        assert!(
            endpoint
                .config
                .get_application_name()
                .unwrap()
                .starts_with("runtime")
        );
    }

    #[test]
    fn only_a_url_with_a_host_is_taken() {
        assert_eq!(
            Endpoint::parse("host=h dbname=d").unwrap_err(),
            InvalidUrl::Scheme
        );
        assert_eq!(
            Endpoint::parse("postgres:///d").unwrap_err(),
            InvalidUrl::NoHost
        );
    }
}
