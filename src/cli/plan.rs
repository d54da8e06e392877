//! `counterfoil plan`: what a run would cost, before it.
//!
//! With `--format json`: `format` (1; a reader refuses a higher number), `limits` by bucket, `now` and `full` with
//! `records` by stream, `requests` by endpoint, their sums, `requests_per_100_tickets` (null without tickets), `minutes`
//! and `slower_bucket`, and `counting_requests`, which the price itself took.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::extract::{self, Scope};
use super::{Context, grouped, print};
use crate::error::Result;
use crate::extract::price::{self, Bucket, Price, Pricing, Rates};
use crate::kustomer::Endpoint;

/// Version of the JSON.
const FORMAT: u32 = 1;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    scope: Scope,
    /// A table for people, or JSON for machines
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// How a command answers that is read by people and by machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Lines for people.
    Table,
    /// One JSON object.
    Json,
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    let mut config = context.settings()?;
    let settings = arguments.scope.settings(&mut config)?;
    let policy = extract::policy(&config)?;
    let client = extract::client(context, &config)?;
    let lake = context.lake(&config).await?;
    let manifest = lake.latest().await?;
    let pricing = price::price(&client, &policy, &manifest, &settings).await?;
    let rates = Rates::of(&client.budget_state());
    print(&match arguments.format {
        Format::Table => table(&pricing, &rates),
        Format::Json => json(&pricing, &rates).to_string() + "\n",
    })
}

fn table(pricing: &Pricing, rates: &Rates) -> String {
    let both = [&pricing.now, &pricing.full];
    let mut text = String::new();
    let mut line = |name: &str, cells: [String; 2], note: &str| {
        let [now, full] = cells;
        let written = format!("{name:<16} {now:>11} {full:>11}  {note}");
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", written.trim_end());
    };
    let number = |of: &dyn Fn(&Price) -> u64| both.map(|price| grouped(of(price)));
    line("", ["this run".to_owned(), "full run".to_owned()], "");
    for stream in pricing.full.records.keys() {
        line(stream.table(), number(&|price| price.records.get(stream).copied().unwrap_or_default()), "records");
    }
    line("", [String::new(), String::new()], "");
    let mut endpoints: Vec<Endpoint> = both.iter().flat_map(|price| price.requests.keys().copied()).collect();
    endpoints.sort_by_key(|endpoint| (endpoint.is_search(), endpoint.name()));
    endpoints.dedup();
    for endpoint in endpoints {
        let note = if endpoint.is_search() { "requests, in both limits" } else { "requests" };
        line(endpoint.name(), number(&|price| price.requests.get(&endpoint).copied().unwrap_or_default()), note);
    }
    line("in all", number(&Price::total), "requests");
    let rate = |price: &Price| price.per_100_tickets().map_or_else(|| "-".to_owned(), |rate| format!("{rate:.2}"));
    line("per 100 tickets", both.map(rate), "requests");
    for bucket in [Bucket::Organisation, Bucket::Search] {
        let allowed = u64::from(rates.allowed(bucket));
        let note = format!("at {} of {} a minute", grouped(allowed), grouped(u64::from(rates.limit(bucket))));
        line(&format!("  {}", bucket.name()), both.map(|price| minutes(price, rates, bucket)), &note);
    }
    let slower = both.map(|price| {
        let (lasting, bucket) = rates.duration(price.total(), price.searches());
        (format!("{:.1}", lasting.as_secs_f64() / 60.0), bucket)
    });
    let note = format!("at least; {} decides", slower[1].1.name());
    line("minutes", slower.map(|(minutes, _)| minutes), &note);
    let _ = writeln!(text, "\nThis price took {} counting requests.", pricing.counting_requests);
    text
}

/// How long one bucket alone makes the requests last.
fn minutes(price: &Price, rates: &Rates, bucket: Bucket) -> String {
    let (lasting, _) = match bucket {
        Bucket::Organisation => rates.duration(price.total(), 0),
        Bucket::Search => rates.duration(0, price.searches()),
    };
    format!("{:.1}", lasting.as_secs_f64() / 60.0)
}

fn json(pricing: &Pricing, rates: &Rates) -> Value {
    let limits: BTreeMap<&str, Value> = [Bucket::Organisation, Bucket::Search]
        .into_iter()
        .map(|bucket| {
            (bucket.name(), json!({ "per_minute": rates.limit(bucket), "allowed_per_minute": rates.allowed(bucket) }))
        })
        .collect();
    let price = |price: &Price| {
        let (lasting, slower) = rates.duration(price.total(), price.searches());
        let records: BTreeMap<&str, u64> =
            price.records.iter().map(|(stream, records)| (stream.table(), *records)).collect();
        json!({
            "records": records,
            "requests": price.by_name(),
            "requests_total": price.total(),
            "searches_total": price.searches(),
            "requests_per_100_tickets": price.per_100_tickets(),
            "minutes": lasting.as_secs_f64() / 60.0,
            "slower_bucket": slower.name(),
        })
    };
    json!({
        "format": FORMAT,
        "share": rates.share,
        "limits": limits,
        "now": price(&pricing.now),
        "full": price(&pricing.full),
        "counting_requests": pricing.counting_requests,
    })
}
