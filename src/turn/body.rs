//! An answer's body that carries out the turn while it is polled.
//!
//! There is no task to end: dropping the body drops the turn wherever it was.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::poll_fn;
use http_body::Frame;
use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep},
};

use super::course::Course;
use crate::{
    error::Refusal,
    openai::{request::Prompt, sse},
};

/// Frames a turn may be ahead of its reader.
const AHEAD: usize = 16;

/// A turn on its way.
type Work = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>;

/// The body of a turn's answer.
pub(super) struct LiveBody {
    /// The request's id, for the log.
    id: String,
    work: Option<Work>,
    frames: mpsc::Receiver<Bytes>,
    /// Read already, to know that there is something.
    first: Option<Bytes>,
    silence: Pin<Box<Sleep>>,
    keep_alive: Duration,
}

/// What there is to send.
enum Next {
    Frame(Bytes),
    Silence,
    Failed(Refusal),
    End,
}

impl LiveBody {
    /// A body that carries out `course`, with a comment after each `keep_alive` of silence.
    pub(super) fn of(course: Course, prompt: Prompt, keep_alive: Duration) -> Self {
        let (sender, frames) = mpsc::channel(AHEAD);
        Self {
            id: course.turn.id.clone(),
            work: Some(Box::pin(course.run(prompt, sender))),
            frames,
            first: None,
            silence: Box::pin(sleep(keep_alive)),
            keep_alive,
        }
    }

    /// Waits until there is something to send, or to say that there is nothing yet.
    pub(super) async fn first(&mut self) -> Result<(), Refusal> {
        match poll_fn(|cx| self.poll_next(cx)).await {
            Next::Frame(frame) => self.first = Some(frame),
            Next::Silence => self.first = Some(sse::keep_alive()),
            Next::Failed(refusal) => return Err(refusal),
            Next::End => {}
        }
        Ok(())
    }

    /// Carries out the turn and gives its one document.
    pub(super) async fn whole(mut self) -> Result<Bytes, Refusal> {
        let mut whole = Bytes::new();
        loop {
            match poll_fn(|cx| self.poll_next(cx)).await {
                Next::Frame(frame) => whole = frame,
                Next::Silence => {}
                Next::Failed(refusal) => return Err(refusal),
                Next::End => return Ok(whole),
            }
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let ended = match &mut self.work {
            Some(work) => work.as_mut().poll(cx).map(Some),
            None => Poll::Ready(None),
        };
        if let Poll::Ready(Some(_)) = &ended {
            self.work = None;
        }
        // What was said before the end comes before the end.
        if let Poll::Ready(Some(frame)) = self.frames.poll_recv(cx) {
            if let Poll::Ready(Some(end)) = ended {
                self.work = Some(Box::pin(std::future::ready(end)));
            }
            self.silence.as_mut().reset(Instant::now() + self.keep_alive);
            return Poll::Ready(Next::Frame(frame));
        }
        match ended {
            Poll::Ready(Some(Err(refusal))) => Poll::Ready(Next::Failed(refusal)),
            Poll::Ready(_) => Poll::Ready(Next::End),
            Poll::Pending => {
                ready!(self.silence.as_mut().poll(cx));
                self.silence.as_mut().reset(Instant::now() + self.keep_alive);
                Poll::Ready(Next::Silence)
            }
        }
    }
}

impl http_body::Body for LiveBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let bytes = match ready!(self.poll_next(cx)) {
            Next::Frame(frame) => frame,
            Next::Silence => sse::keep_alive(),
            Next::Failed(refusal) => {
                log::info!(
                    "turn broke off id={} code={} cause={:?}",
                    self.id,
                    refusal.code,
                    refusal.cause
                );
                sse::error(&refusal)
            }
            Next::End => return Poll::Ready(None),
        };
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}
