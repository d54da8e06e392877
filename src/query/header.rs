//! The header of an SQL file: the comment lines at its top that name it and declare its parameters.
//!
//! ```sql
//! -- name: reopened_vip
//! -- description: VIP tickets reopened at least a number of times since a day.
//! -- param since: timestamp = now() - interval '7 days' -- first day that counts
//! -- param tiers: text[] = ['vip', 'gold']
//! -- max_age: 2h
//! -- complete_through: $since + interval '7 days' -- the week must be whole
//! ```
//!
//! | key                | value                                                                              |
//! |--------------------|------------------------------------------------------------------------------------|
//! | `name`             | lower-case letters, digits, `_`; without it the file's name                        |
//! | `description`      | one sentence                                                                       |
//! | `param`            | `NAME: TYPE [= DEFAULT] [-- TEXT]`; the default is an SQL expression of constants  |
//! | `max_age`          | whole number and `s`, `m`, `h` or `d`: how old the lake may be                     |
//! | `complete_through` | `EXPRESSION [-- TEXT]`: the instant that the lake must be complete through, an SQL expression over parameters |
//!
//! The types are `text`, `int`, `double`, `bool`, `date`, `timestamp`, `interval`, and a list of each, as in `date[]`.
//!
//! The header is the first run of `--` lines and ends at the first other line or at a bare `--`. A line whose key is one
//! lower-case word and a colon must have a known key, so that a typing error cannot turn a guard off; a known key below
//! the header is an error for the same reason; any other comment is a comment. A line indented by two spaces or more continues the description.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};

use crate::query::fault::{Fault, did_you_mean};

const KEYS: [&str; 5] = ["name", "description", "param", "max_age", "complete_through"];

/// The type of a parameter, as headers write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParameterType {
    /// `text`: UTF-8.
    Text,
    /// `int`: 64 bits, signed.
    Int,
    /// `double`: 64 bits, floating point.
    Double,
    /// `bool`: `true` or `false`.
    Bool,
    /// `date`: a day.
    Date,
    /// `timestamp`: an instant in milliseconds, UTC.
    Timestamp,
    /// `interval`: months, days and nanoseconds.
    Interval,
    /// `text[]`: a list of texts.
    TextList,
    /// `int[]`: a list of integers.
    IntList,
    /// `double[]`: a list of floating point numbers.
    DoubleList,
    /// `bool[]`: a list of `true` and `false`.
    BoolList,
    /// `date[]`: a list of days.
    DateList,
    /// `timestamp[]`: a list of instants.
    TimestampList,
    /// `interval[]`: a list of intervals.
    IntervalList,
}

impl ParameterType {
    /// Every type, in the order in which errors list them.
    pub const ALL: [Self; 14] = [
        Self::Text,
        Self::Int,
        Self::Double,
        Self::Bool,
        Self::Date,
        Self::Timestamp,
        Self::Interval,
        Self::TextList,
        Self::IntList,
        Self::DoubleList,
        Self::BoolList,
        Self::DateList,
        Self::TimestampList,
        Self::IntervalList,
    ];

    /// Returns the name that headers use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Int => "int",
            Self::Double => "double",
            Self::Bool => "bool",
            Self::Date => "date",
            Self::Timestamp => "timestamp",
            Self::Interval => "interval",
            Self::TextList => "text[]",
            Self::IntList => "int[]",
            Self::DoubleList => "double[]",
            Self::BoolList => "bool[]",
            Self::DateList => "date[]",
            Self::TimestampList => "timestamp[]",
            Self::IntervalList => "interval[]",
        }
    }

    /// Returns a value of the type as one would write it after `-p name=`.
    #[must_use]
    pub const fn example(self) -> &'static str {
        match self {
            Self::Text => "vip",
            Self::Int => "2",
            Self::Double => "0.5",
            Self::Bool => "true",
            Self::Date => "2026-01-31",
            Self::Timestamp => "2026-01-31T09:00:00Z",
            Self::Interval => "7 days",
            Self::TextList => "email,chat",
            Self::IntList => "1,2",
            Self::DoubleList => "0.5,1",
            Self::BoolList => "true,false",
            Self::DateList => "2026-01-31,2026-02-01",
            Self::TimestampList => "2026-01-31T09:00:00Z,2026-02-01",
            Self::IntervalList => "7 days,12 hours",
        }
    }

    /// Returns the type of a list's items, none for a type that is no list.
    #[must_use]
    pub const fn item(self) -> Option<Self> {
        match self {
            Self::TextList => Some(Self::Text),
            Self::IntList => Some(Self::Int),
            Self::DoubleList => Some(Self::Double),
            Self::BoolList => Some(Self::Bool),
            Self::DateList => Some(Self::Date),
            Self::TimestampList => Some(Self::Timestamp),
            Self::IntervalList => Some(Self::Interval),
            _ => None,
        }
    }

    /// Returns the Arrow type that a value of the type is bound as.
    #[must_use]
    pub fn arrow_type(self) -> DataType {
        if let Some(item) = self.item() {
            return DataType::List(Arc::new(Field::new_list_field(item.arrow_type(), true)));
        }
        match self {
            Self::Text => DataType::Utf8,
            Self::Int => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Date => DataType::Date32,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            Self::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            // Lists are dealt with above.
            _ => DataType::Null,
        }
    }
}

