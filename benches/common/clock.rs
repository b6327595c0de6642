//! Stamps in what is sent, which tell how old it is when it arrives.

use std::sync::LazyLock;

use tokio::time::Instant;

/// Nanoseconds since the bench began.
pub(crate) fn now() -> u64 {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGUN.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The time as a text that [`ages`] finds.
pub(crate) fn stamp() -> String {
    format!("@{:0STAMP$x}@", now())
}

/// How long ago each stamp in `bytes` was written, in nanoseconds.
pub(crate) fn ages(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let now = now();
    bytes.split(|byte| *byte == b'@').filter(|stamp| stamp.len() == STAMP).filter_map(
        move |stamp| {
            let written = u64::from_str_radix(std::str::from_utf8(stamp).ok()?, 16).ok()?;
            now.checked_sub(written)
        },
    )
}

/// Digits of a stamp, which stands between two `@`.
const STAMP: usize = 16;
