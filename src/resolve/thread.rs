//! A ticket as a thread that a person reads at a terminal: what it is, then messages, notes and events in order of time.
//!
//! ```text
//! ━━ ticket 58228e05d4e96711004eccb7 ━━━━━━━━━━━━━━━━━━━━━━
//! Where is my order?
//! status     open
//! customer   Ann Ash <ann@acme.example>
//!
//! ── 2026-11-01 10:00:12 · received · email · ann@acme.example
//! The text, wrapped to the terminal.
//!    + invoice.pdf (application/pdf, 96.0 kB) 5e0e14c103a4e80018b374aa
//!
//! ── 2026-11-01 10:04:00 · internal note · user 57bb5d2e32e83a130052e94f
//! │ Every line of a note is marked.
//!
//! ! customer is missing: the credential may not read it
//! ```
//!
//! It is for eyes: programs read the line of JSON. Everything that people wrote passes `text::harmless` first, so a ticket
//! cannot drive the terminal that shows it; colours are the only escape sequences, and only where they are asked for.

mod record;
mod text;
mod words;

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use self::record::Record;
use self::text::{columns, harmless, on_one_line, wrapped};
use self::words::Words;
use super::detail::{Detail, Failure};
use super::page::{Attachment, Resource};
use super::parts::{Part, Parts};

/// How a thread is set.
#[derive(Debug, Clone)]
pub struct Style {
    /// Columns of the terminal; lines are broken to it.
    pub width: usize,
    /// Whether colours are used.
    pub colors: bool,
    /// The zone of the times that are shown.
    pub zone: TimeZone,
}

impl Default for Style {
    /// 80 columns, no colours, UTC.
    fn default() -> Self {
        Self { width: 80, colors: false, zone: TimeZone::UTC }
    }
}

/// Narrower terminals are written to as if they were so wide.
const LEAST_COLUMNS: usize = 20;

/// The column in which the values of the head begin.
const LABEL_COLUMNS: usize = 11;

/// How much of a value that an event changed is shown.
const CHANGE_CHARACTERS: usize = 60;

/// Attributes that change with everything that happens and say nothing; an update of these alone is not shown.
const BOOKKEEPING: [&str; 9] = [
    "updatedAt",
    "modifiedAt",
    "rev",
    "lastActivityAt",
    "lastMessageAt",
    "messageCount",
    "noteCount",
    "modificationHistory",
    "preview",
];

/// Attributes that name a customer, the best first.
const NAMES: [&str; 3] = ["displayName", "name", "username"];

/// The colours, by what they mark.
#[derive(Clone, Copy)]
enum Paint {
    Plain,
    Strong,
    Faint,
    Received,
    Sent,
    Note,
    Missing,
}

impl Paint {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "\x1b[1m",
            Self::Faint => "\x1b[2m",
            Self::Received => "\x1b[36m",
            Self::Sent => "\x1b[32m",
            Self::Note => "\x1b[33m",
            Self::Missing => "\x1b[31m",
        }
    }
}

