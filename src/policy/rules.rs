//! Rules as compiled: one table's columns and custom rules with their methods checked.

use std::collections::HashSet;
use std::fmt::Write;

use arrow::datatypes::Schema;

use crate::error::{Error, Result};
use crate::model::Stream;
use crate::policy::custom::{self, AttributeChange};
use crate::policy::definitions::{self, Definitions};
use crate::policy::form::{AttributeRule, ColumnRule, RulesOfTable};
use crate::policy::method::{Defaults, Method, Place};
use crate::policy::reach;
use crate::policy::scrub::Scrub;
use crate::schema::{Class, Column, ColumnType, CustomRule, Pattern, TableSchema};

/// Where custom attributes stand in a record.
pub(super) const CUSTOM_PATH: [&str; 2] = ["attributes", "custom"];
/// By these a newer revision supersedes an older one, so they are stored as they are.
const REPLICATION_COLUMNS: [&str; 3] = ["updated_at", "rev", "deleted"];

/// One table's rules.
#[derive(Debug)]
pub(super) struct TableRules {
    pub(super) stream: Stream,
    pub(super) file: String,
    pub(super) columns: Vec<CompiledColumn>,
    pub(super) custom: Vec<CustomRule>,
    pub(super) patterns: Vec<Pattern>,
    /// The custom rules' methods in their canonical text.
    custom_methods: Vec<String>,
}

/// A column whose method is checked against its type.
#[derive(Debug, Clone)]
pub(super) struct CompiledColumn {
    pub(super) name: String,
    pub(super) path: Vec<String>,
    pub(super) column_type: ColumnType,
    pub(super) unit: Option<String>,
    pub(super) class: Class,
    pub(super) method: Method,
    pub(super) description: String,
    /// Line of the declaration in its file, from 1: that of the custom rule for a column that one makes.
    pub(super) line: usize,
}

impl TableRules {
    pub(super) fn compile(schema: &TableSchema) -> Result<Self> {
        check_patterns(schema)?;
        let columns = schema.columns.iter().map(|column| compile_column(schema, column)).collect::<Result<Vec<_>>>()?;
        if let Some(error) = reach::problems(schema).into_iter().next() {
            return Err(error);
        }
        let custom_methods =
            schema.custom.iter().map(|rule| custom::check_rule(schema, rule)).collect::<Result<_>>()?;
        Ok(Self {
            stream: schema.stream,
            file: schema.file.clone(),
            columns,
            custom: schema.custom.clone(),
            patterns: schema.patterns.clone(),
            custom_methods,
        })
    }

    /// Lists everything that does not compile.
    pub(super) fn problems(schema: &TableSchema) -> Vec<Error> {
        let columns = schema.columns.iter().filter_map(|column| compile_column(schema, column).err());
        let custom = schema.custom.iter();
        let patterns = check_patterns(schema).err().into_iter();
        let custom = custom.filter_map(|rule| custom::check_rule(schema, rule).err());
        patterns.chain(columns).chain(reach::problems(schema)).chain(custom).collect()
    }

    /// Returns the declared columns and those that the custom rules make of the definitions.
    pub(super) fn columns_with(&self, definitions: &Definitions) -> Result<Vec<CompiledColumn>> {
        let mut columns = self.columns.clone();
        columns.extend(self.expand(definitions)?.columns);
        Ok(columns)
    }

    /// Tells what the definitions say of custom attributes that the lake does not know, or not so.
    pub(super) fn changes(&self, definitions: &Definitions) -> Result<Vec<AttributeChange>> {
        Ok(self.expand(definitions)?.changes)
    }

    fn expand(&self, definitions: &Definitions) -> Result<custom::Expansion> {
        custom::expand(self, definitions.of(self.stream), definitions.held(self.stream))
    }

    /// Refuses a declared column that has another type in the lake.
    pub(super) fn check_held(&self, held: &Schema) -> Result<()> {
        for column in self.columns.iter().filter(|column| column.method != Method::Drop) {
            let Ok(field) = held.field_with_name(&column.name) else { continue };
            if definitions::column_type(field.data_type()) != Some(column.column_type) {
                let stored = definitions::column_type(field.data_type())
                    .map_or_else(|| field.data_type().to_string(), |stored| stored.name().to_owned());
                return Err(Error::config("a column has another type than in the lake")
                    .with_context("file", &self.file)
                    .with_context("column", &column.name)
                    .with_context("declared", column.column_type.name())
                    .with_context("lake", stored)
                    .with_hint("declare the new type under a new column name: rows that are stored keep the old one"));
            }
        }
        Ok(())
    }

