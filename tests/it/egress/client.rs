//! A runner's connection: exact bytes in and out.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::world::unchunk;

/// A connection to the egress. To drop it is to leave.
#[derive(Debug)]
pub(super) struct Client {
    wire: TcpStream,
    read: Vec<u8>,
}

/// An answer, its body unchunked.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Status line and headers.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Client {
    pub(super) async fn open(from: IpAddr, to: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let wire = socket.connect(to).await.unwrap();
        wire.set_nodelay(true).unwrap();
        Self { wire, read: Vec::new() }
    }

    /// Sends exactly `bytes`.
    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends what of `bytes` is taken: who refuses early need not read the rest.
    pub(super) async fn offer(&mut self, bytes: impl AsRef<[u8]>) {
        drop(self.wire.write_all(bytes.as_ref()).await);
    }

    /// Reads until `text` has come.
    pub(super) async fn read_until(&mut self, text: &str) {
        while memchr(&self.read, text.as_bytes()).is_none() {
            let so_far = String::from_utf8_lossy(&self.read).into_owned();
            assert!(self.read_some().await, "the connection ended without {text:?}: {so_far}");
        }
    }

    /// Reads one whole answer.
    pub(super) async fn answer(&mut self) -> Answer {
        self.answer_to("POST").await
    }

    /// Reads the answer to a request with `method`.
    pub(super) async fn answer_to(&mut self, method: &str) -> Answer {
        loop {
            if let Some((answer, used)) = parse(&self.read, method) {
                self.read.drain(..used);
                return answer;
            }
            let so_far = String::from_utf8_lossy(&self.read).into_owned();
            assert!(self.read_some().await, "the connection ended early: {so_far}");
        }
    }

    /// Reads until the egress closes the connection.
    pub(super) async fn rest(&mut self) -> String {
        while self.read_some().await {}
        String::from_utf8_lossy(&self.read).into_owned()
    }

    async fn read_some(&mut self) -> bool {
        let read = timeout(GUARD, self.wire.read_buf(&mut self.read)).await;
        read.unwrap_or_else(|_| panic!("nothing came: {}", String::from_utf8_lossy(&self.read)))
            .is_ok_and(|count| count > 0)
    }
}

impl Answer {
    /// The value of the header `name`, which is in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(each, _)| each.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The body as JSON.
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that it is a refusal of ours.
    pub(super) fn assert_refused(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("x-open-persona-refusal"), Some(code), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        let message = &self.json()["error"]["message"];
        assert!(message.as_str().is_some_and(|text| text.ends_with('.')), "{message}");
    }
}

fn parse(bytes: &[u8], method: &str) -> Option<(Answer, usize)> {
    let end = memchr(bytes, b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut answer = Answer { status, head, body: Vec::new() };
    if method == "HEAD" {
        return Some((answer, end));
    }
    let used = if answer.header("transfer-encoding").is_some() {
        let (body, used) = unchunk(&bytes[end..])?;
        answer.body = body;
        used
    } else {
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        answer.body = bytes.get(end..end + length)?.to_vec();
        length
    };
    Some((answer, end + used))
}

fn memchr(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// A failure, not a measure: only a test that hangs meets it.
pub(super) const GUARD: Duration = Duration::from_secs(60);
