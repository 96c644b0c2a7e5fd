//! How many requests a second are answered, of one client and of one address. All instances count together
//! through Redis; while that is away each counts for itself.
//!
//! A caller that was quiet may send a second's worth at once.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage};
use ipnet::IpNet;
use queue::{Rate, RateLimiter, keys};

use crate::config::LimitConfig;
use crate::error::ApiError;
use crate::state::State;

/// In this time comes back what may be used up at once.
const WINDOW: Duration = Duration::from_secs(1);

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

pub(crate) struct Limits {
    limiter: RateLimiter,
    config: LimitConfig,
}

/// Where a caller stands after its request, as the headers say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    /// Requests a second.
    limit: u32,
    /// Requests that would be answered now.
    remaining: u32,
    /// Seconds until all of them would.
    reset: u64,
}

impl Standing {
    /// `waits`: how long the request would have to wait if all were spaced evenly; `None`: longer than it may.
    fn of(limit: u32, waits: Option<Duration>) -> Self {
        let interval = interval(limit);
        let used = waits.map_or(WINDOW, |waits| waits + interval);
        let left = WINDOW.saturating_sub(used).as_nanos() / interval.as_nanos();
        Self {
            limit,
            remaining: u32::try_from(left).unwrap_or(u32::MAX),
            reset: used.as_secs_f64().ceil() as u64,
        }
    }

    fn write(self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, self.limit.into());
        headers.insert(REMAINING, self.remaining.into());
        headers.insert(RESET, HeaderValue::from(self.reset));
    }
}

fn interval(limit: u32) -> Duration {
    (WINDOW / limit.max(1)).max(Duration::from_nanos(1))
}

impl Limits {
    pub(crate) fn new(limiter: RateLimiter, config: LimitConfig) -> Self {
        Self { limiter, config }
    }

    /// Counts a request of the client.
    pub(crate) async fn client(
        &self,
        request: &ServiceRequest,
        client: i32,
    ) -> Result<(), ApiError> {
        let key = keys::api_client(client);
        self.count(request, key, self.config.per_client, "client")
            .await
    }

    async fn address(&self, request: &ServiceRequest) -> Result<(), ApiError> {
        let Some(peer) = request.peer_addr() else {
            return Ok(());
        };
        let address = caller(peer.ip(), request.headers(), &self.config.trusted_proxies);
        let key = keys::api_address(counted(address));
        self.count(request, key, self.config.per_address, "address")
            .await
    }

    /// Notes where the caller stands; the tightest of its limits is the one that is told.
    async fn count(
        &self,
        request: &ServiceRequest,
        key: String,
        per_second: u32,
        by: &'static str,
    ) -> Result<(), ApiError> {
        if per_second == 0 {
            return Ok(());
        }
        let rates = [Rate { key, per_second }];
        let longest = WINDOW - interval(per_second);
        let waits = self.limiter.reserve(&rates, 1, longest).await;
        let standing = Standing::of(per_second, waits.first().copied());
        let mut extensions = request.extensions_mut();
        let known = extensions.get::<Standing>().copied();
        if known.is_none_or(|known| standing.remaining <= known.remaining) {
            extensions.insert(standing);
        }
        if !waits.is_empty() {
            return Ok(());
        }
        metrics::counter!("recado_api_rate_limited_total", "by" => by).increment(1);
        Err(ApiError::too_many(by, per_second, standing.reset))
    }
}

/// Refuses what comes too fast from one address, and says on every answer how the caller stands.
pub(crate) async fn limit(
    state: Data<State>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let mut response = match state.limits.address(&request).await {
        Ok(()) => next.call(request).await?.map_into_left_body(),
        Err(refused) => request.error_response(refused).map_into_right_body(),
    };
    let standing = response.request().extensions().get::<Standing>().copied();
    if let Some(standing) = standing {
        standing.write(response.headers_mut());
    }
    Ok(response)
}

/// Whose request it is. Only a proxy that is trusted is believed who it came from: each appends to
/// `X-Forwarded-For` who called it, and what stands further left anybody may have made up.
fn caller(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let named: Vec<&str> = headers
        .get_all(FORWARDED_FOR)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    let mut caller = peer.to_canonical();
    for name in named.iter().rev() {
        if !is_trusted(caller) {
            break;
        }
        let Ok(address) = name.trim().parse::<IpAddr>() else {
            break;
        };
        caller = address.to_canonical();
    }
    caller
}

/// One host has a whole network of IPv6 addresses, which count as one.
fn counted(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << 64);
            Ipv6Addr::from_bits(network).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller_of(peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(value).unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        caller(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed_who_calls() {
        assert_eq!(caller_of("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(caller_of("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(
            caller_of("::ffff:10.0.0.1", &["198.51.100.7"]),
            "198.51.100.7"
        );
        // What the caller made up stands left of what the proxies saw.
        let chain = ["203.0.113.9, 198.51.100.7", "fd00::1, 10.0.0.2"];
        assert_eq!(caller_of("10.0.0.1", &chain), "198.51.100.7");
        assert_eq!(
            caller_of("10.0.0.1", &["198.51.100.7, unknown"]),
            "10.0.0.1"
        );
        assert_eq!(caller_of("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(caller_of("10.0.0.1", &["10.0.0.3,10.0.0.2"]), "10.0.0.3");
    }

    #[test]
    fn a_network_of_ipv6_is_one_caller() {
        let counted = |text: &str| counted(text.parse().unwrap()).to_string();
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("192.0.2.1"), "192.0.2.1");
    }

    #[test]
    fn who_stands_where_is_told_in_whole_requests_and_seconds() {
        let standing = |limit, waits: Option<u64>| {
            let Standing {
                remaining, reset, ..
            } = Standing::of(limit, waits.map(Duration::from_millis));
            (remaining, reset)
        };
        assert_eq!(standing(10, Some(0)), (9, 1));
        assert_eq!(standing(10, Some(450)), (4, 1));
        assert_eq!(standing(10, Some(900)), (0, 1));
        assert_eq!(standing(10, None), (0, 1));
        assert_eq!(standing(1, Some(0)), (0, 1));
        assert_eq!(standing(u32::MAX, Some(0)).1, 1);
    }
}