    /// Returns the names of the declared columns.
    pub(super) fn names(&self) -> HashSet<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }

    /// Returns the rules as the lake keeps them.
    pub(super) fn form(&self) -> RulesOfTable {
        let columns = self.columns.iter().map(|column| ColumnRule {
            name: column.name.clone(),
            path: column.path.join("."),
            column_type: column.column_type.name().to_owned(),
            class: column.class.name().to_owned(),
            method: column.method.canonical(),
        });
        let custom = self.custom_with_methods().map(|(rule, method)| AttributeRule {
            pattern: rule.pattern.clone(),
            class: rule.class.name().to_owned(),
            method: method.to_owned(),
        });
        RulesOfTable { table: self.stream.to_string(), columns: columns.collect(), custom: custom.collect() }
    }

    pub(super) fn write_canonical(&self, out: &mut String) {
        // Writing to a string does not fail.
        let _ = writeln!(out, "table {}", self.stream);
        for column in &self.columns {
            let _ = writeln!(
                out,
                "column {} {} {} {} {}",
                column.name,
                column.path.join("."),
                column.column_type.name(),
                column.class.name(),
                column.method.canonical()
            );
        }
        for (rule, method) in self.custom_with_methods() {
            let _ = writeln!(out, "custom {} {} {method}", rule.pattern, rule.class.name());
        }
    }

    /// Returns the custom rules with their methods in canonical text; a pseudonym's domain stands there where it is written,
    /// for the default is each column's own.
    pub(super) fn custom_with_methods(&self) -> impl Iterator<Item = (&CustomRule, &str)> {
        self.custom.iter().zip(self.custom_methods.iter().map(String::as_str))
    }
}

/// Refuses an own pattern that no scrub can use, whether one does or not.
fn check_patterns(schema: &TableSchema) -> Result<()> {
    for pattern in &schema.patterns {
        let own = [(pattern.name.clone(), pattern.regex.clone())];
        Scrub::compile(&[], &own).map_err(|error| {
            let hint = error.hint().unwrap_or("correct the pattern").to_owned();
            let place =
                Place { file: schema.file.clone(), line: pattern.line, kind: "pattern", name: pattern.name.clone() };
            place.wrong("pattern cannot be used").with_hint(hint).with_source(error)
        })?;
    }
    Ok(())
}

fn compile_column(schema: &TableSchema, column: &Column) -> Result<CompiledColumn> {
    let place = Place { file: schema.file.clone(), line: column.line, kind: "column", name: column.name.clone() };
    let domain = format!("{}.{}", schema.stream, column.name);
    let method = Method::compile(&column.method, Defaults { domain: &domain, patterns: &schema.patterns }, &place)?;
    let is_key = column.name == schema.stream.key_column();
    if (is_key || REPLICATION_COLUMNS.contains(&column.name.as_str())) && method != Method::Keep {
        return Err(place
            .wrong("key and replication columns cannot be masked or dropped")
            .with_context("method", method.name())
            .with_hint("write `method = \"keep\"`: without this column changed records could not be told apart"));
    }
    method.check_fits(column.column_type, &place)?;
    check_content(column.class, column.column_type, &method, &place)?;
    method.check_scrub(&place)?;
    Ok(CompiledColumn {
        name: column.name.clone(),
        path: column.path.clone(),
        column_type: column.column_type,
        unit: column.unit.clone(),
        class: column.class,
        method,
        description: column.description.clone(),
        line: column.line,
    })
}

/// Refuses to keep what people wrote, whole or in part: of it only what `scrub`, `mask` or `pseudonymize` make is stored.
pub(super) fn check_content(class: Class, column_type: ColumnType, method: &Method, place: &Place) -> Result<()> {
    let is_text = matches!(column_type, ColumnType::Text | ColumnType::TextList);
    if class == Class::Content && is_text && matches!(method.inner(), Method::Keep | Method::TruncateText { .. }) {
        return Err(place
            .wrong("free text cannot be kept")
            .with_context("class", class.name())
            .with_context("method", method.name())
            .with_hint(if method.is_restricted() {
                "write `method = { name = \"restrict\", after = \"scrub\" }`, or drop it"
            } else {
                "scrub it, drop it, or give the column the class that it has if people do not write into it"
            }));
    }
    Ok(())
}
