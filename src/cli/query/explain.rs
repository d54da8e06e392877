//! `counterfoil query --explain`: the query runs, its rows are counted and thrown away, its operators are shown.
//!
//! ```text
//! 1,204,331 rows in 1.85 s, planned in 12 ms; memory 210.0 MiB at most, nothing spilled
//!
//!    time share       rows     read  operator
//!   1.20s   60%  1,204,331           sort by updated_at desc
//!    10ms    1%  1,204,331           └ filter by status
//!   0.79s   39%  3,000,000  83.1MiB    └ read tickets (412 files) ticket_id, status
//! ```
//!
//! Time is that of the cores, so that it may add up to more than has passed; a share is of all operators' time. The
//! operator that the rows came out of last stands first.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::stages::Stages;
use crate::cli::grouped;
use crate::error::{Error, Result};
use crate::query::{Operator, Rows, Session};

/// Columns of the output where the terminal does not say.
const WIDTH: usize = 80;

/// What is shown of a query that ran.
#[derive(Debug, Serialize)]
struct Explanation<'a> {
    query: &'a str,
    rows: u64,
    planning_ms: u64,
    running_ms: u64,
    peak_memory_bytes: usize,
    operators: &'a Operator,
}

/// The form of an explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// For people.
    Table,
    /// One JSON object.
    Json,
}

impl Form {
    /// Reads `--format`.
    pub(super) fn parse(format: Option<&str>) -> Result<Self> {
        match format {
            None | Some("table") => Ok(Self::Table),
            Some("json") => Ok(Self::Json),
            Some(other) => Err(Error::config("--explain shows a table or json")
                .with_context("--format", other)
                .with_hint("leave --format out, or give --format json")),
        }
    }
}

/// Runs a query to its end without keeping a row, and describes what it did.
pub(super) async fn run(
    mut rows: Rows,
    form: Form,
    width: Option<u16>,
    stages: &Stages,
    session: &Session,
) -> Result<(String, u64)> {
    let gauge = rows.gauge().ok_or_else(|| Error::internal("a query without operators cannot be explained"))?;
    let mut count = 0;
    while let Some(batch) = rows.next().await? {
        count += batch.num_rows() as u64;
    }
    let running_ms = stages.running_ms();
    let query = rows.path().to_owned();
    // The operators of other threads write their last figures when their streams end.
    drop(rows);
    let operators = gauge.operators();
    let explanation = Explanation {
        query: &query,
        rows: count,
        planning_ms: stages.planning_ms(),
        running_ms,
        peak_memory_bytes: session.peak_memory_bytes(),
        operators: &operators,
    };
    let text = match form {
        Form::Table => table(&explanation, width.map_or(WIDTH, usize::from)),
        Form::Json => {
            let json = serde_json::to_string_pretty(&explanation)
                .map_err(|cause| Error::internal("failed to write the explanation").with_source(cause))?;
            json + "\n"
        }
    };
    Ok((text, count))
}

fn table(explanation: &Explanation<'_>, width: usize) -> String {
    let operators = explanation.operators;
    let spilled = operators.total_spilled_bytes();
    let mut text = format!(
        "{} {} in {}, planned in {}; memory {} at most, {}\n\n",
        grouped(explanation.rows),
        if explanation.rows == 1 { "row" } else { "rows" },
        time(explanation.running_ms * 1_000),
        time(explanation.planning_ms * 1_000),
        size(explanation.peak_memory_bytes as u64),
        if spilled == 0 { "nothing spilled".to_owned() } else { format!("{} spilled", size(spilled)) },
    );
    let shown = Shown { total_us: operators.total_busy_us().max(1), has_spilled: spilled > 0, width };
    let spilled = if shown.has_spilled { "  spilled" } else { "" };
    let heads = ["time", "share", "rows", "read"];
    let _ = writeln!(text, "{:>7} {:>5} {:>11} {:>9}{spilled}  operator", heads[0], heads[1], heads[2], heads[3]);
    shown.lines(operators, 0, &mut text);
    text
}

struct Shown {
    total_us: u64,
    has_spilled: bool,
    width: usize,
}

