//! `table`: the first rows in columns, for people.
//!
//! Columns are as wide as their content while that fits; then the widest texts are narrowed, down to a least width, and
//! at last the columns on the right are left out. The first column and ids stay whole, since a part of an id is of no
//! use, and so do numbers and times, since a part of one reads as another. Every cut is said in a note. Control
//! characters, escape sequences and marks that turn the direction of text are written as escapes: text of a record must
//! not steer a terminal.

use arrow::array::{Array, StringArray};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::record_batch::RecordBatch;
use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, Row, Table as Drawing, TableComponent, Width,
};

use super::{Encoder, Layout, cells};
use crate::error::Result;

const GAP: u16 = 2;
const LEAST_WIDTH: u16 = 8;
/// Longer texts are cut before they are measured; no terminal shows more.
const LONGEST_CELL_CHARS: usize = 1_000;
/// The same when every row is asked for: the widths of columns are 16 bits, and a character may take two columns.
const LONGEST_WHOLE_CELL_CHARS: usize = 32_767;

/// What may be cut of a column that has too little room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// Nothing: it is an id.
    Whole,
    /// Its name only: its values are short, and a part of one would mislead.
    Values,
    /// Its values too: it is text.
    Beginning,
}

/// Holds the rows that are shown until the columns can be measured.
#[derive(Debug)]
pub(super) struct Table {
    names: Vec<String>,
    numeric: Vec<bool>,
    kept: Vec<Kept>,
    rows: Vec<Vec<String>>,
    has_more: bool,
    has_cut_texts: bool,
    longest_cell_chars: usize,
    /// The engine's EXPLAIN: a tree over many lines in one cell, shown as lines.
    is_explain: bool,
    layout: Layout,
}

impl Table {
    pub(super) fn new(schema: &SchemaRef, layout: &Layout) -> Self {
        Self {
            names: schema.fields().iter().map(|field| printable(field.name(), LONGEST_CELL_CHARS)).collect(),
            numeric: schema.fields().iter().map(|field| is_number(field.data_type())).collect(),
            kept: schema.fields().iter().map(|field| kept(field)).collect(),
            rows: Vec::new(),
            has_more: false,
            has_cut_texts: false,
            longest_cell_chars: if layout.max_rows == usize::MAX {
                LONGEST_WHOLE_CELL_CHARS
            } else {
                LONGEST_CELL_CHARS
            },
            is_explain: schema.fields().iter().map(|field| field.name().as_str()).eq(["plan_type", "plan"]),
            layout: layout.clone(),
        }
    }

    fn drawing(&self, shown: &[u16]) -> Drawing {
        let mut drawing = Drawing::new();
        drawing.load_preset(comfy_table::presets::NOTHING);
        drawing.set_content_arrangement(ContentArrangement::Disabled);
        drawing.set_truncation_indicator("…");
        drawing.set_style(TableComponent::HeaderLines, '─');
        let line = |texts: &[String]| {
            let mut row = Row::new();
            for (text, is_number) in texts.iter().zip(&self.numeric).take(shown.len()) {
                let alignment = if *is_number { CellAlignment::Right } else { CellAlignment::Left };
                row.add_cell(Cell::new(text).set_alignment(alignment));
            }
            row.max_height(1);
            row
        };
        drawing.set_header(line(&self.names));
        drawing.add_rows(self.rows.iter().map(|row| line(row)));
        for (index, column) in drawing.column_iter_mut().enumerate() {
            column.set_padding((0, if index + 1 == shown.len() { 0 } else { GAP }));
            column.set_delimiter(' ');
        }
        drawing
    }

    /// Returns how narrow each column may become in a terminal of `width`.
    fn least(&self, natural: &[u16], width: u16) -> Vec<u16> {
        let narrow = |index: usize| match self.kept[index] {
            Kept::Whole => natural[index],
            // Numbers and times are ASCII: a byte is a column of the terminal.
            Kept::Values => {
                let longest = self.rows.iter().map(|row| row[index].len()).max().unwrap_or_default();
                natural[index].min(u16::try_from(longest).unwrap_or(u16::MAX).max(LEAST_WIDTH))
            }
            Kept::Beginning => natural[index].min(LEAST_WIDTH),
        };
        let mut least: Vec<u16> = (0..natural.len()).map(narrow).collect();
        // The first column tells the rows apart. A text that fills the terminal alone would leave no room to do so.
        if let (Some(least), Some(natural)) = (least.first_mut(), natural.first())
            && *natural <= width
        {
            *least = *natural;
        }
        least
    }
}

