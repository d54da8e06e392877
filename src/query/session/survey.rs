//! Finds all that is wrong with a file, where planning stops at the first thing.
//!
//! A column or a function that is not there is told, then taken out of the syntax tree (a column becomes NULL under its
//! own name, a function `coalesce`), and the rest is planned again, until nothing new comes. Only names are looked for
//! this way: what else goes wrong after a change of ours may be of our making.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Select, SelectItem, Value,
    Visit as _, VisitMut as _, Visitor, VisitorMut,
};

use super::{Session, statement};
use crate::query::fault::{Fault, Missing};
use crate::query::library::QueryFile;
use crate::query::parameters::Arguments;

/// Names beyond this are more likely one mistake than many.
const MOST: usize = 50;

impl Session {
    /// Plans a file for `check` and returns whether it gives a ticket list, or all that is wrong with it.
    ///
    /// With `with_header` off, what is wrong with parameters is left out: the header is wrong and may declare them.
    pub(in crate::query) async fn survey(&self, file: &QueryFile, with_header: bool) -> Result<bool, Vec<Fault>> {
        let mut statement = match statement::parse(&file.sql) {
            Ok(statement) => statement,
            Err(statement::Refusal::Engine(error)) => return Err(vec![self.fault(file, &error)]),
            Err(statement::Refusal::Fault(fault)) => return Err(vec![fault]),
        };
        let mut faults = Vec::new();
        let placeholders = placeholders(&statement);
        let mut seen = BTreeSet::new();
        while faults.len() < MOST {
            let Err(error) = self.state.statement_to_plan(statement.clone()).await else { break };
            let fault = self.fault(file, &error);
            match fault.missing.as_deref() {
                Some(Missing::Table) => {
                    faults.extend(self.missing_tables(file, &statement));
                    break;
                }
                Some(missing) => {
                    let missing = missing.clone();
                    if !take_out(&mut statement, &missing) {
                        faults.push(fault);
                        break;
                    }
                    // The same name in another place is the same mistake.
                    if seen.insert(missing) {
                        faults.push(fault);
                    }
                }
                None if faults.is_empty() => {
                    faults.push(fault);
                    break;
                }
                None => break,
            }
        }
        if with_header {
            let arguments = Arguments::nulls(file).map_err(|error| vec![Fault::new(error.to_string())])?;
            if let Err(of_parameters) = self.bind_names(file, &arguments, placeholders) {
                faults.extend(of_parameters);
            }
        }
        faults.sort_by_key(|fault| (fault.line, fault.column));
        if !faults.is_empty() {
            return Err(faults);
        }
        if !with_header {
            return Ok(true);
        }
        let schema = self.dry_plan(file).await?;
        Ok(super::is_ticket_list(&schema))
    }

    /// Tells every table of a statement that is not there.
    fn missing_tables(&self, file: &QueryFile, statement: &Statement) -> Vec<Fault> {
        let Ok(tables) = self.state.resolve_table_references(statement) else { return Vec::new() };
        let functions = self.state.table_functions();
        let missing = tables.iter().filter(|table| {
            table.schema().is_none_or(|schema| schema != "information_schema")
                && !functions.contains_key(table.table())
                && !self.tables.iter().any(|known| known == table.table())
        });
        missing.map(|table| self.no_table(file, table.table())).collect()
    }
}

/// Collects the names of a statement's placeholders.
fn placeholders(statement: &Statement) -> BTreeSet<String> {
    struct Placeholders(BTreeSet<String>);
    impl Visitor for Placeholders {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Value(value) = expr
                && let Value::Placeholder(name) = &value.value
            {
                self.0.insert(name.trim_start_matches('$').to_owned());
            }
            ControlFlow::Continue(())
        }
    }
    let mut found = Placeholders(BTreeSet::new());
    if let Some(statement) = sql(statement) {
        let _ = statement.visit(&mut found);
    }
    found.0
}

/// Takes a name that is not there out of a statement; tells whether it was in it.
fn take_out(statement: &mut Statement, missing: &Missing) -> bool {
    let mut out = TakeOut { missing, count: 0 };
    match statement {
        Statement::Statement(statement) => {
            let _ = statement.visit(&mut out);
        }
        Statement::Explain(explain) => return take_out(&mut explain.statement, missing),
        _ => {}
    }
    out.count > 0
}

fn sql(statement: &Statement) -> Option<&datafusion::sql::sqlparser::ast::Statement> {
    match statement {
        Statement::Statement(statement) => Some(statement),
        Statement::Explain(explain) => sql(&explain.statement),
        _ => None,
    }
}

struct TakeOut<'a> {
    missing: &'a Missing,
    count: usize,
}

impl TakeOut<'_> {
    fn is_missing_column(&self, expr: &Expr) -> bool {
        let Missing::Column { table, name } = self.missing else { return false };
        match expr {
            Expr::Identifier(ident) => table.is_none() && ident.value == *name,
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [.., of, last] => last.value == *name && table.as_ref().is_none_or(|table| of.value == *table),
                _ => false,
            },
            _ => false,
        }
    }
}

impl VisitorMut for TakeOut<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let Missing::Column { name, .. } = self.missing else { return ControlFlow::Continue(()) };
        for item in &mut select.projection {
            // Under its own name, so that what stands around it finds it.
            if let SelectItem::UnnamedExpr(expr) = item
                && self.is_missing_column(expr)
            {
                self.count += 1;
                *item = SelectItem::ExprWithAlias { expr: null(), alias: Ident::new(name) };
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.is_missing_column(expr) {
            self.count += 1;
            *expr = null();
            return ControlFlow::Continue(());
        }
        if let (Missing::Function(name), Expr::Function(function)) = (self.missing, &mut *expr)
            && function.name.to_string().eq_ignore_ascii_case(name)
        {
            self.count += 1;
            if takes_values(function) {
                function.name = ObjectName::from(vec![Ident::new("coalesce")]);
            } else {
                *expr = null();
            }
        }
        ControlFlow::Continue(())
    }
}

fn null() -> Expr {
    Expr::Value(Value::Null.with_empty_span())
}

/// Tells whether a call could be one of `coalesce`.
fn takes_values(function: &Function) -> bool {
    let FunctionArguments::List(list) = &function.args else { return false };
    let is_value = |argument: &FunctionArg| matches!(argument, FunctionArg::Unnamed(FunctionArgExpr::Expr(_)));
    function.over.is_none()
        && function.filter.is_none()
        && function.within_group.is_empty()
        && list.duplicate_treatment.is_none()
        && list.clauses.is_empty()
        && !list.args.is_empty()
        && list.args.iter().all(is_value)
}
