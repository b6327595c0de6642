//! A plain client of the provider's, and what it reads of replies.

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::client::TlsStream;

use crate::provider::{Authority, Provider, Style};

pub(super) const KEY: &str = "sk-of-the-provider-tests";

/// A plain client on one connection.
pub(super) struct Client {
    sender: Sender,
    scheme: &'static str,
    host: String,
    _connection: JoinSet<()>,
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    /// One that speaks HTTP/1.1 without TLS.
    pub(super) async fn plain(provider: &Provider) -> Self {
        let socket = TcpStream::connect(provider.address).await.expect("a connection");
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.expect("HTTP");
        Self::of("http", provider, Sender::One(sender), async { drop(connection.await) })
    }

    /// One that speaks HTTP/1.1 over TLS.
    pub(super) async fn tls_1(provider: &Provider, authority: &Authority) -> Self {
        let socket = tls(provider, authority, b"http/1.1").await;
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.expect("HTTP");
        Self::of("https", provider, Sender::One(sender), async { drop(connection.await) })
    }

    /// One that speaks HTTP/2 over TLS.
    pub(super) async fn tls_2(provider: &Provider, authority: &Authority) -> Self {
        let socket = tls(provider, authority, b"h2").await;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(socket));
        let (sender, connection) = handshake.await.expect("HTTP");
        Self::of("https", provider, Sender::Two(sender), async { drop(connection.await) })
    }

    fn of(
        scheme: &'static str,
        provider: &Provider,
        sender: Sender,
        connection: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let mut owner = JoinSet::new();
        owner.spawn(connection);
        Self { sender, scheme, host: provider.address.to_string(), _connection: owner }
    }

    pub(super) async fn open(&mut self, path: &str, body: &Value) -> Response<Incoming> {
        self.open_with(path, body, "identity").await
    }

    pub(super) async fn open_with(
        &mut self,
        path: &str,
        body: &Value,
        encoding: &str,
    ) -> Response<Incoming> {
        let request = Request::post(match self.sender {
            Sender::One(_) => path.to_owned(),
            Sender::Two(_) => format!("{}://{}{path}", self.scheme, self.host),
        })
        .header(header::HOST, &self.host)
        .header(header::ACCEPT_ENCODING, encoding)
        .header(header::AUTHORIZATION, format!("Bearer {KEY}"))
        .body(Full::new(Bytes::from(body.to_string())))
        .expect("a request");
        match &mut self.sender {
            Sender::One(sender) => {
                sender.ready().await.expect("a connection");
                sender.send_request(request).await.expect("an answer")
            }
            Sender::Two(sender) => sender.send_request(request).await.expect("an answer"),
        }
    }

    /// Asks and reads to the end: status and text.
    pub(super) async fn ask(&mut self, path: &str, body: &Value) -> (u16, String) {
        let answer = self.open(path, body).await;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a whole body").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("UTF-8"))
    }
}

pub(super) fn path_of(style: Style) -> String {
    format!("/base/v1/{}", style.endpoint())
}

/// A call with one message of the user's.
pub(super) fn call(style: Style, text: &str, stream: bool) -> Value {
    let messages = json!([{"role": "user", "content": text}]);
    match style {
        Style::Responses => json!({"model": "m1", "stream": stream, "input": messages}),
        Style::Messages => {
            json!({"model": "m1", "stream": stream, "messages": messages, "max_tokens": 64})
        }
        Style::Chat => json!({"model": "m1", "stream": stream, "messages": messages,
            "stream_options": {"include_usage": true}}),
    }
}

async fn tls(provider: &Provider, authority: &Authority, speaks: &[u8]) -> TlsStream<TcpStream> {
    let socket = TcpStream::connect(provider.address).await.expect("a connection");
    let name = "localhost".try_into().expect("a name");
    authority.connector(speaks).connect(name, socket).await.expect("TLS")
}

/// The data of all events, as JSON.
pub(super) fn events(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).expect("JSON"))
        .collect()
}

/// The text of a whole reply, and the total of its usage.
pub(super) fn read_whole(style: Style, reply: &Value) -> (String, u64) {
    let usage = &reply["usage"];
    let sum = |names: &[&str]| names.iter().map(|name| usage[name].as_u64().unwrap_or(0)).sum();
    let text = match style {
        Style::Responses => &reply["output"][0]["content"][0]["text"],
        Style::Messages => &reply["content"][0]["text"],
        Style::Chat => &reply["choices"][0]["message"]["content"],
    };
    let total = match style {
        Style::Messages => sum(&[
            "input_tokens",
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
            "output_tokens",
        ]),
        Style::Responses | Style::Chat => sum(&["total_tokens"]),
    };
    (text.as_str().unwrap_or_default().to_owned(), total)
}

/// The text of a streamed reply, and the total of its usage.
pub(super) fn read_stream(style: Style, events: &[Value]) -> (String, u64) {
    let text_in = |event: &Value| match style {
        Style::Responses => event["delta"].as_str().map(str::to_owned),
        Style::Messages => event["delta"]["text"].as_str().map(str::to_owned),
        Style::Chat => event["choices"][0]["delta"]["content"].as_str().map(str::to_owned),
    };
    let last = events.iter().rfind(|event| match style {
        Style::Responses => event["type"] == "response.completed",
        Style::Messages => event["type"] == "message_delta",
        Style::Chat => event["usage"].is_object(),
    });
    let last = last.expect("an end");
    let last = if style == Style::Responses { &last["response"] } else { last };
    (events.iter().filter_map(text_in).collect(), read_whole(style, last).1)
}

/// A part of a tool call's arguments.
pub(super) fn argument_in(style: Style, event: &Value) -> Option<&str> {
    match style {
        Style::Responses => event["delta"].as_str(),
        Style::Messages => event["delta"]["partial_json"].as_str(),
        Style::Chat => {
            event["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str()
        }
    }
}
