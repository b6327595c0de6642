//! What went wrong in a runner → what its caller hears of it.
//!
//! A runner's texts may hold stack traces, URLs, a provider's whole reply or its configuration, so
//! callers hear our own words; of the provider's only a short, plain first line.

use std::{borrow::Cow, time::Duration};

use http::StatusCode;

use super::reply::NO_ANSWER;
use crate::{
    error::Refusal,
    launcher::LaunchError,
    opencode::{ClientError, event::Failure, feed::Loss},
    pool::PoolError,
    scrub::scrub,
};

/// There is no runner.
pub(super) fn no_runner(error: &PoolError) -> Refusal {
    let unavailable = |code, message: &'static str| refusal(code, message.into());
    let (refusal, wait) = match error {
        PoolError::Full(_) => (
            unavailable("no_capacity", "All workspaces are busy. Try again in a moment."),
            Some(Duration::from_secs(10)),
        ),
        PoolError::Queue(_) => (
            unavailable("start_queue", "Many workspaces are starting. Try again in a moment."),
            Some(Duration::from_secs(10)),
        ),
        PoolError::BackingOff { wait, .. } => (
            unavailable(
                "runner_backing_off",
                "Your workspace failed to start several times. Try again later, or ask your admin.",
            ),
            Some(*wait),
        ),
        PoolError::Stopping => (
            unavailable("stopping", "The gateway is restarting. Try again in a moment."),
            Some(Duration::from_secs(5)),
        ),
        PoolError::Launch(LaunchError::Died { last_line, .. }) => (
            refusal(
                "runner_died",
                format!(
                    "Your workspace ended while it was starting. Try again; if it stays, ask your \
                     admin. Its last words: {}",
                    super::plain::line(&scrub(last_line))
                )
                .into(),
            ),
            None,
        ),
        PoolError::Launch(LaunchError::Timeout(_)) => {
            (unavailable("runner_slow", "Your workspace took too long to start. Try again."), None)
        }
        PoolError::Launch(LaunchError::Spawn(_)) => (
            unavailable(
                "runner_not_started",
                "Your workspace could not be started. Ask your admin: the reason is in the gateway's log.",
            ),
            None,
        ),
    };
    let refusal = refusal.because(error);
    match wait {
        Some(wait) => refusal.retry_after(wait),
        None => refusal,
    }
}

fn refusal(code: &'static str, message: Cow<'static, str>) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
}

/// A call to the runner failed.
pub(super) fn of_call(error: &ClientError) -> Refusal {
    Refusal::unavailable().because(error)
}

/// The user has used up what there is.
pub(super) fn over_budget(message: String, wait: Option<Duration>) -> Refusal {
    let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "budget_exceeded", message);
    Refusal { retry_after: wait, ..refusal }
}

/// The egress refused a model call, which the caller hears as the turn's own refusal: a 401 would
/// be about the key that the caller has sent us.
pub(super) fn of_egress(refusal: Refusal) -> Refusal {
    let status = match refusal.code {
        "no_provider_key" => StatusCode::FORBIDDEN,
        "budget_exceeded" => StatusCode::TOO_MANY_REQUESTS,
        "model_not_allowed" | "body_too_large" | "provider_unreachable" => refusal.status,
        // About the runner, not about anything that a user could do.
        code => return Refusal::unavailable().because(format!("{code}: {}", refusal.cause)),
    };
    Refusal { status, ..refusal }
}

/// Whether it is of no use to wait.
pub(super) fn is_for_good(refusal: &Refusal) -> bool {
    let soon = refusal.retry_after.is_some_and(|wait| wait <= Duration::from_secs(10));
    !soon && !refusal.status.is_server_error()
}

/// The event stream said nothing more.
pub(super) fn of_loss(loss: Loss, runner_ended: bool) -> Refusal {
    if runner_ended {
        return Refusal::new(
            StatusCode::BAD_GATEWAY,
            "runner_ended",
            "Your workspace ended in the middle of the answer. Send the message again: it will start anew.",
        );
    }
    match loss {
        Loss::Lagged => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "reader_too_slow",
            "The answer was read too slowly and had to be stopped. Try again on a better connection.",
        ),
        Loss::Closed | Loss::Silent => Refusal::unavailable().because(format!("{loss:?}")),
    }
}

