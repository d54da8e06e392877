//! What the API says when it refuses, in the two shapes that the service has.

use serde_json::{Value, json};

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) message: String,
    /// The parameter at fault, where one is.
    pub(super) parameter: Option<String>,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), parameter: None }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "bad_request", message)
    }

    pub(super) fn not_found() -> Self {
        Self::new(404, "not_found", "Not found within scope.")
    }

    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(401, "unauthorized", message)
    }

    pub(super) fn about(mut self, parameter: impl Into<String>) -> Self {
        self.parameter = Some(parameter.into());
        self
    }

    /// Returns the body: JSON:API error objects, or the plain shape of the other endpoints.
    pub(super) fn body(&self, json_api: bool) -> Value {
        let error = if json_api {
            let mut error = json!({"status": self.status, "code": self.code, "title": self.message});
            if let Some(parameter) = &self.parameter {
                error["source"] = json!({"parameters": parameter});
            }
            error
        } else {
            let meta = self.parameter.as_ref().map_or_else(|| json!({}), |parameter| json!({"parameter": parameter}));
            json!({"code": self.code, "message": self.message, "meta": meta})
        };
        json!({"errors": [error]})
    }
}
