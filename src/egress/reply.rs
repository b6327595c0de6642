//! What the egress answers by itself.

use http::{StatusCode, header};
use pingora::http::ResponseHeader;
use pingora_core::{Error, ErrorSource, Result};
use pingora_proxy::{FailToProxy, Session};

use super::{call::Call, refusal};
use crate::error::Refusal;

/// Answers with `refusal`, in the shape of the provider's errors.
pub(super) async fn refuse(
    session: &mut Session,
    call: &mut Call,
    is_anthropic: bool,
    refusal: Refusal,
) -> Result<()> {
    call.tell_turn(&refusal);
    let body = refusal::body(&refusal, is_anthropic);
    let mut head = ResponseHeader::build(refusal.status, Some(5))?;
    head.insert_header(header::CONTENT_TYPE, "application/json")?;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    head.insert_header(refusal::HEADER, refusal.code)?;
    head.insert_header("x-request-id", call.id.as_str())?;
    if let Some(wait) = refusal.retry_after {
        head.insert_header(header::RETRY_AFTER, wait.as_secs().max(1))?;
    }
    // What follows on this connection may be the rest of what was not understood.
    session.set_keepalive(None);
    call.refused = Some((refusal.code, refusal.cause));
    let only_head = session.req_header().method == http::Method::HEAD;
    session.write_response_header(Box::new(head), only_head).await?;
    if !only_head {
        session.write_response_body(Some(body), true).await?;
    }
    // To close on a runner that still sends could take the answer from it before it is read.
    session.as_downstream_mut().drain_request_body().await
}

/// Tells the runner of a failure, while nothing was sent. Later there is nothing to say: SDKs take
/// a stream that breaks off for a failure, and what they were told of one they would not try again.
pub(super) async fn fail(session: &mut Session, error: &Error, call: &mut Call) -> FailToProxy {
    let of_provider = *error.esource() == ErrorSource::Upstream;
    let refusal = call.refusal.take().unwrap_or_else(|| {
        let cause = error.etype().as_str();
        if of_provider { refusal::provider_failed() } else { refusal::broken_off() }.because(cause)
    });
    let status = refusal.status.as_u16();
    let untold = session.response_written().is_none_or(|head| head.status.is_informational());
    if untold && (of_provider || *error.esource() != ErrorSource::Downstream) {
        let is_anthropic = call.admitted.as_ref().is_some_and(|it| it.route.is_anthropic());
        if let Err(error) = refuse(session, call, is_anthropic, refusal).await {
            log::debug!("the runner could not be told: {}", error.etype().as_str());
        }
    } else {
        call.refused = Some((refusal.code, refusal.cause));
    }
    FailToProxy { error_code: status, can_reuse_downstream: false }
}

/// Whether a provider's answer is one that SDKs understand. A redirection would lead a runner to
/// somebody who gets its token.
pub(super) fn check_provider(head: &ResponseHeader) -> Result<(), Refusal> {
    let redirects = head.status.is_redirection() && head.status != StatusCode::NOT_MODIFIED;
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    if redirects || switches {
        let cause = format!("the provider answered {}", head.status);
        return Err(refusal::provider_failed().because(cause));
    }
    Ok(())
}
