//! Business schedules from the source to `business_seconds`, and a source that does not give them.

use std::time::Duration;

use counterfoil::extract::ExtractSettings;
use counterfoil::sandbox::SandboxSettings;
use serde_json::json;

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_are_measured_by_the_hours_and_holidays_that_the_source_tells() {
    let world = World::with_tickets(40).await;
    let report = world.extract().await.unwrap();
    assert!(report.complete);
    assert_eq!(report.run.requests["schedules"], 1, "hours and holidays come in one request");
    assert!(report.quarantine.iter().all(|(stream, _)| stream.table() != "schedules"), "{:?}", report.quarantine);
    let rows = world.sql("SELECT name, timezone, is_default, deleted, hours, holidays FROM schedules ORDER BY 1").await;
    assert_eq!(rows.len(), 4);
    assert_eq!(
        rows[3],
        json!({
            "name": "Voice line", "timezone": "America/New_York", "is_default": false, "deleted": false,
            "hours": ["mon 20:00-24:00", "tue 00:00-04:00", "tue 20:00-24:00", "wed 00:00-04:00", "wed 20:00-24:00",
                "thu 00:00-04:00", "thu 20:00-24:00", "fri 00:00-04:00", "fri 20:00-24:00", "sat 00:00-04:00"],
            "holidays": ["2026-11-26T05:00:00.000Z/2026-11-27T04:59:59.999Z", "2027-01-01T05:00:00.000Z/2027-01-02T04:59:59.999Z"],
        })
    );
    let hour = 3_600;
    for (schedule, from, to, expected) in [
        // Thursday and Monday around a holiday on Friday: 07:00 to 11:00 and 12:00 to 15:00 UTC, Monday's first hour.
        ("default", "2026-04-30T00:00:00Z", "2026-05-04T07:00:00Z", 8 * hour + hour),
        // The disabled holiday counts as a day like any other.
        ("Support Europe", "2026-06-11T00:00:00Z", "2026-06-12T00:00:00Z", 8 * hour),
        // Friday's night goes on after midnight; Thanksgiving takes Thursday, from midnight to midnight.
        ("Voice line", "2026-11-20T12:00:00Z", "2026-11-21T12:00:00Z", 8 * hour),
        ("Voice line", "2026-11-25T12:00:00Z", "2026-11-27T12:00:00Z", 4 * hour + 4 * hour),
        ("Around the clock", "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z", 31 * 24 * hour),
    ] {
        let sql = format!("SELECT business_seconds('{from}', '{to}', '{schedule}') AS s");
        assert_eq!(world.sql(&sql).await, [json!({ "s": expected })], "{schedule} {from} {to}");
    }
    let sql = "SELECT count(*) AS n FROM tickets WHERE business_seconds(created_at, last_done_at, 'default') > date_part('epoch', last_done_at - created_at)";
    assert_eq!(world.sql(sql).await, [json!({ "n": 0 })], "no wait is longer in business hours");
    let described = world.sql("DESCRIBE schedules").await;
    assert_eq!(described[3]["column_name"], "hours");
    assert_eq!((&described[3]["data_type"], &described[3]["class"]), (&json!("text[]"), &json!("internal")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn source_that_refuses_schedules_costs_the_table_and_not_the_run() {
    for status in [403, 401] {
        let settings = SandboxSettings {
            tickets: 40,
            customers: 10,
            withheld_roles: vec!["org.user.schedule.read".to_owned()],
            missing_role_status: status,
            ..SandboxSettings::default()
        };
        let world = World::new(settings).await;
        let report = world.extract().await.unwrap();
        assert!(report.complete);
        assert_eq!(report.run.denied, ["schedules"]);
        assert!(report.run.streams.iter().all(|run| run.stream != "schedules"));
        assert_eq!(world.sql("SELECT count(*) AS n FROM tickets").await[0]["n"], 40);
        // It is asked for again, for rights are given while nobody tells.
        world.clock.advance(Duration::from_mins(1));
        let settings = ExtractSettings { index_lag: Duration::ZERO, ..ExtractSettings::default() };
        let second = world.extract_with(&world.client(), &settings).await.unwrap();
        assert_eq!(second.run.denied, ["schedules"]);
        let lake = world.reopened().await.unwrap();
        let runs = lake.latest().await.unwrap().runs.iter().map(|run| run.denied.clone()).collect::<Vec<_>>();
        assert_eq!(runs, [["schedules"], ["schedules"]], "the lake keeps what was denied");
    }
}
