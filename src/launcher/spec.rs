//! What a runner is to be.

use std::{path::PathBuf, time::Duration};

use sha2::{Digest, Sha256};

use crate::{
    config::{Config, Dialect},
    opencode::settings::{self, Settings, Wishes},
    workspace::{Workspace, WorkspaceId},
};

/// Everything that shapes a runner. Two specs with equal hashes make interchangeable runners.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Whose it is.
    pub workspace: WorkspaceId,
    /// The workspace on this machine, absolute.
    pub directory: PathBuf,
    /// What it is to speak.
    pub dialect: Dialect,
    /// opencode's generated configuration, JSON, without a secret in it. Empty for `openai`.
    pub opencode_config: String,
    /// What of it no other file may change, JSON too.
    pub opencode_overrides: String,
    /// The way to the providers: the egress, `http://host:port`.
    pub egress_url: String,
    /// How long a start may take.
    pub start_timeout: Duration,
    /// How long a runner has between SIGTERM and SIGKILL.
    pub stop_timeout: Duration,
}

/// SHA-256 of what shapes a runner, see [`Spec::hash`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpecHash([u8; 32]);

impl Spec {
    /// The runner that `workspace` is to have under `config`.
    pub fn of(config: &Config, workspace: &Workspace) -> Self {
        let settings = match config.runners.dialect {
            Dialect::OpenAi => Settings::default(),
            Dialect::Opencode => {
                let (models, wishes) = (&workspace.models, Wishes::of(&workspace.wishes));
                settings::generate(config, &models.model, &models.small_model, &wishes)
            }
        };
        Self {
            workspace: workspace.id.clone(),
            directory: workspace.directory.clone(),
            dialect: config.runners.dialect,
            opencode_config: settings.json,
            opencode_overrides: settings.overrides,
            egress_url: config.egress.url.clone(),
            start_timeout: config.runners.start_timeout,
            stop_timeout: config.runners.stop_timeout,
        }
    }

    /// A digest of everything a runner is shaped by. The deadlines are not: they are ours, and a
    /// change of them is no reason to replace a runner. Secrets go in by their own digest.
    pub fn hash(&self) -> SpecHash {
        let mut digest = Sha256::new();
        // Each member after its length, so that no two specs run together into the same bytes.
        let mut member = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        member(self.workspace.as_str().as_bytes());
        member(self.directory.as_os_str().as_encoded_bytes());
        member(match self.dialect {
            Dialect::Opencode => b"opencode",
            Dialect::OpenAi => b"openai",
        });
        member(self.opencode_config.as_bytes());
        member(self.opencode_overrides.as_bytes());
        member(self.egress_url.as_bytes());
        SpecHash(digest.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        Spec {
            workspace: WorkspaceId::of("alice"),
            directory: PathBuf::from("/workspaces/a"),
            dialect: Dialect::Opencode,
            opencode_config: "{}".to_owned(),
            opencode_overrides: "{}".to_owned(),
            egress_url: "http://127.0.0.1:8002".to_owned(),
            start_timeout: Duration::from_secs(1),
            stop_timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn whatever_shapes_a_runner_changes_the_hash() {
        let changes: [fn(&mut Spec); 6] = [
            |spec| spec.workspace = WorkspaceId::of("bob"),
            |spec| spec.directory = PathBuf::from("/workspaces/b"),
            |spec| spec.dialect = Dialect::OpenAi,
            |spec| spec.opencode_config = "{ }".to_owned(),
            |spec| spec.opencode_overrides = "{ }".to_owned(),
            |spec| spec.egress_url.clear(),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut other = spec();
            change(&mut other);
            assert_ne!(other.hash(), spec().hash(), "change {number}");
        }
    }

    #[test]
    fn a_deadline_does_not_change_the_hash() {
        let changed = Spec { start_timeout: Duration::from_secs(9), ..spec() };
        assert_eq!(changed.hash(), spec().hash());
    }
}
