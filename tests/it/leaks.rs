//! The needle test of details: every file that a run could have touched, and all that it said, is searched for what people
//! wrote, in every form in which it could stand there.

#![cfg(target_os = "linux")]

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use counterfoil::sandbox::{Fault, Organisation};
use serde_json::Value;

use crate::commands::text;
use crate::traces::Scene;

/// The forms in which a text could stand in a file.
struct Needles(HashMap<[u8; 2], Vec<(Vec<u8>, String)>>);

impl Needles {
    fn of(texts: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut forms: HashMap<[u8; 2], Vec<(Vec<u8>, String)>> = HashMap::new();
        for bytes in texts {
            for form in Self::forms(&bytes) {
                assert!(form.len() > 6, "too short to be looked for: {bytes:?}");
                forms.entry([form[0], form[1]]).or_default().push((form, String::from_utf8_lossy(&bytes).into_owned()));
            }
        }
        Self(forms)
    }

    fn hex(bytes: &[u8], digits: &[u8; 16]) -> Vec<u8> {
        bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|half| digits[usize::from(half)]).collect()
    }

    fn forms(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut forms =
            vec![bytes.to_vec(), Self::hex(bytes, b"0123456789abcdef"), Self::hex(bytes, b"0123456789ABCDEF")];
        if let Ok(text) = std::str::from_utf8(bytes) {
            forms.push(text.encode_utf16().flat_map(u16::to_le_bytes).collect());
            forms.push(text.encode_utf16().flat_map(u16::to_be_bytes).collect());
            forms.push(serde_json::to_string(text).unwrap().trim_matches('"').as_bytes().to_vec());
            let escaped: String = text
                .chars()
                .map(|c| if c.is_ascii() { c.to_string() } else { c.escape_default().to_string() })
                .collect();
            forms.push(escaped.into_bytes());
        }
        // Where the text begins in a group of three bytes decides how its inner letters are written.
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            for before in 0..3 {
                let written = engine.encode([&b"\0\0"[..before.min(2)], bytes].concat());
                let (first, last) = ((before * 4).div_ceil(3), (before + bytes.len()) * 4 / 3);
                forms.push(written.as_bytes()[first..last].to_vec());
            }
        }
        forms.sort();
        forms.dedup();
        forms
    }

    /// Returns what is found in bytes, and in what they hold as gzip.
    fn found_in(&self, bytes: &[u8]) -> BTreeSet<String> {
        let mut found = self.found_as_it_stands(bytes);
        for at in bytes.windows(3).enumerate().filter(|(_, start)| *start == [0x1f, 0x8b, 8]).map(|(at, _)| at) {
            let mut child = Command::new("gzip")
                .arg("-dc")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut stdin = child.stdin.take().unwrap();
            let packed = bytes[at..].to_vec();
            // What is no gzip is not read to its end.
            let writer = std::thread::spawn(move || drop(stdin.write_all(&packed)));
            found.extend(self.found_as_it_stands(&child.wait_with_output().unwrap().stdout));
            writer.join().unwrap();
        }
        found
    }

    fn found_as_it_stands(&self, bytes: &[u8]) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for (at, start) in bytes.windows(2).enumerate() {
            for (form, needle) in self.0.get(start).into_iter().flatten() {
                if bytes[at..].starts_with(form) {
                    found.insert(needle.clone());
                }
            }
        }
        found
    }
}

/// What people wrote in conversations, and who they are; a text of several lines by its longest.
fn written(organisation: &Organisation, numbers: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    fn texts(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::String(text) => found.extend(text.lines().max_by_key(|line| line.len()).map(str::to_owned)),
            Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
            Value::Object(fields) => fields.values().for_each(|field| texts(field, found)),
            _ => {}
        }
    }
    let customers: HashMap<String, Value> = (0..organisation.customers())
        .map(|number| organisation.customer(number))
        .map(|record| (record["id"].as_str().unwrap().to_owned(), record))
        .collect();
    let mut found = BTreeSet::new();
    for number in numbers {
        let conversation = organisation.conversation(number);
        let customer = &customers[conversation["relationships"]["customer"]["data"]["id"].as_str().unwrap()];
        for (record, keys) in [(&conversation, &["name", "preview"][..]), (customer, &["name", "emails", "phones"])] {
            for key in keys {
                texts(&record["attributes"][key], &mut found);
            }
        }
        for record in organisation.messages(number) {
            let attributes = &record["attributes"];
            let people = [&attributes["meta"]["from"], &attributes["meta"]["to"]];
            for value in [&attributes["preview"], &attributes["subject"]].into_iter().chain(people) {
                texts(value, &mut found);
            }
        }
        for record in organisation.notes(number) {
            texts(&record["attributes"]["body"], &mut found);
        }
    }
    found.into_iter().filter(|text| text.len() >= 10).map(String::into_bytes).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Folders that a program may take for its own, all under one that is searched.
