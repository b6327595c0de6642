//! A scripted opencode: a loopback server that answers as the real one was recorded.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Request, Response, StatusCode};
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
    sync::{Notify, broadcast},
};
use tokio_util::task::AbortOnDropHandle;

/// What the next prompt is answered with.
#[derive(Debug, Clone)]
pub(crate) enum Script {
    /// The events of a recording from its first prompt on.
    Recording(&'static str),
    /// The events of a recording up to the first that holds this text, then silence.
    Until(&'static str, &'static str),
    /// `prompt_async` answers 404 as for a lost session.
    SessionLost,
    /// Nothing, for ever.
    Silence,
    /// The prompt is taken so late that the first abort finds nothing to stop; it is never
    /// answered.
    Late,
}

/// A running scripted opencode.
#[derive(Debug, Clone)]
pub(crate) struct Opencode {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _server: Arc<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    scripts: Mutex<VecDeque<Script>>,
    calls: Mutex<Vec<(Method, String, Value)>>,
    called: Notify,
    events: broadcast::Sender<String>,
    sessions: AtomicUsize,
    /// The session of a late prompt.
    late: Mutex<Option<String>>,
    /// Ends every open event stream.
    hang_up: Notify,
}

impl Shared {
    /// Takes the next script if it is [`Script::Late`].
    fn is_late(&self, session: &str) -> bool {
        let mut scripts = self.scripts.lock();
        let is_late = matches!(scripts.front(), Some(Script::Late));
        if is_late {
            scripts.pop_front();
            *self.late.lock() = Some(session.to_owned());
        }
        is_late
    }

    /// What `GET /session/status` says: a late prompt runs from after the first abort to the next.
    fn at_work(&self) -> Value {
        let calls = self.calls.lock();
        let aborts = calls.iter().filter(|(_, path, _)| path.ends_with("/abort")).count();
        match self.late.lock().as_deref() {
            Some(session) if aborts == 1 => json!({ session: {"type": "busy"} }),
            _ => json!({}),
        }
    }
}

impl Opencode {
    /// Starts one on a free loopback port.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            scripts: Mutex::default(),
            calls: Mutex::default(),
            called: Notify::new(),
            events: broadcast::Sender::new(100_000),
            sessions: AtomicUsize::new(0),
            late: Mutex::default(),
            hang_up: Notify::new(),
        });
        let serving = Arc::clone(&shared);
        #[expect(clippy::disallowed_methods, reason = "aborted when the last handle is dropped")]
        let server = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&serving);
                let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                connections
                    .spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, shared, _server: Arc::new(AbortOnDropHandle::new(server)) }
    }

    /// Queues what a later prompt is answered with; without one it is the recording `text`.
    pub(crate) fn script(&self, script: Script) {
        self.shared.scripts.lock().push_back(script);
    }

    /// What was asked so far: method, path without query, body.
    pub(crate) fn calls(&self) -> Vec<(Method, String, Value)> {
        self.shared.calls.lock().clone()
    }

    /// The calls whose path ends in `end`.
    pub(crate) fn calls_to(&self, end: &str) -> Vec<(String, Value)> {
        let calls = self.calls().into_iter();
        calls
            .filter(|(_, path, _)| path.ends_with(end))
            .map(|(_, path, body)| (path, body))
            .collect()
    }

    /// Waits until a call's path ends in `end`.
    pub(crate) async fn wait_for_call(&self, end: &str) {
        self.wait_for_calls(end, 1).await;
    }

    /// Waits until the paths of `count` calls end in `end`.
    pub(crate) async fn wait_for_calls(&self, end: &str, count: usize) {
        loop {
            let called = self.shared.called.notified();
            if self.calls_to(end).len() >= count {
                return;
            }
            called.await;
        }
    }

    /// Says an event to every subscriber.
    pub(crate) fn say(&self, event: &Value) {
        drop(self.shared.events.send(event.to_string()));
    }

    /// Says a piece of the text that the recording `text` is in the middle of, to `session`.
    pub(crate) fn say_delta(&self, session: &str, text: &str) {
        self.say(&json!({"type": "message.part.delta", "properties": {
            "sessionID": session, "messageID": "msg_1fd758aea001XtyUfnM1GRPpIR",
            "partID": "prt_1fd758b7d0012BdXxJ1VDpzNk9", "field": "text", "delta": text,
        }}));
    }

    /// Says the events of a recording that come after its first delta, to `session`.
    pub(crate) fn finish(&self, name: &str, session: &str) {
        let (_, prompt) = self.calls_to(&format!("{session}/prompt_async")).pop().unwrap();
        let message = prompt["messageID"].as_str().unwrap();
        let events = recorded(name, session, message).into_iter();
        for event in events.skip_while(|event| !event.contains("message.part.delta")).skip(1) {
            drop(self.shared.events.send(event));
        }
    }

    /// Breaks every event stream.
    pub(crate) fn hang_up(&self) {
        self.shared.hang_up.notify_waiters();
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let path = head.uri.path().to_owned();
    shared.calls.lock().push((head.method.clone(), path.clone(), body.clone()));
    shared.called.notify_waiters();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    Ok(match (head.method.as_str(), parts.as_slice()) {
        ("GET", ["global", "health"]) => {
            json_of(200, &json!({"healthy": true, "version": "1.18.33"}))
        }
        ("GET", ["event"]) => events(&shared),
        ("GET", ["session", "status"]) => json_of(200, &shared.at_work()),
        ("POST", ["session"] | ["session", _, "fork"]) => {
            let number = shared.sessions.fetch_add(1, Ordering::SeqCst) + 1;
            json_of(200, &json!({"id": format!("ses_stub{number}")}))
        }
        // A refusal refuses everything else that the session waits for (observed).
        ("POST", ["permission", _, "reply"]) if has_refused(&shared) => {
            json_of(404, &json!({"_tag": "PermissionNotFoundError", "requestID": "per_x"}))
        }
        ("POST", ["session", session, "prompt_async"]) if shared.is_late(session) => {
            std::future::pending().await
        }
        ("POST", ["session", session, "prompt_async"]) => prompt(&shared, session, &body),
        _ => json_of(200, &json!(true)),
    })
}

