//! A caller: sends requests, reads streamed answers piece by piece, notes when each arrived.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

/// Longer than anything a healthy gateway does, on a slow machine with every core busy.
pub(crate) const PATIENCE: Duration = Duration::from_mins(10);

/// One caller of one gateway.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    base: String,
    headers: Vec<(&'static str, String)>,
    http: Client<HttpConnector, Full<Bytes>>,
}

/// A whole answer that was not streamed.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// What came in one piece of a stream.
#[derive(Debug)]
pub(crate) enum Said {
    /// A chat completion chunk.
    Chunk(Value),
    /// `data: {"error": …}`.
    Error(Value),
    /// `data: [DONE]`.
    Done,
}

/// A streamed answer, read to its end.
#[derive(Debug, Default)]
pub(crate) struct Streamed {
    pub(crate) text: String,
    pub(crate) chunks: Vec<Value>,
    /// When each piece of text came.
    pub(crate) arrivals: Vec<Instant>,
    pub(crate) error: Option<Value>,
    pub(crate) done: bool,
}

/// A streamed answer that is still being read.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) status: u16,
    body: Incoming,
    unread: Vec<u8>,
}

/// The text of a chunk, empty when it has none.
pub(crate) fn text_of(chunk: &Value) -> &str {
    chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default()
}

/// A chat completion request with one user message.
pub(crate) fn prompt(text: &str) -> Value {
    json!({
        "model": "open-persona/build",
        "messages": [{"role": "user", "content": text}],
    })
}

impl Caller {
    pub(crate) fn of(base: &str) -> Self {
        let http = Client::builder(TokioExecutor::new()).build_http();
        Self { base: base.to_owned(), headers: Vec::new(), http }
    }

    pub(crate) fn with_key(self, key: &str) -> Self {
        self.with("authorization", format!("Bearer {key}"))
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sends a request and returns when the head of the response is there.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("content-type", "application/json");
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body.into())).expect("a request");
        timeout(PATIENCE, self.http.request(request))
            .await
            .unwrap_or_else(|_| panic!("no response to {path} within {PATIENCE:?}"))
            .unwrap_or_else(|error| panic!("the connection failed at {path}: {error:?}"))
    }

    pub(crate) async fn get(&self, path: &str) -> Whole {
        Whole::read(self.send(Method::GET, path, "").await).await
    }

    /// Asks for an answer in one piece.
    pub(crate) async fn ask(&self, ask: &Value) -> Whole {
        Whole::read(self.send(Method::POST, "/v1/chat/completions", ask.to_string()).await).await
    }

    /// Asks for a streamed answer and returns when its head is there.
    pub(crate) async fn open(&self, ask: &Value) -> Stream {
        let mut ask = ask.clone();
        ask["stream"] = json!(true);
        let response = self.send(Method::POST, "/v1/chat/completions", ask.to_string()).await;
        let status = response.status().as_u16();
        Stream { status, body: response.into_body(), unread: Vec::new() }
    }

    /// Asks for a streamed answer and reads it to its end.
    pub(crate) async fn stream(&self, ask: &Value) -> Streamed {
        self.open(ask).await.rest().await
    }
}

impl Whole {
    async fn read(response: Response<Incoming>) -> Self {
        let status = response.status().as_u16();
        let body = timeout(PATIENCE, response.into_body().collect())
            .await
            .unwrap_or_else(|_| panic!("the body did not end within {PATIENCE:?}"))
            .expect("a whole body")
            .to_bytes();
        let body = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
        Self { status, body }
    }

    /// The assistant's text, of a reply that must be one.
    pub(crate) fn text(&self) -> &str {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body["choices"][0]["message"]["content"]
            .as_str()
            .unwrap_or_else(|| panic!("no text in {}", self.body))
    }
}

impl Stream {
    /// The next thing said, or `None` when the stream has ended or was cut.
    pub(crate) async fn next(&mut self) -> Option<Said> {
        loop {
            if let Some(event) = self.take_event() {
                match data_of(&event) {
                    Some("[DONE]") => return Some(Said::Done),
                    Some(data) => return Some(parse(data)),
                    None => continue,
                }
            }
            let frame = timeout(PATIENCE, self.body.frame())
                .await
                .unwrap_or_else(|_| panic!("the stream was silent for {PATIENCE:?}"));
            let data = frame?.ok()?.into_data().unwrap_or_default();
            self.unread.extend_from_slice(&data);
        }
    }

    /// Reads on until the answer has some text.
    pub(crate) async fn until_text(&mut self) {
        loop {
            match self.next().await {
                Some(Said::Chunk(chunk)) if !text_of(&chunk).is_empty() => return,
                Some(Said::Chunk(_)) => {}
                other => panic!("status {}, and no text but {other:?}", self.status),
            }
        }
    }

    /// Reads to the end.
    pub(crate) async fn rest(mut self) -> Streamed {
        let mut all = Streamed::default();
        while let Some(said) = self.next().await {
            assert!(!all.done, "something follows [DONE]: {said:?}");
            match said {
                Said::Done => all.done = true,
                Said::Error(error) => all.error = Some(error),
                Said::Chunk(chunk) => {
                    if !text_of(&chunk).is_empty() {
                        all.text.push_str(text_of(&chunk));
                        all.arrivals.push(Instant::now());
                    }
                    all.chunks.push(chunk);
                }
            }
        }
        if !self.unread.is_empty() && all.error.is_none() {
            all.error = serde_json::from_slice(&self.unread).ok();
        }
        all
    }

    fn take_event(&mut self) -> Option<String> {
        let end = self.unread.windows(2).position(|two| two == b"\n\n")?;
        let event: Vec<u8> = self.unread.drain(..end + 2).collect();
        Some(String::from_utf8(event).expect("events are UTF-8"))
    }
}

impl Streamed {
    /// The text of an answer that must be whole.
    pub(crate) fn whole(&self) -> &str {
        assert!(self.done && self.error.is_none(), "the answer is not whole: {self:?}");
        &self.text
    }
}

/// The data of an event; `None` for a comment.
fn data_of(event: &str) -> Option<&str> {
    event.lines().find_map(|line| line.strip_prefix("data:")).map(str::trim)
}

fn parse(data: &str) -> Said {
    let value: Value = serde_json::from_str(data).unwrap_or_else(|_| panic!("not JSON: {data}"));
    if value.get("error").is_some() { Said::Error(value) } else { Said::Chunk(value) }
}
