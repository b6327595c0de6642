//! A live runner: address, credential, epoch, health.

use std::{path::PathBuf, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{
    config::Address,
    egress::grant::Grant,
    opencode::{self, client::ClientError},
    secret::Secret,
    workspace::WorkspaceId,
};

/// A running backend that serves one workspace.
#[derive(Debug)]
pub struct Runner {
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// Which of the workspace's runners: no two share an epoch while the gateway lives.
    pub epoch: u64,
    /// Where it listens.
    pub address: Address,
    /// The password it asks for: opencode's basic password, or the bearer key of an `openai` one.
    pub credential: Option<Secret>,
    /// The workspace as the runner sees it.
    pub directory: PathBuf,
    /// What it speaks, and how we talk to it.
    pub backend: Backend,
    /// What it may use of the providers; `None` for one that does not need the egress.
    pub grant: Option<Arc<Grant>>,
    /// Cancelled by the launcher when the runner has ended, however it ended, and nothing of it
    /// is left.
    pub ended: CancellationToken,
}

/// What a runner speaks.
#[derive(Debug)]
pub enum Backend {
    /// opencode's HTTP API.
    Opencode(Arc<opencode::Client>),
    /// OpenAI's chat completions: Pingora talks to it directly.
    OpenAi,
}

impl Runner {
    /// Whether it still runs, as far as its launcher knows.
    pub fn is_alive(&self) -> bool {
        !self.ended.is_cancelled()
    }

    /// Whether it says that it is at work. An `openai` runner cannot say, and works only for who
    /// holds a lease.
    pub async fn is_busy(&self) -> Result<bool, ClientError> {
        match &self.backend {
            Backend::Opencode(client) => client.is_busy().await,
            Backend::OpenAi => Ok(false),
        }
    }
}
