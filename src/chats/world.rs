//! A chat tree beside runner sessions, driven at random: whatever a user does, a session that is
//! kept or forked holds exactly the branch that the user sees.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// What a user, a runner or the machine may do. Numbers pick among what there is.
#[derive(Debug, Clone)]
enum Act {
    /// A new question after some answer, or at the root.
    Ask { after: usize, start: Start },
    /// Another answer to the question of some answer.
    Again { of: usize, start: Start },
    /// The same with "Add Details".
    Guided { of: usize, start: Start },
    /// More of some answer.
    Continue { of: usize, start: Start },
    /// A turn under way ends.
    End { which: usize, well: bool },
    /// A runner loses a session.
    Lose { which: usize },
    /// The gateway is killed and starts again.
    Restart,
}

/// How far a turn gets before the next act.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Start {
    /// It has a plan.
    Planned,
    /// Its prompt is written down.
    Written,
    /// Its prompt has reached the runner.
    Sent,
}

/// An answer in the tree the user sees.
#[derive(Debug, Clone)]
struct Answer {
    parent: Option<usize>,
    question: String,
    pieces: Vec<String>,
}

/// A prompt in a runner's session, and all that was said since.
#[derive(Debug, Clone)]
struct Prompt {
    id: String,
    said: Vec<String>,
}

struct Turn {
    guard: Guard,
    plan: Plan,
    answer: usize,
    branch: Vec<String>,
    question: Option<String>,
    prompt: String,
    session: Option<String>,
    sent: bool,
}

struct World {
    state: State,
    chats: Chats,
    answers: Vec<Answer>,
    sessions: HashMap<String, Vec<Prompt>>,
    turns: Vec<Turn>,
    deleted: HashSet<String>,
    names: usize,
}

impl World {
    fn new() -> Self {
        let state = State::in_memory().unwrap();
        let chats = Chats::new(state.clone());
        Self {
            state,
            chats,
            answers: Vec::new(),
            sessions: HashMap::new(),
            turns: Vec::new(),
            deleted: HashSet::new(),
            names: 0,
        }
    }

    fn name(&mut self, kind: &str) -> String {
        self.names += 1;
        format!("{kind}{}", self.names)
    }

    /// What the user sees down to `answer`, and how many questions are in it.
    fn branch(&self, answer: Option<usize>) -> (Vec<String>, u32) {
        let Some(answer) = answer.map(|index| &self.answers[index]) else {
            return (Vec::new(), 0);
        };
        let (mut branch, users) = self.branch(answer.parent);
        branch.push(answer.question.clone());
        branch.extend(answer.pieces.iter().cloned());
        (branch, users + 1)
    }

    fn act(&mut self, act: &Act) {
        let pick = |n: usize, of: usize| (of > 0).then(|| n % of.max(1));
        // No front end asks on from an answer that is still being written.
        let ended = |answer: &usize| self.turns.iter().all(|turn| turn.answer != *answer);
        match *act {
            Act::Ask { after, start } => {
                let parent = (after % (self.answers.len() + 1)).checked_sub(1).filter(ended);
                let question = self.name("q");
                self.answer(parent, question, start);
            }
            Act::Again { of, start } => {
                let Some(of) = pick(of, self.answers.len()) else { return };
                let Answer { parent, question, .. } = self.answers[of].clone();
                self.answer(parent, question, start);
            }
            Act::Guided { of, start } => {
                let Some(of) = pick(of, self.answers.len()).filter(ended) else { return };
                let (branch, users) = self.branch(Some(of));
                let Answer { parent, question, .. } = self.answers[of].clone();
                self.answers.push(Answer { parent, question, pieces: Vec::new() });
                let details = Some("details".into());
                self.begin(self.answers.len() - 1, branch, users + 1, details, Last::User, start);
            }
            Act::Continue { of, start } => {
                // Only the last answer of a branch has a button for this.
                let leaf = |of: &usize| self.answers.iter().all(|a| a.parent != Some(*of));
                let of = pick(of, self.answers.len()).filter(ended).filter(leaf);
                let Some(of) = of else { return };
                let (branch, users) = self.branch(Some(of));
                self.begin(of, branch, users, None, Last::Assistant, start);
            }
            Act::End { which, well } => {
                let Some(which) = pick(which, self.turns.len()) else { return };
                let turn = self.turns.swap_remove(which);
                self.end(turn, well);
            }
            Act::Lose { which } => {
                let mut names: Vec<_> = self.sessions.keys().cloned().collect();
                names.sort_unstable();
                let busy = |name: &String| {
                    self.turns.iter().any(|turn| turn.session.as_ref() == Some(name))
                };
                if let Some(which) = pick(which, names.len()).filter(|at| !busy(&names[*at])) {
                    self.sessions.remove(&names[which]);
                }
            }
            Act::Restart => {
                self.turns.clear();
                self.chats = Chats::new(self.state.clone());
            }
        }
    }

    fn answer(&mut self, parent: Option<usize>, question: String, start: Start) {
        let (branch, users) = self.branch(parent);
        self.answers.push(Answer { parent, question: question.clone(), pieces: Vec::new() });
        let answer = self.answers.len() - 1;
        self.begin(answer, branch, users + 1, Some(question), Last::User, start);
    }

