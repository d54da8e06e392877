//! A change of the schemas as operators meet it: told by every command, applied to what is stored, brought by a full extract.

use std::fs;

use counterfoil::clock::{SharedClock, SystemClock};
use counterfoil::lake::{Lake, Purpose, StoreSettings};
use serde_json::Value;

use crate::commands::{Bench, assert_fails, listing, text};

const FORBIDDEN: &str = "stored and forbidden by the policy now: tickets in ";
const LACKING: &str = "allowed by the policy now and missing from what was stored before: tickets in ";

/// Gives columns of the tickets a method, and the custom rule `*Num` another one where that is wanted.
fn change(bench: &Bench, columns: &[(&str, &str)], number: Option<&str>) {
    let path = bench.path().join("schemas/tickets.toml");
    let mut schema = fs::read_to_string(&path).unwrap();
    for (column, method) in columns {
        let declared = format!("name = \"{column}\"\n");
        assert!(schema.contains(&declared), "{column}");
        schema = schema.replacen(&declared, &format!("{declared}method = {method}\n"), 1);
    }
    let declared = "pattern = \"*Num\"\n";
    if let Some(method) = number {
        schema = schema.replacen(declared, &format!("{declared}method = {method}\n"), 1);
    }
    fs::write(&path, schema).unwrap();
}

/// Takes the shipped schema of the tickets back.
fn restore(bench: &Bench, shipped: &str) {
    fs::write(bench.path().join("schemas/tickets.toml"), shipped).unwrap();
}

#[track_caller]
fn done(bench: &Bench, arguments: &[&str]) -> (String, String) {
    let output = bench.run_with(&[("COUNTERFOIL_LAKE__MAINTAIN", "off")], arguments);
    let (out, told) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {out}{told}");
    (out, told)
}

