//! Where files may be fetched from. A client names the URL, so it could aim at the operator's own network:
//! the addresses of a name are checked when it is resolved for the connection, and a literal one before.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;

use domain::address::AddressPolicy;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::lookup_host;
use url::{Host, Url};

use super::Failure;
use crate::config::Sources;

#[derive(Debug, thiserror::Error)]
#[error("the URL leads to an address that is not allowed")]
pub(super) struct Forbidden;

/// The URL, as far as can be told without resolving its host.
pub(super) fn admit(url: &str, sources: &Sources) -> Result<Url, Failure> {
    let refused = |why: &str| Failure::Refused(why.to_owned());
    let url = Url::parse(url).map_err(|_| refused("the URL cannot be read"))?;
    match url.scheme() {
        "https" => {}
        "http" if !sources.https_only => {}
        _ => return Err(refused("the URL must begin with https://")),
    }
    let permits = |ip: IpAddr| sources.addresses.permits(ip);
    let permitted = match url.host() {
        Some(Host::Ipv4(ip)) => permits(ip.into()),
        Some(Host::Ipv6(ip)) => permits(ip.into()),
        Some(Host::Domain(_)) => true,
        None => false,
    };
    match permitted {
        true => Ok(url),
        false => Err(Failure::Refused(Forbidden.to_string())),
    }
}

/// Of a name's addresses, gives those that may be connected to.
pub(super) struct Resolver(pub(super) Arc<AddressPolicy>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = Arc::clone(&self.0);
        Box::pin(async move {
            let found = lookup_host((name.as_str(), 0)).await?;
            let permitted: Vec<_> = found.filter(|found| policy.permits(found.ip())).collect();
            match permitted.is_empty() {
                true => Err(Box::new(Forbidden) as Box<dyn Error + Send + Sync>),
                false => Ok(Box::new(permitted.into_iter()) as Addrs),
            }
        })
    }
}

/// Whether that is why there was no answer.
pub(super) fn is_forbidden(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if error.is::<Forbidden>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(url: &str, https_only: bool) -> bool {
        let sources = Sources {
            addresses: AddressPolicy::default(),
            https_only,
        };
        admit(url, &sources).is_ok()
    }

    #[test]
    fn only_https_and_only_addresses_of_the_internet_are_admitted() {
        for url in [
            "http://example.com/a",
            "ftp://example.com/a",
            "file:///etc/passwd",
            "https://127.0.0.1/a",
            "https://2130706433/a",
            "https://[::ffff:10.0.0.1]/a",
            "https://169.254.169.254/latest",
            "nonsense",
        ] {
            assert!(!admitted(url, true), "{url}");
        }
        assert!(admitted("https://example.com/a.jpg?b", true));
        assert!(admitted("http://example.com/a.jpg", false));
    }

    #[tokio::test]
    async fn a_name_of_a_forbidden_address_does_not_resolve() {
        let resolver = Resolver(Arc::new(AddressPolicy::default()));
        let refused = resolver.resolve("localhost".parse().unwrap()).await;
        assert!(refused.err().unwrap().is::<Forbidden>());
        let here = AddressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()]);
        let resolved = Resolver(Arc::new(here)).resolve("localhost".parse().unwrap());
        let found: Vec<_> = resolved.await.unwrap().collect();
        assert!(!found.is_empty() && found.iter().all(|found| found.is_ipv4()));
    }
}
