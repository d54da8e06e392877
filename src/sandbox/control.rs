//! The control endpoint: what a test, or a person with curl, does to the organisation and asks about the server.
//!
//! ```text
//! GET  /sandbox/state
//! GET  /sandbox/requests                            what came, by this server's clock
//! POST /sandbox/requests/reset
//! POST /sandbox/fail     {"request": N} or {"route": ROUTE}, "fault": FAULT; the N-th from now on, or all of a route; null heals it
//! POST /sandbox/touch    {"count": N} or {"ids": […]}
//! POST /sandbox/delete   {"count": N} or {"ids": […]}
//! POST /sandbox/merge    {"from": ID, "into": ID, "moves_updated_at": true or false}, customers
//! POST /sandbox/hide     {"count": N} or {"ids": […]}, gone without a trace
//! POST /sandbox/unhide   {"ids": […]}
//! POST /sandbox/spoil    {"count": N} or {"ids": […]}, "how": "bad_id", "no_id", "not_an_object", "bad_updated_at" or "foreign_org"
//! POST /sandbox/heal     {"ids": […]}, as they were
//! POST /sandbox/define   {"object": "conversation" or "customer", "name": NAME, "type": TYPE}
//! POST /sandbox/redefine the same; POST /sandbox/undefine without the type
//! ```
//!
//! Its requests need no credentials, cost no budget and are not counted.

use serde_json::{Value, json};

use super::organisation::Organisation;
use super::refusal::Refusal;
use super::server::Server;
use crate::error::Error;

/// Answers one request with a status and a body.
pub(super) fn answer(server: &Server, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
    match outcome(server, method, path, body) {
        Ok(body) => (200, body),
        Err(refusal) => (refusal.status, refusal.body(false)),
    }
}

fn outcome(server: &Server, method: &str, path: &str, body: &[u8]) -> Result<Value, Refusal> {
    let organisation = &*server.organisation;
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    Ok(match (method, path) {
        ("GET", "/sandbox/state") => json!({
            "tickets": organisation.tickets(), "customers": organisation.customers(),
            "conversation_times": organisation.conversation_times(),
            "requests": server.meter.traffic().routes,
        }),
        ("GET", "/sandbox/requests") => server.meter.traffic().json(),
        ("POST", "/sandbox/requests/reset") => {
            server.meter.reset();
            json!({})
        }
        ("POST", "/sandbox/fail") => {
            let fault = body["fault"].as_str().map(str::parse).transpose();
            let fault = fault.map_err(|error: Error| Refusal::bad_request(error.to_string()).about("fault"))?;
            match (&body["request"], &body["route"], fault) {
                (Value::Number(number), _, Some(fault)) if number.is_u64() => {
                    server.plan.of_request(server.received() + number.as_u64().unwrap_or_default(), fault);
                }
                (_, Value::String(route), fault) => server.plan.of_route(route, fault),
                _ => return Err(Refusal::bad_request("Give a request's number or a route, and a fault.")),
            }
            json!({})
        }
        ("POST", "/sandbox/touch") => {
            let chosen = chosen(organisation, &body)?;
            organisation.touch(&chosen);
            named(organisation, &chosen)
        }
        ("POST", "/sandbox/delete") => {
            let chosen = chosen(organisation, &body)?;
            organisation.delete(&chosen);
            named(organisation, &chosen)
        }
        ("POST", "/sandbox/hide") => {
            let chosen = chosen(organisation, &body)?;
            organisation.hide(&chosen);
            named(organisation, &chosen)
        }
        ("POST", "/sandbox/unhide") => {
            let chosen = chosen(organisation, &body)?;
            organisation.unhide(&chosen);
            named(organisation, &chosen)
        }
        ("POST", "/sandbox/spoil") => {
            let how = body["how"].as_str().unwrap_or_default();
            let how = how.parse().map_err(|error: Error| Refusal::bad_request(error.to_string()).about("how"))?;
            let chosen = chosen(organisation, &body)?;
            organisation.spoil(&chosen, how);
            named(organisation, &chosen)
        }
        ("POST", "/sandbox/heal") => {
            let chosen = chosen(organisation, &body)?;
            organisation.heal(&chosen);
            named(organisation, &chosen)
        }
        ("POST", path @ ("/sandbox/define" | "/sandbox/redefine" | "/sandbox/undefine")) => {
            let text = |key: &str| body[key].as_str().unwrap_or_default();
            let (object, name, json_type) = (text("object"), text("name"), text("type"));
            let defined = match path {
                _ if name.is_empty() => return Err(Refusal::bad_request("Give a name.").about("name")),
                "/sandbox/define" => organisation.define(object, name, json_type),
                "/sandbox/redefine" => organisation.redefine(object, name, json_type),
                _ => organisation.undefine(object, name),
            };
            defined.map_err(|error| Refusal::bad_request(error.to_string()))?;
            json!({})
        }
        ("POST", "/sandbox/merge") => {
            let customer = |key: &str| {
                let id = body[key].as_str().ok_or_else(|| Refusal::bad_request("Give a customer's id.").about(key))?;
                organisation.customer_index(id).ok_or_else(Refusal::not_found)
            };
            let (from, into) = (customer("from")?, customer("into")?);
            let moves = body["moves_updated_at"].as_bool().unwrap_or(server.settings.merges_touch_conversations);
            let moved = organisation.merge(from, into, moves);
            named(organisation, &moved)
        }
        _ => return Err(Refusal::not_found()),
    })
}

/// Returns the conversations that a body names or counts.
fn chosen(organisation: &Organisation, body: &Value) -> Result<Vec<u64>, Refusal> {
    if let Some(count) = body["count"].as_u64() {
        return Ok(organisation.pick(count));
    }
    let ids = body["ids"].as_array().ok_or_else(|| Refusal::bad_request("Give a count or a list of ids."))?;
    ids.iter()
        .map(|id| id.as_str().and_then(|id| organisation.conversation_number(id)).ok_or_else(Refusal::not_found))
        .collect()
}

fn named(organisation: &Organisation, chosen: &[u64]) -> Value {
    let ids: Vec<String> = chosen.iter().map(|number| organisation.ticket_id(*number).to_string()).collect();
    json!({"count": ids.len(), "ids": ids})
}
