//! What a query did: its operators as a tree, with time, rows, bytes read and spilled.
//!
//! ```text
//! engine's plan ─▶ Operator (words of ours, names of columns) ─▶ table for people (cli) or JSON
//! ```
//!
//! An explanation is made to be shown around, so it holds names and counts only: no values of rows, and of expressions
//! only the columns that they read. A column that an expression made, whose name may hold literals, is left out.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{HashJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::metrics::{MetricValue, MetricsSet};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, Partitioning};
use serde::Serialize;

/// One operator of a query that ran, with the operators that it took its rows from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Operator {
    /// What it did, in words: `sort`, `filter`, `read tickets`.
    pub does: String,
    /// The columns that it did it by, or how many rows it was to return.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// The engine's name for it.
    pub engine: String,
    /// Time of the cores that it used, its inputs' left out, microseconds; it may be more than has passed by the clock.
    pub busy_us: u64,
    /// Rows that came out of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Files that it opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Bytes that it asked of the store, encrypted and compressed as they are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_bytes: Option<u64>,
    /// Bytes that it wrote to disk because they did not fit into memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spilled_bytes: Option<u64>,
    /// The most memory that it held, as far as it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Where its rows came from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Operator>,
}

impl Operator {
    /// Describes a plan with what its metrics say now.
    pub(super) fn of(plan: &Arc<dyn ExecutionPlan>) -> Self {
        // An operator that only yields to others is no step of the query.
        if plan.is::<CooperativeExec>()
            && let [input] = plan.children().as_slice()
        {
            return Self::of(input);
        }
        let figures = plan.metrics().map(|metrics| Figures::of(&metrics)).unwrap_or_default();
        let (does, by) = words(plan, &figures);
        Self {
            does,
            by,
            engine: plan.name().to_owned(),
            busy_us: figures.busy_us,
            rows: figures.rows,
            files: figures.files,
            read_bytes: figures.read_bytes,
            spilled_bytes: figures.spilled_bytes.filter(|bytes| *bytes > 0),
            memory_bytes: figures.memory_bytes.filter(|bytes| *bytes > 0),
            inputs: plan.children().into_iter().map(Self::of).collect(),
        }
    }

    /// Returns the time of the cores of this operator and of all below it, microseconds.
    #[must_use]
    pub fn total_busy_us(&self) -> u64 {
        self.busy_us + self.inputs.iter().map(Self::total_busy_us).sum::<u64>()
    }

    /// Returns the bytes that this operator and all below it spilled.
    #[must_use]
    pub fn total_spilled_bytes(&self) -> u64 {
        self.spilled_bytes.unwrap_or(0) + self.inputs.iter().map(Self::total_spilled_bytes).sum::<u64>()
    }

    /// Returns the bytes that this operator and all below it read.
    #[must_use]
    pub fn total_read_bytes(&self) -> u64 {
        self.read_bytes.unwrap_or(0) + self.inputs.iter().map(Self::total_read_bytes).sum::<u64>()
    }
}

/// The figures of one operator, all its partitions together.
#[derive(Debug, Default)]
pub(super) struct Figures {
    busy_us: u64,
    rows: Option<u64>,
    files: Option<u64>,
    /// Files that are done.
    pub(super) files_done: u64,
    pub(super) read_bytes: Option<u64>,
    spilled_bytes: Option<u64>,
    memory_bytes: Option<u64>,
    /// The table whose files were read.
    table: Option<String>,
}

impl Figures {
    pub(super) fn of(metrics: &MetricsSet) -> Self {
        let mut figures = Self::default();
        let mut polled_ns = 0;
        let mut computed_ns = 0;
        let add = |sum: &mut Option<u64>, value: usize| *sum = Some(sum.unwrap_or(0) + value as u64);
        for metric in metrics.iter() {
            if figures.table.is_none() {
                let file = metric.labels().iter().find(|label| label.name() == "filename");
                figures.table = file.and_then(|label| table_of(label.value())).map(ToOwned::to_owned);
            }
            match metric.value() {
                MetricValue::OutputRows(count) => add(&mut figures.rows, count.value()),
                MetricValue::ElapsedCompute(time) => computed_ns += time.value() as u64,
                MetricValue::SpilledBytes(count) => add(&mut figures.spilled_bytes, count.value()),
                MetricValue::Count { name, count } => match name.as_ref() {
                    "bytes_scanned" => add(&mut figures.read_bytes, count.value()),
                    "files_opened" => add(&mut figures.files, count.value()),
                    "files_processed" => figures.files_done += count.value() as u64,
                    _ => {}
                },
                MetricValue::Time { name, time } => match name.as_ref() {
                    // What a scan does when it is asked for rows; its other times overlap this one, or its readers'.
                    "time_elapsed_processing" | "repartition_time" => polled_ns += time.value() as u64,
                    _ => {}
                },
                MetricValue::PeakMemoryUsage { gauge, .. } => add(&mut figures.memory_bytes, gauge.value()),
                _ => {}
            }
        }
        figures.busy_us = polled_ns.max(computed_ns) / 1_000;
        figures
    }
}

/// Returns the table of a data file: `data/TABLE/FILE`.
fn table_of(path: &str) -> Option<&str> {
    let mut parts = path.rsplit('/');
    parts.next()?;
    parts.next().filter(|_| parts.next() == Some("data"))
}

