//! The decoder against pages that no source should send: real ones with pieces changed, cut, moved and repeated, JSON without
//! sense, and bytes that are no JSON; under random policies and the shipped one.
//!
//! Whatever comes: no panic, no error that repeats what the page holds, memory within a constant factor of the page and its
//! columns, as many rows as keys, and a decoder that decodes the next page as if nothing had been.
//!
//! `COUNTERFOIL_FUZZ_SECONDS=600 cargo test --test it fuzz -- --nocapture` goes on for that long; `COUNTERFOIL_FUZZ_SEED`
//! begins elsewhere. A case that fails says its seed.

#![expect(clippy::unwrap_used, reason = "functions of tests, which clippy.toml exempts only where they carry #[test]")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use counterfoil::clock::ManualClock;
use counterfoil::error::ErrorKind;
use counterfoil::model::Stream;
use counterfoil::policy::{Decoder, Definitions, Policy};
use counterfoil::sandbox::{Sandbox, SandboxSettings};
use counterfoil::schema::{BUILTIN, OPTIONAL, Schemas};
use counterfoil::secret::{PseudonymKey, PseudonymKeys, SecretKey};
use serde_json::json;

use crate::planted::{Dice, Key, Rules, Search};

/// Cases of a run that is not told for how long to go on.
const CASES: u64 = 4_000;
/// Cases of one policy.
const PER_POLICY: u64 = 25;
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/kustomer/examples");

/// All that an error about a page may say, before where it is.
const MESSAGES: [&str; 6] = [
    "page ends in the middle of its JSON",
    "page is not valid JSON",
    "page has another form than an answer of the source",
    "page has no `data`",
    "page has `data` twice",
    "page holds a record of another organisation; nothing of it is kept",
];

/// What JSON is made of, whole and broken.
const PIECES: [&[u8]; 40] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\"",
    b"\\",
    b"null",
    b"true",
    b"fals",
    b"-",
    b"0",
    b"1e999",
    b"-0.0",
    b"123456789012345678901234567890",
    b"1e-400",
    b"0.1e+5",
    b"\\ud83d",
    b"\\udE00\\ud83d",
    b"\\u00",
    b"\\u0000",
    b"\"\\ud800\"",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98",
    b"\xef\xbb\xbf",
    b"\0",
    b"\n",
    b"\"data\":[",
    b"\"id\":\"58228e05d4e96711004eccb7\",",
    b"\"attributes\":{",
    b"\"custom\":{",
    b"\"emails\":[{\"email\":",
    b"\"links\":{\"next\":7},",
    b"\"meta\":{\"total\":-1},",
    b"\"relationships\":{\"org\":{\"data\":{\"id\":\"",
    b"\"2026-02-30T25:61:00.000Z\"",
    b"\"+99999-01-01T00:00:00Z\"",
    b"{\"data\":[{}]}",
];

