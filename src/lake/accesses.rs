//! Access records: who looked at the details of which tickets, and when, as a table of the lake. No content, ever.
//!
//! ```text
//! ids asked for ─▶ rows `asked` ─▶ one commit ─▶ first line may be written … ─▶ rows `delivered` ─▶ one commit
//! ```
//!
//! A call leaves its `asked` rows before anything is delivered, one for each ticket, and its `delivered` rows when it has
//! ended, one for each ticket of which something was written, with what came of it. So a call that was killed has `asked` rows
//! alone: then any of them may have been seen. Rows are never changed.
//!
//! A file holds rows of one or, once they were joined, of many calls, sorted by `ticket_id`: what happened to one ticket is
//! found by the bounds of the files. The files are in versions, garbage, verification, keys and compaction like those of
//! every table. An erasure leaves them as they are: who looked at a ticket is what has to be told about it after its data is gone, and
//! rows name tickets, never people who wrote them. They stay for ever unless `keep_accesses` says how long.
//!
//! Both commits are made under the lease of recordings, which an erasure holds as well: it deletes files that no version
//! names.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::error::{Error, Result};
use crate::lake::attempts::Attempts;
use crate::lake::commit::Action;
use crate::lake::file::Columns;
use crate::lake::lease::Lease;
use crate::lake::manifest::DataFile;
use crate::lake::rewrite::TARGET_ROWS;
use crate::lake::{Inner, Lake, layout, put};
use crate::model::{ObjectId, Stream};
use crate::policy::RecordKey;

/// When a call began or ended: what retention goes by.
pub(super) const ACCESSED_AT: &str = "accessed_at";

/// One call that resolves tickets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Its id, a UUID of version 7.
    pub id: String,
    /// When it began, milliseconds since 1970.
    pub at_ms: i64,
    /// Who: the login name that the operating system knows, empty where it knows none.
    pub login: String,
    /// Where: the machine's name.
    pub host: String,
    /// `resolve` or `attachment`.
    pub command: String,
    /// The parts that were asked for, with commas between them.
    pub parts: String,
    /// Whether the policy was applied to what is delivered.
    pub redacted: bool,
    /// The attachment that was asked for, by `attachment`.
    pub attachment_id: Option<String>,
}

/// What a call took and found out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Requests sent.
    pub requests: u64,
    /// Whether the source took several customers in one request; nothing where that was not tried.
    pub several_customers: Option<bool>,
}

/// What was delivered of a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// All that was asked for.
    Complete,
    /// Some parts are missing.
    Partial,
    /// Nothing: the source has no such ticket.
    Missing,
}

impl Delivery {
    /// Returns the word of the column `outcome`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::Missing => "missing",
        }
    }
}

impl Lake {
    /// Makes the id of a new access.
    #[must_use]
    pub fn new_access_id(&self) -> String {
        layout::new_uuid(self.0.clock.as_ref()).to_string()
    }

    /// Records that tickets are asked for; nothing of them may be delivered before this has ended well.
    ///
    /// # Errors
    ///
    /// [`Conflict`](crate::error::ErrorKind::Conflict) when an erasure is at work or other writers won every attempt;
    /// [`Unavailable`](crate::error::ErrorKind::Unavailable) when the store fails.
    pub async fn record_asked(&self, access: &Access, ids: &[ObjectId]) -> Result<()> {
        let tickets = ids.iter().map(|id| (*id, None)).collect();
        self.record_access(Rows { access: access.clone(), at_ms: access.at_ms, cost: None, tickets }).await
    }

    /// Records what was delivered, and what the whole call took.
    ///
    /// # Errors
    ///
    /// Those of [`record_asked`](Self::record_asked).
    pub async fn record_delivered(
        &self,
        access: &Access,
        delivered: &[(ObjectId, Delivery)],
        cost: Cost,
    ) -> Result<()> {
        let tickets = delivered.iter().map(|(id, delivery)| (*id, Some(*delivery))).collect();
        let at_ms = self.0.clock.now().as_millisecond();
        self.record_access(Rows { access: access.clone(), at_ms, cost: Some(cost), tickets }).await
    }

    async fn record_access(&self, mut rows: Rows) -> Result<()> {
        if rows.tickets.is_empty() {
            return Ok(());
        }
        rows.tickets.sort_unstable_by_key(|(id, _)| *id);
        let holder = format!("{}, process {}", rows.access.command, std::process::id());
        let mut lease = self.lease_for_recording(&holder).await?;
        let outcome = record_under(&self.0, &rows, &mut lease).await;
        let released = lease.release().await;
        outcome?;
        released
    }
}

/// Rows of one phase of one call, in the order of their keys.
struct Rows {
    access: Access,
    at_ms: i64,
    cost: Option<Cost>,
    tickets: Vec<(ObjectId, Option<Delivery>)>,
}

