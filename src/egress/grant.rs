//! Tokens for runners: what each may use the egress with, from its start to its end.
//!
//! A token is 32 random bytes. The gateway remembers its SHA-256 alone, so that looking one up
//! takes no time that says anything about it, and nothing that leaks from here is a token.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::tab::{Tab, Tabs};
use crate::{gateway::identity::Identity, secret::Secret, workspace::WorkspaceId};

/// The tokens of all runners that live.
#[derive(Debug, Default)]
pub struct Grants {
    by_digest: Mutex<HashMap<[u8; 32], Arc<Grant>>>,
}

/// What a runner may do with its token.
#[derive(Debug)]
pub struct Grant {
    /// Whose runner it is.
    pub workspace: WorkspaceId,
    /// Which of the workspace's runners.
    pub epoch: u64,
    /// Where the runner calls from. Until that is known nobody may use the token.
    source: OnceLock<IpAddr>,
    /// On whose behalf it works: the user of the latest turn.
    account: ArcSwapOption<Account>,
    tabs: Tabs,
}

/// Who pays, and may choose what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user id.
    pub user: String,
    /// The user's role, when somebody said.
    pub role: Option<String>,
}

/// What one start of a runner has of its own. The token dies with it.
#[derive(Debug)]
pub struct Start {
    /// Which of the workspace's runners it is.
    pub epoch: u64,
    /// The runner's token.
    pub token: Secret,
    /// What the token is good for.
    pub grant: Arc<Grant>,
    grants: Arc<Grants>,
    digest: [u8; 32],
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No runner that lives has it.
    #[error("the token is no live runner's")]
    Unknown,
    /// A runner has it, but does not call from there.
    #[error("the token of workspace {workspace} epoch {epoch} came from {from}")]
    ForeignAddress {
        /// Whose token it is.
        workspace: WorkspaceId,
        /// Which of the workspace's runners has it.
        epoch: u64,
        /// Where it came from.
        from: IpAddr,
    },
}

impl Grants {
    /// Makes the token of a runner that is about to start.
    pub fn start(self: &Arc<Self>, workspace: &WorkspaceId, epoch: u64) -> Start {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).expect("the system has random numbers");
        let token = Secret::new(format!("{PREFIX}{}", hex::encode(bytes)));
        let digest = Sha256::digest(token.expose()).into();
        let grant = Arc::new(Grant {
            workspace: workspace.clone(),
            epoch,
            source: OnceLock::new(),
            account: ArcSwapOption::empty(),
            tabs: Tabs::default(),
        });
        self.by_digest.lock().insert(digest, Arc::clone(&grant));
        Start { epoch, token, grant, grants: Arc::clone(self), digest }
    }

    /// What `token`, which came from the address `from`, is good for.
    pub fn of(&self, token: &[u8], from: IpAddr) -> Result<Arc<Grant>, Denied> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let grant = self.by_digest.lock().get(&digest).cloned().ok_or(Denied::Unknown)?;
        if grant.source.get() != Some(&from.to_canonical()) {
            return Err(Denied::ForeignAddress {
                workspace: grant.workspace.clone(),
                epoch: grant.epoch,
                from,
            });
        }
        Ok(grant)
    }
}

impl Grant {
    /// From now on its token may be used, from `source` alone. A later call changes nothing.
    pub fn bind(&self, source: IpAddr) {
        self.source.get_or_init(|| source.to_canonical());
    }

    /// The runner works for `identity` now.
    pub fn work_for(&self, identity: &Identity) {
        let account = Account { user: identity.user.clone(), role: identity.role.clone() };
        if self.account.load().as_deref() != Some(&account) {
            self.account.store(Some(Arc::new(account)));
        }
    }

    /// Whom the runner works for; `None` before its first turn.
    pub fn account(&self) -> Option<Arc<Account>> {
        self.account.load_full()
    }

    /// Counts what is used in `session` and its sub-agents' until the tab is dropped.
    pub fn open_tab(&self, session: &str) -> Arc<Tab> {
        self.tabs.open(session)
    }

    /// Where a call of `session`, which `parent` started, is counted.
    pub fn tab_of(&self, session: &str, parent: Option<&str>) -> Option<Arc<Tab>> {
        self.tabs.of(session, parent)
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        self.grants.by_digest.lock().remove(&self.digest);
    }
}

/// What a token begins with, so that people who find one know what it is.
const PREFIX: &str = "opr-";

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

    fn alice() -> WorkspaceId {
        WorkspaceId::of("alice")
    }

    #[test]
    fn a_token_is_good_from_its_runner_s_address_while_the_runner_lives() {
        let grants = Arc::<Grants>::default();
        let start = grants.start(&alice(), 7);
        let token = start.token.clone();
        let token = token.expose().as_bytes();
        assert!(matches!(grants.of(token, HERE), Err(Denied::ForeignAddress { .. })), "unbound");
        start.grant.bind(HERE);
        start.grant.bind(THERE);
        let grant = grants.of(token, HERE).unwrap();
        assert_eq!((&grant.workspace, grant.epoch), (&alice(), 7));
        assert!(grants.of(token, "::ffff:127.0.0.1".parse().unwrap()).is_ok());
        let denied = grants.of(token, THERE).unwrap_err();
        assert_eq!(denied, Denied::ForeignAddress { workspace: alice(), epoch: 7, from: THERE });
        drop(start);
        assert_eq!(grants.of(token, HERE).unwrap_err(), Denied::Unknown);
        assert!(grants.by_digest.lock().is_empty());
    }

    #[test]
    fn no_two_tokens_are_alike_and_none_is_kept() {
        let grants = Arc::<Grants>::default();
        let (one, two) = (grants.start(&alice(), 1), grants.start(&alice(), 2));
        assert_ne!(one.token, two.token);
        assert_eq!(one.token.expose().len(), PREFIX.len() + 64);
        let bare = one.token.expose().strip_prefix(PREFIX).unwrap();
        assert!(!format!("{grants:?}{one:?}").contains(bare));
    }

    #[test]
    fn the_account_is_that_of_the_latest_turn() {
        let grants = Arc::<Grants>::default();
        let start = grants.start(&alice(), 1);
        assert_eq!(start.grant.account(), None);
        let identity = |role: &str| Identity {
            user: "alice".to_owned(),
            source: crate::gateway::identity::Source::Jwt,
            name: None,
            email: None,
            role: Some(role.to_owned()),
        };
        start.grant.work_for(&identity("user"));
        start.grant.work_for(&identity("admin"));
        assert_eq!(start.grant.account().unwrap().role.as_deref(), Some("admin"));
    }
}
