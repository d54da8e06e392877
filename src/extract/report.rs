//! The report of a run as JSON, for whoever reads it in a program.
//!
//! | key | is |
//! |---|---|
//! | `format` | 1; a reader refuses a higher number, and ignores keys that it does not know |
//! | `run` | the record that the lake keeps: id, times, outcome, `streams` with their figures, `requests`, `planned` and `received_bytes` by endpoint, `failed` by cause, `waits_ms` by reason |
//! | `complete` | whether every stream is proven complete |
//! | `requests_spent`, `requests_planned` | sums of both |
//! | `requests_per_100_tickets` | of all streams |
//! | `waited_seconds` | by reason |
//! | `left` | what the run did not reach: `records`, `requests`, and `streams` that it did not come to |
//! | `quarantine` | fields that were seen and not stored as declared: `stream`, `field`, `type`, `reason`, `count` |
//! | `policy` | `digest`; `changes`: rules that differ from those by which the lake was written before (`table`, `rule`, `is_custom`, `from`, `to`, `direction`); `stored`: how what is stored stands to it after the run: by table, `columns` of `files` that hold what is forbidden and what `becomes` of them, and what `lacking_rows` are `lacking` |
//!
//! A new key may come without a new `format`; a key that goes or changes its meaning makes a new one.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::extract::RunReport;

/// Version of the JSON.
const FORMAT: u32 = 1;

/// What a run did not reach, as far as it can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Records of the streams that were begun.
    pub records: u64,
    /// Requests that were planned for them and not spent.
    pub requests: u64,
}

impl RunReport {
    /// Returns what the run did not reach of the streams that it began.
    #[must_use]
    pub fn left(&self) -> Left {
        let missing = |run: &crate::lake::run::StreamRun| run.expected.saturating_sub(run.distinct);
        let records = self.run.streams.iter().filter(|run| !run.complete).map(missing).sum();
        let unspent = |(endpoint, planned): (&String, &u64)| {
            planned.saturating_sub(self.run.requests.get(endpoint).copied().unwrap_or_default())
        };
        let requests = if records > 0 { self.run.planned.iter().map(unspent).sum::<u64>().max(1) } else { 0 };
        Left { records, requests }
    }

    /// Returns the report as JSON; its shape stands in this module's header.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let quarantine: Vec<Value> = self
            .quarantine
            .iter()
            .map(|(stream, field)| {
                json!({
                    "stream": stream.table(),
                    "field": field.path,
                    "type": field.json_type,
                    "reason": field.reason.name(),
                    "count": field.count,
                })
            })
            .collect();
        let waits: BTreeMap<_, _> = self.ledger.waited.iter().map(|(name, wait)| (name, wait.as_secs_f64())).collect();
        let left = self.left();
        json!({
            "format": FORMAT,
            "run": self.run,
            "complete": self.complete,
            "requests_spent": self.run.requests.values().sum::<u64>(),
            "requests_planned": self.run.planned.values().sum::<u64>(),
            "requests_per_100_tickets": self.requests_per_100_tickets,
            "waited_seconds": waits,
            "left": {
                "records": left.records,
                "requests": left.requests,
                "streams": self.unreached.iter().map(|stream| stream.table()).collect::<Vec<_>>(),
            },
            "quarantine": quarantine,
            "policy": {
                "digest": self.run.policy,
                "changes": self.policy_changes,
                "stored": self.survey,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::kustomer::Ledger;
    use crate::lake::Survey;
    use crate::lake::run::{RunRecord, StreamRun};
    use crate::model::Stream;
    use crate::policy::{Quarantined, Reason};

    fn report() -> RunReport {
        let customers = StreamRun {
            stream: "customers".to_owned(),
            range_ms: Some((0, 9)),
            expected: 900,
            distinct: 400,
            ..StreamRun::default()
        };
        let mut ledger = Ledger::default();
        ledger.requests.insert("search", 3);
        ledger.waited.insert("search budget", Duration::from_millis(1_500));
        RunReport {
            run: RunRecord {
                id: "0198".to_owned(),
                started_ms: 1,
                ended_ms: Some(2),
                outcome: "incomplete".to_owned(),
                streams: vec![customers],
                requests: [("search".to_owned(), 3)].into(),
                planned: [("search".to_owned(), 5), ("users".to_owned(), 1)].into(),
                waits_ms: [("search budget".to_owned(), 1_500)].into(),
                ..RunRecord::default()
            },
            ledger,
            requests_per_100_tickets: 300.0,
            complete: false,
            quarantine: vec![(
                Stream::Customers,
                Quarantined {
                    path: "attributes.custom.noteTxt".to_owned(),
                    json_type: "text",
                    reason: Reason::Undeclared,
                    count: 7,
                },
            )],
            unreached: vec![Stream::Tickets],
            policy_changes: Vec::new(),
            survey: Survey::default(),
        }
    }

    #[test]
    fn report_has_the_shape_that_is_documented() {
        let json = report().to_json();
        assert_eq!(json["format"], 1);
        assert_eq!(json["run"]["streams"][0]["expected"], 900);
        assert_eq!((&json["run"]["planned"]["search"], &json["run"]["requests"]["search"]), (&json!(5), &json!(3)));
        assert_eq!((&json["requests_spent"], &json["requests_planned"]), (&json!(3), &json!(6)));
        assert_eq!(json["waited_seconds"], json!({ "search budget": 1.5 }));
        assert_eq!(json["left"], json!({ "records": 500, "requests": 3, "streams": ["tickets"] }));
        assert_eq!(
            json["quarantine"],
            json!([{ "stream": "customers", "field": "attributes.custom.noteTxt", "type": "text",
                     "reason": "undeclared", "count": 7 }])
        );
        let documented: Vec<&str> =
            include_str!("report.rs").lines().filter_map(|line| line.strip_prefix("//! | `")).collect();
        let documented = documented.join(" ");
        for key in json.as_object().unwrap().keys() {
            assert!(documented.contains(key.as_str()), "{key} is not in the header");
        }
    }

    #[test]
    fn records_of_older_programs_are_read() {
        let old = r#"{"id":"a","started_ms":1,"ended_ms":null,"outcome":"complete","policy":"p","streams":[
            {"stream":"tickets","range_ms":[0,1],"segments":1,"promised":2,"received":2,"distinct":2,"inserted":2,"updated":0,
             "unchanged":0,"deleted":0,"complete":true,"digest":""}],"requests":{"search":1},"waited_ms":0}"#;
        let run: RunRecord = serde_json::from_str(old).unwrap();
        assert!(run.planned.is_empty() && run.waits_ms.is_empty());
        assert_eq!(run.streams[0].expected, 0);
    }
}
