//! `counterfoil sandbox`: the source in a box, until Ctrl-C.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::{Context, grouped, interruption, say};
use crate::error::{Error, Result};
use crate::sandbox::{Oversize, Sandbox, SandboxSettings};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Port on loopback; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Tickets of the synthetic organisation
    #[arg(long, default_value_t = 20_000)]
    tickets: u64,
    /// Seed of the organisation: the same seed, the same records
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Requests a minute for the organisation
    #[arg(long, default_value_t = 1_000)]
    rpm: u32,
    /// Searches a minute
    #[arg(long, default_value_t = 100)]
    search_rpm: u32,
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

pub(super) async fn run(context: &Context, arguments: &Arguments) -> Result<()> {
    if arguments.tickets == 0 {
        return Err(Error::config("an organisation has at least one ticket").with_context("--tickets", 0));
    }
    let settings = SandboxSettings {
        port: arguments.port,
        tickets: arguments.tickets,
        customers: (arguments.tickets / 3).max(1),
        seed: arguments.seed,
        org_rpm: arguments.rpm,
        search_rpm: arguments.search_rpm,
        index_lag: Duration::from_secs(arguments.index_lag),
        history: Duration::from_hours(u64::from(arguments.history_days) * 24),
        result_window_rows: arguments.window_rows,
        oversize: if arguments.refuse_oversize { Oversize::Refuse } else { Oversize::Clamp },
        ties: !arguments.no_ties,
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
