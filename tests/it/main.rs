//! The integration tests: one binary, a file per use case.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![recursion_limit = "256"]

mod accesses;
mod allocations;
mod attachment;
mod attacks;
mod budget;
mod cmd;
mod commands;
mod compact;
mod cookbook;
mod details;
mod drift;
mod examples;
mod feed;
mod fields;
mod formats;
mod fuzz;
mod guards;
mod guide;
mod holes;
mod image;
mod inspect;
mod interop;
mod jobs;
mod keys;
mod kills;
mod leaks;
mod library;
mod lists;
mod manual;
mod moto;
mod needles;
mod operations;
mod pipeline;
mod planted;
mod policy;
mod policy_change;
mod price;
mod pseudonyms;
mod recipes;
mod reconcile;
mod redact;
mod redaction;
mod restricted;
mod schedules;
mod simulation;
mod sql;
mod stores;
mod threads;
mod tidy;
mod traces;
mod vectors;
mod watching;
mod world;
