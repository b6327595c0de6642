//! Event-stream frames: one `data:` line each, and comments.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

use crate::error::Refusal;

/// The frame that says that the answer is whole.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// A frame with `json`.
pub fn data<T: Serialize>(json: &T) -> Bytes {
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
    serde_json::to_writer(frame.writer(), json)
        .expect("our own types serialise, and memory takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_in_a_text_do_not_break_the_frame() {
        let frame = data(&"a\n\ndata: [DONE]\r\n\u{2028}");
        assert_eq!(&frame[..], "data: \"a\\n\\ndata: [DONE]\\r\\n\u{2028}\"\n\n".as_bytes());
    }

    #[test]
    fn an_error_has_openais_shape() {
        let frame = error(&Refusal::unavailable());
        let json = frame.strip_prefix(b"data: ").unwrap();
        let json: serde_json::Value = serde_json::from_slice(json).unwrap();
        assert_eq!(json["error"]["code"], "runner_failed");
    }
}
