//! The tickets of customers that were merged or deleted.
//!
//! When a customer is merged into another, the tickets move with it. Whether their `updated_at` and `rev` move too is not
//! documented; if they do not, no walk ever brings them, and the lake would name a customer that does not exist. So each
//! customer that became a tombstone has its tickets asked for again by id, and those that belong to another customer now
//! supersede what the lake holds, whatever their revision. Tickets that went with their customer get their tombstones.
//!
//! How far this got is a version of the lake in the run's record: what became a tombstone after it is new, so a run that
//! ended early is made up for by the next one. Most runs find no such customer, and ask nothing.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;

use crate::error::{ErrorKind, Result};
use crate::extract::Run;
use crate::extract::lookup::LookUp;
use crate::extract::reconcile::{ById, only};
use crate::lake::manifest::Manifest;
use crate::model::{ObjectId, Stream};
use crate::policy::Definitions;

/// The column of a ticket's customer.
const OWNER: &str = "customer_id";

/// Other tickets that serve as witnesses.
const WITNESSES: usize = 50;

impl Run<'_> {
    /// Asks again for the tickets of customers that are no more; `before` is the lake at the start of the run.
    pub(super) async fn follow_merges(&mut self, before: &Arc<Manifest>, definitions: &Definitions) -> Result<()> {
        let manifest = self.lake.latest().await?;
        let customers = self.customers_no_more(&manifest, before).await?;
        if !customers.is_empty() && is_followed(&manifest) {
            // What this run has stored was read after the customers' tombstones.
            let tickets = self.lake.referring(&manifest, before.version, (Stream::Tickets, OWNER), &customers).await?;
            if !tickets.is_empty() {
                self.follow(&manifest, &customers, &tickets, definitions).await?;
            }
        }
        self.record.followed_version = Some(manifest.version);
        Ok(())
    }

    /// Lists the customers whose tombstones came since the last run that followed them.
    async fn customers_no_more(&self, manifest: &Manifest, before: &Arc<Manifest>) -> Result<HashSet<ObjectId>> {
        let followed = manifest.runs.iter().rev().find_map(|run| run.followed_version).unwrap_or_default();
        let mut customers = self.lake.tombstones_since(manifest, followed, Stream::Customers).await?;
        if customers.is_empty() || followed == 0 {
            return Ok(customers);
        }
        // Files are rewritten now and then: a tombstone in a new file need not be new.
        let earlier = match followed {
            version if version == before.version => Ok(Arc::clone(before)),
            version => self.lake.at_version(version).await,
        };
        let old = match earlier {
            Ok(earlier) => self.lake.newest_keys(&earlier, Stream::Customers, &customers).await,
            Err(error) => Err(error),
        };
        match old {
            Ok(old) => {
                for key in old.iter().filter(|key| key.deleted) {
                    customers.remove(&key.id);
                }
            }
            // Denied: the ring key that it was written under was destroyed.
            Err(error) if matches!(error.kind(), ErrorKind::Config | ErrorKind::Data | ErrorKind::Denied) => {
                tracing::info!(
                    version = followed,
                    "an older version is not kept: tickets of customers deleted before it may be followed again"
                );
            }
            Err(error) => return Err(error),
        }
        Ok(customers)
    }

    async fn follow(
        &mut self,
        manifest: &Manifest,
        customers: &HashSet<ObjectId>,
        tickets: &[ObjectId],
        definitions: &Definitions,
    ) -> Result<()> {
        let stream = Stream::Tickets;
        let others = self.lake.live_ids(manifest, stream)?.next(WITNESSES * 4).await?;
        let others = others.into_iter().filter(|id| tickets.binary_search(id).is_err()).take(WITNESSES).collect();
        let decoder = self.decoder(stream, definitions)?;
        let mut look_up = LookUp::new(ById::new(self.client, stream, decoder.fork()), others);
        for ids in tickets.chunks(LookUp::<ById<'_>>::batch()) {
            let known = look_up.look_up(ids).await?;
            let mut transaction = self.lake.transaction().under(self.policy);
            let mut moved = HashSet::new();
            for rows in known.rows {
                let owners = owners(rows.batch());
                let of_another: HashSet<ObjectId> = rows
                    .keys()
                    .iter()
                    .zip(owners)
                    .filter(|(key, owner)| {
                        let is_same = owner.is_some_and(|owner| customers.contains(&owner));
                        ids.binary_search(&key.id).is_ok() && !is_same
                    })
                    .map(|(key, _)| key.id)
                    .collect();
                transaction.append(only(&rows, |key| !of_another.contains(&key.id))?);
                transaction.correct(only(&rows, |key| of_another.contains(&key.id))?);
                moved.extend(of_another);
            }
            if let Some(rows) = self.tombstones(manifest, (stream, &decoder), known.gone).await? {
                transaction.append(rows);
            }
            self.commit(stream, transaction, ids.len()).await?;
            self.note(stream, |run| {
                run.followed += ids.len() as u64;
                run.moved += moved.len() as u64;
            });
        }
        tracing::info!(
            customers = customers.len(),
            tickets = tickets.len(),
            "followed tickets of customers that are no more"
        );
        Ok(())
    }
}

/// Tells whether the lake holds the customers' ids as they are, so that they can be compared.
fn is_followed(manifest: &Manifest) -> bool {
    let Some(table) = manifest.tables.get(&Stream::Tickets) else { return false };
    let Ok(column) = table.schema.field_with_name(OWNER) else { return false };
    let is_kept = column.metadata().get("method").is_none_or(|method| method == "keep" || method == "restrict");
    if !is_kept {
        tracing::warn!(
            column = OWNER,
            "the policy changes the ids of customers, so tickets of merged customers are not followed"
        );
    }
    is_kept
}

/// Returns the customers of rows.
fn owners(batch: &RecordBatch) -> Vec<Option<ObjectId>> {
    let texts = batch.column_by_name(OWNER).filter(|column| *column.data_type() == DataType::Utf8);
    let texts = texts.map(AsArray::as_string::<i32>);
    (0..batch.num_rows())
        .map(|row| {
            texts.filter(|texts| !texts.is_null(row)).and_then(|texts| ObjectId::from_hex(texts.value(row).as_bytes()))
        })
        .collect()
}
