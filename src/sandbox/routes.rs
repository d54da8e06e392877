//! Which method and path is which route.

use axum::http::Method;

/// A route of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    Login,
    CurrentToken,
    CurrentUser,
    CurrentOrg,
    Search,
    ArchiveSearch,
    Conversations,
    Conversation,
    ConversationMessages,
    ConversationNotes,
    ConversationAttachments,
    ConversationEvents,
    ConversationTimes,
    ConversationTime,
    CustomerConversations,
    CustomerMessages,
    Customers,
    Customer,
    CustomerMerges,
    CustomerMerge,
    Message,
    Note,
    MessageAttachment,
    Attachments,
    Users,
    User,
    Teams,
    Team,
    Tags,
    Tag,
    Queues,
    Queue,
    Brands,
    DefaultBrand,
    Brand,
    Slas,
    Sla,
    Schedules,
    Schedule,
    Metadata,
}

/// Method, path with `{}` for a value, route. Of two that match, the first is meant.
const ROUTES: &[(Method, &str, Route)] = &[
    (Method::POST, "/v1/auth/tokens", Route::Login),
    (Method::GET, "/v1/auth/tokens/current", Route::CurrentToken),
    (Method::GET, "/v1/users/current", Route::CurrentUser),
    (Method::GET, "/v1/orgs/current", Route::CurrentOrg),
    (Method::POST, "/v1/customers/search", Route::Search),
    (Method::POST, "/v1/customers/archive/search", Route::ArchiveSearch),
    (Method::GET, "/v1/conversations", Route::Conversations),
    (Method::GET, "/v1/conversations/{}", Route::Conversation),
    (Method::GET, "/v1/conversations/{}/messages", Route::ConversationMessages),
    (Method::GET, "/v1/conversations/{}/notes", Route::ConversationNotes),
    (Method::GET, "/v1/conversations/{}/attachments", Route::ConversationAttachments),
    (Method::GET, "/v1/conversations/{}/events", Route::ConversationEvents),
    (Method::GET, "/v1/conversations/times/{}", Route::ConversationTime),
    (Method::GET, "/v1/conversations/{}/times", Route::ConversationTimes),
    (Method::GET, "/v1/customers/{}/conversations", Route::CustomerConversations),
    (Method::GET, "/v1/customers/{}/messages", Route::CustomerMessages),
    (Method::GET, "/v1/customers/{}/merges", Route::CustomerMerges),
    (Method::GET, "/v1/customers/merges/{}", Route::CustomerMerge),
    (Method::GET, "/v1/customers", Route::Customers),
    (Method::GET, "/v1/customers/{}", Route::Customer),
    (Method::GET, "/v1/messages/{}", Route::Message),
    (Method::GET, "/v1/notes/{}", Route::Note),
    (Method::GET, "/v1/messages/{}/attachments/{}", Route::MessageAttachment),
    (Method::GET, "/v1/attachments/{}", Route::Attachments),
    (Method::GET, "/v1/users", Route::Users),
    (Method::GET, "/v1/users/{}", Route::User),
    (Method::GET, "/v1/teams", Route::Teams),
    (Method::GET, "/v1/teams/{}", Route::Team),
    (Method::GET, "/v1/tags", Route::Tags),
    (Method::GET, "/v1/tags/{}", Route::Tag),
    (Method::GET, "/v1/routing/queues", Route::Queues),
    (Method::GET, "/v1/routing/queues/{}", Route::Queue),
    (Method::GET, "/v1/brands", Route::Brands),
    (Method::GET, "/v1/brands/default", Route::DefaultBrand),
    (Method::GET, "/v1/brands/{}", Route::Brand),
    (Method::GET, "/v1/slas", Route::Slas),
    (Method::GET, "/v1/slas/{}", Route::Sla),
    (Method::GET, "/v1/schedules", Route::Schedules),
    (Method::GET, "/v1/schedules/{}", Route::Schedule),
    (Method::GET, "/v1/metadata/{}", Route::Metadata),
];

/// What a method and path lead to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome<'a> {
    Found { route: Route, pattern: &'static str, values: Vec<&'a str> },
    WrongMethod,
    Unknown,
}

impl Route {
    /// Tells whether requests of this route are counted as searches.
    pub(super) const fn is_search(self) -> bool {
        matches!(self, Self::Search | Self::ArchiveSearch)
    }
}

/// Tells whether the endpoints of a path answer with JSON:API error objects; the others have the plain shape.
pub(super) fn has_json_api_errors(path: &str) -> bool {
    path.starts_with("/v1/conversations") || path.starts_with("/v1/messages")
}

/// Finds the route of a path without a slash at its end.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> Outcome<'a> {
    let mut outcome = Outcome::Unknown;
    for (known, pattern, route) in ROUTES {
        let Some(values) = capture(pattern, path) else { continue };
        if known == method {
            return Outcome::Found { route: *route, pattern, values };
        }
        outcome = Outcome::WrongMethod;
    }
    outcome
}

fn capture<'a>(pattern: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let mut values = Vec::new();
    let mut parts = path.split('/');
    for expected in pattern.split('/') {
        let part = parts.next()?;
        match expected {
            "{}" if !part.is_empty() => values.push(part),
            _ if part == expected => {}
            _ => return None,
        }
    }
    parts.next().is_none().then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_routes() {
        let route = |method: Method, path: &str| match find(&method, path) {
            Outcome::Found { route, values, .. } => Ok((route, values.len())),
            Outcome::WrongMethod => Err(405),
            Outcome::Unknown => Err(404),
        };
        assert_eq!(route(Method::GET, "/v1/users/current"), Ok((Route::CurrentUser, 0)));
        assert_eq!(route(Method::GET, "/v1/users/5822"), Ok((Route::User, 1)));
        assert_eq!(route(Method::POST, "/v1/customers/search"), Ok((Route::Search, 0)));
        assert_eq!(route(Method::GET, "/v1/messages/a/attachments/b"), Ok((Route::MessageAttachment, 2)));
        assert_eq!(route(Method::DELETE, "/v1/conversations/a"), Err(405));
        assert_eq!(route(Method::GET, "/v1/conversations//messages"), Err(404));
        assert_eq!(route(Method::GET, "/v1/kittens"), Err(404));
    }
}
