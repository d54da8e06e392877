//! Counterfoil keeps the *counterfoil* of every support ticket: its metadata, redacted, encrypted, queryable.

pub mod sandbox;
pub mod resolve;
pub mod query;
pub mod extract;
pub mod lake;
pub mod kustomer;
pub mod keys;
pub mod policy;
pub mod schema;
pub mod model;
pub mod retry;
pub mod telemetry;
pub mod clock;
pub mod error;
pub mod secret;
