//! The attributes that search accepts, by context, each with its class and where the record keeps it.
//!
//! A path names keys from `attributes` down, `*` every item of a list; a path that begins with `@` is computed.

/// How an attribute is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Any text of the record.
    Any,
    /// Text, matched by whole words.
    Words,
    /// Text, matched as a whole.
    Exact,
    List,
    Number,
    Boolean,
    Datetime,
}

/// Name (without the context's prefix), class, path.
pub(super) type Attribute = (&'static str, Class, &'static str);

use Class::{Any, Boolean, Datetime, Exact, List, Number, Words};

pub(super) const CONVERSATION: &[Attribute] = &[
    ("id", Exact, "@id"),
    ("any_text", Any, "@any"),
    ("name", Words, "name"),
    ("sentiment", List, "@sentiment"),
    ("status", List, "@status"),
    ("sub_status", Exact, "subStatus"),
    ("created_at", Datetime, "@created"),
    ("updated_at", Datetime, "@updated"),
    ("modified_at", Datetime, "modifiedAt"),
    ("modified_by", List, "@relationships/modifiedBy"),
    ("message_count", Number, "messageCount"),
    ("note_count", Number, "noteCount"),
    ("satisfaction_survey_id", List, "satisfactionLevel/form"),
    ("satisfaction_sent_by", List, "satisfactionLevel/sentBy"),
    ("satisfaction_sent_by_teams", List, "satisfactionLevel/sentByTeams"),
    ("satisfaction_created_at", Datetime, "satisfactionLevel/createdAt"),
    ("satisfaction_score", Number, "satisfactionLevel/score"),
    ("satisfaction_rating", Number, "satisfactionLevel/rating"),
    ("satisfaction_status", List, "satisfactionLevel/status"),
    ("channels", List, "channels"),
    ("satisfaction", Exact, "satisfaction"),
    ("priority", Number, "priority"),
    ("tags", List, "tags"),
    ("assigned_users", List, "assignedUsers"),
    ("assigned_teams", List, "assignedTeams"),
    ("last_message_sent_at", Datetime, "lastMessageIn/sentAt"),
    ("last_message_out_sent_at", Datetime, "lastMessageOut/sentAt"),
    ("last_message_unresponded_to_sent_at", Datetime, "lastMessageUnrespondedTo/sentAt"),
    ("last_message_at", Datetime, "lastMessageAt"),
    ("last_message_direction", List, "lastMessageDirection"),
    ("first_response_sent_at", Datetime, "firstResponse/sentAt"),
    ("first_response_time", Number, "firstResponse/time"),
    ("first_response_created_by", List, "firstResponse/createdBy"),
    ("last_response_created_by", List, "lastResponse/createdBy"),
    ("direction", List, "direction"),
    ("outbound_message_count", Number, "outboundMessageCount"),
    ("customer_id", Exact, "@customer"),
    ("campaign_id", Exact, "campaignId"),
    ("first_message_in_sent_at", Datetime, "firstMessageIn/sentAt"),
    ("first_message_in_direction_type", List, "firstMessageIn/directionType"),
    ("first_message_in_channel", List, "firstMessageIn/channel"),
    ("first_message_out_sent_at", Datetime, "firstMessageOut/sentAt"),
    ("first_message_out_direction_type", List, "firstMessageOut/directionType"),
    ("first_message_out_channel", List, "firstMessageOut/channel"),
    ("default_lang", Exact, "defaultLang"),
    ("sla_status", List, "sla/status"),
    ("sla_version_id", Exact, "@relationships/slaVersion"),
    ("sla_id", List, "@relationships/sla"),
    ("sla_breached", Boolean, "sla/breached"),
    ("sla_breach_at", Datetime, "sla/breach/at"),
    ("sla_satisfied_at", Datetime, "sla/summary/satisfiedAt"),
    ("sla_breach_metric", List, "sla/breach/metric"),
    ("first_done_created_by", List, "firstDone/createdBy"),
    ("last_done_created_at", Datetime, "lastDone/createdAt"),
    ("last_done_created_by", List, "lastDone/createdBy"),
    ("last_done_created_by_teams", List, "lastDone/createdByTeams"),
    ("reply_channel", List, "replyChannel"),
    ("queue", List, "@relationships/queue"),
    ("external_queue", List, "externalQueue"),
    ("ended", Boolean, "ended"),
    ("ended_at", Datetime, "endedAt"),
    ("ended_reason", Words, "endedReason"),
    ("imported_at", Datetime, "importedAt"),
    ("imported", Boolean, "@imported"),
];

