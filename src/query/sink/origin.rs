//! Where the columns of a result come from: which of them may hold what the lake keeps under the second key.
//!
//! A column that is taken from a table as it is carries the metadata of the table's column, and these say whether it is
//! restricted. A computed column carries none: it counts as restricted as soon as the query names a restricted column
//! anywhere, be it in a filter, since nobody can tell what of it went into the value. So too much may be sealed, never too
//! little.

use arrow::datatypes::Field;
use datafusion::common::ExprSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::policy::is_restricted;

/// Tells of each column of the result, by position, whether it may hold restricted values.
pub(in crate::query) fn restricted_columns(plan: &LogicalPlan) -> Result<Vec<bool>, DataFusionError> {
    let is_named = names_restricted(plan)?;
    let is_computed = |field: &Field| !field.metadata().contains_key("method");
    let fields = plan.schema().fields().iter();
    Ok(fields.map(|field| is_restricted(field) || (is_named && is_computed(field))).collect())
}

/// Tells whether an expression of the plan, or of a query within it, names a restricted column.
fn names_restricted(plan: &LogicalPlan) -> Result<bool, DataFusionError> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        let inputs = node.inputs();
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                found |= match part {
                    Expr::Column(column) => inputs
                        .iter()
                        .any(|input| input.schema().field_from_column(column).is_ok_and(|field| is_restricted(field))),
                    Expr::OuterReferenceColumn(field, _) => is_restricted(field),
                    _ => false,
                };
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}
