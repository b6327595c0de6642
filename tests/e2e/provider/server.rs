//! The provider on its sockets: connections, requests, and replies in their own time.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use open_persona::usage::Tokens;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Act, Asked, Desk, Reply, Seen, Style,
    act::Quirk,
    ledger,
    shape::Told,
    steps::{self, Open, Step},
};

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// The models it says it has.
const MODELS: [&str; 3] = ["gpt-5", "claude-sonnet-4-5", "m1"];

/// Accepts connections until it is dropped, and they with it.
pub(super) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, desk: Arc<Desk>) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let number = desk.connections.fetch_add(1, Ordering::SeqCst);
        let (desk, tls) = (Arc::clone(&desk), tls.clone());
        connections.spawn(async move {
            match tls {
                None => connection(socket, number, desk).await,
                // A client that does not trust the certificate is what some tests are about.
                Some(tls) => {
                    if let Ok(socket) = tls.accept(socket).await {
                        connection(socket, number, desk).await;
                    }
                }
            }
        });
    }
}

async fn connection(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    number: usize,
    desk: Arc<Desk>,
) {
    let service = service_fn(|request| {
        let desk = Arc::clone(&desk);
        async move { desk.answer(number, request).await }
    });
    let http = auto::Builder::new(TokioExecutor::new());
    // A caller that leaves is what some tests are about.
    drop(http.serve_connection(TokioIo::new(socket), service).await);
}

impl Desk {
    async fn answer(
        self: Arc<Self>,
        connection: usize,
        request: Request<Incoming>,
    ) -> Result<Answer, hyper::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let seen = Seen::of(connection, &Request::from_parts(head, ()), body);
        self.seen.lock().push(seen.clone());
        let path = seen.uri.path();
        if path.ends_with("/models") {
            let model = |id| json!({"id": id, "object": "model", "owned_by": "tests"});
            return Ok(whole(200, &json!({"object": "list", "data": MODELS.map(model)})));
        }
        if path.ends_with("/embeddings") {
            return Ok(self.embeddings(&seen));
        }
        let Some(style) = Style::of_path(path) else {
            return Ok(whole(404, &json!({"error": {"message": "no such path"}})));
        };
        let asked = Asked::of(style, &seen);
        let act = if self.is_good(seen.key()) { (self.director)(&asked) } else { Act::Fail(401) };
        Ok(match act {
            Act::Reply(reply) => self.reply(asked, &reply),
            Act::Fail(status) => {
                self.ledger.lock().refused += 1;
                let message = format!("Status {status}. Incorrect API key provided: {}", asked.key);
                let mut answer = whole(status, &style.shape().error(status, &message));
                let challenge = format!("Bearer error_description=\"wrong key {}\"", asked.key);
                let challenge = challenge.parse().expect("a header");
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
                answer
            }
            Act::Redirect(to) => {
                self.ledger.lock().refused += 1;
                let mut answer = whole(307, &Value::Null);
                answer.headers_mut().insert(header::LOCATION, to.parse().expect("a URL"));
                answer
            }
        })
    }

    fn reply(self: Arc<Self>, asked: Asked, reply: &Reply) -> Answer {
        let number = self.begin();
        let metered = reply.quirk != Quirk::Unmetered && asked.metered;
        let tokens = metered.then(|| ledger::drawn(number, asked.style));
        let told = Told { number, model: &asked.model, reply, tokens };
        let streamed = asked.streamed;
        let mut steps = steps::of(&told, asked.style.shape(), streamed);
        let kind = if streamed { "text/event-stream" } else { "application/json" };
        let is_compressed = reply.quirk == Quirk::Compressed && asked.takes_gzip;
        if is_compressed {
            steps::compress(&mut steps);
        }
        let mut answer = answer(200, kind, steps, Some(Open::of(self, asked, tokens)));
        if is_compressed {
            let gzip = HeaderValue::from_static("gzip");
            answer.headers_mut().insert(header::CONTENT_ENCODING, gzip);
        }
        answer
    }

    fn embeddings(self: Arc<Self>, seen: &Seen) -> Answer {
        let asked = Asked::of(Style::Chat, seen);
        let number = self.begin();
        let tokens =
            Tokens { input: ledger::drawn(number, Style::Chat).input, ..Tokens::default() };
        let body = json!({
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.25, 0.5]}],
            "model": asked.model,
            "usage": {"prompt_tokens": tokens.input, "total_tokens": tokens.input},
        });
        let open = Open::of(self, asked, Some(tokens));
        answer(200, "application/json", vec![Step::End(body.to_string().into())], Some(open))
    }

    /// Begins a call and gives its number, from 1.
    fn begin(&self) -> u64 {
        let mut ledger = self.ledger.lock();
        ledger.begun += 1;
        ledger.begun
    }
}

/// A body in one piece that nobody counts.
fn whole(status: u16, body: &Value) -> Answer {
    answer(status, "application/json", vec![Step::Write(body.to_string().into())], None)
}

fn answer(status: u16, kind: &str, steps: Vec<Step>, open: Option<Open>) -> Answer {
    Response::builder()
        .status(StatusCode::from_u16(status).expect("a status"))
        .header(header::CONTENT_TYPE, kind)
        .body(StreamBody::new(steps::body(steps, open)).boxed_unsync())
        .expect("a response")
}
