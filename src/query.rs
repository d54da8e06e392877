//! Queries: SQL files over one version of the lake, with typed parameters, streamed to a sink.
//!
//! ```text
//! queries/*.sql ─▶ library (header, digest) ─▶ parameters (typed, bound) ─▶ session (plan, run) ─▶ sink (table, ids, csv, …)
//!                                                   ▲                          ▲
//!                                              -p name=value        lake tables, functions, clock
//! ```
//!
//! A session only reads: a statement that would write, configure or reach a file is refused by its syntax and once
//! more by its plan. A parameter is a typed literal in the plan and never text in the SQL. Memory is bounded, and
//! what does not fit goes to disk encrypted under a key that is never written.

pub mod header;
pub mod library;
pub mod parameters;

mod describe;
mod engine;
pub mod explain;
pub mod functions;
pub mod progress;
pub mod session;

pub mod check;
pub mod feed;
pub mod help;
pub mod lists;
pub mod record;
pub mod sink;
mod spill;

mod fault;

pub use check::Problem;
pub use explain::Operator;
pub use library::{BUILTIN, Broken, Library, QueryFile};
pub use parameters::Arguments;
pub use progress::{Gauge, Reading};
pub use session::{Plan, QuerySettings, Rows, Session};
pub use sink::{Format, Protection, Sink};
