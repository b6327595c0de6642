//! Chat → runner session, kept across restarts, so that a turn need only send what is new.
//!
//! A chat is a tree: an answer may be written again, a question edited, two columns may answer at
//! once. A session is a line. So each prompt that goes to a session is written down *before* it is
//! sent, with the ids its front end uses; the next turn looks up the answer it continues from and
//! either goes on in that session, forks it at that place, or starts anew from the transcript.
//! Starting anew is always right and is chosen whenever there is doubt. Sessions are only ever
//! appended to (opencode's revert would also take back changes to files), which is what makes
//! every place that was written down stay true.
//!
//! Everything here blocks on the database for a moment: async callers use `spawn_blocking`.

mod guard;
mod table;
#[cfg(test)]
mod world;

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;

use crate::{
    state::{State, StateError},
    workspace::WorkspaceId,
};
use table::{Row, Table};

pub use guard::Guard;

/// The sessions that chats are kept in. Clones are the same memory.
#[derive(Debug, Clone)]
pub struct Chats {
    state: State,
    in_use: Arc<Mutex<HashSet<(WorkspaceId, String)>>>,
}

/// Where a turn stands in its chat, in its front end's ids.
///
/// The text of earlier messages cannot tell this: front ends rewrite history between requests.
/// Their number can tell when something else than one question was added (Open WebUI's "Add
/// Details" puts the old answer and a message without id before the new one).
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The answer to be written: a new id, or a known one that is continued.
    pub answer: Option<&'a str>,
    /// The answer before the user's message; `None` at the root of the chat.
    pub parent: Option<&'a str>,
    /// The role of the history's last message.
    pub last: Last,
    /// How many of the history's messages have the role `user`.
    pub users: u32,
}

/// Whose message a history ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// The user's: it is to be answered.
    User,
    /// An assistant's: it is to be continued.
    Assistant,
    /// A tool's, or nobody's.
    Other,
}

/// Which session a turn uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// A new one, fed with the whole transcript.
    Fresh,
    /// This one as it stands. Only the last user message is sent or, when the history ends with an
    /// assistant's, a request to go on.
    Keep {
        /// The session.
        session: String,
    },
    /// A fork of this one with what came before the prompt `before`; then only the last user
    /// message is sent. The session itself may be at work and stays as it is.
    Fork {
        /// The session.
        session: String,
        /// The `messageID` to fork at. When the runner does not have it, nothing came after it.
        before: String,
    },
}

impl Chats {
    /// The chats remembered in `state`.
    pub fn new(state: State) -> Self {
        Self { state, in_use: Arc::default() }
    }

    /// Plans the turn at `place` of `chat`, and reserves the session that it is to go on in until
    /// the guard is dropped. At most `max_chats` chats of `workspace` are kept.
    ///
    /// `chat` is whatever the front end calls it: it only selects within `workspace`.
    pub fn begin(
        &self,
        workspace: &WorkspaceId,
        chat: &str,
        place: Place<'_>,
        max_chats: usize,
    ) -> Result<(Plan, Guard), StateError> {
        let (plan, keeps, held) = self.state.with(|db| {
            let table = Table { db, workspace, chat };
            let (plan, keeps) = self.plan(&table, place)?;
            // Reserved before the database is let go, so that no two turns get the same one.
            let mut held = Vec::new();
            if let Plan::Keep { session } = &plan {
                self.hold(workspace, session, &mut held);
            }
            Ok((plan, keeps, held))
        })?;
        let guard = Guard {
            chats: self.clone(),
            workspace: workspace.clone(),
            chat: chat.to_owned(),
            answer: place.answer.unwrap_or_default().to_owned(),
            users: place.users,
            keeps,
            max_chats,
            held,
            turn: None,
        };
        Ok((plan, guard))
    }

