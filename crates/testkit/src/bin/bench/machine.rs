//! The machine, and who uses its processors.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::process;
use std::time::Instant;

use rustix::param::clock_ticks_per_second;
use rustix::process::Pid;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    processor: String,
    processors: usize,
    memory_mib: u64,
    kernel: String,
    /// Over the last minute, at the end.
    load_average: f64,
}

impl Machine {
    pub(crate) fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let value = |text: &str, key| {
            let line = text.lines().find(|line| line.starts_with(key));
            let value = line.and_then(|line| line.split_once(':'));
            value
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let memory = value(&read("/proc/meminfo"), "MemTotal");
        let memory = memory
            .split(' ')
            .next()
            .and_then(|kib| kib.parse::<u64>().ok());
        let load = read("/proc/loadavg");
        Self {
            processor: value(&cpuinfo, "model name"),
            processors: processors(),
            memory_mib: memory.unwrap_or(0) / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average: load
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            processor,
            processors,
            memory_mib,
            kernel,
            load_average,
        } = self;
        write!(
            formatter,
            "{processors} × {processor}, {memory_mib} MiB, Linux {kernel}, load average {load_average}"
        )
    }
}

/// Processor time used since the machine's start, in ticks, by name.
pub(crate) struct Usage {
    at: Instant,
    ours: BTreeMap<String, u64>,
    all: u64,
}

/// Processors that are idle for less than this are what bounds the work.
const IDLE: f64 = 0.1;

/// The name of those that are not ours.
const OTHERS: &str = "others";

/// Processor time that was used meanwhile, in seconds by name.
#[derive(Debug, Clone)]
pub(crate) struct Busy {
    seconds: f64,
    by: Vec<(String, f64)>,
}

impl Usage {
    /// Of these processes and their children, of this one, and of the programs that it ran to their end.
    pub(crate) fn now(processes: &[(String, Pid)]) -> Self {
        let mut ours: BTreeMap<_, _> = processes
            .iter()
            .map(|(name, pid)| (name.clone(), with_children(pid.as_raw_nonzero().get())))
            .collect();
        let this = Stat::of(i32::try_from(process::id()).unwrap_or_default());
        ours.insert("bench".to_owned(), this.own);
        ours.insert("sender".to_owned(), this.reaped);
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let total = stat.lines().next().unwrap_or_default();
        let fields: Vec<u64> = total
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        // user, nice, system; then idle and iowait; then irq, softirq and steal.
        let busy = fields
            .iter()
            .take(3)
            .chain(fields.iter().skip(5).take(3))
            .sum();
        Self {
            at: Instant::now(),
            ours,
            all: busy,
        }
    }

    /// Who was busy from then to now. A process that was not there then has started since.
    pub(crate) fn until(&self, now: &Self) -> Busy {
        let tick = 1.0 / clock_ticks_per_second() as f64;
        let used = |before: u64, after: u64| after.saturating_sub(before) as f64 * tick;
        let mut by: Vec<_> = now
            .ours
            .iter()
            .map(|(name, after)| {
                let before = self.ours.get(name).copied().unwrap_or(0);
                (name.clone(), used(before, *after))
            })
            .collect();
        let ours: f64 = by.iter().map(|(_, seconds)| *seconds).sum();
        let others = (used(self.all, now.all) - ours).max(0.0);
        by.push((OTHERS.to_owned(), others));
        by.retain(|(_, seconds)| *seconds > 0.0);
        Busy {
            seconds: now.at.duration_since(self.at).as_secs_f64(),
            by,
        }
    }
}

impl Busy {
    /// Processors that this one kept busy, on the average.
    pub(crate) fn cores(&self, name: &str) -> f64 {
        let found = self.by.iter().find(|(known, _)| known == name);
        found.map_or(0.0, |(_, seconds)| seconds / self.seconds)
    }

    /// Whether there were processors for more, and how much of them others had.
    pub(crate) fn idle(&self) -> String {
        let share = |(_, seconds): &(String, f64)| seconds / self.seconds;
        let idle = 1.0 - self.by.iter().map(share).sum::<f64>() / processors() as f64;
        let others = self.cores(OTHERS);
        match idle < IDLE {
            true => format!("bound by the processors, of which others had {others:.2}"),
            false => format!(
                "the processors were idle for {:.0} % of the time",
                idle * 100.0
            ),
        }
    }

    /// What each of so many pieces of work took in all and of whom, in microseconds.
    pub(crate) fn each_of(&self, count: usize) -> String {
        let each = |seconds: f64| seconds * 1e6 / count as f64;
        let ours = self.by.iter().filter(|(name, _)| name != OTHERS);
        let all: f64 = ours.map(|(_, seconds)| each(*seconds)).sum();
        let by = listed(&self.by, |seconds| format!("{:.1}", each(seconds)));
        format!("{all:.1} ({by})")
    }
}

impl fmt::Display for Busy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |seconds: f64| format!("{:.2}", seconds / self.seconds);
        formatter.write_str(&listed(&self.by, share))
    }
}

fn listed(by: &[(String, f64)], shown: impl Fn(f64) -> String) -> String {
    let all: Vec<_> = by
        .iter()
        .map(|(name, seconds)| format!("{name} {}", shown(*seconds)))
        .collect();
    all.join(", ")
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The most memory that the process ever had, in MiB.
pub(crate) fn peak_mib(pid: Pid) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
    let status = status.unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}

/// A process's ticks.
#[derive(Default)]
struct Stat {
    own: u64,
    /// Of its children that have ended.
    reaped: u64,
    parent: i32,
}

impl Stat {
    /// Nothing for a process that is gone.
    fn of(pid: i32) -> Self {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        Self::parse(&text).unwrap_or_default()
    }

    /// Its name, in parentheses, may contain anything.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        // Counted from the state, which follows the name.
        Some(Self {
            own: number(11)? + number(12)?,
            reaped: number(13)? + number(14)?,
            parent: fields.get(1)?.parse().ok()?,
        })
    }
}

fn with_children(pid: i32) -> u64 {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let children = pids.map(Stat::of).filter(|child| child.parent == pid);
    let this = Stat::of(pid);
    this.own + this.reaped + children.map(|child| child.own).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processs_name_may_look_like_its_numbers() {
        let stat = Stat::parse("7 (a) R 1 ) S 3 7 7 0 -1 0 0 0 0 0 10 20 30 40 20 0 1").unwrap();
        assert_eq!((stat.own, stat.reaped, stat.parent), (30, 70, 3));
    }

    #[test]
    fn work_is_shared_out_over_those_who_did_it() {
        let usage = |seconds, one, all| Usage {
            at: Instant::now() + std::time::Duration::from_secs(seconds),
            ours: BTreeMap::from([("one".to_owned(), one), ("idle".to_owned(), 5)]),
            all,
        };
        let second = clock_ticks_per_second();
        let before = usage(0, second, 0);
        let busy = before.until(&usage(2, 2 * second, 3 * second));
        assert!((busy.cores("one") - 0.5).abs() < 0.01);
        assert_eq!(busy.each_of(1_000_000), "1.0 (one 1.0, others 2.0)");
    }
}