fn prompt(shared: &Arc<Shared>, session: &str, body: &Value) -> Response<Body> {
    let script = shared.scripts.lock().pop_front().unwrap_or(Script::Recording("text"));
    let message = body["messageID"].as_str().unwrap_or_default();
    let (name, until) = match script {
        Script::SessionLost => {
            return json_of(
                404,
                &json!({"name": "NotFoundError", "data": {"message": "Session not found: ses_x"}}),
            );
        }
        Script::Silence | Script::Late => return json_of(204, &Value::Null),
        Script::Recording(name) => (name, None),
        Script::Until(name, text) => (name, Some(text)),
    };
    for event in recorded(name, session, message) {
        let last = until.is_some_and(|text| event.contains(text));
        drop(shared.events.send(event));
        if last {
            break;
        }
    }
    json_of(204, &Value::Null)
}

/// The events of a recording after its session was made, under other ids.
fn recorded(name: &str, session: &str, message: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("tests/fixtures/opencode/events/{name}.jsonl"));
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let made = lines
        .iter()
        .position(|line| line["data"]["type"] == "session.created")
        .expect("the recording makes a session");
    let recorded = lines[made]["data"]["properties"]["sessionID"].as_str().unwrap();
    lines[made + 1..]
        .iter()
        .map(|line| {
            let event = line["data"].to_string();
            event.replace(recorded, session).replace(&format!("msg_{name}_1"), message)
        })
        .collect()
}

fn events(shared: &Arc<Shared>) -> Response<Body> {
    let said = shared.events.subscribe();
    let hello = json!({"type": "server.connected", "properties": {}}).to_string();
    let rest = futures_util::stream::unfold(said, |mut said| async move {
        said.recv().await.ok().map(|event| (event, said))
    });
    let waiting = Arc::clone(shared);
    let frames = futures_util::stream::once(async { hello })
        .chain(rest)
        .map(|event| Ok(Frame::data(Bytes::from(format!("data: {event}\n\n")))))
        .take_until(async move { waiting.hang_up.notified().await });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let media_type = http::HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(http::header::CONTENT_TYPE, media_type);
    response
}

fn json_of(status: u16, body: &Value) -> Response<Body> {
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let mut response = Response::new(Full::new(body).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// Whether a permission was refused before the call that was just taken down.
fn has_refused(shared: &Shared) -> bool {
    let calls = shared.calls.lock();
    let earlier = calls.iter().rev().skip(1);
    earlier.into_iter().any(|(_, path, body)| path.ends_with("/reply") && body["reply"] == "reject")
}
