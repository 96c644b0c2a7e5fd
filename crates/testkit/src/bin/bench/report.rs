//! The report's form, which outlives what is measured.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::machine::Machine;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    rows: Vec<Row>,
    machine: Machine,
}

#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    unit: &'static str,
    median: f64,
    min: f64,
    max: f64,
    /// Of A, which was measured in the same rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio_to_a: Option<f64>,
    /// What bounds it, or what else is to be said.
    #[serde(skip)]
    note: String,
}

impl Row {
    /// A row of the values of all rounds, of which there is at least one.
    pub(crate) fn of(name: &'static str, unit: &'static str, values: Vec<f64>) -> Self {
        let values = sorted(values);
        Self {
            name,
            unit,
            median: rounded(median(&values)),
            min: rounded(values[0]),
            max: rounded(values[values.len() - 1]),
            ratio_to_a: None,
            note: String::new(),
        }
    }

    /// With each round's ratio to what A reached in it.
    pub(crate) fn with_ratios(self, ratios: Vec<f64>) -> Self {
        Self {
            ratio_to_a: Some(rounded(median(&sorted(ratios)))),
            ..self
        }
    }

    pub(crate) fn with_note(self, note: String) -> Self {
        Self { note, ..self }
    }
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    } else {
        sorted[middle]
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

impl Report {
    /// Of this machine as it is now.
    pub(crate) fn of(rows: Vec<Row>) -> Self {
        Self {
            rows,
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
                ..
            } = row;
            write!(
                formatter,
                "{name:<32} {median:>10.2} {min:>10.2} {max:>10.2} {unit}"
            )?;
            if let Some(ratio) = row.ratio_to_a {
                write!(formatter, ", {ratio:.3} of A")?;
            }
            writeln!(formatter)?;
        }
        for row in self.rows.iter().filter(|row| !row.note.is_empty()) {
            writeln!(formatter, "{}: {}", row.name, row.note)?;
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

    #[test]
    fn the_report_says_a_ratio_where_there_is_one_and_keeps_its_notes_to_the_table() {
        let plain = Row::of("plain", "ms", vec![1.0]).with_note("because".to_owned());
        let compared = Row::of("compared", "/s", vec![1.0]).with_ratios(vec![0.5, 0.7, 0.6]);
        let report = Report::of(vec![plain, compared]);
        let rows = serde_json::to_value(&report).unwrap()["rows"].take();
        let expected = serde_json::json!([
            {"name": "plain", "unit": "ms", "median": 1.0, "min": 1.0, "max": 1.0},
            {"name": "compared", "unit": "/s", "median": 1.0, "min": 1.0, "max": 1.0, "ratio_to_a": 0.6},
        ]);
        assert_eq!(rows, expected);
        let table = report.to_string();
        assert!(
            table.contains("plain: because") && table.contains("0.600 of A"),
            "{table}"
        );
    }
}
