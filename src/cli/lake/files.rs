//! `counterfoil lake files`: data files, also as SQL that DuckDB runs.
//!
//! DuckDB reads the flat columns of our files, one key per call of `read_parquet`. The SQL names each file with its own
//! data key, which is why it is printed only where someone asked for keys. It shows the version that was the newest when
//! it was printed: superseded rows and tombstones are left out by their positions.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use roaring::RoaringBitmap;
use zeroize::Zeroizing;

use super::time;
use crate::cli::{Context, grouped, print, say};
use crate::error::{Error, Result};
use crate::lake::Lake;
use crate::lake::manifest::{DataFile, Manifest, TableState};
use crate::model::Stream;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// One table only
    #[arg(long, value_parser = super::table)]
    table: Option<Stream>,
    /// Form of the list: text, json, or SQL that DuckDB 1.5 runs
    #[arg(long, value_enum, default_value_t = Form::Text)]
    format: Form,
    /// Print the keys of the files, which the form `duckdb` needs: whoever has them reads the files
    #[arg(long)]
    with_keys: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
    Duckdb,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let config = context.settings()?;
    match (arguments.format, arguments.with_keys) {
        (Form::Duckdb, false) => {
            return Err(Error::config("SQL for DuckDB holds the key of each file")
                .with_hint("add --with-keys if that is what you want, and send it where only you can read it"));
        }
        (Form::Text | Form::Json, true) => {
            return Err(Error::config("--with-keys goes with --format duckdb only"));
        }
        _ => {}
    }
    let lake = context.lake(&config).await?;
    let folder = (arguments.format == Form::Duckdb).then(|| folder(lake.url())).transpose()?;
    let manifest = lake.latest().await?;
    let tables: BTreeMap<Stream, &TableState> = manifest
        .tables
        .iter()
        .filter(|(stream, _)| arguments.table.is_none_or(|only| only == **stream))
        .map(|(stream, table)| (*stream, table))
        .collect();
    match folder {
        Some(folder) => {
            say("warning: the output holds the keys of the data files: whoever has it reads them");
            print(&duckdb(&lake, &manifest, &tables, &folder).await?)
        }
        None if arguments.format == Form::Json => print(&json(&tables)),
        None => print(&text(&tables)),
    }
}

fn text(tables: &BTreeMap<Stream, &TableState>) -> String {
    let line = |file: &Arc<DataFile>| {
        format!(
            "{}  {:>10} rows  {:>10} superseded  {:>8} deleted  {:>12} bytes\n",
            file.path,
            grouped(file.rows),
            grouped(file.superseded.len()),
            grouped((&file.tombstones - &file.superseded).len()),
            grouped(file.bytes)
        )
    };
    tables.values().flat_map(|table| &table.files).map(line).collect()
}

/// One JSON object a line and file.
fn json(tables: &BTreeMap<Stream, &TableState>) -> String {
    let mut text = String::new();
    for (stream, table) in tables {
        for file in &table.files {
            let entry = serde_json::json!({
                "table": stream.table(),
                "path": file.path,
                "bytes": file.bytes,
                "rows": file.rows,
                "live_rows": file.live_rows(),
                "superseded": file.superseded.len(),
                "deleted": (&file.tombstones - &file.superseded).len(),
                // First and last position of each run of rows that do not count.
                "hidden": ranges(&hidden(*stream, file)),
                "min_key": file.min_key,
                "max_key": file.max_key,
                "updated_from": file.updated_ms.map(|(from, _)| time(from)),
                "updated_until": file.updated_ms.map(|(_, until)| time(until)),
                "columns": file.schema.fields().len(),
                "policy": file.policy.as_ref(),
                "restricted_key": file.restricted_key.as_deref(),
            });
            let _ = writeln!(text, "{entry}");
        }
    }
    text
}

/// Returns the folder of a lake on a local disk, from the root of the file system.
fn folder(url: &str) -> Result<PathBuf> {
    let Some(folder) = url.strip_prefix("file:").map(Path::new) else {
        let scheme = url.split(':').next().unwrap_or_default();
        return Err(Error::config("SQL for DuckDB is printed for a lake in a local folder only")
            .with_context("scheme", scheme)
            .with_hint("copy the lake to a folder and open it there as file:PATH"));
    };
    folder.canonicalize().map_err(|error| {
        Error::config("failed to find the lake's folder").with_context("folder", folder.display()).with_source(error)
    })
}

