//! The decoder: one pass over the bytes of a page, declared values into columns, the rest skipped where it stands.
//!
//! ```text
//! {"meta":{"total":…},"data":[{"id":…,"attributes":{…},"relationships":{…}}, …],"links":{"next":…}}
//!          └ PageSummary       └ tree of paths ─▶ column builders               └ PageSummary
//! ```
//!
//! Each page has builders of its own, emptied into a record batch when the whole page was read: a page that fails leaves no
//! row, and costs nothing to undo. Dropped values are passed over by the JSON reader without being read or copied.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter};
use arrow::datatypes::SchemaRef;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::model::ObjectId;
use crate::policy::batch::{RecordKey, RedactedBatch, columnar};
use crate::policy::columns::{ColumnBuilder, PartialKey, Scratch};
use crate::policy::plan::Plan;
use crate::policy::quarantine::{Counts, JsonType, Quarantined};
use crate::policy::scalar;
use crate::policy::tree::Target;

/// Decodes pages of one stream into redacted columns.
#[derive(Debug)]
pub struct Decoder {
    plan: Arc<Plan>,
    builders: Vec<ColumnBuilder>,
    counts: Counts,
    scratch: Scratch,
    keys: Vec<RecordKey>,
    pages: Vec<RecordBatch>,
    organisation: Option<ObjectId>,
}

/// What a page says about itself, and the keys of its records in their order.
#[derive(Debug, Clone, Default)]
pub struct PageSummary {
    /// `meta.total`: records that match the search.
    pub total: Option<u64>,
    /// `meta.timed_out`.
    pub timed_out: bool,
    /// `links.next`.
    pub next: Option<String>,
    /// One per record that decoded.
    pub records: Vec<RecordKey>,
    /// Records of the page that did not decode: they are in no batch.
    pub rejected: Vec<Rejected>,
}