impl Shown {
    fn lines(&self, operator: &Operator, depth: usize, text: &mut String) {
        let share = operator.busy_us * 100 / self.total_us;
        let rows = operator.rows.map(grouped).unwrap_or_default();
        let bytes = |bytes: Option<u64>| bytes.filter(|bytes| *bytes > 0).map(size).unwrap_or_default();
        let mut line =
            format!("{:>7} {share:>4}% {rows:>11} {:>9}", time(operator.busy_us), bytes(operator.read_bytes));
        if self.has_spilled {
            let _ = write!(line, " {:>8}", bytes(operator.spilled_bytes));
        }
        let branch = if depth == 0 { String::new() } else { format!("{}└ ", "  ".repeat(depth - 1)) };
        let _ = write!(line, "  {branch}{}", operator.does);
        if let Some(files) = operator.files.filter(|files| *files > 0) {
            let _ = write!(line, " ({} {})", grouped(files), if files == 1 { "file" } else { "files" });
        }
        if !operator.by.is_empty() {
            let link = if operator.does.starts_with("read") || operator.by.starts_with("first") { ":" } else { " by" };
            let _ = write!(line, "{link} {}", operator.by);
        }
        if line.chars().count() > self.width {
            line = line.chars().take(self.width.saturating_sub(1)).chain(['…']).collect();
        }
        text.push_str(&line);
        text.push('\n');
        for input in &operator.inputs {
            self.lines(input, depth + 1, text);
        }
    }
}

fn time(microseconds: u64) -> String {
    let time = Duration::from_micros(microseconds);
    match time.as_millis() {
        0..1_000 => format!("{}ms", time.as_millis()),
        1_000..100_000 => format!("{:.2}s", time.as_secs_f64()),
        _ => format!("{}m{:02}s", time.as_secs() / 60, time.as_secs() % 60),
    }
}

/// Writes bytes in the largest unit that leaves a number of at least one.
pub(super) fn size(bytes: u64) -> String {
    let mut amount = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if amount < 1_024.0 {
            break;
        }
        amount /= 1_024.0;
        unit = larger;
    }
    if unit == "B" { format!("{bytes}B") } else { format!("{amount:.1}{unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator(does: &str, busy_us: u64, inputs: Vec<Operator>) -> Operator {
        Operator {
            does: does.to_owned(),
            by: "status, updated_at, and_many_more_columns_than_fit, that_are_cut_at_the_end_of_the_line".to_owned(),
            engine: "Exec".to_owned(),
            busy_us,
            rows: Some(1_234_567),
            files: inputs.is_empty().then_some(412),
            read_bytes: inputs.is_empty().then_some(83 << 20),
            spilled_bytes: None,
            memory_bytes: None,
            inputs,
        }
    }

    #[test]
    fn tree_fits_eighty_columns_and_shares_add_up() {
        let read = operator("read tickets", 600_000, Vec::new());
        let tree = operator("sort", 300_000, vec![operator("filter", 100_000, vec![read])]);
        let explanation = Explanation {
            query: "q",
            rows: 1_234_567,
            planning_ms: 12,
            running_ms: 1_850,
            peak_memory_bytes: 210 << 20,
            operators: &tree,
        };
        let text = table(&explanation, 80);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "1,234,567 rows in 1.85s, planned in 12ms; memory 210.0MiB at most, nothing spilled");
        assert!(lines[2].ends_with("operator") && !lines[2].contains("spilled"), "{text}");
        assert!(lines[3].contains(" 30% ") && lines[4].contains(" 10% ") && lines[5].contains(" 60% "), "{text}");
        assert!(lines[5].contains("83.0MiB  ") && lines[5].contains("└ read tickets (412 files): st"), "{text}");
        assert!(lines[2..].iter().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn figures_are_short() {
        for (us, text) in [(0, "0ms"), (999_999, "999ms"), (1_000_000, "1.00s"), (100_000_000, "1m40s")] {
            assert_eq!(time(us), text);
        }
        for (bytes, text) in
            [(0, "0B"), (1_023, "1023B"), (1_024, "1.0KiB"), (83 << 20, "83.0MiB"), (5 << 40, "5.0TiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn other_formats_are_refused() {
        assert_eq!(Form::parse(Some("json")).unwrap(), Form::Json);
        assert_eq!(Form::parse(Some("csv")).unwrap_err().kind(), crate::error::ErrorKind::Config);
    }
}
