//! The leases: one run at a time spends the source's budget, one command at a time tidies up, one query at a time records a
//! ticket list.
//!
//! ```text
//! leases/extract/00000000000000000007       {"format":1,"holder":"run …, process …","taken_ms":…,"expires_ms":…,"seat":{…}}
//! leases/maintenance/00000000000000000002   the same
//! leases/record/00000000000000000005        the same
//! ```
//!
//! Whoever needs several takes them in this order: `maintenance`, `extract`, `record`.
//!
//! A lease also says which process holds it, as far as another one can look that up: see [`holder`]. One whose process
//! has ended is taken over at once by a process beside it; elsewhere it lasts until it expires.
//!
//! The object of the highest number is the lease. Taking it means making the next number with
//! [`PutMode::Create`](object_store::PutMode::Create), which one taker wins, also when several find the same lease
//! expired; no store needs a conditional update for that. Only its holder ever writes to an object: to extend it, and
//! to end it. Objects of lower numbers are leftovers that the next holder deletes.
//!
//! The lease saves budget, it does not guard the data: two runs that both believe to hold it (clocks apart by more than
//! the lease lasts) still commit one after the other, and a record that comes twice is written once.

mod holder;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use crate::clock::SharedClock;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::lease::holder::Seat;
use crate::lake::{layout, store};

/// What a lease is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Fetching from the source.
    Extract,
    /// Rewriting files, expiring versions, deleting objects.
    Maintenance,
    /// Putting a ticket list: seconds at most, so whoever finds it taken waits.
    Record,
}

impl Purpose {
    /// Returns the name of its folder under `leases/`, which messages print too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Extract => "extract",
            Self::Maintenance => "maintenance",
            Self::Record => "record",
        }
    }
}

/// How long a lease lasts without being renewed: a crashed run blocks the next one for no longer.
pub const LEASE_DURATION: Duration = Duration::from_mins(2);

/// No lease comes near this.
const LEASE_LIMIT_BYTES: u64 = 64 << 10;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Terms {
    format: u32,
    holder: String,
    taken_ms: i64,
    expires_ms: i64,
    /// The process that holds it; absent in the leases of a release that did not write it, and where it cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seat: Option<Seat>,
}

/// Who holds the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Host, process, run.
    pub name: String,
    /// Since when, milliseconds since 1970.
    pub taken_ms: i64,
    /// Until when, unless it is extended, milliseconds since 1970.
    pub expires_ms: i64,
}

/// Returns who holds the lease; nobody when it is free or has expired.
pub(super) async fn holder(store: &dyn ObjectStore, purpose: Purpose, now_ms: i64) -> Result<Option<Holder>> {
    let Some(number) = list(store, purpose).await?.last().copied() else { return Ok(None) };
    let terms = read(store, purpose, number).await?.filter(|terms| is_live(terms, now_ms));
    Ok(terms.map(|Terms { holder, taken_ms, expires_ms, .. }| Holder { name: holder, taken_ms, expires_ms }))
}

/// The lease, given back by [`release`](Self::release), taken over by others once it has expired.
#[derive(Debug)]
pub struct Lease {
    store: Arc<dyn ObjectStore>,
    clock: SharedClock,
    purpose: Purpose,
    number: u64,
    terms: Terms,
}

impl Lease {
    /// Takes the lease; `holder` says who (host, process, run) and is shown to whoever is refused.
    pub(super) async fn take(
        store: Arc<dyn ObjectStore>,
        clock: SharedClock,
        purpose: Purpose,
        holder: &str,
    ) -> Result<Self> {
        let numbers = list(store.as_ref(), purpose).await?;
        let last = numbers.last().copied().unwrap_or(0);
        if let Some(number) = numbers.last()
            && let Some(terms) = read(store.as_ref(), purpose, *number).await?
            && is_live(&terms, clock.now().as_millisecond())
        {
            if !terms.seat.as_ref().is_some_and(Seat::has_ended) {
                return Err(held(purpose, &terms));
            }
            tracing::info!(holder = terms.holder, "taking over the lease of a run whose process has ended");
        }
        let next = last.checked_add(1).ok_or_else(|| {
            Error::data("lease has a number beyond all").with_context("object", layout::lease(purpose, last))
        })?;
        let now_ms = clock.now().as_millisecond();
        let terms = Terms {
            format: layout::FORMAT,
            holder: holder.to_owned(),
            taken_ms: now_ms,
            expires_ms: expiry(now_ms),
            seat: Seat::own(),
        };
        let lease = Self { store, clock, purpose, number: next, terms };
        let object = layout::lease(purpose, lease.number);
        if !store::create(lease.store.as_ref(), &object, lease.terms.encode()?).await? {
            return Err(match read(lease.store.as_ref(), purpose, lease.number).await? {
                Some(terms) => held(purpose, &terms),
                None => just_held(purpose),
            });
        }
        let mut numbers = list(lease.store.as_ref(), purpose).await?;
        if numbers.pop() != Some(lease.number) {
            // The number had been used and cleared away since the first look; the lease is a later one.
            let _ = lease.store.delete(&object).await;
            return Err(just_held(purpose));
        }
        for number in numbers {
            // A leftover that stays is only a little longer to list.
            let _ = lease.store.delete(&layout::lease(purpose, number)).await;
        }
        Ok(lease)
    }

