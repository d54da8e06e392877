//! What only the source can tell: the credential, its region and roles, the clocks, the limits.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Findings;
use crate::cli::{Context, extract, grouped};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::kustomer::{BucketState, Claims, Client, Endpoint, SearchObject, SearchRequest};
use crate::lake::manifest::Manifest;
use crate::model::Stream;
use crate::policy::Policy;

/// A credential that expires sooner than this is to be renewed.
const EXPIRY_NOTICE: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Clocks apart by more than this are worth a word.
const CLOCKS_APART: Duration = Duration::from_secs(5);

/// No record has this id, so that asking for its details shows the role and nothing else.
const NOBODY: &str = "000000000000000000000000";

/// A request that shows whether a role is there.
struct Probe {
    endpoint: Endpoint,
    ask: Ask,
    need: Need,
}

enum Ask {
    Get(String),
    Search { object: SearchObject, archive: bool },
}

/// Who does not work without the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// An extract does not run.
    Extract,
    /// An extract runs and finds no custom attributes by pattern.
    Definitions,
    /// An extract runs and reads no business schedules.
    Schedules,
    /// `resolve` gives less.
    Resolve,
}

/// Asks the source as little as possible; returns how many requests that took.
pub(super) async fn check(
    context: &Context,
    config: &Config,
    policy: Option<&Policy>,
    manifest: Option<&Manifest>,
    findings: &mut Findings,
) -> Result<u64> {
    let client = match extract::client(context, config) {
        Ok(client) => client,
        Err(error) => {
            findings.failed("credential", &error)?;
            return skip(findings, "there is no credential to ask with").map(|()| 0);
        }
    };
    credential(context, config, findings)?;
    match client.check().await {
        Ok(_) => findings.ok("source", format!("{} accepts the credential", client.host()))?,
        Err(error) => {
            findings.failed(if error.kind() == ErrorKind::Denied { "credential" } else { "source" }, &error)?;
            return skip(findings, "the source does not let us in").map(|()| client.ledger().total());
        }
    }
    clocks(&client, findings)?;
    roles(&client, policy, context.clock.now(), findings).await?;
    limits(&client, manifest, findings)?;
    Ok(client.ledger().total())
}

fn skip(findings: &mut Findings, reason: &str) -> Result<()> {
    for check in ["clock", "roles", "limits"] {
        findings.skipped(check, reason)?;
    }
    Ok(())
}

/// Says what the credential tells of itself.
fn credential(context: &Context, config: &Config, findings: &mut Findings) -> Result<()> {
    let Some(reference) = &config.source.api_key else {
        return findings.ok("credential", "a login; its token is renewed when it expires");
    };
    // The client has just read it.
    let Some(claims) = reference.read(&config.base).ok().as_ref().and_then(Claims::of) else {
        return findings.ok("credential", format!("{reference}: a key that does not say when it expires"));
    };
    let mut seen = format!("{reference}: ");
    seen.push_str(match claims.user_type.as_deref() {
        Some("machine") => "key of a machine user",
        _ => "key",
    });
    if let Some(organisation) = &claims.organisation {
        let _ = write!(seen, " of {organisation}");
    }
    if let Some(pod) = &claims.pod {
        let _ = write!(seen, " in {pod}");
    }
    if let (Some(set), Some(own)) = (&config.source.org, &claims.organisation)
        && config.source.base_url.is_none()
        && !set.eq_ignore_ascii_case(own)
    {
        findings.warn(
            "credential",
            format!("the key belongs to {own}, and `source.org` is {set}"),
            "set `source.org` to the organisation of the key, or take the other's key",
        )?;
    }
    let renew = "make a new API key (Settings, Security, API Keys) and put it where the settings point to";
    let Some(expires) = claims.expires else {
        return findings.ok("credential", format!("{seen}, without an expiry"));
    };
    let left = expires.duration_since(context.clock.now());
    if left <= SignedDuration::ZERO {
        let seen = format!("{seen}, expired {expires:.0}");
        findings.problem("credential", ErrorKind::Denied, seen, renew)
    } else if left < EXPIRY_NOTICE {
        findings.warn("credential", format!("{seen}, expires {expires:.0}, in {}", days(left)), renew)
    } else {
        findings.ok("credential", format!("{seen}, expires {expires:.0}, in {}", days(left)))
    }
}

