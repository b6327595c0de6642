//! What one turn uses, over all the model calls that its session and its sub-agents' make.
//!
//! opencode names the session in each call (`x-session-affinity`, and `x-parent-session-id` for a
//! sub-agent's; seen in 1.18.33). A runner can lie there: it only spoils its own user's figures.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use crate::{error::Refusal, usage::Tokens};

/// The tabs that are open.
#[derive(Debug, Default)]
pub(super) struct Tabs(Mutex<Vec<Weak<Tab>>>);

/// What a turn has used so far.
#[derive(Debug)]
pub struct Tab(Mutex<Sums>);

#[derive(Debug)]
struct Sums {
    family: HashSet<String>,
    /// By call: what a provider reports of one is told more than once.
    calls: HashMap<u64, Tokens>,
    last: u64,
    /// Why the latest call was refused, if it was.
    refusal: Option<Refusal>,
}

impl Tabs {
    pub(super) fn open(&self, session: &str) -> Arc<Tab> {
        let tab = Arc::new(Tab(Mutex::new(Sums {
            family: HashSet::from([session.to_owned()]),
            calls: HashMap::new(),
            last: 0,
            refusal: None,
        })));
        let mut tabs = self.0.lock();
        tabs.retain(|tab| tab.strong_count() > 0);
        tabs.push(Arc::downgrade(&tab));
        tab
    }

    pub(super) fn of(&self, session: &str, parent: Option<&str>) -> Option<Arc<Tab>> {
        let open: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        // A chat has one turn at a time, so at most one has the session.
        open.into_iter().rev().find(|tab| tab.takes(session, parent))
    }
}

impl Tab {
    /// A number for a call that is to be counted here.
    pub(super) fn call(&self) -> u64 {
        let mut sums = self.0.lock();
        sums.last += 1;
        sums.refusal = None;
        sums.last
    }

    /// The call has used `tokens` so far.
    pub(super) fn note(&self, call: u64, tokens: Tokens) {
        self.0.lock().calls.insert(call, tokens);
    }

    /// The latest call is refused by us. Its turn is told here, in full: what gets through the
    /// provider's SDK and opencode is less, and opencode tries a call again whose error holds the
    /// digits of a 5xx status, a budget's perhaps.
    pub(super) fn refuse(&self, refusal: &Refusal) {
        self.0.lock().refusal = Some(refusal.clone());
    }

    /// Why the latest call was refused; `None` when it was not.
    pub fn refusal(&self) -> Option<Refusal> {
        self.0.lock().refusal.clone()
    }

    /// What all calls have used, and how many of them said so.
    pub fn total(&self) -> (Tokens, usize) {
        let sums = self.0.lock();
        let mut total = Tokens::default();
        for tokens in sums.calls.values() {
            total += *tokens;
        }
        (total, sums.calls.len())
    }

    fn takes(&self, session: &str, parent: Option<&str>) -> bool {
        let family = &mut self.0.lock().family;
        let is_child = parent.is_some_and(|parent| family.contains(parent));
        if is_child && family.len() < LARGEST_FAMILY {
            family.insert(session.to_owned());
        }
        is_child || family.contains(session)
    }
}

/// A runner names the sessions: without a bound it could fill our memory.
const LARGEST_FAMILY: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn output(output: u64) -> Tokens {
        Tokens { output, ..Tokens::default() }
    }

    #[test]
    fn a_turn_pays_for_its_session_and_its_sub_agents() {
        let tabs = Tabs::default();
        let (mine, other) = (tabs.open("s"), tabs.open("t"));
        for (session, parent) in [("s", None), ("child", Some("s")), ("grandchild", Some("child"))]
        {
            let tab = tabs.of(session, parent).unwrap();
            tab.note(tab.call(), output(10));
        }
        let again = tabs.of("child", None).unwrap();
        let call = again.call();
        again.note(call, output(1));
        again.note(call, output(5));
        assert_eq!(mine.total(), (output(35), 4));
        assert_eq!(other.total(), (Tokens::default(), 0));
        assert!(tabs.of("stranger", Some("nobody")).is_none());
    }

    #[test]
    fn a_tab_that_is_dropped_takes_no_more() {
        let tabs = Tabs::default();
        drop(tabs.open("s"));
        assert!(tabs.of("s", None).is_none());
        let _open = tabs.open("u");
        assert_eq!(tabs.0.lock().len(), 1);
    }
}
