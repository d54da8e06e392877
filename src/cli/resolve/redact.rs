//! The redaction of details: `--redact`, or `redact = true` in the settings, which nothing on the command line undoes.

use std::sync::Arc;

use crate::cli::Context;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::policy::{Definitions, Policy, Redaction};
use crate::schema::Schemas;

/// Compiles what is done to details where they are redacted.
///
/// Custom attributes are those that the lake knows, with the source's marks, and pseudonyms are those that it holds.
///
/// # Errors
///
/// Those of the schema files, and of opening the lake, with the way out: without it nothing is delivered.
pub(super) async fn redaction(context: &Context, config: &Config, asked: bool) -> Result<Option<Arc<Redaction>>> {
    if !asked && !config.redact {
        return Ok(None);
    }
    let policy = Policy::compile(&Schemas::load(&config.schemas)?)?;
    let opened = async {
        let lake = context.lake(config).await?;
        let manifest = lake.latest().await?;
        let keys = lake.ring().pseudonym_keys(manifest.pseudonym_version())?;
        Ok::<_, Error>((manifest, keys))
    };
    let (manifest, keys) = opened.await.map_err(|source| {
        let hint = source.hint().unwrap_or("the lake has to be readable").to_owned();
        Error::new(source.kind(), "nothing was delivered, because details cannot be redacted without the lake")
            .with_hint(format!("{hint}; it knows the custom attributes and holds the keys of the pseudonyms"))
            .with_source(source)
    })?;
    let mut definitions = Definitions::default();
    for (stream, table) in &manifest.tables {
        definitions.hold(*stream, &table.schema);
    }
    for (stream, kept) in &manifest.quarantine {
        definitions.recall(*stream, &kept.attributes);
    }
    Ok(Some(Arc::new(Redaction::try_new(&policy, &definitions, &keys)?)))
}
