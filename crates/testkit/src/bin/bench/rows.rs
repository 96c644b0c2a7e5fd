//! The rows that there are, and what measures which.

mod drain;
mod events;
mod hang;
mod pair;
mod sessions;
mod spread;
mod steady;
mod whatsapp;

use anyhow::ensure;
use testkit::panics::caught;

use crate::report::Row;
use crate::stage::Stage;

/// How much is measured.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    pub(crate) rounds: usize,
    /// Of a backlog.
    pub(crate) events: usize,
}

/// Rows that are measured together.
#[derive(Debug, Clone, Copy)]
enum Family {
    Drain,
    Spread,
    Pair,
    Steady,
    Hang,
    Whatsapp,
    Sessions,
    Events,
}

impl Family {
    const ALL: [Self; 8] = [
        Self::Drain,
        Self::Spread,
        Self::Pair,
        Self::Steady,
        Self::Hang,
        Self::Whatsapp,
        Self::Sessions,
        Self::Events,
    ];

    fn rows(self) -> &'static [&'static str] {
        match self {
            Self::Drain => &drain::ROWS,
            Self::Spread => &spread::ROWS,
            Self::Pair => &pair::ROWS,
            Self::Steady => &steady::ROWS,
            Self::Hang => &hang::ROWS,
            Self::Whatsapp => &whatsapp::ROWS,
            Self::Sessions => &sessions::ROWS,
            Self::Events => &events::ROWS,
        }
    }

    async fn measure(self, extent: &Extent) -> anyhow::Result<Vec<Row>> {
        match self {
            Self::Drain => drain::measure(extent).await,
            Self::Spread => spread::measure(extent).await,
            Self::Pair => pair::measure(extent).await,
            Self::Steady => steady::measure(extent).await,
            Self::Hang => hang::measure(extent).await,
            Self::Whatsapp => whatsapp::measure(extent).await,
            Self::Sessions => sessions::measure(extent).await,
            Self::Events => events::measure(extent).await,
        }
    }
}

/// The URLs of so many webhooks, all on one host.
fn urls(stage: &Stage, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| stage.sink.url(&format!("/hooks/{number}")))
        .collect()
}

/// Rows to be measured.
#[derive(Debug)]
pub(crate) struct Wanted(Vec<&'static str>);

impl Wanted {
    /// Those of these names; all when none is named.
    pub(crate) fn named(names: &[String]) -> anyhow::Result<Self> {
        let known: Vec<_> = Family::ALL
            .iter()
            .flat_map(|family| family.rows())
            .collect();
        let names: Vec<_> = names.iter().filter(|name| !name.is_empty()).collect();
        for name in &names {
            ensure!(
                known.contains(&&name.as_str()),
                "there is no row {name:?}; there are {known:?}"
            );
        }
        let wanted = |row: &&str| names.is_empty() || names.iter().any(|name| name == row);
        Ok(Self(known.into_iter().copied().filter(wanted).collect()))
    }

    /// Measures them, each family once. What fails takes no other rows with it: it is told beside them.
    pub(crate) async fn measure(&self, extent: &Extent) -> (Vec<Row>, Vec<anyhow::Error>) {
        let (mut rows, mut failures) = (Vec::new(), Vec::new());
        for family in Family::ALL {
            if !family.rows().iter().any(|row| self.0.contains(row)) {
                continue;
            }
            match caught(family.measure(extent)).await {
                Ok(measured) => rows.extend(measured),
                Err(error) => failures.push(error.context(family.rows().join(", "))),
            }
        }
        rows.retain(|row| self.0.contains(&row.name));
        (rows, failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> anyhow::Result<Vec<&'static str>> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        Wanted::named(&names).map(|wanted| wanted.0)
    }

    #[test]
    fn rows_are_measured_that_are_named_or_all() {
        assert_eq!(named(&["drain", "a"]).unwrap(), ["a", "drain"]);
        assert_eq!(named(&[]).unwrap(), named(&[""]).unwrap());
        assert!(named(&[]).unwrap().len() > 3);
    }

    #[test]
    fn a_row_that_there_is_not_is_told_with_those_that_there_are() {
        let error = named(&["drian"]).unwrap_err().to_string();
        assert!(
            error.contains("drian") && error.contains("\"drain\""),
            "{error}"
        );
    }
}
