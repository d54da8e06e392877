//! Counterfoil keeps the *counterfoil* of every support ticket: its metadata, redacted, encrypted, queryable; never the
//! ticket itself.
//!
//! ```text
//!              rate budget                 policy                     keys
//!                  │                         │                         │
//! Kustomer ──▶ kustomer: pages ──▶ policy: redact while decoding ──▶ lake: encrypted Parquet, encrypted manifest
//!    ▲                                                                 │
//!    │                                                                 ▼
//!    └────────── resolve: live details ◀── ticket IDs ◀── query: SQL files ──▶ table, ids, CSV, JSON
//!                 (never stored)
//! ```
//!
//! # What is guaranteed
//!
//! * A field that the policy does not keep is never stored: the lake takes only [`policy::RedactedBatch`], and only the
//!   policy's decoder can make one.
//! * Nothing is at rest in plaintext. Data files are Parquet with modular encryption (AES-256-GCM, a fresh key per file),
//!   everything else of the lake is sealed under its key ring. There is no way to write without.
//! * Rows and watermark move in one atomic commit: a crash repeats requests and loses no ticket.
//! * A run that cannot prove that it received every record says so, and its watermark stays before the gap.
//! * No more than the configured share of either rate limit is used, in any 60 seconds.
//!
//! # What is not
//!
//! * Whoever holds the root key and the lake reads it all. Whoever can replace the whole lake by an older copy of itself can
//!   turn time back unnoticed.
//! * Rows that were deleted at the source stay as tombstones in `ticket_versions`.
//! * The program sees what the source's search returns. Records that it never returns are unknown to it.
//!
//! # The modules
//!
//! A module imports only from lower layers; a test reads the sources and checks it.
//!
//! | layer | modules |
//! |---|---|
//! | L8 | [`cli`]: arguments and wiring |
//! | L7 | [`config`]: settings of every module, composed |
//! | L6 | [`sandbox`]: a Kustomer-compatible API with a synthetic organisation |
//! | L5 | [`extract`]: one run; [`query`]: SQL files; [`resolve`]: live details |
//! | L4 | [`lake`]: manifest, writer, scan |
//! | L3 | [`kustomer`]: the source; [`policy`]: redaction; [`keys`]: root key, ring, file keys |
//! | L2 | [`schema`]: declared columns |
//! | L1 | [`model`], [`retry`], [`telemetry`] |
//! | L0 | [`error`], [`secret`], [`clock`] |
//!
//! # Example
//!
//! A page of the source becomes redacted columns:
//!
//! ```
//! use std::sync::Arc;
//!
//! use counterfoil::model::Stream;
//! use counterfoil::policy::{Definitions, Policy};
//! use counterfoil::schema::Schemas;
//! use counterfoil::secret::{PseudonymKey, PseudonymKeys, SecretKey};
//!
//! # fn main() -> counterfoil::error::Result<()> {
//! let policy = Policy::compile(&Schemas::builtin()?)?;
//! let key = PseudonymKey { version: 1, key: SecretKey::new([7; 32]) };
//! let keys = PseudonymKeys::try_new([Arc::new(key)])?;
//! let mut decoder = policy.decoder(Stream::Tickets, &Definitions::default(), &keys)?;
//! decoder.push_page(
//!     br#"{"data":[{"id":"58228e05d4e96711004eccb7","attributes":{
//!         "name":"my subject","status":"done","updatedAt":"2016-11-09T03:23:34.064Z","rev":1}}]}"#,
//! )?;
//! let rows = decoder.finish()?;
//! assert_eq!(rows.batch().num_rows(), 1);
//! assert!(rows.batch().column_by_name("status").is_some());
//! assert!(rows.batch().column_by_name("subject").is_none(), "the shipped policy drops what people wrote");
//! # Ok(())
//! # }
//! ```

pub mod cli;

pub mod config;

pub mod sandbox;

pub mod extract;
pub mod query;
pub mod resolve;

pub mod lake;

pub mod keys;
pub mod kustomer;
pub mod policy;

pub mod schema;

pub mod model;
pub mod retry;
pub mod telemetry;

pub mod clock;
pub mod error;
pub mod secret;