impl fmt::Display for ParameterType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ParameterType {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or(())
    }
}

/// A declared parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Name, without the `$`.
    pub name: String,
    /// Type.
    pub kind: ParameterType,
    /// SQL expression of constants that gives the value when none is given.
    pub default: Option<String>,
    /// What it means.
    pub description: Option<String>,
    /// Line of the declaration, from 1.
    pub line: u64,
}

/// The instant that a file's streams must be complete through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompleteThrough {
    /// SQL expression over the file's parameters.
    pub expression: String,
    /// Line of the header, from 1.
    pub line: u64,
}

/// What a header says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// `name`, where given.
    pub name: Option<String>,
    /// `description`, empty where not given.
    pub description: String,
    /// `param` lines, in order.
    pub params: Vec<Parameter>,
    /// `max_age`: how old the lake may be.
    pub max_age: Option<Duration>,
    /// `complete_through`: how far the lake must be complete.
    pub complete_through: Option<CompleteThrough>,
}

/// Reads the header of an SQL text, up to the first thing that is wrong with it.
#[cfg(test)]
pub(super) fn parse(sql: &str) -> Result<Header, Fault> {
    let (header, mut faults) = parse_all(sql);
    if faults.is_empty() { Ok(header) } else { Err(faults.swap_remove(0)) }
}

/// Reads the header of an SQL text: what is right of it, and all that is wrong.
pub(super) fn parse_all(sql: &str) -> (Header, Vec<Fault>) {
    let mut header = Header::default();
    let mut faults = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    let mut in_description = false;
    let mut has_begun = false;
    let mut has_ended = false;
    for (number, line) in (1..).zip(sql.lines()) {
        let Some(comment) = line.trim_start().strip_prefix("--") else {
            if line.trim().is_empty() {
                has_ended = has_begun;
                continue;
            }
            break;
        };
        has_begun = true;
        let content = comment.trim();
        if content.is_empty() || has_ended {
            has_ended = true;
            // A guard or a parameter that slipped below the header must not be lost in silence.
            if let Ok(Some((key, _))) = key_of(content) {
                let fault = Fault::new(format!("`{key}` is below the header")).at_line(number);
                faults.push(fault.with_hint("move it up: the header ends at the first empty line or empty comment"));
            }
            continue;
        }
        if in_description && comment.starts_with("   ") {
            header.description.push(' ');
            header.description.push_str(content);
            continue;
        }
        in_description = false;
        let (key, value) = match key_of(content) {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            Err(fault) => {
                faults.push(fault.at_line(number));
                continue;
            }
        };
        if key != "param" && seen.contains(&key) {
            faults.push(Fault::new(format!("`{key}` is in the header twice")).at_line(number));
            continue;
        }
        seen.push(key);
        in_description = key == "description";
        if let Err(fault) = header.read(key, value, number) {
            faults.push(fault.at_line(number));
        }
    }
    (header, faults)
}

