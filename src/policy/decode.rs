//! The decoder: one pass over the bytes of a page, declared values into columns, the rest skipped where it stands.
//!
//! ```text
//! {"meta":{"total":…},"data":[{"id":…,"attributes":{…},"relationships":{…}}, …],"links":{"next":…}}
//!          └ PageSummary       └ tree of paths ─▶ column builders               └ PageSummary
//! ```
//!
//! Each page has builders of its own, emptied into a record batch when the whole page was read: a page that fails leaves no
//! row, and costs nothing to undo. Dropped values are passed over by the JSON reader without being read or copied.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{concat_batches, filter};
use arrow::datatypes::{DataType, SchemaRef};

use crate::error::{Error, Result};
use crate::model::{ObjectId, Stream};
use crate::policy::batch::{RecordKey, RedactedBatch, columnar};
use crate::policy::columns::{ColumnBuilder, PartialKey, Scratch};
use crate::policy::json::{Flaw, Reader, Text, Value};
use crate::policy::plan::Plan;
use crate::policy::quarantine::{Counts, JsonType, Quarantined};
use crate::policy::scalar;
use crate::policy::schedules;
use crate::policy::tree::{Order, START, Target};

/// Decodes pages of one stream into redacted columns.
#[derive(Debug)]
pub struct Decoder {
    plan: Arc<Plan>,
    builders: Vec<ColumnBuilder>,
    counts: Counts,
    scratch: Scratch,
    order: Order,
    keys: Vec<RecordKey>,
    pages: Vec<RecordBatch>,
    organisation: Option<ObjectId>,
    nulls: Nulls,
}

/// What a page says about itself, and the keys of its records in their order.
#[derive(Debug, Clone, Default)]
pub struct PageSummary {
    /// `meta.total`: records that match the search.
    pub total: Option<u64>,
    /// `meta.timed_out`.
    pub timed_out: bool,
    /// `meta.pageSize`: records that the page may hold.
    pub page_size: Option<u32>,
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
        let order = Order::new(&plan.tree);
        Self {
            plan,
            builders,
            counts,
            scratch: Scratch::default(),
            order,
            keys: Vec::new(),
            pages: Vec::new(),
            organisation: None,
            nulls: Nulls::default(),
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
        let rows = RedactedBatch::new(self.plan.stream, Arc::clone(&self.plan.policy), keys, batch);
        Ok(rows.with_pseudonyms(self.plan.pseudonyms))
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

    /// Tells whether something declares a path (keys joined by dots) or all that stands there: it is not quarantined.
    #[must_use]
    pub fn is_declared(&self, path: &str) -> bool {
        let mut branch = self.plan.tree.branch(0);
        for key in path.split('.') {
            match branch.key(key) {
                Some(Target::Branch(below)) => branch = self.plan.tree.branch(below),
                Some(_) => return true,
                None => return branch.is_covered,
            }
        }
        true
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<(PageSummary, RecordBatch)> {
        let stream = self.plan.stream;
        // Schedules are few, and the only records whose values nest deeper than columns go.
        let flat = if stream == Stream::Schedules { schedules::flatten(bytes) } else { None };
        let bytes = flat.as_deref().unwrap_or(bytes);
        let refused = |fault: Fault, (line, column): (usize, usize)| {
            fault.into_error().with_context("stream", stream).with_context("line", line).with_context("column", column)
        };
        let reader = Reader::try_new(bytes).map_err(|flaw| refused(flaw.into(), (1, 1)))?;
        let mut page = Page {
            reader,
            plan: &self.plan,
            builders: &mut self.builders,
            counts: &mut self.counts,
            scratch: &mut self.scratch,
            order: &mut self.order,
            summary: PageSummary::default(),
            kept: Vec::new(),
            key: PartialKey::default(),
            expected: self.organisation,
            has_data: false,
        };
        if let Err(fault) = page.read() {
            return Err(refused(fault, page.reader.position()));
        }
        if !page.has_data {
            return Err(Error::data("page has no `data`").with_context("stream", stream));
        }
        let Page { summary, kept, .. } = page;
        let misaligned = |error| columnar("align", stream, error);
        let mut arrays = Vec::with_capacity(self.builders.len());
        for (builder, field) in self.builders.iter_mut().zip(self.plan.schema.fields()) {
            arrays.push(match builder.finish(kept.len()) {
                Some(array) => array,
                None => self.nulls.array(field.data_type(), kept.len()),
            });
        }
        if !summary.rejected.is_empty() {
            let kept = BooleanArray::from(kept);
            arrays = arrays.iter().map(|array| filter(array, &kept)).collect::<Result<_, _>>().map_err(misaligned)?;
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.plan.schema), arrays).map_err(misaligned)?;
        Ok((summary, batch))
    }
}

fn builders(plan: &Plan) -> Vec<ColumnBuilder> {
    plan.columns.iter().map(|column| ColumnBuilder::new(&column.kind)).collect()
}

/// Arrays without a value, one per type: most columns of most pages hold none, and share them.
#[derive(Debug, Default)]
struct Nulls(Vec<ArrayRef>);

impl Nulls {
    fn array(&mut self, data_type: &DataType, rows: usize) -> ArrayRef {
        let known = self.0.iter().position(|array| array.data_type() == data_type);
        let known = known.unwrap_or_else(|| {
            self.0.push(new_null_array(data_type, rows));
            self.0.len() - 1
        });
        if self.0[known].len() != rows {
            self.0[known] = new_null_array(data_type, rows);
        }
        Arc::clone(&self.0[known])
    }
}

/// Why a page is refused.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Json(Flaw),
    Form,
    OtherOrganisation,
    SecondData,
}

