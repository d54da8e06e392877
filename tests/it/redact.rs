//! Details under the policy, as people ask for them: by the flag, by the setting, as lines and as threads.

use counterfoil::sandbox::SandboxSettings;
use serde_json::Value;

use crate::commands::{Bench, assert_fails, text};

/// What must not be shown of a record: texts of these keys, wherever they stand.
const PERSONAL: [&str; 2] = ["email", "phone"];

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(members) => {
            for (key, value) in members {
                match value {
                    Value::String(text) if PERSONAL.contains(&key.as_str()) && text.len() > 8 => {
                        found.push(text.clone());
                    }
                    _ => collect(value, found),
                }
            }
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redacted_details_have_no_subject_no_name_and_no_address() {
    let bench = Bench::with(SandboxSettings { tickets: 60, customers: 20, ..SandboxSettings::default() }).await;
    assert!(bench.run(&["extract"]).status.success());
    let organisation = bench.sandbox.organisation();
    let numbers: Vec<u64> = (0..12).map(|number| number * 5).collect();
    let ids: Vec<String> =
        numbers.iter().map(|number| organisation.conversation(*number)["id"].as_str().unwrap().to_owned()).collect();
    let mut personal = Vec::new();
    for number in &numbers {
        collect(&Value::Array(organisation.messages(*number)), &mut personal);
    }
    (0..20).for_each(|number| collect(&organisation.customer(number)["attributes"], &mut personal));
    assert!(personal.len() > 10, "{}", personal.len());

    let parts = "--only=conversation,customer,messages,notes,attachments,tags,metadata,events";
    let mut arguments = vec!["resolve", parts];
    arguments.extend(ids.iter().map(String::as_str));
    let open = bench.run(&arguments);
    assert!(open.status.success(), "{}", text(&open.stderr));
    let open = text(&open.stdout);
    let seen = personal.iter().filter(|text| open.contains(text.as_str())).count();
    assert!(seen > 5, "the needles are in what is not redacted: {seen}");
    assert!(!open.contains("\"redacted\":true,\"conversation\""));

    arguments.push("--redact");
    let redacted = bench.run(&arguments);
    assert!(redacted.status.success(), "{}", text(&redacted.stderr));
    arguments.push("--pretty");
    let thread = bench.run(&arguments);
    assert!(thread.status.success(), "{}", text(&thread.stderr));
    assert!(text(&thread.stdout).contains("by the policy"), "{}", text(&thread.stdout));
    for needle in &personal {
        assert!(!text(&redacted.stdout).contains(needle.as_str()), "{needle}");
        assert!(!text(&thread.stdout).contains(needle.as_str()), "{needle}");
    }
    let lines: Vec<Value> = text(&redacted.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), ids.len());
    for ((line, id), number) in lines.iter().zip(&ids).zip(&numbers) {
        assert_eq!((&line["ticket_id"], &line["redacted"]), (&Value::from(id.as_str()), &Value::Bool(true)));
        assert_eq!(line["errors"], Value::Array(Vec::new()));
        let (status, shown) = (&organisation.conversation(*number)["attributes"]["status"], &line["conversation"]);
        assert_eq!(
            (&shown["attributes"]["name"], &line["customer"]["attributes"]["name"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(&shown["attributes"]["status"], status, "declared fields stay");
        assert_eq!(line["messages"].as_array().unwrap().len(), organisation.messages(*number).len());
        assert!(line["messages"][0]["attributes"]["preview"].is_string(), "texts stay, scrubbed");
    }

    // The setting does what the flag does, and the lake's record of the access tells it.
    let settings = [("COUNTERFOIL_RESOLVE__REDACT", "true")];
    let mandatory = bench.run_with(&settings, &["resolve", &ids[0]]);
    assert!(text(&mandatory.stdout).contains("\"redacted\":true"), "{}", text(&mandatory.stderr));
    let counts = "SELECT redacted, count(DISTINCT access_id) AS n FROM accesses GROUP BY redacted ORDER BY redacted";
    let counts = bench.run(&["query", "-e", counts, "--format", "csv"]);
    assert_eq!(text(&counts.stdout), "redacted,n\nfalse,1\ntrue,3\n", "{}", text(&counts.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_lake_or_the_rules_nothing_is_shown() {
    let bench = Bench::new(30).await;
    let id = bench.sandbox.organisation().conversation(3)["id"].as_str().unwrap().to_owned();
    let settings = [("COUNTERFOIL_RESOLVE__ACCESS_RECORD", "false")];
    std::fs::rename(bench.path().join("schemas/customers.toml"), bench.path().join("customers.toml")).unwrap();
    assert_fails(&bench.run_with(&settings, &["resolve", "--redact", &id]), 2, &["customers"]);
    std::fs::rename(bench.path().join("customers.toml"), bench.path().join("schemas/customers.toml")).unwrap();
    std::fs::remove_dir_all(bench.path().join("lake")).unwrap();
    let output = bench.run_with(&settings, &["resolve", "--redact", &id]);
    assert!(!output.status.success());
    assert_eq!(text(&output.stdout), "");
    assert!(text(&output.stderr).contains("cannot be redacted without the lake"), "{}", text(&output.stderr));
    assert!(bench.run_with(&settings, &["resolve", &id]).status.success(), "the lake is needed for nothing else");
}
