//! How many starts may be under way at the same time: first come, first served, under a limit
//! that a reload may change.

use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The queue of starts.
#[derive(Debug)]
pub(super) struct Admission {
    /// Fair: tokio hands permits out in the order they were asked for.
    places: Arc<Semaphore>,
    limit: Arc<Mutex<Limit>>,
}

/// The right to start a runner, given back on drop.
#[derive(Debug)]
pub(super) struct Place {
    permit: Option<OwnedSemaphorePermit>,
    limit: Arc<Mutex<Limit>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Limit {
    /// As configured.
    wanted: usize,
    /// Places there are, taken or free: above `wanted` until enough taken ones came back.
    there: usize,
}

impl Admission {
    /// Waits for one of `wanted` places. Dropping the future gives up its place in the queue.
    pub(super) async fn enter(&self, wanted: usize) -> Place {
        self.resize(wanted.clamp(1, Semaphore::MAX_PERMITS));
        let permit = Arc::clone(&self.places).acquire_owned().await;
        Place {
            permit: Some(permit.expect("the queue is never closed")),
            limit: Arc::clone(&self.limit),
        }
    }

    fn resize(&self, wanted: usize) {
        let mut limit = self.limit.lock();
        limit.wanted = wanted;
        if limit.there < wanted {
            self.places.add_permits(wanted - limit.there);
            limit.there = wanted;
        } else {
            limit.there -= self.places.forget_permits(limit.there - wanted);
        }
    }
}

impl Default for Admission {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(0)), limit: Arc::default() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut limit = self.limit.lock();
        let Some(permit) = self.permit.take() else { return };
        if limit.there > limit.wanted {
            limit.there -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::{FutureExt, poll};

    use super::*;

    #[tokio::test]
    async fn places_are_given_in_the_order_they_were_asked_for() {
        let admission = Admission::default();
        let first = admission.enter(1).await;
        let mut second = pin!(admission.enter(1));
        assert!(poll!(&mut second).is_pending());
        let mut third = pin!(admission.enter(1));
        assert!(poll!(&mut third).is_pending());
        drop(first);
        assert!(poll!(&mut third).is_pending());
        let second = second.now_or_never().expect("it is the second's turn");
        drop(second);
        assert!(third.now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_lower_limit_holds_as_soon_as_places_come_back() {
        let admission = Admission::default();
        let three = [admission.enter(3).await, admission.enter(3).await, admission.enter(3).await];
        let mut waiting = pin!(admission.enter(1));
        assert!(poll!(&mut waiting).is_pending());
        let [first, second, third] = three;
        drop(first);
        drop(second);
        assert!(poll!(&mut waiting).is_pending(), "one of one is still taken");
        drop(third);
        assert!(waiting.now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_higher_limit_lets_those_in_who_wait() {
        let admission = Admission::default();
        let _first = admission.enter(1).await;
        let mut second = pin!(admission.enter(1));
        assert!(poll!(&mut second).is_pending());
        let mut third = pin!(admission.enter(3));
        assert!(poll!(&mut third).is_ready());
        assert!(poll!(&mut second).is_ready());
    }
}
