//! A client that leaves, unnoticed: reads wait and writes succeed, so that whoever reads an
//! upstream's answer for it reads on.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};

/// A connection's switch between noticing its client's departure and not.
#[derive(Debug, Default)]
pub(crate) struct Stay(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    /// A departure is noticed at once.
    #[default]
    Off,
    /// It is not, for this long.
    On(Duration),
    /// The client has left; until then nobody is told.
    Left(Pin<Box<Sleep>>),
    /// The client has left, and that may be known.
    Gone,
}

impl Stay {
    /// From now on the client's departure goes unnoticed, for `longest` after it.
    pub(crate) fn begin(&self, longest: Duration) {
        let mut state = self.0.lock();
        if matches!(*state, State::Off) && !longest.is_zero() {
            *state = State::On(longest);
        }
    }

    /// From now on it is noticed, also when it happened before.
    pub(crate) fn end(&self) {
        let mut state = self.0.lock();
        *state = match *state {
            State::Off | State::On(_) => State::Off,
            State::Left(_) | State::Gone => State::Gone,
        };
    }

    /// Whether the client has left while it was not to be noticed.
    pub(crate) fn has_left(&self) -> bool {
        matches!(*self.0.lock(), State::Left(_) | State::Gone)
    }

    /// Whether the connection is of no more use: reads are at its end, writes go nowhere.
    pub(super) fn is_gone(&self) -> bool {
        self.has_left()
    }

    /// What a read is to give that gave `read`, with bytes if `has_bytes`.
    pub(super) fn after_read(
        &self,
        read: Poll<io::Result<()>>,
        has_bytes: bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let is_end = match &read {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) => !has_bytes,
            Poll::Ready(Err(_)) => true,
        };
        let mut state = self.0.lock();
        if is_end && let State::On(longest) = *state {
            *state = left(longest);
        }
        match &mut *state {
            State::Left(until) if is_end => {
                let late = until.as_mut().poll(cx);
                late.map(|()| Err(io::ErrorKind::ConnectionReset.into()))
            }
            _ => read,
        }
    }

    /// What a write of `all` is to give that gave `written`.
    pub(super) fn after_write<T>(
        &self,
        written: Poll<io::Result<T>>,
        all: T,
    ) -> Poll<io::Result<T>> {
        if !matches!(written, Poll::Ready(Err(_))) {
            return written;
        }
        let mut state = self.0.lock();
        if let State::On(longest) = *state {
            *state = left(longest);
        }
        if matches!(*state, State::Left(_)) { Poll::Ready(Ok(all)) } else { written }
    }
}

fn left(longest: Duration) -> State {
    State::Left(Box::pin(sleep_until(Instant::now() + longest)))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::poll;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    async fn at_end(stay: &Stay) -> io::Result<()> {
        poll_fn(|cx| stay.after_read(Poll::Ready(Ok(())), false, cx)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_departure_goes_unnoticed_for_as_long_as_was_said() {
        let stay = Stay::default();
        stay.begin(LONG);
        assert!(!stay.has_left());
        let mut read = Box::pin(at_end(&stay));
        assert!(poll!(&mut read).is_pending());
        assert!(stay.has_left());
        let start = Instant::now();
        assert!(read.await.is_err());
        assert!(start.elapsed() >= LONG);
    }

    #[tokio::test(start_paused = true)]
    async fn writes_to_who_has_left_succeed_and_go_nowhere() {
        let stay = Stay::default();
        let broken = || Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        assert!(matches!(stay.after_write(broken(), 7), Poll::Ready(Err(_))), "off");
        stay.begin(LONG);
        assert!(matches!(stay.after_write(broken(), 7), Poll::Ready(Ok(7))));
        assert!(stay.is_gone());
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_end_a_departure_is_known() {
        let stay = Stay::default();
        stay.begin(LONG);
        assert!(poll!(Box::pin(at_end(&stay))).is_pending());
        stay.end();
        assert!(at_end(&stay).await.is_ok(), "the end of the stream");
        assert!(stay.is_gone());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_departure_nothing_changes() {
        let stay = Stay::default();
        stay.begin(LONG);
        let read = poll_fn(|cx| stay.after_read(Poll::Ready(Ok(())), true, cx)).await;
        assert!(read.is_ok());
        stay.end();
        assert!(!stay.has_left());
        stay.begin(Duration::ZERO);
        assert!(at_end(&stay).await.is_ok(), "no time to stay for");
    }
}