/// Says the seed of the case at work when it panics.
struct Case(u64);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "the case that failed: COUNTERFOIL_FUZZ_SEED={}", self.0);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Pages as the source sends them.
fn pages() -> Vec<Vec<u8>> {
    let mut pages = Vec::new();
    if let Ok(folder) = std::fs::read_dir(Path::new(EXAMPLES)) {
        let mut paths: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        pages.extend(paths.into_iter().map(|path| std::fs::read(path).unwrap()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let clock = Arc::new(ManualClock::new("2026-11-01T12:00:00Z".parse().unwrap()));
    let settings = SandboxSettings { tickets: 60, customers: 20, ..SandboxSettings::default() };
    let sandbox = runtime.block_on(Sandbox::start(settings, clock)).unwrap();
    let organisation = sandbox.organisation();
    for from in [0, 7, 20] {
        let tickets: Vec<_> = (from..from + 6).map(|at| organisation.conversation(at)).collect();
        let customers: Vec<_> = (from..(from + 6).min(20)).map(|at| organisation.customer(at)).collect();
        for data in [tickets, customers] {
            let links = json!({"self": "/v1/customers/search?page=1", "next": null});
            let page = json!({"meta": {"total": 6, "pageSize": 500, "timed_out": false}, "links": links, "data": data});
            pages.push(page.to_string().into_bytes());
        }
    }
    pages.push(json!({"data": organisation.users()}).to_string().into_bytes());
    runtime.block_on(sandbox.shutdown());
    pages
}

fn decoder(policy: &Policy, stream: Stream) -> Decoder {
    let mut definitions = Definitions::default();
    definitions.add(stream, &Rules::definitions()).unwrap();
    let key = PseudonymKey { version: 1, key: SecretKey::new([7; 32]) };
    let keys = PseudonymKeys::try_new([Arc::new(key)]).unwrap();
    policy.decoder(stream, &definitions, &keys).unwrap()
}

fn planted(rules: &Rules, dice: &mut Dice) -> Vec<u8> {
    let mut records = String::new();
    for number in 0..=dice.below(4) {
        let key = Key {
            id: format!("5822{number:020x}"),
            updated_at: "2026-01-02T03:04:05.006Z".to_owned(),
            rev: number.to_string(),
            deleted: false,
        };
        let comma = if number > 0 { "," } else { "" };
        let _ = write!(records, "{comma}{}", rules.record(&key, dice, &mut Vec::new()));
    }
    format!(r#"{{"meta":{{"total":3}},"data":[{records}],"links":{{"next":null}}}}"#).into_bytes()
}

/// A span of a page, short ones more often.
fn span(page: &[u8], dice: &mut Dice) -> std::ops::Range<usize> {
    let from = dice.below(page.len() + 1);
    let exponent = dice.below(12);
    let length = dice.below(1 << exponent);
    from..(from + length).min(page.len())
}

fn mutate(page: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    for _ in 0..=dice.below(3) {
        let at = dice.below(page.len() + 1);
        match dice.below(14) {
            0 if at < page.len() => page[at] ^= 1 << dice.below(8),
            1 if at < page.len() => page[at] = dice.next() as u8,
            2 => page.truncate(at),
            3 => drop(page.drain(span(page, dice))),
            4 => {
                let piece = other[span(other, dice)].to_vec();
                drop(page.splice(at..at, piece));
            }
            5 => {
                // A part comes twice: keys, values, records, brackets.
                let piece = page[span(page, dice)].to_vec();
                drop(page.splice(at..at, piece));
            }
            6 => {
                let exponent = dice.below(17);
                let depth = dice.below(1 << exponent);
                let open: &[u8] = if dice.one_in(2) { b"[" } else { b"{\"a\":" };
                drop(page.splice(at..at, open.repeat(depth)));
            }
            7 => {
                let digit = *dice.pick(b"0159");
                drop(page.splice(at..at, vec![digit; dice.below(400)]));
            }
            8 => {
                let letter = *dice.pick(&["x", "\\u00e9", "\\ud83d", "語", "\\\""]);
                drop(page.splice(at..at, letter.repeat(dice.below(5_000)).into_bytes()));
            }
            9 => {
                let records = b"{\"id\":\"58228e05d4e96711004eccb7\"},".repeat(dice.below(300));
                if let Some(at) = page.windows(8).position(|part| part == b"\"data\":[") {
                    drop(page.splice(at + 8..at + 8, records));
                }
            }
            10 => {
                let many = (0..dice.below(3_000)).fold(String::new(), |text, n| format!("{text}\"k{n}\":{n},"));
                if let Some(at) = page.windows(14).position(|part| part == b"\"attributes\":{") {
                    drop(page.splice(at + 14..at + 14, many.into_bytes()));
                }
            }
            _ => {
                let piece = dice.pick(&PIECES);
                drop(page.splice(at..at, piece.iter().copied()));
            }
        }
    }
}

fn case(dice: &mut Dice, pages: &[Vec<u8>], rules: &Rules) -> Vec<u8> {
    match dice.below(12) {
        0 => (0..dice.below(300)).map(|_| dice.next() as u8).collect(),
        1 => (0..dice.below(60)).flat_map(|_| dice.pick(&PIECES).to_vec()).collect(),
        2..=5 => {
            let (mut page, other) = (planted(rules, dice), dice.pick(pages).clone());
            mutate(&mut page, &other, dice);
            page
        }
        _ => {
            let (mut page, other) = (dice.pick(pages).clone(), dice.pick(pages).clone());
            mutate(&mut page, &other, dice);
            page
        }
    }
}

/// What was seen of all cases.
#[derive(Debug, Default)]
struct Seen {
    cases: u64,
    decoded: u64,
    rows: u64,
    /// Bytes of memory by bytes of page, of pages of 10 kB and more.
    most: f64,
}

fn push(decoder: &mut Decoder, page: &[u8], longest: usize, search: &Search, seen: &mut Seen) {
    let mut answer = None;
    let used = allocation_counter::measure(|| answer = Some(decoder.push_page(page)));
    let columns = decoder.schema().fields().len() as u64;
    let records = page.split(|byte| *byte == b'{').count() as u64;
    // A row takes room in each column that has a value on the page; columns begin with the sizes of the page before.
    let bound = (1 << 20) + 32 * longest as u64 + 24 * columns * records;
    assert!(used.bytes_max <= bound, "{} bytes for a page of {}", used.bytes_max, page.len());
    if page.len() >= 10_000 {
        seen.most = seen.most.max(used.bytes_max as f64 / page.len() as f64);
    }
    match answer.unwrap() {
        Ok(summary) => {
            let told = format!("{decoder:?} {:?} {:?}", summary.rejected, decoder.quarantine());
            let batch = decoder.finish().unwrap();
            assert_eq!(batch.batch().num_rows(), batch.keys().len());
            assert_eq!(summary.records, batch.keys());
            assert!(batch.batch().columns().iter().all(|column| column.len() == batch.keys().len()));
            assert!(told.len() < 2_000_000, "{}", told.len());
            seen.decoded += 1;
            seen.rows += batch.keys().len() as u64;
        }
        Err(error) => {
            let told = format!("{error}\n{error:?}");
            assert!(MESSAGES.contains(&error.message()), "{told}");
            assert!(matches!(error.kind(), ErrorKind::Data | ErrorKind::Denied));
            let place = error.to_string();
            let place = place.strip_prefix(error.message()).unwrap();
            assert!(place.len() < 70 && place.starts_with(" (stream: "), "{told}");
            assert_eq!(search.find(told.as_bytes()), None);
            assert_eq!(decoder.rows(), 0, "no row of a page that failed");
        }
    }
    seen.cases += 1;
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the machine's time bounds a run that is told for how long to go on")]
fn no_page_breaks_the_decoder() {
    let pages = pages();
    let search = Search::new();
    let whole = Policy::compile(&Schemas::from_files(BUILTIN.into_iter().chain(OPTIONAL)).unwrap()).unwrap();
    let seconds = number("COUNTERFOIL_FUZZ_SECONDS").map(Duration::from_secs);
    let first = number("COUNTERFOIL_FUZZ_SEED").unwrap_or(1);
    let began = Instant::now();
    let mut seen = Seen::default();
    let mut seed = first;
    while seconds.map_or(seen.cases < CASES, |seconds| began.elapsed() < seconds) {
        let _case = Case(seed);
        let mut dice = Dice(seed);
        let stream = *dice.pick(&[Stream::Tickets, Stream::Customers]);
        let rules = Rules::random(stream, &mut dice);
        let file = format!("{stream}.toml");
        let random = Policy::compile(&Schemas::from_files([(file.as_str(), rules.text.as_str())]).unwrap()).unwrap();
        let mut decoder =
            if dice.one_in(3) { decoder(&whole, *dice.pick(&Stream::ALL)) } else { decoder(&random, stream) };
        let good = pages.last().unwrap();
        let expected = decoder.fork().push_page(good).unwrap().records.len();
        let mut longest = good.len();
        for _ in 0..PER_POLICY {
            let page = case(&mut dice, &pages, &rules);
            longest = longest.max(page.len());
            push(&mut decoder, &page, longest, &search, &mut seen);
        }
        assert_eq!(decoder.push_page(good).unwrap().records.len(), expected);
        assert_eq!(decoder.finish().unwrap().keys().len(), expected);
        seed += 1;
    }
    let took = began.elapsed().as_secs_f64();
    let line = format!(
        "fuzz: {} pages in {took:.0} s ({:.0} a second), seeds {first} to {}, {} decoded into {} rows, at most {:.1} bytes of memory for a byte\n",
        seen.cases,
        seen.cases as f64 / took,
        seed - 1,
        seen.decoded,
        seen.rows,
        seen.most
    );
    // Written past the harness, which keeps to itself what a passing test prints.
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    assert!(seen.decoded > seen.cases / 20 && seen.decoded < seen.cases, "{seen:?}");
}
