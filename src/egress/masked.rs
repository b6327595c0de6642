//! A provider's error, held back and rid of the key that it may repeat.

use bytes::{Bytes, BytesMut};
use memchr::memmem;

use crate::secret::Secret;

/// The body of an error, which is held back to its end: a key may be cut by any boundary.
#[derive(Debug)]
pub(super) struct Masked {
    key: Option<Secret>,
    held: BytesMut,
}

impl Masked {
    pub(super) fn new(key: Option<Secret>) -> Self {
        Self { key, held: BytesMut::new() }
    }

    /// Takes in `body` and, at its end, gives all of it, every occurrence of the key covered by as
    /// many asterisks, so that its length stays what the header says. Beyond [`LONGEST`] there is
    /// nothing but asterisks.
    pub(super) fn pass(&mut self, body: &mut Option<Bytes>, end_of_stream: bool) {
        if let Some(piece) = body.take() {
            let room = LONGEST.saturating_sub(self.held.len());
            self.held.extend_from_slice(&piece[..piece.len().min(room)]);
            let rest = self.held.len() + piece.len().saturating_sub(room);
            self.held.resize(rest, b'*');
        }
        if end_of_stream {
            let mut held = self.held.split();
            if let Some(key) = &self.key {
                cover(&mut held, key.expose().as_bytes());
            }
            *body = Some(held.freeze());
        }
    }
}

fn cover(text: &mut [u8], key: &[u8]) {
    let finder = memmem::Finder::new(key);
    let mut from = 0;
    while let Some(at) = finder.find(&text[from..]) {
        let start = from + at;
        text[start..start + key.len()].fill(b'*');
        from = start + key.len();
    }
}

/// The longest error that is passed on.
const LONGEST: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn passed(pieces: &[&[u8]]) -> Bytes {
        let mut masked = Masked::new(Some(Secret::new("sk-canary")));
        let mut whole = BytesMut::new();
        for (number, piece) in pieces.iter().enumerate() {
            let mut body = Some(Bytes::copy_from_slice(piece));
            masked.pass(&mut body, number + 1 == pieces.len());
            whole.extend_from_slice(&body.unwrap_or_default());
        }
        whole.freeze()
    }

    #[test]
    fn an_error_that_repeats_the_key_is_covered() {
        let error = passed(&[b"Incorrect API key: sk-ca", b"nary. sk-canary", b"sk-canary!"]);
        assert_eq!(error, &b"Incorrect API key: *********. ******************!"[..]);
    }

    #[test]
    fn an_endless_error_keeps_its_length_and_is_not_read() {
        let piece = vec![b'x'; 40_000];
        let error = passed(&[&piece, &piece, &piece]);
        assert_eq!(error.len(), 120_000);
        assert!(error[..LONGEST].iter().all(|byte| *byte == b'x'));
        assert!(error[LONGEST..].iter().all(|byte| *byte == b'*'));
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_key_is_covered(before in "[a-z-]{0,20}", cut in 0usize..30) {
            let text = format!("{before}sk-canary{before}");
            let cut = cut.min(text.len());
            let error = passed(&[&text.as_bytes()[..cut], &text.as_bytes()[cut..]]);
            prop_assert_eq!(error.len(), text.len());
            prop_assert!(memmem::find(&error, b"sk-canary").is_none());
        }
    }
}
