//! The requests in flight, and the end of letting in more.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use tokio::sync::watch;

use crate::error::Refusal;

/// Counts the requests in flight and, once closed, refuses further ones.
#[derive(Debug)]
pub struct Drain {
    in_flight: watch::Sender<usize>,
    closed: AtomicBool,
}

impl Default for Drain {
    fn default() -> Self {
        Self { in_flight: watch::Sender::new(0), closed: AtomicBool::new(false) }
    }
}

/// A request in flight, until dropped.
#[derive(Debug)]
pub(crate) struct Admission(Arc<Drain>);

impl Drain {
    /// Lets a request in.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Admission, Refusal> {
        // Counted before the look at `closed`: `close_and_wait` closes before it looks at the count.
        self.in_flight.send_modify(|count| *count += 1);
        let admission = Admission(Arc::clone(self));
        if self.is_closed() {
            return Err(Self::refusal());
        }
        Ok(admission)
    }

    /// What a caller hears who is not let in.
    pub(super) fn refusal() -> Refusal {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping",
            "The gateway is restarting. Try again in a moment.",
        )
        .retry_after(Duration::from_secs(5))
    }

    /// Whether no more requests are let in.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Requests being answered now.
    pub fn in_flight(&self) -> usize {
        *self.in_flight.borrow()
    }

    /// Lets no more requests in, and returns once none is in flight.
    pub async fn close_and_wait(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let mut count = self.in_flight.subscribe();
        // The sender is `self`, so the wait cannot fail.
        drop(count.wait_for(|count| *count == 0).await);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.in_flight.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn closing_waits_for_those_inside_and_refuses_others() {
        let drain = Arc::new(Drain::default());
        let inside = drain.admit().unwrap();
        let mut closed = Box::pin(drain.close_and_wait());
        assert!((&mut closed).now_or_never().is_none());
        assert_eq!(drain.admit().unwrap_err().code, "stopping");
        drop(inside);
        closed.await;
    }
}
