//! The policy over single records that are shown and not stored: the same rules, and JSON of the same shape.
//!
//! | record | what stays |
//! |---|---|
//! | conversation, customer | what columns and custom rules declare, through their methods; at its path |
//! | message, note | a fixed list, `redaction/content.rs`: texts scrubbed, addresses masked |
//! | event | that list, and changes of what conversations have columns for, through their methods |
//!
//! Everything else is absent: what is dropped, what nothing declares, and also what is under the second key, because who is
//! shown redacted details is not who holds that key. So the subject and the preview of a conversation are shown where the
//! policy stores them, as it stores them, and a policy that drops them has them only in the messages, scrubbed.
//!
//! Records of conversations and customers pass through the [`Decoder`](super::Decoder) of the lake and are written from the columns that it
//! makes: what is shown is what a run would store, times in UTC and numbers as their type writes them. A custom attribute
//! that only a pattern covers is shown where the lake knows it, and not where the source marks it sensitive. A list by
//! position (`emails.0.email`) has nulls where nothing is shown.
//!
//! Applied twice it changes nothing, but for pseudonyms. Of a key that stands twice the first value counts. JSON that
//! cannot be read is nothing at all; no value of it is in an error, because there is none.

mod content;
mod shape;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use arrow::array::RecordBatch;

use self::shape::Shape;
use crate::error::Result;
use crate::model::Stream;
use crate::policy::custom;
use crate::policy::decode::Decoder;
use crate::policy::definitions::Definitions;
use crate::policy::method::{ScrubRule, TextStep};
use crate::policy::rules::CompiledColumn;
use crate::policy::scrub;
use crate::policy::{Policy, is_restricted};
use crate::schema::CustomRule;
use crate::secret::PseudonymKeys;

/// What a policy makes of records that are shown.
pub struct Redaction {
    conversations: Records,
    customers: Records,
    scrub: TextStep,
}

/// Records of one stream.
struct Records {
    decoder: Mutex<Decoder>,
    shape: Shape,
    /// Columns of custom attributes that no rule names, by attribute.
    by_pattern: HashMap<String, usize>,
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redaction").finish_non_exhaustive()
    }
}

impl Redaction {
    /// Compiles what is done to details; custom attributes are those of the definitions.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::error::ErrorKind::Config) when tickets or customers are not declared, and for two patterns of one
    /// name that differ.
    pub fn try_new(policy: &Policy, definitions: &Definitions, keys: &PseudonymKeys) -> Result<Self> {
        let mut patterns: Vec<(String, String)> = Vec::new();
        for pattern in policy.tables.values().flat_map(|rules| &rules.patterns) {
            let own = (pattern.name.clone(), pattern.regex.clone());
            if !patterns.contains(&own) {
                patterns.push(own);
            }
        }
        let rule = ScrubRule { kinds: scrub::KINDS.map(str::to_owned).to_vec(), patterns };
        Ok(Self {
            conversations: Records::try_new(policy, Stream::Tickets, definitions, keys)?,
            customers: Records::try_new(policy, Stream::Customers, definitions, keys)?,
            scrub: TextStep::Scrub(rule.engine()?),
        })
    }

    /// Redacts a conversation; `sensitive` are custom attributes that the source marks so now.
    #[must_use]
    pub fn conversation(&self, json: &str, sensitive: &[&str]) -> Option<String> {
        self.conversations.redact("conversation", json, sensitive)
    }

    /// Redacts a customer.
    #[must_use]
    pub fn customer(&self, json: &str) -> Option<String> {
        self.customers.redact("customer", json, &[])
    }

    /// Redacts a message.
    #[must_use]
    pub fn message(&self, json: &str) -> Option<String> {
        content::message(self, json)
    }

    /// Redacts a note.
    #[must_use]
    pub fn note(&self, json: &str) -> Option<String> {
        content::note(self, json)
    }

    /// Redacts an event of a conversation; `sensitive` are custom attributes that the source marks so now.
    #[must_use]
    pub fn event(&self, json: &str, sensitive: &[&str]) -> Option<String> {
        content::event(self, json, sensitive)
    }

    /// Scrubs a text that people wrote.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        self.scrub.apply(text, &mut String::new()).to_owned()
    }

    /// Redacts what a conversation had or has below one key of its `attributes` or `relationships`.
    fn value(&self, kind: &str, name: &str, json: &str, sensitive: &[&str]) -> Option<String> {
        if !self.conversations.shape.has(kind, name) {
            return None;
        }
        // Any id will do: the record is made up.
        let mut record = String::with_capacity(json.len() + name.len() + 80);
        record.push_str(r#"{"id":"000000000000000000000000",""#);
        record.push_str(kind);
        record.push_str("\":{");
        shape::quote(&mut record, name);
        record.push(':');
        record.push_str(json);
        record.push_str("}}");
        let record = zeroize::Zeroizing::new(record);
        let row = self.conversations.row(&record)?;
        let mut out = String::new();
        let hidden = self.conversations.hidden(sensitive);
        self.conversations.shape.write_below(kind, name, &row, &hidden, &mut out).then_some(out)
    }
}

impl Records {
    fn try_new(policy: &Policy, stream: Stream, definitions: &Definitions, keys: &PseudonymKeys) -> Result<Self> {
        let rules = policy.rules_of(stream)?;
        let decoder = policy.decoder(stream, definitions, keys)?;
        let schema = decoder.schema();
        let place = |column: &CompiledColumn| {
            let (place, field) = schema.column_with_name(&column.name)?;
            (!is_restricted(field)).then_some(place)
        };
        let mut shape = Shape::default();
        let mut by_pattern = HashMap::new();
        for column in rules.columns_with(definitions)? {
            let Some(place) = place(&column) else { continue };
            shape.add(&column.path, place);
            let Some(attribute) = custom::attribute_at(&column.path) else { continue };
            let is_by_name = custom::rule_of(rules, attribute).is_none_or(CustomRule::is_by_name);
            if !custom::is_declared(rules, attribute) && !is_by_name {
                by_pattern.insert(attribute.to_owned(), place);
            }
        }
        Ok(Self { decoder: Mutex::new(decoder), shape, by_pattern })
    }

    fn redact(&self, kind: &str, json: &str, sensitive: &[&str]) -> Option<String> {
        let row = self.row(json)?;
        let mut out = format!(r#"{{"type":"{kind}""#);
        self.shape.write(&row, &self.hidden(sensitive), &mut out);
        out.push('}');
        Some(out)
    }

    /// Returns the record as the lake would store it, if it would.
    fn row(&self, json: &str) -> Option<RecordBatch> {
        let page = zeroize::Zeroizing::new(format!(r#"{{"data":{json}}}"#));
        let mut decoder = self.decoder.lock().unwrap_or_else(PoisonError::into_inner);
        let pushed = decoder.push_page(page.as_bytes());
        // Taken in any case: a row must not wait for the next record.
        let rows = decoder.finish();
        drop(decoder);
        let rows = pushed.ok().and(rows.ok())?;
        (rows.batch().num_rows() == 1).then(|| rows.batch().clone())
    }

    fn hidden(&self, sensitive: &[&str]) -> Vec<usize> {
        sensitive.iter().filter_map(|name| self.by_pattern.get(*name).copied()).collect()
    }
}

#[cfg(test)]
mod tests;
