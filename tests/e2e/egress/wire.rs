//! Requests to the egress, byte by byte: what no SDK would send.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::SOON;

/// Where runners call from.
pub(super) const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A request that is to be written.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    /// Method and target, as on the first line.
    pub(super) line: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
    /// The address it comes from.
    pub(super) from: IpAddr,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Back {
    pub(super) status: u16,
    /// Everything: head and body, as received.
    pub(super) text: String,
}

impl Wire {
    /// A call with `token` that an SDK would make.
    pub(super) fn post(egress: SocketAddr, path: &str, token: &str, body: &Value) -> Self {
        let headers = [
            ("host", egress.to_string()),
            ("authorization", format!("Bearer {token}")),
            ("content-type", "application/json".to_owned()),
            ("connection", "close".to_owned()),
        ];
        Self {
            line: format!("POST {path}"),
            headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
            body: body.to_string(),
            from: HERE,
        }
    }

    /// The same with another header, or without it.
    pub(super) fn with(mut self, name: &str, value: Option<&str>) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.headers.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        self
    }

    /// The same with another first line.
    pub(super) fn line(mut self, line: &str) -> Self {
        line.clone_into(&mut self.line);
        self
    }

    /// The same from another address.
    pub(super) fn from(mut self, from: IpAddr) -> Self {
        self.from = from;
        self
    }

    /// Sends it, and leaves the answer to be read.
    pub(super) async fn open(&self, egress: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((self.from, 0).into()).expect("an address of this machine");
        let mut stream = socket.connect(egress).await.expect("the egress listens");
        let mut text = format!("{} HTTP/1.1\r\n", self.line);
        for (name, value) in &self.headers {
            write!(text, "{name}: {value}\r\n").expect("text");
        }
        write!(text, "content-length: {}\r\n\r\n{}", self.body.len(), self.body).expect("text");
        stream.write_all(text.as_bytes()).await.expect("the egress reads");
        stream
    }

    /// Sends it and reads until the connection ends.
    pub(super) async fn send(&self, egress: SocketAddr) -> Back {
        let mut stream = self.open(egress).await;
        let mut bytes = Vec::new();
        let read = timeout(SOON, stream.read_to_end(&mut bytes)).await;
        read.unwrap_or_else(|_| panic!("no end of {bytes:?}")).ok();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        Back { status: status.unwrap_or_else(|| panic!("no status in {text:?}")), text }
    }
}

impl Back {
    /// A header's value; empty when there is none.
    pub(super) fn header(&self, name: &str) -> &str {
        let head = self.text.split("\r\n\r\n").next().unwrap_or_default();
        let found = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value).unwrap_or_default()
    }

    /// The code of a refusal of the egress's own.
    pub(super) fn refusal(&self) -> &str {
        self.header("x-open-persona-refusal")
    }
}
