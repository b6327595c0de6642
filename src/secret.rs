//! A string that cannot print itself.

use std::fmt;

use subtle::ConstantTimeEq;

/// A credential. It has no `Display`, its `Debug` is `***`, and equality takes constant time.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps `value`, which must not be printed afterwards either.
    pub fn new(value: impl Into<Box<str>>) -> Self {
        Self(value.into())
    }

    /// The credential itself, to be handed to whoever checks it and to nobody else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `offered` is this secret, in time that depends only on the lengths.
    pub fn matches(&self, offered: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(offered).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.0.as_bytes())
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;

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
}
