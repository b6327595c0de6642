//! The name of a workspace, made from a user id.

use std::fmt;

use sha2::{Digest, Sha256};

/// The name of a workspace: the first 16 hex digits of SHA-256(user id). Only [`WorkspaceId::of`]
/// and [`WorkspaceId::parse`] make one, so a value of this type is always safe in a path, a label
/// or a container name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkspaceId(String);

impl WorkspaceId {
    /// The workspace of `user`, whose bytes are hashed as they are: no two ids are folded into one.
    pub fn of(user: &str) -> Self {
        let digest = Sha256::digest(user.as_bytes());
        Self(hex::encode(&digest[..8]))
    }

    /// Reads a workspace id that was written down: 16 lower-case hex digits, nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (text.len() == 16 && text.bytes().all(hex)).then(|| Self(text.to_owned()))
    }

    /// The sixteen hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WorkspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_what_sha256sum_prints() {
        // echo -n testuser | sha256sum | cut -c1-16
        assert_eq!(WorkspaceId::of("testuser").as_str(), "ae5deb822e0d7199");
    }

    #[test]
    fn only_sixteen_lower_case_hex_digits_parse() {
        assert!(WorkspaceId::parse("ae5deb822e0d7199").is_some());
        for bad in
            ["", "AE5DEB822E0D7199", "ae5deb822e0d719", "ae5deb822e0d71999", "../../../../etc/"]
        {
            assert!(WorkspaceId::parse(bad).is_none(), "{bad:?}");
        }
    }
}
