//! Tables of numbers, as Markdown here and as HTML on pages.

use std::fmt;

/// A table: the first column names the rows.
pub(crate) struct Table {
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self {
            head: head.map(str::to_owned).into(),
            rows: Vec::new(),
        }
    }
}

/// Markdown, with an empty line before and after it.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, cells: &[String]| {
            let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            writeln!(f, "| {} |", cells.join(" | "))
        };
        writeln!(f)?;
        line(f, &self.head)?;
        writeln!(
            f,
            "|---{}|",
            "|---:".repeat(self.head.len().saturating_sub(1))
        )?;
        for row in &self.rows {
            line(f, row)?;
        }
        writeln!(f)
    }
}

/// A share as a number of hundredths.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// The content of a cell where nothing was measured.
pub(crate) fn or_dash(value: Option<f64>, write: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), write)
}
