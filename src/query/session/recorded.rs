//! What a recording needs to know of a session: its instant, the values that were bound, and one ticket of a result.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, lit};

use super::{Plan, Session};
use crate::error::Result;
use crate::model::ObjectId;
use crate::query::fault::{Fault, Place};
use crate::query::header::Parameter;
use crate::query::library::QueryFile;
use crate::query::parameters::Arguments;

impl Session {
    /// Returns the value of each parameter of a file, in the order of its header; defaults are evaluated.
    ///
    /// # Errors
    ///
    /// Those of [`plan`](Self::plan) for a default.
    pub fn bound<'f>(&self, file: &'f QueryFile, arguments: &Arguments) -> Result<Vec<(&'f Parameter, ScalarValue)>> {
        let used = file.params.iter().map(|parameter| parameter.name.clone()).collect();
        let mut values =
            self.bind_names(file, arguments, used).map_err(|faults| super::first(faults).into_error(&file.path))?;
        let value = |parameter: &'f Parameter| (parameter, values.remove(&parameter.name).unwrap_or(ScalarValue::Null));
        Ok(file.params.iter().map(value).collect())
    }
}

impl Plan {
    /// Returns the plan that gives only the rows of one ticket: those whose first column is its id.
    ///
    /// # Errors
    ///
    /// [`Internal`](crate::error::ErrorKind::Internal) when the result has no first column of texts.
    pub fn of_ticket(&self, ticket: ObjectId) -> Result<Self> {
        let failed = |error| Fault::from_engine(&error, Place { sql: &self.sql, tables: &[] }).into_error(&self.path);
        let Some(first) = self.logical.schema().columns().into_iter().next() else { return Ok(self.clone()) };
        let only = Expr::Column(first).eq(lit(ticket.to_string()));
        let logical = LogicalPlanBuilder::from(self.logical.clone()).filter(only).and_then(LogicalPlanBuilder::build);
        Ok(Self { logical: logical.map_err(failed)?, ..self.clone() })
    }
}