    /// The plan for `place`, and whether the turn is to be remembered.
    fn plan(&self, table: &Table<'_>, place: Place<'_>) -> rusqlite::Result<(Plan, bool)> {
        let Some(answer) = place.answer.filter(|_| place.last != Last::Other) else {
            return Ok((Plan::Fresh, false));
        };
        let (from, asked) = match (place.last, place.parent) {
            (Last::Assistant, _) => (Some(answer), 0),
            (_, None) => return Ok((Plan::Fresh, place.users == 1)),
            (_, parent) => (parent, 1),
        };
        let from = from.map(|from| table.latest(from)).transpose()?.flatten();
        let Some(Row { seq, session, users, .. }) = from.filter(|from| from.finished) else {
            return Ok((Plan::Fresh, true));
        };
        if place.users != users + asked {
            // Either of the two was asked with more or less than its branch. Should it have been
            // the earlier one, the next count could agree by accident.
            table.distrust(seq)?;
            return Ok((Plan::Fresh, true));
        }
        let plan = match table.prompt_after(&session, seq)? {
            None if self.is_in_use(table.workspace, &session) => Plan::Fresh,
            None => Plan::Keep { session },
            // The answer went on in another way already: what followed is not part of this.
            Some(_) if place.last == Last::Assistant => Plan::Fresh,
            Some(before) => Plan::Fork { session, before },
        };
        Ok((plan, true))
    }

    fn hold(&self, workspace: &WorkspaceId, session: &str, held: &mut Vec<String>) {
        if self.in_use.lock().insert((workspace.clone(), session.to_owned())) {
            held.push(session.to_owned());
        }
    }