/// Writes the ticket as a thread to the end of `out`.
pub(super) fn write(detail: &Detail, parts: Parts, resolved_at: Timestamp, style: &Style, out: &mut String) {
    let mut sheet = Sheet { out, style, width: style.width.max(LEAST_COLUMNS) };
    sheet.rule(detail);
    if detail.is_missing(parts) {
        sheet.line(
            Paint::Missing,
            "",
            "",
            "This ticket does not exist at the source: it is deleted, or of another organisation.",
        );
        sheet.put("\n");
        return;
    }
    let conversation = detail.conversation.as_ref().map(|resource| Record::of(&resource.json));
    let topic = conversation.as_ref().and_then(|conversation| conversation.text(&["name"]));
    let customer = detail.customer.as_ref().map(|resource| Record::of(&resource.json));
    let author = customer.as_ref().and_then(|customer| customer.text(&NAMES));
    head(&mut sheet, detail, conversation.as_ref(), resolved_at);
    let mut entries = Vec::new();
    let kinds = [(Kind::Message, &detail.messages), (Kind::Note, &detail.notes), (Kind::Event, &detail.events)];
    for (kind, resources) in kinds {
        let mut of_kind: Vec<Entry<'_>> =
            resources.iter().flatten().map(|resource| Entry::of(kind, resource)).filter(Entry::is_shown).collect();
        // Some lists begin with the newest: then those of one instant stand the wrong way round as well.
        if let [first, .., last] = &of_kind[..]
            && first.at.zip(last.at).is_some_and(|(first, last)| first > last)
        {
            of_kind.reverse();
        }
        entries.append(&mut of_kind);
    }
    // Those without a time stand last, all others as they came where their times are the same.
    entries.sort_by_key(|entry| (entry.at.is_none(), entry.at));
    let mut shown = Vec::new();
    for entry in &entries {
        sheet.put("\n");
        match entry.kind {
            Kind::Message => message(&mut sheet, detail, (topic, author), entry, &mut shown),
            Kind::Note => note(&mut sheet, entry),
            Kind::Event => event(&mut sheet, entry),
        }
    }
    let others = detail.attachments.iter().flatten().enumerate().filter(|(position, _)| !shown.contains(position));
    let others: Vec<&Attachment> = others.map(|(_, file)| file).collect();
    if !others.is_empty() {
        sheet.put("\n");
        sheet.line(Paint::Strong, "── ", "   ", "attachments");
        for file in others {
            attachment(&mut sheet, file);
        }
    }
    missing(&mut sheet, detail);
    sheet.put("\n");
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Message,
    Note,
    Event,
}

struct Entry<'d> {
    kind: Kind,
    at: Option<Timestamp>,
    id: Option<&'d str>,
    record: Record,
}

impl<'d> Entry<'d> {
    fn of(kind: Kind, resource: &'d Resource) -> Self {
        let record = Record::of(&resource.json);
        let at = match kind {
            Kind::Message => record.time(&["sentAt", "createdAt"]),
            Kind::Note => record.time(&["createdAt"]),
            Kind::Event => record.time(&["publishedAt", "createdAt"]),
        };
        Self { kind, at, id: resource.id.as_deref(), record }
    }

    /// Tells whether there is anything to read in it.
    fn is_shown(&self) -> bool {
        let is_update = self.record.text(&["name"]).is_some_and(|name| name.ends_with(".update"));
        self.kind != Kind::Event || !is_update || changes(&self.record).next().is_some()
    }
}

/// Where a thread is written.
struct Sheet<'a> {
    out: &'a mut String,
    style: &'a Style,
    width: usize,
}