/// Says how long, in the unit that a person would plan with.
fn days(left: SignedDuration) -> String {
    let (count, unit) = match left.as_mins() {
        ..=0 => return "less than a minute".to_owned(),
        minutes @ 1..120 => (minutes, "minute"),
        minutes @ 120..2880 => (minutes / 60, "hour"),
        minutes => (minutes / (24 * 60), "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

fn clocks(client: &Client, findings: &mut Findings) -> Result<()> {
    let Some(offset) = client.clock_offset() else {
        return findings.ok("clock", "the source does not tell its time");
    };
    let apart = offset.unsigned_abs();
    if apart < CLOCKS_APART {
        return findings.ok("clock", "agrees with the source's");
    }
    let side = if offset.is_negative() { "behind" } else { "ahead of" };
    findings.warn(
        "clock",
        format!("this machine's is {} s {side} the source's", apart.as_secs()),
        "let NTP set it; runs go by the source's time where ours is ahead, and leave out the newest changes where it is behind",
    )
}

/// Asks each endpoint once, and names the roles that are missing.
async fn roles(client: &Client, policy: Option<&Policy>, now: Timestamp, findings: &mut Findings) -> Result<()> {
    let streams = policy.map_or_else(|| Stream::ALL.to_vec(), Policy::streams);
    let (mut answered, mut refused): (Vec<&str>, Vec<&str>) = Default::default();
    for probe in probes(&streams) {
        let endpoint = probe.endpoint;
        let error = match ask(client, &probe, now).await {
            Ok(()) => {
                if !answered.contains(&endpoint.name()) {
                    answered.push(endpoint.name());
                }
                continue;
            }
            Err(error) => error,
        };
        if refused.contains(&endpoint.name()) {
            continue;
        }
        refused.push(endpoint.name());
        if error.kind() != ErrorKind::Denied {
            findings.failed("roles", &error)?;
            continue;
        }
        let mend = match (endpoint.role(), endpoint.permission()) {
            (Some(role), Some(permission)) => format!(
                "make a new key with the role {role}, or {permission} where permission sets are used; \
                 the roles of a key cannot be changed"
            ),
            _ => "make a new key with the roles org.user.*: which one this list needs is not documented".to_owned(),
        };
        let seen = |loss: &str| format!("{endpoint}: refused, {loss}");
        match probe.need {
            Need::Extract => findings.problem("roles", ErrorKind::Denied, seen("an extract needs it"), mend)?,
            Need::Definitions => {
                findings.warn("roles", seen("custom attributes that are declared by pattern stay unknown"), mend)?;
            }
            Need::Schedules => {
                findings.warn(
                    "roles",
                    seen("an extract goes on without, and `business_seconds` knows no schedule"),
                    mend,
                )?;
            }
            Need::Resolve => findings.warn("roles", seen("`resolve` gives tickets without it"), mend)?,
        }
    }
    answered.retain(|endpoint| !refused.contains(endpoint));
    if answered.is_empty() { Ok(()) } else { findings.ok("roles", format!("{} answer", answered.join(", "))) }
}

fn probes(streams: &[Stream]) -> Vec<Probe> {
    let get = |endpoint: Endpoint, path: &str, need: Need| Probe { endpoint, ask: Ask::Get(path.to_owned()), need };
    let mut probes = Vec::new();
    for stream in streams {
        let (object, metadata) = match stream {
            Stream::Tickets => (SearchObject::Conversation, "/v1/metadata/conversation"),
            Stream::Customers => (SearchObject::Customer, "/v1/metadata/customer"),
            stream => {
                let need = if stream.is_dispensable() { Need::Schedules } else { Need::Extract };
                probes.extend(list(*stream).map(|(endpoint, path)| get(endpoint, path, need)));
                continue;
            }
        };
        for (endpoint, archive) in [(Endpoint::Search, false), (Endpoint::ArchiveSearch, true)] {
            probes.push(Probe { endpoint, ask: Ask::Search { object, archive }, need: Need::Extract });
        }
        probes.push(get(Endpoint::Metadata, metadata, Need::Definitions));
    }
    let of_nobody = |endpoint: Endpoint, part: &str| {
        get(endpoint, &format!("/v1/conversations/{NOBODY}{part}?page=1&pageSize=1"), Need::Resolve)
    };
    probes.push(get(Endpoint::Conversations, &format!("/v1/conversations/{NOBODY}"), Need::Resolve));
    probes.push(of_nobody(Endpoint::Messages, "/messages"));
    probes.push(of_nobody(Endpoint::Notes, "/notes"));
    probes.push(of_nobody(Endpoint::Attachments, "/attachments"));
    probes.push(get(Endpoint::Customers, &format!("/v1/customers/{NOBODY}"), Need::Resolve));
    probes
}

const fn list(stream: Stream) -> Option<(Endpoint, &'static str)> {
    Some(match stream {
        Stream::Users => (Endpoint::Users, "/v1/users?page=1&pageSize=1"),
        Stream::Teams => (Endpoint::Teams, "/v1/teams?page=1&pageSize=1"),
        Stream::Tags => (Endpoint::Tags, "/v1/tags?page=1&pageSize=1"),
        Stream::Queues => (Endpoint::Queues, "/v1/routing/queues?page=1&pageSize=1"),
        Stream::Brands => (Endpoint::Brands, "/v1/brands?page=1&pageSize=1"),
        Stream::Slas => (Endpoint::Slas, "/v1/slas?page=1&pageSize=1"),
        Stream::Schedules => (Endpoint::Schedules, "/v1/schedules?page=1&pageSize=1"),
        _ => return None,
    })
}

/// Sends a probe; what is not there is as good an answer as what is.
async fn ask(client: &Client, probe: &Probe, now: Timestamp) -> Result<(), Error> {
    match &probe.ask {
        Ask::Get(path) => client.get_optional(probe.endpoint, path).await.map(drop),
        Ask::Search { object, archive } => {
            let request = SearchRequest::builder(*object)
                .updated_between(0, now.as_millisecond())?
                .archive(*archive)
                .page(1, 1)
                .build();
            client.search(&request).await.map(drop)
        }
    }
}

/// Says what limits are reckoned with, and what the source allowed of a page.
fn limits(client: &Client, manifest: Option<&Manifest>, findings: &mut Findings) -> Result<()> {
    let budget = client.budget_state();
    let mut seen = format!(
        "{} of {} requests and {} of {} searches a minute at share {}",
        budget.organisation.allowed,
        budget.organisation.limit,
        budget.search.allowed,
        budget.search.limit,
        budget.share
    );
    if budget.organisation.reserve > 0 {
        let _ = write!(seen, ", {} left to people", budget.organisation.reserve);
    }
    let caps = manifest.and_then(|manifest| manifest.runs.iter().rev().find_map(|run| run.caps.as_ref()));
    if let Some(caps) = caps {
        let _ = write!(seen, "; pages of {} reach {} rows", caps.page_size, grouped(caps.window_rows));
    }
    let is_as_set = |bucket: &BucketState| bucket.said_limit.is_none_or(|said| said == bucket.configured);
    if is_as_set(&budget.organisation) && is_as_set(&budget.search) {
        return findings.ok("limits", seen);
    }
    let said = |bucket: &BucketState| bucket.said_limit.map_or_else(|| "nothing".to_owned(), |said| said.to_string());
    findings.warn(
        "limits",
        format!(
            "{seen}; the source says {} requests and {} searches",
            said(&budget.organisation),
            said(&budget.search)
        ),
        "set `source.plan`, or `source.org_rpm` and `source.search_rpm`, to what the source says",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_is_left_is_said_in_a_unit_to_plan_with() {
        let cases = [
            (30, "less than a minute"),
            (60, "1 minute"),
            (59 * 60, "59 minutes"),
            (3 * 3600, "3 hours"),
            (47 * 3600 + 3599, "47 hours"),
            (48 * 3600, "2 days"),
        ];
        for (seconds, said) in cases {
            assert_eq!(days(SignedDuration::from_secs(seconds)), said);
        }
    }
}
