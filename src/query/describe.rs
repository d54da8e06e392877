//! `DESCRIBE` and `SHOW TABLES`: what a table's columns mean, and which tables there are.
//!
//! | column of `DESCRIBE` | is |
//! |---|---|
//! | `column_name` | the name |
//! | `data_type` | the type in SQL words: text, bigint, double, boolean, timestamp (UTC), text[], … |
//! | `unit` | the unit of numbers: ms, … |
//! | `class` | public, internal, personal, content |
//! | `method` | what was done to values before they were stored: keep, mask, pseudonymize, restrict(…), … |
//! | `is_readable` | false where this process reads NULL, for it does not have the key of restricted columns |
//! | `description` | what the column holds |
//!
//! They come from the metadata of the columns; what a table or an expression of `DESCRIBE SELECT …` does not say is NULL.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::Result as EngineResult;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;

use crate::model::Stream;

/// What the tables hold.
const TABLES: [(&str, &str); 15] = [
    ("tickets", "Tickets as they are now, deleted ones left out"),
    ("ticket_versions", "Every revision of every ticket that is kept, and tombstones of deleted ones"),
    ("customers", "Customers as they are now, for their numbers of tickets"),
    ("customer_versions", "Every revision of every customer that is kept, and tombstones of deleted ones"),
    ("ticket_times", "Times that agents spent on tickets"),
    ("ticket_lists", "Ticket ids that runs of queries recorded"),
    ("users", "Agents and machine users, deleted ones too"),
    ("teams", "Teams of agents"),
    ("tags", "Tags by id, deleted ones too"),
    ("queues", "Routing queues"),
    ("brands", "Brands"),
    ("slas", "Service level agreements"),
    ("schedules", "Business schedules: hours of the week, time zone, holidays"),
    ("runs", "Runs of extract: one row per run and stream"),
    ("quarantine", "Fields that were seen and not stored: names and counts"),
];

/// What a statement asks to have described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// The columns of a table, by its name without a schema's.
    Table(String),
    /// The columns of a query.
    Query,
    /// The tables.
    Tables,
}

impl Asked {
    /// Reads what a statement asks; nothing for a query.
    pub(super) fn of(statement: &Statement) -> Option<Self> {
        let Statement::Statement(statement) = statement else { return None };
        match statement.as_ref() {
            SqlStatement::ExplainTable { table_name, .. } => {
                let name = table_name.0.last().and_then(|part| part.as_ident())?;
                let name = if name.quote_style.is_none() { name.value.to_lowercase() } else { name.value.clone() };
                Some(Self::Table(name))
            }
            SqlStatement::Explain { describe_alias, .. } => {
                // The parser tells DESCRIBE from EXPLAIN by this word alone.
                (describe_alias.to_string() != "EXPLAIN").then_some(Self::Query)
            }
            SqlStatement::ShowTables { .. } if statement.to_string() == "SHOW TABLES" => Some(Self::Tables),
            _ => None,
        }
    }

    /// Makes the plan that answers; `plan` is the engine's own for the statement, `hidden` the columns that this process does
    /// not read, as `table.column`.
    pub(super) async fn answer(
        &self,
        plan: LogicalPlan,
        state: &SessionState,
        tables: &[String],
        hidden: &[String],
    ) -> EngineResult<LogicalPlan> {
        let rows = match (self, &plan) {
            (Self::Tables, _) => show_tables(state, tables).await?,
            (Self::Table(table), LogicalPlan::DescribeTable(described)) => {
                let table = stream_of(table);
                columns(&described.schema, |field| hidden.contains(&format!("{table}.{}", field.name())))?
            }
            // The name may be an alias: a restricted column counts as hidden where some are.
            (Self::Query, LogicalPlan::DescribeTable(described)) => columns(&described.schema, |field| {
                let method = field.metadata().get("method");
                !hidden.is_empty() && method.is_some_and(|method| method.starts_with("restrict"))
            })?,
            _ => return Ok(plan),
        };
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]])?;
        LogicalPlanBuilder::scan("described", provider_as_source(Arc::new(table)), None)?.build()
    }
}

