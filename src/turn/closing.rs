//! What must follow a turn however it ends, also when it is dropped.

use std::{sync::Arc, time::Duration};

use tokio::runtime::Handle;

use crate::{chats, opencode::Client, pool::Lease};

/// Aborts and tidies up a session when dropped, and gives the runner back after that.
#[derive(Debug)]
pub(super) struct Closing {
    client: Arc<Client>,
    session: String,
    /// Whether something may still run in the session.
    pub(super) abort: bool,
    /// Whether the session is of no further use.
    pub(super) delete: bool,
    /// Kept until all is done: the runner is not idle before, nor the chat free.
    kept: Option<(Lease, Option<chats::Guard>)>,
    runtime: Handle,
}

impl Closing {
    /// Watches over `session` from before its first prompt.
    pub(super) fn arm(
        client: Arc<Client>,
        session: String,
        lease: Lease,
        chat: Option<chats::Guard>,
    ) -> Self {
        Self {
            client,
            session,
            abort: true,
            delete: chat.is_none(),
            kept: Some((lease, chat)),
            runtime: Handle::current(),
        }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let kept = self.kept.take();
        if !self.abort && !self.delete {
            return;
        }
        let (abort, delete) = (self.abort, self.delete);
        let (client, session) = (Arc::clone(&self.client), std::mem::take(&mut self.session));
        // Nobody waits for it: bounded by `PATIENCE`, and by the runner's own end.
        drop(self.runtime.spawn(async move {
            let tidy = async {
                // Deleting does not stop what runs (observed), so the abort comes first.
                if abort && let Err(error) = client.abort(&session).await {
                    log::warn!("session not aborted cause={error}");
                }
                if delete && let Err(error) = client.delete_session(&session).await {
                    log::debug!("session not deleted cause={error}");
                }
            };
            drop(tokio::time::timeout(PATIENCE, tidy).await);
            drop(kept);
        }));
    }
}

/// An abort was seen to take 10 to 300 ms.
const PATIENCE: Duration = Duration::from_secs(20);