    /// Extends the lease by [`LEASE_DURATION`] from now, also one that has expired and that nobody has taken: the process
    /// may have been suspended, and its run is still the only one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`] when another run has taken it over: stop the run.
    pub async fn renew(&mut self) -> Result<()> {
        self.put(expiry(self.clock.now().as_millisecond())).await?;
        // Looked at last: whoever took over an expired lease before the extension was written is seen here.
        if list(self.store.as_ref(), self.purpose).await?.last() != Some(&self.number) {
            return Err(Error::new(ErrorKind::Conflict, "another process has taken over the lease")
                .with_context("lease", self.purpose.name())
                .with_context("holder", &self.terms.holder));
        }
        Ok(())
    }

    /// Gives the lease back.
    pub async fn release(mut self) -> Result<()> {
        // The object stays, as expired: deleting it would let its number be used again.
        self.put(self.terms.taken_ms).await
    }

    async fn put(&mut self, expires_ms: i64) -> Result<()> {
        let terms = Terms { expires_ms, ..self.terms.clone() };
        let object = layout::lease(self.purpose, self.number);
        let put = self.store.put(&object, terms.encode()?.into()).await;
        put.map_err(|error| store::failed("write", &object, error))?;
        self.terms = terms;
        Ok(())
    }
}

/// Extends leases.
pub(super) async fn renew_all(leases: &mut [Lease]) -> Result<()> {
    for lease in leases {
        lease.renew().await?;
    }
    Ok(())
}

/// Gives leases back, the last one first.
pub(super) async fn release_all(leases: Vec<Lease>) -> Result<()> {
    let mut outcome = Ok(());
    for lease in leases.into_iter().rev() {
        outcome = outcome.and(lease.release().await);
    }
    outcome
}

impl Terms {
    fn encode(&self) -> Result<Bytes> {
        let text = serde_json::to_vec(self);
        text.map(Bytes::from).map_err(|error| Error::internal("failed to encode a lease").with_source(error))
    }
}

/// Tells whether a lease holds. One that ends later than any honest one could was written by a clock that is far ahead, or
/// by somebody who wants to stop all runs.
fn is_live(terms: &Terms, now_ms: i64) -> bool {
    now_ms < terms.expires_ms && terms.expires_ms <= expiry(expiry(now_ms))
}

fn expiry(now_ms: i64) -> i64 {
    now_ms.saturating_add(i64::try_from(LEASE_DURATION.as_millis()).unwrap_or(i64::MAX))
}

fn just_held(purpose: Purpose) -> Error {
    Error::new(ErrorKind::Conflict, "another process has just held the lease").with_context("lease", purpose.name())
}

fn held(purpose: Purpose, terms: &Terms) -> Error {
    let until = jiff::Timestamp::from_millisecond(terms.expires_ms).unwrap_or(jiff::Timestamp::MAX);
    Error::new(ErrorKind::Conflict, "another process holds the lease")
        .with_context("lease", purpose.name())
        .with_context("holder", &terms.holder)
        .with_context("until", until)
        .with_hint("wait for it to end; the lease of a run that has crashed ends by itself")
}