/// A record that did not decode: where it stood and why, and no value of it but its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Position on the page, from 0.
    pub position: usize,
    /// Its id, where it has a valid one.
    pub id: Option<ObjectId>,
    /// `attributes.updatedAt` in milliseconds since 1970, where it has a valid one.
    pub updated_at_ms: Option<i64>,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Decoder {
    pub(super) fn new(plan: Arc<Plan>) -> Self {
        let counts = Counts::new(plan.columns.len(), plan.tree.len());
        let builders = builders(&plan);
        Self {
            plan,
            builders,
            counts,
            scratch: Scratch::default(),
            keys: Vec::new(),
            pages: Vec::new(),
            organisation: None,
        }
    }

    /// Makes another decoder over the same compiled tree, without rows and counts.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { organisation: self.organisation, ..Self::new(Arc::clone(&self.plan)) }
    }

    /// Returns the schema of the batches; field metadata carries `path`, `unit`, `class`, `method` and `description`.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.plan.schema)
    }

    /// Decodes one page (list or search answer, `data` an array or one object). On an error no row of the page is kept.
    ///
    /// A record that is no object or has no valid id is left out and listed in [`PageSummary::rejected`]; the others of its
    /// page stay.
    ///
    /// # Errors
    ///
    /// [`Data`](crate::error::ErrorKind::Data) when the page is not JSON or has no `data`;
    /// [`Denied`](crate::error::ErrorKind::Denied) when it holds a record of another organisation. The error gives the
    /// position and no value.
    pub fn push_page(&mut self, page: &[u8]) -> Result<PageSummary> {
        let decoded = self.decode(page);
        self.counts.end_page(decoded.is_ok());
        let (summary, batch) = match decoded {
            Ok(decoded) => decoded,
            Err(error) => {
                self.builders = builders(&self.plan);
                return Err(error);
            }
        };
        self.keys.extend_from_slice(&summary.records);
        if batch.num_rows() > 0 {
            self.pages.push(batch);
        }
        Ok(summary)
    }

    /// Refuses pages with records of another organisation (`relationships.org.data.id`) from now on.
    pub fn expect_organisation(&mut self, id: ObjectId) {
        self.organisation = Some(id);
    }

    /// Returns how many rows wait in the builders.
    pub fn rows(&self) -> usize {
        self.keys.len()
    }

    /// Takes the rows decoded so far.
    ///
    /// # Errors
    ///
    /// [`Internal`](crate::error::ErrorKind::Internal) when they do not fit one batch: more than 2 GiB of text in a column.
    pub fn finish(&mut self) -> Result<RedactedBatch> {
        let batch = match self.pages.as_slice() {
            [single] => single.clone(),
            pages => {
                concat_batches(&self.plan.schema, pages).map_err(|error| columnar("join", self.plan.stream, error))?
            }
        };
        self.pages.clear();
        let keys = std::mem::take(&mut self.keys).into();
        Ok(RedactedBatch::new(self.plan.stream, Arc::clone(&self.plan.policy), keys, batch))
    }

    /// Returns the fields that were seen and not stored as declared: never a value.
    ///
    /// Counts run over all pages since the decoder was made.
    pub fn quarantine(&self) -> Vec<Quarantined> {
        let plan = &self.plan;
        self.counts.list(
            plan.columns.iter().map(|column| column.path.as_str()),
            (0..plan.tree.len()).map(|branch| plan.tree.branch(branch).path.as_str()),
        )
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<(PageSummary, RecordBatch)> {
        let mut page = Page {
            plan: &self.plan,
            builders: &mut self.builders,
            counts: &mut self.counts,
            scratch: &mut self.scratch,
            summary: PageSummary::default(),
            kept: Vec::new(),
            key: PartialKey::default(),
            expected: self.organisation,
            has_data: false,
            fault: None,
        };
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let read = reader.deserialize_map(PageVisitor(&mut page)).and_then(|()| reader.end());
        let stream = self.plan.stream;
        if let Err(error) = read {
            let place = |failed: Error| {
                failed
                    .with_context("stream", stream)
                    .with_context("line", error.line())
                    .with_context("column", error.column())
            };
            return Err(place(match (page.fault, error.classify()) {
                (Some(fault), _) => fault.into_error(page.kept.len()),
                (None, Category::Eof) => Error::data("page ends in the middle of its JSON"),
                (None, Category::Syntax) => Error::data("page is not valid JSON"),
                (None, Category::Data | Category::Io) => {
                    Error::data("page has another form than an answer of the source")
                }
            }));
        }
        if !page.has_data {
            return Err(Error::data("page has no `data`").with_context("stream", stream));
        }
        let Page { summary, kept, .. } = page;
        let rows = kept.len();
        let arrays = self.builders.iter_mut().map(|builder| {
            builder.pad(rows);
            builder.finish()
        });
        let misaligned = |error| columnar("align", stream, error);
        let arrays: Vec<ArrayRef> = if summary.rejected.is_empty() {
            arrays.collect()
        } else {
            let kept = BooleanArray::from(kept);
            arrays.map(|array| filter(&array, &kept)).collect::<Result<_, _>>().map_err(misaligned)?
        };
        let batch = RecordBatch::try_new(Arc::clone(&self.plan.schema), arrays).map_err(misaligned)?;
        Ok((summary, batch))
    }
}

fn builders(plan: &Plan) -> Vec<ColumnBuilder> {
    plan.columns.iter().map(|column| ColumnBuilder::new(&column.kind)).collect()
}

/// Why a page is refused.
#[derive(Debug, Clone, Copy)]
enum Fault {
    OtherOrganisation,
    SecondData,
}

impl Fault {
    fn into_error(self, position: usize) -> Error {
        match self {
            Self::OtherOrganisation => {
                Error::denied("page holds a record of another organisation; nothing of it is kept")
                    .with_context("record of the page", position)
                    .with_hint("check that the credential and `source.org` or `source.base_url` belong together")
            }
            Self::SecondData => Error::data("page has `data` twice"),
        }
    }
}

