//! A rotation of pseudonyms as operators meet it: planned, done in one commit, and told apart from what older versions hold.

use std::process::Output;

use crate::commands::{Bench, assert_fails, text};

/// Rows with the pseudonyms of their customers; equal groups mean that the same rows join.
const GROUPS: &str = "SELECT min(customer_id) AS first, count(*) AS n FROM customer_versions \
                      WHERE email_pseudonym IS NOT NULL GROUP BY email_pseudonym ORDER BY first";

const PREFIXES: &str = "SELECT DISTINCT substr(email_pseudonym, 1, 3) AS prefix FROM customer_versions \
                        WHERE email_pseudonym IS NOT NULL";

#[track_caller]
fn succeeds(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn query(bench: &Bench, sql: &str) -> Vec<String> {
    let rows = succeeds(&bench.run(&["query", "-e", sql, "--format", "csv"]));
    rows.lines().skip(1).map(str::to_owned).collect()
}

/// The lines of `keys ls` about pseudonyms: version and state.
fn listed(bench: &Bench) -> Vec<(String, String)> {
    let listing = succeeds(&bench.run(&["keys", "ls"]));
    let (_, pseudonyms) = listing.split_once("\npseudonyms").unwrap();
    let lines = pseudonyms.lines().skip(1).map(|line| (line[..10].trim().to_owned(), line[11..21].trim().to_owned()));
    lines.collect()
}

fn pair(version: &str, state: &str) -> (String, String) {
    (version.to_owned(), state.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pseudonyms_are_rotated_as_planned_and_later_runs_go_on_with_the_new_version() {
    let bench = Bench::new(60).await;
    succeeds(&bench.run(&["extract"]));
    let groups = query(&bench, GROUPS);
    assert!(groups.len() > 10, "{groups:?}");
    assert_eq!(query(&bench, PREFIXES), ["p1_"]);
    let address = "zoe@example.com";
    let find = ["policy", "pseudonym", "customers.email_pseudonym", address];
    let old = succeeds(&bench.run(&find));
    assert!(old.starts_with("p1_"), "{old}");
    assert_eq!(listed(&bench), [pair("p1", "in force")]);

    let planned = bench.run(&["keys", "rotate", "--pseudonyms", "--dry-run"]);
    let plan = succeeds(&planned);
    assert!(text(&planned.stderr).contains("from version 1 to version 2"), "{}", text(&planned.stderr));
    for part in ["customers: ", "  email_pseudonym  domain email"] {
        assert!(plan.contains(part), "{part} is not in:\n{plan}");
    }
    assert_eq!(listed(&bench), [pair("p1", "in force")], "a dry run adds no key");
    assert_eq!(bench.run(&["keys", "rotate", "--dry-run"]).status.code(), Some(2), "only pseudonyms have a plan");

    let rotated = bench.run(&["keys", "rotate", "--pseudonyms"]);
    assert_eq!(succeeds(&rotated), plan, "what was planned was done");
    let said = text(&rotated.stderr);
    for part in ["pseudonyms of version 2 are in force", "older versions hold", "lake retain", "lake gc"] {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
    assert_eq!(listed(&bench), [pair("p1", "former"), pair("p2", "in force")]);
    assert_eq!(query(&bench, PREFIXES), ["p2_"]);
    assert_eq!(query(&bench, GROUPS), groups);
    let new = succeeds(&bench.run(&find));
    assert!(new.starts_with("p2_"), "{new}");

    // Records that are read again join with what was rewritten.
    succeeds(&bench.run(&["extract", "--full"]));
    bench.sandbox.organisation().touch(&[1, 2, 3]);
    succeeds(&bench.run(&["extract"]));
    assert_eq!(query(&bench, PREFIXES), ["p2_"]);
    assert_eq!(query(&bench, GROUPS).len(), groups.len());
    succeeds(&bench.run(&["lake", "verify"]));

    // An older version keeps its own, until it expires.
    let before = bench.run(&["query", "-e", PREFIXES, "--format", "csv", "--as-of", "2"]);
    assert!(succeeds(&before).contains("p1_"));
    assert_fails(&bench.run(&["keys", "destroy", "p1", "--dry-run"]), 2, &["no such key", "p1"]);
}
