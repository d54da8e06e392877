//! How many rows a batch of a plan has: fewer where rows are wide, so that operators that hold batches fit into memory.
//!
//! A sort that merges what it spilled holds some batches of every part at once, and keeps twice a batch back before it
//! takes one. With hundreds of columns the engine's 8,192 rows are tens of megabytes, which a small memory has not twice.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::EmissionType;

/// A batch takes at most this part of the memory.
const PART_OF_MEMORY: usize = 64;

/// Batches of fewer rows cost more for each than for all their rows.
const FEWEST_ROWS: usize = 256;

/// What a text is taken for, bytes: ids have 24, names fewer, free text more.
const TEXT_BYTES: usize = 32;

/// Returns how many rows a batch of the plan should have: `rows`, or fewer when operators hold wide rows.
pub(super) fn rows_for(plan: &Arc<dyn ExecutionPlan>, rows: usize, memory_bytes: usize) -> usize {
    let fitting = (memory_bytes / PART_OF_MEMORY) / widest_held(plan).max(1);
    if fitting >= rows { rows } else { previous_power_of_two(fitting).clamp(FEWEST_ROWS.min(rows), rows) }
}

/// Returns the bytes of the widest row that an operator holds until it has seen all: sorts, groups, joins.
fn widest_held(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let holds = plan.properties().emission_type != EmissionType::Incremental || plan.children().len() > 1;
    let own = if holds { row_bytes(&plan.schema()) } else { 0 };
    plan.children().into_iter().map(widest_held).chain([own]).max().unwrap_or(own)
}

fn row_bytes(schema: &Schema) -> usize {
    schema.fields().iter().map(|field| value_bytes(field.data_type())).sum()
}

fn value_bytes(kind: &DataType) -> usize {
    match kind {
        DataType::List(_) | DataType::LargeList(_) | DataType::Map(..) => 2 * TEXT_BYTES,
        DataType::Struct(fields) => fields.iter().map(|field| value_bytes(field.data_type())).sum(),
        DataType::Boolean | DataType::Null => 1,
        kind => kind.primitive_width().unwrap_or(TEXT_BYTES),
    }
}

fn previous_power_of_two(number: usize) -> usize {
    number.checked_ilog2().map_or(0, |bits| 1 << bits)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr, expressions};
    use datafusion::physical_plan::empty::EmptyExec;
    use datafusion::physical_plan::sorts::sort::SortExec;

    use super::*;

    /// Rows of so many texts, as they are or sorted.
    fn plan(columns: usize, is_sorted: bool) -> Arc<dyn ExecutionPlan> {
        let fields: Vec<Field> = (0..columns).map(|n| Field::new(format!("c{n}"), DataType::Utf8, true)).collect();
        let rows: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(Arc::new(Schema::new(fields))));
        if !is_sorted {
            return rows;
        }
        let by = PhysicalSortExpr::new_default(expressions::col("c0", &rows.schema()).unwrap());
        Arc::new(SortExec::new(LexOrdering::new([by]).unwrap(), rows))
    }

    #[test]
    fn wide_rows_that_are_held_come_in_small_batches() {
        for (columns, is_sorted, memory_bytes, rows) in [
            (10, true, 320 << 20, 8_192),
            (240, true, 320 << 20, 512),
            (240, false, 320 << 20, 8_192),
            (240, true, 1 << 30, 2_048),
            (240, true, 1 << 20, FEWEST_ROWS),
            (2, true, 0, FEWEST_ROWS),
        ] {
            assert_eq!(rows_for(&plan(columns, is_sorted), 8_192, memory_bytes), rows, "{columns} {memory_bytes}");
        }
        assert_eq!(rows_for(&plan(240, true), 2, 1 << 20), 2, "never more than asked for");
    }
}