impl Encoder for Table {
    fn batch(&mut self, batch: &RecordBatch, _out: &mut Vec<u8>) -> Result<bool> {
        let room = self.layout.max_rows.saturating_sub(self.rows.len());
        self.has_more |= batch.num_rows() > room;
        let batch = batch.slice(0, batch.num_rows().min(room));
        let columns = batch.columns().iter().map(cells::text).collect::<Result<Vec<_>>>()?;
        let longest = self.longest_cell_chars;
        // Bytes are no fewer than characters: the count is made only where it can matter.
        self.has_cut_texts |= columns.iter().any(|column| {
            column.iter().flatten().any(|text| text.len() > longest && text.chars().nth(longest).is_some())
        });
        for row in 0..batch.num_rows() {
            let cell = |column: &StringArray| {
                if column.is_null(row) { "NULL".to_owned() } else { printable(column.value(row), longest) }
            };
            if !self.is_explain {
                self.rows.push(columns.iter().map(cell).collect());
                continue;
            }
            for (index, line) in columns[1].value(row).lines().enumerate() {
                let kind = if index == 0 { cell(&columns[0]) } else { String::new() };
                self.rows.push(vec![kind, printable(line, longest)]);
            }
        }
        Ok(!self.has_more)
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(u64, Vec<String>)> {
        let natural = self.drawing(&vec![0; self.names.len()]).column_max_content_widths();
        let widths = match self.layout.width {
            Some(width) => fit(&natural, &self.least(&natural, width), width),
            None => natural.clone(),
        };
        let mut drawing = self.drawing(&widths);
        drawing.set_content_arrangement(ContentArrangement::Dynamic);
        let paddings: u16 = GAP.saturating_mul((widths.len().saturating_sub(1)) as u16);
        drawing.set_width(widths.iter().fold(paddings, |sum, width| sum.saturating_add(*width)));
        for (column, width) in drawing.column_iter_mut().zip(&widths) {
            let padded = width.saturating_add(column.padding_width());
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(padded)));
        }
        for line in drawing.lines() {
            out.extend_from_slice(line.trim_end().as_bytes());
            out.push(b'\n');
        }
        let mut notes = Vec::new();
        if self.has_more {
            notes.push(format!("only the first {} rows are shown; --format csv writes all", self.rows.len()));
        }
        let left_out = &self.names[widths.len()..];
        if !left_out.is_empty() {
            notes.push(format!(
                "columns left out, the terminal is too narrow for them: {}; --format csv writes all",
                left_out.join(", ")
            ));
        }
        if self.has_cut_texts || widths.iter().zip(&natural).any(|(width, natural)| width < natural) {
            notes.push("some texts are cut to fit (…)".to_owned());
        }
        Ok((self.rows.len() as u64, notes))
    }
}

/// Chooses widths of columns, from the left, that fit `width` with the gaps between them.
///
/// No column is narrower than its least width, and the first is never left out: it alone may be wider than `width`.
fn fit(natural: &[u16], least: &[u16], width: u16) -> Vec<u16> {
    let total = |widths: &[u16]| -> u32 {
        widths.iter().map(|width| u32::from(*width)).sum::<u32>()
            + u32::from(GAP) * (widths.len().saturating_sub(1)) as u32
    };
    // First leave out what would not fit even at the least widths.
    let mut shown = natural.len();
    while shown > 1 && total(&least[..shown]) > u32::from(width) {
        shown -= 1;
    }
    // Then take from the widest, one by one, so that the narrow ones keep their content.
    let mut widths = natural[..shown].to_vec();
    while total(&widths) > u32::from(width) {
        let shrinkable = widths.iter_mut().zip(least).filter(|(width, least)| **width > **least);
        let Some((widest, _)) = shrinkable.max_by_key(|(width, _)| **width) else { break };
        *widest -= 1;
    }
    widths
}

