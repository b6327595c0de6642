//! Callers: of a chat completion, through a gateway or not, and of opencode's API by hand.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::{
    clock::{self, now},
    connection::Connection,
    stub::Order,
};

/// A user's client.
pub(crate) struct Client {
    connection: Connection,
    user: String,
}

impl Client {
    pub(crate) async fn of(user: String, address: SocketAddr) -> Self {
        Self { connection: Connection::open(address).await, user }
    }

    fn body(&self, order: Order, stream: bool) -> Bytes {
        let messages = json!([{"role": "user", "content": order.text()}]);
        let model = "open-persona/build";
        json(&json!({"model": model, "user": self.user, "stream": stream, "messages": messages}))
    }

    /// One completion that is not streamed.
    pub(crate) async fn whole(&mut self, order: Order) {
        let body = self.body(order, false);
        let answer = ask(&mut self.connection, COMPLETIONS, body).await;
        let deltas = answer.split(|byte| *byte == b'@').count() / 2;
        assert_eq!(deltas, order.deltas as usize, "{answer:?}");
    }

    /// One streamed completion: nanoseconds to its first delta, and how old each delta was.
    pub(crate) async fn streamed(&mut self, order: Order) -> (u64, Vec<u64>) {
        let body = self.body(order, true);
        let begun = now();
        let response = self.connection.send(Request::post(COMPLETIONS), body).await;
        let (mut body, mut first, mut ages) = (response.into_body(), None, Vec::new());
        while let Some(frame) = body.frame().await {
            let bytes = frame.expect("a whole answer").into_data().unwrap_or_default();
            let before = ages.len();
            ages.extend(clock::ages(&bytes));
            if ages.len() > before {
                first.get_or_insert_with(|| now() - begun);
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
        let mut events =
            events.send(Request::get("/event?directory=hand"), Bytes::new()).await.into_body();
        events.frame().await.expect("it says hello").expect("a stream");
        Self { calls: Connection::open(address).await, events }
    }

    /// One prompt: nanoseconds to its first delta.
    pub(crate) async fn prompt(&mut self, order: Order) -> u64 {
        let begun = now();
        let session =
            ask(&mut self.calls, "/session?directory=hand", json(&json!({"title": "bench"}))).await;
        let session: Value = serde_json::from_slice(&session).expect("a session");
        let session = session["id"].as_str().unwrap_or_default();
        let parts = json!([{"type": "text", "text": order.text()}]);
        let path = format!("/session/{session}/prompt_async?directory=hand");
        let prompt = json(&json!({"messageID": "msg_hand", "parts": parts}));
        ask(&mut self.calls, &path, prompt).await;
        let mut first = None;
        loop {
            let frame = self.events.frame().await.expect("more").expect("a stream");
            let bytes = frame.into_data().unwrap_or_default();
            if clock::ages(&bytes).next().is_some() {
                first.get_or_insert_with(|| now() - begun);
            }
            let is_idle = |window: &[u8]| window == b"\"session.idle\"";
            if bytes.windows(14).any(is_idle) {
                break;
            }
        }
        let path = format!("/session/{session}?directory=hand");
        let gone = self.calls.send(Request::delete(path), Bytes::new()).await;
        gone.into_body().collect().await.ok();
        first.unwrap_or_default()
    }
}

async fn ask(connection: &mut Connection, path: &str, body: Bytes) -> Bytes {
    let response = connection.send(Request::post(path), body).await;
    response.into_body().collect().await.expect("a whole answer").to_bytes()
}

fn json(value: &Value) -> Bytes {
    value.to_string().into()
}

const COMPLETIONS: &str = "/v1/chat/completions";
