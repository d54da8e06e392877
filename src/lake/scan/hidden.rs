//! Columns that a session does not read: the decoder never hears of them, and NULL stands in their place.
//!
//! ```text
//! ProjectionExec   ticket_id, NULL as phone, status     what the query sees
//!   DataSourceExec ticket_id, status                    what the files are asked for
//! ```
//!
//! Files that hide different columns are scanned side by side and put together. Filters, statistics and plans name what the
//! decoder is asked for, so nothing of a hidden column can show in them.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result as DataFusionResult;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::projection::ProjectionExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;

/// Returns the columns that are left without the hidden ones.
pub(super) fn visible_schema(schema: &SchemaRef, hidden: &[usize]) -> SchemaRef {
    let fields = schema.fields().iter().enumerate().filter(|(index, _)| !hidden.contains(index));
    let fields: Vec<_> = fields.map(|(_, field)| Arc::clone(field)).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Returns the places, among the columns that are left, of those columns that are not hidden.
pub(super) fn visible_places(columns: &[usize], hidden: &[usize]) -> Vec<usize> {
    let seen = columns.iter().filter(|column| !hidden.contains(column));
    seen.map(|column| column - hidden.iter().filter(|before| *before < column).count()).collect()
}

/// Puts NULL where the hidden ones of these columns stand; `plan` gives the others, in their order.
pub(super) fn with_nulls(
    plan: Arc<dyn ExecutionPlan>,
    schema: &SchemaRef,
    columns: &[usize],
    hidden: &[usize],
) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    if !columns.iter().any(|column| hidden.contains(column)) {
        return Ok(plan);
    }
    let mut next = 0;
    let mut expressions = Vec::with_capacity(columns.len());
    for column in columns {
        let field = schema.field(*column);
        let expr: Arc<dyn PhysicalExpr> = if hidden.contains(column) {
            Arc::new(Literal::new(ScalarValue::try_from(field.data_type())?))
        } else {
            next += 1;
            Arc::new(Column::new(field.name(), next - 1))
        };
        expressions.push(ProjectionExpr { expr, alias: field.name().clone() });
    }
    let projected = schema.project(columns)?;
    Ok(Arc::new(ProjectionExec::try_new_with_schema_metadata(expressions, plan, &projected)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field};

    #[test]
    fn places_count_only_what_is_left() {
        let names = ["a", "b", "c", "d"];
        let schema = Arc::new(Schema::new(names.map(|name| Field::new(name, DataType::Utf8, true)).to_vec()));
        let left = visible_schema(&schema, &[1, 2]);
        assert_eq!(left.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["a", "d"]);
        assert_eq!(visible_places(&[3, 1, 0], &[1, 2]), [1, 0]);
        assert_eq!(visible_places(&[1, 2], &[1, 2]), Vec::<usize>::new());
    }
}
