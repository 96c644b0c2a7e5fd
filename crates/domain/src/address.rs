//! Which addresses a webhook may have: those of the public internet, and what the operator excepts.
//!
//! A delivery is a request that a stranger can aim. What is private to the operator's network, and
//! what no host on the internet can have, is forbidden; an IPv6 address that carries an IPv4 address
//! is judged by the one that it carries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The IANA special-purpose ranges of IPv4, and the metadata address that lies outside of them.
const FORBIDDEN_V4: [Ipv4Net; 16] = [
    v4(0, 0, 0, 0, 8),        // "this network"
    v4(10, 0, 0, 0, 8),       // private
    v4(100, 64, 0, 0, 10),    // carrier-grade NAT; Alibaba's metadata
    v4(127, 0, 0, 0, 8),      // loopback
    v4(168, 63, 129, 16, 32), // Azure's platform address
    v4(169, 254, 0, 0, 16),   // link-local; metadata nearly everywhere
    v4(172, 16, 0, 0, 12),    // private
    v4(192, 0, 0, 0, 24),     // protocol assignments; Oracle's metadata
    v4(192, 0, 2, 0, 24),     // documentation
    v4(192, 88, 99, 0, 24),   // 6to4 relays, deprecated
    v4(192, 168, 0, 0, 16),   // private
    v4(198, 18, 0, 0, 15),    // benchmarking
    v4(198, 51, 100, 0, 24),  // documentation
    v4(203, 0, 113, 0, 24),   // documentation
    v4(224, 0, 0, 0, 4),      // multicast
    v4(240, 0, 0, 0, 4),      // reserved, broadcast
];

/// All that is routed on the internet lies in here.
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// What inside of [`GLOBAL_UNICAST`] no host on the internet has.
const FORBIDDEN_V6: [Ipv6Net; 3] = [
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), // protocol assignments, benchmarking, ORCHID
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), // documentation
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), // documentation
];

/// The prefixes whose last 32 bits are an IPv4 address: compatible, mapped, NAT64. (NAT64's local-use
/// prefix 64:ff9b:1::/48 has it where its operator likes; it is forbidden as a whole.)
const CARRIERS: [Ipv6Net; 3] = [
    v6([0, 0, 0, 0, 0, 0, 0, 0], 96),
    v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96),
    v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96),
];
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);
const TEREDO: Ipv6Net = v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32);

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(s: [u16; 8], length: u8) -> Ipv6Net {
    let address = Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]);
    Ipv6Net::new_assert(address, length)
}

/// The rule, with the operator's exceptions. The default has none.
#[derive(Debug, Clone, Default)]
pub struct AddressPolicy {
    allowed: Vec<IpNet>,
}

impl AddressPolicy {
    /// `allowed` are the ranges that are permitted whatever else is said of them.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Whether a delivery may be sent to this address.
    pub fn permits(&self, ip: IpAddr) -> bool {
        if self.allowed.iter().any(|net| net.contains(&ip)) {
            return true;
        }
        match ip {
            IpAddr::V4(ip) => !FORBIDDEN_V4.iter().any(|net| net.contains(&ip)),
            IpAddr::V6(ip) => self.permits_v6(ip),
        }
    }

    fn permits_v6(&self, ip: Ipv6Addr) -> bool {
        let bits = ip.to_bits();
        let permits = |bits: u128| self.permits(Ipv4Addr::from_bits(bits as u32).into());
        if CARRIERS.iter().any(|net| net.contains(&ip)) {
            permits(bits)
        } else if SIX_TO_FOUR.contains(&ip) {
            permits(bits >> 80)
        } else if TEREDO.contains(&ip) {
            // The server, and the client behind it with every bit turned.
            permits(bits >> 64) && permits(!bits)
        } else {
            GLOBAL_UNICAST.contains(&ip) && !FORBIDDEN_V6.iter().any(|net| net.contains(&ip))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(policy: &AddressPolicy, text: &str) -> bool {
        policy.permits(text.parse().unwrap())
    }

    fn allowing(nets: &[&str]) -> AddressPolicy {
        AddressPolicy::new(nets.iter().map(|net| net.parse().unwrap()).collect())
    }

    #[test]
    fn addresses_of_the_internet_are_permitted() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2606:4700:4700::1111",
            "2a00:1450:4001:81b::200e",
        ] {
            assert!(permits(&AddressPolicy::default(), address), "{address}");
        }
    }

    #[test]
    fn addresses_that_are_not_of_the_internet_are_forbidden() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "100::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "3fff:fff::1",
            "64:ff9b:1::808:808",
        ] {
            assert!(!permits(&AddressPolicy::default(), address), "{address}");
        }
    }

    #[test]
    fn an_address_that_carries_another_is_judged_by_that() {
        for (carrier, permitted) in [
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
            ("::ffff:8.8.8.8", true),
            ("::127.0.0.1", false),
            ("::8.8.8.8", true),
            ("64:ff9b::10.0.0.1", false),
            ("64:ff9b::8.8.8.8", true),
            ("2002:7f00:1::1", false),
            ("2002:c0a8:101::", false),
            ("2002:808:808::1", true),
            // Teredo: server 8.8.8.8, client 127.0.0.1; then 8.8.4.4; then the server is private.
            ("2001:0:808:808::80ff:fffe", false),
            ("2001:0:808:808::f7f7:fbfb", true),
            ("2001:0:a00:1::f7f7:fbfb", false),
        ] {
            assert_eq!(
                permits(&AddressPolicy::default(), carrier),
                permitted,
                "{carrier}"
            );
        }
    }

    #[test]
    fn what_the_operator_allows_is_permitted_and_nothing_beside_it() {
        let policy = allowing(&["127.0.0.0/8", "fd12::/16", "64:ff9b:1::/48"]);
        for address in [
            "127.0.0.1",
            "::ffff:127.0.0.1",
            "fd12::1",
            "64:ff9b:1::808:808",
            "1.1.1.1",
        ] {
            assert!(permits(&policy, address), "{address}");
        }
        for address in ["10.0.0.1", "::1", "fd13::1", "::ffff:10.0.0.1"] {
            assert!(!permits(&policy, address), "{address}");
        }
    }
}