fn report(bench: &Bench, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--report", "report.json"]].concat();
    done(bench, &arguments);
    serde_json::from_slice(&fs::read(bench.path().join("report.json")).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn narrowed_schema_is_told_and_applied_and_the_widened_one_comes_with_a_full_extract() {
    let bench = Bench::new(120).await;
    let shipped = fs::read_to_string(bench.path().join("schemas/tickets.toml")).unwrap();
    let (_, told) = done(&bench, &["extract"]);
    assert!(!told.contains("policy: ") && !told.contains(LACKING), "{told}");
    let (_, told) = done(&bench, &["lake", "status"]);
    assert_eq!(told, "");
    let months = "SELECT count(*) AS n FROM ticket_versions WHERE created_at = date_trunc('month', created_at)";
    let count = |sql: &str| {
        let (out, _) = done(&bench, &["query", "-e", sql, "--format", "ndjson"]);
        serde_json::from_str::<Value>(&out).unwrap()["n"].clone()
    };
    assert_eq!(count("SELECT count(*) AS n FROM tickets"), 120);
    let before = count(months);
    assert_ne!(before, 120);
    let fees = count("SELECT count(*) AS n FROM information_schema.columns WHERE table_name = 'tickets'");

    // Narrower: told by status, doctor and extract.
    change(
        &bench,
        &[("created_at", "{ name = \"truncate\", to = \"month\" }"), ("priority", "\"drop\"")],
        Some("\"drop\""),
    );
    let (_, told) = done(&bench, &["lake", "status"]);
    assert!(told.starts_with(FORBIDDEN) && told.lines().count() == 1, "{told}");
    assert!(
        told.contains("created_at")
            && told.contains("priority")
            && told.contains("`counterfoil lake compact --apply-policy`")
    );
    let doctor = bench.run(&["doctor"]);
    assert!(text(&doctor.stdout).contains(FORBIDDEN), "{}", text(&doctor.stdout));
    let changed = bench.sandbox.organisation().pick(5);
    bench.sandbox.organisation().touch(&changed);
    let run = report(&bench, &["extract"]);
    let named = |run: &Value| -> Vec<String> {
        let changes = run["policy"]["changes"].as_array().unwrap().clone();
        changes.iter().map(|change| format!("{} {}", change["rule"], change["direction"]).replace('"', "")).collect()
    };
    assert_eq!(named(&run), ["created_at narrowed", "priority removed", "*Num removed"]);
    let stored = &run["policy"]["stored"]["tables"][0];
    assert!(
        stored["table"] == "tickets" && stored["files"].as_u64() >= Some(1) && stored["lacking_rows"] == 0,
        "{run}"
    );
    let (_, told) = done(&bench, &["extract"]);
    assert!(told.contains(FORBIDDEN) && !told.contains("policy: "), "a change is told once: {told}");

    // The plan changes nothing.
    let files = listing(&bench.path().join("lake"));
    let (plan, told) = done(&bench, &["lake", "compact", "--apply-policy", "--dry-run"]);
    assert!(plan.starts_with("tickets: "), "{plan}");
    assert!(
        plan.contains("  created_at: truncate(to=month) applied (") && plan.contains("  priority: removed ("),
        "{plan}"
    );
    assert!(told.is_empty(), "{told}");
    assert_eq!(listing(&bench.path().join("lake")), files);

    let (out, told) = done(&bench, &["lake", "compact", "--apply-policy"]);
    assert!(out.starts_with("version ") && out.contains("tickets"), "{out}");
    assert!(told.contains("tickets: column priority has left the table"), "{told}");
    assert!(told.contains("older versions still hold") && told.contains("--expire"), "{told}");
    assert_eq!(count(months), 125, "superseded rows too");
    assert_eq!(count("SELECT count(DISTINCT ticket_id) AS n FROM tickets"), 120);
    let gone = bench.run(&["query", "-e", "SELECT priority FROM tickets"]);
    assert_eq!(gone.status.code(), Some(6), "{}", text(&gone.stderr));
    assert_eq!(done(&bench, &["lake", "status"]).1, "");
    assert!(!done(&bench, &["extract"]).1.contains(FORBIDDEN));

    let (out, told) = done(&bench, &["lake", "compact", "--apply-policy", "--expire"]);
    assert_eq!(out, "");
    assert!(told.contains("older versions ended") && !told.contains("still hold"), "{told}");
    assert_eq!(count(months), 125);
    let verified = done(&bench, &["lake", "verify"]);
    assert!(!verified.0.contains("damaged"), "{verified:?}");

    // Wider again: what was stored before lacks it until a full extract.
    restore(&bench, &shipped);
    let run = report(&bench, &["extract"]);
    assert_eq!(named(&run), ["created_at widened", "priority added", "*Num added"]);
    let stored = &run["policy"]["stored"]["tables"][0];
    assert_eq!(
        (&stored["files"], &stored["lacking_rows"]),
        (&0.into(), &115.into()),
        "the five that the run read again have it: {run}"
    );
    assert_eq!(stored["lacking"], serde_json::json!(["*Num", "created_at", "priority"]));
    let (_, told) = done(&bench, &["extract"]);
    assert!(told.contains(&format!("{LACKING}115 rows (*Num, created_at, priority)")), "{told}");
    assert!(told.contains("`counterfoil extract --full` brings it"), "{told}");
    let (_, told) = done(&bench, &["extract", "--full"]);
    assert!(!told.contains(LACKING) && !told.contains(FORBIDDEN), "{told}");
    assert!(
        told.contains("tickets      115 changed, 5 seen again unchanged"),
        "the same revisions are written again: {told}"
    );
    assert_eq!(count("SELECT count(*) AS n FROM tickets"), 120);
    assert_eq!(count("SELECT count(priority) AS n FROM tickets"), 120);
    assert_eq!(count("SELECT count(*) AS n FROM information_schema.columns WHERE table_name = 'tickets'"), fees);
    assert_eq!(done(&bench, &["lake", "status"]).1, "");
    let (_, told) = done(&bench, &["extract", "--full"]);
    assert!(told.contains("tickets      120 seen again unchanged"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applying_a_policy_ends_in_the_exit_codes_of_its_failures() {
    let bench = Bench::new(30).await;
    done(&bench, &["extract"]);
    let (out, told) = done(&bench, &["lake", "compact", "--apply-policy"]);
    assert_eq!(
        (out.as_str(), told.as_str()),
        ("", "nothing that the newest version holds is forbidden by the policy\n")
    );
    let alone = bench.run(&["lake", "compact", "--expire"]);
    assert_eq!(alone.status.code(), Some(2), "{}", text(&alone.stderr));

    let shipped = fs::read_to_string(bench.path().join("schemas/tickets.toml")).unwrap();
    change(&bench, &[("ticket_id", "\"drop\"")], None);
    assert_fails(&bench.run(&["lake", "compact", "--apply-policy"]), 2, &["tickets.toml", "ticket_id"]);
    restore(&bench, &shipped);

    change(&bench, &[("priority", "\"drop\"")], None);
    let clock: SharedClock = std::sync::Arc::new(SystemClock);
    let root = crate::world::root(bench.path());
    let lake = Lake::open(&StoreSettings::new("file:lake", bench.path()), &root, clock).await.unwrap();
    let held = lake.lease(Purpose::Extract, "test").await.unwrap();
    assert_fails(&bench.run(&["lake", "compact", "--apply-policy", "--expire"]), 9, &["test"]);
    held.release().await.unwrap();
    let held = lake.lease(Purpose::Maintenance, "test").await.unwrap();
    assert_fails(&bench.run(&["lake", "compact", "--apply-policy"]), 9, &["test"]);
    held.release().await.unwrap();
    assert!(done(&bench, &["lake", "status"]).1.starts_with(FORBIDDEN), "nothing was changed");
    done(&bench, &["lake", "compact", "--apply-policy", "--table", "customers"]);
    assert!(done(&bench, &["lake", "status"]).1.starts_with(FORBIDDEN), "another table was named");
    done(&bench, &["lake", "compact", "--apply-policy", "--table", "tickets"]);
    assert_eq!(done(&bench, &["lake", "status"]).1, "");

    // A damaged file ends it, and what it holds stays told.
    change(&bench, &[("direction", "\"drop\"")], None);
    let paths = done(&bench, &["lake", "files", "--table", "tickets"]).0;
    let file = paths.split_whitespace().find(|word| word.starts_with("data/tickets/")).unwrap().to_owned();
    let path = bench.path().join("lake").join(file);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 4;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_fails(&bench.run(&["lake", "compact", "--apply-policy"]), 5, &["data/tickets/"]);
}