impl Sheet<'_> {
    fn rule(&mut self, detail: &Detail) {
        let title = format!("━━ ticket {} ", detail.ticket_id);
        let Some(rest) = self.width.checked_sub(columns(&title)) else {
            return self.line(Paint::Strong, "━━ ", "━━ ", &format!("ticket {}", detail.ticket_id));
        };
        self.painted(Paint::Strong, &title, &"━".repeat(rest));
        self.put("\n");
    }

    /// Writes a text of any origin in lines; the first begins with `first`, the others with `next`.
    fn line(&mut self, paint: Paint, first: &str, next: &str, text: &str) {
        let safe = harmless(text);
        let width = self.width.saturating_sub(columns(first).max(columns(next)));
        let mut lead = first;
        wrapped(&safe, width, |line| {
            self.painted(paint, if line.is_empty() { lead.trim_end() } else { lead }, line);
            self.put("\n");
            lead = next;
        });
    }

    fn painted(&mut self, paint: Paint, lead: &str, line: &str) {
        let code = if self.style.colors { paint.code() } else { "" };
        let end = if code.is_empty() { "" } else { "\x1b[0m" };
        for piece in [code, lead, line, end] {
            self.put(piece);
        }
    }

    fn put(&mut self, piece: &str) {
        words::push(self.out, piece);
    }

    /// Writes a value of the head beside its label.
    fn field(&mut self, label: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        let (label, value) = (on_one_line(label), on_one_line(value));
        let wide = columns(&label);
        let indent = " ".repeat(LABEL_COLUMNS);
        if wide < LABEL_COLUMNS {
            let label = Words::of(&[&label, &indent[wide..]]);
            self.line(Paint::Plain, &label, &indent, &value);
        } else {
            self.line(Paint::Plain, "", &indent, &Words::of(&[&label, ": ", &value]));
        }
    }

    fn time(&self, at: Timestamp) -> String {
        at.to_zoned(self.style.zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// Writes the line above an entry: when, what, by whom.
    fn entry(&mut self, paint: Paint, entry: &Entry<'_>, what: &[Option<&str>]) {
        let when = entry.at.map_or_else(|| "no time".to_owned(), |at| self.time(at));
        let words = [Some(when.as_str())].into_iter().chain(what.iter().copied()).flatten();
        self.line(paint, "── ", "   ", &on_one_line(&Words::joined(words, " · ")));
    }
}

fn head(sheet: &mut Sheet<'_>, detail: &Detail, conversation: Option<&Record>, resolved_at: Timestamp) {
    if let Some(conversation) = conversation {
        sheet.line(Paint::Strong, "", "", conversation.text(&["name"]).unwrap_or("(no subject)"));
        let deleted = conversation.is("deleted").then_some("deleted");
        let status = conversation.text(&["status"]);
        sheet.field("status", &Words::joined([status, deleted].into_iter().flatten(), ", "));
        let priority = conversation.at("/attributes/priority").and_then(Value::as_i64);
        sheet.field("priority", &priority.map(|priority| priority.to_string()).unwrap_or_default());
        sheet.field("channels", &list(conversation, "channels"));
        let done = conversation.text(&["status"]) == Some("done");
        let times = [("created", "createdAt"), ("updated", "updatedAt"), ("done", "lastDone/createdAt")];
        for (label, name) in times.into_iter().take(if done { 3 } else { 2 }) {
            let at = conversation.time(&[name]).map(|at| sheet.time(at)).unwrap_or_default();
            sheet.field(label, &at);
        }
        sheet.field("users", &list(conversation, "assignedUsers"));
        sheet.field("teams", &list(conversation, "assignedTeams"));
        if let Some(target) = conversation.at("/attributes/mergedTarget").and_then(Value::as_str) {
            sheet.field("merged", &format!("into {target}"));
        }
    }
    customer(sheet, detail, conversation);
    let tags = detail.tags.iter().flatten().map(|tag| tag.name.as_deref().unwrap_or(&tag.id));
    sheet.field("tags", &Words::joined(tags, ", "));
    if let Some(conversation) = conversation {
        attributes(sheet, detail, conversation);
    }
    let zone = sheet.style.zone.iana_name().unwrap_or("UTC").to_owned();
    sheet.field("redacted", if detail.is_redacted { "by the policy" } else { "" });
    sheet.field("read", &format!("{}; times of {zone}", sheet.time(resolved_at)));
}

/// Returns the texts of an attribute that is a list, with commas.
fn list(record: &Record, name: &str) -> Words {
    let items = record.at(&format!("/attributes/{name}")).and_then(Value::as_array);
    Words::joined(items.into_iter().flatten().filter_map(Value::as_str), ", ")
}

fn customer(sheet: &mut Sheet<'_>, detail: &Detail, conversation: Option<&Record>) {
    let id = conversation.and_then(|conversation| conversation.related("customer"));
    let Some(resource) = &detail.customer else {
        sheet.field("customer", id.unwrap_or_default());
        return;
    };
    let record = Record::of(&resource.json);
    let name = record.text(&NAMES);
    let of = |pointer: &str| record.at(pointer).and_then(Value::as_str);
    let address = of("/attributes/emails/0/email").or_else(|| of("/attributes/phones/0/phone"));
    let address = address.filter(|address| Some(*address) != name).map(|address| Words::of(&["<", address, ">"]));
    let id = resource.id.as_deref().or(id);
    let words = Words::joined([name, address.as_deref(), id].into_iter().flatten(), " ");
    sheet.field("customer", &words);
}

/// Writes the custom attributes under the names that people gave them.
fn attributes(sheet: &mut Sheet<'_>, detail: &Detail, conversation: &Record) {
    let custom = conversation.at("/attributes/custom").and_then(Value::as_object);
    for (name, value) in custom.into_iter().flatten() {
        let defined = detail.attributes.iter().flatten().find(|(defined, _)| defined == name);
        let definition = defined.and_then(|(_, json)| serde_json::from_str::<Value>(json).ok());
        let label = definition.as_ref().and_then(|definition| definition.get("displayName")?.as_str());
        let at = value.as_str().filter(|_| name.ends_with("At")).and_then(|text| text.parse().ok());
        let mut words = Words::default();
        match at {
            Some(at) => words.push(&sheet.time(at)),
            None => scalar(value, &mut words),
        }
        sheet.field(label.filter(|label| !label.trim().is_empty()).unwrap_or(name), &words);
    }
}

/// Writes a value as people write it; what has parts is written as JSON.
fn scalar(value: &Value, words: &mut Words) {
    match value {
        Value::Null => {}
        Value::Bool(true) => words.push("yes"),
        Value::Bool(false) => words.push("no"),
        Value::String(text) => words.push(text),
        Value::Array(items) => {
            for (position, item) in items.iter().enumerate() {
                words.push(if position == 0 { "" } else { ", " });
                scalar(item, words);
            }
        }
        // Writing to a text cannot fail.
        other => drop(write!(words, "{other}")),
    }
}

fn message(
    sheet: &mut Sheet<'_>,
    detail: &Detail,
    (topic, author): (Option<&str>, Option<&str>),
    entry: &Entry<'_>,
    shown: &mut Vec<usize>,
) {
    let record = &entry.record;
    let (paint, direction) = match record.text(&["direction"]) {
        Some("in") => (Paint::Received, "received"),
        Some("out") => (Paint::Sent, "sent"),
        _ => (Paint::Strong, "message"),
    };
    let from = record.addresses("meta/from");
    let from = if from.is_empty() && direction == "received" { author } else { Some(&*from) };
    let user = record.related("createdBy").map(|id| Words::of(&["user ", id]));
    let failed = (record.text(&["status"]) == Some("error")).then_some("not delivered");
    let auto = record.is("auto").then_some("automatic");
    sheet.entry(paint, entry, &[Some(direction), record.text(&["channel"]), from, user.as_deref(), auto, failed]);
    for (label, name) in [("to ", "meta/to"), ("cc ", "meta/cc"), ("bcc ", "meta/bcc")] {
        let addresses = record.addresses(name);
        if !addresses.is_empty() {
            sheet.line(Paint::Faint, "   ", "   ", &on_one_line(&Words::of(&[label, &addresses])));
        }
    }
    if let Some(subject) = record.text(&["subject", "meta/subject"]).filter(|subject| Some(*subject) != topic) {
        sheet.line(Paint::Strong, "", "", &on_one_line(subject));
    }
    let redacted = record.is("redacted");
    match record.text(&["preview", "body"]) {
        Some(text) => sheet.line(Paint::Plain, "", "", text),
        None if redacted => {}
        None => sheet.line(Paint::Faint, "", "", "(no text)"),
    }
    if redacted {
        sheet.line(Paint::Faint, "", "", "(redacted at the source)");
    }
    for (position, file) in detail.attachments.iter().flatten().enumerate() {
        if file.message_id.is_some() && file.message_id.as_deref() == entry.id {
            attachment(sheet, file);
            shown.push(position);
        }
    }
}

fn note(sheet: &mut Sheet<'_>, entry: &Entry<'_>) {
    let user = entry.record.related("createdBy").map(|id| Words::of(&["user ", id]));
    sheet.entry(Paint::Note, entry, &[Some("internal note"), user.as_deref()]);
    sheet.line(Paint::Note, "│ ", "│ ", entry.record.text(&["body", "preview"]).unwrap_or("(no text)"));
}

fn event(sheet: &mut Sheet<'_>, entry: &Entry<'_>) {
    let record = &entry.record;
    let name = record.text(&["name", "type"]).unwrap_or("event");
    let user = record.related("modifiedBy").or_else(|| record.related("createdBy"));
    let user = user.map(|id| Words::of(&["user ", id]));
    let name = name.strip_prefix("kustomer.").unwrap_or(name);
    sheet.entry(Paint::Faint, entry, &[Some("event"), Some(name), user.as_deref()]);
    for (name, change) in changes(record) {
        let side = |side: &str| changed(change.get(side).unwrap_or(&Value::Null));
        let words = Words::of(&[name, ": ", &side("before"), " → ", &side("after")]);
        sheet.line(Paint::Faint, "   ", "     ", &on_one_line(&words));
    }
}

/// Returns what an event changed, without the bookkeeping.
fn changes(record: &Record) -> impl Iterator<Item = (&String, &Value)> {
    let of = |kind: &str| record.at(&format!("/attributes/changes/{kind}")).and_then(Value::as_object);
    let both = [of("attributes"), of("relationships")].into_iter().flatten().flatten();
    both.filter(|(name, _)| !BOOKKEEPING.contains(&name.as_str()))
}

/// Returns one side of a change: an id where it has one, in brief.
fn changed(value: &Value) -> Words {
    let mut words = Words::default();
    match value.pointer("/data/id").or_else(|| value.get("id")).and_then(Value::as_str) {
        Some(id) => words.push(id),
        None => scalar(value, &mut words),
    }
    if words.is_empty() {
        words.push("nothing");
    }
    match words.char_indices().nth(CHANGE_CHARACTERS) {
        Some((end, _)) => Words::of(&[&words[..end], "…"]),
        None => words,
    }
}

fn attachment(sheet: &mut Sheet<'_>, file: &Attachment) {
    let size = file.content_length.map(size);
    let redacted = (file.redacted == Some(true)).then_some("redacted at the source");
    let what = Words::joined([file.content_type.as_deref(), size.as_deref(), redacted].into_iter().flatten(), ", ");
    let what = if what.is_empty() { what } else { Words::of(&["(", &what, ")"]) };
    let name = file.name.as_deref().unwrap_or("(no name)");
    let words = Words::joined([name, &what, file.id.as_deref().unwrap_or_default()], " ");
    sheet.line(Paint::Plain, "   + ", "     ", &on_one_line(&words));
}

/// Writes a size as people write it, in steps of a thousand.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// Says what is not there, in words.
fn missing(sheet: &mut Sheet<'_>, detail: &Detail) {
    if detail.errors.is_empty() {
        return;
    }
    sheet.put("\n");
    for error in &detail.errors {
        let began = match error.part {
            Part::Messages => detail.messages.as_ref().is_some_and(|list| !list.is_empty()),
            Part::Notes => detail.notes.as_ref().is_some_and(|list| !list.is_empty()),
            Part::Events => detail.events.as_ref().is_some_and(|list| !list.is_empty()),
            Part::Attachments => detail.attachments.as_ref().is_some_and(|list| !list.is_empty()),
            Part::Tags => detail.tags.as_ref().is_some_and(|list| !list.is_empty()),
            Part::Conversation | Part::Customer | Part::Metadata => false,
        };
        let (name, verb) = match error.part {
            Part::Metadata => ("names of custom attributes", "are"),
            Part::Conversation | Part::Customer => (error.part.name(), "is"),
            _ => (error.part.name(), "are"),
        };
        let how = if began { "not all here" } else { "missing" };
        let failure: Failure = error.failure;
        sheet.line(Paint::Missing, "! ", "  ", &format!("{name} {verb} {how}: {}", failure.message()));
    }
}

#[cfg(test)]
mod tests;