impl Header {
    /// Takes one line's key and value.
    fn read(&mut self, key: &str, value: &str, line: u64) -> Result<(), Fault> {
        match key {
            "name" => self.name = Some(identifier("name", value)?),
            "description" => value.clone_into(&mut self.description),
            "max_age" => self.max_age = Some(duration(value)?),
            "complete_through" => {
                let (expression, _) = split_comment(value);
                if expression.is_empty() {
                    return Err(Fault::new("complete_through has no expression")
                        .with_hint("write an instant, as in `-- complete_through: $until`"));
                }
                self.complete_through = Some(CompleteThrough { expression: expression.to_owned(), line });
            }
            _ => {
                let parameter = parameter(value, line)?;
                if let Some(first) = self.params.iter().find(|known| known.name == parameter.name) {
                    return Err(Fault::new(format!(
                        "parameter `{}` is declared twice, first on line {}",
                        parameter.name, first.line
                    )));
                }
                self.params.push(parameter);
            }
        }
        Ok(())
    }
}

/// Finds the name in a header that may be wrong elsewhere.
pub(super) fn name_of(sql: &str) -> Option<&str> {
    let comments =
        sql.trim_start_matches('\u{feff}').trim_start().lines().map_while(|line| line.trim_start().strip_prefix("--"));
    let name = comments.filter_map(|comment| comment.trim().strip_prefix("name:")).map(str::trim).next()?;
    identifier("name", name).is_ok().then_some(name)
}

/// Splits `key: value` and `param name: …`; a line that has neither form is a comment.
fn key_of(content: &str) -> Result<Option<(&'static str, &str)>, Fault> {
    let Some((head, value)) = content.split_once(':') else { return Ok(None) };
    let is_key = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let words: Vec<&str> = head.split_whitespace().collect();
    match words.as_slice() {
        ["param", ..] => Ok(Some(("param", content["param".len()..].trim()))),
        [word] if is_key(word) => {
            if let Some(key) = KEYS.into_iter().find(|key| key == word) {
                return Ok(Some((key, value.trim())));
            }
            let fault = Fault::new(format!("unknown header key `{word}`"));
            let known = format!("the keys are {}", KEYS.join(", "));
            Err(fault.with_hint(did_you_mean(word, KEYS).unwrap_or(known)))
        }
        [word, _] if is_key(word) && strsim::osa_distance(word, "param") <= 2 => {
            Err(Fault::new(format!("unknown header key `{word}`")).with_hint("did you mean `param`?"))
        }
        _ => Ok(None),
    }
}

fn identifier(what: &str, text: &str) -> Result<String, Fault> {
    let mut bytes = text.bytes();
    let starts = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase());
    if starts && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
        return Ok(text.to_owned());
    }
    Err(Fault::new(format!("{what} `{text}` is not made of lower-case letters, digits and `_`")))
}

/// Reads `NAME: TYPE [= DEFAULT] [-- TEXT]`.
fn parameter(text: &str, line: u64) -> Result<Parameter, Fault> {
    let (declaration, description) = split_comment(text);
    let form = "write `-- param NAME: TYPE = DEFAULT`";
    let Some((name, rest)) = declaration.split_once(':') else {
        return Err(Fault::new("a parameter without a type").with_hint(form));
    };
    let name = identifier("parameter", name.trim()).map_err(|fault| fault.with_hint(form))?;
    let (kind, default) = match rest.split_once('=') {
        Some((kind, default)) => (kind.trim(), Some(default.trim().to_owned())),
        None => (rest.trim(), None),
    };
    if default.as_deref() == Some("") {
        return Err(Fault::new(format!("parameter `{name}` has an empty default")).with_hint(form));
    }
    let kind = kind.parse().map_err(|()| {
        let all = ParameterType::ALL.map(ParameterType::name);
        let hint = did_you_mean(kind, all).unwrap_or_else(|| format!("the types are {}", all.join(", ")));
        Fault::new(format!("parameter `{name}` has the unknown type `{kind}`")).with_hint(hint)
    })?;
    Ok(Parameter { name, kind, default, description, line })
}

/// Splits at the first ` -- ` that stands outside quotes.
fn split_comment(text: &str) -> (&str, Option<String>) {
    let mut quoted = false;
    for (at, byte) in text.bytes().enumerate() {
        if byte == b'\'' {
            quoted = !quoted;
        } else if !quoted && text.as_bytes()[at..].starts_with(b" --") {
            let comment = text[at + 3..].trim();
            return (text[..at].trim(), (!comment.is_empty()).then(|| comment.to_owned()));
        }
    }
    (text, None)
}

