//! A string that cannot print itself.

use std::{fmt, sync::Arc};

use subtle::ConstantTimeEq;

use crate::scrub::Known;

/// A credential. It has no `Display`, its `Debug` is `***`, and equality takes constant time.
///
/// While any clone of it lives, [`scrub::known`](crate::scrub::known) takes it out of texts.
#[derive(Clone)]
pub struct Secret {
    value: Arc<str>,
    /// `None` for what is no secret, or too short to be told from other text.
    known: Option<Arc<Known>>,
}

impl Secret {
    /// Wraps `value`, which must not be printed afterwards either.
    pub fn new(value: impl Into<Arc<str>>) -> Self {
        let value = value.into();
        let known = Known::of(&value).map(Arc::new);
        Self { value, known }
    }

    /// Wraps what stands where a secret may stand, but is none: it is not taken out of texts.
    pub fn plain(value: impl Into<Arc<str>>) -> Self {
        Self { value: value.into(), known: None }
    }

    /// The same credential as `value`, which is another way to write it. No secret if it is none.
    #[must_use]
    pub fn written(&self, value: impl Into<Arc<str>>) -> Self {
        if self.known.is_some() { Self::new(value) } else { Self::plain(value) }
    }

    /// The credential itself, to be handed to whoever checks it and to nobody else.
    pub fn expose(&self) -> &str {
        &self.value
    }

    /// Whether `offered` is this secret, in time that depends only on the lengths.
    pub fn matches(&self, offered: &[u8]) -> bool {
        self.value.as_bytes().ct_eq(offered).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.value.as_bytes())
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scrub::known;

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Secret::new("sk-live")), "***");
    }

    #[test]
    fn only_the_same_bytes_match() {
        let secret = Secret::new("sk-live");
        assert!(secret.matches(b"sk-live"));
        assert!(!secret.matches(b"sk-live "));
        assert!(!secret.matches(b""));
    }

    #[test]
    fn a_secret_is_taken_out_of_texts_until_its_last_clone_is_gone() {
        let text = "key sk-canary-of-clones";
        let secret = Secret::new("sk-canary-of-clones");
        let clone = secret.clone();
        let other = Secret::new("sk-canary-of-clones");
        drop(secret);
        drop(other);
        assert_eq!(known(text), "key ***");
        drop(clone);
        assert_eq!(known(text), text);
    }

    #[test]
    fn what_is_no_secret_stays_in_texts_however_it_is_written() {
        let plain = Secret::plain("canary-region");
        let _written = plain.written("canary-region-1");
        assert_eq!(known("canary-region-1"), "canary-region-1");
        let _secret = Secret::new("canary\"zone").written("canary\\\"zone");
        assert_eq!(known("canary\\\"zone"), "***");
    }
}
