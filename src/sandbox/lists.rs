//! Pages: `page` and `pageSize` read and checked, `meta` and `links` written.

use super::refusal::Refusal;
use super::{Oversize, json::Json};

/// The query of a request, decoded.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: &str) -> Self {
        Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Tells whether a parameter is `true`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if (1..=1_000_000_000).contains(&number) => Ok(Some(number)),
            _ => Err(Refusal::bad_request("Must be a positive whole number.").about(name)),
        }
    }

    /// Writes the parameters other than the page, to be kept in links.
    fn others(&self) -> String {
        let mut others = url::form_urlencoded::Serializer::new(String::new());
        for (key, value) in self.0.iter().filter(|(key, _)| key != "page" && key != "pageSize") {
            others.append_pair(key, value);
        }
        let others = others.finish();
        if others.is_empty() { others } else { format!("&{others}") }
    }
}

/// Which page of which size is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) number: u64,
    pub(super) size: u64,
}

impl Page {
    pub(super) fn parse(query: &Query, most: u64, oversize: Oversize) -> Result<Self, Refusal> {
        let number = query.number("page")?.unwrap_or(1);
        let size = query.number("pageSize")?.unwrap_or(100.min(most));
        if size > most && oversize == Oversize::Refuse {
            return Err(Refusal::bad_request(format!("At most {most}.")).about("pageSize"));
        }
        Ok(Self { number, size: size.min(most.max(1)) })
    }

    /// Returns the place of the page's first row.
    pub(super) const fn first(self) -> u64 {
        (self.number - 1) * self.size
    }
}

/// How lists lie, where they are told to.
#[derive(Debug)]
pub(super) struct Manner {
    /// The largest total that is told.
    pub(super) capped_totals: Option<u64>,
    /// What stands before the path of the link to the next page.
    pub(super) next_link_prefix: String,
}

/// How a list describes itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meta {
    /// Page and size, as most lists.
    Page,
    /// Nothing, as the attachments of a conversation.
    Empty,
    /// Page, size and totals, as the list of customers.
    Totals,
    /// Totals, aggregations and whether it timed out.
    Search { timed_out: bool },
}

/// Opens a list's envelope, up to and including the `[` of its rows; `end_list` and `end_object` close it.
pub(super) fn open(json: &mut Json, meta: Meta, path: &str, query: &Query, page: Page, total: u64, manner: &Manner) {
    let others = query.others();
    let link = |number: u64| format!("{path}?page={number}&pageSize={}{others}", page.size);
    let pages = total.div_ceil(page.size);
    let told = total.min(manner.capped_totals.unwrap_or(u64::MAX));
    let told_pages = told.div_ceil(page.size);
    json.open().object("meta");
    if meta != Meta::Empty {
        json.int("pageSize", page.size as i64).int("page", page.number as i64);
    }
    if matches!(meta, Meta::Totals | Meta::Search { .. }) {
        json.int("total", told as i64).int("totalPages", told_pages as i64);
    }
    if let Meta::Search { timed_out } = meta {
        json.raw("aggregations", "{}").flag("timed_out", timed_out);
    }
    json.end_object().object("links").text("self", &link(page.number)).text("first", &link(1));
    if page.number > 1 {
        json.text("prev", &link(page.number - 1));
    } else {
        json.null("prev");
    }
    if page.number < pages {
        json.text("next", &format!("{}{}", manner.next_link_prefix, link(page.number + 1)));
    } else {
        json.null("next");
    }
    if matches!(meta, Meta::Totals | Meta::Search { .. }) {
        json.text("last", &link(told_pages.max(1)));
    }
    json.end_object().list("data");
}
