//! A model provider inside the test, for what the demo model does not do: an answer that takes
//! minutes, silence, and telling how many of its answers somebody still listens to.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{Request, Response, header};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet, time::sleep};

/// Words of a slow answer; at ten a second it outlasts every test.
const SLOW_WORDS: usize = 1200;

/// The provider. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Scripted {
    /// Its base URL, with `/v1`.
    pub(crate) url: String,
    open: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

/// An answer's body.
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// One answer that somebody listens to.
struct Listened(Arc<AtomicUsize>);

impl Listened {
    fn by(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(open))
    }
}

impl Drop for Listened {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Scripted {
    /// Starts it on a free port. What it answers depends on the last user message: with `slow` in
    /// it a word every tenth of a second, with `silent` nothing at all, else `All is well.`
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let open = Arc::new(AtomicUsize::new(0));
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&open)));
        Self { url: format!("http://127.0.0.1:{port}/v1"), open, _serving: serving }
    }

    /// Waits until exactly `count` slow or silent answers are listened to.
    pub(crate) async fn listened_to(&self, count: usize, patience: Duration) {
        let open = || self.open.load(Ordering::SeqCst);
        let reached = async {
            while open() != count {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let done = tokio::time::timeout(patience, reached).await.is_ok();
        assert!(done, "{} answers are listened to after {patience:?}, not {count}", open());
    }
}

async fn serve(listener: TcpListener, open: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let open = Arc::clone(&open);
        connections.spawn(async move {
            let answer = service_fn(|request| answer(request, Arc::clone(&open)));
            // A caller that leaves is what some tests are about.
            drop(http1::Builder::new().serve_connection(TokioIo::new(socket), answer).await);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    open: Arc<AtomicUsize>,
) -> Result<Response<Body>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let asked = last_user_text(&body);
    // Only a chat's own turns offer tools; opencode's side calls must not be counted.
    let is_turn = body.get("tools").is_some();
    let body = if is_turn && asked.contains("silent") {
        let _listened = Listened::by(&open);
        std::future::pending().await
    } else if is_turn && asked.contains("slow") {
        body_of(slow(Listened::by(&open)))
    } else {
        body_of(stream::iter([words("All is well."), end()]))
    };
    let response = Response::builder()
        .header(header::CONTENT_TYPE, "text/event-stream")
        .body(body)
        .expect("a response");
    Ok(response)
}

fn body_of(frames: impl Stream<Item = Frame<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(frames.map(Ok)).boxed_unsync()
}

fn slow(listened: Listened) -> impl Stream<Item = Frame<Bytes>> {
    stream::unfold((0, listened), |(count, listened)| async move {
        if count > 0 {
            sleep(Duration::from_millis(100)).await;
        }
        let chunk = words(&format!("w{count} "));
        (count < SLOW_WORDS).then_some((chunk, (count + 1, listened)))
    })
}

fn last_user_text(body: &Value) -> String {
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let last = messages.iter().rev().find(|message| message["role"] == "user");
    last.map(|message| message["content"].to_string()).unwrap_or_default()
}

fn words(text: &str) -> Frame<Bytes> {
    event(&json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]}))
}

fn end() -> Frame<Bytes> {
    event(&json!({
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6},
    }))
}

fn event(chunk: &Value) -> Frame<Bytes> {
    let mut chunk = chunk.clone();
    chunk["id"] = json!("chatcmpl-scripted");
    chunk["object"] = json!("chat.completion.chunk");
    Frame::data(Bytes::from(format!("data: {chunk}\n\n")))
}