impl From<Flaw> for Fault {
    fn from(flaw: Flaw) -> Self {
        Self::Json(flaw)
    }
}

impl Fault {
    fn into_error(self) -> Error {
        match self {
            Self::Json(Flaw::Truncated) => Error::data("page ends in the middle of its JSON"),
            Self::Json(Flaw::Syntax) => Error::data("page is not valid JSON"),
            Self::Form => Error::data("page has another form than an answer of the source"),
            Self::OtherOrganisation => {
                Error::denied("page holds a record of another organisation; nothing of it is kept")
                    .with_hint("check that the credential and `source.org` or `source.base_url` belong together")
            }
            Self::SecondData => Error::data("page has `data` twice"),
        }
    }
}

/// The page at work.
struct Page<'p> {
    reader: Reader<'p>,
    plan: &'p Plan,
    builders: &'p mut [ColumnBuilder],
    counts: &'p mut Counts,
    scratch: &'p mut Scratch,
    order: &'p mut Order,
    summary: PageSummary,
    /// By position on the page, which is also the row of the builders: whether the record decoded.
    kept: Vec<bool>,
    key: PartialKey,
    expected: Option<ObjectId>,
    has_data: bool,
}

impl<'p> Page<'p> {
    fn read(&mut self) -> Result<(), Fault> {
        if self.reader.value()? != Value::Object {
            return Err(Fault::Form);
        }
        let mut is_first = true;
        while let Some(part) = self.reader.key(&mut is_first)? {
            match part.raw {
                "data" if self.has_data => return Err(Fault::SecondData),
                "data" => {
                    self.has_data = true;
                    self.records()?;
                }
                "meta" => self.meta()?,
                "links" => self.links()?,
                _ => self.reader.skip()?,
            }
        }
        Ok(self.reader.end()?)
    }

    fn meta(&mut self) -> Result<(), Fault> {
        self.members(|page, name, value| {
            match (name, value) {
                ("total", Value::Number(number)) => {
                    page.summary.total = Some(number.parse().map_err(|_| Fault::Form)?);
                }
                ("timed_out", Value::Bool(timed_out)) => page.summary.timed_out = timed_out,
                ("pageSize", Value::Number(number)) => page.summary.page_size = number.parse().ok(),
                // It may be an echo of the query.
                ("pageSize", Value::Text(number)) => page.summary.page_size = number.raw.parse().ok(),
                ("total" | "timed_out", Value::Null) => {}
                ("total" | "timed_out", _) => return Err(Fault::Form),
                _ => {}
            }
            Ok(())
        })
    }

