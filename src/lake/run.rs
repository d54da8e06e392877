//! The record of one run: what was promised, what came, what it cost. Counts and ids only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One run of `extract`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Id of the run (UUID version 7).
    pub id: String,
    /// Start, milliseconds since 1970.
    pub started_ms: i64,
    /// End, milliseconds since 1970.
    pub ended_ms: Option<i64>,
    /// `complete`, `incomplete` or `failed`.
    pub outcome: String,
    /// Digest of the policy, hex.
    pub policy: String,
    /// Per stream.
    pub streams: Vec<StreamRun>,
    /// Requests per endpoint.
    pub requests: BTreeMap<String, u64>,
    /// Time spent waiting for the budget, milliseconds.
    pub waited_ms: u64,
}

/// One stream in a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamRun {
    /// The stream's table.
    pub stream: String,
    /// `[from, to)` in milliseconds since 1970, for incremental streams.
    pub range_ms: Option<(i64, i64)>,
    /// Segments walked.
    pub segments: u64,
    /// Records that the source promised (`meta.total`), over all segments.
    pub promised: u64,
    /// Records received, with repetitions.
    pub received: u64,
    /// Distinct records received.
    pub distinct: u64,
    /// Rows inserted.
    pub inserted: u64,
    /// Rows that superseded others.
    pub updated: u64,
    /// Rows left out because nothing changed.
    pub unchanged: u64,
    /// Tombstones.
    pub deleted: u64,
    /// Whether all segments were proven complete.
    pub complete: bool,
    /// XOR of SHA-256 over `id:rev`, hex, of the distinct records.
    pub digest: String,
}
