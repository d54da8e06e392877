//! Which statements are read: one per file, and only those that read.

use datafusion::error::DataFusionError;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{Query, SetExpr, Statement as SqlStatement};

use crate::query::fault::Fault;

/// Why a text is not a statement to run.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The parser's error.
    Engine(DataFusionError),
    /// Ours.
    Fault(Fault),
}

/// Parses one reading statement: SELECT, WITH, VALUES, EXPLAIN of these, DESCRIBE, SHOW COLUMNS, SHOW TABLES.
pub(super) fn parse(sql: &str) -> Result<Statement, Refusal> {
    let mut parser = DFParserBuilder::new(sql).build().map_err(Refusal::Engine)?;
    let mut statements = parser.parse_statements().map_err(Refusal::Engine)?;
    let refuse = |fault| Err(Refusal::Fault(fault));
    let count = statements.len();
    let Some(statement) = statements.pop_front() else {
        return refuse(Fault::new("no statement in the file").with_hint("write one SELECT after the header"));
    };
    // Each statement is looked at, so that the one that writes is the one that is named.
    for each in std::iter::once(&statement).chain(&statements) {
        if let Some(name) = refused(each) {
            return refuse(
                Fault::new(format!("the statement {name} is not allowed"))
                    .with_hint("queries only read: SELECT, WITH, EXPLAIN, DESCRIBE or SHOW COLUMNS"),
            );
        }
    }
    if count > 1 {
        return refuse(Fault::new(format!("{count} statements in the file")).with_hint("one statement per file"));
    }
    Ok(statement)
}

/// Names a statement that does more than read.
fn refused(statement: &Statement) -> Option<String> {
    match statement {
        Statement::Statement(statement) => refused_sql(statement),
        Statement::Explain(explain) => refused(&explain.statement),
        Statement::CreateExternalTable(_) => Some("CREATE EXTERNAL TABLE".to_owned()),
        Statement::CopyTo(_) => Some("COPY".to_owned()),
        Statement::Reset(_) => Some("RESET".to_owned()),
    }
}

fn refused_sql(statement: &SqlStatement) -> Option<String> {
    match statement {
        SqlStatement::Query(query) => refused_query(query),
        SqlStatement::Explain { statement, .. } => refused_sql(statement),
        SqlStatement::ExplainTable { .. } | SqlStatement::ShowColumns { .. } | SqlStatement::ShowTables { .. } => None,
        other => Some(first_words(&other.to_string())),
    }
}

fn refused_query(query: &Query) -> Option<String> {
    let inner = query.with.iter().flat_map(|with| &with.cte_tables).find_map(|table| refused_query(&table.query));
    inner.or_else(|| refused_body(&query.body))
}

fn refused_body(body: &SetExpr) -> Option<String> {
    match body {
        SetExpr::Select(select) => select.into.as_ref().map(|_| "SELECT INTO".to_owned()),
        SetExpr::Query(query) => refused_query(query),
        SetExpr::SetOperation { left, right, .. } => refused_body(left).or_else(|| refused_body(right)),
        SetExpr::Values(_) | SetExpr::Table(_) => None,
        SetExpr::Insert(statement)
        | SetExpr::Update(statement)
        | SetExpr::Delete(statement)
        | SetExpr::Merge(statement) => Some(first_words(&statement.to_string())),
    }
}

fn first_words(text: &str) -> String {
    let is_keyword = |word: &&str| word.bytes().all(|byte| byte.is_ascii_uppercase());
    let words: Vec<&str> = text.split_whitespace().take_while(is_keyword).take(2).collect();
    if words.is_empty() { "of this kind".to_owned() } else { words.join(" ") }
}
