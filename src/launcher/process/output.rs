//! What a child writes: read for ever so that it never blocks, kept for a diagnosis, shown to
//! nobody with a secret in it.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::watch,
};

use crate::{scrub, secret::Secret};

/// A child's last lines, and the port it announced.
#[derive(Debug)]
pub(super) struct Output {
    /// Whose it is, for the log.
    label: String,
    /// What the child may know. Held so that it is taken out of texts until the child is gone.
    _secrets: Vec<Secret>,
    tail: Mutex<VecDeque<String>>,
    port: watch::Sender<Option<u16>>,
}

impl Output {
    /// Of a child called `label`, which may know `secrets`.
    pub(super) fn of(label: String, secrets: Vec<Secret>) -> Self {
        Self { label, _secrets: secrets, tail: Mutex::default(), port: watch::Sender::new(None) }
    }

    /// Reads `stream` to its end.
    pub(super) async fn drain(&self, mut stream: impl AsyncRead + Unpin, name: &str) {
        let mut line = Line::default();
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            for &byte in &buffer[..read] {
                if byte == b'\n' {
                    self.take(&std::mem::take(&mut line), name);
                } else {
                    line.push(byte);
                }
            }
        }
        self.take(&line, name);
    }

    /// The loopback port opencode said it listens on. Waits for ever when it never says.
    pub(super) async fn port(&self) -> u16 {
        let mut port = self.port.subscribe();
        let known = port.wait_for(Option::is_some).await.ok().and_then(|port| *port);
        match known {
            Some(port) => port,
            None => std::future::pending().await,
        }
    }

    /// The last line that says something, or why there is none.
    pub(super) fn last_line(&self) -> String {
        let tail = self.tail.lock();
        let said = tail.iter().rev().find(|line| line.chars().any(char::is_alphanumeric));
        said.map_or_else(|| "it wrote nothing".to_owned(), |line| line.chars().take(300).collect())
    }

    fn take(&self, line: &Line, name: &str) {
        let text = String::from_utf8_lossy(&line.bytes);
        if let Some(port) = announced(&text).filter(|_| name == "stdout") {
            self.port.send_if_modified(|known| known.is_none() && known.replace(port).is_none());
        }
        let mut text = scrub::known(&plain(&text)).into_owned();
        if line.cut {
            // What was cut off may have been the rest of a secret that now begins the end.
            let keep = text.len().saturating_sub(scrub::longest_known());
            text.truncate(text.floor_char_boundary(keep));
        }
        if text.is_empty() {
            return;
        }
        log::debug!("runner {} {name}={text:?}", self.label);
        let mut tail = self.tail.lock();
        if tail.len() == KEPT_LINES {
            tail.pop_front();
        }
        tail.push_back(text);
    }
}

/// A line as far as it was read.
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    cut: bool,
}

impl Line {
    fn push(&mut self, byte: u8) {
        if self.bytes.len() < LONGEST_LINE {
            self.bytes.push(byte);
        } else {
            self.cut = true;
        }
    }
}

/// The port in `opencode server listening on http://127.0.0.1:4096` (observed with 1.18).
fn announced(line: &str) -> Option<u16> {
    let port = line.strip_prefix("opencode server listening on http://127.0.0.1:")?;
    port.trim_end_matches(['/', '\r']).parse().ok().filter(|port| *port != 0)
}

/// `text` without terminal colours and control characters.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(char) = rest.next() {
        if char == '\u{1b}' && rest.next_if_eq(&'[').is_some() {
            // A control sequence: parameters, then one letter.
            for parameter in rest.by_ref() {
                if ('@'..='~').contains(&parameter) {
                    break;
                }
            }
        } else if char.is_control() {
            plain.push(' ');
        } else {
            plain.push(char);
        }
    }
    plain.trim().to_owned()
}

const LONGEST_LINE: usize = 4096;
const KEPT_LINES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    async fn after(secrets: &[&str], text: &[u8]) -> Output {
        let secrets = secrets.iter().map(|secret| Secret::new(*secret)).collect();
        let output = Output::of("test".to_owned(), secrets);
        output.drain(text, "stdout").await;
        output
    }

    #[tokio::test]
    async fn the_last_line_is_the_last_that_says_something() {
        let output = after(&[], b"one\n\x1b[31mError:\x1b[0m two\r\n}\n\n").await;
        assert_eq!(output.last_line(), "Error: two");
        assert_eq!(after(&[], b"").await.last_line(), "it wrote nothing");
    }

    #[tokio::test]
    async fn no_secret_gets_through() {
        let output = after(&["sk-canary-1"], b"key sk-canary-1, key sk-\x1b[1mcanary-1").await;
        assert_eq!(output.last_line(), "key ***, key ***");
    }

    #[tokio::test]
    async fn a_secret_across_the_cut_of_a_long_line_does_not_get_through() {
        let mut line = vec![b'a'; LONGEST_LINE - 4];
        line.extend_from_slice(b"sk-12345\n");
        let output = after(&["sk-12345"], &line).await;
        assert!(output.tail.lock().iter().all(|line| !line.contains("sk-")));
    }

    #[tokio::test]
    async fn memory_is_bounded_whatever_a_child_writes() {
        let output = after(&[], "long line\n".repeat(9000).as_bytes()).await;
        assert_eq!(output.tail.lock().len(), KEPT_LINES);
        let output = after(&[], &vec![b'x'; 1 << 20]).await;
        assert!(output.tail.lock()[0].len() <= LONGEST_LINE);
        assert_eq!(output.last_line().len(), 300);
    }

    #[tokio::test]
    async fn the_port_is_the_first_one_announced_on_loopback() {
        let line = b"warning\nopencode server listening on http://127.0.0.1:4096\n\
            opencode server listening on http://127.0.0.1:5000\n";
        assert_eq!(after(&[], line).await.port().await, 4096);
        for not in ["http://192.0.2.1:80", "http://127.0.0.1:0", "http://127.0.0.1:99999"] {
            assert_eq!(announced(&format!("opencode server listening on {not}")), None);
        }
    }
}
