//! The encryption of stored keys.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};

use super::check;
use crate::{secret::Secret, workspace::WorkspaceId};

/// Encrypts keys and reads them back, each for one workspace and provider only: what was copied
/// to another row does not open.
pub(super) struct Seal(XChaCha20Poly1305);

/// An encrypted key and the number, never used twice, that it was encrypted with.
pub(super) struct Sealed {
    pub(super) nonce: [u8; 24],
    pub(super) text: Vec<u8>,
}

impl Seal {
    pub(super) fn of(key: &[u8; 32]) -> Self {
        Self(XChaCha20Poly1305::new(key.into()))
    }

    pub(super) fn close(&self, workspace: &WorkspaceId, provider: &str, key: &Secret) -> Sealed {
        let mut nonce = [0; 24];
        // With 24 random bytes there is no second time.
        getrandom::fill(&mut nonce).expect("the system has random numbers");
        let aad = purpose(workspace, provider);
        let payload = Payload { msg: key.expose().as_bytes(), aad: aad.as_bytes() };
        let text = self.0.encrypt(&XNonce::from(nonce), payload);
        Sealed { nonce, text: text.expect("a key is short") }
    }

    /// The key in `text`, if that is what [`Seal::close`] made for this workspace and provider.
    pub(super) fn open(
        &self,
        workspace: &WorkspaceId,
        provider: &str,
        nonce: &[u8],
        text: &[u8],
    ) -> Option<Secret> {
        let aad = purpose(workspace, provider);
        let payload = Payload { msg: text, aad: aad.as_bytes() };
        let key = self.0.decrypt(&XNonce::try_from(nonce).ok()?, payload).ok()?;
        check(&key).ok()
    }
}

/// What a sealed text is good for. A workspace's id has one length, so no two give the same.
fn purpose(workspace: &WorkspaceId, provider: &str) -> String {
    format!("open-persona user key 1 {workspace} {provider}")
}