    fn begin(
        &mut self,
        answer: usize,
        branch: Vec<String>,
        users: u32,
        question: Option<String>,
        last: Last,
        start: Start,
    ) {
        let name = |index: usize| format!("a{index}");
        let (id, parent) = (name(answer), self.answers[answer].parent.map(name));
        let place = Place { answer: Some(&id), parent: parent.as_deref(), last, users };
        let workspace = WorkspaceId::of("alice");
        let (plan, guard) = self.chats.begin(&workspace, "chat", place, 3).unwrap();
        let (prompt, session) = (self.name("msg_"), None);
        let mut turn = Turn { guard, plan, answer, branch, question, prompt, session, sent: false };
        if start != Start::Planned {
            self.write(&mut turn);
        }
        if start == Start::Sent {
            self.send(&mut turn);
        }
        self.turns.push(turn);
    }

    /// Finds or makes the turn's session, checks what it holds, and writes the prompt down.
    fn write(&mut self, turn: &mut Turn) {
        let found = match &turn.plan {
            Plan::Fresh => None,
            Plan::Keep { session } => {
                let free = self.turns.iter().all(|other| other.session.as_ref() != Some(session));
                assert!(free, "two turns in {session}");
                self.sessions.contains_key(session).then(|| session.clone())
            }
            Plan::Fork { session, before } => self.sessions.get(session).cloned().map(|prompts| {
                let kept = prompts.iter().take_while(|prompt| prompt.id != *before);
                let said = kept.flat_map(|prompt| prompt.said.clone()).collect();
                let copy = self.name("ses_");
                // The copies have ids of their own, which nobody knows.
                self.sessions.insert(copy.clone(), vec![Prompt { id: String::new(), said }]);
                copy
            }),
        };
        if let Some(session) = &found {
            let said = self.sessions[session].iter().flat_map(|prompt| prompt.said.clone());
            assert_eq!(said.collect::<Vec<_>>(), turn.branch, "{:?}", turn.plan);
        } else if let Plan::Keep { session } | Plan::Fork { session, .. } = &turn.plan {
            turn.guard.forget_session(session).unwrap();
        }
        let session = found.unwrap_or_else(|| {
            let (session, said) = (self.name("ses_"), turn.branch.clone());
            self.sessions.insert(session.clone(), vec![Prompt { id: String::new(), said }]);
            session
        });
        let lost = turn.guard.prompting(&session, &turn.prompt).unwrap();
        turn.session = Some(session);
        self.delete(lost);
    }

    fn send(&mut self, turn: &mut Turn) {
        let session = turn.session.as_ref().unwrap();
        let said = turn.question.iter().cloned().collect();
        let prompt = Prompt { id: turn.prompt.clone(), said };
        self.sessions.get_mut(session).unwrap().push(prompt);
        turn.sent = true;
    }

    fn end(&mut self, mut turn: Turn, well: bool) {
        let piece = self.name("said");
        if !well {
            if let Some(session) = turn.session.as_ref().filter(|_| turn.sent) {
                // The user saw less than was said, and the session holds something else again.
                self.answers[turn.answer].pieces.push(format!("{piece} in pa"));
                let prompts = self.sessions.get_mut(session).unwrap();
                prompts.last_mut().unwrap().said.push(format!("{piece} in part, aborted"));
            }
            return;
        }
        if turn.session.is_none() {
            self.write(&mut turn);
        }
        if !turn.sent {
            self.send(&mut turn);
        }
        let prompts = self.sessions.get_mut(turn.session.as_ref().unwrap()).unwrap();
        prompts.last_mut().unwrap().said.push(piece.clone());
        self.answers[turn.answer].pieces.push(piece);
        let lost = turn.guard.remember().unwrap();
        drop(turn);
        self.delete(lost);
    }

    fn delete(&mut self, lost: Vec<String>) {
        for session in lost {
            let busy = self.turns.iter().any(|turn| turn.session.as_ref() == Some(&session));
            assert!(!busy, "{session} was to be deleted under a turn");
            // The runner may have lost it already.
            self.sessions.remove(&session);
            assert!(self.deleted.insert(session), "handed over twice");
        }
    }
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let start = || prop_oneof![1 => Just(Start::Planned), 1 => Just(Start::Written), 3 => Just(Start::Sent)];
    // Mostly among the latest, so that branches grow long.
    let of = || 0..12usize;
    let act = prop_oneof![
        4 => (of(), start()).prop_map(|(after, start)| Act::Ask { after, start }),
        2 => (of(), start()).prop_map(|(of, start)| Act::Again { of, start }),
        1 => (of(), start()).prop_map(|(of, start)| Act::Guided { of, start }),
        2 => (of(), start()).prop_map(|(of, start)| Act::Continue { of, start }),
        9 => (of(), prop::bool::weighted(0.8)).prop_map(|(which, well)| Act::End { which, well }),
        1 => of().prop_map(|which| Act::Lose { which }),
        1 => Just(Act::Restart),
    ];
    proptest::collection::vec(act, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_session_that_is_kept_or_forked_holds_the_branch_the_user_sees(acts in acts()) {
        let mut world = World::new();
        for act in &acts {
            world.act(act);
        }
    }
}
