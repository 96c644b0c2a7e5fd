use std::time::Duration;

use runtime::config::{ConfigError, Env, Mode};
use url::Url;

/// Where the files of messages are.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// No more than scheme, host and port.
    pub url: Url,
    /// What the media host may take to answer, and then for each next piece.
    pub timeout: Duration,
}

impl HostConfig {
    /// Of `WHATSAPP_MEDIA_URL` and `MEDIA_TIMEOUT`.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        Ok(Self {
            url: url(env)?,
            timeout: Duration::from_millis(env.required("MEDIA_TIMEOUT")?),
        })
    }
}

/// Outside of development files come over TLS.
fn url(env: &Env) -> Result<Url, ConfigError> {
    let error = |problem| ConfigError::new("WHATSAPP_MEDIA_URL", problem);
    let url: Url = env.required("WHATSAPP_MEDIA_URL")?;
    match url.scheme() {
        "https" => {}
        "http" if env.mode() == Mode::Development => {}
        "http" => return Err(error("must be https:// in production")),
        _ => return Err(error("must be an https:// address")),
    }
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    match bare && url.username().is_empty() && url.password().is_none() {
        true => Ok(url),
        false => Err(error("must have a host and a port, and nothing else")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(changes: &[(&str, &str)]) -> Result<HostConfig, ConfigError> {
        let base = [
            ("WHATSAPP_MEDIA_URL", "https://mmg.whatsapp.net"),
            ("MEDIA_TIMEOUT", "10000"),
        ];
        let pairs = base.iter().chain(changes).copied();
        HostConfig::from_env(&Env::from_pairs(pairs)?)
    }

    #[test]
    fn development_takes_http_and_production_does_not() {
        let plain = ("WHATSAPP_MEDIA_URL", "http://127.0.0.1:1");
        assert!(config(&[plain, ("APP_ENV", "development")]).is_ok());
        let refused = config(&[plain, ("APP_ENV", "production")]).unwrap_err();
        assert_eq!(refused.variable, "WHATSAPP_MEDIA_URL");
    }

    #[test]
    fn bad_values_name_their_variable() {
        for (variable, value) in [
            ("WHATSAPP_MEDIA_URL", "ftp://mmg.whatsapp.net"),
            ("WHATSAPP_MEDIA_URL", "https://mmg.whatsapp.net/v"),
            ("WHATSAPP_MEDIA_URL", "https://mmg.whatsapp.net?a=b"),
            ("WHATSAPP_MEDIA_URL", "https://user@mmg.whatsapp.net"),
            ("MEDIA_TIMEOUT", "10s"),
        ] {
            let error = config(&[(variable, value)]).unwrap_err();
            assert_eq!(error.variable, variable);
        }
    }
}
