//! A reply in its own time: what is written when, and what the books say of its end.

use std::{
    io::{self, Write as _},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::{Stream, stream};
use hyper::body::Frame;
use open_persona::usage::Tokens;
use tokio::time::sleep;

use super::{
    Asked, Desk,
    act::Quirk,
    shape::{Shape, Told},
};

/// The steps of a reply.
pub(super) fn of(told: &Told<'_>, shape: &dyn Shape, streamed: bool) -> Vec<Step> {
    let reply = told.reply;
    let (held, middle) = (reply.quirk == Quirk::Held, reply.pieces.len() / 2);
    let mut steps = Vec::new();
    let write = |text: String| streamed.then(|| Step::Write(text.into()));
    steps.extend(write(shape.opening(told)));
    for (index, piece) in reply.pieces.iter().enumerate() {
        if held && index == middle {
            steps.push(Step::Gate);
        }
        steps.push(Step::Pause(reply.pause));
        steps.extend(write(shape.piece(told, piece)));
    }
    if held && reply.pieces.is_empty() {
        steps.push(Step::Gate);
    }
    steps.extend(reply.call.as_ref().and_then(|call| write(shape.call(told, call))));
    steps.push(match (reply.quirk, streamed) {
        (Quirk::Cut, _) => Step::Break,
        (_, true) => Step::End(shape.closing(told).into()),
        (_, false) => Step::End(shape.whole(told).to_string().into()),
    });
    steps
}

/// A reply's steps, and the call they answer, if it is one that is in the books.
pub(super) fn body(
    steps: Vec<Step>,
    open: Option<Open>,
) -> impl Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static {
    stream::unfold((steps.into_iter(), open), |(mut steps, mut open)| async move {
        loop {
            let frame = match (steps.next()?, &mut open) {
                (Step::Pause(pause), _) => {
                    sleep(pause).await;
                    continue;
                }
                (Step::Gate, Some(open)) => {
                    open.pass_gate().await;
                    continue;
                }
                (Step::Gate, None) => continue,
                (Step::End(text), Some(open)) => {
                    open.end();
                    Ok(Frame::data(text))
                }
                (Step::Write(text) | Step::End(text), _) => Ok(Frame::data(text)),
                (Step::Break, _) => Err(io::Error::other("cut, as the prompt has asked")),
            };
            return Some((frame, (steps, open)));
        }
    })
}

/// Compresses what the steps write. Each step's text can be read when it has come.
pub(super) fn compress(steps: &mut [Step]) {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    for step in steps {
        match step {
            Step::Write(text) => {
                gzip.write_all(text).and_then(|()| gzip.flush()).expect("memory");
                *text = std::mem::take(gzip.get_mut()).into();
            }
            Step::End(text) => {
                gzip.write_all(text).and_then(|()| gzip.try_finish()).expect("memory");
                *text = std::mem::take(gzip.get_mut()).into();
            }
            Step::Pause(_) | Step::Gate | Step::Break => {}
        }
    }
}

/// One step of a reply.
pub(super) enum Step {
    Pause(Duration),
    /// Waits until the test lets it through.
    Gate,
    Write(Bytes),
    /// Writes the end, with the final usage if there is any.
    End(Bytes),
    /// Breaks the connection.
    Break,
}

/// A call that goes on. Dropped before its end, it has ended early.
pub(super) struct Open {
    desk: Arc<Desk>,
    asked: Asked,
    tokens: Option<Tokens>,
    is_over: bool,
}

impl Open {
    pub(super) fn of(desk: Arc<Desk>, asked: Asked, tokens: Option<Tokens>) -> Self {
        Self { desk, asked, tokens, is_over: false }
    }

    /// Writes the end into the books.
    fn end(&mut self) {
        self.is_over = true;
        let mut ledger = self.desk.ledger.lock();
        match self.tokens {
            Some(tokens) => {
                ledger.told += 1;
                ledger.tell(&self.asked.key, &self.asked.model, tokens);
            }
            None => ledger.untold += 1,
        }
    }

    async fn pass_gate(&self) {
        let _waiting = Waiting::at(&self.desk);
        self.desk.gate.acquire().await.expect("a gate").forget();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.is_over {
            self.desk.ledger.lock().early += 1;
        }
    }
}

/// Somebody at the gate.
struct Waiting<'a>(&'a Desk);

impl<'a> Waiting<'a> {
    fn at(desk: &'a Desk) -> Self {
        desk.waiting.fetch_add(1, Ordering::SeqCst);
        Self(desk)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