/// The turn lasted too long.
pub(crate) fn too_long(limit: Duration) -> Refusal {
    Refusal::new(
        StatusCode::GATEWAY_TIMEOUT,
        "turn_timeout",
        format!(
            "The answer took longer than {} and was stopped. Ask for less at once.",
            humantime::format_duration(limit)
        ),
    )
}

/// There was no sign of work.
pub(super) fn no_first_byte(limit: Duration) -> Refusal {
    Refusal::new(
        StatusCode::GATEWAY_TIMEOUT,
        "first_byte_timeout",
        format!(
            "Nothing came for {}. Try again; if it stays, the model provider is likely down.",
            humantime::format_duration(limit)
        ),
    )
}

/// The step failed after some of it was shown, and would be said again.
pub(super) fn cut_by_retry(reason: &str) -> Refusal {
    Refusal::new(
        StatusCode::BAD_GATEWAY,
        "provider_interrupted",
        "The model provider broke off in the middle of the answer. Send the message again.",
    )
    .because(scrub(reason))
}

/// The provider wants to be left alone for longer than anybody would wait.
pub(super) fn wait_is_too_long(reason: &str, wait: Duration) -> Refusal {
    Refusal::new(
        StatusCode::TOO_MANY_REQUESTS,
        "provider_busy",
        "The model provider asks to try again later.",
    )
    .because(scrub(reason))
    .retry_after(wait)
}

/// The turn ended with an error.
pub(super) fn of_failure(failure: &Failure<'_>) -> Refusal {
    let told = failure.data.message.as_deref().unwrap_or_default();
    let refusal = match failure.name.as_ref() {
        "APIError" => of_provider(failure.data.status, told),
        "ProviderAuthError" => of_provider(Some(401), told),
        "ContextOverflowError" => of_provider(Some(413), told),
        "UnknownError" => of_unknown(told),
        "ContentFilterError" => Refusal::bad_request(
            "content_filter",
            "The model provider held the answer back: its content filter does not allow it.",
        )
        .param("messages"),
        "MessageAbortedError" => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "turn_aborted",
            "The answer was stopped in the workspace. Send the message again.",
        ),
        "MessageOutputLengthError" | "StructuredOutputError" => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "no_usable_answer",
            "The model gave no usable answer. Try again.",
        ),
        NO_ANSWER => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "no_answer",
            "The agent ended without an answer. Send the message again.",
        ),
        _ => Refusal::unavailable(),
    };
    let refusal = match failure.data.retry_after {
        Some(wait) => refusal.retry_after(wait),
        None => refusal,
    };
    let status = failure.data.status.map_or_else(String::new, |status| format!(" {status}"));
    refusal.because(format!("{}{status}: {}", failure.name, scrub(told)))
}

/// The provider answered with an error `status`, or did not answer at all.
fn of_provider(status: Option<u16>, told: &str) -> Refusal {
    match status {
        Some(413) => Refusal::bad_request(
            "context_length_exceeded",
            "The conversation is too long for the model. Start a new chat, or send less.",
        )
        .param("messages"),
        Some(401 | 403) => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "provider_auth",
            "The model provider refused the key. Ask your admin to check it.",
        ),
        Some(404) => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "model_not_available",
            "The model provider does not offer the configured model. Ask your admin to choose another.",
        ),
        Some(429) => Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            "provider_rate_limit",
            provider_says("The model provider is over its limit. Try again later", told),
        ),
        Some(400 | 422) => Refusal::bad_request(
            "provider_rejected",
            provider_says("The model provider did not accept the request", told),
        ),
        Some(status @ 402..=499) => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "provider_rejected",
            provider_says(&format!("The model provider refused the request ({status})"), told),
        ),
        _ => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "provider_unavailable",
            "The model provider does not answer as it should. Try again in a moment.",
        ),
    }
}

