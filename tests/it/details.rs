//! Resolve against the sandbox's own data.

use counterfoil::resolve::{self, Hooks, ResolveSettings};
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn details_equal_the_source() {
    let world = World::with_tickets(300).await;
    let organisation = world.sandbox.organisation();
    let numbers: Vec<u64> = (0..60).map(|n| (n * 37) % 300).collect();
    let ids: Vec<_> = numbers
        .iter()
        .map(|number| organisation.conversation(*number)["id"].as_str().unwrap().parse().unwrap())
        .collect();
    let mut out = Vec::new();
    let settings = ResolveSettings::default();
    let outcome = resolve::run(&world.client(), &ids, &settings, Hooks::default(), &world.shared_clock(), &mut out)
        .await
        .unwrap();
    assert!(outcome.is_complete(), "{outcome:?}");
    let lines: Vec<Value> =
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), numbers.len());
    let customers: std::collections::HashMap<String, Value> = (0..organisation.customers())
        .map(|number| organisation.customer(number))
        .map(|record| (record["id"].as_str().unwrap().to_owned(), record))
        .collect();
    let mut attachments = 0;
    for (line, number) in lines.iter().zip(&numbers) {
        let record = organisation.conversation(*number);
        assert_eq!(line["ticket_id"], record["id"]);
        assert_eq!(line["conversation"], record);
        let customer = record["relationships"]["customer"]["data"]["id"].as_str().unwrap();
        assert_eq!(line["customer"], customers[customer]);
        // With the attachments asked for, a message has one relationship more than its plain record.
        let plain = |records: &[Value]| -> Vec<Value> {
            records.iter().map(|record| json!([record["type"], record["id"], record["attributes"]])).collect()
        };
        assert_eq!(plain(line["messages"].as_array().unwrap()), plain(&organisation.messages(*number)));
        assert_eq!(line["notes"], json!(organisation.notes(*number)));
        let tags: Vec<&Value> = line["tags"].as_array().unwrap().iter().map(|tag| &tag["id"]).collect();
        assert_eq!(json!(tags), record["attributes"]["tags"]);
        assert!(line["tags"].as_array().unwrap().iter().all(|tag| tag["name"].is_string()), "{}", line["tags"]);
        assert_eq!(line["errors"], json!([]));
        attachments += line["attachments"].as_array().unwrap().len();
    }
    assert!(attachments > 0, "some of them have attachments");
    let text = serde_json::to_string(&lines).unwrap();
    assert!(!text.contains("X-Amz"), "no signed link leaves the program");
}
