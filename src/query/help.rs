//! The help of an SQL file, made from its header and from the columns of its result.
//!
//! Parameters and columns are written as headers declare parameters, `name: type = default`, with what is known of them
//! below. Nothing is run for it: columns come from planning the file, and where there is no lake to plan on, the help
//! says why it does not show them.

use std::fmt::Write as _;

use arrow::datatypes::{Field, SchemaRef};

use crate::error::Error;
use crate::query::header::Parameter;
use crate::query::library::QueryFile;
use crate::query::session::{is_ticket_list, sql_type, words};

/// Writes the help of a file, in lines of at most `width` characters where words allow it.
#[must_use]
pub fn text(file: &QueryFile, columns: Result<&SchemaRef, &Error>, width: usize) -> String {
    let mut page = Page { text: String::new(), width };
    page.wrap(
        "",
        &if file.description.is_empty() { file.name.clone() } else { format!("{}: {}", file.name, file.description) },
    );
    let shown = if file.path == "-e" { "-e SQL" } else { file.name.as_str() };
    let given = if file.params.is_empty() { "" } else { " [-p NAME=VALUE]..." };
    page.heading("Usage");
    page.wrap("  ", &format!("counterfoil query {shown}{given} [--format FORMAT] [-o FILE]"));
    if !file.params.is_empty() {
        page.heading("Parameters");
        file.params.iter().for_each(|parameter| page.parameter(parameter));
        if file.params.iter().any(|parameter| parameter.kind.item().is_some()) {
            page.wrap("  ", "A list is written with commas, a,b, or as a JSON array, [\"a,b\",\"c\"].");
        }
    }
    page.guards(file);
    match columns {
        Ok(schema) => {
            page.heading(if is_ticket_list(schema) { "Columns (a ticket list)" } else { "Columns" });
            schema.fields().iter().for_each(|field| page.column(field));
        }
        Err(error) => {
            page.heading("Columns");
            page.wrap("  ", &format!("not known here: {error}"));
        }
    }
    page.heading("Example");
    let form = if columns.is_ok_and(is_ticket_list) { "ids" } else { "csv" };
    page.wrap("  ", &format!("counterfoil query {shown}{} --format {form}", example(&file.params)));
    page.text
}

/// Returns the arguments of a call: those that have to be given, or else the first that can be.
fn example(parameters: &[Parameter]) -> String {
    let mut given: Vec<&Parameter> = parameters.iter().filter(|parameter| parameter.default.is_none()).collect();
    if given.is_empty() {
        given.extend(parameters.first());
    }
    given.iter().fold(String::new(), |mut text, Parameter { name, kind, .. }| {
        let pair = format!("{name}={}", kind.example());
        let quote = if pair.contains(' ') { "'" } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(text, " -p {quote}{pair}{quote}");
        text
    })
}

struct Page {
    text: String,
    width: usize,
}

impl Page {
    fn heading(&mut self, name: &str) {
        let _ = write!(self.text, "\n{name}:\n");
    }

    fn parameter(&mut self, parameter: &Parameter) {
        let Parameter { name, kind, default, description, .. } = parameter;
        let default = default.as_ref().map_or_else(|| " (has to be given)".to_owned(), |text| format!(" = {text}"));
        self.wrap("  ", &format!("{name}: {kind}{default}"));
        self.wrap("      ", description.as_deref().unwrap_or_default());
    }

    fn guards(&mut self, file: &QueryFile) {
        if file.max_age.is_none() && file.complete_through.is_none() {
            return;
        }
        self.heading("Guards");
        if let Some(max_age) = file.max_age {
            let limit_ms = i64::try_from(max_age.as_millis()).unwrap_or(i64::MAX);
            self.wrap("  ", &format!("max_age: {}", words(limit_ms)));
            self.wrap(
                "      ",
                "refused with exit code 8 when the last complete extract reached less far than this long ago",
            );
        }
        if let Some(through) = &file.complete_through {
            self.wrap("  ", &format!("complete_through: {}", through.expression));
            self.wrap("      ", "refused with exit code 8 unless the lake holds every change before this instant");
        }
    }

    fn column(&mut self, field: &Field) {
        self.wrap("  ", &format!("{}: {}", field.name(), sql_type(field.data_type())));
        self.wrap("      ", field.metadata().get("description").map_or("", String::as_str));
    }

    /// Writes words in lines that begin with an indent; no words give no line.
    fn wrap(&mut self, indent: &str, words: &str) {
        let mut line = String::new();
        for word in words.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > self.width {
                let _ = writeln!(self.text, "{line}");
                line.clear();
                // What goes on stands deeper than what began.
                line.push_str(indent);
                line.push_str("  ");
            } else {
                line.push_str(if line.is_empty() { indent } else { " " });
            }
            line.push_str(word);
        }
        if !line.is_empty() {
            let _ = writeln!(self.text, "{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Schema};

    use super::*;

    #[test]
    fn help_shows_what_the_header_and_the_plan_tell() {
        let file = QueryFile::parse(
            "vip.sql",
            "-- name: vip\n-- description: VIP tickets.\n-- param tags: text[] -- any of them\n\
             -- param at: timestamp = now() -- a long explanation that does not fit into the width that was asked for\n\
             -- max_age: 2h\n-- complete_through: $at\n\nSELECT 1",
        )
        .unwrap();
        let described = [("description".to_owned(), "Id of the ticket.".to_owned())].into();
        let schema: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("ticket_id", DataType::Utf8View, true).with_metadata(described),
            Field::new_list("channels", Field::new_list_field(DataType::Utf8, true), true),
        ]));
        assert_eq!(
            text(&file, Ok(&schema), 60),
            "vip: VIP tickets.

Usage:
  counterfoil query vip [-p NAME=VALUE]... [--format FORMAT]
    [-o FILE]

Parameters:
  tags: text[] (has to be given)
      any of them
  at: timestamp = now()
      a long explanation that does not fit into the width
        that was asked for
  A list is written with commas, a,b, or as a JSON array,
    [\"a,b\",\"c\"].

Guards:
  max_age: 2h
      refused with exit code 8 when the last complete
        extract reached less far than this long ago
  complete_through: $at
      refused with exit code 8 unless the lake holds every
        change before this instant

Columns (a ticket list):
  ticket_id: text
      Id of the ticket.
  channels: text[]

Example:
  counterfoil query vip -p tags=email,chat --format ids
"
        );
    }

    #[test]
    fn help_without_a_lake_says_why_it_shows_no_columns() {
        let file = QueryFile::inline("SELECT 1").unwrap();
        let page = text(&file, Err(&Error::config("no settings found")), 80);
        assert!(page.contains("Columns:\n  not known here: no settings found\n"), "{page}");
        assert!(page.contains("  counterfoil query -e SQL --format csv\n"), "{page}");
    }
}
