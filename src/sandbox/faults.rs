//! Failures on purpose: each request may fail in one of several ways, decided by the seed and the number of the request.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use super::dice::hash;
use crate::error::{Error, Result};

/// A way to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answer with this status instead of the real one.
    Status(u16),
    /// Drop the connection in the answer.
    Reset,
    /// Send half of the body.
    Truncate,
    /// Send no body.
    Empty,
    /// Answer a search with `meta.timed_out` and half of the page.
    TimedOut,
    /// Wait some seconds before the answer.
    Slow,
    /// Spoil the body in its middle, so that it is no JSON and as long as promised.
    Garbled,
    /// Answer 200 with a page of HTML, as a proxy does.
    Html,
    /// Send half of the body and then nothing, with the connection open.
    Stall,
    /// Leave records out of a page of a search, and promise as many as before.
    Short,
    /// Answer 429 with a `Retry-After` of 0.
    RetryAtOnce,
}

const NAMES: [(&str, Fault); 10] = [
    ("reset", Fault::Reset),
    ("truncate", Fault::Truncate),
    ("empty", Fault::Empty),
    ("timed_out", Fault::TimedOut),
    ("slow", Fault::Slow),
    ("garbled", Fault::Garbled),
    ("html", Fault::Html),
    ("stall", Fault::Stall),
    ("short", Fault::Short),
    ("retry_at_once", Fault::RetryAtOnce),
];

/// Ways to fail with the share of requests that each befalls; by default none.
/// Written as `500:0.01,reset:0.005`: a status from 400 to 599, and `reset`, `truncate`, `empty`, `timed_out`, `slow`,
/// `garbled`, `html`, `stall`, `short`, `retry_at_once`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Faults(Vec<(Fault, f64)>);

impl Faults {
    /// Returns how request `number` fails, if it does.
    pub(super) fn of_request(&self, seed: u64, number: u64) -> Option<Fault> {
        let mut place = (hash(seed, 0x6661_756c, number) >> 11) as f64 / (1_u64 << 53) as f64;
        for (fault, share) in &self.0 {
            if place < *share {
                return Some(*fault);
            }
            place -= share;
        }
        None
    }
}

/// Failures of requests and routes that were named one by one.
#[derive(Debug, Default)]
pub(super) struct Plan(Mutex<(BTreeMap<u64, Fault>, BTreeMap<String, Fault>)>);

impl Plan {
    /// Lets request `number` fail.
    pub(super) fn of_request(&self, number: u64, fault: Fault) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.insert(number, fault);
    }

    /// Lets all requests of a route fail, or none of them.
    pub(super) fn of_route(&self, route: &str, fault: Option<Fault>) {
        let mut plan = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            Some(fault) => plan.1.insert(route.to_owned(), fault),
            None => plan.1.remove(route),
        };
    }

    /// Returns how a request is to fail, if it is.
    pub(super) fn take(&self, number: u64, route: &str) -> Option<Fault> {
        let mut plan = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        plan.0.remove(&number).or_else(|| plan.1.get(route).copied())
    }
}

impl FromStr for Fault {
    type Err = Error;

    /// Reads a name, or a status from 400 to 599.
    fn from_str(name: &str) -> Result<Self> {
        let names = || NAMES.map(|(name, _)| name).join(", ");
        let named = NAMES.iter().find(|(known, _)| *known == name).map(|(_, fault)| *fault);
        let status = || name.parse().ok().filter(|status| (400..600).contains(status)).map(Self::Status);
        named.or_else(status).ok_or_else(|| {
            Error::config("unknown fault")
                .with_context("fault", name)
                .with_hint(format!("known are the statuses from 400 to 599, {}", names()))
        })
    }
}

impl FromStr for Faults {
    type Err = Error;

    /// Reads `NAME:SHARE` pairs with commas between them; an empty text is no faults.
    fn from_str(text: &str) -> Result<Self> {
        let mut faults = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, share) = part.split_once(':').ok_or_else(|| {
                Error::config("a fault needs its share of the requests")
                    .with_context("fault", part)
                    .with_hint("write it as NAME:SHARE, for example 500:0.01")
            })?;
            let fault: Fault = name.trim().parse()?;
            let value: f64 =
                share.trim().parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| {
                    Error::config("the share of a fault must be from 0 to 1")
                        .with_context("fault", name)
                        .with_context("share", share)
                })?;
            faults.push((fault, value));
        }
        let sum: f64 = faults.iter().map(|(_, share)| share).sum();
        if sum > 1.0 + 1e-9 {
            return Err(Error::config("the shares of all faults are more than 1").with_context("sum", sum));
        }
        Ok(Self(faults))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_befall_their_share_of_requests() {
        let faults: Faults = "500:0.1, reset:0.2".parse().unwrap();
        let mut counts = [0; 2];
        for number in 0..10_000 {
            match faults.of_request(5, number) {
                Some(Fault::Status(500)) => counts[0] += 1,
                Some(Fault::Reset) => counts[1] += 1,
                Some(other) => panic!("{other:?} was not asked for"),
                None => {}
            }
        }
        assert!((800..1200).contains(&counts[0]) && (1800..2200).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn wrong_texts_are_refused_by_name() {
        for (text, named) in
            [("500", "500"), ("tea:0.1", "tea"), ("500:x", "x"), ("500:2", "2"), ("500:0.6,429:0.6", "1.2")]
        {
            let error = text.parse::<Faults>().unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::Config);
            assert!(error.to_string().contains(named), "{error}");
        }
        assert_eq!("".parse::<Faults>().unwrap(), Faults::default());
    }
}
