//! `counterfoil policy`: what is stored of each field and why, what is wrong with the rules, what nobody declared yet.
//!
//! ```text
//! schemas/*.toml ─┬─▶ Ground ─┬─▶ explain   what happens to a field, by which rule
//! lake, if any ───┘           ├─▶ lint      what is wrong with the rules, or would be surprising
//!                             ├─▶ suggest   declarations for what is in quarantine
//!                             └─▶ pseudonym what the lake holds in place of a value
//! ```
//!
//! Nothing here asks the source, and nothing is written. What the lake adds are names: columns that it has, attributes that
//! the source defined at the last run, fields in quarantine. No value of a record is read, but for `lint`, which asks whether
//! a column holds any.

mod explain;
mod find;
mod lint;
mod pseudonym;
mod suggest;
mod words;

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::array_value_to_string;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{Context, say};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::lake::Lake;
use crate::lake::manifest::Manifest;
use crate::lake::quarantine::Quarantine;
use crate::model::Stream;
use crate::policy::{Definitions, Policy};
use crate::schema::Schemas;
use crate::secret::{PseudonymKey, PseudonymKeys, SecretKey};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the rules: errors, and what may not be meant as it is written
    ///
    /// Exit code 2 where there is an error or a warning, 0 where there are only notes.
    Lint(lint::Arguments),
    /// Say what happens to a field, and why: the rule with its file and line
    Explain(explain::Arguments),
    /// Print declarations for what is in quarantine, commented out
    Suggest(suggest::Arguments),
    /// Print the pseudonym that the lake holds in place of a value
    Pseudonym(pseudonym::Arguments),
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Command::Lint(arguments) => lint::run(context, arguments).await,
        Command::Explain(arguments) => explain::run(context, arguments).await,
        Command::Suggest(arguments) => suggest::run(context, arguments).await,
        Command::Pseudonym(arguments) => pseudonym::run(context, arguments).await,
    }
}

/// The declarations, compiled, and what the lake knows of the fields that they are about.
struct Ground {
    schemas: Schemas,
    policy: Policy,
    lake: Option<(Lake, Arc<Manifest>)>,
    definitions: Definitions,
}

impl Ground {
    async fn read(context: &Context, config: &Config, is_offline: bool) -> Result<Self> {
        let schemas = Schemas::load(&config.schemas)?;
        let lake = if is_offline { None } else { lake_if_any(context, config).await };
        Self::new(schemas, lake)
    }

    /// Reads the declarations beside a lake that must be there.
    async fn with_lake(context: &Context, config: &Config) -> Result<(Self, Lake, Arc<Manifest>)> {
        let schemas = Schemas::load(&config.schemas)?;
        let lake = context.lake(config).await?;
        let manifest = lake.latest().await?;
        let ground = Self::new(schemas, Some((lake.clone(), Arc::clone(&manifest))))?;
        Ok((ground, lake, manifest))
    }

    fn new(schemas: Schemas, lake: Option<(Lake, Arc<Manifest>)>) -> Result<Self> {
        let policy = Policy::compile(&schemas)?;
        let mut definitions = Definitions::default();
        if let Some((_, manifest)) = &lake {
            for (stream, table) in &manifest.tables {
                definitions.hold(*stream, &table.schema);
            }
            for (stream, kept) in &manifest.quarantine {
                definitions.recall(*stream, &kept.attributes);
            }
        }
        Ok(Self { schemas, policy, lake, definitions })
    }

    fn manifest(&self) -> Option<&Manifest> {
        self.lake.as_ref().map(|(_, manifest)| manifest.as_ref())
    }

    fn quarantine(&self, stream: Stream) -> Option<&Quarantine> {
        self.manifest()?.quarantine.get(&stream).map(AsRef::as_ref)
    }

    /// Returns the columns that the policy stores of a stream, those of custom attributes that the lake knows included.
    fn stored(&self, stream: Stream) -> Result<SchemaRef> {
        Ok(self.policy.decoder(stream, &self.definitions, &invented_keys()?)?.schema())
    }

