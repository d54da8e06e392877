//! Gives every placeholder its value, and refuses a header that contradicts the SQL.
//!
//! A default is an SQL expression of constants, of `now()` (the session's instant) and of the parameters declared above
//! it. Its type must be the declared one: what a cast would bend in silence (`1.5` for an int, `5` for a timestamp) is a
//! contradiction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use super::Session;
use crate::error::ErrorKind;
use crate::query::fault::{Fault, Place, locate};
use crate::query::header::{CompleteThrough, Parameter, ParameterType};
use crate::query::library::QueryFile;
use crate::query::parameters::Arguments;

/// The value of every parameter by name: those given, and the defaults of the others.
pub(super) type Values = BTreeMap<String, ScalarValue>;

impl Session {
    /// Gives every parameter its value; all that is wrong comes back at once, in the order of the header.
    pub(super) fn bind(
        &self,
        file: &QueryFile,
        arguments: &Arguments,
        plan: &LogicalPlan,
    ) -> Result<Values, Vec<Fault>> {
        let used = plan.get_parameter_names().map_err(|error| vec![self.fault(file, &error)])?;
        self.bind_names(file, arguments, used.iter().map(|name| bare(name).to_owned()).collect())
    }

    /// As [`bind`](Self::bind), for the names of placeholders that a statement uses.
    pub(super) fn bind_names(
        &self,
        file: &QueryFile,
        arguments: &Arguments,
        mut used: BTreeSet<String>,
    ) -> Result<Values, Vec<Fault>> {
        let declared = |name: &str| file.params.iter().any(|parameter| parameter.name == name);
        let mut faults: Vec<Fault> = used
            .iter()
            .filter(|name| !declared(name))
            .map(|name| undeclared(file, name).at(locate(&file.sql, &format!("${name}"))))
            .collect();
        let mut values = Values::new();
        for parameter in &file.params {
            let value = match (arguments.get(&parameter.name), &parameter.default) {
                (Some(value), _) => Ok(value.clone()),
                (None, Some(default)) => self.default(parameter, default, &values, &mut used),
                (None, None) => {
                    let fault = Fault::new(format!("parameter `{}` ({}) has no value", parameter.name, parameter.kind));
                    Err(fault
                        .with_kind(ErrorKind::Config)
                        .with_hint(format!("add -p {}=VALUE", parameter.name))
                        .at_line(parameter.line))
                }
            };
            let value = value.unwrap_or_else(|fault| {
                faults.push(fault);
                // What is computed of it must not be blamed for it.
                ScalarValue::Null
            });
            values.insert(parameter.name.clone(), value);
        }
        if let Some(through) = &file.complete_through
            && let Err(fault) = self.complete_through_ms(file, through, &values, &mut used)
        {
            faults.push(fault);
        }
        for Parameter { name, line, .. } in file.params.iter().filter(|parameter| !used.contains(&parameter.name)) {
            faults.push(Fault::new(format!("parameter `{name}` is declared but `${name}` is not used")).at_line(*line));
        }
        if faults.is_empty() { Ok(values) } else { Err(faults) }
    }

    /// Computes the instant of `complete_through`, none for NULL.
    pub(super) fn complete_through_ms(
        &self,
        file: &QueryFile,
        through: &CompleteThrough,
        values: &Values,
        used: &mut BTreeSet<String>,
    ) -> Result<Option<i64>, Fault> {
        let CompleteThrough { expression, line } = through;
        let value = self
            .constant(expression, values, used, |name| undeclared(file, name))
            .map_err(|fault| Fault::new(format!("complete_through is wrong: {}", fault.message)).hinted_as(fault))
            .map_err(|fault| fault.at_line(*line))?;
        let kind = ParameterType::Timestamp;
        if !fits(&value, kind) {
            let fault = Fault::new(format!("complete_through is no instant: `{expression}`"));
            return Err(fault
                .with_hint("write a timestamp, as in `$until` or `now() - interval '1 hour'`")
                .at_line(*line));
        }
        match value.cast_to(&kind.arrow_type()) {
            Ok(ScalarValue::TimestampMillisecond(instant_ms, _)) => Ok(instant_ms),
            _ => Err(Fault::new(format!("complete_through is no instant: `{expression}`")).at_line(*line)),
        }
    }

