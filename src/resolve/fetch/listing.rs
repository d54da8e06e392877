//! Lists of a ticket, page by page: messages, notes, events.
//!
//! A link to the next page is followed only within the list that it came from: never to another host or endpoint.

use std::collections::HashSet;

use super::Session;
use crate::kustomer::Endpoint;
use crate::resolve::detail::Failure;
use crate::resolve::page::{Attachment, Page, Resource};
use crate::resolve::source::Source;

/// Pages of one list that are followed: 10,000 messages.
const MOST_PAGES: usize = 100;

/// The pages of one list, as far as they were received.
#[derive(Default)]
pub(super) struct Listing {
    pages: usize,
    pub(super) resources: Vec<Resource>,
    pub(super) attachments: Vec<Attachment>,
    pub(super) failure: Option<Failure>,
}

impl Listing {
    /// Makes the list of a ticket that has none of its kind.
    pub(super) fn empty() -> Self {
        Self { pages: 1, ..Self::default() }
    }

    /// Tells whether there is something to deliver: all pages, or those before a failure.
    pub(super) const fn is_received(&self) -> bool {
        self.failure.is_none() || self.pages > 0
    }

    /// Tells whether the whole list was received and holds nothing.
    pub(super) fn is_known_empty(&self) -> bool {
        self.failure.is_none() && self.resources.is_empty()
    }
}

impl<S: Source> Session<'_, S> {
    /// Follows a list from its first page to its last. A record that a page repeats, because others moved, is taken once.
    pub(super) async fn pages(&self, endpoint: Endpoint, first: String) -> Listing {
        let mut listing = Listing::default();
        let mut seen = HashSet::new();
        let mut files = HashSet::new();
        let mut path = first.clone();
        loop {
            let page = match self.ask(endpoint, &path).await {
                Ok(Some(body)) => Page::decode(&body).map_err(|_| Failure::Unreadable),
                Ok(None) => Err(Failure::Gone),
                Err(failure) => Err(failure),
            };
            let page = match page {
                Ok(page) => page,
                Err(failure) => {
                    listing.failure = Some(failure);
                    return listing;
                }
            };
            listing.pages += 1;
            let (mut received, mut fresh) = (0, 0);
            for resource in page.resources {
                received += 1;
                if resource.id.as_ref().is_none_or(|id| seen.insert(id.clone())) {
                    fresh += 1;
                    listing.resources.push(resource);
                }
            }
            for file in page.attachments {
                if file.id.as_ref().is_none_or(|id| files.insert(id.clone())) {
                    listing.attachments.push(file);
                }
            }
            let Some(next) = page.next.filter(|_| received > 0) else { return listing };
            if listing.pages == MOST_PAGES {
                listing.failure = Some(Failure::TooLong);
                return listing;
            }
            match next_path(&first, &next) {
                Some(next) if fresh > 0 && next != path => path = next,
                _ => {
                    listing.failure = Some(Failure::Astray);
                    return listing;
                }
            }
        }
    }
}

/// Returns the path of the next page when `next` stays within the list that begins at `first`.
pub(in crate::resolve) fn next_path(first: &str, next: &str) -> Option<String> {
    let (list, first_query) = first.split_once('?')?;
    let (path, query) = next.split_once('?')?;
    let plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\');
    if !plain || path.trim_end_matches('/') != list {
        return None;
    }
    // Some links forget what was to be included.
    let forgotten = first_query.contains("include=") && !query.contains("include=");
    Some(format!("{list}?{query}{}", if forgotten { "&include=attachments" } else { "" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_page_stays_within_its_list() {
        let first = "/v1/conversations/a/messages?include=attachments&page=1&pageSize=100";
        for (next, followed) in [
            ("/v1/conversations/a/messages?page=2&include=attachments", true),
            ("/v1/conversations/a/messages/?page=2", true),
            ("https://evil.example/v1/conversations/a/messages?page=2", false),
            ("//evil.example/v1/conversations/a/messages?page=2", false),
            ("/v1/conversations/b/messages?page=2", false),
            ("/v1/conversations/a/messages/../../b/messages?page=2", false),
            ("/v1/conversations/a/messages?page=2\r\nx: y", false),
            ("/v1/conversations/a/messages?page=2#x", false),
            ("page=2", false),
            ("", false),
        ] {
            let path = next_path(first, next);
            assert_eq!(path.is_some(), followed, "{next}");
            assert!(path.is_none_or(|path| path.contains("include=attachments") && path.starts_with("/v1/")), "{next}");
        }
    }
}
