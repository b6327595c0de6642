//! What the gateway itself answers, and what it allows of a runner's answer.

use bytes::Bytes;
use http::{StatusCode, header};
use pingora::http::ResponseHeader;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::{FailToProxy, Session};

use super::{drain::Drain, exchange::Exchange, header::strip_answer};
use crate::{config::Dialect, error::Refusal, openai::sse, pool::Pool};

/// The body of `GET /healthz`: the process is up.
pub(super) fn health() -> Bytes {
    Bytes::from_static(br#"{"status":"ok"}"#)
}

/// The body of `GET /readyz`, or a 503 while the gateway stops or no runner could be had.
pub(super) async fn ready(drain: &Drain, pool: &Pool) -> Result<Bytes, Refusal> {
    if drain.is_closed() {
        return Err(Drain::refusal());
    }
    pool.check().await.map_err(|error| {
        let message = "Runners cannot be started. The reason is in the gateway's log.";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "launcher_unusable", message).because(error)
    })?;
    Ok(Bytes::from_static(br#"{"status":"ready"}"#))
}

/// Answers 200 with `body`.
pub(super) async fn json(session: &mut Session, exchange: &Exchange, body: Bytes) -> Result<()> {
    write(session, exchange, StatusCode::OK, body, None).await
}

/// Answers with `refusal`.
pub(super) async fn refuse(
    session: &mut Session,
    exchange: &mut Exchange,
    refusal: Refusal,
) -> Result<()> {
    let wait = refusal.retry_after.map(|wait| wait.as_secs().max(1));
    write(session, exchange, refusal.status, refusal.body(), wait).await?;
    exchange.refused = Some((refusal.code, refusal.cause));
    Ok(())
}

async fn write(
    session: &mut Session,
    exchange: &Exchange,
    status: StatusCode,
    body: Bytes,
    retry_after: Option<u64>,
) -> Result<()> {
    let mut head = ResponseHeader::build(status, Some(5))?;
    head.insert_header(header::CONTENT_TYPE, "application/json")?;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    if let Some(seconds) = retry_after {
        head.insert_header(header::RETRY_AFTER, seconds)?;
    }
    stamp(&mut head, exchange)?;
    let only_head = session.req_header().method == http::Method::HEAD;
    session.write_response_header(Box::new(head), only_head).await?;
    if only_head { Ok(()) } else { session.write_response_body(Some(body), true).await }
}

/// Adds what every answer carries.
pub(super) fn stamp(head: &mut ResponseHeader, exchange: &Exchange) -> Result<()> {
    head.insert_header("x-request-id", exchange.id.as_str())?;
    // Answers are one user's: nothing on the way may keep them, nor buffer a stream.
    head.insert_header(header::CACHE_CONTROL, "no-store")?;
    if is_event_stream(head) {
        head.insert_header("x-accel-buffering", "no")?;
    }
    Ok(())
}

/// Whether the answer is an event stream.
pub(super) fn is_event_stream(head: &ResponseHeader) -> bool {
    head.headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

/// Refuses what a runner must not answer, and takes away every header that is not on the list.
pub(super) fn check_runner(head: &mut ResponseHeader, exchange: &Exchange) -> Result<(), Refusal> {
    if exchange.config.runners.dialect == Dialect::Opencode {
        return Ok(());
    }
    let encoded = head.headers.contains_key(header::CONTENT_ENCODING);
    if head.status.is_redirection() || encoded {
        let cause = format!("the runner answered {} encoded={encoded}", head.status);
        return Err(Refusal::unavailable().because(cause));
    }
    strip_answer(head);
    Ok(())
}

/// Tells the caller of a failure: as a JSON error while nothing was sent, as an SSE error event
/// once a stream has begun.
pub(super) async fn fail(
    session: &mut Session,
    error: &Error,
    exchange: &mut Exchange,
) -> FailToProxy {
    let refusal = exchange.refusal.take().unwrap_or_else(|| of_error(error));
    let status = refusal.status.as_u16();
    let told = if *error.esource() == ErrorSource::Downstream && is_gone(error) {
        Ok(())
    } else if session.response_written().is_none() {
        refuse(session, exchange, refusal).await
    } else if exchange.streaming {
        let event = sse::error(&refusal);
        exchange.refused = Some((refusal.code, refusal.cause));
        session.write_response_body(Some(event), true).await
    } else {
        Ok(())
    };
    if let Err(error) = told {
        log::debug!("the caller could not be told: {}", error.etype().as_str());
    }
    FailToProxy { error_code: status, can_reuse_downstream: false }
}

fn is_gone(error: &Error) -> bool {
    matches!(
        error.etype(),
        ErrorType::WriteError | ErrorType::ReadError | ErrorType::ConnectionClosed
    )
}

/// A refusal for an error that no phase of ours made.
fn of_error(error: &Error) -> Refusal {
    let cause = error.etype().as_str();
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => super::limit::too_slow(),
        (ErrorSource::Downstream, _) => {
            Refusal::bad_request("bad_request", "The request could not be read.").because(cause)
        }
        (ErrorSource::Upstream, ErrorType::ReadTimedout) => Refusal::new(
            StatusCode::GATEWAY_TIMEOUT,
            "runner_timeout",
            "Your workspace did not answer in time. Try again.",
        )
        .because(cause),
        (ErrorSource::Upstream, _) => Refusal::unavailable().because(cause),
        _ => Refusal::internal().because(cause),
    }
}
