//! The orderly end: requests, then runners, then what is left to count.

use std::io;

use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Duration, timeout},
};

use super::Assembly;
use crate::config::Live;

/// Ends a server with a gateway in it, as the `shutdown_signal` of [`RunArgs`](pingora_core::server::RunArgs): on SIGTERM or SIGINT
/// requests end first, for as long as `listen.drain` allows; then runners; then, within the same
/// time, the answers that are only read on to be counted; then the server. A
/// second signal ends the wait.
///
/// Pingora's own graceful stop knows nothing of runners, and sleeps its whole grace period even
/// when idle.
#[derive(Debug)]
pub struct Stop {
    assembly: Assembly,
    live: Live,
}

impl Stop {
    /// Ends the server that `assembly`, with the configuration `live`, is mounted in.
    pub fn new(assembly: Assembly, live: Live) -> Self {
        Self { assembly, live }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        let asked = signals();
        let Ok((mut terminate, mut interrupt)) = asked else {
            log::error!("signals cannot be received; stop the gateway with SIGKILL");
            std::future::pending::<()>().await;
            return ShutdownSignal::FastShutdown;
        };
        either(&mut terminate, &mut interrupt).await;
        let Assembly { gateway, egress } = &self.assembly;
        let (drain, patience) = (gateway.drain(), self.live.now().listen.drain);
        log::info!("stopping in_flight={} (again: at once)", drain.in_flight());
        tokio::select! {
            _ = timeout(patience, drain.close_and_wait()) => {}
            () = either(&mut terminate, &mut interrupt) => {}
        }
        gateway.means().pool.stop().await;
        tokio::select! {
            _ = timeout(patience, egress.drain().close_and_wait()) => {}
            () = either(&mut terminate, &mut interrupt) => {}
        }
        // Turns whose runner is gone tell their callers so.
        drop(timeout(LAST_WORDS, drain.close_and_wait()).await);
        ShutdownSignal::FastShutdown
    }
}

fn signals() -> io::Result<(Signal, Signal)> {
    Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// For error events on streams that a stop cuts.
const LAST_WORDS: Duration = Duration::from_secs(1);
