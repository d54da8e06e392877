//! `counterfoil sandbox`: the source in a box, until Ctrl-C.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Context, grouped, interruption, say};
use crate::error::{Error, Result};
use crate::sandbox::{IdsOnly, Oversize, RateLimitBody, RateWindow, RetryAfter, Sandbox, SandboxSettings, Thread};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum WindowArgument {
    Fixed,
    Sliding,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum BodyArgument {
    Json,
    Html,
    Empty,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RetryAfterArgument {
    Absent,
    Zero,
    Seconds,
    Absurd,
    HttpDate,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(super) struct Arguments {
    /// Port on loopback; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Tickets of the synthetic organisation
    #[arg(long, default_value_t = 20_000)]
    tickets: u64,
    /// Messages, notes and files of every ticket, as 2,1,1; by default that differs
    #[arg(long, value_name = "M,N,F", value_parser = thread_of)]
    thread: Option<Thread>,
    /// Accept several customers in one request, which is not documented
    #[arg(long)]
    several_customers: bool,
    /// Seed of the organisation: the same seed, the same records
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Requests a minute for the organisation
    #[arg(long, default_value_t = 1_000)]
    rpm: u32,
    /// Searches a minute
    #[arg(long, default_value_t = 100)]
    search_rpm: u32,
    /// Whether the rate limits forget all at once each minute, or each request a minute after it came
    #[arg(long, value_enum, default_value_t = WindowArgument::Fixed)]
    window: WindowArgument,
    /// Milliseconds that each answer takes besides
    #[arg(long, default_value_t = 0, value_name = "MS")]
    latency: u64,
    /// Seconds by which the search index is late
    #[arg(long, default_value_t = 0)]
    index_lag: u64,
    /// Days that the records reach back; more than 730 puts some behind the horizon of search, in the archive
    #[arg(long, default_value_t = 700)]
    history_days: u32,
    /// Rows that paging reaches
    #[arg(long, default_value_t = 10_000)]
    window_rows: u64,
    /// Refuse a pageSize over the maximum, instead of cutting it
    #[arg(long)]
    refuse_oversize: bool,
    /// No hundreds of records that share one updatedAt, whose order differs between requests
    #[arg(long)]
    no_ties: bool,
    /// With idsOnly, send texts instead of objects
    #[arg(long)]
    plain_ids: bool,
    /// The largest total that searches and lists tell
    #[arg(long, value_name = "N")]
    cap_totals: Option<u64>,
    /// The largest page of a search
    #[arg(long, default_value_t = 500, value_name = "N")]
    largest_page: u64,
    /// The body of a 429
    #[arg(long, value_enum, default_value_t = BodyArgument::Json)]
    limit_body: BodyArgument,
    /// The Retry-After of a 429
    #[arg(long, value_enum, default_value_t = RetryAfterArgument::Absent)]
    retry_after: RetryAfterArgument,
    /// Send no headers about the rate limits
    #[arg(long)]
    no_limit_headers: bool,
    /// A role that the key lacks, e.g. org.user.search.read; may be given several times
    #[arg(long, value_name = "ROLE")]
    without_role: Vec<String>,
    /// The status of an answer for want of a role
    #[arg(long, default_value_t = 403, value_parser = clap::value_parser!(u16).range(401..=403), value_name = "STATUS")]
    missing_role_status: u16,
    /// Seconds for which the key is accepted
    #[arg(long, value_name = "SECONDS")]
    key_expiry: Option<u64>,
    /// Seconds for which a signed link opens its attachment
    #[arg(long, default_value_t = 600)]
    link_ttl: u64,
    /// Seconds for which a token of a login is accepted
    #[arg(long, default_value_t = 2_592_000)]
    token_ttl: u64,
    /// Faults by probability, e.g. 500:0.01,reset:0.005,truncate:0.01
    #[arg(long, default_value = "")]
    faults: String,
}

/// Reads three numbers with commas between them.
fn thread_of(text: &str) -> std::result::Result<Thread, String> {
    let numbers: std::result::Result<Vec<u32>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    match numbers.as_deref() {
        Ok(&[messages, notes, attachments]) => Ok(Thread { messages, notes, attachments }),
        _ => Err("three numbers with commas between them are expected".to_owned()),
    }
}

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    if arguments.tickets == 0 {
        return Err(Error::config("an organisation has at least one ticket").with_context("--tickets", 0));
    }
    let settings = SandboxSettings {
        port: arguments.port,
        tickets: arguments.tickets,
        customers: (arguments.tickets / 3).max(1),
        thread: arguments.thread,
        several_customers: arguments.several_customers,
        seed: arguments.seed,
        org_rpm: arguments.rpm,
        search_rpm: arguments.search_rpm,
        window: match arguments.window {
            WindowArgument::Fixed => RateWindow::Fixed,
            WindowArgument::Sliding => RateWindow::Sliding,
        },
        latency: Duration::from_millis(arguments.latency),
        index_lag: Duration::from_secs(arguments.index_lag),
        history: Duration::from_hours(u64::from(arguments.history_days) * 24),
        result_window_rows: arguments.window_rows,
        oversize: if arguments.refuse_oversize { Oversize::Refuse } else { Oversize::Clamp },
        ties: !arguments.no_ties,
        ids_only: if arguments.plain_ids { IdsOnly::Strings } else { IdsOnly::Objects },
        capped_totals: arguments.cap_totals,
        largest_page_size: arguments.largest_page,
        rate_limit_body: match arguments.limit_body {
            BodyArgument::Json => RateLimitBody::Json,
            BodyArgument::Html => RateLimitBody::Html,
            BodyArgument::Empty => RateLimitBody::Empty,
        },
        retry_after: match arguments.retry_after {
            RetryAfterArgument::Absent => RetryAfter::Absent,
            RetryAfterArgument::Zero => RetryAfter::Zero,
            RetryAfterArgument::Seconds => RetryAfter::Seconds,
            RetryAfterArgument::Absurd => RetryAfter::Absurd,
            RetryAfterArgument::HttpDate => RetryAfter::HttpDate,
        },
        rate_limit_headers: !arguments.no_limit_headers,
        withheld_roles: arguments.without_role.clone(),
        missing_role_status: arguments.missing_role_status,
        key_expiry: arguments.key_expiry.map(Duration::from_secs),
        signed_link_ttl: Duration::from_secs(arguments.link_ttl),
        token_ttl: Duration::from_secs(arguments.token_ttl),
        faults: arguments.faults.parse()?,
        ..SandboxSettings::default()
    };
    let sandbox = Sandbox::start(settings, Arc::clone(&context.clock)).await?;
    say(&format!(
        "sandbox with {} tickets listens at {} (attachments at {}); Ctrl-C ends it",
        grouped(arguments.tickets),
        sandbox.base_url(),
        sandbox.attachments_url()
    ));
    say(&format!("export COUNTERFOIL_SOURCE__BASE_URL={}", sandbox.base_url()));
    say(&format!("export KUSTOMER_API_KEY={}", sandbox.api_key()));
    // Its index is as late as told and no later, so nothing is gained by leaving the newest minutes out.
    say(&format!("export COUNTERFOIL_EXTRACT__INDEX_LAG={}s", arguments.index_lag));
    say(&format!(
        "change records while it runs: curl -X POST {}/sandbox/touch -d '{{\"count\": 100}}' -H 'content-type: application/json'",
        sandbox.base_url()
    ));
    interruption().await;
    sandbox.shutdown().await;
    say("sandbox ended");
    Ok(())
}
