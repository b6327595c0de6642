//! A runner on loopback that speaks both dialects and does nothing: it answers at once, and writes
//! into every delta when that was.
//!
//! What it says, and how fast, is the [`Order`] in the prompt's text.

use std::{
    collections::HashMap,
    convert::Infallible,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::broadcast,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::clock::stamp;

/// What a prompt asks for: so many deltas, one each `pace`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) deltas: u32,
    pub(crate) pace: Duration,
}

impl Order {
    /// As a prompt's text.
    pub(crate) fn text(self) -> String {
        format!("{} {}", self.deltas, self.pace.as_micros())
    }

    fn parse(text: &str) -> Option<Self> {
        let (deltas, pace) = text.split_once(' ')?;
        let pace = Duration::from_micros(pace.parse().ok()?);
        Some(Self { deltas: deltas.parse().ok()?, pace })
    }

    /// Returns when the delta `number` is due. They come one by one, never in a heap.
    async fn due(self, begun: Instant, number: u32) {
        if number > 0 && !self.pace.is_zero() {
            sleep_until(begun + self.pace * number).await;
        }
    }
}

/// A frame, which may be complete only once it is written.
#[derive(Debug, Clone)]
enum Said {
    Whole(String),
    /// With a stamp between the two.
    Delta(Arc<(String, String)>, Text),
    /// With all that the deltas said between the two.
    Part(Arc<(String, String)>, Text),
}

/// What the deltas said so far.
type Text = Arc<Mutex<String>>;

impl Said {
    fn delta(frame: &str, text: &Text) -> Self {
        Self::Delta(Arc::new(around(frame).expect("a place")), Arc::clone(text))
    }

    /// A frame that may have a place for the whole text.
    fn part(frame: String, text: &Text) -> Self {
        match around(&frame) {
            Some(around) => Self::Part(Arc::new(around), Arc::clone(text)),
            None => Self::Whole(frame),
        }
    }

    fn into_frame(self) -> Frame<Bytes> {
        let text = match self {
            Self::Whole(frame) => frame,
            Self::Delta(around, text) => {
                let stamp = stamp();
                text.lock().push_str(&stamp);
                format!("{}{stamp}{}", around.0, around.1)
            }
            Self::Part(around, text) => format!("{}{}{}", around.0, text.lock(), around.1),
        };
        Frame::data(Bytes::from(text))
    }
}

/// Stands for what is not known before a frame is written.
const PLACE: &str = "@place@";

