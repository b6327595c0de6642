//! The course of a turn: workspace → runner → session → prompt → events → answer.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout_at},
};

use super::{Turn, ask, closing::Closing, reply::{Heard, Outcome, Reply}};
use crate::{
    chats::{self, Plan},
    error::Refusal,
    gateway::identity::{Caller, Identity},
    opencode::{self, Client, ClientError, event::Event, feed::{Listener, Loss, Said}},
    openai::{chunk::Voice, request::ChatRequest},
    persona::Choice,
    pool::Lease,
    runner::Backend,
    workspace::Workspace,
};

/// A turn that knows who asks, and for what.
pub(super) struct Course {
    turn: Turn,
    request: ChatRequest,
    identity: Identity,
    choice: Choice,
}

/// A session with the prompt in it.
struct Prompted {
    closing: Closing,
    listener: Listener,
    session: String,
    prompt: String,
}

impl Course {
    /// Decides what can be decided without waiting.
    pub(super) fn of(mut turn: Turn, request: ChatRequest) -> Result<Self, Refusal> {
        let undecided = matches!(turn.caller, Caller::Undecided);
        if undecided {
            turn.caller = Caller::of_body(&turn.config.identity, request.user.as_deref())?;
        }
        let Caller::Known { identity, .. } = &turn.caller else { return Err(Refusal::internal()) };
        let identity = identity.clone();
        let template = turn.origin.meta.as_ref().and_then(|meta| meta.template.as_deref());
        let choice = turn.config.choose(&request.model, template)?;
        Ok(Self { turn, request, identity, choice })
    }

    /// Carries the turn out and says its answer into `frames`. An `Err` is the answer's end.
    pub(super) async fn run(self, frames: mpsc::Sender<Bytes>) -> Result<(), Refusal> {
        let limit = self.turn.config.limits.turn;
        match timeout_at(Instant::now() + limit, self.carry_out(frames)).await {
            Ok(result) => result,
            Err(_) => Err(too_long(limit)),
        }
    }

    async fn carry_out(self, frames: mpsc::Sender<Bytes>) -> Result<(), Refusal> {
        let config = &self.turn.config;
        let (workspace, lease) = self.turn.means.runner(&self.identity, config).await?;
        let Backend::Opencode(client) = &lease.backend else { return Err(Refusal::internal()) };
        let client = Arc::clone(client);
        todo!()
    }
}
