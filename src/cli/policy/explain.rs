//! `counterfoil policy explain`: what happens to a field and why, in words; without a field, every rule of every table.

use std::fmt::Write as _;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::find::{Rule, Subject, attribute_of, covering};
use super::{Ground, aligned, invented_keys, words};
use crate::cli::{Context, grouped, print};
use crate::error::Result;
use crate::lake::quarantine::{FieldCount, FieldKey};
use crate::model::Stream;

/// Names that are offered for one that nothing declares.
const OFFERED: usize = 5;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Column (tickets.status, or status), path (attributes.status) or custom attribute (tierStr); without it, everything
    #[arg(value_name = "FIELD")]
    field: Option<String>,
    /// Form of the answer: text or json
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    format: String,
    /// Do not open the lake: tell what the schema files say
    #[arg(long)]
    offline: bool,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let config = context.settings()?;
    let ground = Ground::read(context, &config, arguments.offline).await?;
    let is_json = arguments.format == "json";
    print(&match &arguments.field {
        Some(field) => {
            let answer = Answer::find(&ground, field)?;
            if is_json { line(&answer.json(&ground)?) } else { answer.text(&ground)? }
        }
        None if is_json => line(&all_json(&ground)?),
        None => all_text(&ground)?,
    })
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

/// What is known of one name.
struct Answer<'a> {
    name: &'a str,
    subjects: Vec<Subject>,
    /// Entries of the quarantine that the name means and no subject does.
    quarantined: Vec<Entry<'a>>,
    /// Names like it.
    near: Vec<String>,
}

/// An entry of the quarantine.
type Entry<'a> = (Stream, &'a FieldKey, &'a FieldCount);

impl<'a> Answer<'a> {
    fn find(ground: &'a Ground, name: &'a str) -> Result<Self> {
        let subjects = ground.find(name)?;
        let bare = |stream: Stream| name.strip_prefix(stream.table()).and_then(|rest| rest.strip_prefix('.'));
        let is_meant = |(stream, key, _): &Entry<'a>| {
            let name = bare(*stream).unwrap_or(name);
            key.path == name || key.path.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
        };
        let is_told = |(stream, key, _): &Entry<'a>| {
            subjects.iter().any(|subject| subject.stream == *stream && subject.path == key.path)
        };
        let quarantined = all_entries(ground).filter(|entry| is_meant(entry) && !is_told(entry)).collect();
        let near = if subjects.is_empty() { near(ground, name) } else { Vec::new() };
        Ok(Self { name, subjects, quarantined, near })
    }

    fn text(&self, ground: &Ground) -> Result<String> {
        let mut parts = Vec::new();
        for subject in &self.subjects {
            parts.push(subject_text(ground, subject)?);
        }
        for (stream, key, count) in &self.quarantined {
            parts.push(format!(
                "{stream} {}\n{}",
                key.path,
                row("stored", &undeclared(key)) + &row("quarantine", &counted(key, count))
            ));
        }
        if parts.is_empty() {
            let mut text = format!("{}\n", self.name);
            text += &row("stored", "nothing: no rule declares it, so it is dropped where it comes");
            text += &row("quarantine", "its name, type and count are noted there when a run sees it; none has");
            if !self.near.is_empty() {
                text += &row("near", &self.near.join(", "));
            }
            parts.push(text);
        }
        Ok(parts.join("\n"))
    }

    fn json(&self, ground: &Ground) -> Result<Value> {
        let fields = self.subjects.iter().map(|subject| subject_json(ground, subject)).collect::<Result<Vec<_>>>()?;
        Ok(json!({
            "format": 1,
            "field": self.name,
            "declared": !self.subjects.is_empty(),
            "fields": fields,
            "quarantine": self.quarantined.iter().map(entry_json).collect::<Vec<_>>(),
            "near": self.near,
        }))
    }
}

fn row(head: &str, text: &str) -> String {
    format!("  {head:<10}  {text}\n")
}

fn subject_text(ground: &Ground, subject: &Subject) -> Result<String> {
    let Subject { stream, path, rule, .. } = subject;
    let mut text = match &subject.column {
        Some(column) => format!("{stream}.{column}\n"),
        None => format!("{stream} {path}\n"),
    };
    if !subject.description.is_empty() {
        text += &row("is", &subject.description);
    }
    text += &row("path", &format!("{path} ({})", subject.column_type.name()));
    text += &row(
        "stored",
        &match subject.refused {
            Some(why) => format!("nothing: {why}"),
            None => format!("{} ({})", words::method(&subject.method), subject.method),
        },
    );
    if let Some((before, after)) = example(ground, subject)? {
        text += &row("example", &format!("{before} is stored as {after}"));
    }
    text += &row("class", &format!("{}: {}", subject.class.name(), words::class(subject.class)));
    text += &row("rule", &format!("{}, {}", rule.place(), rule_words(subject)));
    for (other, why) in &subject.others {
        text += &row("not", &format!("{}, `{}`: {why}", other.place(), other.name));
    }
    if attribute_of(path).is_some() {
        text += &row(
            "source",
            match ground.is_sensitive(*stream, path) {
                Some(true) => "marks it sensitive",
                Some(false) => "does not mark it sensitive",
                None => "whether it marks this sensitive is known after an extract",
            },
        );
    }
    for (_, key, count) in entries(ground, subject) {
        text += &row("quarantine", &counted(key, count));
    }
    Ok(text)
}

