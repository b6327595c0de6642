//! The frames of opencode's event stream: `data: <json>` and an empty line, nothing else.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

/// Takes an event stream apart, whatever pieces it comes in. Each byte is looked at once.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: BytesMut,
    /// Up to here there is no end of a line.
    searched: usize,
    /// The `data` of the frame that is not whole yet.
    data: Option<Bytes>,
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
        self.bytes.is_empty() && self.data.is_none()
    }

    /// The JSON of the next whole frame. Comments and other fields are skipped.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameTooLarge> {
        while let Some(mut line) = self.next_line() {
            if line.is_empty() {
                if let Some(data) = self.data.take() {
                    return Ok(Some(data));
                }
            } else if line.starts_with(DATA) {
                line.advance(DATA.len());
                if line.first() == Some(&b' ') {
                    line.advance(1);
                }
                self.data = Some(match self.data.take() {
                    None => line,
                    Some(data) => {
                        let mut joined = BytesMut::from(data);
                        joined.extend_from_slice(b"\n");
                        joined.extend_from_slice(&line);
                        joined.freeze()
                    }
                });
            }
        }
        let held = self.bytes.len() + self.data.as_ref().map_or(0, Bytes::len);
        if held > LARGEST { Err(FrameTooLarge) } else { Ok(None) }
    }

    fn next_line(&mut self) -> Option<Bytes> {
        let Some(end) = memchr(b'\n', &self.bytes[self.searched..]) else {
            self.searched = self.bytes.len();
            return None;
        };
        let mut line = self.bytes.split_to(self.searched + end).freeze();
        self.bytes.advance(1);
        self.searched = 0;
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        Some(line)
    }
}

const DATA: &[u8] = b"data:";
/// A part holds a tool's whole output, and a user's files come back: as much as a request body.
const LARGEST: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b": hello\n\ndata: {\"a\":1}\n\nid: 7\r\ndata:{\"b\":\"\xe2\x80\xa8\"}\r\n\
        \r\ndata: [\ndata: 1]\n\n\n\ndata: {\"c";

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
        assert_eq!(whole, [&b"{\"a\":1}"[..], "{\"b\":\"\u{2028}\"}".as_bytes(), b"[\n1]"]);
        for size in 1..STREAM.len() {
            assert_eq!(frames_of(STREAM.chunks(size)), whole, "pieces of {size}");
        }
    }

    #[test]
    fn a_frame_without_end_is_given_up() {
        let mut frames = Frames::default();
        frames.push(b"data: ");
        for _ in 0..LARGEST >> 20 {
            assert!(frames.next_frame().is_ok());
            frames.push(&vec![b'x'; 1 << 20]);
        }
        assert!(frames.next_frame().is_err());
    }

    #[test]
    fn a_frame_of_many_lines_is_given_up_as_well() {
        let mut frames = Frames::default();
        let line = [b"data: ", &vec![b'x'; 8 << 20][..], b"\n"].concat();
        let ended = (0..9).find(|_| {
            frames.push(&line);
            frames.next_frame().is_err()
        });
        assert_eq!(ended, Some(7));
    }
}
