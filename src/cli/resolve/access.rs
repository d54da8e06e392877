//! The access record of one call: in the lake before anything is delivered, and once more when the call has ended.
//!
//! The lake is opened while the first requests are on their way. It is asked for two things besides, which save time and are
//! never believed: whose the tickets were when it last saw them, and whether the source took several customers in one request.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use tokio::sync::OnceCell;

use crate::cli::Context;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::lake::Lake;
use crate::lake::accesses::{Access, Cost, Delivery};
use crate::model::ObjectId;
use crate::query::{Arguments, QueryFile, Session};
use crate::resolve::{Detail, Known, Parts};

/// Up to so many tickets a round trip and a request count; for more the lake is not asked, which would take more memory than
/// they do.
const FEW_TICKETS: usize = 100;

/// How long the open lake is looked through for what saves time: about the round trip that it saves. Lines wait for it.
const LOOK_UP_LIMIT: Duration = Duration::from_millis(200);

/// What a call asks for, for its record.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Asked {
    /// `resolve` or `attachment`.
    pub(in crate::cli) command: &'static str,
    /// The tickets, in order.
    pub(in crate::cli) ids: Arc<[ObjectId]>,
    /// The parts, with commas between them.
    pub(in crate::cli) parts: String,
    /// Whether the policy is applied on the way out.
    pub(in crate::cli) redacted: bool,
    /// The attachment.
    pub(in crate::cli) attachment_id: Option<String>,
}

/// The record of one call.
pub(in crate::cli) struct Record<'c> {
    context: &'c Context,
    config: &'c Config,
    asked: Asked,
    opened: OnceCell<(Lake, Access)>,
    delivered: Mutex<Vec<(ObjectId, Delivery)>>,
}

impl<'c> Record<'c> {
    /// Prepares the record; nothing is opened or written yet.
    pub(in crate::cli) fn new(context: &'c Context, config: &'c Config, asked: Asked) -> Self {
        Self { context, config, asked, opened: OnceCell::new(), delivered: Mutex::default() }
    }

    /// Records what is asked for, unless the settings turn that off; nothing may be delivered before.
    ///
    /// # Errors
    ///
    /// Those of opening the lake and of [`Lake::record_asked`], with the way out.
    pub(in crate::cli) async fn permit(&self) -> Result<()> {
        if !self.config.access_record {
            return Ok(());
        }
        let recorded = async {
            let (lake, access) = self.opened().await?;
            lake.record_asked(access, &self.asked.ids).await
        };
        recorded.await.map_err(|source| {
            Error::new(source.kind(), "nothing was delivered, because the access could not be recorded")
                .with_hint(source.hint().map_or_else(
                    || {
                        "the lake has to be writable; `access_record = false` under [resolve] turns the record off"
                            .to_owned()
                    },
                    |hint| format!("{hint}; `access_record = false` under [resolve] turns the record off"),
                ))
                .with_source(source)
        })
    }

