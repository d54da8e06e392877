//! Where the columns of a result come from: which of them may hold what the lake keeps under the second key.
//!
//! A column that is taken from a table as it is carries the metadata of the table's column, and these say whether it is
//! restricted. A computed column carries none: it counts as restricted as soon as the query names a restricted column
//! anywhere, be it in a filter, since nobody can tell what of it went into the value. Some functions hand the metadata of an
//! argument on (`lag(status, 1, note)` is called a `status`): where such a one is also given something that may hold
//! restricted values, the whole result counts as restricted. So too much may be sealed, never too little.

use arrow::datatypes::Field;
use datafusion::common::ExprSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, ExprSchemable as _, LogicalPlan};

use crate::policy::is_restricted;

/// Tells of each column of the result, by position, whether it may hold restricted values.
pub(in crate::query) fn restricted_columns(plan: &LogicalPlan) -> Result<Vec<bool>, DataFusionError> {
    let mut found = Found::default();
    found.look(plan)?;
    let fields = plan.schema().fields().iter();
    let is_sealed =
        |field: &Field| is_restricted(field) || (found.is_named && (is_computed(field) || found.is_disguised));
    Ok(fields.map(|field| is_sealed(field)).collect())
}

/// What the expressions of a plan do with restricted columns.
#[derive(Debug, Default)]
struct Found {
    /// One of them names a restricted column.
    is_named: bool,
    /// One of them may hold a restricted value under the metadata of a column that is not.
    is_disguised: bool,
}

