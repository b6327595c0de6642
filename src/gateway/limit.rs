//! Sizes and deadlines, checked as early as each can be.

use bytes::Bytes;
use http::{Method, StatusCode, header};
use pingora::http::RequestHeader;
use pingora_proxy::Session;

use crate::{config::Limits, error::Refusal};

/// Puts the deadlines of the body on the connection.
pub(super) fn set_deadlines(session: &mut Session, limits: &Limits) {
    let downstream = session.as_downstream_mut();
    downstream.set_read_timeout(Some(limits.body_deadline));
    // What is left of a refused body is read, so that the caller hears the refusal; not for long.
    downstream.set_total_drain_timeout(Some(LINGER));
}

/// Refuses a head that is too large or asks for what is not offered.
pub(super) fn check_head(head: &RequestHeader, limits: &Limits) -> Result<(), Refusal> {
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
    if text(header::CONTENT_ENCODING)
        .is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity"))
    {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "encoded_body",
            "Send the body as it is, without Content-Encoding.",
        ));
    }
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
    loop {
        let read = tokio::time::timeout(limits.body_deadline, downstream.read_request_body()).await;
        match read {
            Ok(Ok(Some(_))) if downstream.retry_buffer_truncated() => {
                return Err(Refusal::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "body_too_large_to_identify",
                    "Without an API key or a trusted front end, the user is read from the body, \
                     which may then have 64 KiB at most. Use an API key for larger requests.",
                )
                .param("user"));
            }
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) => return Ok(downstream.get_retry_buffer().unwrap_or_default()),
            Ok(Err(error)) => {
                return Err(
                    Refusal::bad_request("body_incomplete", "The body broke off.").because(error)
                );
            }
            Err(_) => return Err(too_slow()),
        }
    }
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