fn around(frame: &str) -> Option<(String, String)> {
    let (before, after) = frame.split_once(PLACE)?;
    Some((before.to_owned(), after.to_owned()))
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What all connections share.
#[derive(Debug, Default)]
struct Shared {
    sessions: AtomicUsize,
    /// A workspace's event stream, by the query that names its directory.
    streams: Mutex<HashMap<String, broadcast::Sender<Said>>>,
    recording: Recording,
}

/// Starts the stub on a free port of loopback. It ends with the runtime.
pub(crate) async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let shared = Arc::new(Shared { recording: Recording::read(), ..Shared::default() });
    #[expect(clippy::disallowed_methods, reason = "ends with the runtime")]
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("TCP");
            let shared = Arc::clone(&shared);
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            connections
                .spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let parts: Vec<&str> = head.uri.path().trim_matches('/').split('/').collect();
    let directory = head.uri.query().unwrap_or_default();
    Ok(match (head.method.as_str(), parts.as_slice()) {
        ("GET", ["global", "health"]) => document(&json!({"healthy": true, "version": "1.18.33"})),
        ("GET", ["event"]) => shared.subscribe(directory),
        ("GET", ["session", "status"]) => document(&json!({})),
        ("POST", ["session"]) => {
            let number = shared.sessions.fetch_add(1, Ordering::Relaxed);
            document(&json!({"id": format!("ses_stub{number:020}")}))
        }
        ("POST", ["session", session, "prompt_async"]) => {
            shared.prompt(directory, session, &body);
            let mut response = Response::new(Full::default().boxed_unsync());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        ("POST", ["v1", "chat", "completions"]) => completion(&body),
        _ => document(&json!(true)),
    })
}

impl Shared {
    fn stream(&self, directory: &str) -> broadcast::Sender<Said> {
        let mut streams = self.streams.lock();
        streams.entry(directory.to_owned()).or_insert_with(|| broadcast::Sender::new(4096)).clone()
    }

    fn subscribe(&self, directory: &str) -> Response<Body> {
        let said = self.stream(directory).subscribe();
        let hello = Said::Whole(format!("data: {}\n\n", json!({"type": "server.connected"})));
        let rest = stream::unfold(said, |mut said| async { Some((said.recv().await.ok()?, said)) });
        events(stream::once(async { hello }).chain(rest))
    }

    /// Says the recording, with the deltas that are ordered in place of its own.
    fn prompt(&self, directory: &str, session: &str, body: &Value) {
        let order = body["parts"][0]["text"].as_str().and_then(Order::parse).expect("an order");
        let message = body["messageID"].as_str().expect("a message id");
        let Recording { before, delta, after, .. } = self.recording.renamed(session, message);
        let stream = self.stream(directory);
        #[expect(clippy::disallowed_methods, reason = "ends with the runtime")]
        tokio::spawn(async move {
            let text = Text::default();
            let delta = Said::delta(&delta, &text);
            // A failed send means that nobody listens any more.
            for event in before {
                drop(stream.send(Said::Whole(event)));
            }
            let begun = Instant::now();
            for number in 0..order.deltas {
                order.due(begun, number).await;
                drop(stream.send(delta.clone()));
            }
            for event in after {
                drop(stream.send(Said::part(event, &text)));
            }
        });
    }
}

/// A recorded turn as frames.
#[derive(Debug, Default)]
struct Recording {
    session: String,
    before: Vec<String>,
    delta: String,
    after: Vec<String>,
}

impl Recording {
    fn read() -> Self {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/opencode/events/text.jsonl");
        let text = fs::read_to_string(path).expect("the recordings are in the repository");
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let mut events: Vec<Value> = lines.map(|mut line| line["data"].take()).collect();
        let kind = |event: &Value, kind: &str| event["type"] == kind;
        let made = events.iter().position(|event| kind(event, "session.created"));
        let mut events = events.split_off(made.expect("the recording makes a session"));
        let session =
            events.remove(0)["properties"]["sessionID"].as_str().unwrap_or_default().into();
        let is_delta = |event: &Value| kind(event, "message.part.delta");
        let first = events.iter().position(is_delta).expect("the recording has deltas");
        let last = events.iter().rposition(is_delta).expect("the recording has deltas");
        let mut delta = events[first].clone();
        delta["properties"]["delta"] = json!(PLACE);
        for event in events[last..].iter_mut().filter(|event| kind(event, "message.part.updated")) {
            if let Some(text) = event["properties"]["part"].get_mut("text") {
                *text = json!(PLACE);
            }
        }
        let frames = |events: &[Value]| events.iter().map(|e| format!("data: {e}\n\n")).collect();
        Self {
            session,
            before: frames(&events[..first]),
            delta: format!("data: {delta}\n\n"),
            after: frames(&events[last + 1..]),
        }
    }

    fn renamed(&self, session: &str, message: &str) -> Self {
        let rename =
            |text: &String| text.replace(&self.session, session).replace("msg_text_1", message);
        Self {
            session: session.to_owned(),
            before: self.before.iter().map(rename).collect(),
            delta: rename(&self.delta),
            after: self.after.iter().map(rename).collect(),
        }
    }
}

/// A chat completion in OpenAI's dialect.
fn completion(body: &Value) -> Response<Body> {
    let order = body["messages"][0]["content"].as_str().and_then(Order::parse).expect("an order");
    let envelope = |object: &str, choice: Value| {
        json!({
            "id": "chatcmpl-stub", "object": object, "created": 1_795_252_825, "model": "mock/m1",
            "choices": [choice],
        })
    };
    if body["stream"] != true {
        let text = "@0123456789abcdef@".repeat(order.deltas as usize);
        let message = json!({"role": "assistant", "content": text});
        let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
        return document(&envelope("chat.completion", choice));
    }
    let chunk = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        format!("data: {}\n\n", envelope("chat.completion.chunk", choice))
    };
    let delta = Said::delta(&chunk(json!({"content": PLACE}), Value::Null), &Text::default());
    let end = Said::Whole(chunk(json!({}), json!("stop")) + "data: [DONE]\n\n");
    let begun = Instant::now();
    let deltas = stream::iter(0..order.deltas).then(move |number| {
        let delta = delta.clone();
        async move {
            order.due(begun, number).await;
            delta
        }
    });
    events(deltas.chain(stream::once(async { end })))
}

fn events(said: impl Stream<Item = Said> + Send + 'static) -> Response<Body> {
    let frames = said.map(|said| Ok(said.into_frame()));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let media_type = header::HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

fn document(json: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(json.to_string())).boxed_unsync());
    let media_type = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}
