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
            processors: std::thread::available_parallelism().map_or(0, usize::from),
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

/// Processors that were busy on the average, by name; `others` are not ours.
pub(crate) struct Busy(Vec<(String, f64)>);

impl Usage {
    /// Of these processes and their children, and of this one.
    pub(crate) fn now(processes: &[(String, Pid)]) -> Self {
        let mut ours: BTreeMap<_, _> = processes
            .iter()
            .map(|(name, pid)| (name.clone(), with_children(pid.as_raw_nonzero().get())))
            .collect();
        let this = i32::try_from(process::id()).unwrap_or_default();
        ours.insert("bench".to_owned(), own(this));
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

    /// Who was busy from then to now.
    pub(crate) fn until(&self, now: &Self) -> Busy {
        let ticks = now.at.duration_since(self.at).as_secs_f64() * clock_ticks_per_second() as f64;
        let share = |before: u64, after: u64| after.saturating_sub(before) as f64 / ticks;
        let mut all: Vec<_> = now
            .ours
            .iter()
            .map(|(name, after)| {
                let before = self.ours.get(name).copied().unwrap_or(*after);
                (name.clone(), share(before, *after))
            })
            .collect();
        let ours: f64 = all.iter().map(|(_, share)| share).sum();
        all.push((
            "others".to_owned(),
            (share(self.all, now.all) - ours).max(0.0),
        ));
        Busy(all)
    }
}

impl fmt::Display for Busy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, share)) in self.0.iter().enumerate() {
            let separator = if at > 0 { ", " } else { "" };
            write!(formatter, "{separator}{name} {share:.2}")?;
        }
        Ok(())
    }
}

/// A process's own ticks and its parent. Its name, in parentheses, may contain anything.
fn stat(pid: i32) -> Option<(u64, i32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    // Counted from the state, which follows the name.
    Some((number(11)? + number(12)?, fields.get(1)?.parse().ok()?))
}

fn own(pid: i32) -> u64 {
    stat(pid).map_or(0, |(ticks, _)| ticks)
}

fn with_children(pid: i32) -> u64 {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let children = pids.filter_map(stat).filter(|(_, parent)| *parent == pid);
    own(pid) + children.map(|(ticks, _)| ticks).sum::<u64>()
}
