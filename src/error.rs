//! What a caller hears when the answer is no, and what the log hears with it.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use crate::scrub;

/// An answer of no, with two faces: status, stable code and a sentence for the caller; the cause
/// for the log.
///
/// The message says what to do next and never repeats a secret, a header or a runner's internals.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The HTTP status of the answer.
    pub status: StatusCode,
    /// A stable word for programs, OpenAI's `code`.
    pub code: &'static str,
    /// The request member at fault, OpenAI's `param`, such as `messages.3.content`.
    pub param: Option<Cow<'static, str>>,
    /// A sentence for a person.
    pub message: Cow<'static, str>,
    /// When it is worth trying again, sent as `Retry-After` in whole seconds.
    pub retry_after: Option<Duration>,
    /// What happened, for the log alone. Empty when the message says it all.
    pub cause: String,
}

impl Refusal {
    /// A refusal without cause, parameter or retry.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code,
            param: None,
            message: message.into(),
            retry_after: None,
            cause: String::new(),
        }
    }

    /// A 400 with `code` and `message`.
    pub fn bad_request(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The 500 for what should not happen.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "Something went wrong in the gateway. Try again; if it stays, tell your admin.",
        )
    }

    /// The 502 for a runner that failed while it answered.
    pub fn unavailable() -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "runner_failed",
            "Your workspace stopped answering. Send the message again.",
        )
    }

    /// Names the request member at fault.
    #[must_use]
    pub fn param(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Adds what happened, for the log.
    #[must_use]
    pub fn because(mut self, cause: impl std::fmt::Display) -> Self {
        self.cause = format!("{cause}");
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// OpenAI's `type` for this status.
    pub fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        }
    }

    /// The JSON body `{"error":{"message","type","param","code"}}`, without any secret.
    pub fn body(&self) -> Bytes {
        let body = json!({"error": {
            "message": scrub::known(&self.message),
            "type": self.kind(),
            "param": self.param.as_deref().map(scrub::known),
            "code": self.code,
        }});
        Bytes::from(body.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_openais_shape_and_not_the_cause() {
        let refusal = Refusal::bad_request("invalid_json", "The body is not JSON.")
            .param("messages")
            .because("expected `,` at line 1 column 9");
        let body: serde_json::Value = serde_json::from_slice(&refusal.body()).unwrap();
        assert_eq!(
            body,
            json!({"error": {
                "message": "The body is not JSON.",
                "type": "invalid_request_error",
                "param": "messages",
                "code": "invalid_json",
            }})
        );
    }

    #[test]
    fn a_secret_in_a_message_or_a_param_is_not_sent() {
        let secret = crate::secret::Secret::new("canary-in-a-refusal");
        let refusal = Refusal::bad_request("unknown_model", format!("No {}.", secret.expose()))
            .param(format!("models.{}", secret.expose()));
        let body: serde_json::Value = serde_json::from_slice(&refusal.body()).unwrap();
        assert_eq!(body["error"]["message"], "No ***.");
        assert_eq!(body["error"]["param"], "models.***");
    }
}
