//! The SQL functions that the field needs beyond the engine's own.
//!
//! | function | gives |
//! |---|---|
//! | `sample_key(seed, ticket_id)` | a number in [0, 1), the same for ever |
//! | `user_name(id)`, `team_name(id)`, `queue_name(id)`, `brand_name(id)` | the name, NULL for an unknown id |
//! | `tag_names(tag_ids)` | the list of names, NULL inside it for an unknown id |
//! | `business_seconds(from, to, schedule)` | seconds of business time between two instants, by a schedule's id or name |

pub mod business;
pub mod sample;

mod names;

use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::ScalarUDF;

use crate::error::{Error, Result};

pub(super) use names::Dictionaries;

/// Registers the functions and returns the dictionaries that the naming ones read from.
pub(super) fn register(state: &mut SessionState) -> Result<Dictionaries> {
    let dictionaries = Dictionaries::default();
    let mut functions = dictionaries.functions();
    functions.push(ScalarUDF::new_from_impl(sample::SampleKey::default()));
    for function in functions {
        state
            .register_udf(function.into())
            .map_err(|cause| Error::internal("failed to register an SQL function").with_source(cause))?;
    }
    Ok(dictionaries)
}

#[cfg(test)]
mod tests;
