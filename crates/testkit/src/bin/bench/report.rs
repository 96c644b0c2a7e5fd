//! The report's form, which outlives what is measured.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::machine::Machine;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    machine: Machine,
}

#[derive(Debug, Serialize)]
pub(crate) struct Row {
    name: &'static str,
    unit: &'static str,
    median: f64,
    min: f64,
    max: f64,
}

impl Row {
    /// A row of the values of all rounds, of which there is at least one.
    pub(crate) fn of(name: &'static str, unit: &'static str, mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            (values[middle - 1] + values[middle]) / 2.0
        } else {
            values[middle]
        };
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        Self {
            name,
            unit,
            median: rounded(median),
            min: rounded(values[0]),
            max: rounded(values[values.len() - 1]),
        }
    }
}

impl Report {
    /// Without rows, of this machine as it is now.
    pub(crate) fn new() -> Self {
        Self {
            rows: Vec::new(),
            machine: Machine::this(),
        }
    }

    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        let folder = path.parent().unwrap_or(Path::new("."));
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(path, text));
        written.with_context(|| path.display().to_string())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, median, min, max) = ("row", "median", "min", "max");
        writeln!(formatter, "{name:<32} {median:>10} {min:>10} {max:>10}")?;
        for row in &self.rows {
            let Row {
                name,
                unit,
                median,
                min,
                max,
            } = row;
            writeln!(
                formatter,
                "{name:<32} {median:>10.2} {min:>10.2} {max:>10.2} {unit}"
            )?;
        }
        write!(formatter, "{}", self.machine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_median_and_the_range() {
        let row = |values: &[f64]| {
            let row = Row::of("r", "ms", values.to_vec());
            (row.median, row.min, row.max)
        };
        assert_eq!(row(&[3.0, 1.0, 2.0]), (2.0, 1.0, 3.0));
        assert_eq!(row(&[4.0, 1.0]), (2.5, 1.0, 4.0));
        assert_eq!(row(&[7.12345]), (7.123, 7.123, 7.123));
    }
}
