//! The container image's recipe, as far as it can be looked at without building it.

#![cfg(test)]

use std::fs;
use std::path::Path;
use std::process::Command;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(repository().join(name)).unwrap()
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).unwrap();
    }
}

#[test]
fn what_the_builder_is_given_is_the_whole_package() {
    let ignored = read(".dockerignore");
    assert!(ignored.lines().any(|line| line == "*"), "what is not named stays outside");
    let folder = tempfile::tempdir().unwrap();
    for name in ignored.lines().filter_map(|line| line.strip_prefix('!')) {
        let from = repository().join(name);
        assert!(from.exists(), ".dockerignore lets {name} in, which is not there");
        copy(&from, &folder.path().join(name));
    }
    // Cargo looks for the file of every target.
    let cargo = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--locked", "--format-version", "1"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    for needed in sources(&folder.path().join("src")) {
        assert!(needed.exists(), "the sources include {}, which the builder is not given", needed.display());
    }
}

/// Files outside the sources that they take in when they are compiled.
fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        for call in ["include_str!(\"", "include_bytes!(\""] {
            let named = text.split(call).skip(1).filter_map(|rest| rest.split('"').next());
            found.extend(named.map(|name| folder.join(name)));
        }
    }
    found
}

#[test]
fn the_image_runs_without_rights_and_from_named_versions() {
    let recipe = read("Dockerfile");
    let mut bases = recipe.lines().filter_map(|line| line.strip_prefix("FROM "));
    let (build, run) = (bases.next().unwrap(), bases.next().unwrap());
    assert_eq!(bases.next(), None);
    for base in [build, run] {
        let tag = base.split(' ').next().and_then(|image| image.split_once(':')).map_or("latest", |(_, tag)| tag);
        assert_ne!(tag, "latest", "{base}");
    }
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let oldest = manifest["package"]["rust-version"].as_str().unwrap();
    let minor = |version: &str| version.split('.').nth(1).unwrap().parse::<u32>().unwrap();
    let rust = build.strip_prefix("rust:").and_then(|tag| tag.split('-').next()).unwrap();
    assert!(minor(rust) >= minor(oldest), "the image builds with Rust {rust}, the crate needs {oldest}");
    let last = recipe.split("FROM ").last().unwrap();
    assert!(last.lines().any(|line| line == "USER 65532:65532"), "{last}");
    assert!(!last.contains("COPY .") && !recipe.contains("ARG "), "nothing of a project, and no secret, goes in");
    for copied in last.lines().filter(|line| line.starts_with("COPY ")) {
        assert!(copied.contains("--from=build"), "{copied}");
    }
}