/// Says by which kind of rule a field is decided over.
fn rule_words(subject: &Subject) -> String {
    let Rule { kind, name, .. } = &subject.rule;
    match (*kind, &subject.column) {
        ("custom", _) if name.contains('*') => format!("[[custom]] `{name}` covers the attribute by pattern"),
        ("custom", _) => format!("[[custom]] `{name}` names the attribute"),
        (_, None) if subject.method == "drop" && subject.column_type.name() == "any" => {
            format!("[[column]] `{name}` drops all inside of it that no other column names")
        }
        _ => format!("[[column]] `{name}` declares the path"),
    }
}

/// Makes up a value and returns what is stored of it; nothing for what is dropped anyway.
fn example(ground: &Ground, subject: &Subject) -> Result<Option<(String, String)>> {
    let Some(column) = &subject.column else { return Ok(None) };
    let value = words::example(&subject.path, subject.column_type, &subject.method);
    let stored = ground.redact(subject.stream, column, &subject.path, &value, &invented_keys()?)?;
    let shown = |value: &Value| match value {
        Value::String(text) => format!("`{text}`"),
        Value::Array(items) => {
            format!("`{}`", items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("`, `"))
        }
        other => format!("`{other}`"),
    };
    Ok(Some(match stored {
        Some(stored) if subject.method.contains("pseudonymize") => {
            (shown(&value), format!("`{stored}`, under a key made up for this answer"))
        }
        Some(stored) => (shown(&value), format!("`{stored}`")),
        None => (shown(&value), "NULL".to_owned()),
    }))
}

fn all_entries(ground: &Ground) -> impl Iterator<Item = Entry<'_>> {
    let kept = ground.manifest().into_iter().flat_map(|manifest| &manifest.quarantine);
    kept.flat_map(|(stream, kept)| kept.fields.iter().map(move |(key, count)| (*stream, key, count)))
}

fn entries<'a>(ground: &'a Ground, subject: &'a Subject) -> impl Iterator<Item = Entry<'a>> {
    all_entries(ground).filter(|(stream, key, _)| *stream == subject.stream && key.path == subject.path)
}

/// Says why nothing of a field in quarantine is stored.
fn undeclared(key: &FieldKey) -> String {
    match key.reason.as_str() {
        "sensitive" => "nothing: the source marks it sensitive, and no rule names it".to_owned(),
        "mismatch" => "nothing of it where it has another type than declared".to_owned(),
        _ => "nothing: no rule declares it; `counterfoil policy suggest` prints declarations".to_owned(),
    }
}

fn counted(key: &FieldKey, count: &FieldCount) -> String {
    let why = match key.reason.as_str() {
        "mismatch" => "another type than declared",
        "sensitive" => "sensitive, and not declared by name",
        _ => "not declared",
    };
    format!(
        "seen {} times as {} ({why}), last {}, and not stored",
        grouped(count.count),
        key.json_type,
        time(count.last_ms)
    )
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| format!("{time:.0}"))
}

fn entry_json((stream, key, count): &Entry<'_>) -> Value {
    json!({
        "table": stream.table(), "path": key.path, "type": key.json_type, "reason": key.reason, "count": count.count,
        "first_seen": time(count.first_ms), "last_seen": time(count.last_ms), "run_id": count.run,
    })
}

fn subject_json(ground: &Ground, subject: &Subject) -> Result<Value> {
    let example = example(ground, subject)?;
    let rule = |rule: &Rule| json!({ "file": rule.file, "line": rule.line, "kind": rule.kind, "name": rule.name });
    let others = subject.others.iter().map(|(other, why)| {
        let mut value = rule(other);
        value["why"] = json!(why);
        value
    });
    Ok(json!({
        "table": subject.stream.table(),
        "column": subject.column,
        "path": subject.path,
        "type": subject.column_type.name(),
        "class": subject.class.name(),
        "method": subject.method,
        "words": subject.refused.map_or_else(|| words::method(&subject.method), str::to_owned),
        "stored": subject.column.is_some(),
        "rule": rule(&subject.rule),
        "not": others.collect::<Vec<_>>(),
        "sensitive": ground.is_sensitive(subject.stream, &subject.path),
        "example": example.map(|(value, stored)| json!({ "value": value, "stored": stored })),
        "quarantine": entries(ground, subject).map(|entry| entry_json(&entry)).collect::<Vec<_>>(),
    }))
}

