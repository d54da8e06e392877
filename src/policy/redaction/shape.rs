//! Where columns stand in a record, to write one row of them as JSON of the record's shape.

use std::fmt::Write as _;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMillisecondType};
use jiff::Timestamp;
use zeroize::Zeroizing;

/// The paths of a record that are shown.
#[derive(Debug, Default)]
pub(super) struct Shape(Members);

type Members = Vec<(String, Node)>;

#[derive(Debug)]
enum Node {
    Column(usize),
    Members(Members),
}

impl Shape {
    /// Shows a column at a path; of two columns at one path the first stays.
    pub(super) fn add(&mut self, path: &[String], column: usize) {
        let Some((last, above)) = path.split_last() else { return };
        let mut members = &mut self.0;
        for key in above {
            let place = place_of(members, key, || Node::Members(Members::new()));
            match &mut members[place].1 {
                Node::Members(below) => members = below,
                Node::Column(_) => return,
            }
        }
        place_of(members, last, || Node::Column(column));
    }

    /// Tells whether something is shown at or below a key of a member of the record.
    pub(super) fn has(&self, member: &str, name: &str) -> bool {
        self.node(member, name).is_some()
    }

    /// Writes the row's members, each with a comma before it.
    pub(super) fn write(&self, row: &RecordBatch, hidden: &[usize], out: &mut String) {
        for (name, node) in &self.0 {
            // The type is told by who writes the record.
            if name == "type" {
                continue;
            }
            let before = out.len();
            out.push(',');
            quote(out, name);
            out.push(':');
            if !write_node(node, row, hidden, out) {
                out.truncate(before);
            }
        }
    }

    /// Writes what the row has below a key of a member; `false`, and nothing written, where that is nothing.
    pub(super) fn write_below(
        &self,
        member: &str,
        name: &str,
        row: &RecordBatch,
        hidden: &[usize],
        out: &mut String,
    ) -> bool {
        self.node(member, name).is_some_and(|node| write_node(node, row, hidden, out))
    }

    fn node(&self, member: &str, name: &str) -> Option<&Node> {
        match find(&self.0, member)? {
            Node::Members(members) => find(members, name),
            Node::Column(_) => None,
        }
    }
}

fn find<'m>(members: &'m Members, name: &str) -> Option<&'m Node> {
    members.iter().find(|(known, _)| known == name).map(|(_, node)| node)
}

fn place_of(members: &mut Members, key: &str, make: impl FnOnce() -> Node) -> usize {
    members.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
        members.push((key.to_owned(), make()));
        members.len() - 1
    })
}

fn write_node(node: &Node, row: &RecordBatch, hidden: &[usize], out: &mut String) -> bool {
    match node {
        Node::Column(column) => !hidden.contains(column) && write_value(row.column(*column), out),
        Node::Members(members) => {
            let positions: Option<Vec<u8>> = members.iter().map(|(name, _)| name.parse().ok()).collect();
            match positions.and_then(|positions| positions.into_iter().max()) {
                Some(last) => write_items(members, last, row, hidden, out),
                None => write_members(members, row, hidden, out),
            }
        }
    }
}

fn write_members(members: &Members, row: &RecordBatch, hidden: &[usize], out: &mut String) -> bool {
    let start = out.len();
    out.push('{');
    for (name, node) in members {
        let before = out.len();
        if before > start + 1 {
            out.push(',');
        }
        quote(out, name);
        out.push(':');
        if !write_node(node, row, hidden, out) {
            out.truncate(before);
        }
    }
    closed(out, start, '}')
}

fn write_items(members: &Members, last: u8, row: &RecordBatch, hidden: &[usize], out: &mut String) -> bool {
    let start = out.len();
    out.push('[');
    // What is written so far that says something; nulls after it are not worth writing.
    let mut past = out.len();
    for position in 0..=last {
        if position > 0 {
            out.push(',');
        }
        let node = members.iter().find(|(name, _)| name.parse() == Ok(position)).map(|(_, node)| node);
        if node.is_some_and(|node| write_node(node, row, hidden, out)) {
            past = out.len();
        } else {
            out.push_str("null");
        }
    }
    out.truncate(past);
    closed(out, start, ']')
}

/// Ends what was begun at `start`, or takes it back where nothing is in it.
fn closed(out: &mut String, start: usize, end: char) -> bool {
    let has_some = out.len() > start + 1;
    if has_some {
        out.push(end);
    } else {
        out.truncate(start);
    }
    has_some
}

/// Writes the only value of a column.
fn write_value(column: &dyn Array, out: &mut String) -> bool {
    if column.is_empty() || column.is_null(0) {
        return false;
    }
    match column.data_type() {
        DataType::Utf8 => quote(out, column.as_string::<i32>().value(0)),
        DataType::Boolean => out.push_str(if column.as_boolean().value(0) { "true" } else { "false" }),
        DataType::Int64 => drop(write!(out, "{}", column.as_primitive::<Int64Type>().value(0))),
        DataType::Float64 => {
            let number = serde_json::Number::from_f64(column.as_primitive::<Float64Type>().value(0));
            let Some(number) = number else { return false };
            // Writing to a string does not fail.
            let _ = write!(out, "{number}");
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            let at = column.as_primitive::<TimestampMillisecondType>().value(0);
            let Ok(at) = Timestamp::from_millisecond(at) else { return false };
            let _ = write!(out, "\"{at:.3}\"");
        }
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(0);
            let Some(items) = items.as_string_opt::<i32>() else { return false };
            out.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                match item {
                    Some(item) => quote(out, item),
                    None => out.push_str("null"),
                }
            }
            out.push(']');
        }
        _ => return false,
    }
    true
}

/// Writes a text as JSON.
pub(super) fn quote(out: &mut String, text: &str) {
    // A text has no form that cannot be written.
    out.push_str(&Zeroizing::new(serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())));
}
