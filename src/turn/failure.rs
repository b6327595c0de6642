//! What went wrong in a runner → what its caller hears of it.
//!
//! A runner's texts may hold stack traces, URLs, a provider's whole reply or its configuration, so
//! callers hear our own words; of the provider's only a short, plain first line.

use std::time::Duration;

use http::StatusCode;

use crate::{
    error::Refusal,
    launcher::LaunchError,
    opencode::{ClientError, event::Failure, feed::Loss},
    pool::PoolError,
    scrub::scrub,
};

/// There is no runner.
pub(super) fn no_runner(error: PoolError) -> Refusal {
    let unavailable =
        |code, message: &'static str| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
    let (refusal, wait) = match &error {
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
        PoolError::Launch(LaunchError::Died { .. }) => (
            unavailable(
                "runner_died",
                "Your workspace ended while it was starting. Try again; if it stays, ask your admin: the reason is in the gateway's log.",
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
    let refusal = refusal.because(&error);
    match wait {
        Some(wait) => refusal.retry_after(wait),
        None => refusal,
    }
}

/// A call to the runner failed.
pub(super) fn of_call(error: &ClientError) -> Refusal {
    Refusal::unavailable().because(error)
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
pub(super) fn too_long(limit: Duration) -> Refusal {
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
    let refusal = match (failure.name.as_ref(), failure.data.status) {
        ("ContextOverflowError", _) => Refusal::new(
            StatusCode::BAD_REQUEST,
            "context_length_exceeded",
            "The conversation is too long for the model. Start a new chat.",
        )
        .param("messages"),
        ("MessageAbortedError", _) => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "turn_aborted",
            "The answer was stopped in the workspace. Send the message again.",
        ),
        ("ProviderAuthError", _) | ("APIError", Some(401 | 403)) => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "provider_auth",
            "The model provider refused the key. Ask your admin to check it.",
        ),
        ("APIError", Some(429)) => Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            "provider_rate_limit",
            provider_says("The model provider is over its limit. Try again later", told),
        ),
        ("APIError", Some(404)) => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "model_not_available",
            "The model provider does not offer the configured model. Ask your admin to choose another.",
        ),
        ("APIError", Some(status @ 400..=499)) => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "provider_rejected",
            provider_says(&format!("The model provider refused the request ({status})"), told),
        ),
        ("APIError", _) => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "provider_unavailable",
            "The model provider does not answer as it should. Try again in a moment.",
        ),
        ("MessageOutputLengthError" | "StructuredOutputError", _) => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "no_usable_answer",
            "The model gave no usable answer. Try again.",
        ),
        _ if told.contains("not found") => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "runner_misconfigured",
            "Your workspace does not know the agent or model. Ask your admin: the reason is in the gateway's log.",
        ),
        _ => Refusal::unavailable(),
    };
    let status = failure.data.status.map_or_else(String::new, |status| format!(" {status}"));
    refusal.because(format!("{}{status}: {}", failure.name, scrub(told)))
}

/// `ours`, followed by what the provider said if that is short and plain.
fn provider_says(ours: &str, told: &str) -> String {
    let plain = |c: char| !c.is_control() && c != '<' && c != '{';
    let is_plain = !told.is_empty() && told.len() <= 200 && told.chars().all(plain);
    // Keys and addresses are no business of the caller's.
    if is_plain && !told.contains("://") && scrub(told) == told {
        format!("{ours}: {told}")
    } else {
        format!("{ours}.")
    }
}