/// Lists the numbers of the leases, ascending.
pub(super) async fn list(store: &dyn ObjectStore, purpose: Purpose) -> Result<Vec<u64>> {
    let folder = layout::leases(purpose);
    let mut numbers: Vec<u64> = store
        .list(Some(&folder))
        .try_filter_map(async |object| Ok(object.location.filename().and_then(|name| name.parse::<u64>().ok())))
        .try_collect()
        .await
        .map_err(|error| store::failed("list", &folder, error))?;
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads a lease; `None` when its holder's successor has just deleted it.
async fn read(store: &dyn ObjectStore, purpose: Purpose, number: u64) -> Result<Option<Terms>> {
    let object = layout::lease(purpose, number);
    let Some(bytes) = store::read(store, &object, LEASE_LIMIT_BYTES).await? else { return Ok(None) };
    let terms: Terms = serde_json::from_slice(&bytes).map_err(|error| {
        Error::data("failed to read a lease")
            .with_context("object", &object)
            .with_source(error)
            .with_hint("delete the object if no such process is running")
    })?;
    layout::check_format(object.as_ref(), terms.format)?;
    Ok(Some(terms))
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::clock::ManualClock;

    fn setting() -> (Arc<dyn ObjectStore>, Arc<ManualClock>) {
        let start = jiff::Timestamp::from_second(1_760_000_000).unwrap();
        (Arc::new(InMemory::new()), Arc::new(ManualClock::new(start)))
    }

    async fn take(store: &Arc<dyn ObjectStore>, clock: &Arc<ManualClock>, holder: &str) -> Result<Lease> {
        Lease::take(Arc::clone(store), Arc::<ManualClock>::clone(clock), Purpose::Extract, holder).await
    }

    #[tokio::test]
    async fn live_lease_refuses_a_second_holder_and_names_the_first() {
        let (store, clock) = setting();
        let mut lease = take(&store, &clock, "host/1 run-a").await.unwrap();
        for _ in 0..3 {
            clock.advance(Duration::from_secs(119));
            let refused = take(&store, &clock, "host/2 run-b").await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Conflict);
            assert!(refused.to_string().contains("host/1 run-a"), "{refused}");
            assert!(refused.to_string().contains("until: 2025-10-09T"), "{refused}");
            lease.renew().await.unwrap();
        }
    }

    #[tokio::test]
    async fn released_and_expired_leases_are_free() {
        let (store, clock) = setting();
        take(&store, &clock, "a").await.unwrap().release().await.unwrap();
        drop(take(&store, &clock, "b").await.unwrap());
        clock.advance(LEASE_DURATION);
        take(&store, &clock, "c").await.unwrap();
        assert_eq!(list(store.as_ref(), Purpose::Extract).await.unwrap(), [3]);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn lease_of_an_ended_process_is_taken_at_once_and_that_of_a_living_one_is_not() {
        let (store, clock) = setting();
        let lease = take(&store, &clock, "crashed").await.unwrap();
        let ended = Seat::own().unwrap().after_its_end();
        for (seat, is_free) in [(None, false), (Seat::own(), false), (Some(ended), true)] {
            let terms = Terms { seat, ..lease.terms.clone() };
            store.put(&layout::lease(Purpose::Extract, lease.number), terms.encode().unwrap().into()).await.unwrap();
            let taken = take(&store, &clock, "next").await;
            assert_eq!(taken.is_ok(), is_free, "{terms:?}");
        }
        let read = read(store.as_ref(), Purpose::Extract, 2).await.unwrap().unwrap();
        assert_eq!((read.holder.as_str(), read.seat), ("next", Seat::own()));
        let old = r#"{"format":1,"holder":"an earlier release","taken_ms":1,"expires_ms":2}"#;
        assert_eq!(serde_json::from_str::<Terms>(old).unwrap().seat, None);
    }

    #[tokio::test]
    async fn lost_lease_cannot_be_renewed_or_disturb_its_successor() {
        let (store, clock) = setting();
        let mut lost = take(&store, &clock, "a").await.unwrap();
        clock.advance(LEASE_DURATION);
        lost.renew().await.unwrap();
        assert_eq!(take(&store, &clock, "b").await.unwrap_err().kind(), ErrorKind::Conflict, "suspended and back");
        clock.advance(LEASE_DURATION);
        let mut kept = take(&store, &clock, "b").await.unwrap();
        assert_eq!(lost.renew().await.unwrap_err().kind(), ErrorKind::Conflict, "taken over");
        lost.release().await.unwrap();
        kept.renew().await.unwrap();
        assert_eq!(take(&store, &clock, "c").await.unwrap_err().kind(), ErrorKind::Conflict);
    }

    #[tokio::test]
    async fn one_of_many_takers_of_an_expired_lease_wins() {
        let (store, clock) = setting();
        drop(take(&store, &clock, "crashed").await.unwrap());
        clock.advance(LEASE_DURATION);
        let takers = (0..8).map(|taker| {
            let (store, clock) = (Arc::clone(&store), Arc::clone(&clock));
            tokio::spawn(async move { take(&store, &clock, &format!("taker {taker}")).await })
        });
        let mut won = 0;
        for taker in futures::future::join_all(takers).await {
            match taker.unwrap() {
                Ok(_) => won += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
            }
        }
        assert_eq!(won, 1);
    }

    #[tokio::test]
    async fn damaged_lease_is_named() {
        let (store, clock) = setting();
        store.put(&layout::lease(Purpose::Extract, 4), "{}".into()).await.unwrap();
        let error = take(&store, &clock, "a").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().contains("leases/extract/00000000000000000004"), "{error}");
    }
}