/// The page at work.
struct Page<'p> {
    plan: &'p Plan,
    builders: &'p mut [ColumnBuilder],
    counts: &'p mut Counts,
    scratch: &'p mut Scratch,
    summary: PageSummary,
    /// By position on the page, which is also the row of the builders: whether the record decoded.
    kept: Vec<bool>,
    key: PartialKey,
    expected: Option<ObjectId>,
    has_data: bool,
    fault: Option<Fault>,
}

impl Page<'_> {
    fn fail<T, E: serde::de::Error>(&mut self, fault: Fault) -> Result<T, E> {
        self.fault = Some(fault);
        Err(E::custom("record"))
    }

    fn record<'de, A: MapAccess<'de>>(&mut self, map: A) -> Result<(), A::Error> {
        self.key = PartialKey::default();
        self.object(0, map)?;
        if let (Some(expected), Some(organisation)) = (self.expected, self.key.organisation)
            && expected != organisation
        {
            return self.fail(Fault::OtherOrganisation);
        }
        match self.key.complete() {
            Some(key) => {
                self.summary.records.push(key);
                self.kept.push(true);
            }
            None => self.reject("its id is missing, or is not 24 hex digits"),
        }
        Ok(())
    }

    /// Leaves the record at hand out.
    fn reject(&mut self, reason: &'static str) {
        let PartialKey { updated_at_ms, .. } = self.key;
        self.summary.rejected.push(Rejected { position: self.kept.len(), id: None, updated_at_ms, reason });
        self.kept.push(false);
    }

    fn object<'de, A: MapAccess<'de>>(&mut self, branch: usize, mut map: A) -> Result<(), A::Error> {
        while let Some(found) = map.next_key_seed(KeySeed { page: self, branch })? {
            match found {
                Found::Declared(Target::Drop) | Found::Covered => {
                    map.next_value::<IgnoredAny>()?;
                }
                Found::Declared(Target::Column(column)) => self.value(column, map.next_value()?),
                Found::Declared(Target::Organisation) => self.organisation(map.next_value()?),
                Found::Declared(Target::Branch(branch)) => map.next_value_seed(BranchSeed { page: self, branch })?,
                Found::Undeclared(number) => self.undeclared(number, map.next_value()?),
            }
        }
        Ok(())
    }

    fn array<'de, A: SeqAccess<'de>>(&mut self, branch: usize, mut seq: A) -> Result<(), A::Error> {
        let at = self.plan.tree.branch(branch);
        let mut index = 0;
        loop {
            let more = match at.item(index) {
                Some(Target::Column(column)) => seq.next_element()?.map(|value| self.value(column, value)).is_some(),
                Some(Target::Branch(branch)) => seq.next_element_seed(BranchSeed { page: self, branch })?.is_some(),
                Some(Target::Drop | Target::Organisation) => seq.next_element::<IgnoredAny>()?.is_some(),
                None if at.is_covered => seq.next_element::<IgnoredAny>()?.is_some(),
                None => match seq.next_element()? {
                    Some(value) => {
                        let number = self.counts.name(branch, &at.path, "*");
                        self.undeclared(number, value);
                        true
                    }
                    None => false,
                },
            };
            if !more {
                break;
            }
            index += 1;
        }
        if index > 0 && !at.has_items() {
            self.counts.branch_mismatch(branch, JsonType::Array);
        }
        Ok(())
    }

    fn value(&mut self, column: usize, value: &RawValue) {
        let row = self.kept.len();
        let plan = &self.plan.columns[column];
        let pushed = self.builders[column].push(row, plan, value.get(), &mut self.key, self.scratch);
        if let Err(json_type) = pushed {
            self.counts.column_mismatch(column, json_type);
        }
    }

    fn organisation(&mut self, value: &RawValue) {
        self.key.organisation =
            scalar::text(value.get(), &mut String::new()).and_then(|id| ObjectId::from_hex(id.as_bytes()));
    }

    fn undeclared(&mut self, number: usize, value: &RawValue) {
        if let Some(json_type) = JsonType::of(value.get()) {
            self.counts.undeclared(number, json_type);
        }
    }
}

