//! The kinds of requests: their names in the ledger, their bucket, the role that each needs.

use std::fmt;

/// A kind of request, with its place in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// Exchange of a login for a token, `POST /v1/auth/tokens`.
    Login,
    /// The token in use, `GET /v1/auth/tokens/current`.
    CurrentToken,
    /// Search over the last two years, `POST /v1/customers/search`.
    Search,
    /// Search over what is older, `POST /v1/customers/archive/search`.
    ArchiveSearch,
    /// Conversations by id, `GET /v1/conversations/{ids}`.
    Conversations,
    /// Customers by id, `GET /v1/customers/{id}`.
    Customers,
    /// Messages of a conversation, `GET /v1/conversations/{id}/messages`.
    Messages,
    /// Notes of a conversation, `GET /v1/conversations/{id}/notes`.
    Notes,
    /// Events of a conversation, `GET /v1/conversations/{id}/events`.
    Events,
    /// Attachments, `GET /v1/conversations/{id}/attachments` and `GET /v1/messages/{id}/attachments/{id}`.
    Attachments,
    /// Users, `GET /v1/users`.
    Users,
    /// Teams, `GET /v1/teams`.
    Teams,
    /// Tags, `GET /v1/tags`.
    Tags,
    /// Routing queues, `GET /v1/routing/queues`.
    Queues,
    /// Brands, `GET /v1/brands`.
    Brands,
    /// Service level agreements, `GET /v1/slas`.
    Slas,
    /// Business schedules, `GET /v1/schedules`.
    Schedules,
    /// Definitions of custom attributes, `GET /v1/metadata/{object}`.
    Metadata,
}

impl Endpoint {
    /// Returns the name that ledgers and messages print.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::CurrentToken => "current_token",
            Self::Search => "search",
            Self::ArchiveSearch => "archive_search",
            Self::Conversations => "conversations",
            Self::Customers => "customers",
            Self::Messages => "messages",
            Self::Notes => "notes",
            Self::Events => "events",
            Self::Attachments => "attachments",
            Self::Users => "users",
            Self::Teams => "teams",
            Self::Tags => "tags",
            Self::Queues => "queues",
            Self::Brands => "brands",
            Self::Slas => "slas",
            Self::Schedules => "schedules",
            Self::Metadata => "metadata",
        }
    }

    /// Tells whether requests also count against the limit of searches.
    #[must_use]
    pub const fn is_search(self) -> bool {
        matches!(self, Self::Search | Self::ArchiveSearch)
    }

    /// Returns the role that the credential needs, where one is documented.
    #[must_use]
    pub const fn role(self) -> Option<&'static str> {
        match self {
            Self::Login | Self::CurrentToken | Self::Teams | Self::Tags | Self::Queues | Self::Brands => None,
            Self::Search | Self::ArchiveSearch => Some("org.user.search.read"),
            Self::Conversations => Some("org.user.conversation.read"),
            Self::Customers => Some("org.user.customer.read"),
            Self::Messages => Some("org.user.message.read"),
            Self::Notes => Some("org.user.note.read"),
            Self::Events => Some("org.user.event.read"),
            Self::Attachments => Some("org.user.attachment.read"),
            Self::Users => Some("org.user.user.read"),
            Self::Slas => Some("org.user.sla.read"),
            Self::Schedules => Some("org.user.schedule.read"),
            Self::Metadata => Some("org.user.metadata.read"),
        }
    }
}

impl Endpoint {
    /// Returns the role of a permission set that serves instead of [`role`](Self::role), where one is documented.
    #[must_use]
    pub const fn permission(self) -> Option<&'static str> {
        match self {
            Self::Login | Self::CurrentToken | Self::Teams | Self::Tags | Self::Queues | Self::Brands => None,
            Self::Search | Self::ArchiveSearch => Some("org.permission.search.create"),
            Self::Conversations => Some("org.permission.conversation.read"),
            Self::Customers => Some("org.permission.customer.read"),
            Self::Messages => Some("org.permission.message.read"),
            Self::Notes => Some("org.permission.note.read"),
            Self::Events => Some("org.permission.event.read"),
            Self::Attachments => Some("org.permission.attachment.read"),
            Self::Users => Some("org.permission.user.read"),
            Self::Slas => Some("org.permission.sla.read"),
            Self::Schedules => Some("org.permission.schedule.read"),
            Self::Metadata => Some("org.permission.metadata.read"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
