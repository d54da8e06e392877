//! The needle test: no planted value, id or column name stands in any byte under the lake's root.

use std::fs;
use std::path::{Path, PathBuf};

use counterfoil::query::{Arguments, QueryFile, QuerySettings, Session};
use counterfoil::schema::Schemas;
use serde_json::Value;

use crate::world::World;

/// Shorter needles would be found by chance in random bytes.
const SHORTEST: usize = 6;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Every text of a record that is long enough to be looked for.
fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) if text.len() >= SHORTEST => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| texts(field, found)),
        _ => {}
    }
}

fn needles(world: &World) -> Vec<String> {
    let organisation = world.sandbox.organisation();
    let mut needles = Vec::new();
    for number in 0..organisation.tickets() {
        needles.extend(organisation.needles(number));
        let record = organisation.conversation(number);
        needles.push(record["id"].as_str().unwrap().to_owned());
        for field in ["name", "preview"] {
            texts(&record["attributes"][field], &mut needles);
        }
    }
    for number in 0..organisation.customers() {
        let record = organisation.customer(number);
        needles.push(record["id"].as_str().unwrap().to_owned());
        for field in ["name", "emails", "phones", "externalId"] {
            texts(&record["attributes"][field], &mut needles);
        }
    }
    for user in organisation.users() {
        texts(&user["attributes"]["name"], &mut needles);
        texts(&user["attributes"]["email"], &mut needles);
    }
    let schemas = Schemas::builtin().unwrap();
    for stream in schemas.streams() {
        needles.extend(schemas.table(stream).unwrap().columns.iter().map(|column| column.name.clone()));
    }
    needles.retain(|needle| needle.len() >= SHORTEST);
    needles.sort();
    needles.dedup();
    needles
}

fn contains(haystack: &[u8], starts: &[Vec<&[u8]>], found: &mut Vec<String>) {
    for at in 0..haystack.len() {
        for needle in &starts[usize::from(haystack[at])] {
            if haystack[at..].starts_with(needle) {
                found.push(String::from_utf8_lossy(needle).into_owned());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_of_the_lake_tells_a_planted_value() {
    let world = World::with_tickets(600).await;
    world.extract().await.unwrap();
    world.sandbox.organisation().touch(&[1, 2, 3]);
    world.sandbox.organisation().delete(&[4]);
    world.extract().await.unwrap();

    let needles = needles(&world);
    assert!(needles.len() > 1_000, "the organisation plants values: {}", needles.len());
    // Bucketed by first byte, so that the search stays linear in practice.
    let mut starts: Vec<Vec<&[u8]>> = vec![Vec::new(); 256];
    for needle in &needles {
        starts[usize::from(needle.as_bytes()[0])].push(needle.as_bytes());
    }

    let files = files(&world.lake_folder());
    assert!(files.iter().any(|file| file.extension().is_some_and(|extension| extension == "parquet")));
    assert!(files.iter().any(|file| file.extension().is_some_and(|extension| extension == "commit")));
    for file in &files {
        let bytes = fs::read(file).unwrap();
        let mut found = Vec::new();
        contains(&bytes, &starts, &mut found);
        let name = file.strip_prefix(world.lake_folder()).unwrap().display().to_string();
        contains(name.as_bytes(), &starts, &mut found);
        assert!(found.is_empty(), "{name} holds {found:?}");
    }

    // The test can fail: the same search finds a value that is there.
    let mut found = Vec::new();
    contains(format!("..{}..", needles[0]).as_bytes(), &starts, &mut found);
    assert!(!found.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_data_file_ends_in_pare_and_every_index_is_sealed() {
    let world = World::with_tickets(300).await;
    world.extract().await.unwrap();
    let (data, indexes): (Vec<_>, Vec<_>) = files(&world.lake_folder().join("data"))
        .into_iter()
        .partition(|file| file.extension().is_some_and(|extension| extension == "parquet"));
    assert!(data.len() >= 8, "a file per table");
    for file in &data {
        let bytes = fs::read(file).unwrap();
        assert_eq!(&bytes[bytes.len() - 4..], b"PARE", "{}", file.display());
    }
    assert!(!indexes.is_empty(), "tickets and customers have indexes");
    for file in &indexes {
        assert!(data.contains(&file.with_extension("parquet")), "{} belongs to a data file", file.display());
        assert_eq!(&fs::read(file).unwrap()[..5], b"CFOBJ", "{}", file.display());
    }
}

/// What the process's open files of a folder hold, those without a name too.
#[cfg(target_os = "linux")]
fn open_files(folder: &Path) -> Vec<Vec<u8>> {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    let open = descriptors.filter_map(|entry| {
        let path = entry.ok()?.path();
        fs::read_link(&path).ok()?.starts_with(folder).then(|| fs::read(&path).ok())?
    });
    open.collect()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_that_a_query_spills_tells_a_planted_value() {
    let world = World::with_tickets(600).await;
    world.extract().await.unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let settings = QuerySettings {
        memory_bytes: 48 << 20,
        batch_rows: 1_024,
        temp: Some(temporary.path().canonicalize().unwrap()),
        partitions: 2,
        ..QuerySettings::default()
    };
    let manifest = world.lake.latest().await.unwrap();
    let session = Session::open(&world.lake, &manifest, &settings, &world.shared_clock()).unwrap();
    let sql = "SELECT t.*, g.value FROM tickets t CROSS JOIN generate_series(1, 100) g \
               ORDER BY sample_key('s', ticket_id), value";
    let file = QueryFile::inline(sql).unwrap();
    let plan = session.plan(&file, &Arguments::parse(&file, &[]).unwrap()).await.unwrap();
    let mut rows = session.stream(&plan).await.unwrap();
    // When the first row of a sort is there, all that did not fit is on disk.
    let mut count = rows.next().await.unwrap().unwrap().num_rows();

    let needles = needles(&world);
    let mut starts: Vec<Vec<&[u8]>> = vec![Vec::new(); 256];
    for needle in &needles {
        starts[usize::from(needle.as_bytes()[0])].push(needle.as_bytes());
    }
    let spilled = open_files(settings.temp.as_ref().unwrap());
    assert!(spilled.iter().map(Vec::len).sum::<usize>() > 1 << 20, "the query spills");
    assert_eq!(files(temporary.path()), Vec::<PathBuf>::new(), "without a name");
    for bytes in spilled {
        let mut found = Vec::new();
        contains(&bytes, &starts, &mut found);
        assert!(found.is_empty(), "a spill file holds {found:?}");
    }
    while let Some(batch) = rows.next().await.unwrap() {
        count += batch.num_rows();
    }
    assert_eq!(count, 600 * 100);
}
