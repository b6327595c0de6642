//! The second line against secrets in texts: what is one, and what looks like one, is taken out.

mod form;
mod registry;

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use self::registry::Registry;

/// `text` with `***` in the place of every live [`Secret`](crate::secret::Secret) of 8 bytes or
/// more, as it is or as JSON, Rust's `{:?}`, a URL or base64 write it.
pub fn known(text: &str) -> Cow<'_, str> {
    LIVE.hide(text)
}

/// How many bytes the end of a text that was cut off may have of a secret that [`known`] would
/// have taken out.
pub(crate) fn longest_known() -> usize {
    LIVE.longest()
}

/// A value that [`known`] takes out until this is dropped.
pub(crate) struct Known(Arc<str>);

impl Known {
    /// Makes `value` known, unless it is so short or simple that any text may have it.
    pub(crate) fn of(value: &Arc<str>) -> Option<Self> {
        form::is_distinct(value).then(|| {
            LIVE.add(Arc::clone(value));
            Self(Arc::clone(value))
        })
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        LIVE.remove(&self.0);
    }
}

static LIVE: LazyLock<Registry> = LazyLock::new(Registry::default);

/// The first line of `text`, at most 300 characters, with whatever is [`known`] or looks like a
/// credential replaced by `***` and control characters left out.
pub fn scrub(text: &str) -> String {
    let text = known(text);
    let line = text.lines().next().unwrap_or_default();
    let mut scrubbed = String::with_capacity(line.len());
    let mut after_bearer = false;
    for (index, word) in line.split(' ').enumerate() {
        if index > 0 {
            scrubbed.push(' ');
        }
        let hide = after_bearer || looks_secret(word);
        scrubbed.push_str(if hide { "***" } else { word });
        after_bearer = matches!(word.to_ascii_lowercase().as_str(), "bearer" | "basic");
    }
    scrubbed.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

/// Whether `word` holds something like a key: a known prefix, or a long run of the characters
/// that keys are made of, with digits among them.
fn looks_secret(word: &str) -> bool {
    let of_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '/' | '=');
    word.split(|c| !of_key(c)).any(|run| {
        let known =
            PREFIXES.iter().any(|prefix| run.starts_with(prefix) && run.len() > prefix.len() + 3);
        let dense = run.len() >= 32
            && !run.contains('/')
            && run.bytes().any(|b| b.is_ascii_digit())
            && run.bytes().any(|b| b.is_ascii_alphabetic());
        known || dense
    })
}

const PREFIXES: &[&str] = &["sk-", "pk-", "gsk_", "xai-", "AIza", "ghp_", "eyJ"];
const LONGEST: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_key_is_taken_out() {
        assert_eq!(scrub("key sk-proj-abc123 is wrong"), "key *** is wrong");
        assert_eq!(scrub("Authorization: Bearer abc"), "Authorization: Bearer ***");
        assert_eq!(scrub("token=0123456789abcdef0123456789abcdef"), "***");
    }

    #[test]
    fn what_is_known_is_taken_out_before_the_text_is_cut() {
        let text = format!("{}{}", "x ".repeat(145), "canary horse battery");
        assert!(scrub(&text).contains("canary"));
        let _secret = crate::secret::Secret::new("canary horse battery");
        assert!(scrub(&text).ends_with("x ***"));
    }

    #[test]
    fn plain_words_stay() {
        let text = "You exceeded your current quota, please check your plan (limit 30000).";
        assert_eq!(scrub(text), text);
    }

    #[test]
    fn only_the_first_line_comes_through() {
        assert_eq!(scrub("no such model\n    at run (/x/y.js:1:2)"), "no such model");
        assert_eq!(scrub(&"x ".repeat(400)).chars().count(), 300);
    }
}