/// Returns the table under whose name a table's hidden columns are listed.
fn stream_of(table: &str) -> &str {
    match table {
        "ticket_versions" => Stream::Tickets.table(),
        "customer_versions" => Stream::Customers.table(),
        other => other,
    }
}

fn columns(schema: &Schema, is_hidden: impl Fn(&Field) -> bool) -> EngineResult<RecordBatch> {
    let fields = schema.fields();
    let told = |name: &str| -> ArrayRef {
        Arc::new(fields.iter().map(|field| field.metadata().get(name)).collect::<StringArray>())
    };
    let names: ArrayRef = Arc::new(fields.iter().map(|field| Some(field.name())).collect::<StringArray>());
    let types: ArrayRef =
        Arc::new(fields.iter().map(|field| Some(sql_type(field.data_type()))).collect::<StringArray>());
    let readable: ArrayRef = Arc::new(fields.iter().map(|field| Some(!is_hidden(field))).collect::<BooleanArray>());
    batch([
        ("column_name", "Name of the column", names),
        ("data_type", "Type in SQL words", types),
        ("unit", "Unit of numbers", told("unit")),
        ("class", "public, internal, personal or content", told("class")),
        ("method", "What was done to values before they were stored", told("method")),
        ("is_readable", "False where this process reads NULL for lack of a key", readable),
        ("description", "What the column holds", told("description")),
    ])
}

async fn show_tables(state: &SessionState, tables: &[String]) -> EngineResult<RecordBatch> {
    let mut widths = Vec::with_capacity(tables.len());
    for name in tables {
        let table = state.schema_for_ref(name.as_str())?.table(name).await?;
        widths.push(table.map(|table| table.schema().fields().len() as i64));
    }
    let description =
        |name: &String| TABLES.iter().find(|(known, _)| known == name).map(|(_, description)| *description);
    batch([
        ("table_name", "Name of the table", Arc::new(tables.iter().map(Some).collect::<StringArray>()) as ArrayRef),
        ("columns", "Number of columns", Arc::new(Int64Array::from(widths))),
        ("description", "What the table holds", Arc::new(tables.iter().map(description).collect::<StringArray>())),
    ])
}

fn batch<const N: usize>(columns: [(&str, &str, ArrayRef); N]) -> EngineResult<RecordBatch> {
    let field = |(name, description, values): &(&str, &str, ArrayRef)| {
        let metadata = [("description".to_owned(), (*description).to_owned())].into();
        Field::new(*name, values.data_type().clone(), true).with_metadata(metadata)
    };
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    Ok(RecordBatch::try_new(Arc::new(schema), columns.into_iter().map(|(.., values)| values).collect())?)
}

/// Names a type in SQL words.
pub(super) fn sql_type(kind: &DataType) -> String {
    match kind {
        DataType::Null => "null".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint".to_owned(),
        DataType::Int32 | DataType::UInt16 => "int".to_owned(),
        DataType::Int64 | DataType::UInt32 => "bigint".to_owned(),
        DataType::UInt64 => "bigint unsigned".to_owned(),
        DataType::Float16 | DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "bytea".to_owned()
        }
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "time".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        DataType::Interval(_) | DataType::Duration(_) => "interval".to_owned(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => format!("decimal({precision}, {scale})"),
        DataType::Dictionary(_, value) => sql_type(value),
        DataType::RunEndEncoded(_, value) => sql_type(value.data_type()),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => format!("{}[]", sql_type(item.data_type())),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => {
                let parts: Vec<String> = fields.iter().map(|field| sql_type(field.data_type())).collect();
                format!("map({})", parts.join(", "))
            }
            other => format!("map({})", sql_type(other)),
        },
        DataType::Struct(fields) => {
            let parts: Vec<String> =
                fields.iter().map(|field| format!("{} {}", field.name(), sql_type(field.data_type()))).collect();
            format!("struct({})", parts.join(", "))
        }
        DataType::Union(..) => "union".to_owned(),
    }
}

#[cfg(test)]
mod tests;
