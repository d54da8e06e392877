//! `counterfoil query --record`: the tickets of a run become a list in the lake.

use std::sync::Arc;

use clap::Args;

use crate::cli::{Context, grouped, say};
use crate::error::{Error, Result};
use crate::lake::Lake;
use crate::lake::lists::{Recording, is_list_name, wrong_name};
use crate::lake::manifest::Manifest;
use crate::query::record::{Recorder, recorded};
use crate::query::sink::{Outcome, Written};
use crate::query::{Arguments as Bound, Plan, QueryFile, Rows, Session};

/// Stands for the name of the query; no list has this name.
const OWN_NAME: &str = "@";

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Flag {
    /// Record the tickets of the result as a list of this name, by default the query's
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = OWN_NAME)]
    record: Option<String>,
}

/// What a run is recorded as, once its result is written.
pub(in crate::cli) struct Pending {
    recorder: Recorder,
    recording: Recording,
}

impl Flag {
    /// Returns the name of the list, if the run is to be recorded.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) when there is no name, or none that a list can have.
    pub(in crate::cli) fn name(&self, file: &QueryFile) -> Result<Option<String>> {
        let name = match self.record.as_deref() {
            None => return Ok(None),
            Some(OWN_NAME) if file.path == "-e" => {
                return Err(
                    Error::config("SQL of the command line is recorded under a name").with_hint("write --record=NAME")
                );
            }
            Some(OWN_NAME) => file.name.clone(),
            Some(name) => name.to_owned(),
        };
        if is_list_name(&name) { Ok(Some(name)) } else { Err(wrong_name(&name)) }
    }

    /// Begins to record, if that is wanted: the rows that are returned are to be written instead.
    ///
    /// # Errors
    ///
    /// Those of [`name`](Self::name); [`ErrorKind::Query`](crate::error::ErrorKind::Query) when the result is no ticket list.
    pub(in crate::cli) async fn start(
        &self,
        (lake, manifest): (&Lake, &Arc<Manifest>),
        session: &Session,
        (file, bound): (&QueryFile, &Bound),
        plan: &Plan,
    ) -> Result<(Rows, Option<Pending>)> {
        let Some(list) = self.name(file)? else { return Ok((session.stream(plan).await?, None)) };
        Recorder::check(plan, &file.path)?;
        let recording = Recording {
            id: lake.new_recording_id(),
            list,
            sql: file.sql.clone(),
            sql_digest: file.digest.clone(),
            parameters: recorded(&session.bound(file, bound)?)?,
            now: session.now().to_string(),
            lake_version: manifest.version,
            policy: manifest.policy.as_deref().map(str::to_owned),
            ..Recording::default()
        };
        let (recorder, rows) = Recorder::new(session.stream(plan).await?);
        Ok((rows, Some(Pending { recorder, recording })))
    }
}

impl Pending {
    /// Records what was written, and says so.
    ///
    /// # Errors
    ///
    /// Those of the query and of [`Lake::record`].
    pub(in crate::cli) async fn finish(self, context: &Context, lake: &Lake, written: &Written) -> Result<()> {
        let Self { recorder, recording } = self;
        if written.outcome == Outcome::ReaderGone {
            say("nothing was recorded: the reader went away before the end of the result");
            return Ok(());
        }
        let taken = recorder.finish().await?;
        let recording = Recording { recorded_ms: context.clock.now().as_millisecond(), ..recording };
        let version = recording.lake_version;
        let holder = format!("query --record, process {}", std::process::id());
        let recorded = lake.record(recording, &taken.ids, &holder).await?;
        if taken.repeated > 0 {
            say(&format!("{} rows repeat a ticket; each is recorded once", grouped(taken.repeated)));
        }
        if !context.quiet {
            say(&format!("recorded {}: {} tickets of version {version}", recorded.address, grouped(recorded.count)));
        }
        Ok(())
    }
}