fn homes(folder: &Path) -> Vec<(&'static str, String)> {
    ["HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"]
        .into_iter()
        .map(|name| {
            let path = folder.join("homes").join(name.to_lowercase());
            fs::create_dir_all(&path).unwrap();
            (name, path.display().to_string())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_file_and_no_word_of_a_run_tells_what_people_wrote() {
    let Scene { bench, runs } = Scene::new().await;
    let homes = homes(bench.path());
    let logs = bench.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let run = |name: &str, arguments: &[&str]| {
        let said = fs::File::create(logs.join(name)).unwrap();
        let environment = homes.iter().map(|(name, value)| (*name, value.as_str()));
        let mut command = bench.command(arguments);
        command
            .envs(environment)
            .env("RUST_BACKTRACE", "full")
            .env("RUST_LOG", "trace")
            .stdout(Stdio::piped())
            .stderr(said);
        command
    };
    let (mut out, mut file) = (Vec::new(), Vec::new());
    for (number, (arguments, code)) in runs.iter().enumerate() {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = run(&format!("run-{number}"), &words).output().unwrap();
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}");
        if words.contains(&"attachment") && *code == 0 {
            file = output.stdout[..24].to_vec();
        }
        out.extend(output.stdout);
    }

    // Parts that fail, with all that is said about them.
    let loud = ["-v", "-v", "--log-format", "json", "resolve", "--from", "ids.txt"];
    for (number, fault) in
        [Fault::Status(403), Fault::Status(500), Fault::Garbled, Fault::Truncate, Fault::Html].into_iter().enumerate()
    {
        for route in ["conversations/{id}", "conversations/{id}/messages", "conversations/{id}/notes", "customers/{id}"]
        {
            let route = format!("GET /v1/{route}");
            bench.sandbox.fail_route(&route, Some(fault));
            let name = format!("fault-{number}-{}", route.replace('/', "-"));
            let output = run(&name, &loud).output().unwrap();
            assert!(!output.status.success(), "{fault:?} of {route}");
            bench.sandbox.fail_route(&route, None);
        }
    }
    // A reader whose disk is full.
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_eq!(run("full", &loud).stdout(full).status().unwrap().code(), Some(3));

    // Ended in the middle, when some details have been written and more are in memory.
    for (name, code) in [("TERM", Some(130)), ("INT", Some(130)), ("ABRT", None), ("KILL", None)] {
        // The window of tickets waits for one of them.
        bench.sandbox.fail_request(25, Fault::Slow);
        let mut child = run(&format!("signal-{name}"), &loud).spawn().unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        reader.read_line(&mut String::new()).unwrap();
        assert!(Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap().success());
        std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
        assert_eq!(child.wait().unwrap().code(), code, "{name}");
    }

    let lines: Vec<Value> = text(&out).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let names = lines.iter().flat_map(|line| line["attachments"].as_array().into_iter().flatten());
    let mut texts: BTreeSet<Vec<u8>> = names.map(|file| file["name"].as_str().unwrap().as_bytes().to_vec()).collect();
    assert!(texts.len() >= 30, "every ticket has a file");
    texts.extend(written(bench.sandbox.organisation(), 0..30));
    assert!(texts.len() > 150, "people wrote a lot: {}", texts.len());
    texts.insert(file);
    let needles = Needles::of(texts.iter().cloned());

    let searched = files(bench.path());
    assert!(searched.len() > 60, "settings, lake, homes and what was said: {}", searched.len());
    for path in searched {
        let found = needles.found_in(&fs::read(&path).unwrap());
        assert!(found.is_empty(), "{} tells {found:?}", path.display());
        let name = path.strip_prefix(bench.path()).unwrap().display().to_string();
        assert!(needles.found_in(name.as_bytes()).is_empty(), "{name}");
    }
    let mut at_home = files(&bench.path().join("homes"));
    // The mark of the version of the lake that has the access record.
    at_home.retain(|path| !path.starts_with(bench.path().join("homes/xdg_state_home/counterfoil")));
    assert!(at_home.is_empty(), "nothing is put into a home: {at_home:?}");

    // The search can find: nearly all of it stands on standard output.
    let found = needles.found_in(&out);
    assert!(found.len() > texts.len() * 9 / 10, "{} of {}", found.len(), texts.len());
}

#[test]
fn search_finds_a_text_in_every_form() {
    let needle = "Zażółć gęślą <jaźń> \"now\"";
    let needles = Needles::of([needle.as_bytes().to_vec()]);
    let gzip = |bytes: &[u8]| {
        let mut child = Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        child.wait_with_output().unwrap().stdout
    };
    let utf16: Vec<u8> = format!("a{needle}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut places = vec![utf16, gzip(needle.as_bytes()), [b"before", &gzip(needle.as_bytes())[..]].concat()];
    places.push(serde_json::to_vec(&serde_json::json!({"a": needle})).unwrap());
    for before in ["", "a", "ab", "abc"] {
        places.push(STANDARD_NO_PAD.encode(format!("{before}{needle} and more")).into_bytes());
        places.push(URL_SAFE_NO_PAD.encode(format!("{before}{needle}")).into_bytes());
    }
    places.push(Needles::hex(format!("and {needle}").as_bytes(), b"0123456789abcdef"));
    for place in places {
        assert_eq!(needles.found_in(&place).len(), 1, "{}", String::from_utf8_lossy(&place));
    }
    assert!(needles.found_in(b"Za\xc5\xbc and nothing more").is_empty());
}