    /// Returns what the lake knows that may save time; nothing where it does not.
    pub(in crate::cli) async fn known(&self) -> Known {
        if !self.config.access_record || self.asked.ids.len() > FEW_TICKETS {
            return Known::default();
        }
        self.looked_up().await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the lake was not asked for customers");
            Known::default()
        })
    }

    /// Takes note that a ticket is about to be written.
    pub(in crate::cli) fn note(&self, detail: &Detail, parts: Parts) {
        let delivery = match detail {
            detail if detail.errors.is_empty() => Delivery::Complete,
            detail if detail.is_missing(parts) => Delivery::Missing,
            _ => Delivery::Partial,
        };
        self.delivered(detail.ticket_id, delivery);
    }

    /// Takes note of what is delivered of a ticket.
    pub(in crate::cli) fn delivered(&self, id: ObjectId, delivery: Delivery) {
        if self.config.access_record {
            self.delivered.lock().unwrap_or_else(PoisonError::into_inner).push((id, delivery));
        }
    }

    /// Takes note that all that was begun has been delivered whole.
    pub(in crate::cli) fn completed(&self) {
        let mut delivered = self.delivered.lock().unwrap_or_else(PoisonError::into_inner);
        delivered.iter_mut().for_each(|(_, delivery)| *delivery = Delivery::Complete);
    }

    /// Records what was delivered; nothing to do where nothing was.
    ///
    /// # Errors
    ///
    /// Those of [`Lake::record_delivered`]; what was asked for is on record in any case.
    pub(in crate::cli) async fn finish(&self, cost: Cost) -> Result<()> {
        let delivered = std::mem::take(&mut *self.delivered.lock().unwrap_or_else(PoisonError::into_inner));
        let Some((lake, access)) = self.opened.get().filter(|_| !delivered.is_empty()) else { return Ok(()) };
        lake.record_delivered(access, &delivered, cost).await.map_err(|source| {
            Error::new(source.kind(), "what was delivered could not be recorded; that it was asked for is on record")
                .with_context("access", &access.id)
                .with_source(source)
        })
    }

    async fn opened(&self) -> Result<&(Lake, Access)> {
        let open = || async {
            let lake = self.context.lake(self.config).await?;
            let access = Access {
                id: lake.new_access_id(),
                at_ms: self.context.clock.now().as_millisecond(),
                // A system that does not tell leaves them empty.
                login: whoami::username().unwrap_or_default(),
                host: whoami::hostname().unwrap_or_default(),
                command: self.asked.command.to_owned(),
                parts: self.asked.parts.clone(),
                redacted: self.asked.redacted,
                attachment_id: self.asked.attachment_id.clone(),
            };
            Ok((lake, access))
        };
        self.opened.get_or_try_init(open).await
    }

    async fn looked_up(&self) -> Result<Known> {
        let (lake, _) = self.opened().await?;
        let mut known = Known::default();
        let looked_up = tokio::select! {
            looked_up = self.look_up(lake, &mut known) => looked_up,
            () = self.context.clock.sleep(LOOK_UP_LIMIT) => {
                tracing::debug!("looking through the lake takes longer than asking the source");
                Ok(())
            }
        };
        looked_up.map(|()| known)
    }

    async fn look_up(&self, lake: &Lake, known: &mut Known) -> Result<()> {
        let manifest = lake.latest().await?;
        let session = Session::open(lake, &manifest, &self.config.query, &self.context.clock)?;
        let mut ids = String::new();
        for id in self.asked.ids.iter() {
            // Writing to a string cannot fail.
            let _ = write!(ids, "{}'{id}'", if ids.is_empty() { "" } else { "," });
        }
        let tickets = format!("SELECT ticket_id, customer_id FROM tickets WHERE ticket_id IN ({ids})");
        let several = "SELECT several_customers::text FROM accesses WHERE several_customers IS NOT NULL \
                       AND accessed_at >= now() - interval '30 days' ORDER BY accessed_at DESC LIMIT 1";
        // A lake without tickets, or whose policy drops their customers, knows none.
        for row in texts(&session, &tickets).await.unwrap_or_default() {
            if let [Some(ticket), Some(customer)] = &row[..]
                && let (Some(ticket), Some(customer)) =
                    (ObjectId::from_hex(ticket.as_bytes()), ObjectId::from_hex(customer.as_bytes()))
            {
                known.owners.insert(ticket, customer);
            }
        }
        let found = texts(&session, several).await.unwrap_or_default();
        known.several_customers = found.first().and_then(|row| row[0].as_deref().map(|text| text == "true"));
        Ok(())
    }
}

/// Runs a query over few rows and returns its columns as text.
async fn texts(session: &Session, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
    let file = QueryFile::parse("accesses", sql)?;
    let plan = session.plan(&file, &Arguments::default()).await?;
    let mut rows = session.stream(&plan).await?;
    let mut found = Vec::new();
    while let Some(batch) = rows.next().await? {
        let columns = batch
            .columns()
            .iter()
            .map(|column| cast(column, &DataType::Utf8))
            .collect::<std::result::Result<Vec<_>, _>>();
        let columns =
            columns.map_err(|source| Error::internal("failed to read ids of the lake").with_source(source))?;
        for row in 0..batch.num_rows() {
            let text = |column: &arrow::array::ArrayRef| {
                column.is_valid(row).then(|| column.as_string::<i32>().value(row).to_owned())
            };
            found.push(columns.iter().map(text).collect());
        }
    }
    Ok(found)
}
