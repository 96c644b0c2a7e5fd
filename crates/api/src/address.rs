//! Whether a webhook, or a file to be sent, may point to a URL. What is found here is looked at again at every connection, since
//! a name may come to mean another address; here it saves the client a surprise.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::json;
use tokio::net::lookup_host;
use tokio::time::timeout;
use url::{Host, Url};

use crate::config::ReceiverConfig;
use crate::error::ApiError;
use crate::openapi::schema::schema;

/// Characters of a URL.
const LONGEST: usize = 2048;
/// What a look-up may take; a name that is not found by then counts as one that is not found yet.
const LOOKUP: Duration = Duration::from_secs(2);

/// An absolute http or https URL with a host and without credentials, as its client wrote it.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub(crate) struct OutsideUrl {
    text: String,
    #[serde(skip)]
    url: Url,
}

schema! { OutsideUrl, json!({
    "type": "string",
    "format": "uri",
    "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://[^\\s/?#@]+([/?#]\\S*)?$",
    "maxLength": LONGEST,
    "description": "Absolute, https (outside of development), without a user name or password. A host that is, or \
                    resolves to, an address that is not public is refused; one that does not resolve yet is not.",
    "examples": ["https://example.com/recado"],
}) }

impl OutsideUrl {
    fn parse(text: String) -> Result<Self, &'static str> {
        if text.len() > LONGEST {
            return Err("must not have more than 2048 characters");
        }
        // The parser would drop some of these without a word.
        if text
            .chars()
            .any(|letter| letter.is_whitespace() || letter.is_control())
        {
            return Err("must not hold spaces or control characters");
        }
        let url = Url::parse(&text).map_err(|_| "is not an absolute URL")?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("must begin with https://");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not hold a user name or password");
        }
        Ok(Self { text, url })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The URL, if it may point there; the field is what is blamed if not.
    pub(crate) async fn permitted(
        self,
        rule: &ReceiverConfig,
        field: &str,
    ) -> Result<String, ApiError> {
        if rule.require_https && self.url.scheme() != "https" {
            return Err(ApiError::field(field, "must begin with https://"));
        }
        let permits = |ip: IpAddr| rule.addresses.permits(ip);
        let permitted = match self.url.host() {
            Some(Host::Ipv4(ip)) => permits(ip.into()),
            Some(Host::Ipv6(ip)) => permits(ip.into()),
            Some(Host::Domain(name)) => resolve(name).await.into_iter().all(permits),
            None => return Err(ApiError::field(field, "has no host")),
        };
        match permitted {
            true => Ok(self.text),
            // Not which address it was: that would tell of the network that we are in.
            false => Err(ApiError::field(
                field,
                "points to an address that is not allowed (private, loopback, link-local, …)",
            )),
        }
    }
}

/// The address that stands in a webhook's URL itself, if one does.
pub(crate) fn literal(webhook_url: &str) -> Option<IpAddr> {
    match Url::parse(webhook_url).ok()?.host()? {
        Host::Ipv4(ip) => Some(ip.into()),
        Host::Ipv6(ip) => Some(ip.into()),
        Host::Domain(_) => None,
    }
}

/// The addresses of a name; none for a name that is not known yet.
async fn resolve(name: &str) -> Vec<IpAddr> {
    match timeout(LOOKUP, lookup_host((name, 0))).await {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

impl<'de> Deserialize<'de> for OutsideUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use domain::address::AddressPolicy;

    use super::*;

    #[test]
    fn what_is_no_http_url_with_a_host_is_refused() {
        for text in [
            "",
            "example.com/hook",
            "//example.com/hook",
            "/hook",
            "ftp://example.com/",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "https://",
            "https://user@example.com/",
            "https://user:password@example.com/",
            "https://:password@example.com/",
            "https://exa mple.com/",
            " https://example.com/",
            "https://example.com/\n",
            "https://exam\tple.com/",
            "https://example.com:99999/",
            "https://[::1/",
        ] {
            assert!(OutsideUrl::parse(text.to_owned()).is_err(), "{text:?}");
        }
        let long = format!("https://example.com/{}", "x".repeat(LONGEST));
        assert!(OutsideUrl::parse(long).is_err());
        for text in [
            "https://example.com",
            "HTTPS://EXAMPLE.COM/hook?a=b",
            "http://1.1.1.1:8080/",
        ] {
            assert_eq!(OutsideUrl::parse(text.to_owned()).unwrap().text, text);
        }
    }

    async fn permitted(text: &str, require_https: bool, allowed: &[&str]) -> bool {
        let allowed = allowed.iter().map(|net| net.parse().unwrap()).collect();
        let rule = ReceiverConfig {
            require_https,
            addresses: AddressPolicy::new(allowed),
        };
        let url = OutsideUrl::parse(text.to_owned()).unwrap();
        url.permitted(&rule, "webhook_url").await.is_ok()
    }

    #[tokio::test]
    async fn private_addresses_are_refused_however_they_are_written() {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[64:ff9b::a00:1]",
            "169.254.169.254",
            "10.0.0.1",
            "[fd00::1]",
            "0",
            "localhost",
        ] {
            let url = format!("https://{host}/hook");
            assert!(!permitted(&url, true, &[]).await, "{url}");
        }
        assert!(permitted("http://127.0.0.1:9000/", false, &["127.0.0.0/8"]).await);
        assert!(!permitted("http://127.0.0.1:9000/", true, &["127.0.0.0/8"]).await);
    }

    #[tokio::test]
    async fn a_host_that_does_not_resolve_is_accepted() {
        assert!(permitted("https://recado.invalid/hook", true, &[]).await);
    }
}