/// opencode's own errors have no name but in their text, which is a stack trace as often as not.
fn of_unknown(told: &str) -> Refusal {
    /// What a provider says in the middle of its stream.
    #[derive(serde::Deserialize)]
    struct Streamed {
        message: String,
    }
    if let Ok(Streamed { message }) = serde_json::from_str(told) {
        return Refusal::new(
            StatusCode::BAD_GATEWAY,
            "provider_unavailable",
            provider_says("The model provider broke off with an error", &message),
        );
    }
    let is = |beginnings: &[&str]| beginnings.iter().any(|beginning| told.starts_with(beginning));
    if is(&["ImageDecodeError", "ImageInvalidDataUrlError"]) {
        return Refusal::bad_request(
            "invalid_image",
            "An image in the message could not be read. Send it as PNG, JPEG, GIF or WebP.",
        )
        .param("messages");
    }
    if is(&[
        "Model not found",
        "ProviderModelNotFoundError",
        "Agent not found",
        "ProviderNoProviders",
    ]) {
        return Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "runner_misconfigured",
            "Your workspace does not know the agent or model. Ask your admin: the reason is in the gateway's log.",
        );
    }
    Refusal::unavailable()
}

/// `ours`, followed by what the provider said if that is short and plain.
fn provider_says(ours: &str, told: &str) -> String {
    let is_plain = |c: char| !c.is_control() && !"<>{}".contains(c);
    let is_short = !told.is_empty() && told.len() <= 200 && told.chars().all(is_plain);
    // Keys, addresses and files are no business of the caller's.
    let is_internal = told.contains("://") || told.split(' ').any(|word| word.starts_with('/'));
    if is_short && !is_internal && scrub(told) == told {
        format!("{ours}: {told}")
    } else {
        format!("{ours}.")
    }
}

#[cfg(test)]
mod tests {
    use crate::opencode::event::FailureData;

    use super::*;

    fn refusal(name: &'static str, status: Option<u16>, message: &str) -> Refusal {
        let message = Some(message.to_owned());
        let data = FailureData { message, status, retry_after: None };
        of_failure(&Failure { name: name.into(), data })
    }

    #[test]
    fn each_failure_has_a_status_that_says_whose_it_is() {
        let of = |name, status| {
            let refusal = refusal(name, status, "quota is used up");
            (refusal.status.as_u16(), refusal.code)
        };
        assert_eq!(of("APIError", Some(400)), (400, "provider_rejected"));
        assert_eq!(of("APIError", Some(401)), (502, "provider_auth"));
        assert_eq!(of("APIError", Some(402)), (502, "provider_rejected"));
        assert_eq!(of("APIError", Some(404)), (502, "model_not_available"));
        assert_eq!(of("APIError", Some(429)), (429, "provider_rate_limit"));
        assert_eq!(of("APIError", Some(503)), (502, "provider_unavailable"));
        assert_eq!(of("APIError", None), (502, "provider_unavailable"));
        assert_eq!(of("ContextOverflowError", None), (400, "context_length_exceeded"));
        assert_eq!(of("SomethingNew", None), (502, "runner_failed"));
    }

    #[test]
    fn a_provider_is_quoted_only_when_it_is_short_and_plain() {
        let told = |message| refusal("APIError", Some(400), message).message.into_owned();
        assert!(told("temperature is too high").ends_with(": temperature is too high"));
        for internal in [
            "see http://10.0.0.7:8080/v1",
            "no file /home/alice/x",
            "Incorrect API key provided: sk-abcdef0123456789",
            "x\n    at run (/$bunfs/root/chunk.js:1:2)",
            "{\"config\":1}",
            "<html>",
        ] {
            let told = told(internal);
            assert_eq!(told, "The model provider did not accept the request.", "{internal}");
        }
    }

    #[test]
    fn a_stack_trace_reaches_neither_the_caller_nor_whole_the_log() {
        let refusal = refusal(
            "UnknownError",
            None,
            "PlatformError: NotFound: FileSystem.realPath (/srv/w)\n    at hw (/$bunfs/x.js:7:4)",
        );
        assert_eq!(refusal.message, Refusal::unavailable().message);
        assert!(!refusal.cause.contains("bunfs"), "{}", refusal.cause);
    }
}
