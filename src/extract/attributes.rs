//! Custom attributes: their definitions, read anew for each stream, and what a run says of those that changed.
//!
//! The definitions of a stream are read when the end of its range is set, and not before: records of the range were last
//! changed before that end, so whatever they hold was defined when the definitions were read.

use crate::error::{Error, ErrorKind, Result};
use crate::kustomer::{Client, Endpoint};
use crate::lake::run::AttributeRun;
use crate::model::Stream;
use crate::policy::{AttributeChange, Change, Definitions, Policy};

/// Reads what custom attributes a stream has; without the right to read it, rules by pattern match what the lake has.
pub(super) async fn read(client: &Client, stream: Stream, definitions: &mut Definitions) -> Result<()> {
    let path = match stream {
        Stream::Tickets => "/v1/metadata/conversation",
        Stream::Customers => "/v1/metadata/customer",
        _ => return Ok(()),
    };
    let mut failed = 0;
    loop {
        let page = match client.get_optional(Endpoint::Metadata, path).await {
            Ok(Some(page)) => page,
            Ok(None) => {
                tracing::warn!(%stream, "source has no definitions of custom attributes");
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::Denied => {
                tracing::warn!(%stream, %error, "definitions of custom attributes may not be read");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let error = match definitions.add(stream, &page) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Data => error,
            Err(error) => return Err(error),
        };
        failed += 1;
        if !client.back_off(Endpoint::Metadata, failed, error.message()).await {
            return Err(Error::unavailable("source keeps sending definitions that cannot be used")
                .with_context("stream", stream)
                .with_context("attempts", failed)
                .with_source(error));
        }
    }
}

/// Compares a stream's attributes with the columns that the lake has, and warns of what nobody may have meant.
pub(super) fn changes(policy: &Policy, stream: Stream, definitions: &Definitions) -> Result<Vec<AttributeRun>> {
    let changes = policy.attribute_changes(stream, definitions)?;
    for AttributeChange { attribute, now, change } in &changes {
        match change {
            Change::Added { column } => tracing::info!(%stream, attribute, column, "custom attribute is new"),
            Change::Retyped { column, before, was } => tracing::warn!(
                %stream, attribute, was, now, column, before,
                "custom attribute has another type: later values go to a new column, the old one keeps what it has"
            ),
            Change::LeftOut { pattern } => tracing::warn!(
                %stream, attribute, now, pattern,
                "custom attribute is left out: the method of its rule does not fit its type"
            ),
        }
    }
    Ok(changes.into_iter().map(record).collect())
}

fn record(changed: AttributeChange) -> AttributeRun {
    let AttributeChange { attribute, now, change } = changed;
    let run = AttributeRun { attribute, now: now.to_owned(), ..AttributeRun::default() };
    match change {
        Change::Added { column } => AttributeRun { change: "added".to_owned(), column: Some(column), ..run },
        Change::Retyped { column, before, was } => AttributeRun {
            change: "retyped".to_owned(),
            was: Some(was.to_owned()),
            column: Some(column),
            before: Some(before),
            ..run
        },
        Change::LeftOut { .. } => AttributeRun { change: "left_out".to_owned(), ..run },
    }
}
