//! An answer, rid of the key that it may repeat.

use bytes::{Bytes, BytesMut};
use memchr::{memchr_iter, memmem::Finder};

use crate::secret::Secret;

/// Covers a key in a body that streams past, by as many asterisks, so that its length stays what the
/// header says. Holds back only what may be the beginning of the key.
#[derive(Debug)]
pub(super) struct Masked {
    key: Secret,
    finder: Finder<'static>,
    held: Bytes,
}

impl Masked {
    pub(super) fn new(key: Secret) -> Self {
        let finder = Finder::new(key.expose()).into_owned();
        Self { key, finder, held: Bytes::new() }
    }

    /// Lets `body` pass. Nothing is copied while there is no trace of the key.
    pub(super) fn pass(&mut self, body: &mut Option<Bytes>, end_of_stream: bool) {
        if body.is_none() && !end_of_stream {
            return;
        }
        let piece = body.take().unwrap_or_default();
        let mut whole = if self.held.is_empty() {
            piece
        } else {
            [std::mem::take(&mut self.held), piece].concat().into()
        };
        if let Some(first) = self.finder.find(&whole) {
            whole = self.covered(&whole, first);
        }
        if !end_of_stream {
            let open = self.beginning_at_end(&whole);
            self.held = whole.split_off(whole.len() - open);
        }
        // An empty piece would look like the end to Pingora.
        *body = Some(whole).filter(|whole| !whole.is_empty() || end_of_stream);
    }

    fn covered(&self, text: &[u8], first: usize) -> Bytes {
        let length = self.key.expose().len();
        let mut covered = BytesMut::from(text);
        let mut next = Some(first);
        while let Some(at) = next {
            covered[at..at + length].fill(b'*');
            next = self.finder.find(&covered[at + length..]).map(|more| at + length + more);
        }
        covered.freeze()
    }

    /// How many bytes at the end of `text` are the beginning of the key.
    fn beginning_at_end(&self, text: &[u8]) -> usize {
        let key = self.key.expose().as_bytes();
        let Some((first, rest)) = key.split_first() else { return 0 };
        let tail = &text[text.len().saturating_sub(rest.len())..];
        let mut begins = memchr_iter(*first, tail).map(|at| &tail[at..]);
        begins.find(|end| key.starts_with(end)).map_or(0, <[u8]>::len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn passed(pieces: &[&[u8]]) -> Vec<u8> {
        let mut masked = Masked::new(Secret::new("sk-canary"));
        let mut whole = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            let mut body = Some(Bytes::copy_from_slice(piece));
            masked.pass(&mut body, number + 1 == pieces.len());
            whole.extend_from_slice(&body.unwrap_or_default());
        }
        whole
    }

    #[test]
    fn an_answer_that_repeats_the_key_is_covered() {
        let error = passed(&[b"Incorrect API key: sk-ca", b"nary. sk-canary", b"sk-canary!"]);
        assert_eq!(error, b"Incorrect API key: *********. ******************!");
    }

    #[test]
    fn what_has_no_trace_of_the_key_passes_at_once_and_as_it_is() {
        let mut masked = Masked::new(Secret::new("sk-canary"));
        let piece = Bytes::from_static(b"data: {\"delta\":\"x\"}\n\n");
        let mut body = Some(piece.clone());
        masked.pass(&mut body, false);
        assert_eq!(body.as_ref().map(|body| body.as_ptr()), Some(piece.as_ptr()));
        let mut nothing = None;
        masked.pass(&mut nothing, false);
        assert_eq!(nothing, None);
    }

    #[test]
    fn what_only_begins_like_the_key_comes_with_what_follows() {
        assert_eq!(passed(&[b"a sk-", b"can", b"dy"]), b"a sk-candy");
        assert_eq!(passed(&[b"a sk-c", b""]), b"a sk-c");
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_key_is_covered_and_nothing_else_changes(
            texts in prop::collection::vec("[sk-]{0,6}|sk-canary|[a-z]{0,9}", 0..8),
            cuts in prop::collection::vec(0usize..80, 0..6),
        ) {
            let text = texts.concat();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> =
                cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            let expected = text.replace("sk-canary", "*********");
            prop_assert_eq!(passed(&pieces), expected.as_bytes());
        }
    }
}
