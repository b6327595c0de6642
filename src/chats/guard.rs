//! A turn under way, and what it writes down.

use super::{Chats, table::Table};
use crate::{state::StateError, workspace::WorkspaceId};

/// A turn under way. Dropping it gives its sessions back; a turn that was not remembered by then
/// is one that failed or was left, and nothing goes on from it.
#[derive(Debug)]
#[must_use = "the session is reserved only while the guard lives"]
pub struct Guard {
    pub(super) chats: Chats,
    pub(super) workspace: WorkspaceId,
    pub(super) chat: String,
    pub(super) answer: String,
    pub(super) users: u32,
    pub(super) keeps: bool,
    pub(super) max_chats: usize,
    pub(super) held: Vec<String>,
    pub(super) turn: Option<(i64, String)>,
}

impl Guard {
    /// Whether the session serves later turns too. If not, the caller deletes it after this one.
    pub fn keeps(&self) -> bool {
        self.keeps
    }

    /// Writes down that `prompt` (its `messageID`) goes to `session`. To be called before it is
    /// sent, and again if it has to be sent to another session.
    ///
    /// Returns the sessions that no chat refers to any more, for the caller to delete.
    pub fn prompting(&mut self, session: &str, prompt: &str) -> Result<Vec<String>, StateError> {
        let mut held = std::mem::take(&mut self.held);
        let written = self.chats.state.with(|db| {
            self.chats.hold(&self.workspace, session, &mut held);
            if !self.keeps {
                return Ok((None, Vec::new()));
            }
            let change = db.transaction()?;
            let table = Table { db: &change, workspace: &self.workspace, chat: &self.chat };
            let seq = table.append(session, prompt, &self.answer, self.users)?;
            let lost = table.trim(TURNS_PER_CHAT, self.max_chats)?;
            change.commit()?;
            Ok((Some((seq, session.to_owned())), lost))
        });
        self.held = held;
        let (turn, lost) = written?;
        self.turn = turn;
        Ok(self.deletable(lost))
    }

    /// Writes down that the whole answer was given. To be called before its last byte is sent.
    ///
    /// Returns the sessions that no chat refers to any more, for the caller to delete.
    pub fn remember(&mut self) -> Result<Vec<String>, StateError> {
        let Some((seq, session)) = self.turn.take() else { return Ok(Vec::new()) };
        let lost = self.chats.state.with(|db| {
            let change = db.transaction()?;
            let table = Table { db: &change, workspace: &self.workspace, chat: &self.chat };
            // The chat may have been forgotten meanwhile, and its session with it.
            let lost = if table.finish(seq)? {
                table.drop_failed(|session| self.chats.is_in_use(&self.workspace, session))?
            } else {
                vec![session.clone()]
            };
            change.commit()?;
            Ok(lost)
        })?;
        Ok(lost.into_iter().filter(|lost| *lost == session || self.is_free(lost)).collect())
    }

    /// Forgets `session`, because its runner does not have it any more.
    pub fn forget_session(&mut self, session: &str) -> Result<(), StateError> {
        self.chats.state.with(|db| {
            Table { db, workspace: &self.workspace, chat: &self.chat }.forget_session(session)
        })
    }

    /// Those of `lost` that no turn is using: the turn that is will hand it over itself.
    fn deletable(&self, lost: Vec<String>) -> Vec<String> {
        lost.into_iter().filter(|session| self.is_free(session)).collect()
    }

    fn is_free(&self, session: &str) -> bool {
        !self.chats.is_in_use(&self.workspace, session)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut in_use = self.chats.in_use.lock();
        for session in self.held.drain(..) {
            in_use.remove(&(self.workspace.clone(), session));
        }
    }
}

/// Turns remembered in one chat, the oldest forgotten first.
pub(super) const TURNS_PER_CHAT: usize = 500;
