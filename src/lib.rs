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
//! # As a library
//!
//! [`Project`] is the way in: settings, and four things to do with them. What stands on this page (the items that the root
//! re-exports) is the public API and follows semantic versioning; the modules are the inside of the binary, hidden here, and
//! may change in any version. The rules, with what else is promised, are in `docs/library.md`.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use counterfoil::{NoProgress, Project};
//!
//! # async fn example() -> counterfoil::Result<()> {
//! let project = Project::load(Path::new("counterfoil.toml"))?;
//! let lake = project.open().await?;
//! let settings = project.extract_settings();
//! project.extract(&lake, &settings, &NoProgress, std::future::pending()).await?.into_result()?;
//! let file = project.library()?.find("reopened_vip")?;
//! let mut rows = project.query(&lake, &file, &[("min_reopens", "3")]).await?;
//! while let Some(batch) = rows.next().await? {
//!     assert_eq!(batch.schema(), rows.schema());
//! }
//! # Ok(())
//! # }
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
//! | L8 | [`cli`]: arguments and wiring; [`project`]: the same for programs |
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

// Hidden in the documentation alone, so that `missing_docs` still looks at them.
#[cfg_attr(doc, doc(hidden))]
pub mod cli;
#[cfg_attr(doc, doc(hidden))]
pub mod project;

#[cfg_attr(doc, doc(hidden))]
pub mod config;

#[cfg_attr(doc, doc(hidden))]
pub mod sandbox;

#[cfg_attr(doc, doc(hidden))]
pub mod extract;
#[cfg_attr(doc, doc(hidden))]
pub mod query;
#[cfg_attr(doc, doc(hidden))]
pub mod resolve;

#[cfg_attr(doc, doc(hidden))]
pub mod lake;

#[cfg_attr(doc, doc(hidden))]
pub mod keys;
#[cfg_attr(doc, doc(hidden))]
pub mod kustomer;
#[cfg_attr(doc, doc(hidden))]
pub mod policy;

#[cfg_attr(doc, doc(hidden))]
pub mod schema;

#[cfg_attr(doc, doc(hidden))]
pub mod model;
#[cfg_attr(doc, doc(hidden))]
pub mod retry;
#[cfg_attr(doc, doc(hidden))]
pub mod telemetry;

#[cfg_attr(doc, doc(hidden))]
pub mod clock;
#[cfg_attr(doc, doc(hidden))]
pub mod error;
#[cfg_attr(doc, doc(hidden))]
pub mod secret;

/// The blocks of `docs/library.md`, which are tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/library.md")]
struct LibraryChapter;

pub use self::project::Project;

pub use self::error::{Error, ErrorKind, Result};

pub use self::lake::Lake;
pub use self::lake::run::{RunRecord, StreamRun};
pub use self::model::{ObjectId, Stream};

pub use self::extract::{Event, ExtractSettings, NoProgress, Progress, RunReport};
pub use self::query::{Library, QueryFile, Rows};
pub use self::resolve::{Format, Outcome, Part, Parts, ResolveSettings, Style};
