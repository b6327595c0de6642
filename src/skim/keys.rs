//! Comparing keys with the names of members.

/// How keys compare with the wanted names, after escapes are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// Byte for byte.
    Exact,
    /// Whatever the case, as servers written in Go compare them: the long s is an `s` and the
    /// Kelvin sign a `k` as well.
    AnyCase,
}

impl Keys {
    /// Whether `key`, unescaped, is the member `name`.
    pub(super) fn are_same(self, key: &[u8], name: &str) -> bool {
        match self {
            Self::Exact => key == name.as_bytes(),
            Self::AnyCase if key.is_ascii() => key.eq_ignore_ascii_case(name.as_bytes()),
            Self::AnyCase => std::str::from_utf8(key)
                .is_ok_and(|key| key.chars().map(folded).eq(name.chars().map(folded))),
        }
    }
}

fn folded(c: char) -> char {
    match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        _ => c.to_ascii_lowercase(),
    }
}

/// What `key` says. One that says nothing, such as half of a surrogate pair, is none of ours.
pub(super) fn unescape(key: &[u8]) -> Option<String> {
    serde_json::from_slice(&[b"\"", key, b"\""].concat()).ok()
}