impl Found {
    fn look(&mut self, plan: &LogicalPlan) -> Result<(), DataFusionError> {
        plan.apply_with_subqueries(|node| {
            let inputs = node.inputs();
            node.apply_expressions(|expression| {
                let mut is_suspect = false;
                expression.apply(|part| {
                    let field = match part {
                        Expr::Column(column) => {
                            inputs.iter().find_map(|input| input.schema().field_from_column(column).ok())
                        }
                        Expr::OuterReferenceColumn(field, _) => Some(field),
                        _ => {
                            is_suspect |= matches!(part, Expr::ScalarSubquery(_));
                            None
                        }
                    };
                    self.is_named |= field.is_some_and(|field| is_restricted(field));
                    is_suspect |= field.is_some_and(|field| is_restricted(field) || is_computed(field));
                    Ok(TreeNodeRecursion::Continue)
                })?;
                if is_suspect && let [input] = inputs.as_slice() {
                    let (_, field) = expression.to_field(input.schema().as_ref())?;
                    self.is_disguised |= !is_restricted(&field) && !is_computed(&field);
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(())
    }
}

/// Tells whether a column is none of a table's: it carries no word of its own on how it is kept.
fn is_computed(field: &Field) -> bool {
    !field.metadata().contains_key("method")
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use arrow::array::StringArray;
    use arrow::datatypes::{DataType, Schema};
    use arrow::record_batch::RecordBatch;
    use datafusion::catalog::TableProvider;
    use datafusion::datasource::MemTable;

    use super::*;
    use crate::clock::{ManualClock, SharedClock};
    use crate::query::{Arguments, QueryFile, QuerySettings, Session};

    /// A table of which `note` is restricted and `more` is, with arguments.
    pub(in crate::query::sink) fn session() -> Session {
        let field = |name: &str, method: &str| {
            Field::new(name, DataType::Utf8, true).with_metadata([("method".to_owned(), method.to_owned())].into())
        };
        let fields = [
            field("ticket_id", "keep"),
            field("status", "keep"),
            field("note", "restrict"),
            field("more", "restrict(after=scrub)"),
        ];
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let columns =
            ["t1", "open", "a restricted note", "more of it"].map(|text| Arc::new(StringArray::from(vec![text])) as _);
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns.to_vec()).unwrap();
        let tickets: Arc<dyn TableProvider> = Arc::new(MemTable::try_new(schema, vec![vec![batch]]).unwrap());
        let clock: SharedClock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
        let settings = QuerySettings { partitions: 1, ..QuerySettings::default() };
        Session::with_tables(vec![("tickets".to_owned(), tickets)], &settings, &clock).unwrap()
    }

    #[tokio::test]
    async fn columns_that_hold_restricted_values_or_may_are_found() {
        let session = session();
        for (sql, expected) in [
            ("SELECT ticket_id, status FROM tickets", "--"),
            ("SELECT * FROM tickets", "--RR"),
            ("SELECT status AS note FROM tickets", "-"),
            ("SELECT note AS status, ticket_id FROM tickets", "R-"),
            ("SELECT ticket_id, upper(note) FROM tickets", "-R"),
            ("SELECT ticket_id, substr(status, 1, 2) FROM tickets", "--"),
            ("SELECT ticket_id, coalesce(status, note) FROM tickets", "-R"),
            ("SELECT ticket_id, nvl(status, note), nullif(status, note) FROM tickets", "-RR"),
            ("SELECT CASE WHEN note = 'x' THEN status ELSE ticket_id END FROM tickets", "R"),
            ("SELECT status, greatest(status, note) FROM tickets", "-R"),
            ("SELECT status, max(note), array_agg(more), count(*) FROM tickets GROUP BY status", "-RRR"),
            ("SELECT note, count(*) FROM tickets GROUP BY note", "RR"),
            ("SELECT status, count(*) FROM tickets GROUP BY status", "--"),
            ("SELECT first_value(note) OVER (ORDER BY ticket_id), ticket_id FROM tickets", "R-"),
            ("SELECT CAST(note AS varchar(3)) FROM tickets", "R"),
            ("SELECT note || status FROM tickets", "R"),
            ("SELECT [note], named_struct('a', more) FROM tickets", "RR"),
            ("SELECT x FROM (SELECT note AS x FROM tickets)", "R"),
            ("WITH w AS (SELECT more AS x, status FROM tickets) SELECT status, length(x) FROM w", "-R"),
            ("SELECT (SELECT max(note) FROM tickets) AS x, status FROM tickets", "R-"),
            ("SELECT status FROM tickets UNION ALL SELECT note FROM tickets", "R"),
            ("SELECT note FROM tickets UNION ALL SELECT status FROM tickets", "R"),
            ("SELECT status FROM tickets UNION ALL SELECT ticket_id FROM tickets", "-"),
            ("SELECT DISTINCT note FROM tickets", "R"),
            ("SELECT unnest(string_to_array(note, ' ')) FROM tickets", "R"),
            ("SELECT count(*) FROM tickets WHERE note IS NOT NULL", "R"),
            ("SELECT ticket_id FROM tickets WHERE note IS NOT NULL", "-"),
            ("SELECT a.note, b.status FROM tickets a JOIN tickets b USING (ticket_id)", "R-"),
            ("SELECT count(*) FROM tickets a JOIN tickets b ON a.note = b.note", "R"),
            ("SELECT lag(status, 1, note) OVER (ORDER BY ticket_id) FROM tickets", "R"),
            ("SELECT lag(status) OVER (ORDER BY ticket_id), note FROM tickets", "-R"),
            (
                "SELECT lag(status, 1, x) OVER (ORDER BY ticket_id) FROM (SELECT status, ticket_id, lower(note) AS x FROM tickets)",
                "R",
            ),
            ("SELECT lag(status, 1, (SELECT max(note) FROM tickets)) OVER (ORDER BY ticket_id) FROM tickets", "R"),
            ("SELECT 1 AS n", "-"),
        ] {
            let plan = session.plan(&QueryFile::inline(sql).unwrap(), &Arguments::default()).await.unwrap();
            let found: String =
                plan.restricted_columns().unwrap().iter().map(|is| if *is { 'R' } else { '-' }).collect();
            assert_eq!(found, expected, "{sql}");
        }
    }
}
