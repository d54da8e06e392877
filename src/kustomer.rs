//! The source's HTTP API: requests within the budget, answers as bytes.
//!
//! ```text
//! get, search ─▶ budget (two buckets) ─▶ session (token) ─▶ one host ─▶ answer ─┬─▶ bytes
//!     ▲                                                                          │
//!     └──────────── wait and ask again: 429, 5xx, torn bodies ◀──────────────────┘
//! ```
//!
//! It speaks Kustomer's language (a ticket is a *conversation* here) and looks into no record: pages go to
//! `policy::decode` as they came. It is the only user of the HTTP client, and it sends the bearer token to one host:
//! redirects are not followed, and a path that a page links to counts only when it is a relative `/v1/…` one.
//!
//! Every request that leaves is in the ledger, failed ones too, and every wait has a reason there.

mod auth;
mod bucket;
mod budget;
mod buffers;
mod claims;
mod client;
mod download;
mod endpoint;
mod error;
mod headers;
mod host;
mod ledger;
mod search;

pub use auth::Credential;
pub use budget::{BucketState, BudgetState};
pub use claims::Claims;
pub use client::{Client, ClientSettings};
pub use download::{Download, Downloader, Link, Step};
pub use endpoint::Endpoint;
pub use ledger::Ledger;
pub use search::{SearchBuilder, SearchObject, SearchRequest};
