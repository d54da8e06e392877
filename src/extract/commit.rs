//! Commits of an incremental stream: rows, and how far they are proven, in one step.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::BooleanArray;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::clock::SharedClock;
use crate::error::Result;
use crate::extract::plan::{MOST_RANGES, Plan, RangeSet};
use crate::extract::price::{Model, Price};
use crate::extract::prove::Proof;
use crate::extract::walk::{Closed, Step};
use crate::extract::{Event, Progress, Run};
use crate::kustomer::Endpoint;
use crate::lake::manifest::Watermark;
use crate::lake::quarantine::Seen;
use crate::lake::run::{LISTED_REJECTED, RejectedRecord, StreamRun};
use crate::lake::{Lake, RowCounts, Transaction};
use crate::model::Stream;
use crate::policy::{Policy, RedactedBatch};

/// At most this much of the budget is spent again after a crash.
const COMMIT_EVERY: Duration = Duration::from_mins(1);

/// Receives the steps of a stream's walk and commits them.
pub(super) struct Committer<'a> {
    lake: &'a Lake,
    policy: &'a Policy,
    clock: SharedClock,
    progress: &'a dyn Progress,
    commit_rows: u64,
    commit_bytes: usize,
    before: crate::kustomer::Ledger,
    client: &'a crate::kustomer::Client,
    stream: Stream,
    /// The watermark before the run.
    old: Watermark,
    from_ms: i64,
    target_ms: i64,
    complete_from_ms: Option<i64>,
    /// What is not proven yet: of search, of the archive.
    remaining: BTreeMap<bool, RangeSet>,
    transaction: Transaction,
    waiting_rows: u64,
    waiting_bytes: usize,
    has_news: bool,
    committed: Timestamp,
    proof: Proof,
    run: StreamRun,
    /// What was seen and not stored, for the last commit.
    quarantine: Option<Seen>,
    model: Model,
    /// Searches that the ranges should take, by what they promised when they began.
    pub(super) planned: Price,
}

impl<'a> Committer<'a> {
    pub(super) fn new(
        run: &Run<'a>,
        stream: Stream,
        old: Watermark,
        plan: Plan,
        archived: RangeSet,
        empty: RedactedBatch,
        model: Model,
    ) -> Self {
        let range_ms = plan.ranges.hull();
        let mut transaction = run.lake.transaction().under(run.policy);
        transaction.append(empty);
        Self {
            lake: run.lake,
            policy: run.policy,
            clock: run.clock.clone(),
            progress: run.progress,
            commit_rows: run.settings.commit_rows,
            commit_bytes: run.settings.commit_bytes,
            before: run.client.ledger(),
            client: run.client,
            stream,
            old,
            from_ms: range_ms.map_or(plan.target_ms, |(from, _)| from),
            target_ms: plan.target_ms,
            complete_from_ms: plan.complete_from_ms,
            remaining: BTreeMap::from([(false, plan.ranges), (true, archived)]),
            transaction,
            waiting_rows: 0,
            waiting_bytes: 0,
            has_news: false,
            committed: run.clock.now(),
            proof: Proof::default(),
            run: StreamRun { stream: stream.table().to_owned(), range_ms, ..StreamRun::default() },
            quarantine: None,
            model,
            planned: Price::default(),
        }
    }

    /// Takes steps until the walk ends.
    pub(super) async fn receive(&mut self, mut steps: mpsc::Receiver<Step<RedactedBatch>>) -> Result<()> {
        while let Some(step) = steps.recv().await {
            match step {
                Step::Promised { archive, promised } => {
                    self.run.expected += promised;
                    let endpoint = if archive { Endpoint::ArchiveSearch } else { Endpoint::Search };
                    self.planned.add(endpoint, self.model.searches(promised));
                    self.progress.on(Event::Promised { stream: self.stream, promised });
                }
                Step::Rows { rows, keep } => self.rows(&rows, keep)?,
                Step::Closed(closed) => self.close(closed),
            }
            let is_due = self.clock.now().duration_since(self.committed).unsigned_abs() >= COMMIT_EVERY;
            let is_full = self.waiting_rows >= self.commit_rows || self.waiting_bytes >= self.commit_bytes;
            if is_full || (is_due && self.has_news) {
                self.commit().await?;
            }
        }
        Ok(())
    }

