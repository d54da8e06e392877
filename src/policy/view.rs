//! Rules as people look them up: what happens to a field, and where that is written.

use crate::error::Result;
use crate::model::Stream;
use crate::policy::Policy;
use crate::policy::custom;
use crate::policy::rules::{CUSTOM_PATH, CompiledColumn, TableRules};
use crate::schema::CustomRule;

/// One rule and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleView {
    /// Name of the column, or the rule's pattern over custom attributes.
    pub name: String,
    /// Keys from the record's root, joined by dots; that of the pattern for a custom rule.
    pub path: String,
    /// Type as schema files name it; a custom rule has none, its attributes have.
    pub column_type: Option<&'static str>,
    /// Class as schema files name it.
    pub class: &'static str,
    /// Method in its canonical text; without a domain where each column of a custom rule has its own.
    pub method: String,
    /// The schema file.
    pub file: String,
    /// Line of the declaration, from 1.
    pub line: usize,
}

impl Policy {
    /// Returns the declared columns of a stream, also those that are dropped, in the order of the file.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the stream is not declared.
    pub fn columns(&self, stream: Stream) -> Result<Vec<RuleView>> {
        let rules = self.rules_of(stream)?;
        Ok(rules.columns.iter().map(|column| of_column(rules, column)).collect())
    }

    /// Returns the rules over custom attributes of a stream, in the order of the file.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the stream is not declared.
    pub fn custom_rules(&self, stream: Stream) -> Result<Vec<RuleView>> {
        let rules = self.rules_of(stream)?;
        Ok(rules.custom_with_methods().map(|(rule, method)| of_rule(rules, rule, method)).collect())
    }

    /// Returns the rule that decides over a custom attribute: a column that reads it, else the custom rule that goes first.
    ///
    /// What the source marks sensitive is not stored by a pattern, whatever its method: see the header of this module.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when the stream is not declared.
    pub fn rule_of_attribute(&self, stream: Stream, attribute: &str) -> Result<Option<RuleView>> {
        let rules = self.rules_of(stream)?;
        let column = rules.columns.iter().find(|column| custom::attribute_at(&column.path) == Some(attribute));
        if let Some(column) = column {
            return Ok(Some(of_column(rules, column)));
        }
        let rule = custom::rule_of(rules, attribute);
        let mut found = rules.custom_with_methods().filter(|(of, _)| rule.is_some_and(|rule| rule.line == of.line));
        Ok(found.next().map(|(rule, method)| of_rule(rules, rule, method)))
    }
}

fn of_column(rules: &TableRules, column: &CompiledColumn) -> RuleView {
    RuleView {
        name: column.name.clone(),
        path: column.path.join("."),
        column_type: Some(column.column_type.name()),
        class: column.class.name(),
        method: column.method.canonical(),
        file: rules.file.clone(),
        line: column.line,
    }
}

fn of_rule(rules: &TableRules, rule: &CustomRule, method: &str) -> RuleView {
    RuleView {
        name: rule.pattern.clone(),
        path: format!("{}.{}", CUSTOM_PATH.join("."), rule.pattern),
        column_type: None,
        class: rule.class.name(),
        method: method.to_owned(),
        file: rules.file.clone(),
        line: rule.line,
    }
}
