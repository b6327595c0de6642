//! A model provider on loopback, on a thread of its own, that does nothing: it reads a request to its
//! end, answers at once, and writes into every delta when that was.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::Semaphore,
    task::{JoinSet, yield_now},
    time::{Duration, Instant, sleep_until},
};

use crate::{clock::stamp, style::Style};

/// What is answered: so many pieces, each of so many chunks and written by itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) style: Style,
    pub(crate) pieces: u32,
    pub(crate) chunks: u32,
    pub(crate) pace: Pace,
}

/// When the next piece is written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// At once.
    AtOnce,
    /// This long after the one before it.
    Each(Duration),
    /// When [`Provider::go_on`] says so.
    Asked,
}

impl Order {
    /// Bytes of a piece.
    pub(crate) fn piece_size(self) -> usize {
        self.piece().len()
    }

    fn piece(self) -> String {
        let (before, after) = self.style.delta();
        let mut piece = format!("{before}{WORDS}{after}").repeat(self.chunks as usize - 1);
        piece.extend([before, &stamp(), after]);
        piece
    }
}

/// A running provider; it ends when dropped. It answers everything the same way.
pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

struct Shared {
    order: Mutex<Order>,
    next: Semaphore,
}

impl Provider {
    pub(crate) fn start() -> Self {
        let mut builder = Builder::new_multi_thread();
        let builder = builder.worker_threads(1).thread_name("provider");
        let runtime = builder.enable_all().build().expect("a runtime");
        let order = Order { style: Style::Whole, pieces: 0, chunks: 0, pace: Pace::AtOnce };
        let shared = Arc::new(Shared { order: Mutex::new(order), next: Semaphore::new(0) });
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        runtime.spawn(serve(listener, Arc::clone(&shared)));
        Self { address, shared, _runtime: runtime }
    }

    /// From now on it answers with `order`.
    pub(crate) fn answer(&self, order: Order) {
        *self.shared.order.lock() = order;
    }

    /// Lets it write a piece that is to be asked for.
    pub(crate) fn go_on(&self) {
        self.shared.next.add_permits(1);
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("TCP");
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| answer(Arc::clone(&shared), request));
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    let order = *shared.order.lock();
    let (media_type, body) = if matches!(order.style, Style::Whole) {
        ("application/json", Full::from(order.style.end()).boxed_unsync())
    } else {
        let frames = said(order, shared).map(|text| Ok(Frame::data(Bytes::from(text))));
        ("text/event-stream; charset=utf-8", StreamBody::new(frames).boxed_unsync())
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media_type));
    for (name, value) in HEADERS {
        headers.insert(*name, header::HeaderValue::from_static(value));
    }
    Ok(response)
}

fn said(order: Order, shared: Arc<Shared>) -> impl Stream<Item = String> + Send {
    let begun = Instant::now();
    let pieces = stream::iter(0..order.pieces).then(move |number| {
        let shared = Arc::clone(&shared);
        async move {
            match order.pace {
                // What is written already goes out first.
                Pace::AtOnce => yield_now().await,
                Pace::Each(pause) => sleep_until(begun + pause * (number + 1)).await,
                Pace::Asked => shared.next.acquire().await.expect("it stays open").forget(),
            }
            order.piece()
        }
    });
    let whole = |text: &'static str| stream::once(async move { text.to_owned() });
    whole(order.style.begin()).chain(pieces).chain(whole(order.style.end()))
}

/// What the large providers send along, shortened.
const HEADERS: &[(&str, &str)] = &[
    ("cache-control", "no-cache"),
    ("cf-ray", "9a0b1c2d3e4f5a6b-FRA"),
    ("openai-processing-ms", "312"),
    ("openai-version", "2020-10-01"),
    ("server", "cloudflare"),
    ("set-cookie", "__cf_bm=rRkYNpPL1g4hYb7sX; path=/; HttpOnly; Secure; SameSite=None"),
    ("x-ratelimit-remaining-requests", "29999"),
    ("x-ratelimit-remaining-tokens", "179999987"),
    ("x-request-id", "req_3f0c6d0e5b6a4d7c8f9e0a1b2c3d4e5f"),
];
/// As long as a stamp.
const WORDS: &str = " of what it could ";
