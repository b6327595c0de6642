//! The frames of opencode's event stream: `data: <json>` and an empty line, nothing else.

use bytes::{Buf, Bytes, BytesMut};

/// Takes an event stream apart, whatever pieces it comes in.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: BytesMut,
    /// Up to here there is no end of a frame.
    searched: usize,
}

/// A frame larger than any that opencode should send.
#[derive(Debug, thiserror::Error)]
#[error("an event is larger than {LARGEST} bytes")]
pub struct FrameTooLarge;

impl Frames {
    /// Adds a piece of the stream.
    pub fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
    }

    /// Whether nothing of the stream has come, or all of it has been taken.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The JSON of the next whole frame. Comments and other fields are skipped.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameTooLarge> {
        loop {
            let end = self.bytes[self.searched..].windows(2).position(|pair| pair == b"\n\n");
            let Some(end) = end else {
                if self.bytes.len() > LARGEST {
                    return Err(FrameTooLarge);
                }
                self.searched = self.bytes.len().saturating_sub(1);
                return Ok(None);
            };
            let mut frame = self.bytes.split_to(self.searched + end).freeze();
            self.bytes.advance(2);
            self.searched = 0;
            if frame.starts_with(DATA) {
                frame.advance(DATA.len());
                return Ok(Some(frame));
            }
        }
    }
}

const DATA: &[u8] = b"data: ";
/// A part holds a tool's whole output, and a user's files come back: as much as a request body.
const LARGEST: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b": hello\n\ndata: {\"a\":1}\n\ndata: {\"b\":\"\xe2\x80\xa8\"}\n\ndata: {\"c";

    fn frames_of(pieces: impl Iterator<Item = &'static [u8]>) -> Vec<Bytes> {
        let (mut frames, mut found) = (Frames::default(), Vec::new());
        for piece in pieces {
            frames.push(piece);
            while let Some(frame) = frames.next_frame().unwrap() {
                found.push(frame);
            }
        }
        found
    }

    #[test]
    fn frames_are_the_same_in_whatever_pieces_they_come() {
        let whole = frames_of(std::iter::once(STREAM));
        assert_eq!(whole, [&b"{\"a\":1}"[..], "{\"b\":\"\u{2028}\"}".as_bytes()]);
        for size in 1..STREAM.len() {
            assert_eq!(frames_of(STREAM.chunks(size)), whole, "pieces of {size}");
        }
    }

    #[test]
    fn a_frame_without_end_is_given_up() {
        let mut frames = Frames::default();
        frames.push(b"data: ");
        for _ in 0..=64 {
            frames.push(&vec![b'x'; 1 << 20]);
        }
        assert!(frames.next_frame().is_err());
    }
}