    /// Computes a default.
    fn default(
        &self,
        parameter: &Parameter,
        default: &str,
        values: &Values,
        used: &mut BTreeSet<String>,
    ) -> Result<ScalarValue, Fault> {
        let Parameter { name, kind, line, .. } = parameter;
        let unknown = |other: &str| {
            Fault::new(format!("`${other}` is not declared above it"))
                .with_nearest(other, values.keys().map(String::as_str))
        };
        let value = self
            .constant(default, values, used, unknown)
            .map_err(|fault| {
                let told = Fault::new(format!("the default of parameter `{name}` is wrong: {}", fault.message));
                told.hinted_as(fault)
            })
            .map_err(|fault| fault.at_line(*line))?;
        let wrong = || Fault::new(format!("the default of parameter `{name}` is not of type {kind}")).at_line(*line);
        if !fits(&value, *kind) {
            return Err(wrong().with_hint(format!("it is of type {}", sql_type(&value.data_type()))));
        }
        let cast = value.cast_to(&kind.arrow_type()).map_err(|_| wrong())?;
        // Of numbers, only those that stay what they are.
        let whole = !matches!(kind, ParameterType::Int | ParameterType::IntList)
            || cast.cast_to(&value.data_type()).is_ok_and(|back| back == value);
        if whole { Ok(cast) } else { Err(wrong()) }
    }

    /// Computes an expression of constants and of the given values, with `now()` at the session's time.
    fn constant(
        &self,
        text: &str,
        values: &Values,
        used: &mut BTreeSet<String>,
        unknown: impl Fn(&str) -> Fault,
    ) -> Result<ScalarValue, Fault> {
        let wrong = |error: DataFusionError| Fault::from_engine(&error, Place { sql: "", tables: &[] });
        let schema = DFSchema::empty();
        let expression = self.state.create_logical_expr(text, &schema).map_err(wrong)?;
        let mut missing = None;
        let expression = expression
            .transform(|node| {
                let Expr::Placeholder(placeholder) = &node else { return Ok(Transformed::no(node)) };
                let name = bare(&placeholder.id);
                used.insert(name.to_owned());
                let Some(value) = values.get(name) else {
                    missing.get_or_insert_with(|| unknown(name));
                    return Ok(Transformed::no(node));
                };
                Ok(Transformed::yes(Expr::Literal(value.clone(), None)))
            })
            .map_err(wrong)?
            .data;
        if let Some(fault) = missing {
            return Err(fault);
        }
        let context = SimplifyContext::builder()
            .with_schema(Arc::new(schema.clone()))
            .with_config_options(Arc::clone(self.state.config_options()))
            .with_query_execution_start_time(self.state.execution_props().query_execution_start_time)
            .build();
        let simplifier = ExprSimplifier::new(context);
        let expression = simplifier.coerce(expression, &schema).map_err(wrong)?;
        match simplifier.simplify(expression).map_err(wrong)? {
            Expr::Literal(value, _) => Ok(value),
            _ => Err(Fault::new("it is not a constant")),
        }
    }
}

fn bare(placeholder: &str) -> &str {
    placeholder.trim_start_matches('$')
}

fn undeclared(file: &QueryFile, name: &str) -> Fault {
    Fault::new(format!("parameter `${name}` is not declared"))
        .with_hint(format!("add `-- param {name}: TYPE = DEFAULT` to the header"))
        .with_nearest(name, file.params.iter().map(|parameter| parameter.name.as_str()))
}

/// Tells whether a value is of a type, or of one that is written for it.
fn fits(value: &ScalarValue, kind: ParameterType) -> bool {
    fits_type(&value.data_type(), kind)
}

fn fits_type(found: &DataType, kind: ParameterType) -> bool {
    if found.is_null() {
        return true;
    }
    if let Some(item) = kind.item() {
        return match found {
            DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
                fits_type(field.data_type(), item)
            }
            _ => false,
        };
    }
    let is_text = matches!(found, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match kind {
        ParameterType::Text => is_text,
        ParameterType::Int | ParameterType::Double => found.is_numeric(),
        ParameterType::Bool => found == &DataType::Boolean,
        // Instants, days and lengths of time are written as texts, too.
        ParameterType::Date | ParameterType::Timestamp => {
            is_text || matches!(found, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
        }
        ParameterType::Interval => is_text || matches!(found, DataType::Interval(_) | DataType::Duration(_)),
        _ => false,
    }
}

/// Names a type in the words of headers, and in the engine's where headers have none.
pub(in crate::query) fn sql_type(found: &DataType) -> String {
    match found {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Boolean => "bool".to_owned(),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => "double".to_owned(),
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        DataType::Interval(_) | DataType::Duration(_) => "interval".to_owned(),
        DataType::Dictionary(_, values) => sql_type(values),
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            format!("{}[]", sql_type(field.data_type()))
        }
        other if other.is_integer() => "int".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}