async fn record_under(lake: &Arc<Inner>, rows: &Rows, lease: &mut Lease) -> Result<()> {
    let mut attempts = Attempts::begin(lake).await?;
    let mut files = Vec::new();
    for part in rows.tickets.chunks(lake.rows_per_file.clamp(1, TARGET_ROWS)) {
        if !files.is_empty() {
            // A long list takes longer than a lease lasts.
            lease.renew().await?;
        }
        let key = |(id, _): &(ObjectId, _)| RecordKey { id: *id, updated_at_ms: None, rev: None, deleted: false };
        let rows = Part {
            schema: schema(),
            access: rows.access.clone(),
            at_ms: rows.at_ms,
            cost: rows.cost,
            keys: part.iter().map(key).collect(),
            deliveries: part.iter().map(|(_, delivery)| *delivery).collect(),
        };
        files.push(put::put_columns(lake, Stream::Accesses, Arc::from(""), rows).await?);
    }
    loop {
        let base = attempts.base();
        let mut actions = Vec::new();
        let columns = schema();
        if base.tables.get(&Stream::Accesses).is_none_or(|table| table.schema != columns) {
            actions.push(Action::Declare(Stream::Accesses, columns));
        }
        actions.extend(files.iter().map(|file| {
            let file = DataFile { pseudonyms: base.pseudonym_version(), ..DataFile::clone(file) };
            Action::Add(Stream::Accesses, Arc::new(file))
        }));
        if attempts.put(actions).await?.is_some() {
            return Ok(());
        }
        // Without it, an erasure may have deleted the files.
        lease.renew().await?;
    }
}

/// The columns of the table, and of each of its files.
pub(super) fn schema() -> SchemaRef {
    let column = |name: &str, data_type: DataType, description: &str| {
        let metadata = [("class", "internal"), ("method", "keep"), ("description", description)];
        let metadata = metadata.map(|(key, text)| (key.to_owned(), text.to_owned()));
        Field::new(name, data_type, name != "ticket_id").with_metadata(metadata.into())
    };
    let instant = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        column("access_id", DataType::Utf8, "Id of the call that asked"),
        column(
            "phase",
            DataType::Utf8,
            "asked: before anything was delivered; delivered: what came of it. A call without delivered rows was killed, or delivered nothing",
        ),
        column(ACCESSED_AT, instant, "When the call began (asked) or ended (delivered)"),
        column("login", DataType::Utf8, "Who asked: the login name that the operating system knows"),
        column("host", DataType::Utf8, "Machine that asked"),
        column("command", DataType::Utf8, "resolve or attachment"),
        column("parts", DataType::Utf8, "Parts of the ticket that were asked for"),
        column("redacted", DataType::Boolean, "Whether the policy was applied to what was delivered"),
        column("attachment_id", DataType::Utf8, "Attachment that was asked for"),
        column("outcome", DataType::Utf8, "complete, partial or missing; NULL for asked"),
        column("requests", DataType::Int64, "Requests of the whole call; NULL for asked"),
        column(
            "several_customers",
            DataType::Boolean,
            "Whether the source took several customers in one request, where the call found out",
        ),
        column("ticket_id", DataType::Utf8, "Id of the ticket"),
    ]))
}

/// Rows of one file: they are made here of ids and of what the call is, and of nothing else.
struct Part {
    schema: SchemaRef,
    access: Access,
    at_ms: i64,
    cost: Option<Cost>,
    keys: Vec<RecordKey>,
    deliveries: Vec<Option<Delivery>>,
}

impl Columns for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn keys(&self) -> &[RecordKey] {
        &self.keys
    }

    fn column(&self, index: usize, rows: impl Iterator<Item = usize>) -> Result<ArrayRef> {
        let text = |text: Option<&str>, rows: usize| -> ArrayRef {
            Arc::new((0..rows).map(|_| text).collect::<StringArray>())
        };
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let Access { id, login, host, command, parts, redacted, attachment_id, .. } = &self.access;
        let name = self.schema.field(index).name().as_str();
        Ok(match name {
            "access_id" => text(Some(id), rows.count()),
            "phase" => text(Some(if self.cost.is_some() { "delivered" } else { "asked" }), rows.count()),
            ACCESSED_AT => {
                Arc::new(TimestampMillisecondArray::from_value(self.at_ms, rows.count()).with_timezone("UTC"))
            }
            "login" => text(known(login).as_deref(), rows.count()),
            "host" => text(known(host).as_deref(), rows.count()),
            "command" => text(Some(command), rows.count()),
            "parts" => text(Some(parts), rows.count()),
            "redacted" => Arc::new(rows.map(|_| Some(*redacted)).collect::<BooleanArray>()),
            "attachment_id" => text(attachment_id.as_deref(), rows.count()),
            "outcome" => Arc::new(rows.map(|row| self.deliveries[row].map(Delivery::name)).collect::<StringArray>()),
            "requests" => {
                let requests = self.cost.map(|cost| i64::try_from(cost.requests).unwrap_or(i64::MAX));
                Arc::new(rows.map(|_| requests).collect::<Int64Array>())
            }
            "several_customers" => {
                let several = self.cost.and_then(|cost| cost.several_customers);
                Arc::new(rows.map(|_| several).collect::<BooleanArray>())
            }
            "ticket_id" => Arc::new(StringArray::from_iter_values(rows.map(|row| self.keys[row].id.to_string()))),
            _ => return Err(Error::internal("column of the access records has no values").with_context("column", name)),
        })
    }
}
