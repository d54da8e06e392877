//! The chapters `docs/sql.md` and `docs/threats.md`: filters that are no part of the library against golden rows, and the
//! tests that the threat model names against the tests that there are.
//!
//! `SQL_GOLDEN=overwrite cargo test --test it cookbook` writes the expected rows anew.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use counterfoil::query::{Library, QueryFile};

use crate::sql::{Cases, golden, rows, session};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The SQL files that the chapter tells its reader to write, by name, without those of the library.
fn filters() -> BTreeMap<String, String> {
    let text = fs::read_to_string(root().join("docs/sql.md")).unwrap();
    let mut found = BTreeMap::new();
    for part in text.split("<!-- file: tickets/queries/").skip(1) {
        let (place, rest) = part.split_once(" -->\n").unwrap();
        if place.contains(" = ") {
            continue;
        }
        let sql = rest.strip_prefix("```sql\n").unwrap().split_once("\n```\n").unwrap().0;
        found.insert(place.strip_suffix(".sql").unwrap().to_owned(), format!("{sql}\n"));
    }
    found
}

#[tokio::test]
async fn every_filter_of_the_cookbook_gives_its_golden_rows() {
    let filters = filters();
    let session = session();
    let cases: Cases = toml::from_str(&fs::read_to_string(root().join("tests/sql/cookbook.toml")).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for case in &cases.case {
        let file = QueryFile::parse(&format!("{}.sql", case.query), &filters[&case.query]).unwrap();
        let written = rows(&session, &file, case).await;
        wrong.extend(golden(&root().join("tests/sql/cookbook").join(format!("{}.csv", case.name)), &written));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let run: BTreeSet<&String> =
        cases.case.iter().filter(|case| case.parameters.is_empty()).map(|case| &case.query).collect();
    assert_eq!(run, filters.keys().collect(), "each filter has a case with its defaults");
    let named: BTreeSet<String> = cases.case.iter().map(|case| format!("{}.csv", case.name)).collect();
    let stored: BTreeSet<String> = fs::read_dir(root().join("tests/sql/cookbook"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(named, stored);
}

#[test]
fn filters_of_the_cookbook_take_no_name_of_the_library() {
    let library = Library::builtin().unwrap();
    let text = fs::read_to_string(root().join("docs/sql.md")).unwrap();
    for file in library.files() {
        assert!(!filters().contains_key(&file.name), "{}", file.name);
        assert!(text.contains(&file.name), "docs/sql.md does not show {}", file.name);
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let chapter = fs::read_to_string(root().join("docs/threats.md")).unwrap();
    // Code of one line whose words are many: names of columns and settings have fewer than three underscores.
    let is_test = |name: &&str| {
        name.matches('_').count() >= 3 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let named: BTreeSet<&str> =
        chapter.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).filter(is_test).collect();
    assert!(named.len() > 60, "the names are read: {}", named.len());

    let mut files = Vec::new();
    for folder in ["src", "tests"] {
        sources(&root().join(folder), &mut files);
    }
    let mut tests = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        for part in text.split("fn ").skip(1) {
            let name: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            tests.insert(name);
        }
    }
    let lost: Vec<&&str> = named.iter().filter(|name| !tests.contains(**name)).collect();
    assert!(lost.is_empty(), "docs/threats.md names tests that are not there: {lost:?}");
}
