//! Rates that hold over all processes: each request is given the moment at which it may start, one
//! interval after the one before. Redis keeps the last moment of each rate, by its own clock; without
//! Redis every process keeps the rate for itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool_redis::Pool;
use redis::Script;
use tokio::time::timeout;

/// What Redis may take to answer.
const LIMIT: Duration = Duration::from_millis(300);
/// After a failure Redis isn't asked for so long.
const REST: Duration = Duration::from_secs(1);
/// Rates that are kept here at most while Redis is away. Beyond that all begin anew.
const KEPT: usize = 10_000;

/// Gives moments as long as they lie within the longest wait: `ARGV` is that wait, the number of
/// requests, and each key's interval, in microseconds. Answers waits in microseconds.
const RESERVE: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local last, waits = {}, {}
for i, key in ipairs(KEYS) do
  last[i] = tonumber(redis.call('GET', key) or '0')
end
for n = 1, tonumber(ARGV[2]) do
  local at = now
  for i = 1, #KEYS do
    at = math.max(at, last[i] + ARGV[2 + i])
  end
  if at - now > tonumber(ARGV[1]) then break end
  for i = 1, #KEYS do last[i] = at end
  waits[n] = at - now
end
if #waits > 0 then
  for i, key in ipairs(KEYS) do
    redis.call('SET', key, string.format('%.0f', last[i]), 'PX', 5000 + math.ceil(ARGV[2 + i] / 1000))
  end
end
return waits";

/// A rate that a request must keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    /// One of [`crate::keys`].
    pub key: String,
    /// At least 1.
    pub per_second: u32,
}

impl Rate {
    fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.per_second.max(1)
    }
}

/// Keeps rates.
pub struct RateLimiter {
    pool: Pool,
    script: Script,
    resting_until: Mutex<Option<Instant>>,
    local: Mutex<HashMap<String, Instant>>,
}

impl RateLimiter {
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            script: Script::new(RESERVE),
            resting_until: Mutex::default(),
            local: Mutex::default(),
        }
    }

    /// How long each of `requests` requests has to wait, where that is no longer than `longest`: the
    /// first ones of them, in order. All rates are kept.
    pub async fn reserve(
        &self,
        rates: &[Rate],
        requests: usize,
        longest: Duration,
    ) -> Vec<Duration> {
        let rests = lock(&self.resting_until).is_some_and(|until| Instant::now() < until);
        if !rests {
            let asked = self.ask(rates, requests, longest);
            if let Ok(Some(waits)) = timeout(LIMIT, asked).await {
                return waits;
            }
            *lock(&self.resting_until) = Some(Instant::now() + REST);
        }
        self.reserve_here(rates, requests, longest, Instant::now())
    }

    /// `None` when Redis is away.
    async fn ask(
        &self,
        rates: &[Rate],
        requests: usize,
        longest: Duration,
    ) -> Option<Vec<Duration>> {
        let mut connection = self.pool.get().await.ok()?;
        let mut call = self.script.prepare_invoke();
        call.arg(micros(longest)).arg(requests);
        for rate in rates {
            call.key(&rate.key).arg(micros(rate.interval()));
        }
        let waits: Vec<u64> = call.invoke_async(&mut connection).await.ok()?;
        Some(waits.into_iter().map(Duration::from_micros).collect())
    }

    fn reserve_here(
        &self,
        rates: &[Rate],
        requests: usize,
        longest: Duration,
        now: Instant,
    ) -> Vec<Duration> {
        let mut last = lock(&self.local);
        if last.len() > KEPT {
            last.clear();
        }
        let mut waits = Vec::new();
        for _ in 0..requests {
            let starts = rates
                .iter()
                .filter_map(|rate| Some(*last.get(&rate.key)? + rate.interval()));
            let start = starts.max().unwrap_or(now).max(now);
            if start - now > longest {
                break;
            }
            waits.push(start - now);
            for rate in rates {
                last.insert(rate.key.clone(), start);
            }
        }
        waits
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
