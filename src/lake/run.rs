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
    /// Tables of small streams that were read recently enough and not asked for again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_due: Vec<String>,
    /// Tables that the credential may not read and the run went on without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<String>,
    /// Requests per endpoint that the run expected to need, of the streams that it began; empty in records of older
    /// programs.
    #[serde(default)]
    pub planned: BTreeMap<String, u64>,
    /// Time spent waiting, milliseconds, by reason: `org budget`, `search budget`, `reserve`, `rate limited`, `retry`;
    /// empty in records of older programs.
    #[serde(default)]
    pub waits_ms: BTreeMap<String, u64>,
    /// Requests that gave nothing, by cause; empty in records of older programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<String, u64>,
    /// Bytes of bodies received, decompressed, per endpoint; empty in records of older programs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub received_bytes: BTreeMap<String, u64>,
    /// Version of the lake up to which the tickets of deleted and merged customers were followed; absent when this run
    /// did not get to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub followed_version: Option<u64>,
    /// What the source allowed of a search page; the next run begins with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caps: Option<SourceCaps>,
}

/// What a source allows of a search page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCaps {
    /// Records of a page.
    pub page_size: u32,
    /// Rows that page numbers reach.
    pub window_rows: u64,
    /// Pages that are served.
    pub max_pages: u32,
    /// When the largest were last tried, milliseconds since 1970.
    pub seen_ms: i64,
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
    /// Whether all of the range was proven complete. With `distinct` 0 that says that there is nothing; without it, that
    /// nobody knows.
    pub complete: bool,
    /// Records that came and did not decode; they are kept out of the lake. `promised` is `distinct` and these, where complete.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rejected: u64,
    /// The first of those, [`LISTED_REJECTED`] at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected_records: Vec<RejectedRecord>,
    /// What is not proven: parts `[from, to)` of `updated_at` in milliseconds since 1970. The next run walks them again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holes_ms: Vec<(i64, i64)>,
    /// XOR of SHA-256 over `id:rev`, hex, of the distinct records.
    pub digest: String,
    /// Records that lay in the range when the stream began; what it did not reach is missing from `promised`.
    #[serde(default)]
    pub expected: u64,
    /// Fields that were seen and not stored as declared.
    #[serde(default)]
    pub quarantined: u64,
    /// Custom attributes that are new or changed at the source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<AttributeRun>,
    /// What a reconciliation by ids found; absent when the run made none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconciled: Option<Reconciled>,
    /// Tickets of customers that were deleted or merged, asked for again by id.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub followed: u64,
    /// Of those, tickets that belong to another customer now.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub moved: u64,
}

/// What a reconciliation found, in records of one stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciled {
    /// Ids that the source listed.
    pub swept: u64,
    /// Live in the lake and not there any more, or marked as deleted: they got their tombstones.
    pub gone: u64,
    /// Not live in the lake though the run's range was complete: they were fetched.
    pub missing: u64,
    /// Live in the lake and not listed by search, but there when asked for by id: they stay.
    pub hidden: u64,
    /// Parts of the range that could not be proven; what the lake holds of them was left as it is.
    pub unproven: u64,
}

/// Records that did not decode which a run lists.
pub const LISTED_REJECTED: usize = 100;

/// A record that did not decode: where it is and what is wrong with it, and nothing of what it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedRecord {
    /// Its id, where it has a valid one.
    pub id: Option<String>,
    /// Its `updated_at`, milliseconds since 1970, where it has a valid one.
    pub updated_at_ms: Option<i64>,
    /// What is wrong with it.
    pub reason: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A custom attribute that is new or changed at the source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeRun {
    /// Its name at the source.
    pub attribute: String,
    /// `added`; `retyped`: later values go to a new column; `left_out`: nothing of it is stored, since its rule's method
    /// does not fit its type.
    pub change: String,
    /// Its type, as schema files name it.
    pub now: String,
    /// The type that it had, where that was another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
    /// The column that holds it from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The column that held it, and keeps what it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}
