//! Guards against a lake that is too old for a query: `max_age` and `complete_through`.
//!
//! Both look at the watermarks of the incremental streams that the plan reads; where both are given, both must hold.
//! `max_age` asks how long before the session's instant a stream's watermark may lie; `complete_through` asks that
//! every record changed before an instant is there, which a report over whole weeks needs and an age cannot tell.

use std::collections::BTreeSet;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use jiff::Timestamp;

use super::Session;
use super::bind::Values;
use crate::error::{Error, ErrorKind, Result};
use crate::model::Stream;
use crate::query::library::QueryFile;

impl Session {
    /// Refuses a lake that does not reach as far as the file's header asks.
    pub(super) fn guard_freshness(&self, file: &QueryFile, values: &Values, plan: &LogicalPlan) -> Result<()> {
        if file.max_age.is_none() && file.complete_through.is_none() {
            return Ok(());
        }
        for stream in read_streams(plan).map_err(|error| self.fault(file, &error).into_error(&file.path))? {
            let watermark = self.watermarks.get(&stream);
            let complete_ms = watermark.and_then(|watermark| watermark.complete_through_ms);
            self.guard_age(file, stream, complete_ms)?;
            self.guard_complete(file, values, stream, complete_ms)?;
        }
        Ok(())
    }

    fn guard_age(&self, file: &QueryFile, stream: Stream, complete_ms: Option<i64>) -> Result<()> {
        let Some(max_age) = file.max_age else { return Ok(()) };
        let limit_ms = i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX);
        let now_ms = self.now.as_millisecond();
        match complete_ms {
            Some(complete_ms) if now_ms.saturating_sub(complete_ms) <= limit_ms => Ok(()),
            Some(complete_ms) => Err(stale(format!(
                "{stream} are complete only up to {} ago, but {} allows {}",
                words(now_ms.saturating_sub(complete_ms)),
                file.name,
                words(limit_ms)
            ))),
            None => Err(stale(format!(
                "{stream} have not been extracted completely yet, but {} allows an age of {}",
                file.name,
                words(limit_ms)
            ))),
        }
    }

    fn guard_complete(
        &self,
        file: &QueryFile,
        values: &Values,
        stream: Stream,
        complete_ms: Option<i64>,
    ) -> Result<()> {
        let Some(through) = &file.complete_through else { return Ok(()) };
        let fail = |fault: crate::query::fault::Fault| fault.into_error(&file.path);
        let Some(wanted_ms) = self.complete_through_ms(file, through, values, &mut BTreeSet::new()).map_err(fail)?
        else {
            let message = format!("{}:{}: complete_through is NULL: `{}`", file.path, through.line, through.expression);
            return Err(Error::new(ErrorKind::Query, message));
        };
        let wanted = moment(wanted_ms);
        let expression = &through.expression;
        let message = match complete_ms {
            Some(complete_ms) if complete_ms >= wanted_ms => return Ok(()),
            Some(complete_ms) => format!(
                "{stream} are complete only through {}, {} short of the {wanted} that {} asks for (complete_through: {expression})",
                moment(complete_ms),
                words(wanted_ms.saturating_sub(complete_ms)),
                file.name
            ),
            None => format!(
                "{stream} have not been extracted completely yet, but {} asks for them through {wanted} (complete_through: {expression})",
                file.name
            ),
        };
        let parameter = expression.strip_prefix('$').filter(|name| file.params.iter().any(|param| &param.name == name));
        let error = Error::new(ErrorKind::Stale, message);
        Err(match (parameter, complete_ms) {
            // Extracts leave out the last minutes before their start, so that no run reaches what is to come.
            _ if wanted_ms > self.now.as_millisecond() => {
                error.with_hint("that time has not come yet: choose an earlier one")
            }
            (Some(name), Some(complete_ms)) => error.with_hint(format!(
                "run `counterfoil extract` first, or ask for less: -p {name}={}",
                moment(complete_ms)
            )),
            _ => error.with_hint("run `counterfoil extract` first"),
        })
    }
}

fn stale(message: String) -> Error {
    Error::new(ErrorKind::Stale, message).with_hint("run `counterfoil extract` first")
}

/// Finds the incremental streams that a plan reads; tickets when it reads none, since every run moves them.
fn read_streams(plan: &LogicalPlan) -> Result<BTreeSet<Stream>, DataFusionError> {
    let mut streams = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            match scan.table_name.table() {
                "tickets" | "ticket_versions" => streams.insert(Stream::Tickets),
                "customers" | "customer_versions" => streams.insert(Stream::Customers),
                "ticket_times" => streams.insert(Stream::TicketTimes),
                _ => false,
            };
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if streams.is_empty() {
        streams.insert(Stream::Tickets);
    }
    Ok(streams)
}

fn moment(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds).map_or_else(|_| format!("{milliseconds} ms"), |time| time.to_string())
}

/// Writes a length of time in its two largest units, as in `1d 2h`.
pub(in crate::query) fn words(milliseconds: i64) -> String {
    let mut seconds = milliseconds / 1_000;
    let mut parts = Vec::new();
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if seconds >= length && parts.len() < 2 {
            parts.push(format!("{}{unit}", seconds / length));
        }
        seconds %= length;
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}
