//! Messages, notes and events: a fixed list of what stays, and what is done to it.
//!
//! | rule | what stays |
//! |---|---|
//! | `Id` | 24 hex digits |
//! | `Word` | a word of the program: up to 64 letters, digits (five at most), `_`, `-` and `.`, a letter first |
//! | `Time` | an instant, in UTC |
//! | `Number` | a number below 10¹¹: a count, a size, a length of time in milliseconds |
//! | `Flag` | true or false |
//! | `Text` | what people wrote, scrubbed of every kind and of the policy's own patterns |
//! | `Address` | a text, an object or an array of either; e-mail addresses masked as such, all else as phone numbers |
//! | `Changes` | by what conversations have columns for, through their methods |
//!
//! A value of another form is absent, and so is every key that is not in the list: what comes new is not shown before
//! someone has looked at it. Names of people beside their addresses, links, custom attributes and ids of other systems are
//! not in it.

use super::Redaction;
use super::shape::quote;
use crate::model::ObjectId;
use crate::policy::json::{Flaw, Reader, Value};
use crate::policy::method::{Mask, TextStep};
use crate::policy::scalar;

/// What is done to a value.
enum Rule {
    Id,
    Word,
    Time,
    Number,
    Flag,
    Text,
    Address,
    Members(&'static [(&'static str, Rule)]),
    List(&'static Rule),
    Changes,
}

use Rule::{Address, Changes, Flag, Id, List, Members, Number, Text, Time, Word};

const IDS: Rule = List(&Id);
const REFERENCE: Rule = Members(&[("type", Word), ("id", Id)]);
const ONE: Rule = Members(&[("data", REFERENCE)]);
const SEVERAL: Rule = Members(&[("data", List(&REFERENCE))]);

const MESSAGE: Rule = Members(&[
    ("type", Word),
    ("id", Id),
    (
        "attributes",
        Members(&[
            ("channel", Word),
            ("app", Word),
            ("direction", Word),
            ("directionType", Word),
            ("status", Word),
            ("source", Word),
            ("lang", Word),
            ("subject", Text),
            ("preview", Text),
            ("body", Text),
            ("size", Number),
            ("rev", Number),
            ("responseTime", Number),
            ("responseBusinessTime", Number),
            ("auto", Flag),
            ("redacted", Flag),
            ("sentAt", Time),
            ("createdAt", Time),
            ("updatedAt", Time),
            ("modifiedAt", Time),
            ("importedAt", Time),
            ("errorAt", Time),
            ("error", Members(&[("status", Number), ("code", Word)])),
            ("firstDelivered", Members(&[("timestamp", Time)])),
            ("firstRead", Members(&[("timestamp", Time)])),
            ("sentiment", Members(&[("polarity", Number), ("confidence", Number)])),
            ("assignedTeams", IDS),
            ("assignedUsers", IDS),
            ("createdByTeams", IDS),
            (
                "meta",
                Members(&[
                    ("from", Address),
                    ("to", Address),
                    ("cc", Address),
                    ("bcc", Address),
                    ("recipient", Address),
                    ("subject", Text),
                    ("status", Word),
                    ("messageType", Word),
                    ("attachmentNum", Number),
                    ("placedAt", Time),
                    ("answeredAt", Time),
                    ("endedAt", Time),
                ]),
            ),
        ]),
    ),
    (
        "relationships",
        Members(&[
            ("customer", ONE),
            ("conversation", ONE),
            ("createdBy", ONE),
            ("modifiedBy", ONE),
            ("attachments", SEVERAL),
            ("shortcuts", SEVERAL),
        ]),
    ),
]);

