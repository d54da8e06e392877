//! Compaction as operators meet it: by hand, after an extract, beside one, and on rows of the shipped schemas.

use std::time::Duration;

use counterfoil::extract::ExtractSettings;
use counterfoil::lake::manifest::Manifest;
use counterfoil::lake::{CompactSettings, Lake, MaintainSettings, Purpose, StoreSettings};
use counterfoil::model::Stream;
use serde_json::Value;

use crate::commands::{Bench, listing, text};
use crate::world::{World, rows};

/// Everything that queries see of the tickets and the customers, in one order.
async fn everything(world: &World, lake: &Lake) -> Vec<Vec<Value>> {
    let manifest = lake.latest().await.unwrap();
    let mut tables = Vec::new();
    for (table, key) in [
        ("tickets", "ticket_id"),
        ("ticket_versions", "ticket_id"),
        ("customers", "customer_id"),
        ("customer_versions", "customer_id"),
    ] {
        let sql = format!("SELECT * FROM {table} ORDER BY {key}, updated_at, rev");
        tables.push(rows(lake, manifest.clone(), world.shared_clock(), &sql).await);
    }
    tables
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extracts_and_compactions_in_turn_end_in_the_rows_of_extracts_alone() {
    let world = World::with_tickets(500).await;
    let settings =
        ExtractSettings { index_lag: Duration::ZERO, commit_rows: 50, page_size: 50, ..ExtractSettings::default() };
    world.extract_with(&world.client(), &settings).await.unwrap();
    let small = CompactSettings { target_rows: 1_000, ..CompactSettings::default() };
    let live = world.sql("SELECT count(*) AS n FROM tickets").await[0]["n"].clone();
    for round in 0..2 {
        let manifest = world.lake.latest().await.unwrap();
        let before = everything(&world, &world.lake).await;
        let report = world.lake.compact(&small, "test", |_| ()).await.unwrap();
        assert!(!report.done.is_empty());
        let after = world.lake.latest().await.unwrap();
        // Later rounds move superseded rows to files of their own.
        let files = |manifest: &Manifest| manifest.tables[&Stream::Tickets].files.len();
        assert!(round > 0 || files(&after) * 2 < files(&manifest), "{report:?}");
        assert_eq!(round > 0, report.done.iter().any(|done| done.rows_moved > 0), "{report:?}");
        // Another process reads the same.
        assert_eq!(everything(&world, &world.reopened().await.unwrap()).await, before, "round {round}");
        let old = rows(&world.lake, manifest, world.shared_clock(), "SELECT count(*) AS n FROM ticket_versions").await;
        assert_eq!(old[0]["n"], before[1].len(), "the version before reads its own files");
        assert!(Lake::plan_compaction(&after, &small).is_empty());

        let changed = world.sandbox.organisation().pick(150);
        world.sandbox.organisation().touch(&changed);
        let run = world.extract_with(&world.client(), &settings).await.unwrap();
        assert!(run.complete);
        let found = world.sql("SELECT count(*) AS n, count(DISTINCT ticket_id) AS ids FROM tickets").await;
        assert_eq!((&found[0]["n"], &found[0]["ids"]), (&live, &live));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_beside_an_extract_loses_nothing_of_it() {
    let world = World::with_tickets(1_500).await;
    let settings =
        ExtractSettings { index_lag: Duration::ZERO, commit_rows: 100, page_size: 100, ..ExtractSettings::default() };
    world.extract_with(&world.client(), &settings).await.unwrap();
    let changed = world.sandbox.organisation().pick(700);
    world.sandbox.organisation().touch(&changed);
    let live = world.sql("SELECT count(*) AS n FROM tickets").await[0]["n"].clone();
    let all = world.sql("SELECT count(*) AS n FROM ticket_versions").await[0]["n"].as_u64().unwrap();
    let small = CompactSettings { target_rows: 1_000, ..CompactSettings::default() };
    let tidy = world.reopened().await.unwrap();
    let (client, full) = (world.client(), ExtractSettings { full: true, ..settings });
    let run = world.extract_with(&client, &full);
    let (run, compacted) = tokio::join!(run, async {
        let mut tasks = 0;
        for _ in 0..4 {
            tasks += tidy.compact(&small, "test", |_| ()).await.unwrap().done.len();
            tokio::task::yield_now().await;
        }
        tasks
    });
    assert!(run.unwrap().complete);
    assert!(compacted > 0);
    let found = world.sql("SELECT count(*) AS n, count(DISTINCT ticket_id) AS ids FROM tickets").await;
    assert_eq!((&found[0]["n"], &found[0]["ids"]), (&live, &live));
    let found = world.sql("SELECT count(*) AS n FROM ticket_versions").await;
    assert_eq!(found[0]["n"], all + 700, "each revision once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_prints_the_plan_and_then_what_it_did() {
    let bench = Bench::new(400).await;
    let many = [
        ("COUNTERFOIL_EXTRACT__COMMIT_ROWS", "50"),
        ("COUNTERFOIL_EXTRACT__PAGE_SIZE", "50"),
        ("COUNTERFOIL_LAKE__MAINTAIN", "off"),
    ];
    let run = |arguments: &[&str]| bench.command(arguments).envs(many).output().unwrap();
    assert!(run(&["extract"]).status.success());
    let before = listing(&bench.path().join("lake"));
    let dry = run(&["lake", "compact", "--dry-run", "--table", "tickets"]);
    assert!(dry.status.success(), "{}", text(&dry.stderr));
    let plan = text(&dry.stdout);
    assert!(plan.starts_with("tickets: ") && !plan.contains("customers"), "{plan}");
    let named = plan.lines().filter(|line| line.starts_with("  data/tickets/")).count();
    assert!(named > 2, "{plan}");
    assert_eq!(listing(&bench.path().join("lake")), before, "nothing was written");

    let done = run(&["lake", "compact", "--table", "tickets"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let (out, told) = (text(&done.stdout), text(&done.stderr));
    assert!(out.starts_with("version ") && out.contains("tickets") && !out.contains("customers"), "{out}");
    assert!(told.contains(&format!("tickets: {named} files of 400 rows are 1 now")), "{told}");
    let again = run(&["lake", "compact", "--table", "tickets"]);
    assert_eq!((text(&again.stdout), text(&again.stderr)), (String::new(), "nothing to compact\n".to_owned()));
}

/// Paths of the data files of the tickets.
fn parquet(bench: &Bench) -> Vec<String> {
    let found = listing(&bench.path().join("lake/data/tickets")).into_iter().map(|(path, _)| path);
    found.filter(|path| path.ends_with(".parquet")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extract_compacts_when_it_is_due_and_says_so() {
    let bench = Bench::new(2_000).await;
    let settings = |maintain| {
        [
            ("COUNTERFOIL_EXTRACT__COMMIT_ROWS", "50"),
            ("COUNTERFOIL_EXTRACT__PAGE_SIZE", "50"),
            ("COUNTERFOIL_LAKE__MAINTAIN", maintain),
        ]
    };
    let off = bench.command(&["extract"]).envs(settings("off")).output().unwrap();
    assert!(off.status.success() && !text(&off.stderr).contains("compacted"), "{}", text(&off.stderr));
    let wrong = bench.command(&["extract"]).envs(settings("sometimes")).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("lake.maintain"), "{}", text(&wrong.stderr));

    let files = || parquet(&bench).len();
    let before = files();
    assert!(before >= 16, "{before}");
    let auto = bench.command(&["extract"]).envs(settings("auto")).output().unwrap();
    assert!(auto.status.success(), "{}", text(&auto.stderr));
    assert!(text(&auto.stderr).contains("tickets: compacted "), "{}", text(&auto.stderr));
    assert!(files() > before, "old files stay until they are collected");
    let listed = text(&bench.run(&["lake", "files", "--table", "tickets"]).stdout).lines().count();
    assert!(listed < 4, "{listed}");
    let calm = bench.command(&["extract"]).envs(settings("auto")).output().unwrap();
    assert!(calm.status.success() && !text(&calm.stderr).contains("compacted"), "{}", text(&calm.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maintenance_that_fails_or_is_held_elsewhere_does_not_change_how_an_extract_ends() {
    let bench = Bench::new(2_000).await;
    let settings = |maintain| {
        [
            ("COUNTERFOIL_EXTRACT__COMMIT_ROWS", "50"),
            ("COUNTERFOIL_EXTRACT__PAGE_SIZE", "50"),
            ("COUNTERFOIL_LAKE__MAINTAIN", maintain),
        ]
    };
    assert!(bench.command(&["extract"]).envs(settings("off")).output().unwrap().status.success());
    let lake = {
        let clock: counterfoil::clock::SharedClock = std::sync::Arc::new(counterfoil::clock::SystemClock);
        Lake::open(&StoreSettings::new("file:lake", bench.path()), &crate::world::root(bench.path()), clock)
            .await
            .unwrap()
    };
    let held = lake.lease(Purpose::Maintenance, "test").await.unwrap();
    let report = lake.maintain(&MaintainSettings::default(), "another").await.unwrap();
    assert!(report.is_held);
    let skipped = bench.command(&["extract"]).envs(settings("auto")).output().unwrap();
    assert!(skipped.status.success(), "{}", text(&skipped.stderr));
    assert!(!text(&skipped.stderr).contains("maint"), "said only at -v: {}", text(&skipped.stderr));
    held.release().await.unwrap();

    // A file that the extract does not read again, and that a compaction does.
    let path = parquet(&bench).swap_remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 4;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let warned = bench.command(&["extract"]).envs(settings("auto")).output().unwrap();
    assert!(warned.status.success(), "{}", text(&warned.stderr));
    let told = text(&warned.stderr);
    assert!(told.contains("maintenance of the lake failed") && told.contains("counterfoil lake compact"), "{told}");
    let by_hand = bench.run(&["lake", "compact"]);
    assert_eq!(by_hand.status.code(), Some(5), "{}", text(&by_hand.stderr));
}
