//! Event-stream frames: one `data:` line each, and comments.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde_json::ser::Formatter;

use crate::error::Refusal;

/// The frame that says that the answer is whole.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// A frame with `json`.
pub fn data<T: Serialize + ?Sized>(json: &T) -> Bytes {
    let mut frame = BytesMut::with_capacity(256);
    frame.put_slice(b"data: ");
    write_json(&mut frame, json);
    frame.put_slice(b"\n\n");
    frame.freeze()
}

/// A comment: it keeps connections open and says nothing.
pub fn keep_alive() -> Bytes {
    Bytes::from_static(b": keep-alive\n\n")
}

/// The frame that says that there will be no more, and why. No `[DONE]` follows it.
pub fn error(refusal: &Refusal) -> Bytes {
    let mut frame = BytesMut::from(&b"data: "[..]);
    frame.put_slice(&refusal.body());
    frame.put_slice(b"\n\n");
    frame.freeze()
}

/// Appends `json` in one line, whatever line breaks its texts have.
pub(super) fn write_json<T: Serialize + ?Sized>(frame: &mut BytesMut, json: &T) {
    let mut serializer = serde_json::Serializer::with_formatter(frame.writer(), OneLine);
    json.serialize(&mut serializer).expect("our own types serialise, and memory takes all");
}

/// JSON without the line breaks that JSON allows in texts: some clients take an event stream
/// apart at whatever Unicode calls a line break.
struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        // The first bytes of U+0085, U+2028 and U+2029: rare enough to look no further.
        if memchr::memchr2(0xC2, 0xE2, fragment.as_bytes()).is_none() {
            return writer.write_all(fragment.as_bytes());
        }
        let is_break = |c| matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}');
        for piece in fragment.split_inclusive(is_break) {
            match piece.char_indices().next_back().filter(|(_, last)| is_break(*last)) {
                Some((end, last)) => write!(writer, "{}\\u{:04x}", &piece[..end], u32::from(last))?,
                None => writer.write_all(piece.as_bytes())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_in_a_text_do_not_break_the_frame() {
        let text = "a\n\ndata: [DONE]\r\n\u{2028}é–\u{85}";
        let frame = data(text);
        let json = "\"a\\n\\ndata: [DONE]\\r\\n\\u2028é–\\u0085\"";
        assert_eq!(frame, format!("data: {json}\n\n"));
        assert_eq!(serde_json::from_str::<String>(json).unwrap(), text);
    }

    #[test]
    fn an_error_has_openais_shape() {
        let frame = error(&Refusal::unavailable());
        let json = frame.strip_prefix(b"data: ").unwrap();
        let json: serde_json::Value = serde_json::from_slice(json).unwrap();
        assert_eq!(json["error"]["code"], "runner_failed");
    }
}