const NOTE: Rule = Members(&[
    ("type", Word),
    ("id", Id),
    (
        "attributes",
        Members(&[
            ("body", Text),
            ("preview", Text),
            ("lang", Word),
            ("rev", Number),
            ("createdAt", Time),
            ("updatedAt", Time),
            ("modifiedAt", Time),
            ("importedAt", Time),
            ("createdByTeams", IDS),
        ]),
    ),
    (
        "relationships",
        Members(&[
            ("customer", ONE),
            ("conversation", ONE),
            ("createdBy", ONE),
            ("modifiedBy", ONE),
            ("userMentions", SEVERAL),
        ]),
    ),
]);

const EVENT: Rule = Members(&[
    ("type", Word),
    ("id", Id),
    (
        "attributes",
        Members(&[
            ("name", Word),
            ("type", Word),
            ("publishedAt", Time),
            ("createdAt", Time),
            ("updatedAt", Time),
            ("modifiedAt", Time),
            ("changes", Changes),
        ]),
    ),
    ("relationships", Members(&[("customer", ONE), ("conversation", ONE), ("createdBy", ONE), ("modifiedBy", ONE)])),
]);

/// Of an event only what it is about.
const SUBJECT: Rule = Members(&[("attributes", Members(&[("type", Word)]))]);
const OF_CONVERSATION: &str = r#"{"attributes":{"type":"conversation"}}"#;

/// What of an address is one.
const ADDRESS_KEYS: [&str; 4] = ["email", "phone", "address", "username"];
const MOST_WORD: usize = 64;
/// More might be the number of something.
const MOST_DIGITS: usize = 5;
/// Three years in milliseconds, and less than phone numbers with their country.
const NUMBERS_BELOW: f64 = 1e11;

pub(super) fn message(redaction: &Redaction, json: &str) -> Option<String> {
    Walk::new(redaction, json, &[])?.record(&MESSAGE)
}

pub(super) fn note(redaction: &Redaction, json: &str) -> Option<String> {
    Walk::new(redaction, json, &[])?.record(&NOTE)
}

pub(super) fn event(redaction: &Redaction, json: &str, sensitive: &[&str]) -> Option<String> {
    // Changes of a customer are not those of a conversation, also where they have the same name.
    let subject = Walk::new(redaction, json, &[])?.record(&SUBJECT)?;
    let mut walk = Walk::new(redaction, json, sensitive)?;
    walk.shows_changes = subject == OF_CONVERSATION;
    walk.record(&EVENT)
}

/// One record, read and written at once.
struct Walk<'a> {
    redaction: &'a Redaction,
    json: &'a str,
    sensitive: &'a [&'a str],
    reader: Reader<'a>,
    scratch: zeroize::Zeroizing<String>,
    masked: String,
    shows_changes: bool,
    out: String,
}

