use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};
use serde_json::json;

use crate::openapi::schema::schema;

/// Ranges that one webhook may list.
const MOST: usize = 50;

/// The ranges that a receiver's address must fall in, each once and without bits of hosts. None: any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IpRanges(Vec<IpNet>);

schema! { IpRanges, json!({
    "type": "array",
    "description": "CIDRs of which one must hold the receiver's address, at each connection. None: any.",
    "maxItems": MOST,
    "items": {"type": "string", "anyOf": [{"pattern": V4}, {"pattern": V6}]},
    "examples": [["203.0.113.0/24", "2001:db8::/32"]],
}) }

const V4: &str = concat!(
    r"^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}",
    r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])/(3[0-2]|[12]?[0-9])$",
);
/// Which of these are addresses is left to who reads them.
const V6: &str = "^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*/(12[0-8]|1[01][0-9]|[1-9]?[0-9])$";

impl IpRanges {
    /// Those of a row.
    pub(crate) fn stored(texts: &[String]) -> Self {
        Self(texts.iter().filter_map(|text| text.parse().ok()).collect())
    }

    /// As they are stored.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// Whether a receiver may have this address, as far as its webhook says.
    pub(crate) fn admit(&self, ip: IpAddr) -> bool {
        let canonical = ip.to_canonical();
        let holds = |net: &IpNet| net.contains(&ip) || net.contains(&canonical);
        self.0.is_empty() || self.0.iter().any(holds)
    }
}

impl<'de> Deserialize<'de> for IpRanges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ranges = Vec::<Range>::deserialize(deserializer)?;
        if ranges.len() > MOST {
            let problem = format_args!("must not have more than {MOST} items");
            return Err(de::Error::custom(problem));
        }
        let mut nets: Vec<IpNet> = Vec::new();
        for Range(net) in ranges {
            if !nets.contains(&net) {
                nets.push(net);
            }
        }
        Ok(Self(nets))
    }
}

struct Range(IpNet);

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let net: IpNet = text.parse().map_err(|_| {
            de::Error::custom("is not a range of addresses such as 203.0.113.0/24 or 2001:db8::/32")
        })?;
        Ok(Self(net.trunc()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn ranges(texts: &[&str]) -> IpRanges {
        from_value(json!(texts)).unwrap()
    }

    #[test]
    fn ranges_are_stored_without_bits_of_hosts_and_each_once() {
        let normal = ranges(&["203.0.113.77/24", "203.0.113.0/24", "2001:DB8::1/32"]);
        assert_eq!(normal.texts(), ["203.0.113.0/24", "2001:db8::/32"]);
        assert_eq!(IpRanges::stored(&normal.texts()), normal);
        for value in [
            json!(["203.0.113.0"]),
            json!(["203.0.113.0/33"]),
            json!(["example.com/24"]),
            json!([24]),
            json!("203.0.113.0/24"),
            json!(vec!["203.0.113.0/24"; MOST + 1]),
        ] {
            assert!(from_value::<IpRanges>(value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn an_address_must_fall_in_one_of_them_if_there_are_any() {
        let admits = |texts: &[&str], ip: &str| ranges(texts).admit(ip.parse().unwrap());
        assert!(admits(&[], "203.0.113.7"));
        assert!(admits(
            &["198.51.100.0/24", "203.0.113.0/24"],
            "203.0.113.7"
        ));
        assert!(admits(&["203.0.113.0/24"], "::ffff:203.0.113.7"));
        assert!(!admits(&["203.0.113.0/24"], "203.0.114.7"));
        assert!(!admits(&["203.0.113.0/24"], "2001:db8::1"));
    }
}
