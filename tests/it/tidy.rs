//! The source tree against the map of modules: who may import whom, headers, lengths.
//!
//! DESIGN.md section 2: a module imports only from lower layers, never sideways.

use std::fs;
use std::path::{Path, PathBuf};

/// Module and layer. A module may use modules of lower layers, and itself.
const LAYERS: [(&str, u8); 18] = [
    ("error", 0),
    ("secret", 0),
    ("clock", 0),
    ("model", 1),
    ("retry", 1),
    ("telemetry", 1),
    ("schema", 2),
    ("kustomer", 3),
    ("policy", 3),
    ("keys", 3),
    ("lake", 4),
    ("extract", 5),
    ("query", 5),
    ("resolve", 5),
    ("sandbox", 6),
    ("config", 7),
    ("cli", 8),
    ("project", 8),
];

/// L0 may use itself: an error names a secret's reference, a secret's reading ends in an error.
const LOWEST: u8 = 0;

const LONGEST: usize = 600;

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 20, "the tree is where this test looks");
    found
}

fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// The part of a file before its tests.
fn before_tests(text: &str) -> &str {
    let marks = text.match_indices("#[cfg(test)]\n").map(|(at, mark)| (at, &text[at + mark.len()..]));
    let mut tests =
        marks.filter(|(_, next)| next.lines().next().is_some_and(|line| line.contains("mod ") && line.ends_with('{')));
    tests.next().map_or(text, |(at, _)| &text[..at])
}

/// The modules of this crate that a text names after `crate::`, also inside `use crate::{a, b}`.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for (at, _) in line.match_indices("crate::") {
            if at > 0 && line.as_bytes()[at - 1].is_ascii_alphanumeric() {
                continue;
            }
            let rest = &line[at + "crate::".len()..];
            let name = |text: &str| -> String {
                text.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
            };
            match rest.strip_prefix('{') {
                Some(list) => found.extend(list.split(',').map(name)),
                None => found.push(name(rest)),
            }
        }
    }
    found
}

#[test]
fn modules_import_only_downwards() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let module = module_of(&path);
        if matches!(module.as_str(), "lib" | "main") {
            continue;
        }
        let own = layer(&module).unwrap_or_else(|| panic!("{module} has no place in the map of DESIGN.md section 2"));
        for import in imports(before_tests(&text)) {
            let Some(other) = layer(&import) else { continue };
            let sandbox_may = matches!(other, 0) || import == "model";
            let may = if module == "sandbox" { sandbox_may } else { other < own || (own == LOWEST && other == LOWEST) };
            if import != module && !may {
                wrong.push(format!("{}: {module} (L{own}) imports {import} (L{other})", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the map:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let mute: Vec<_> =
        sources().into_iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(path, _)| path).collect();
    assert!(mute.is_empty(), "files without a //! header: {mute:?}");
}

#[test]
fn no_file_is_long_before_its_tests() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|(path, text)| (path, before_tests(&text).lines().count()))
        .filter(|(_, lines)| *lines > LONGEST)
        .collect();
    assert!(long.is_empty(), "files over {LONGEST} lines before their tests: {long:?}");
}

/// `keys` asks the services that keep root keys: over HTTP, and AWS KMS with object_store's credentials and signatures, which
/// are better written once than twice. It reaches neither the lake's store nor the source, and only its root keys may.
#[test]
fn only_their_owners_use_the_store_and_the_http_client() {
    for (path, text) in sources() {
        let module = module_of(&path);
        let text = before_tests(&text);
        let is_kms = path.ends_with("keys/root/kms.rs");
        assert!(
            module == "lake" || is_kms || !text.contains("object_store::"),
            "{}: only `lake` uses object_store, and `keys` to sign requests to KMS",
            path.display()
        );
        let asks_for_root_keys = path.parent().is_some_and(|folder| folder.ends_with("keys/root"));
        assert!(
            module == "kustomer" || asks_for_root_keys || !text.contains("reqwest::"),
            "{}: only `kustomer` uses reqwest, and `keys` to ask for root keys",
            path.display()
        );
        assert!(
            !is_kms || !["ObjectStore", "put(", "get("].iter().any(|use_| text.contains(use_)),
            "{}: signs requests and uses no store",
            path.display()
        );
    }
}

#[test]
fn the_resolver_cannot_reach_the_lake() {
    for (path, text) in sources() {
        if module_of(&path) == "resolve" {
            let text = before_tests(&text);
            for word in ["crate::lake", "fs::write", "File::create", "OpenOptions", "tempfile", "tracing::trace"] {
                assert!(!text.contains(word), "{}: uses {word}; live details are written nowhere", path.display());
            }
        }
    }
}

/// The names of a table of `Cargo.toml`, for every target.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_table = false;
    for line in manifest.lines() {
        if let Some(table) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            is_table = table.ends_with("dependencies");
        } else if is_table
            && line.starts_with(|c: char| c.is_ascii_lowercase())
            && let Some((name, _)) = line.split_once(" = ")
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    names
}

#[test]
fn each_direct_dependency_has_its_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let declared = dependencies(&fs::read_to_string(root.join("Cargo.toml")).unwrap());
    let chapter = fs::read_to_string(root.join("docs/dependencies.md")).unwrap();
    let rows = chapter.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let mut explained: Vec<String> = rows.map(|(name, _)| name.to_owned()).collect();
    explained.sort();
    assert!(declared.len() > 20, "the tables are where this test looks: {declared:?}");
    assert_eq!(explained, declared, "docs/dependencies.md against Cargo.toml");
}
