//! How long a workspace whose runners keep ending has to wait for the next one.

use std::time::Duration;

use tokio::time::Instant;

/// The failures of one workspace's runners since one of them was well.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trouble {
    /// Starts that failed and runners that ended young, in a row.
    pub(super) crashes: u32,
    last: Instant,
}

impl Trouble {
    /// Adds one more failure to `before`.
    pub(super) fn after(before: Option<Self>, now: Instant) -> Self {
        let crashes = before.filter(|before| !before.is_over(now)).map_or(0, |b| b.crashes);
        Self { crashes: crashes.saturating_add(1), last: now }
    }

    /// How long until the next start is allowed; `None` when it is.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let doublings = self.crashes.checked_sub(TOLERATED)?.min(16);
        let pause = Duration::from_secs(1 << doublings).min(LONGEST);
        pause.checked_sub(now - self.last).filter(|wait| !wait.is_zero())
    }

    /// Whether it was so long ago that it says nothing any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now - self.last > FORGOTTEN
    }
}

/// A runner that lived this long was well: its end starts no count.
pub(super) const LONG_LIFE: Duration = Duration::from_secs(30);
/// The failure in a row that starts the waiting.
const TOLERATED: u32 = 3;
const LONGEST: Duration = Duration::from_secs(30);
const FORGOTTEN: Duration = Duration::from_mins(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_wait_starts_with_the_third_failure_and_doubles_to_half_a_minute() {
        let now = Instant::now();
        let mut trouble = None;
        let mut waits = Vec::new();
        for _ in 0..9 {
            let failed = Trouble::after(trouble, now);
            waits.push(failed.wait(now).map_or(0, |wait| wait.as_secs()));
            trouble = Some(failed);
        }
        assert_eq!(waits, [0, 0, 1, 2, 4, 8, 16, 30, 30]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_another_day_do_not_count() {
        let now = Instant::now();
        let old = Trouble { crashes: 9, last: now };
        assert_eq!(Trouble::after(Some(old), now + FORGOTTEN * 2).crashes, 1);
        assert_eq!(old.wait(now + LONGEST), None);
    }
}
