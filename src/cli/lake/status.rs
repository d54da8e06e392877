//! `counterfoil lake status`: tables, rows, files, sizes, watermarks, versions, keys.

use super::{apply, time};
use crate::cli::{Context, extract, grouped, print, say};
use crate::error::Result;
use crate::keys::{KeyRing, KeyState};
use crate::lake::CompactSettings;
use crate::lake::manifest::{DataFile, Manifest, TableState};
use crate::model::Stream;

/// Columns of the table and their heads; the last is as long as it is.
const HEADS: [&str; 9] =
    ["table", "live rows", "superseded", "history", "deleted", "files", "small", "bytes", "complete through"];

pub(super) async fn run(context: &Context) -> Result<()> {
    let config = context.settings()?;
    let lake = context.lake(&config).await?;
    let manifest = lake.latest().await?;
    if manifest.version == 0 {
        return print("empty: `counterfoil extract` fills it\n");
    }
    let oldest = lake.oldest_version().await?;
    print(&status(&manifest, oldest, lake.ring()))?;
    if context.quiet {
        return Ok(());
    }
    // What the lake holds can be told without the schemas.
    match extract::policy(&config).and_then(|policy| lake.survey(&manifest, &policy)) {
        Ok(survey) => apply::forbidden(&survey).into_iter().chain(apply::lacking(&survey)).for_each(|line| say(&line)),
        Err(error) => say(&format!("what is stored is not compared with the schemas: {error}")),
    }
    Ok(())
}

fn status(manifest: &Manifest, oldest: u64, ring: &KeyRing) -> String {
    let primary = ring.keys().into_iter().find(|key| key.state == KeyState::Primary);
    let primary = primary.map_or_else(|| "none".to_owned(), |key| key.id);
    let kept = if oldest < manifest.version {
        format!("{oldest} to {}", manifest.version)
    } else {
        manifest.version.to_string()
    };
    let rows: Vec<[String; 9]> = manifest.tables.iter().map(|(stream, table)| row(manifest, *stream, table)).collect();
    let mut lines = vec![
        format!("version    {} of {}", manifest.version, time(manifest.committed_ms)),
        format!("kept       versions {kept}"),
        format!("key ring   version {}, primary key {primary}", ring.version()),
        String::new(),
    ];
    lines.extend(aligned(&HEADS.map(str::to_owned), &rows));
    lines.join("\n") + "\n"
}

fn row(manifest: &Manifest, stream: Stream, table: &TableState) -> [String; 9] {
    let sum = |of: fn(&DataFile) -> u64| table.files.iter().map(|file| of(file)).sum::<u64>();
    let superseded = sum(|file| file.superseded.len());
    let live = sum(DataFile::live_rows);
    let tombstones = sum(|file| file.rows) - superseded - live;
    // A file of superseded rows only is history: reads of live rows do not open it.
    let history = sum(|file| if file.superseded.len() == file.rows { file.rows } else { 0 });
    let watermark = manifest.watermarks.get(&stream).cloned().unwrap_or_default();
    let through = watermark.complete_through_ms.map_or_else(|| "-".to_owned(), time);
    let from = watermark.complete_from_ms.map_or_else(String::new, |from| format!(" (from {})", time(from)));
    // Small tables show what the source marks as deleted too.
    let shown = if stream.is_incremental() { live } else { live + tombstones };
    // What compaction would join.
    let full = CompactSettings::default();
    let is_small = |file: &DataFile| file.rows * 2 < full.target_rows && file.bytes * 2 < full.target_bytes;
    let small = table.files.iter().filter(|file| is_small(file)).count();
    [
        stream.table().to_owned(),
        grouped(shown),
        grouped(superseded),
        grouped(history),
        grouped(tombstones),
        grouped(table.files.len() as u64),
        grouped(small as u64),
        grouped(sum(|file| file.bytes)),
        through + &from,
    ]
}

/// Writes rows under their heads: the first column to the left, numbers to the right, the last as it is.
fn aligned(heads: &[String; 9], rows: &[[String; 9]]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].len());
        cells.chain([heads[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |row: &[String; 9]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            8 => cell.clone(),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    [heads].into_iter().chain(rows).map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;

    use super::*;

    #[test]
    fn columns_stand_under_their_heads_whatever_the_names_and_numbers() {
        let file = DataFile { rows: 12_345_678, bytes: 9_999_999_999, ..DataFile::default() };
        let table = TableState { schema: Arc::new(Schema::empty()), files: vec![Arc::new(file)] };
        let tables = [(Stream::TicketTimes, table.clone()), (Stream::Tags, table)].into();
        let manifest = Manifest { version: 7, tables, ..Manifest::default() };
        let text = status(&manifest, 3, &KeyRing::generate("lake", 0).unwrap());
        assert!(
            text.contains("versions 3 to 7\n") && text.contains("key ring   version 1, primary key ring-1\n"),
            "{text}"
        );
        let lines: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("table")).collect();
        let end = |line: &str, cell: &str| line.find(cell).map(|at| at + cell.len()).unwrap();
        for line in &lines[1..] {
            assert_eq!(end(line, "12,345,678"), end(lines[0], "live rows"), "{text}");
            assert_eq!(end(line, "9,999,999,999"), end(lines[0], "bytes"), "{text}");
        }
        assert_eq!(lines.len(), 3);
    }
}
