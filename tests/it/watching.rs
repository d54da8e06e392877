//! What watches a scheduled job: the fields of the run report, the figures of the metrics file, and the alerts about them,
//! as `docs/jobs.md` and `examples/jobs/alerts.yml` name them, beside what real runs write.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use counterfoil::sandbox::{Fault, SandboxSettings, Spoil};
use regex::Regex;
use serde_json::Value;

use crate::commands::{Bench, text};

type Names = BTreeSet<String>;

/// A family of figures: its labels, and the values of each that were seen.
type Families = BTreeMap<String, BTreeMap<String, Names>>;

const CHAPTER: &str = "docs/jobs.md";

/// Objects of the report whose keys are data: endpoints, causes, reasons.
const MAPS: [&str; 6] =
    ["run.requests", "run.planned", "run.waits_ms", "run.failed", "run.received_bytes", "waited_seconds"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The rows of the tables in a section of the chapter, by cells; heads and rules are left out.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let chapter = read(CHAPTER);
    let mut rows = Vec::new();
    let mut is_inside = false;
    for line in chapter.lines() {
        if line.starts_with("## ") {
            is_inside = line == heading;
        } else if is_inside && line.starts_with("| `") {
            rows.push(line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect());
        }
    }
    assert!(rows.len() > 10, "{CHAPTER} has the section {heading} with its tables");
    rows
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Collects the paths of all that is no object: `run.streams[].stream`.
fn paths(value: &Value, at: &str, found: &mut Names) {
    match value {
        Value::Object(fields) if !MAPS.contains(&at) => {
            for (name, field) in fields {
                paths(field, &if at.is_empty() { name.clone() } else { format!("{at}.{name}") }, found);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for item in items {
                paths(item, &format!("{at}[]"), found);
            }
        }
        // Nothing is known of what would stand in it.
        Value::Array(items) if items.is_empty() => {}
        _ => {
            found.insert(at.to_owned());
        }
    }
}

/// The name of each family, and of each sample its labels.
fn families(exposition: &str, found: &mut Families) {
    let label = Regex::new(r#"([a-z_]+)="([^"]*)""#).unwrap();
    for line in exposition.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            found.entry(family.split(' ').next().unwrap().to_owned()).or_default();
        } else if !line.starts_with('#') {
            let name = &line[..line.find(['{', ' ']).unwrap()];
            let labels = found.get_mut(name).unwrap();
            for captured in label.captures_iter(line) {
                labels.entry(captured[1].to_owned()).or_default().insert(captured[2].to_owned());
            }
        }
    }
}

/// Replaces a text that stands in a schema of the bench.
fn edit(bench: &Bench, from: &str, to: &str) {
    let path = bench.path().join("schemas/tickets.toml");
    let schema = fs::read_to_string(&path).unwrap();
    assert!(schema.contains(from), "{from}");
    fs::write(&path, schema.replacen(from, to, 1)).unwrap();
}

/// Every report and all figures of a lake to which everything happens that a report can tell.
struct Watched {
    reports: Vec<Value>,
    figures: Families,
}

impl Watched {
    async fn new() -> Self {
        let withheld_roles = vec!["org.user.schedule.read".to_owned()];
        let settings = SandboxSettings {
            tickets: 600,
            customers: 200,
            search_rpm: 10_000,
            withheld_roles,
            ..SandboxSettings::default()
        };
        let bench = Bench::with(settings).await;
        let organisation = bench.sandbox.organisation();
        let mut watched = Self { reports: Vec::new(), figures: Families::new() };
        watched.run(&bench, 7, &["--max-requests", "12"]);
        watched.run(&bench, 0, &[]);

        // Attributes that are new and that change their type; a source that fails once.
        organisation.define("conversation", "regionStr", "string").unwrap();
        organisation.touch(&[1, 2]);
        bench.sandbox.fail_request(1, Fault::Status(500));
        watched.run(&bench, 0, &[]);
        organisation.redefine("conversation", "tierStr", "number").unwrap();
        organisation.touch(&[3, 4]);
        watched.run(&bench, 0, &[]);

        // Tickets that change hands, what is compared by ids, records that do not decode.
        for customer in 0..20 {
            organisation.merge(2 * customer, 2 * customer + 1, false);
        }
        watched.run(&bench, 0, &["--reconcile"]);
        organisation.spoil(&[5, 6], Spoil::BadId);
        organisation.touch(&[5, 6]);
        watched.run(&bench, 7, &[]);
        organisation.heal(&[5, 6]);

        // A policy that forbids what is stored, then allows what is missing, and a table that nothing declares any more.
        let declared = "name = \"priority\"\n";
        let dropped = "name = \"priority\"\nmethod = \"drop\"\n";
        edit(&bench, declared, dropped);
        fs::remove_file(bench.path().join("schemas/tags.toml")).unwrap();
        watched.run(&bench, 0, &[]);
        let applied = bench.run(&["lake", "compact", "--apply-policy"]);
        assert!(applied.status.success(), "{}", text(&applied.stderr));
        edit(&bench, dropped, declared);
        watched.run(&bench, 0, &[]);

        // And a run of which nothing is to be told.
        watched.run(&Bench::new(60).await, 0, &[]);
        watched
    }

    fn run(&mut self, bench: &Bench, code: i32, arguments: &[&str]) {
        let watch = ["extract", "--report", "run.json", "--metrics-file", "counterfoil.prom"];
        let environment = [("COUNTERFOIL_LAKE__MAINTAIN", "off"), ("COUNTERFOIL_SOURCE__ATTEMPTS", "3")];
        let output = bench.run_with(&environment, &[&watch, arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
        let report = fs::read_to_string(bench.path().join("run.json")).unwrap();
        self.reports.push(serde_json::from_str(&report).unwrap());
        families(&fs::read_to_string(bench.path().join("counterfoil.prom")).unwrap(), &mut self.figures);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chapter_and_alerts_name_what_runs_write_and_nothing_else() {
    let watched = Watched::new().await;
    let mut written = Names::new();
    for report in &watched.reports {
        paths(report, "", &mut written);
    }
    let rows = rows("## The run report");
    let documented: Names = rows.iter().flat_map(|row| quoted(&row[0])).collect();
    let missing: Vec<_> = written.difference(&documented).collect();
    assert!(missing.is_empty(), "fields that {CHAPTER} does not explain: {missing:#?}");
    let gone: Vec<_> = documented.difference(&written).collect();
    assert!(gone.is_empty(), "fields that {CHAPTER} explains and no run wrote: {gone:#?}");

    // What is said to be there always is in every report, and what is said to be there at times is not.
    let of_each: Vec<Names> = watched
        .reports
        .iter()
        .map(|report| {
            let mut found = Names::new();
            paths(report, "", &mut found);
            found
        })
        .collect();
    for row in &rows {
        for field in quoted(&row[0]) {
            let count = of_each.iter().filter(|found| found.contains(&field)).count();
            match row[1].as_str() {
                "always" => assert_eq!(count, of_each.len(), "{field} is always there"),
                _ => assert!(count < of_each.len(), "{field} is there {}: it was in every report", row[1]),
            }
        }
    }

    assert_figures_are_documented(&watched.figures);
    assert_alerts_are_about_figures(&watched.figures);
}

/// Values that a quick run does not show are looked for where they are named.
fn names_of_waits() -> Names {
    let source = include_str!("../../src/kustomer/bucket.rs");
    let arm = Regex::new(r#"Self::\w+ => "([a-z ]+)""#).unwrap();
    arm.captures_iter(source).map(|captured| captured[1].to_owned()).collect()
}

#[track_caller]
fn assert_figures_are_documented(written: &Families) {
    let mut documented = Families::new();
    for row in rows("## The metrics") {
        let labels = row[1].split(';').filter(|label| label.contains('`')).map(|label| {
            let names = quoted(label);
            (names[0].clone(), names[1..].iter().cloned().collect::<Names>())
        });
        documented.insert(quoted(&row[0])[0].clone(), labels.collect());
    }
    let names = |families: &Families| families.keys().cloned().collect::<Names>();
    assert_eq!(names(&documented), names(written), "figures of {CHAPTER} beside those of real runs");
    for (name, labels) in &documented {
        let seen = &written[name];
        assert!(labels.keys().eq(seen.keys()), "{name} has the labels {:?}", seen.keys());
        for (label, values) in labels.iter().filter(|(_, values)| !values.is_empty()) {
            match label.as_str() {
                "reason" => assert_eq!(*values, names_of_waits(), "{name}"),
                _ => assert_eq!(*values, seen[label], "{name}, {label}"),
            }
        }
    }
}

#[track_caller]
fn assert_alerts_are_about_figures(written: &Families) {
    let alerts = read("examples/jobs/alerts.yml");
    let figure = Regex::new(r"\b(counterfoil_[a-z_]+)(?:\{([^}]*)\})?").unwrap();
    let selector = Regex::new(r#"([a-z_]+)(=~|=)"([^"]*)""#).unwrap();
    let mut seen = Names::new();
    for found in figure.captures_iter(&alerts) {
        let labels = written.get(&found[1]).unwrap_or_else(|| panic!("no run writes {}", &found[1]));
        seen.insert(found[1].to_owned());
        for chosen in found.get(2).iter().flat_map(|inside| selector.captures_iter(inside.as_str())) {
            let values = labels.get(&chosen[1]).unwrap_or_else(|| panic!("{} has no label {}", &found[1], &chosen[1]));
            let values = if &chosen[1] == "reason" { &names_of_waits() } else { values };
            let is_status = |value: &str| &chosen[1] == "cause" && value.len() == 3 && value.parse::<u16>().is_ok();
            for value in chosen[3].split('|').filter(|value| !is_status(value)) {
                assert!(values.contains(value), "{}: {} is never {value}: {values:?}", &found[1], &chosen[1]);
            }
        }
    }
    assert!(seen.len() >= 8, "{seen:?}");
}

#[test]
fn alerts_pass_their_own_tests() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/jobs");
    let names = |file: &str, key: &str| -> Names {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        let name = Regex::new(&format!(r"\b{key}: (Counterfoil\w+)")).unwrap();
        name.captures_iter(&text).map(|found| found[1].to_owned()).collect()
    };
    let alerts = names("alerts.yml", "alert");
    assert!(alerts.len() >= 8, "{alerts:?}");
    assert_eq!(alerts, names("alerts_test.yml", "alertname"), "every alert is tested");
    let row = Regex::new(r"(?m)^\| (Counterfoil\w+) \|").unwrap();
    let explained: Names = row.captures_iter(&read(CHAPTER)).map(|found| found[1].to_owned()).collect();
    assert_eq!(alerts, explained, "every alert is explained");

    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let Ok(output) = Command::new("promtool").args(arguments).current_dir(&folder).output() else {
            assert!(std::env::var_os("CI").is_none(), "CI must have promtool (Debian's package prometheus)");
            // Past the harness, which keeps to itself what a passing test prints.
            std::io::stderr().write_all(b"skipped: promtool does not run, so the alerts are not tested\n").unwrap();
            return;
        };
        let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && told.contains("SUCCESS"), "{arguments:?}: {told}");
    }
}
