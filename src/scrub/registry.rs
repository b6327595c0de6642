//! The values that no text may show, and the search for them.

use std::{
    borrow::Cow,
    collections::HashMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::form::{SHORTEST, forms};

/// Values that come and go at any time, while texts are searched for them.
///
/// To add or to remove one is cheap. Whoever searches first after a change makes the [`Finder`]
/// anew, and no lock is held while that happens or while a text is searched.
#[derive(Default)]
pub(super) struct Registry {
    /// Each value, and how many secrets have it.
    values: Mutex<HashMap<Arc<str>, usize>>,
    /// Counts the changes of the set of values. Changed under its lock only.
    generation: AtomicU64,
    finder: ArcSwapOption<Finder>,
}

impl Registry {
    /// Adds `value`, once more if it is known already.
    pub(super) fn add(&self, value: Arc<str>) {
        let mut values = self.values.lock();
        let count = values.entry(value).or_insert(0);
        *count += 1;
        if *count == 1 {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Takes back one [`Registry::add`].
    pub(super) fn remove(&self, value: &str) {
        {
            let mut values = self.values.lock();
            match values.get_mut(value) {
                Some(count @ 2..) => {
                    *count -= 1;
                    return;
                }
                Some(_) => values.remove(value),
                None => return,
            };
            let room = 2 * values.len();
            if values.capacity() > 2 * room {
                values.shrink_to(room);
            }
            self.generation.fetch_add(1, Ordering::Release);
        }
        // It has the value, too.
        self.finder.store(None);
    }

    /// `text` with `***` in the place of every value, in whatever form.
    pub(super) fn hide<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if text.len() < SHORTEST {
            return text.into();
        }
        let finder = self.finder();
        let Some(mut hidden) = finder.hide(text) else { return text.into() };
        // A value may have `***` in it, and now stand where it did not. Each round is shorter.
        while let Some(again) = finder.hide(&hidden) {
            hidden = again;
        }
        hidden.into()
    }

    /// The length of the longest form of any value.
    pub(super) fn longest(&self) -> usize {
        self.finder().longest
    }

    fn finder(&self) -> Arc<Finder> {
        let generation = self.generation.load(Ordering::Acquire);
        let made = self.finder.load_full();
        if let Some(finder) = made.filter(|finder| finder.generation == generation) {
            return finder;
        }
        let (generation, values) = {
            let values = self.values.lock();
            let generation = self.generation.load(Ordering::Acquire);
            (generation, values.keys().cloned().collect::<Vec<_>>())
        };
        let finder = Arc::new(Finder::of(generation, &values));
        // If it is out of date by now, the next search sees that.
        self.finder.store(Some(Arc::clone(&finder)));
        finder
    }
}

/// Finds the values of one generation.
struct Finder {
    generation: u64,
    /// The last bytes of every form. Often all keys of a kind begin alike, but they end in random
    /// characters; and to make this anew for a thousand long keys takes a few milliseconds.
    ends: AhoCorasick,
    /// By the number of its end: the forms that end so.
    forms: Vec<Vec<String>>,
    longest: usize,
}

impl Finder {
    fn of(generation: u64, values: &[Arc<str>]) -> Self {
        let mut by_end = HashMap::<Vec<u8>, Vec<String>>::new();
        for form in values.iter().flat_map(|value| forms(value)) {
            let end = form.as_bytes()[form.len() - SHORTEST..].to_vec();
            by_end.entry(end).or_default().push(form);
        }
        let (ends, forms): (Vec<_>, Vec<_>) = by_end.into_iter().unzip();
        let longest = forms.iter().flatten().map(String::len).max().unwrap_or(0);
        let ends = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(ends)
            .expect("short ends of what fits into memory are few enough");
        Self { generation, ends, forms, longest }
    }

    /// `text` with `***` in the place of what was found, or nothing if nothing was.
    fn hide(&self, text: &str) -> Option<String> {
        let spans = self.spans(text);
        let last = spans.last()?.end;
        let mut hidden = String::with_capacity(text.len());
        let mut shown = 0;
        for span in spans {
            hidden.push_str(&text[shown..span.start]);
            hidden.push_str("***");
            shown = span.end;
        }
        hidden.push_str(&text[last..]);
        Some(hidden)
    }

    /// Where `text` has anything to hide, in order. Those that touch are one, so that what two
    /// overlapping values have left of each other is not shown.
    fn spans(&self, text: &str) -> Vec<Range<usize>> {
        let mut spans = Vec::<Range<usize>>::new();
        for found in self.ends.find_overlapping_iter(text) {
            let before = &text.as_bytes()[..found.end()];
            let ending = self.forms[found.pattern()].iter();
            let whole = ending.filter(|form| before.ends_with(form.as_bytes())).map(String::len);
            let Some(longest) = whole.max() else { continue };
            let mut span = found.end() - longest..found.end();
            while let Some(touched) = spans.pop_if(|last| last.end >= span.start) {
                span.start = span.start.min(touched.start);
            }
            spans.push(span);
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;
    use crate::scrub::form::is_distinct;

    fn registry(values: &[&str]) -> Registry {
        let registry = Registry::default();
        for value in values {
            registry.add((*value).into());
        }
        registry
    }

    #[test]
    fn every_value_is_hidden_and_the_rest_stays() {
        let known = registry(&["sk-alpha-1", "sk-alpha-1-long", "alpha-1-longer", "gamma-☂-3"]);
        for (text, hidden) in [
            ("nothing here", "nothing here"),
            ("a sk-alpha-1, a sk-alpha-1-long", "a ***, a ***"),
            ("(sk-alpha-1-longer)", "(***)"),
            ("sk-alpha-1gamma-☂-3☂", "***☂"),
            ("alpha-1 gamma-☂", "alpha-1 gamma-☂"),
            (r#"{"k":"gamma-☂-3"}"#, r#"{"k":"***"}"#),
        ] {
            assert_eq!(known.hide(text), hidden);
        }
        assert!(matches!(known.hide("nothing here"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_is_put_in_the_place_of_a_value_makes_no_other() {
        let known = registry(&["ab***cdef", "12345678"]);
        assert_eq!(known.hide("ab12345678cdef"), "***");
        assert_eq!(known.hide("abab12345678cdefcdef"), "***");
    }

    #[test]
    fn a_value_is_known_for_as_long_as_anybody_has_it() {
        let known = registry(&["sk-alpha-1", "sk-alpha-1"]);
        known.remove("sk-alpha-1");
        assert_eq!(known.hide("sk-alpha-1"), "***");
        known.remove("sk-alpha-1");
        assert_eq!(known.hide("sk-alpha-1"), "sk-alpha-1");
        known.add("sk-alpha-1".into());
        assert_eq!(known.hide("sk-alpha-1"), "***");
    }

    #[test]
    fn nothing_is_kept_of_values_that_are_gone() {
        let values: Vec<String> = (0..1000).map(|n| format!("sk-secret-{n}")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let known = registry(&values);
        assert_eq!(known.hide("sk-secret-999"), "***");
        for value in values {
            known.remove(value);
        }
        assert_eq!(known.values.lock().capacity(), 0);
        assert!(known.finder.load().is_none());
        assert_eq!((known.longest(), known.finder().forms.len()), (0, 0));
    }

    #[test]
    fn values_come_and_go_while_texts_are_searched() {
        let known = registry(&["sk-always-there"]);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let known = &known;
                scope.spawn(move || {
                    for round in 0..50 {
                        let value = format!("sk-{thread}-comes-{}", round % 3);
                        known.add(value.as_str().into());
                        let text = format!("{value} sk-always-there");
                        assert_eq!(known.hide(&text), "*** ***");
                        known.remove(&value);
                    }
                });
            }
        });
        assert_eq!(known.values.lock().len(), 1);
    }

    /// Of few letters, so that values overlap, begin alike and stand within each other.
    fn value() -> impl Strategy<Value = String> {
        "[ab*]{8,12}".prop_filter("too simple", |value| is_distinct(value))
    }

    proptest! {
        #[test]
        fn no_value_is_left_in_any_text(
            values in vec(value(), 1..6),
            // Which value, how many of its characters, and what is between it and the next.
            pieces in vec((any::<Index>(), 3..20_usize, "[ab*\"☂]{0,3}"), 0..12),
        ) {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let mut text = String::new();
            for (which, length, other) in &pieces {
                let value = which.get(&values);
                text += &value[..value.len().min(*length)];
                text += other;
            }
            let hidden = registry(&values).hide(&text).into_owned();
            for value in &values {
                prop_assert!(!hidden.contains(value), "{value} in {hidden} of {text}");
            }
            if !values.iter().any(|value| text.contains(value)) {
                prop_assert_eq!(hidden, text);
            }
        }
    }
}