/// Lists the names that are most like one.
fn near(ground: &Ground, name: &str) -> Vec<String> {
    // By how unlike the likest part of it is, and then its own name.
    let mut known: Vec<(usize, usize, String)> = Vec::new();
    let last = |text: &str| text.rsplit('.').next().unwrap_or(text).to_lowercase();
    let wanted = last(name);
    for stream in ground.schemas.streams() {
        let columns = ground.schemas.table(stream).map(|table| table.columns.as_slice()).unwrap_or_default();
        for column in columns {
            let path = column.path.join(".");
            let of_name = strsim::damerau_levenshtein(&wanted, &column.name);
            let of_path = strsim::damerau_levenshtein(&wanted, &last(&path));
            known.push((of_name.min(of_path), of_name, format!("{stream}.{} ({path})", column.name)));
        }
        for attribute in ground.attributes(stream) {
            let distance = strsim::damerau_levenshtein(&wanted, &attribute.to_lowercase());
            known.push((distance, distance, format!("{stream} attribute {attribute}")));
        }
    }
    known.retain(|(distance, ..)| *distance <= wanted.chars().count().max(3) / 3);
    known.sort();
    known.into_iter().take(OFFERED).map(|(.., name)| name).collect()
}

/// One line of the table of all rules.
struct Listed {
    stream: Stream,
    name: String,
    path: String,
    class: &'static str,
    method: String,
    rule: Rule,
}

fn listed(ground: &Ground) -> Result<Vec<Listed>> {
    let mut lines = Vec::new();
    for stream in ground.schemas.streams() {
        let Some(table) = ground.schemas.table(stream) else { continue };
        let stored = ground.stored(stream)?;
        for column in &table.columns {
            let method = stored.field_with_name(&column.name).ok().and_then(|field| field.metadata().get("method"));
            lines.push(Listed {
                stream,
                name: column.name.clone(),
                path: column.path.join("."),
                class: column.class.name(),
                method: method.cloned().unwrap_or_else(|| column.method.name.clone()),
                rule: Rule::of_column(table, column),
            });
        }
        for rule in &table.custom {
            lines.push(Listed {
                stream,
                name: "-".to_owned(),
                path: format!("attributes.custom.{}", rule.pattern),
                class: rule.class.name(),
                method: ground.written(stream, rule)?,
                rule: Rule::of_custom(table, rule),
            });
        }
        for field in stored.fields() {
            let Some(path) = field.metadata().get("path") else { continue };
            let Some(attribute) = attribute_of(path) else { continue };
            if table.columns.iter().any(|column| column.name == *field.name()) {
                continue;
            }
            let Some(rule) = covering(table, attribute).first().copied() else { continue };
            lines.push(Listed {
                stream,
                name: field.name().clone(),
                path: path.clone(),
                class: rule.class.name(),
                method: field.metadata().get("method").cloned().unwrap_or_default(),
                rule: Rule::of_custom(table, rule),
            });
        }
    }
    Ok(lines)
}

fn all_text(ground: &Ground) -> Result<String> {
    let lines: Vec<Vec<String>> = listed(ground)?
        .into_iter()
        .map(|line| {
            let place = line.rule.place();
            vec![line.stream.table().to_owned(), line.name, line.path, line.class.to_owned(), line.method, place]
        })
        .collect();
    let mut text = aligned(&["table", "column", "path", "class", "method", "rule"], &lines);
    let Some(manifest) = ground.manifest() else { return Ok(text) };
    if all_entries(ground).next().is_none() {
        let _ = writeln!(text, "\nnothing is in quarantine at version {} of the lake", manifest.version);
        return Ok(text);
    }
    let _ = writeln!(text, "\nin quarantine: seen and not stored (`counterfoil policy suggest` prints declarations)");
    let entries: Vec<Vec<String>> = all_entries(ground)
        .map(|(stream, key, count)| {
            vec![
                stream.table().to_owned(),
                key.path.clone(),
                key.json_type.clone(),
                key.reason.clone(),
                grouped(count.count),
                time(count.first_ms),
                time(count.last_ms),
            ]
        })
        .collect();
    text += &aligned(&["table", "path", "type", "reason", "count", "first seen", "last seen"], &entries);
    Ok(text)
}

fn all_json(ground: &Ground) -> Result<Value> {
    let rules = listed(ground)?.into_iter().map(|line| {
        json!({
            "table": line.stream.table(), "column": (line.name != "-").then_some(line.name), "path": line.path,
            "class": line.class, "method": line.method, "file": line.rule.file, "line": line.rule.line,
        })
    });
    Ok(json!({
        "format": 1,
        "rules": rules.collect::<Vec<_>>(),
        "quarantine": all_entries(ground).map(|entry| entry_json(&entry)).collect::<Vec<_>>(),
    }))
}