pub(super) const CUSTOMER: &[Attribute] = &[
    ("id", Exact, "@id"),
    ("any_text", Any, "@any"),
    ("name", Words, "name"),
    ("gender", List, "gender"),
    ("presence", List, "presence"),
    ("email", Words, "emails/*/email"),
    ("shared_email", Words, "sharedEmails/*/email"),
    ("phone", Words, "phones/*/phone"),
    ("shared_phone", Words, "sharedPhones/*/phone"),
    ("urls", Words, "urls/*/url"),
    ("address", Words, "locations/*/address"),
    ("locale", Words, "locale"),
    ("activity_at", Datetime, "lastActivityAt"),
    ("last_seen_at", Datetime, "lastSeenAt"),
    ("signed_up_at", Datetime, "signedUpAt"),
    ("last_message_sent_at", Datetime, "lastMessageIn/sentAt"),
    ("last_message_out_sent_at", Datetime, "lastMessageOut/sentAt"),
    ("last_message_unresponded_to_sent_at", Datetime, "lastMessageUnrespondedTo/sentAt"),
    ("last_message_at", Datetime, "lastMessageAt"),
    ("externalId", Exact, "externalIds/*/externalId"),
    ("shared_externalId", Exact, "sharedExternalIds/*/externalId"),
    ("created_at", Datetime, "@created"),
    ("updated_at", Datetime, "@updated"),
    ("modified_at", Datetime, "modifiedAt"),
    ("created_by", List, "@relationships/createdBy"),
    ("modified_by", List, "@relationships/modifiedBy"),
    ("satisfaction_avg_score", Number, "satisfactionLevel/avgScore"),
    ("satisfaction_avg_rating", Number, "satisfactionLevel/avgRating"),
    ("conversations_count", Number, "conversationCounts/all"),
    ("status", List, "progressiveStatus"),
    ("progressive_status", List, "progressiveStatus"),
    ("active_users", List, "activeUsers"),
    ("watchers", List, "watchers"),
    ("tags", List, "tags"),
    ("sentiment", List, "@sentiment"),
    ("social_type", List, "socials/*/type"),
    ("social_userid", Exact, "socials/*/userid"),
    ("social_username", Exact, "socials/*/username"),
    ("shared_social_type", List, "sharedSocials/*/type"),
    ("shared_social_userid", Exact, "sharedSocials/*/userid"),
    ("shared_social_username", Exact, "sharedSocials/*/username"),
    ("default_lang", Exact, "defaultLang"),
    ("imported_at", Datetime, "importedAt"),
    ("imported", Boolean, "@imported"),
];

pub(super) const TIME: &[Attribute] = &[
    ("created_at", Datetime, "@created"),
    ("conversation_id", Exact, "@relationships/conversation"),
    ("created_by_teams", List, "createdByTeams"),
    ("assigned_users", List, "assignedUsers"),
    ("assigned_teams", List, "assignedTeams"),
    ("touched", Boolean, "touched"),
    ("reopened", Boolean, "reopened"),
    ("snoozed", Boolean, "snoozed"),
    ("resolved", Boolean, "resolved"),
    ("message_at", Datetime, "messageAt"),
    ("message_time", Number, "messageTime"),
    ("messages_sent", Number, "messagesSent"),
    ("note_at", Datetime, "noteAt"),
    ("note_time", Number, "noteTime"),
    ("notes_sent", Number, "notesSent"),
    ("handle_at", Datetime, "handleAt"),
    ("handle_time", Number, "handleTime"),
    ("channels", List, "channels"),
];

/// What archive search accepts besides, in either context.
pub(super) const DELETED: Attribute = ("deleted", Boolean, "deleted");

/// The only attributes that archive search accepts.
pub(super) const ARCHIVE: &[&str] = &["id", "created_at", "updated_at", "customer_id", "any_text", "deleted"];

/// The allowed values of an attribute whose values are listed, as the service checks them.
pub(super) fn allowed_values(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "status" | "progressive_status" => &["snoozed", "open", "done"],
        "sentiment" => &["happy", "unhappy", "indifferent"],
        "direction" | "last_message_direction" => &["in", "out"],
        "sla_status" => &["done", "pending", "paused"],
        "gender" => &["m", "f"],
        "presence" => &["online", "offline", "idle"],
        _ => return None,
    })
}