/// Says what an operator does, and by what.
fn words(plan: &Arc<dyn ExecutionPlan>, figures: &Figures) -> (String, String) {
    let says = |does: &str, by: String| (does.to_owned(), by);
    let first = |rows: Option<usize>| rows.map(|rows| format!("first {rows}"));
    if let Some(sort) = plan.downcast_ref::<SortExec>() {
        let does = first(sort.fetch()).map_or_else(|| "sort".to_owned(), |first| format!("sort, {first}"));
        return (does, sorted_by(sort.expr()));
    }
    if let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>() {
        return says("merge sorted", sorted_by(merge.expr()));
    }
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        return says("filter", columns([filter.predicate()]));
    }
    if let Some(group) = plan.downcast_ref::<AggregateExec>() {
        let does = match group.mode() {
            AggregateMode::Partial | AggregateMode::PartialReduce => "group each part",
            _ => "group",
        };
        return says(does, columns(group.group_expr().expr().iter().map(|(expression, _)| expression)));
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        return (
            format!("{} join", join.join_type()).to_lowercase(),
            columns(join.on().iter().flat_map(|(left, right)| [left, right])),
        );
    }
    if let Some(join) = plan.downcast_ref::<SortMergeJoinExec>() {
        let on = join.on().iter().flat_map(|(left, right)| [left, right]);
        return (format!("{} join of sorted rows", join.join_type()).to_lowercase(), columns(on));
    }
    if let Some(window) = plan.downcast_ref::<WindowAggExec>() {
        return says("window", columns(window.window_expr().iter().flat_map(|window| window.partition_by())));
    }
    if let Some(window) = plan.downcast_ref::<BoundedWindowAggExec>() {
        return says("window", columns(window.window_expr().iter().flat_map(|window| window.partition_by())));
    }
    if let Some(spread) = plan.downcast_ref::<RepartitionExec>() {
        return match spread.partitioning() {
            Partitioning::Hash(by, parts) => (format!("spread over {parts}"), columns(by)),
            other => (format!("spread over {}", other.partition_count()), String::new()),
        };
    }
    if let Some(limit) = plan.downcast_ref::<GlobalLimitExec>() {
        return says("limit", first(limit.fetch()).unwrap_or_default());
    }
    if let Some(limit) = plan.downcast_ref::<LocalLimitExec>() {
        return says("limit each part", first(Some(limit.fetch())).unwrap_or_default());
    }
    if plan.is::<ProjectionExec>() {
        return says("compute columns", String::new());
    }
    match plan.name() {
        "DataSourceExec" => match &figures.table {
            Some(table) => (format!("read {table}"), plain_names(&plan.schema())),
            None => says("read", plain_names(&plan.schema())),
        },
        "CoalescePartitionsExec" => says("gather", String::new()),
        "UnionExec" | "InterleaveExec" => says("unite", String::new()),
        "EmptyExec" | "PlaceholderRowExec" => says("no table", String::new()),
        "CrossJoinExec" => says("cross join", String::new()),
        "NestedLoopJoinExec" => says("join row by row", String::new()),
        "UnnestExec" => says("unnest lists", String::new()),
        name => (spoken(name), String::new()),
    }
}

/// Turns the engine's name of an operator into words: `ScalarSubqueryExec` is `scalar subquery`.
fn spoken(name: &str) -> String {
    let mut words = String::new();
    for letter in name.strip_suffix("Exec").unwrap_or(name).chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

fn sorted_by<'a>(order: impl IntoIterator<Item = &'a PhysicalSortExpr>) -> String {
    let each = order.into_iter().map(|sort| {
        let by = columns([&sort.expr]);
        if sort.options.descending && !by.is_empty() { format!("{by} desc") } else { by }
    });
    each.filter(|by| !by.is_empty()).collect::<Vec<_>>().join(", ")
}

/// Names the columns that expressions read, each once.
fn columns<'a>(expressions: impl IntoIterator<Item = &'a Arc<dyn PhysicalExpr>>) -> String {
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    for expression in expressions {
        let mut found: Vec<_> = collect_columns(expression).into_iter().collect();
        found.sort_by_key(Column::index);
        for column in found {
            if is_plain(column.name()) && seen.insert(column.name().to_owned()) {
                names.push(column.name().to_owned());
            }
        }
    }
    names.join(", ")
}

fn plain_names(schema: &SchemaRef) -> String {
    let names = schema.fields().iter().map(|field| field.name().as_str());
    names.filter(|name| is_plain(name)).collect::<Vec<_>>().join(", ")
}

/// Tells whether a name is one that a schema or an AS gave. A column without one is named after its expression, literals
/// included.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_operators_are_words() {
        for (name, words) in
            [("ScalarSubqueryExec", "scalar subquery"), ("TopPerGroupExec", "top per group"), ("X", "x")]
        {
            assert_eq!(spoken(name), words);
        }
    }

    #[test]
    fn table_is_named_by_the_folder_of_its_files() {
        for (path, table) in [
            ("data/tickets/0192.parquet", Some("tickets")),
            ("acme/lake/data/customers/a.parquet", Some("customers")),
            ("tickets/a.parquet", None),
            ("a.parquet", None),
        ] {
            assert_eq!(table_of(path), table, "{path}");
        }
    }

    #[test]
    fn names_with_literals_in_them_are_not_shown() {
        for name in ["Utf8(\"ada@example.com\")", "status = 'x'", "a + 1", "", "count(*)"] {
            assert!(!is_plain(name), "{name}");
        }
        assert!(is_plain("custom_tier"));
    }
}
