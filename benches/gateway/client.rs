//! Callers: of a chat completion, through a gateway or not, and of opencode's API by hand.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::stub::{self, Order};

/// A kept connection.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("it listens");
        stream.set_nodelay(true).expect("TCP");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
        #[expect(clippy::disallowed_methods, reason = "ends with the sender")]
        tokio::spawn(connection);
        Self { sender, host: address.to_string() }
    }

    async fn send(&mut self, method: &str, path: &str, body: &Value) -> Response<Incoming> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .expect("a request");
        self.sender.ready().await.expect("the connection was kept");
        let response = self.sender.send_request(request).await.expect("an answer");
        let status = response.status();
        if status.is_success() {
            return response;
        }
        panic!("{path}: {status}: {:?}", response.into_body().collect().await);
    }

    async fn ask(&mut self, path: &str, body: &Value) -> Bytes {
        let response = self.send("POST", path, body).await;
        response.into_body().collect().await.expect("a whole answer").to_bytes()
    }
}

/// A user's client.
pub(crate) struct Client {
    connection: Connection,
    user: String,
}

impl Client {
    pub(crate) async fn of(user: String, address: SocketAddr) -> Self {
        Self { connection: Connection::open(address).await, user }
    }

    fn body(&self, order: Order, stream: bool) -> Value {
        let messages = json!([{"role": "user", "content": order.text()}]);
        json!({"model": "open-persona/build", "user": self.user, "stream": stream, "messages": messages})
    }

    /// One completion that is not streamed.
    pub(crate) async fn whole(&mut self, order: Order) {
        let body = self.body(order, false);
        let answer = self.connection.ask("/v1/chat/completions", &body).await;
        let deltas = answer.split(|byte| *byte == b'@').count() / 2;
        assert_eq!(deltas, order.deltas as usize, "{answer:?}");
    }

    /// One streamed completion: nanoseconds to its first delta, and how old each delta was.
    pub(crate) async fn streamed(&mut self, order: Order) -> (u64, Vec<u64>) {
        let body = self.body(order, true);
        let begun = stub::now();
        let response = self.connection.send("POST", "/v1/chat/completions", &body).await;
        let (mut body, mut first, mut ages) = (response.into_body(), None, Vec::new());
        while let Some(frame) = body.frame().await {
            let bytes = frame.expect("a whole answer").into_data().unwrap_or_default();
            let before = ages.len();
            ages.extend(stub::ages(&bytes));
            if ages.len() > before {
                first.get_or_insert_with(|| stub::now() - begun);
            }
        }
        assert_eq!(ages.len(), order.deltas as usize);
        (first.unwrap_or_default(), ages)
    }
}

/// A caller of opencode's API who does by hand what a turn does: makes a session, prompts, listens,
/// removes the session. With it, what the dialect costs by itself can be told from the gateway.
pub(crate) struct ByHand {
    calls: Connection,
    events: Incoming,
}

impl ByHand {
    pub(crate) async fn of(address: SocketAddr) -> Self {
        let mut events = Connection::open(address).await;
        let mut events = events.send("GET", "/event?directory=hand", &json!({})).await.into_body();
        events.frame().await.expect("it says hello").expect("a stream");
        Self { calls: Connection::open(address).await, events }
    }

    /// One prompt: nanoseconds to its first delta.
    pub(crate) async fn prompt(&mut self, order: Order) -> u64 {
        let begun = stub::now();
        let session = self.calls.ask("/session?directory=hand", &json!({"title": "bench"})).await;
        let session: Value = serde_json::from_slice(&session).expect("a session");
        let session = session["id"].as_str().unwrap_or_default();
        let parts = json!([{"type": "text", "text": order.text()}]);
        let path = format!("/session/{session}/prompt_async?directory=hand");
        self.calls.ask(&path, &json!({"messageID": "msg_hand", "parts": parts})).await;
        let mut first = None;
        loop {
            let frame = self.events.frame().await.expect("more").expect("a stream");
            let bytes = frame.into_data().unwrap_or_default();
            if stub::ages(&bytes).next().is_some() {
                first.get_or_insert_with(|| stub::now() - begun);
            }
            let is_idle = |window: &[u8]| window == b"\"session.idle\"";
            if bytes.windows(14).any(is_idle) {
                break;
            }
        }
        let path = format!("/session/{session}?directory=hand");
        self.calls.send("DELETE", &path, &json!({})).await.into_body().collect().await.ok();
        first.unwrap_or_default()
    }
}
