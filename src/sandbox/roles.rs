//! Which role each endpoint needs.
//!
//! The roles are the older ones of an API key; those of collections that no document names are guessed after the same
//! pattern.

use super::routes::Route;

const SEARCH: &str = "org.user.search.read";
const CONVERSATION: &str = "org.user.conversation.read";
const MESSAGE: &str = "org.user.message.read";
const EVENT: &str = "org.user.event.read";
const NOTE: &str = "org.user.note.read";
const ATTACHMENT: &str = "org.user.attachment.read";
const CUSTOMER: &str = "org.user.customer.read";
const METADATA: &str = "org.user.metadata.read";
const USER: &str = "org.user.user.read";
const TEAM: &str = "org.user.team.read";
const TAG: &str = "org.user.tag.read";
const QUEUE: &str = "org.user.queue.read";
const BRAND: &str = "org.user.brand.read";
const SLA: &str = "org.user.sla.read";
const SCHEDULE: &str = "org.user.schedule.read";

/// Every role that an endpoint needs.
pub(super) const ALL: [&str; 15] = [
    SEARCH,
    CONVERSATION,
    MESSAGE,
    EVENT,
    NOTE,
    ATTACHMENT,
    CUSTOMER,
    METADATA,
    USER,
    TEAM,
    TAG,
    QUEUE,
    BRAND,
    SLA,
    SCHEDULE,
];

/// Returns the role that a route needs; any valid token may ask who it is.
pub(super) const fn needed(route: Route) -> Option<&'static str> {
    Some(match route {
        Route::Login | Route::CurrentToken | Route::CurrentUser | Route::CurrentOrg => return None,
        Route::Search | Route::ArchiveSearch => SEARCH,
        Route::Conversations
        | Route::Conversation
        | Route::ConversationTimes
        | Route::ConversationTime
        | Route::CustomerConversations => CONVERSATION,
        Route::ConversationMessages | Route::CustomerMessages | Route::Message => MESSAGE,
        Route::ConversationEvents => EVENT,
        Route::ConversationNotes | Route::Note => NOTE,
        Route::ConversationAttachments | Route::MessageAttachment | Route::Attachments => ATTACHMENT,
        Route::Customers | Route::Customer | Route::CustomerMerges | Route::CustomerMerge => CUSTOMER,
        Route::Metadata => METADATA,
        Route::Users | Route::User => USER,
        Route::Teams | Route::Team => TEAM,
        Route::Tags | Route::Tag => TAG,
        Route::Queues | Route::Queue => QUEUE,
        Route::Brands | Route::DefaultBrand | Route::Brand => BRAND,
        Route::Slas | Route::Sla => SLA,
        Route::Schedules | Route::Schedule => SCHEDULE,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    use crate::clock::Clock as _;
    use crate::error::ErrorKind;
    use crate::sandbox::tests::{generous, rig, text};
    use crate::sandbox::{Sandbox, SandboxSettings};

    #[tokio::test]
    async fn key_without_a_role_is_refused_where_the_role_is_needed() {
        for (status, code) in [(403, "forbidden"), (401, "unauthorized")] {
            let settings = SandboxSettings {
                withheld_roles: vec!["org.user.search.read".to_owned(), "org.user.tag.read".to_owned()],
                missing_role_status: status,
                ..generous(10)
            };
            let rig = rig(settings).await;
            let refused = rig.search("", &json!({})).await;
            assert_eq!((refused.status, &refused.body["errors"][0]["code"]), (status, &json!(code)));
            assert_eq!(rig.get("/v1/tags").await.status, status);
            assert_eq!(rig.get("/v1/teams").await.status, 200);
            let token = rig.get("/v1/auth/tokens/current").await.body;
            let roles = token["data"]["attributes"]["roles"].as_array().unwrap();
            assert!(roles.contains(&json!("org.user.customer.read")));
            assert!(!roles.contains(&json!("org.user.search.read")) && !roles.contains(&json!("org.user")));
        }
        let all = rig(generous(10)).await.get("/v1/auth/tokens/current").await.body;
        assert_eq!(all["data"]["attributes"]["roles"].as_array().unwrap().len(), super::ALL.len() + 1);
    }

    #[tokio::test]
    async fn unknown_role_is_a_configuration_error() {
        let rig = rig(generous(10)).await;
        let settings = SandboxSettings { withheld_roles: vec!["org.user.tea.read".to_owned()], ..generous(10) };
        let error = Sandbox::start(settings, rig.clock.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("org.user.tea.read"), "{error}");
    }

    #[tokio::test]
    async fn key_works_until_the_time_that_its_claim_names() {
        let rig = rig(SandboxSettings { key_expiry: Some(Duration::from_secs(90)), ..generous(10) }).await;
        let claims = rig.sandbox.api_key().split('.').nth(1).unwrap();
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        assert_eq!(claims["exp"], rig.clock.now().as_second() + 90);
        assert_eq!(claims["userType"], "machine");
        rig.clock.advance(Duration::from_secs(89));
        assert_eq!(rig.get("/v1/tags").await.status, 200);
        rig.clock.advance(Duration::from_secs(1));
        let refused = rig.get("/v1/tags").await;
        assert_eq!((refused.status, text(&refused.body, "/errors/0/message")), (401, "Expired token"));
    }
}
