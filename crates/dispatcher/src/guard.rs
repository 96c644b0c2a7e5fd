//! Where a request may go. The scheme and a literal address are checked before each request; the
//! addresses of a name when it is resolved for a connection, so that there is no time between the
//! check and the use. reqwest asks the resolver for names only, hence both.

use std::net::{IpAddr, SocketAddr};

use domain::address::AddressPolicy;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;
use tokio::net::lookup_host;
use url::Host;

/// Why nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Forbidden {
    #[error("the URL is not valid")]
    Url,
    #[error("the URL must begin with https://")]
    Scheme,
    #[error("the address is not one that webhooks may have")]
    Address,
}

#[derive(Debug, Clone)]
pub(crate) struct Guard {
    pub(crate) addresses: AddressPolicy,
    pub(crate) https_only: bool,
}

impl Guard {
    /// The URL, if a request may be sent to it as far as can be told without resolving its host.
    pub(crate) fn admit(&self, url: &str) -> Result<Url, Forbidden> {
        let url = Url::parse(url).map_err(|_| Forbidden::Url)?;
        match url.scheme() {
            "https" => {}
            "http" if !self.https_only => {}
            _ => return Err(Forbidden::Scheme),
        }
        // The parser has brought every notation of an IPv4 address into one.
        let literal: Option<IpAddr> = match url.host() {
            Some(Host::Ipv4(ip)) => Some(ip.into()),
            Some(Host::Ipv6(ip)) => Some(ip.into()),
            Some(Host::Domain(_)) => None,
            None => return Err(Forbidden::Url),
        };
        match literal {
            Some(ip) if !self.addresses.permits(ip) => Err(Forbidden::Address),
            _ => Ok(url),
        }
    }
}

/// The system's resolver, less the addresses that are forbidden.
pub(crate) struct GuardedResolver(pub(crate) AddressPolicy);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = self.0.clone();
        Box::pin(async move {
            // Port 0 is replaced by the URL's.
            let found = lookup_host((name.as_str(), 0)).await?;
            let permitted: Vec<SocketAddr> = found
                .filter(|found| addresses.permits(found.ip()))
                .collect();
            match permitted.is_empty() {
                true => Err(Forbidden::Address.into()),
                false => Ok(Box::new(permitted.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(https_only: bool) -> Guard {
        Guard {
            addresses: AddressPolicy::default(),
            https_only,
        }
    }

    #[test]
    fn every_notation_of_a_forbidden_address_is_known() {
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://0/",
            "http://127.0.0.1./",
            "http://１２７.０.０.１/",
            "http://%31%32%37.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://user@169.254.169.254:80/",
            "http://1.1.1.1@10.0.0.1/",
        ] {
            assert_eq!(guard(false).admit(url), Err(Forbidden::Address), "{url}");
        }
    }

    #[test]
    fn names_and_permitted_addresses_pass() {
        for url in [
            "https://example.com/a?b",
            "https://1.1.1.1/",
            "https://[2606:4700::1]:8443/",
        ] {
            assert!(guard(true).admit(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn only_https_passes_in_production_and_only_http_besides() {
        assert_eq!(
            guard(true).admit("http://example.com/"),
            Err(Forbidden::Scheme)
        );
        assert!(guard(false).admit("http://example.com/").is_ok());
        for url in ["ftp://example.com/", "file:///etc/passwd", "data:,x"] {
            assert_eq!(guard(false).admit(url), Err(Forbidden::Scheme), "{url}");
        }
        assert_eq!(guard(false).admit("no url"), Err(Forbidden::Url));
    }

    #[tokio::test]
    async fn a_name_resolves_to_its_permitted_addresses_only() {
        let name = || "localhost".parse().unwrap();
        let error = GuardedResolver(AddressPolicy::default())
            .resolve(name())
            .await
            .err()
            .unwrap();
        assert_eq!(error.downcast_ref(), Some(&Forbidden::Address));
        let loopback = AddressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()]);
        let found: Vec<_> = GuardedResolver(loopback)
            .resolve(name())
            .await
            .unwrap()
            .collect();
        assert!(!found.is_empty() && found.iter().all(SocketAddr::is_ipv4));
    }
}