    fn links(&mut self) -> Result<(), Fault> {
        self.members(|page, name, value| {
            match (name, value) {
                ("next", Value::Text(link)) => {
                    page.summary.next = Some(scalar::text(link, &mut page.scratch.read).to_owned());
                }
                ("next", Value::Null) => {}
                ("next", _) => return Err(Fault::Form),
                _ => {}
            }
            Ok(())
        })
    }

    /// Reads the members of an object that may be absent.
    fn members(&mut self, mut each: impl FnMut(&mut Self, &str, Value<'p>) -> Result<(), Fault>) -> Result<(), Fault> {
        match self.reader.value()? {
            Value::Null => return Ok(()),
            Value::Object => {}
            _ => return Err(Fault::Form),
        }
        let mut is_first = true;
        while let Some(name) = self.reader.key(&mut is_first)? {
            let value = self.reader.value()?;
            each(self, name.raw, value)?;
            self.reader.skip_rest(value)?;
        }
        Ok(())
    }

    /// Reads `data`: an array of records, or one.
    fn records(&mut self) -> Result<(), Fault> {
        match self.reader.value()? {
            Value::Object => self.record(),
            Value::Array => {
                let mut is_first = true;
                while self.reader.element(&mut is_first)? {
                    match self.reader.value()? {
                        Value::Object => self.record()?,
                        other => {
                            self.reader.skip_rest(other)?;
                            self.key = PartialKey::default();
                            self.reject("it is no object");
                        }
                    }
                }
                Ok(())
            }
            _ => Err(Fault::Form),
        }
    }

    fn record(&mut self) -> Result<(), Fault> {
        self.key = PartialKey::default();
        self.object(0)?;
        if let (Some(expected), Some(organisation)) = (self.expected, self.key.organisation)
            && expected != organisation
        {
            return Err(Fault::OtherOrganisation);
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

    fn object(&mut self, branch: usize) -> Result<(), Fault> {
        let at = self.plan.tree.branch(branch);
        let (mut place, mut is_first) = (START, true);
        loop {
            if let Some(entry) = self.order.next(branch, place)
                && self.reader.key_is(&mut is_first, at.written(entry))
            {
                place = entry + 1;
                self.target(at.target(entry))?;
                continue;
            }
            let Some(key) = self.reader.key(&mut is_first)? else { return Ok(()) };
            let found =
                if key.has_escape { at.entry(scalar::text(key, &mut self.scratch.read)) } else { at.entry(key.raw) };
            match found {
                Some(entry) => {
                    place = self.order.follow(branch, place, entry);
                    self.target(at.target(entry))?;
                }
                None if at.is_covered => self.reader.skip()?,
                None => self.undeclared(branch, key)?,
            }
        }
    }

    fn array(&mut self, branch: usize) -> Result<(), Fault> {
        const ANY: Text<'static> = Text { raw: "*", has_escape: false };
        let at = self.plan.tree.branch(branch);
        let (mut index, mut is_first) = (0, true);
        while self.reader.element(&mut is_first)? {
            match at.item(index) {
                Some(target) => self.target(target)?,
                None if at.is_covered => self.reader.skip()?,
                None => self.undeclared(branch, ANY)?,
            }
            index += 1;
        }
        if index > 0 && !at.has_items() {
            self.counts.branch_mismatch(branch, JsonType::Array);
        }
        Ok(())
    }

    fn target(&mut self, target: Target) -> Result<(), Fault> {
        match target {
            Target::Drop => self.reader.skip()?,
            Target::Column(column) => self.column(column)?,
            Target::Branch(branch) => match self.reader.value()? {
                Value::Object => self.object(branch)?,
                Value::Array => self.array(branch)?,
                scalar => {
                    if let Some(json_type) = JsonType::of(scalar) {
                        self.counts.branch_mismatch(branch, json_type);
                    }
                }
            },
            Target::Organisation => {
                let value = self.reader.value()?;
                if let Value::Text(id) = value {
                    self.key.organisation = ObjectId::from_hex(id.raw.as_bytes());
                }
                self.reader.skip_rest(value)?;
            }
        }
        Ok(())
    }

    fn column(&mut self, column: usize) -> Result<(), Fault> {
        let row = self.kept.len();
        let plan = &self.plan.columns[column];
        let builder = &mut self.builders[column];
        let mismatch = builder.push(row, plan, &mut self.reader, &mut self.key, self.scratch)?;
        if let Some(json_type) = mismatch {
            self.counts.column_mismatch(column, json_type);
        }
        Ok(())
    }

    fn undeclared(&mut self, branch: usize, name: Text<'_>) -> Result<(), Fault> {
        let path = &self.plan.tree.branch(branch).path;
        let number = self.counts.name(branch, path, scalar::text(name, &mut self.scratch.read));
        let value = self.reader.value()?;
        if let Some(json_type) = JsonType::of(value) {
            self.counts.undeclared(number, json_type);
        }
        Ok(self.reader.skip_rest(value)?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use crate::policy::{Definitions, Policy, PseudonymKeys};
    use crate::schema::Schemas;
    use crate::secret::{PseudonymKey, SecretKey};

    use super::*;

    static EMPTY: LazyLock<Decoder> = LazyLock::new(|| {
        let key = PseudonymKey { version: 1, key: SecretKey::new([7; 32]) };
        let keys = PseudonymKeys::try_new([Arc::new(key)]).unwrap();
        let policy = Policy::compile(&Schemas::builtin().unwrap()).unwrap();
        policy.decoder(Stream::Tickets, &Definitions::default(), &keys).unwrap()
    });

    /// Members of `attributes`: declared, declared and written with an escape, an object, undeclared, one that begins like
    /// another, and one that holds what follows a key.
    const MEMBERS: [&str; 9] = [
        r#""status":"open""#,
        r#""st\u0061tus":"done""#,
        r#""priority":3"#,
        r#""messageCount" : 7"#,
        r#""spam":false"#,
        r#""custom":{"aStr":"x","bNum":1}"#,
        r#""unknown":[{"status":"no"}]"#,
        r#""statusX":"no""#,
        r#""status\":":"no""#,
    ];

    proptest! {
        #[test]
        fn records_are_read_alike_whatever_order_the_one_before_had(
            records in prop::collection::vec(
                (prop::collection::vec(prop::sample::select(&MEMBERS[..]), 0..12), any::<bool>(), any::<bool>()), 1..6),
        ) {
            let records: Vec<String> = records.into_iter().enumerate().map(|(number, (members, is_spaced, id_first))| {
                let members = members.join(if is_spaced { "\n , " } else { "," });
                let id = format!(r#""id":"58228e05d4e96711004ecc{number:02x}""#);
                let attributes = format!(r#""attributes":{{{members}}}"#);
                if id_first { format!("{{{id},{attributes}}}") } else { format!("{{{attributes},{id}}}") }
            }).collect();
            let mut together = EMPTY.fork();
            let page = format!(r#"{{"data":[{}]}}"#, records.join(","));
            prop_assert_eq!(together.push_page(page.as_bytes()).unwrap().records.len(), records.len());
            let together = together.finish().unwrap();
            for (row, record) in records.iter().enumerate() {
                let mut alone = EMPTY.fork();
                alone.push_page(format!(r#"{{"data":{record}}}"#).as_bytes()).unwrap();
                let alone = alone.finish().unwrap();
                prop_assert_eq!(alone.batch(), &together.batch().slice(row, 1), "{}", record);
            }
        }
    }
}
