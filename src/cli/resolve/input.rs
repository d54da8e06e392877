//! The ids of a call: arguments first, then `--from`, then `--list`.

use std::io::IsTerminal as _;
use std::path::Path;

use super::Arguments;
use crate::cli::{Context, grouped, say};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::ObjectId;
use crate::query::record::Recorder;
use crate::query::{Session, lists};
use crate::resolve::Ids;

/// The ids, and what is worth to be said about them.
pub(super) struct Input {
    /// Each id once, in the order of the naming.
    pub(super) ids: Vec<ObjectId>,
    /// How often an id was named again.
    pub(super) repeated: u64,
    /// Where they come from, when they are not arguments.
    from: Vec<String>,
}

impl Input {
    /// Says what people might not expect: ids that were named again, and that there are none.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.repeated > 0 {
            let times = if self.repeated == 1 { "once" } else { "times" };
            let count = if self.repeated == 1 { String::new() } else { grouped(self.repeated) + " " };
            notes.push(format!("ids were named again {count}{times}; each ticket is resolved once"));
        }
        if self.ids.is_empty() {
            notes.push(format!("no ticket ids in {}: nothing to resolve", self.from.join(" and ")));
        }
        notes
    }
}

pub(super) async fn read(context: &Context, arguments: &Arguments, config: &Config) -> Result<Input> {
    let Arguments { ids: given, from, list, .. } = arguments;
    if given.is_empty() && from.is_none() && list.is_none() {
        return Err(Error::config("no ticket ID was given").with_hint(
            "`counterfoil resolve ID…`, `--from FILE`, `--from -` for standard input, or `--list NAME` for a recorded list",
        ));
    }
    let mut named = Vec::new();
    if let Some(from) = from {
        let is_input = from == Path::new("-");
        named.push(if is_input { "standard input".to_owned() } else { from.display().to_string() });
        if is_input && !context.quiet && std::io::stdin().is_terminal() {
            say("reading ids from the terminal, one a line; Ctrl-D ends them");
        }
    }
    let (given, from) = (given.clone(), from.clone());
    // Standard input may never come: reading it must not keep Ctrl-C from being heard.
    let reading = tokio::task::spawn_blocking(move || {
        let mut ids = Ids::default();
        ids.add_arguments(&given)?;
        if let Some(from) = from {
            ids.add_file(&from)?;
        }
        Ok::<_, Error>(ids)
    });
    let mut ids = reading.await.map_err(|source| Error::internal("failed to read the ids").with_source(source))??;
    if let Some(address) = list {
        let address = add_list(context, config, address, &mut ids).await?;
        named.push(format!("the list {address}"));
    }
    Ok(Input { repeated: ids.repeated(), ids: ids.into_vec(), from: named })
}

/// Adds the tickets of a recording in their order, and returns its full address.
async fn add_list(context: &Context, config: &Config, address: &str, ids: &mut Ids) -> Result<String> {
    let lake = context.lake(config).await?;
    let manifest = lake.latest().await?;
    let recording = lists::find(&manifest, address)?;
    let (file, bound) = lists::tickets(recording)?;
    let session = Session::open(&lake, &manifest, &config.query, &context.clock)?;
    let rows = session.stream(&session.plan(&file, &bound).await?).await?;
    let (recorder, _rows) = Recorder::new(rows);
    for id in recorder.finish().await?.ids {
        ids.add(id);
    }
    Ok(recording.address())
}
