//! Which statements are read: one per file, and only those that read.
//!
//! The parser takes all that follows `IS [NOT] DISTINCT FROM` for its right side: `a IS DISTINCT FROM true AND b` would
//! compare `a` with `true AND b` and give other rows than every other database does. Where AND follows, the tree is put
//! right; what cannot be put right (OR after it, NOT before it) is refused, with the parentheses that it needs.

use std::ops::ControlFlow;

use datafusion::error::DataFusionError;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Query, SetExpr, Statement as SqlStatement, UnaryOperator, VisitMut as _, VisitorMut,
};

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
    let Some(mut statement) = statements.pop_front() else {
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
    if let ControlFlow::Break(fault) = put_right(&mut statement) {
        return refuse(fault);
    }
    Ok(statement)
}

fn put_right(statement: &mut Statement) -> ControlFlow<Fault> {
    match statement {
        Statement::Statement(statement) => statement.visit(&mut Distinct),
        Statement::Explain(explain) => put_right(&mut explain.statement),
        _ => ControlFlow::Continue(()),
    }
}

/// Ends `IS DISTINCT FROM` where its operand ends.
struct Distinct;

impl VisitorMut for Distinct {
    type Break = Fault;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Fault> {
        if let Expr::UnaryOp { op: UnaryOperator::Not, expr: inner } = expr
            && distinct_right(inner).is_some_and(|right| joined(right).is_some())
        {
            return ControlFlow::Break(unclear(inner));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Fault> {
        let Some(right) = distinct_right(expr) else { return ControlFlow::Continue(()) };
        match joined(right) {
            None => ControlFlow::Continue(()),
            Some(false) => ControlFlow::Break(unclear(expr)),
            Some(true) => {
                let null = || Expr::Value(datafusion::sql::sqlparser::ast::Value::Null.with_empty_span());
                let taken = std::mem::replace(expr, null());
                let (left, mut right, is_negated) = match taken {
                    Expr::IsDistinctFrom(left, right) => (left, right, false),
                    Expr::IsNotDistinctFrom(left, right) => (left, right, true),
                    other => {
                        *expr = other;
                        return ControlFlow::Continue(());
                    }
                };
                // Its own operand is the first of the chain.
                let mut first = &mut *right;
                while let Expr::BinaryOp { op: BinaryOperator::And, left, .. } = first {
                    first = left;
                }
                let operand = Box::new(std::mem::replace(first, null()));
                *first = if is_negated {
                    Expr::IsNotDistinctFrom(left, operand)
                } else {
                    Expr::IsDistinctFrom(left, operand)
                };
                *expr = *right;
                ControlFlow::Continue(())
            }
        }
    }
}

fn distinct_right(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) => Some(right),
        _ => None,
    }
}

/// Tells whether conditions are joined without parentheses around them: by AND alone, or by another word too.
fn joined(expr: &Expr) -> Option<bool> {
    match expr {
        Expr::BinaryOp { op: BinaryOperator::And, left, right } => {
            Some(joined(left).unwrap_or(true) && joined(right).unwrap_or(true))
        }
        Expr::BinaryOp { op: BinaryOperator::Or | BinaryOperator::Xor, .. } => Some(false),
        _ => None,
    }
}

fn unclear(expr: &Expr) -> Fault {
    let left = match expr {
        Expr::IsDistinctFrom(left, _) | Expr::IsNotDistinctFrom(left, _) => left.to_string(),
        other => other.to_string(),
    };
    Fault::new(format!("where `{left} IS DISTINCT FROM` ends is not clear"))
        .with_hint("put parentheses around it: (a IS DISTINCT FROM b) OR …")
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