impl<'a> Walk<'a> {
    fn new(redaction: &'a Redaction, json: &'a str, sensitive: &'a [&'a str]) -> Option<Self> {
        let reader = Reader::try_new(json.as_bytes()).ok()?;
        let (scratch, masked, out) = Default::default();
        Some(Self { redaction, json, sensitive, reader, scratch, masked, shows_changes: false, out })
    }

    /// Writes a record; nothing where it is no object, or not JSON to its end.
    fn record(mut self, rule: &Rule) -> Option<String> {
        let is_written = self.value(rule).ok()?;
        self.reader.end().ok()?;
        is_written.then_some(self.out)
    }

    /// Reads a value and writes what stays of it; `false`, and nothing written, where that is nothing.
    fn value(&mut self, rule: &Rule) -> Result<bool, Flaw> {
        let value = self.reader.value()?;
        match (rule, value) {
            (Members(members), Value::Object) => return self.members(members).map(|()| true),
            (List(of), Value::Array) => return self.list(of).map(|()| true),
            (Address, Value::Array) => return self.addresses().map(|()| true),
            (Address, Value::Object) => return self.address_object(),
            (Changes, Value::Object) if self.shows_changes => return self.changes().map(|()| true),
            (Flag, Value::Bool(is_true)) => {
                self.out.push_str(if is_true { "true" } else { "false" });
                return Ok(true);
            }
            (Number, Value::Number(raw)) => {
                let is_shown = scalar::float(raw).is_some_and(|number| number.abs() < NUMBERS_BELOW);
                // Digits behind the point can say as much as those before it.
                let is_shown = is_shown && raw.len() <= 24;
                self.out.push_str(if is_shown { raw } else { "" });
                return Ok(is_shown);
            }
            (_, Value::Text(text)) => {
                let text = scalar::text(text, &mut self.scratch);
                return Ok(write_text(rule, text, self.redaction, &mut self.masked, &mut self.out));
            }
            _ => {}
        }
        self.reader.skip_rest(value)?;
        Ok(false)
    }

    /// Writes the members of an object that was entered; those that stay in the order in which they come.
    fn members(&mut self, members: &[(&str, Rule)]) -> Result<(), Flaw> {
        let mut written = 0u64;
        let mut is_first = true;
        self.out.push('{');
        while let Some(key) = self.reader.key(&mut is_first)? {
            let key = scalar::text(key, &mut self.scratch);
            let found = members.iter().position(|(name, _)| *name == key);
            let Some(place) = found.filter(|place| written & (1 << place) == 0) else {
                self.reader.skip()?;
                continue;
            };
            let (name, rule) = &members[place];
            let before = self.begin(written > 0, name);
            if self.value(rule)? {
                written |= 1 << place;
            } else {
                self.out.truncate(before);
            }
        }
        self.out.push('}');
        Ok(())
    }

    /// Begins a member; returns what to go back to where it turns out to be nothing.
    fn begin(&mut self, has_others: bool, name: &str) -> usize {
        let before = self.out.len();
        if has_others {
            self.out.push(',');
        }
        quote(&mut self.out, name);
        self.out.push(':');
        before
    }

    fn list(&mut self, rule: &Rule) -> Result<(), Flaw> {
        let start = self.out.len() + 1;
        let mut is_first = true;
        self.out.push('[');
        while self.reader.element(&mut is_first)? {
            let before = self.out.len();
            if before > start {
                self.out.push(',');
            }
            if !self.value(rule)? {
                self.out.truncate(before);
            }
        }
        self.out.push(']');
        Ok(())
    }

    /// Writes an array of addresses; an array within it is nobody's address.
    fn addresses(&mut self) -> Result<(), Flaw> {
        let start = self.out.len() + 1;
        let mut is_first = true;
        self.out.push('[');
        while self.reader.element(&mut is_first)? {
            let before = self.out.len();
            if before > start {
                self.out.push(',');
            }
            let value = self.reader.value()?;
            let is_written = match value {
                Value::Text(text) => {
                    let text = scalar::text(text, &mut self.scratch);
                    write_text(&Address, text, self.redaction, &mut self.masked, &mut self.out)
                }
                Value::Object => self.address_object()?,
                _ => {
                    self.reader.skip_rest(value)?;
                    false
                }
            };
            if !is_written {
                self.out.truncate(before);
            }
        }
        self.out.push(']');
        Ok(())
    }

    fn address_object(&mut self) -> Result<bool, Flaw> {
        let start = self.out.len();
        let mut written = [false; ADDRESS_KEYS.len()];
        let mut is_first = true;
        self.out.push('{');
        while let Some(key) = self.reader.key(&mut is_first)? {
            let key = scalar::text(key, &mut self.scratch);
            let found = ADDRESS_KEYS.iter().position(|name| *name == key).filter(|place| !written[*place]);
            let value = self.reader.value()?;
            let (Some(place), Value::Text(text)) = (found, value) else {
                self.reader.skip_rest(value)?;
                continue;
            };
            self.begin(written.contains(&true), ADDRESS_KEYS[place]);
            let text = scalar::text(text, &mut self.scratch);
            write_text(&Address, text, self.redaction, &mut self.masked, &mut self.out);
            written[place] = true;
        }
        self.out.push('}');
        let has_some = written.contains(&true);
        if !has_some {
            self.out.truncate(start);
        }
        Ok(has_some)
    }

    /// Writes `changes`: by kind, then by name, what was done and the values before and after.
    fn changes(&mut self) -> Result<(), Flaw> {
        let mut kinds = [("attributes", false), ("relationships", false)];
        let mut is_first = true;
        self.out.push('{');
        while let Some(key) = self.reader.key(&mut is_first)? {
            let key = scalar::text(key, &mut self.scratch);
            let kind = kinds.iter().position(|(kind, is_written)| *kind == key && !is_written);
            let value = self.reader.value()?;
            let (Some(kind), Value::Object) = (kind, value) else {
                self.reader.skip_rest(value)?;
                continue;
            };
            self.begin(kinds.iter().any(|(_, is_written)| *is_written), kinds[kind].0);
            kinds[kind].1 = true;
            self.changes_of(kinds[kind].0)?;
        }
        self.out.push('}');
        Ok(())
    }

    fn changes_of(&mut self, kind: &str) -> Result<(), Flaw> {
        let mut known: Vec<String> = Vec::new();
        let mut is_first = true;
        self.out.push('{');
        while let Some(key) = self.reader.key(&mut is_first)? {
            let name = scalar::text(key, &mut self.scratch).to_owned();
            let value = self.reader.value()?;
            let is_shown = self.redaction.conversations.shape.has(kind, &name) && !known.contains(&name);
            if !is_shown || value != Value::Object {
                self.reader.skip_rest(value)?;
                continue;
            }
            let before = self.begin(!known.is_empty(), &name);
            if self.change(kind, &name)? {
                known.push(name);
            } else {
                self.out.truncate(before);
            }
        }
        self.out.push('}');
        Ok(())
    }

    /// Writes one change; `false` where none of its values is shown: not even that there was one.
    fn change(&mut self, kind: &str, name: &str) -> Result<bool, Flaw> {
        const KEYS: [&str; 3] = ["op", "before", "after"];
        let mut written = [false; KEYS.len()];
        let mut is_first = true;
        self.out.push('{');
        while let Some(key) = self.reader.key(&mut is_first)? {
            let key = scalar::text(key, &mut self.scratch);
            let Some(place) = KEYS.iter().position(|known| *known == key).filter(|place| !written[*place]) else {
                self.reader.skip()?;
                continue;
            };
            let before = self.begin(written.contains(&true), KEYS[place]);
            let is_written = if place == 0 {
                self.value(&Word)?
            } else {
                let from = self.reader.mark();
                self.reader.skip()?;
                let side = &self.json[from..self.reader.mark()];
                let redacted = self.redaction.value(kind, name, side, self.sensitive);
                self.out.push_str(redacted.as_deref().unwrap_or_default());
                redacted.is_some()
            };
            written[place] = is_written;
            if !is_written {
                self.out.truncate(before);
            }
        }
        self.out.push('}');
        Ok(written[1] || written[2])
    }
}

/// Writes what stays of a text; `false`, and nothing written, where that is nothing.
fn write_text(rule: &Rule, text: &str, redaction: &Redaction, masked: &mut String, out: &mut String) -> bool {
    match rule {
        Id => match ObjectId::from_hex(text.as_bytes()) {
            Some(id) => quote(out, &id.to_string()),
            None => return false,
        },
        Word if is_word(text) => quote(out, text),
        Time => {
            let at = scalar::timestamp(text).and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
            let Some(at) = at else { return false };
            quote(out, &format!("{at:.3}"));
        }
        Text => quote(out, redaction.scrub.apply(text, masked)),
        Address => {
            let text = text.trim();
            let mask = if text.contains('@') { Mask::Email } else { Mask::Phone };
            quote(out, TextStep::Mask(mask).apply(text, masked));
        }
        _ => return false,
    }
    true
}

fn is_word(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    text.len() <= MOST_WORD
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(is_plain)
        && text.bytes().filter(u8::is_ascii_digit).count() <= MOST_DIGITS
}