fn kept(field: &Field) -> Kept {
    let name = field.name();
    if name == "id" || name.ends_with("_id") {
        Kept::Whole
    } else if is_number(field.data_type()) || field.data_type().is_temporal() || *field.data_type() == DataType::Boolean
    {
        Kept::Values
    } else {
        Kept::Beginning
    }
}

fn is_number(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, value) => is_number(value),
        other => other.is_numeric(),
    }
}

/// Writes what a terminal could obey as escapes, and cuts what no terminal shows.
fn printable(text: &str, longest_chars: usize) -> String {
    let is_plain = |character: char| !is_steering(character);
    if text.len() <= longest_chars && text.chars().all(is_plain) {
        return text.to_owned();
    }
    let mut written = String::with_capacity(text.len().min(longest_chars.saturating_mul(2)));
    for (index, character) in text.chars().enumerate() {
        if index == longest_chars {
            written.push('…');
            break;
        }
        if is_plain(character) {
            written.push(character);
        } else {
            written.extend(character.escape_default());
        }
    }
    written
}

fn is_steering(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;

    use super::*;

    /// Widths of a table of one row with columns of these names and texts.
    fn widths(columns: &[(&str, DataType, usize)], width: u16) -> Vec<u16> {
        let fields: Vec<Field> = columns.iter().map(|(name, kind, _)| Field::new(*name, kind.clone(), true)).collect();
        let layout = Layout { width: Some(width), ..Layout::default() };
        let mut table = Table::new(&Arc::new(Schema::new(fields)), &layout);
        table.rows.push(columns.iter().map(|(_, _, chars)| "x".repeat(*chars)).collect());
        let natural: Vec<u16> =
            columns.iter().map(|(name, _, chars)| u16::try_from(name.len().max(*chars)).unwrap()).collect();
        fit(&natural, &table.least(&natural, width), width)
    }

    #[test]
    fn texts_shrink_from_the_widest_then_columns_drop_on_the_right() {
        let (text, number) = (DataType::Utf8, DataType::Int64);
        let id = |name| (name, DataType::Utf8, 24);
        for (columns, width, expected) in [
            (vec![id("ticket_id"), ("n", number.clone(), 6)], 80, vec![24, 6]),
            (vec![id("ticket_id"), ("text", text.clone(), 100), ("n", number.clone(), 6)], 60, vec![24, 26, 6]),
            // Ids stay whole: texts give way first, then columns on the right.
            (vec![id("ticket_id"), ("text", text.clone(), 100), id("user_id")], 60, vec![24, 8, 24]),
            (vec![id("ticket_id"), ("text", text.clone(), 100), id("user_id")], 59, vec![24, 33]),
            (vec![id("ticket_id"), id("user_id"), id("id")], 51, vec![24, 24]),
            (vec![id("ticket_id"), id("user_id")], 5, vec![24]),
            // The first column stays whole whatever it is, unless it is a text wider than the terminal.
            (vec![("agent", text.clone(), 30), ("text", text.clone(), 50)], 42, vec![30, 10]),
            (vec![("agent", text.clone(), 50), ("text", text.clone(), 50)], 42, vec![20, 20]),
            (vec![("agent", text.clone(), 50)], 42, vec![42]),
            // Numbers and times lose their name's end, never their own.
            (vec![id("ticket_id"), ("minutes_until_done", number.clone(), 3)], 36, vec![24, 10]),
            (vec![id("ticket_id"), ("minutes_until_done", number, 12)], 36, vec![24]),
            (vec![], 80, vec![]),
        ] {
            assert_eq!(widths(&columns, width), expected, "{columns:?} in {width}");
        }
    }

    #[test]
    fn what_steers_a_terminal_is_written_as_an_escape() {
        assert_eq!(printable("a\u{1b}[31mred\nb\u{202e}c\u{9b}2J", 100), "a\\u{1b}[31mred\\nb\\u{202e}c\\u{9b}2J");
        assert_eq!(printable("größe 🙂", 7), "größe 🙂");
        assert_eq!(printable("größe 🙂", 4), "größ…");
    }
}
