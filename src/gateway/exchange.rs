//! What is known of one request: Pingora's per-request context.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pingora_core::{Error, ErrorType};
use pingora_proxy::Session;
use tokio::time::Instant;

use super::{
    drain::Admission,
    identity::{Caller, Identity},
    limit,
    origin::Origin,
};
use crate::{
    config::{Config, Dialect},
    error::Refusal,
    openai::{models, splice::Scan},
    persona::Choice,
    pool::Lease,
    workspace::Effective,
};

/// One request and its answer.
#[derive(Debug)]
pub struct Exchange {
    /// The configuration the request started with.
    pub(super) config: Arc<Config>,
    /// Sent back as `x-request-id` and written with every log line.
    pub(super) id: String,
    pub(super) started: Instant,
    pub(super) admission: Option<Admission>,
    pub(super) caller: Option<Caller>,
    pub(super) origin: Origin,
    /// `openai` dialect: who it is and which runner answers.
    pub(super) identity: Option<Identity>,
    pub(super) lease: Option<Lease>,
    pub(super) models: Option<Effective>,
    /// The body so far: it is passed on in one piece.
    body: BytesMut,
    body_began: Option<Instant>,
    /// Whether it was.
    is_passed_on: bool,
    /// Why the answer is no, until the caller is told.
    pub(super) refusal: Option<Refusal>,
    /// Whether the answer is an event stream.
    pub(super) streaming: bool,
    /// The code of the refusal the caller was told.
    pub(super) refused: Option<(&'static str, String)>,
}

impl Exchange {
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            id: new_id(),
            started: Instant::now(),
            admission: None,
            caller: None,
            origin: Origin::default(),
            identity: None,
            lease: None,
            models: None,
            body: BytesMut::new(),
            body_began: None,
            is_passed_on: false,
            refusal: None,
            streaming: false,
            refused: None,
        }
    }

    /// Refuses to go on with the answer of an `openai` runner for longer than a turn may last.
    pub(super) fn check_turn(&self) -> Result<(), Refusal> {
        let limit = self.config.limits.turn;
        if self.lease.is_some() && self.started.elapsed() > limit {
            return Err(crate::turn::too_long(limit));
        }
        Ok(())
    }

    /// Keeps `refusal` for [`super::reply::fail`] and gives Pingora the error that leads there.
    #[expect(clippy::unnecessary_box_returns, reason = "so Pingora's phases want it")]
    pub(super) fn fail(&mut self, refusal: Refusal) -> Box<Error> {
        let status = refusal.status.as_u16();
        self.refusal = Some(refusal);
        Error::new(ErrorType::HTTPStatus(status))
    }

    /// Holds the body back until all of it is there, then lets it go in one piece: while body
    /// chunks wait in a full pipe, Pingora does not watch the client (`proxy_h1.rs`). Until then it
    /// gets empty pieces: it would take none at all for the end (`send_body_to_pipe`).
    pub(super) fn hold(
        &mut self,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
    ) -> Result<(), Refusal> {
        let chunk = body.take().unwrap_or_default();
        if self.body.len() + chunk.len() > self.config.limits.body {
            return Err(limit::too_large(&self.config.limits));
        }
        // Not from the request's start: an `openai` runner may have had to be launched first.
        let began = *self.body_began.get_or_insert_with(Instant::now);
        if !chunk.is_empty() && began.elapsed() > self.config.limits.body_deadline {
            return Err(limit::too_slow());
        }
        let whole = if end_of_stream && self.body.is_empty() {
            chunk
        } else {
            self.body.extend_from_slice(&chunk);
            if !end_of_stream {
                *body = Some(Bytes::new());
                return Ok(());
            }
            self.body.split().freeze()
        };
        // A body that is empty is looked at too, once.
        if !std::mem::replace(&mut self.is_passed_on, true) {
            *body = Some(self.addressed(whole)?);
        }
        Ok(())
    }

    /// The body as the upstream gets it: a turn as it is, an `openai` runner with the model and
    /// agent it is to use.
    fn addressed(&self, body: Bytes) -> Result<Bytes, Refusal> {
        match (&self.models, self.config.runners.dialect) {
            (Some(effective), Dialect::OpenAi) => {
                let scan = Scan::of(&body, self.config.limits.json_depth)?;
                let asked = scan.model().ok_or_else(models::missing)?;
                let choice = Choice::of(&self.config, asked, self.origin.model.as_deref(), None)?;
                let model = effective.model.to_string();
                Ok(scan.rewrite(&model, Some(&choice.agent)).into())
            }
            _ => Ok(body),
        }
    }

    /// Writes the one line of this request.
    pub(super) fn log(&self, session: &Session, error: Option<&Error>) {
        let status = session.response_written().map_or(0, |response| response.status.as_u16());
        let head = session.req_header();
        let path: String = head.uri.path().chars().take(LONGEST_FIELD).collect();
        let (code, cause) = self.refused.as_ref().map_or(("", ""), |(code, cause)| (code, cause));
        // Only the type of Pingora's error: its text may quote what the client sent.
        let failure = error.map(|error| error.etype().as_str()).unwrap_or_default();
        log::info!(
            "request id={} method={} path={path:?} status={status} ms={} sent={} code={code:?} \
             failure={failure:?} cause={cause:?}",
            self.id,
            head.method,
            self.started.elapsed().as_millis(),
            session.body_bytes_sent(),
        );
    }
}

/// An id for a request, for log lines and `x-request-id`.
pub(crate) fn new_id() -> String {
    let mut bytes = [0; 12];
    // Without entropy the id is not unique, which only makes the log harder to read.
    getrandom::fill(&mut bytes).unwrap_or_default();
    format!("req_{}", hex::encode(bytes))
}

/// Characters of a caller's text in a log line.
const LONGEST_FIELD: usize = 256;