    /// Takes note of a stretch: what of it is proven, and what is a hole.
    fn close(&mut self, closed: Closed) {
        let Closed { stretch, promised, tally, is_proven } = closed;
        self.run.segments += 1;
        self.run.promised += promised;
        self.run.distinct += tally.proof.distinct;
        self.run.rejected += tally.rejected.len() as u64;
        self.proof.merge(&tally.proof);
        for rejected in &tally.rejected {
            let id = rejected.id.map(|id| id.to_string());
            tracing::warn!(
                stream = %self.stream, id, reason = rejected.reason,
                "record does not decode: it is kept out, and the run is incomplete"
            );
            if self.run.rejected_records.len() < LISTED_REJECTED {
                let updated_at_ms = rejected.updated_at_ms;
                self.run.rejected_records.push(RejectedRecord {
                    id,
                    updated_at_ms,
                    reason: rejected.reason.to_owned(),
                });
            }
        }
        if is_proven {
            self.has_news = true;
            let remaining = self.remaining.entry(stretch.archive).or_default();
            remaining.remove(stretch.from_ms, stretch.to_ms);
            tally.holes_ms.iter().for_each(|(from, to)| remaining.add(*from, *to));
        } else {
            tracing::error!(
                stream = %self.stream, promised, distinct = tally.proof.distinct,
                from_ms = stretch.from_ms, to_ms = stretch.to_ms,
                "records are missing and did not come when asked for again"
            );
        }
    }

    /// Takes what was seen and not stored; where not everything is proven, not every record was seen.
    pub(super) fn quarantine(&mut self, seen: Seen) {
        self.run.quarantined = seen.fields.len() as u64;
        self.quarantine = Some(Seen { whole: seen.whole && self.unproven().is_empty(), ..seen });
    }

    /// Commits what waits, and returns the stream's figures.
    pub(super) async fn finish(mut self) -> Result<StreamRun> {
        if let Some(seen) = self.quarantine.take() {
            self.transaction.quarantine(self.stream, seen);
        }
        self.commit().await?;
        let unproven = self.unproven();
        self.run.complete = unproven.is_empty();
        self.run.holes_ms = unproven.at_most(MOST_RANGES).iter().collect();
        self.run.digest = self.proof.hex();
        Ok(self.run)
    }

    fn rows(&mut self, rows: &RedactedBatch, keep: Vec<bool>) -> Result<()> {
        self.run.received += keep.len() as u64;
        let fresh = keep.iter().filter(|is_kept| **is_kept).count() as u64;
        if fresh > 0 {
            let rows = if fresh == keep.len() as u64 { rows.clone() } else { rows.filter(&BooleanArray::from(keep))? };
            self.waiting_bytes += rows.memory_bytes();
            self.transaction.append(rows);
        }
        self.waiting_rows += fresh;
        self.progress.on(Event::Received { stream: self.stream, records: fresh });
        let ledger = self.client.ledger();
        for (reason, wait) in ledger.since(&self.before).waited {
            self.progress.on(Event::Waited { reason, wait });
        }
        self.before = ledger;
        Ok(())
    }

    async fn commit(&mut self) -> Result<()> {
        let mut transaction = std::mem::replace(&mut self.transaction, self.lake.transaction().under(self.policy));
        transaction.set_watermark(self.stream, self.watermark());
        let summary = transaction.commit().await?;
        for (_, counts) in summary.streams.iter().filter(|(stream, _)| *stream == self.stream) {
            add_counts(&mut self.run, *counts);
        }
        self.progress.on(Event::Committed { version: summary.version, rows: self.waiting_rows });
        self.waiting_rows = 0;
        self.waiting_bytes = 0;
        self.has_news = false;
        self.committed = self.clock.now();
        Ok(())
    }

    /// The watermark that holds for what was received so far: it stays before the first hole.
    fn watermark(&self) -> Watermark {
        let unproven = self.unproven();
        let Some((first_ms, _)) = unproven.hull() else {
            return Watermark {
                complete_through_ms: Some(self.target_ms),
                complete_from_ms: self.complete_from_ms,
                target_ms: None,
                remaining_ms: Vec::new(),
            };
        };
        let is_first = self.old.complete_through_ms.is_none() && self.old.target_ms.is_none();
        let reached = (first_ms > self.from_ms).then_some(first_ms);
        Watermark {
            complete_through_ms: self.old.complete_through_ms.max(reached),
            complete_from_ms: if is_first { self.complete_from_ms } else { self.old.complete_from_ms },
            target_ms: Some(self.target_ms),
            remaining_ms: unproven.iter().collect(),
        }
    }

    fn unproven(&self) -> RangeSet {
        let mut all = RangeSet::default();
        self.remaining.values().flat_map(RangeSet::iter).for_each(|(from, to)| all.add(from, to));
        all
    }
}

/// Adds a commit's counts to a stream's figures.
pub(super) fn add_counts(run: &mut StreamRun, counts: RowCounts) {
    run.inserted += counts.inserted;
    run.updated += counts.updated;
    run.unchanged += counts.unchanged;
    run.deleted += counts.deleted;
}