/// Reads a whole number and `s`, `m`, `h` or `d`.
fn duration(text: &str) -> Result<Duration, Fault> {
    let wrong = || Fault::new(format!("max_age `{text}` is not a duration")).with_hint("write 30m, 2h or 1d");
    let unit_at = text.find(|character: char| !character.is_ascii_digit()).ok_or_else(wrong)?;
    let amount: u64 = text[..unit_at].parse().map_err(|_| wrong())?;
    let unit_seconds = match text[unit_at..].trim() {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    match amount.checked_mul(unit_seconds) {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_reads_every_key_and_stops_at_a_bare_comment() {
        let header = parse(
            "-- A note: written for people.\n-- name: a_b2\n-- description: first\n--   second: line\n\
             -- param since: timestamp = now() - interval '7 days' -- first day\n-- param note: text = 'a -- b'\n\
             -- param tags: text[]\n-- max_age: 2h\n-- complete_through: $since -- whole\n--\n-- nmae: not read\nSELECT 1",
        )
        .unwrap();
        assert_eq!(header.name.as_deref(), Some("a_b2"));
        assert_eq!(header.description, "first second: line");
        assert_eq!(header.max_age, Some(Duration::from_hours(2)));
        assert_eq!(header.complete_through, Some(CompleteThrough { expression: "$since".to_owned(), line: 9 }));
        let params: Vec<_> = header
            .params
            .iter()
            .map(|p| (p.name.as_str(), p.kind, p.default.as_deref(), p.description.as_deref(), p.line))
            .collect();
        assert_eq!(
            params,
            [
                ("since", ParameterType::Timestamp, Some("now() - interval '7 days'"), Some("first day"), 5),
                ("note", ParameterType::Text, Some("'a -- b'"), None, 6),
                ("tags", ParameterType::TextList, None, None, 7),
            ]
        );
    }

    #[test]
    fn wrong_headers_name_the_line_the_word_and_a_way_out() {
        for (sql, line, message, hint) in [
            ("-- nam: x", 1, "unknown header key `nam`", "did you mean `name`"),
            ("-- name: x\n-- max_agee: 2h", 2, "unknown header key `max_agee`", "did you mean `max_age`"),
            ("-- parm since: int", 1, "unknown header key `parm`", "did you mean `param`"),
            ("-- name: a\n-- name: b", 2, "`name` is in the header twice", ""),
            ("-- param a: int\n-- param a: text", 2, "parameter `a` is declared twice, first on line 1", ""),
            ("-- param a: integer", 1, "unknown type `integer`", "int"),
            ("-- param A: int", 1, "parameter `A` is not made of", "param NAME"),
            ("-- param a: int =", 1, "parameter `a` has an empty default", ""),
            ("-- name: a\n\n-- max_age: 2h\nSELECT 1", 3, "`max_age` is below the header", "move it up"),
            ("\n-- nam: x", 2, "unknown header key `nam`", "did you mean `name`"),
            ("-- complete_through:", 1, "complete_through has no expression", "$until"),
            ("-- complete_thru: now()", 1, "unknown header key `complete_thru`", "did you mean `complete_through`"),
            ("-- max_age: soon", 1, "max_age `soon` is not a duration", "2h"),
            ("-- max_age: 0h", 1, "max_age `0h` is not a duration", ""),
            ("-- name: Reopened VIP", 1, "name `Reopened VIP` is not made of", ""),
        ] {
            let fault = parse(sql).unwrap_err();
            assert_eq!(fault.line, Some(line), "{sql}");
            assert!(fault.message.contains(message), "{sql}: {}", fault.message);
            assert!(fault.hint.unwrap_or_default().contains(hint), "{sql}");
        }
    }

    #[test]
    fn everything_that_is_wrong_with_a_header_is_told_at_once() {
        let (header, faults) = parse_all("-- nam: x\n-- max_age: soon\n-- param a: int\n-- param b: str\nSELECT $a");
        let lines: Vec<_> = faults.iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [Some(1), Some(2), Some(4)]);
        assert_eq!(header.params.len(), 1, "what is right of it is read");
    }

    #[test]
    fn every_type_reads_its_own_name_and_a_list_holds_its_item() {
        for kind in ParameterType::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            match kind.item() {
                Some(item) => assert_eq!(kind.name(), format!("{item}[]")),
                None => assert!(!kind.name().ends_with("[]")),
            }
            assert_ne!(kind.arrow_type(), DataType::Null, "{kind}");
        }
    }
}
