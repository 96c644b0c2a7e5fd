//! Where a request may go. The scheme is checked when a webhook's settings are read; the address where
//! each connection is made, between resolving and connecting, so that there is no time between the check
//! and the use. A literal address in any notation is checked both times.

use std::net::{IpAddr, SocketAddr};

use domain::address::AddressPolicy;
use http::Uri;
use ipnet::IpNet;
use thiserror::Error;
use url::{Host, Url};

/// Why nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Forbidden {
    #[error("the URL is not valid")]
    Url,
    #[error("the URL must begin with https://")]
    Scheme,
    #[error("the address is not one that webhooks may have")]
    Address,
    #[error("the address is not in the webhook's allowed_ip_ranges")]
    Range,
}

#[derive(Debug, Clone)]
pub(crate) struct Guard {
    pub(crate) addresses: AddressPolicy,
    pub(crate) https_only: bool,
}

impl Guard {
    /// Where requests for the URL go, if they may be sent as far as can be told without resolving its
    /// host.
    pub(crate) fn admit(&self, url: &str, ranges: &[IpNet]) -> Result<Uri, Forbidden> {
        let mut url = Url::parse(url).map_err(|_| Forbidden::Url)?;
        match url.scheme() {
            "https" => {}
            "http" if !self.https_only => {}
            _ => return Err(Forbidden::Scheme),
        }
        // The parser has brought every notation of an IPv4 address into one.
        match url.host() {
            Some(Host::Ipv4(ip)) => self.permit(ip.into(), ranges)?,
            Some(Host::Ipv6(ip)) => self.permit(ip.into(), ranges)?,
            Some(Host::Domain(_)) => {}
            None => return Err(Forbidden::Url),
        }
        // Never sent, and no part of what the pool of connections goes by.
        url.set_fragment(None);
        let _ = (url.set_username(""), url.set_password(None));
        url.as_str().parse().map_err(|_| Forbidden::Url)
    }

    /// Of the addresses that a name has now, those that may be connected to.
    pub(crate) fn permitted(
        &self,
        found: impl Iterator<Item = SocketAddr>,
        ranges: &[IpNet],
    ) -> Result<Vec<SocketAddr>, Forbidden> {
        let mut refusal = Forbidden::Address;
        let permitted: Vec<SocketAddr> = found
            .filter(|found| match self.permit(found.ip(), ranges) {
                Ok(()) => true,
                Err(why) => {
                    refusal = why;
                    false
                }
            })
            .collect();
        match permitted.is_empty() {
            true => Err(refusal),
            false => Ok(permitted),
        }
    }

    fn permit(&self, ip: IpAddr, ranges: &[IpNet]) -> Result<(), Forbidden> {
        if !self.addresses.permits(ip) {
            return Err(Forbidden::Address);
        }
        let ip = ip.to_canonical();
        match ranges.is_empty() || ranges.iter().any(|range| range.contains(&ip)) {
            true => Ok(()),
            false => Err(Forbidden::Range),
        }
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
            "http://127。0。0。1/",
            "http://%31%32%37.0.0.1/",
            "http://[::1]/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[::127.0.0.1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[2002:7f00:1::]/",
            "http://[2002:a9fe:a9fe::1]/",
            "http://[fe80::1]/",
            "http://[fd00::1]/",
            "http://user@169.254.169.254:80/",
            "http://1.1.1.1@10.0.0.1/",
            "http://0xa9.0xfe.0xa9.0xfe/",
            "http://2852039166/",
        ] {
            assert_eq!(
                guard(false).admit(url, &[]),
                Err(Forbidden::Address),
                "{url}"
            );
        }
    }

    #[test]
    fn names_and_permitted_addresses_pass() {
        for url in [
            "https://example.com/a?b",
            "https://1.1.1.1/",
            "https://[2606:4700::1]:8443/",
        ] {
            let uri = guard(true).admit(url, &[]).unwrap();
            assert_eq!(uri, url);
        }
        let bare = guard(true).admit("https://u:p@example.com/a#b", &[]);
        assert_eq!(bare.unwrap(), "https://example.com/a");
    }

    #[test]
    fn only_https_passes_in_production_and_only_http_besides() {
        let admit = |https_only, url| guard(https_only).admit(url, &[]);
        assert_eq!(admit(true, "http://example.com/"), Err(Forbidden::Scheme));
        assert!(admit(false, "http://example.com/").is_ok());
        for url in ["ftp://example.com/", "file:///etc/passwd", "data:,x"] {
            assert_eq!(admit(false, url), Err(Forbidden::Scheme), "{url}");
        }
        assert_eq!(admit(false, "no url"), Err(Forbidden::Url));
    }

    #[test]
    fn a_webhooks_own_ranges_narrow_what_is_permitted_and_widen_nothing() {
        let ranges = ["1.1.1.0/24".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        let admit = |url| guard(false).admit(url, &ranges).err();
        assert_eq!(admit("http://1.1.1.1/"), None);
        assert_eq!(admit("http://[::ffff:1.1.1.1]/"), None);
        assert_eq!(admit("http://8.8.8.8/"), Some(Forbidden::Range));
        assert_eq!(admit("http://10.0.0.1/"), Some(Forbidden::Address));
    }

    #[test]
    fn a_name_keeps_its_permitted_addresses_only() {
        let found = || {
            ["10.0.0.1:80", "1.1.1.1:80", "[::1]:80"]
                .into_iter()
                .map(|address| address.parse().unwrap())
        };
        let permitted = guard(false).permitted(found(), &[]);
        assert_eq!(permitted.unwrap(), ["1.1.1.1:80".parse().unwrap()]);
        let none = guard(false).permitted(found().skip(2), &[]);
        assert_eq!(none, Err(Forbidden::Address));
    }
}