    fn is_in_use(&self, workspace: &WorkspaceId, session: &str) -> bool {
        self.in_use.lock().contains(&(workspace.clone(), session.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::{guard::TURNS_PER_CHAT, *};

    fn alice() -> WorkspaceId {
        WorkspaceId::of("alice")
    }

    fn chats() -> Chats {
        Chats::new(State::in_memory().unwrap())
    }

    /// The place of `answer` to the chat's `users`th question on this branch.
    fn at<'a>(users: u32, parent: Option<&'a str>, answer: &'a str) -> Place<'a> {
        Place { answer: Some(answer), parent, last: Last::User, users }
    }

    fn begin(chats: &Chats, place: Place<'_>) -> (Plan, Guard) {
        chats.begin(&alice(), "chat", place, 10).unwrap()
    }

    /// Runs a whole turn; a fresh or forked session is called `ses_<answer>`.
    fn turn(chats: &Chats, place: Place<'_>) -> Plan {
        let (plan, mut guard) = begin(chats, place);
        let answer = place.answer.unwrap();
        let session = match &plan {
            Plan::Keep { session } => session.clone(),
            _ => format!("ses_{answer}"),
        };
        guard.prompting(&session, &format!("msg_{answer}")).unwrap();
        guard.remember().unwrap();
        plan
    }

    fn keep(session: &str) -> Plan {
        Plan::Keep { session: session.into() }
    }

    fn fork(session: &str, before: &str) -> Plan {
        Plan::Fork { session: session.into(), before: before.into() }
    }

    #[test]
    fn a_new_turn_goes_on_where_its_parent_ended() {
        let chats = chats();
        assert_eq!(turn(&chats, at(1, None, "a1")), Plan::Fresh);
        assert_eq!(turn(&chats, at(2, Some("a1"), "a2")), keep("ses_a1"));
        assert_eq!(turn(&chats, at(3, Some("a2"), "a3")), keep("ses_a1"));
    }

    #[test]
    fn another_answer_and_an_edited_question_fork_and_both_branches_live_on() {
        let chats = chats();
        turn(&chats, at(1, None, "a1"));
        turn(&chats, at(2, Some("a1"), "a2"));
        assert_eq!(turn(&chats, at(2, Some("a1"), "a2b")), fork("ses_a1", "msg_a2"));
        assert_eq!(turn(&chats, at(2, Some("a1"), "a2c")), fork("ses_a1", "msg_a2"));
        assert_eq!(turn(&chats, at(3, Some("a2"), "a3")), keep("ses_a1"));
        assert_eq!(turn(&chats, at(3, Some("a2b"), "a3b")), keep("ses_a2b"));
        // The fork's own prompts can be addressed, those it was born with only in the original.
        assert_eq!(turn(&chats, at(3, Some("a2b"), "a3c")), fork("ses_a2b", "msg_a3b"));
        assert_eq!(turn(&chats, at(1, None, "a1b")), Plan::Fresh);
    }

    #[test]
    fn two_columns_get_a_session_each_and_go_on_in_it() {
        let chats = chats();
        turn(&chats, at(1, None, "a1"));
        let (left, mut left_guard) = begin(&chats, at(2, Some("a1"), "left"));
        let (right, mut right_guard) = begin(&chats, at(2, Some("a1"), "right"));
        assert_eq!((left, right), (keep("ses_a1"), Plan::Fresh));
        left_guard.prompting("ses_a1", "msg_left").unwrap();
        right_guard.prompting("ses_right", "msg_right").unwrap();
        let (third, _guard) = begin(&chats, at(2, Some("a1"), "third"));
        assert_eq!(third, fork("ses_a1", "msg_left"));
        right_guard.remember().unwrap();
        left_guard.remember().unwrap();
        drop((left_guard, right_guard));
        assert_eq!(turn(&chats, at(3, Some("right"), "a3")), keep("ses_right"));
        assert_eq!(turn(&chats, at(3, Some("left"), "a3b")), keep("ses_a1"));
    }

    #[test]
    fn an_answer_is_continued_in_its_session_while_it_is_the_last() {
        let chats = chats();
        turn(&chats, at(1, None, "a1"));
        let more = Place { last: Last::Assistant, ..at(1, None, "a1") };
        assert_eq!(turn(&chats, more), keep("ses_a1"));
        assert_eq!(turn(&chats, at(2, Some("a1"), "a2")), keep("ses_a1"));
        assert_eq!(turn(&chats, more), Plan::Fresh);
        let unknown = Place { last: Last::Assistant, ..at(1, None, "a9") };
        assert_eq!(begin(&chats, unknown).0, Plan::Fresh);
    }

    #[test]
    fn a_guided_regeneration_is_rebuilt_and_so_is_what_follows_it() {
        let chats = chats();
        turn(&chats, at(1, None, "a1"));
        turn(&chats, at(2, Some("a1"), "a2"));
        // The history holds the old answer and "Add Details" as well: three questions.
        assert_eq!(turn(&chats, at(3, Some("a1"), "a2b")), Plan::Fresh);
        // They are gone from the history that goes on from the new answer.
        assert_eq!(turn(&chats, at(3, Some("a2b"), "a3")), Plan::Fresh);
        assert_eq!(turn(&chats, at(4, Some("a3"), "a4")), keep("ses_a3"));
    }

    #[test]
    fn nothing_goes_on_from_a_turn_that_was_left() {
        let chats = chats();
        turn(&chats, at(1, None, "a1"));
        let (_, mut guard) = begin(&chats, at(2, Some("a1"), "a2"));
        guard.prompting("ses_a1", "msg_a2").unwrap();
        drop(guard);
        let again = Place { last: Last::Assistant, ..at(2, Some("a1"), "a2") };
        assert_eq!(begin(&chats, again).0, Plan::Fresh);
        assert_eq!(begin(&chats, at(3, Some("a2"), "a3")).0, Plan::Fresh);
        assert_eq!(turn(&chats, at(2, Some("a1"), "a2b")), fork("ses_a1", "msg_a2"));
    }

    #[test]
    fn without_ids_nothing_is_kept() {
        let chats = chats();
        for place in [
            Place { answer: None, ..at(1, None, "") },
            Place { last: Last::Other, ..at(1, None, "a1") },
            // Not the root, whatever is said: its front end does not send parents.
            at(2, None, "a1"),
        ] {
            let (plan, mut guard) = begin(&chats, place);
            assert_eq!((plan, guard.keeps()), (Plan::Fresh, false));
            assert_eq!(guard.prompting("ses_1", "msg_1").unwrap(), [""; 0]);
            assert_eq!(guard.remember().unwrap(), [""; 0]);
        }
        assert_eq!(turn(&chats, at(2, Some("a1"), "a2")), Plan::Fresh);
    }

    #[test]
    fn a_lost_session_is_forgotten_and_rebuilt() {
        let chats = chats();
        turn(&chats, at(1, None, "a1"));
        let (plan, mut guard) = begin(&chats, at(2, Some("a1"), "a2"));
        assert_eq!(plan, keep("ses_a1"));
        guard.prompting("ses_a1", "msg_a2").unwrap();
        guard.forget_session("ses_a1").unwrap();
        guard.prompting("ses_new", "msg_a2_again").unwrap();
        guard.remember().unwrap();
        drop(guard);
        assert_eq!(begin(&chats, at(1, Some("a1"), "a1b")).0, Plan::Fresh);
        assert_eq!(turn(&chats, at(3, Some("a2"), "a3")), keep("ses_new"));
    }

    #[test]
    fn a_chat_id_means_nothing_in_another_workspace() {
        let chats = chats();
        turn(&chats, at(1, None, "a1"));
        let place = at(2, Some("a1"), "a2");
        let (plan, _guard) = chats.begin(&WorkspaceId::of("bob"), "chat", place, 10).unwrap();
        assert_eq!(plan, Plan::Fresh);
        let (plan, _guard) = chats.begin(&alice(), "other", place, 10).unwrap();
        assert_eq!(plan, Plan::Fresh);
    }

    #[test]
    fn chats_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Chats::new(State::open(directory.path()).unwrap());
        turn(&open(), at(1, None, "a1"));
        assert_eq!(turn(&open(), at(2, Some("a1"), "a2")), keep("ses_a1"));
        assert_eq!(turn(&open(), at(2, Some("a1"), "a2b")), fork("ses_a1", "msg_a2"));
    }

    #[test]
    fn the_longest_unused_chat_goes_and_its_sessions_are_handed_over() {
        let chats = chats();
        let run = |chat: &str, place: Place<'_>| {
            let (_, mut guard) = chats.begin(&alice(), chat, place, 2).unwrap();
            let lost = guard.prompting(&format!("ses_{chat}"), "msg").unwrap();
            guard.remember().unwrap();
            lost
        };
        assert_eq!(run("one", at(1, None, "a")), [""; 0]);
        assert_eq!(run("two", at(1, None, "a")), [""; 0]);
        assert_eq!(run("one", at(2, Some("a"), "a2")), [""; 0]);
        assert_eq!(run("three", at(1, None, "a")), ["ses_two"]);
        assert_eq!(run("four", at(1, None, "a")), ["ses_one"]);
    }

    #[test]
    fn a_chat_that_goes_while_it_is_answered_hands_its_session_over_at_the_end() {
        let chats = chats();
        let begin = |chat: &str| chats.begin(&alice(), chat, at(1, None, "a"), 1).unwrap().1;
        let mut first = begin("one");
        first.prompting("ses_one", "msg_one").unwrap();
        assert_eq!(begin("two").prompting("ses_two", "msg_two").unwrap(), [""; 0]);
        assert_eq!(first.remember().unwrap(), ["ses_one"]);
    }

    #[test]
    fn a_session_with_nothing_but_failed_turns_is_handed_over() {
        let chats = chats();
        let (_, mut failed) = begin(&chats, at(1, None, "a1"));
        failed.prompting("ses_failed", "msg_1").unwrap();
        drop(failed);
        let (_, mut guard) = begin(&chats, at(1, None, "a1b"));
        guard.prompting("ses_good", "msg_2").unwrap();
        assert_eq!(guard.remember().unwrap(), ["ses_failed"]);
    }

    #[test]
    fn a_chat_does_not_grow_without_end() {
        let chats = chats();
        let mut lost = Vec::new();
        for n in 0..TURNS_PER_CHAT + 20 {
            let (_, mut guard) = begin(&chats, at(1, None, &format!("a{n}")));
            lost.extend(guard.prompting(&format!("ses_{n}"), &format!("msg_{n}")).unwrap());
            lost.extend(guard.remember().unwrap());
        }
        assert_eq!(lost.len(), 20);
        assert_eq!(lost[19], "ses_19");
    }
}
