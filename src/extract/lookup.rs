//! Records by their ids: which are there, and which are gone for sure.
//!
//! How many ids one request may name, whether a missing one makes the whole request a 404, and whether an answer is cut
//! short in silence, is not documented. A record must not be taken for gone because of any of that, so:
//!
//! * a request that is refused is halved, and the smaller size is kept;
//! * each request for several names a witness at its end, a record that was there a moment ago: an answer without it
//!   proves nothing about the others, and is halved too, down to single ids, whose 404 is final;
//! * ids are missing from an answer for sure only when some answer has brought as many records before.

use crate::error::Result;
use crate::model::ObjectId;
use crate::policy::RecordKey;

/// Ids in the first request: 1,250 bytes of path, which every server takes, and fewer than any default page.
const IDS_PER_REQUEST: usize = 50;

/// What the source says to some ids.
#[derive(Debug)]
pub(super) enum Answer<R> {
    /// Records; other ids were not found, or cut off.
    Found { records: Vec<RecordKey>, undecoded: Vec<ObjectId>, rows: R },
    /// A 404.
    NotFound,
    /// Another refusal of a request with several ids.
    Refused,
}

/// Gives records by id; repeats what fails in passing, and errs only when that did not help, or a single id is refused.
pub(super) trait RecordSource: Send {
    type Rows: Send;

    fn records(&mut self, ids: &[ObjectId]) -> impl Future<Output = Result<Answer<Self::Rows>>> + Send;
}

/// What is known of the records that were looked up.
#[derive(Debug)]
pub(super) struct LookedUp<R> {
    /// Rows of all answers: witnesses and repetitions too.
    pub(super) rows: Vec<R>,
    /// The records that were asked for and are there; some may be marked as deleted.
    pub(super) found: Vec<RecordKey>,
    /// There, but not to be decoded.
    pub(super) undecoded: Vec<ObjectId>,
    /// Not there.
    pub(super) gone: Vec<ObjectId>,
}

impl<R> Default for LookedUp<R> {
    fn default() -> Self {
        Self { rows: Vec::new(), found: Vec::new(), undecoded: Vec::new(), gone: Vec::new() }
    }
}

/// Looks records up, and learns on the way what the source accepts.
#[derive(Debug)]
pub(super) struct LookUp<S> {
    source: S,
    /// Ids that a request names at most.
    size: usize,
    /// Records that one answer has brought.
    most: usize,
    /// Records that should be there.
    witnesses: Vec<ObjectId>,
    is_measured: bool,
}

impl<S: RecordSource> LookUp<S> {
    /// Makes one with records that were seen a moment ago, as many as there are.
    pub(super) fn new(source: S, witnesses: Vec<ObjectId>) -> Self {
        Self { source, size: IDS_PER_REQUEST, most: 0, witnesses, is_measured: false }
    }

    pub(super) const fn source(&self) -> &S {
        &self.source
    }

    /// Returns how many ids a call should name.
    pub(super) const fn batch() -> usize {
        IDS_PER_REQUEST * 20
    }

    /// Looks up ids; each is answered for, once.
    pub(super) async fn look_up(&mut self, ids: &[ObjectId]) -> Result<LookedUp<S::Rows>> {
        let mut known = LookedUp::default();
        let mut waiting: Vec<Vec<ObjectId>> = ids.chunks(IDS_PER_REQUEST - 1).rev().map(<[ObjectId]>::to_vec).collect();
        while let Some(part) = waiting.pop() {
            if part.len() > 1 && part.len() >= self.size {
                let (left, right) = part.split_at(part.len() / 2);
                waiting.extend([right.to_vec(), left.to_vec()]);
                continue;
            }
            let witness = self.witnesses.iter().rev().find(|witness| !part.contains(witness)).copied();
            let witness = witness.filter(|_| part.len() > 1);
            let asked: Vec<ObjectId> = part.iter().copied().chain(witness).collect();
            let (records, undecoded) = match self.source.records(&asked).await? {
                Answer::Found { records, undecoded, rows } => {
                    known.rows.push(rows);
                    (records, undecoded)
                }
                Answer::NotFound if part.len() == 1 => {
                    known.gone.extend(part);
                    continue;
                }
                answer @ (Answer::NotFound | Answer::Refused) => {
                    // A 404 with a witness is the source's way to answer lists, and without one may mean all of them.
                    if witness.is_some() || matches!(answer, Answer::Refused) {
                        self.size = (asked.len() / 2).max(1);
                    }
                    let (left, right) = part.split_at(part.len() / 2);
                    waiting.extend([right.to_vec(), left.to_vec()]);
                    continue;
                }
            };
            let came = |id: ObjectId| records.iter().any(|record| record.id == id) || undecoded.contains(&id);
            self.most = self.most.max(asked.iter().filter(|id| came(**id)).count());
            let absent: Vec<ObjectId> = part.iter().copied().filter(|id| !came(*id)).collect();
            let is_witnessed = witness.map_or(absent.len() < part.len(), came);
            known.found.extend(records.iter().filter(|record| part.contains(&record.id)));
            known.undecoded.extend(undecoded.iter().filter(|id| part.contains(id)));
            if let Some(live) = records.iter().find(|record| !record.deleted && part.contains(&record.id)) {
                self.witnesses.push(live.id);
            }
            if let Some(gone) = witness.filter(|witness| !came(*witness)) {
                self.witnesses.retain(|witness| *witness != gone);
            }
            if absent.is_empty() {
                continue;
            }
            // Only an answer under another id came: what was asked for is not there under its own.
            if part.len() == 1 {
                known.gone.extend(absent);
                continue;
            }
            if asked.len() > self.most && !self.is_measured {
                self.measure(&mut known).await?;
            }
            if is_witnessed && asked.len() <= self.most {
                known.gone.extend(absent);
            } else if absent.len() < part.len() {
                waiting.push(absent);
            } else {
                let (left, right) = absent.split_at(absent.len() / 2);
                waiting.extend([right.to_vec(), left.to_vec()]);
            }
        }
        Ok(known)
    }

    /// Asks for records that should be there, to see how many an answer brings.
    async fn measure(&mut self, known: &mut LookedUp<S::Rows>) -> Result<()> {
        self.is_measured = true;
        let mut count = self.witnesses.len().min(self.size);
        while count > self.most.max(1) {
            let asked = self.witnesses[self.witnesses.len() - count..].to_vec();
            match self.source.records(&asked).await? {
                Answer::Found { records, rows, .. } => {
                    known.rows.push(rows);
                    let came = asked.iter().filter(|id| records.iter().any(|record| record.id == **id)).count();
                    self.most = self.most.max(came);
                    return Ok(());
                }
                Answer::NotFound | Answer::Refused => {
                    self.size = (count / 2).max(1);
                    count /= 2;
                }
            }
        }
        Ok(())
    }
}