    /// Returns what the policy makes of a value at a column's path; `None` where nothing is stored.
    ///
    /// The value goes through the decoder that pages go through, so that what is told is what happens.
    fn redact(
        &self,
        stream: Stream,
        column: &str,
        path: &str,
        value: &Value,
        keys: &PseudonymKeys,
    ) -> Result<Option<String>> {
        let mut decoder = self.policy.decoder(stream, &self.definitions, keys)?;
        let mut record = json!({ "id": INVENTED_ID });
        put(&mut record, &path.split('.').collect::<Vec<_>>(), value.clone());
        let page = json!({ "data": [record] });
        decoder.push_page(page.to_string().as_bytes())?;
        let rows = decoder.finish()?;
        let Some(values) = rows.batch().column_by_name(column) else { return Ok(None) };
        if values.is_empty() || values.is_null(0) {
            return Ok(None);
        }
        let items = match values.data_type() {
            DataType::List(_) => values.as_list::<i32>().value(0),
            _ => Arc::clone(values),
        };
        let shown = (0..items.len()).map(|row| array_value_to_string(&items, row)).collect::<Result<Vec<_>, _>>();
        let shown = shown.map_err(|error| Error::internal("failed to write a value").with_source(error))?;
        Ok(Some(shown.join(", ")))
    }
}

/// Opens the lake, or says why what follows is told without it.
async fn lake_if_any(context: &Context, config: &Config) -> Option<(Lake, Arc<Manifest>)> {
    let opened = async {
        let lake = context.lake(config).await?;
        let manifest = lake.latest().await?;
        Ok::<_, Error>((lake, manifest))
    };
    match opened.await {
        Ok(opened) => Some(opened),
        Err(error) => {
            if !context.quiet {
                say(&format!("without the lake, from the schema files alone: {error}"));
            }
            None
        }
    }
}

/// The id of records that are made up here.
const INVENTED_ID: &str = "58228e05d4e96711004eccb7";

/// The key of pseudonyms that are shown as an example: it is nobody's.
fn invented_keys() -> Result<PseudonymKeys> {
    PseudonymKeys::try_new([Arc::new(PseudonymKey { version: 1, key: SecretKey::new([1; 32]) })])
}

/// Puts a value at a path, through objects and arrays that it makes on the way.
fn put(place: &mut Value, path: &[&str], value: Value) {
    let Some((key, rest)) = path.split_first() else {
        *place = value;
        return;
    };
    if let Ok(index) = key.parse::<u8>() {
        let index = usize::from(index);
        let mut items = match place.take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        items.resize(items.len().max(index + 1), Value::Null);
        put(&mut items[index], rest, value);
        *place = Value::Array(items);
    } else {
        let mut members = match place.take() {
            Value::Object(members) => members,
            _ => Map::new(),
        };
        put(members.entry(*key).or_insert(Value::Null), rest, value);
        *place = Value::Object(members);
    }
}

/// Writes rows under their heads, cells to the left; the last column is as long as it is.
fn aligned(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(heads.get(column).map(|head| head.len())).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            // Writing to a string does not fail.
            let _ = write!(line, "{cell:<width$}  ");
        }
        line.trim_end().to_owned() + "\n"
    };
    let body = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    [line(heads.to_vec())].into_iter().chain(body).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_put_through_objects_and_arrays() {
        let mut record = json!({ "id": 1 });
        put(&mut record, &["attributes", "emails", "1", "email"], json!("x"));
        assert_eq!(record, json!({ "id": 1, "attributes": { "emails": [null, { "email": "x" }] } }));
    }

    #[test]
    fn value_goes_through_the_method_of_its_column() {
        let ground = Ground::new(Schemas::builtin().unwrap(), None).unwrap();
        let redact = |column: &str, path: &str, value: Value| {
            ground.redact(Stream::Users, column, path, &value, &invented_keys().unwrap()).unwrap()
        };
        assert_eq!(redact("email", "attributes.email", json!("zoe@example.com")).unwrap(), "z***@example.com");
        assert_eq!(redact("user_id", "id", json!(INVENTED_ID)).unwrap(), INVENTED_ID);
        assert_eq!(redact("nothing", "attributes.nothing", json!("x")), None);
    }
}
