//! Sizes and deadlines, checked as early as each can be.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use pingora::http::RequestHeader;
use pingora_core::ErrorType;
use pingora_proxy::Session;

use super::identity::Caller;
use crate::{config::Limits, error::Refusal};

/// Puts the deadlines of the body and of the answer on the connection.
pub(crate) fn set_deadlines(session: &mut Session, limits: &Limits) {
    let downstream = session.as_downstream_mut();
    downstream.set_read_timeout(Some(limits.body_deadline));
    // Who takes nothing of the answer for that long holds a turn, and its runner, for nothing.
    downstream.set_write_timeout(Some(limits.body_deadline));
    // What is left of a refused body is read, so that the caller hears the refusal; not for long.
    downstream.set_total_drain_timeout(Some(LINGER));
}

/// Refuses a head that is too large or asks for what is not offered.
pub(crate) fn check_head(head: &RequestHeader, limits: &Limits) -> Result<(), Refusal> {
    let names_and_values: usize =
        head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if names_and_values + head.raw_path().len() > limits.headers {
        return Err(Refusal::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers_too_large",
            format!("The request's headers are larger than {} bytes.", limits.headers),
        ));
    }
    if let Some(expect) = head.headers.get(header::EXPECT)
        && !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(Refusal::new(
            StatusCode::EXPECTATION_FAILED,
            "unknown_expectation",
            "Only `Expect: 100-continue` is understood.",
        ));
    }
    Ok(())
}

/// Refuses a body that is known to be too large, encoded, or not JSON.
pub(super) fn check_body(head: &RequestHeader, limits: &Limits) -> Result<(), Refusal> {
    debug_assert_eq!(head.method, Method::POST);
    let text = |name| head.headers.get(name).map(http::HeaderValue::as_bytes);
    check_coding(&head.headers)?;
    // A browser form cannot send JSON without asking first, so this also stops cross-site posts.
    let media_type = text(header::CONTENT_TYPE).unwrap_or_default();
    let media_type = media_type.split(|byte| *byte == b';').next().unwrap_or_default();
    if !media_type.trim_ascii().eq_ignore_ascii_case(b"application/json") {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "not_json",
            "Send the body as JSON, with `Content-Type: application/json`.",
        ));
    }
    let length = text(header::CONTENT_LENGTH).and_then(|length| std::str::from_utf8(length).ok());
    if length
        .and_then(|length| length.parse::<usize>().ok())
        .is_some_and(|length| length > limits.body)
    {
        return Err(too_large(limits));
    }
    Ok(())
}

/// Refuses a body that would have to be decoded to be read.
pub(crate) fn check_coding(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "encoded_body",
            "Send the body as it is, without Content-Encoding.",
        ));
    }
    Ok(())
}

/// Refuses a web page where callers may say themselves who they are: a page whose name was made
/// to resolve to this machine could otherwise be anybody. Browsers say that a page asks, and no
/// page of ours does.
pub(super) fn check_page(caller: &Caller, headers: &HeaderMap) -> Result<(), Refusal> {
    let of_page = [header::ORIGIN.as_str(), "sec-fetch-site"];
    if matches!(caller, Caller::Undecided) && of_page.iter().any(|name| headers.contains_key(*name))
    {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "page_without_key",
            "Web pages may not call this gateway without a key. Send `Authorization: Bearer <key>` \
             with a key of this gateway, from a server.",
        ));
    }
    Ok(())
}

/// Tells a caller that asked with `Expect: 100-continue` to send the body. The gateway does it
/// itself: it may need the body before there is an upstream to ask.
pub(crate) async fn let_body_come(session: &mut Session) -> Result<(), Refusal> {
    session.as_downstream_mut().write_continue_response().await.map_err(|error| {
        Refusal::bad_request("body_incomplete", "The body broke off.")
            .because(error.etype().as_str())
    })
}

/// The 413 for a body above the limit.
pub(super) fn too_large(limits: &Limits) -> Refusal {
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        format!(
            "The request is larger than {} bytes. Send fewer or smaller files, or start a new chat.",
            limits.body
        ),
    )
}

/// Reads the whole body while Pingora keeps it for the upstream, which it does up to 64 KiB
/// (`protocols/http/v1/common.rs`, `BODY_BUF_LIMIT`); past that it would be lost.
pub(super) async fn peek_body(session: &mut Session, limits: &Limits) -> Result<Bytes, Refusal> {
    let downstream = session.as_downstream_mut();
    downstream.enable_retry_buffering();
    let mut size = 0;
    let whole = async {
        loop {
            match downstream.read_request_body().await {
                Ok(Some(_)) if downstream.retry_buffer_truncated() => {
                    return Err(Refusal::new(
                        StatusCode::PAYLOAD_TOO_LARGE,
                        "body_too_large_to_identify",
                        "Without an API key or a trusted front end, the user is read from the body, \
                         which may then have 64 KiB at most. Use an API key for larger requests.",
                    )
                    .param("user"));
                }
                Ok(Some(chunk)) => {
                    size += chunk.len();
                    if size > limits.body {
                        return Err(too_large(limits));
                    }
                }
                Ok(None) => return Ok(downstream.get_retry_buffer().unwrap_or_default()),
                Err(error) if *error.etype() == ErrorType::ReadTimedout => return Err(too_slow()),
                Err(error) => {
                    return Err(Refusal::bad_request("body_incomplete", "The body broke off.")
                        .because(error.etype().as_str()));
                }
            }
        }
    };
    // For all of it: a body that drips is never silent.
    tokio::time::timeout(limits.body_deadline, whole).await.unwrap_or_else(|_| Err(too_slow()))
}

/// The 408 for a body that takes too long.
pub(super) fn too_slow() -> Refusal {
    Refusal::new(
        StatusCode::REQUEST_TIMEOUT,
        "body_too_slow",
        "The body did not arrive in time. Try again on a better connection.",
    )
}

/// How long the rest of a refused body is read.
const LINGER: std::time::Duration = std::time::Duration::from_secs(5);
