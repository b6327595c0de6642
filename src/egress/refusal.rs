//! What a runner hears when the answer is no. The provider's SDK shows it to the user, so it is a
//! sentence for people.

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use crate::{
    error::Refusal,
    usage::{Kind, OverBudget},
};

/// The header that says which refusal of ours an error is.
pub const HEADER: &str = "x-open-persona-refusal";

/// `refusal` in the shape of the provider's errors: Anthropic's, or everybody else's.
pub(super) fn body(refusal: &Refusal, is_anthropic: bool) -> Bytes {
    if !is_anthropic {
        return refusal.body();
    }
    let error = json!({"type": refusal.kind(), "message": refusal.message});
    json!({"type": "error", "error": error}).to_string().into()
}

fn forbidden(code: &'static str, message: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, code, message)
}

/// There is no token, or more than one.
pub(super) fn no_token() -> Refusal {
    forbidden("token_missing", "Send the runner's own token, and nothing else, as the API key.")
}

/// Nobody who lives has this token.
pub(super) fn unknown_token() -> Refusal {
    forbidden("token_unknown", "This token is not valid, or no longer.")
}

/// The token is somebody else's.
pub(super) fn foreign_token() -> Refusal {
    forbidden("token_foreign_address", "This token may not be used from here.")
}

/// The path is on no list.
pub(super) fn unlisted_path() -> Refusal {
    forbidden("path_not_allowed", "This path may not be asked for.")
}

/// The provider is not configured.
pub(super) fn unknown_provider() -> Refusal {
    forbidden("provider_unknown", "There is no such model provider.")
}

/// The request is meant for another host.
pub(super) fn foreign_host() -> Refusal {
    forbidden("host_not_allowed", "Only the gateway's own egress may be asked for.")
}

/// The user's role does not have the model.
pub(super) fn model_not_allowed(provider: &str, model: &str) -> Refusal {
    let name: String = model.chars().filter(|c| !c.is_control()).take(100).collect();
    let message = format!(
        "The model {provider}/{name} is not among those you may use. Choose another, or ask your \
         admin for it."
    );
    forbidden("model_not_allowed", message)
}

/// Neither the user nor the admin has set a key.
pub(super) fn no_key(provider: &str, help: &str) -> Refusal {
    let message = format!("No {provider} key is set. {help}");
    Refusal::new(StatusCode::UNAUTHORIZED, "no_provider_key", message)
}

/// The user has used up what there is. 402, because an SDK tries a 429 again.
pub(super) fn over_budget(over: &OverBudget) -> Refusal {
    let status = if over.kind == Kind::Spent {
        StatusCode::PAYMENT_REQUIRED
    } else {
        // Soon there may be something left.
        StatusCode::TOO_MANY_REQUESTS
    };
    Refusal::new(status, "budget_exceeded", over.to_string()).retry_after(over.retry_after)
}

/// The provider cannot be reached, or broke off.
pub(super) fn provider_failed() -> Refusal {
    Refusal::new(
        StatusCode::BAD_GATEWAY,
        "provider_unreachable",
        "The model provider cannot be reached.",
    )
}

/// The runner broke off.
pub(super) fn broken_off() -> Refusal {
    Refusal::bad_request("bad_request", "The request could not be read.")
}

/// The body is above the limit of `most` bytes.
pub(super) fn too_large(most: usize) -> Refusal {
    let message =
        format!("The request is larger than {most} bytes. Start a new chat, or send less.");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}

/// The provider would work on, and tell nobody what it used.
pub(super) fn in_background() -> Refusal {
    Refusal::bad_request("background_not_allowed", "Background responses are not offered.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_provider_s_sdk_finds_the_message() {
        let refusal = no_key("Anthropic", "Set one.");
        let body: serde_json::Value = serde_json::from_slice(&body(&refusal, true)).unwrap();
        assert_eq!(
            body,
            json!({"type": "error", "error": {
                "type": "authentication_error", "message": "No Anthropic key is set. Set one.",
            }})
        );
    }
}
