//! Rows of figures, for people and for programs.

use std::io::Write;

use serde::{Deserialize, Serialize};

/// One figure, and what it is compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The question it answers a part of.
    pub(crate) group: String,
    /// What was measured.
    pub(crate) what: String,
    /// The median.
    pub(crate) value: f64,
    pub(crate) unit: String,
    /// The same of somebody else, measured in turn with it.
    pub(crate) reference: Option<Reference>,
    pub(crate) target: Option<Target>,
}

/// What a figure is compared with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    /// The median, in the unit of the row.
    pub(crate) value: f64,
    /// The median of the quotients of each round: ours by theirs.
    pub(crate) ratio: f64,
}

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    RatioAtLeast(f64),
    RatioAtMost(f64),
}

impl Row {
    pub(crate) fn new(group: &str, what: impl Into<String>, value: f64, unit: &str) -> Row {
        Row {
            group: group.to_owned(),
            what: what.into(),
            value,
            unit: unit.to_owned(),
            reference: None,
            target: None,
        }
    }

    /// Compares with the rounds of a reference; `ours` and `theirs` are pairs, measured in turn.
    pub(crate) fn beside(mut self, name: &str, ours: &[f64], theirs: &[f64]) -> Row {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        self.reference =
            Some(Reference { name: name.to_owned(), value: median(theirs), ratio: median(&ratios) });
        self
    }

    pub(crate) fn target(mut self, target: Target) -> Row {
        self.target = Some(target);
        self
    }

    /// Whether the figure is what it should be; `None` when nobody says what it should be.
    pub(crate) fn verdict(&self) -> Option<bool> {
        let ratio = self.reference.as_ref().map(|reference| reference.ratio);
        Some(match self.target? {
            Target::AtLeast(least) => self.value >= least,
            Target::AtMost(most) => self.value <= most,
            Target::RatioAtLeast(least) => ratio? >= least,
            Target::RatioAtMost(most) => ratio? <= most,
        })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::AtLeast(value) => write!(f, "≥ {value}"),
            Target::AtMost(value) => write!(f, "≤ {value}"),
            Target::RatioAtLeast(ratio) => write!(f, "≥ {ratio} ×"),
            Target::RatioAtMost(ratio) => write!(f, "≤ {ratio} ×"),
        }
    }
}

/// The value in the middle; of an even number, the lower of the two. 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// The smallest value that so great a share of all does not exceed.
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

pub(crate) fn print(rows: &[Row], json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        for row in rows {
            writeln!(out, "{}", serde_json::to_string(row)?)?;
        }
        return Ok(());
    }
    let lines: Vec<[String; 6]> =
        std::iter::once(HEADINGS.map(str::to_owned)).chain(rows.iter().map(cells)).collect();
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    for line in &lines {
        let padded: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", padded.join("  ").trim_end())?;
    }
    Ok(())
}

const HEADINGS: [&str; 6] = ["question", "what", "value", "reference", "ratio", "target"];

fn cells(row: &Row) -> [String; 6] {
    let reference = row.reference.as_ref();
    let verdict = row.verdict().map_or("", |met| if met { "  met" } else { "  MISSED" });
    [
        row.group.clone(),
        row.what.clone(),
        format!("{} {}", number(row.value), row.unit),
        reference.map_or(String::new(), |other| format!("{}: {}", other.name, number(other.value))),
        reference.map_or(String::new(), |other| format!("{:.2}", other.ratio)),
        row.target.map_or(String::new(), |target| format!("{target}{verdict}")),
    ]
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        small if small >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Reads what [`print()`] has printed as JSON.
pub(crate) fn parse(json: &[u8]) -> anyhow::Result<Vec<Row>> {
    let rows = serde_json::Deserializer::from_slice(json).into_iter();
    Ok(rows.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_values() {
        for (values, share, expected) in [
            (&[][..], 0.5, 0.0),
            (&[3.0, 1.0, 2.0], 0.5, 2.0),
            (&[4.0, 1.0, 2.0, 3.0], 0.5, 2.0),
            (&[1.0, 2.0, 3.0, 4.0], 0.99, 4.0),
            (&[5.0], 0.01, 5.0),
        ] {
            assert_eq!(percentile(values, share), expected);
        }
    }

    #[test]
    fn targets_are_judged() {
        let row = |target| Row::new("g", "w", 2.0, "s").beside("cat", &[2.0], &[4.0]).target(target);
        for (target, expected) in [
            (Target::AtLeast(2.0), true),
            (Target::AtMost(1.9), false),
            (Target::RatioAtLeast(0.6), false),
            (Target::RatioAtMost(0.5), true),
        ] {
            assert_eq!(row(target).verdict(), Some(expected), "{target}");
        }
        assert_eq!(Row::new("g", "w", 2.0, "s").verdict(), None);
        assert_eq!(Row::new("g", "w", 2.0, "s").target(Target::RatioAtLeast(1.0)).verdict(), None);
    }
}