struct PageVisitor<'a, 'p>(&'a mut Page<'p>);

impl<'de> Visitor<'de> for PageVisitor<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a page")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(part) = map.next_key::<Part>()? {
            match part {
                Part::Data if self.0.has_data => return self.0.fail(Fault::SecondData),
                Part::Data => {
                    self.0.has_data = true;
                    map.next_value_seed(RecordsSeed(self.0))?;
                }
                Part::Meta => {
                    if let Some(meta) = map.next_value::<Option<Meta>>()? {
                        self.0.summary.total = meta.total;
                        self.0.summary.timed_out = meta.timed_out.unwrap_or_default();
                    }
                }
                Part::Links => {
                    if let Some(links) = map.next_value::<Option<Links>>()? {
                        self.0.summary.next = links.next;
                    }
                }
                Part::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Part {
    Data,
    Meta,
    Links,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Meta {
    total: Option<u64>,
    timed_out: Option<bool>,
}

#[derive(Deserialize)]
struct Links {
    next: Option<String>,
}

/// `data`: an array of records, or one.
struct RecordsSeed<'a, 'p>(&'a mut Page<'p>);

impl<'de> DeserializeSeed<'de> for RecordsSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RecordsSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("records")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.0.record(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(RecordSeed(self.0))?.is_some() {}
        Ok(())
    }
}

struct RecordSeed<'a, 'p>(&'a mut Page<'p>);

impl<'de> DeserializeSeed<'de> for RecordSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(RecordVisitor(self.0))
    }
}

struct RecordVisitor<'a, 'p>(&'a mut Page<'p>);

impl RecordVisitor<'_, '_> {
    fn refuse(self) {
        self.0.key = PartialKey::default();
        self.0.reject("it is no object");
    }
}

impl<'de> Visitor<'de> for RecordVisitor<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.0.record(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        self.refuse();
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.refuse();
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.refuse();
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.refuse();
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.refuse();
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.refuse();
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        self.refuse();
        Ok(())
    }
}

/// Where a key of a record leads.
enum Found {
    Declared(Target),
    /// Not declared, below something that is dropped whole.
    Covered,
    /// Not declared; the number of its name in the counters.
    Undeclared(usize),
}

struct KeySeed<'a, 'p> {
    page: &'a mut Page<'p>,
    branch: usize,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_, '_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_, '_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Found, E> {
        let branch = self.page.plan.tree.branch(self.branch);
        Ok(match branch.key(key) {
            Some(target) => Found::Declared(target),
            None if branch.is_covered => Found::Covered,
            None => Found::Undeclared(self.page.counts.name(self.branch, &branch.path, key)),
        })
    }
}

/// A value that has declared columns inside it.
struct BranchSeed<'a, 'p> {
    page: &'a mut Page<'p>,
    branch: usize,
}

impl BranchSeed<'_, '_> {
    fn mismatch(self, json_type: JsonType) {
        self.page.counts.branch_mismatch(self.branch, json_type);
    }
}

impl<'de> DeserializeSeed<'de> for BranchSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BranchSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.page.object(self.branch, map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        self.page.array(self.branch, seq)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _value: &str) -> Result<(), E> {
        self.mismatch(JsonType::Text);
        Ok(())
    }

    fn visit_bool<E>(self, _value: bool) -> Result<(), E> {
        self.mismatch(JsonType::Bool);
        Ok(())
    }

    fn visit_i64<E>(self, _value: i64) -> Result<(), E> {
        self.mismatch(JsonType::Number);
        Ok(())
    }

    fn visit_u64<E>(self, _value: u64) -> Result<(), E> {
        self.mismatch(JsonType::Number);
        Ok(())
    }

    fn visit_f64<E>(self, _value: f64) -> Result<(), E> {
        self.mismatch(JsonType::Number);
        Ok(())
    }
}