/// Writes one view per table over its files.
async fn duckdb(
    lake: &Lake,
    manifest: &Manifest,
    tables: &BTreeMap<Stream, &TableState>,
    folder: &Path,
) -> Result<Zeroizing<String>> {
    let mut sql = Zeroizing::new(format!(
        "-- Version {} of the lake {}, for DuckDB 1.5.\n\
         -- THIS TEXT HOLDS THE KEYS of the data files: whoever has it reads them. Do not store or send it.\n\
         -- Flat columns only: DuckDB reads no nested column of an encrypted file.\n\
         -- DuckDB 1.5 fails on encrypted files of other writers where it filters while it reads them, so it filters after.\n\
         SET disabled_optimizers = 'filter_pushdown,join_filter_pushdown,top_n';\n",
        manifest.version,
        lake.id(),
    ));
    for (stream, table) in tables {
        let files: Vec<&Arc<DataFile>> = table.files.iter().filter(|file| shown(*stream, file) > 0).collect();
        let mut selects = Vec::with_capacity(files.len());
        for (number, file) in files.iter().enumerate() {
            if let Some(key) = &file.restricted_key {
                // Its columns have keys of their own, which DuckDB 1.5 cannot be given.
                let _ = writeln!(
                    sql,
                    "-- LEFT OUT: {} has restricted columns ({key}), DuckDB does not read it.",
                    file.path
                );
                say(&format!("left out: {} has restricted columns; PyArrow and Spark read it", file.path));
                continue;
            }
            let key = lake.export_file_key(file).await?;
            let text = Zeroizing::new(STANDARD.encode(key.expose()));
            let name = format!("{stream}_{number}");
            let _ = writeln!(sql, "PRAGMA add_parquet_key('{name}', '{}');", text.as_str());
            selects.push(select(*stream, file, &folder.join(&file.path), &name));
        }
        if selects.is_empty() {
            selects.push(format!("SELECT {} WHERE false", nulls(&table.schema)));
        }
        let _ = writeln!(sql, "CREATE OR REPLACE VIEW {stream} AS\n{};", selects.join("\nUNION ALL BY NAME\n"));
    }
    Ok(sql)
}

/// Tombstones of small tables are rows: old tickets name them.
fn hidden(stream: Stream, file: &DataFile) -> RoaringBitmap {
    if stream.is_incremental() { &file.superseded | &file.tombstones } else { file.superseded.clone() }
}

fn shown(stream: Stream, file: &DataFile) -> u64 {
    file.rows.saturating_sub(hidden(stream, file).len())
}

fn select(stream: Stream, file: &DataFile, path: &Path, key: &str) -> String {
    let flat: Vec<String> = flat(&file.schema).map(|(name, _)| quoted(name)).collect();
    let path = path.display().to_string().replace('\'', "''");
    let mut select = format!(
        "SELECT {} FROM read_parquet('{path}', encryption_config = {{footer_key: '{key}'}}, file_row_number = true)",
        flat.join(", ")
    );
    if let Some(condition) = without(&hidden(stream, file)) {
        let _ = write!(select, "\n  WHERE {condition}");
    }
    select
}

/// Joins positions that follow one another: first and last of each run.
fn ranges(positions: &RoaringBitmap) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for position in positions {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(position) => *last = position,
            _ => ranges.push((position, position)),
        }
    }
    ranges
}

/// Writes the condition that leaves positions out: runs of them as ranges, single ones as a list.
fn without(positions: &RoaringBitmap) -> Option<String> {
    let (mut conditions, mut singles) = (Vec::new(), Vec::new());
    for (first, last) in ranges(positions) {
        match last - first {
            0 => singles.push(first.to_string()),
            1 => singles.extend([first.to_string(), last.to_string()]),
            _ => conditions.push(format!("file_row_number NOT BETWEEN {first} AND {last}")),
        }
    }
    if !singles.is_empty() {
        conditions.push(format!("file_row_number NOT IN ({})", singles.join(", ")));
    }
    (!conditions.is_empty()).then(|| conditions.join(" AND "))
}

fn flat(schema: &Schema) -> impl Iterator<Item = (&str, &DataType)> {
    let fields = schema.fields().iter().filter(|field| !field.data_type().is_nested());
    fields.map(|field| (field.name().as_str(), field.data_type()))
}

/// Writes the flat columns of a table without rows.
fn nulls(schema: &Schema) -> String {
    let columns = flat(schema).map(|(name, data_type)| {
        let sql_type = match data_type {
            DataType::Boolean => "BOOLEAN",
            DataType::Int64 => "BIGINT",
            DataType::Float64 => "DOUBLE",
            DataType::Date32 => "DATE",
            DataType::Timestamp(..) => "TIMESTAMPTZ",
            _ => "VARCHAR",
        };
        format!("NULL::{sql_type} AS {}", quoted(name))
    });
    columns.collect::<Vec<_>>().join(", ")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn lake_elsewhere_than_in_a_folder_is_refused_by_its_scheme() {
        let error = folder("s3://bucket/lake").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("scheme: s3"), "{error}");
        assert!(folder("file:.").unwrap().is_absolute());
    }

    #[test]
    fn positions_left_out_are_written_as_ranges_and_lists() {
        let condition = |positions: &[u32]| without(&positions.iter().copied().collect());
        assert_eq!(condition(&[]), None);
        assert_eq!(condition(&[7]).unwrap(), "file_row_number NOT IN (7)");
        assert_eq!(
            condition(&[0, 1, 2, 5, 6, 9, u32::MAX]).unwrap(),
            format!("file_row_number NOT BETWEEN 0 AND 2 AND file_row_number NOT IN (5, 6, 9, {})", u32::MAX)
        );
    }
}
