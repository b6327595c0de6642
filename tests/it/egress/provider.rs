//! A model provider that does what it is told, and keeps what it was sent as it comes.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::client::GUARD;

/// A running provider.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    _server: AbortOnDropHandle<()>,
}

/// A request as far as it has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Which connection it came on, counted from zero.
    pub(super) connection: usize,
    /// Request line and headers, with their line ends.
    pub(super) head: String,
    /// The body, unchunked.
    pub(super) body: Vec<u8>,
    /// Whether it came to its end. A provider does nothing with one that did not.
    pub(super) is_whole: bool,
    /// Whether all of the answer was written.
    pub(super) is_answered: bool,
    /// Whether the connection ended before that.
    pub(super) is_cut: bool,
}

/// What a provider does with a whole request, one after the other.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Send(Vec<u8>),
    /// Waits for one opening of the gate.
    Wait(Gate),
    /// Waits until the connection ends.
    AwaitEnd,
    HangUp,
}

/// Something to wait for, opened from outside as often as it is to be passed.
#[derive(Debug, Clone)]
pub(super) struct Gate(Arc<Semaphore>);

#[derive(Default)]
struct Shared {
    seen: watch::Sender<Vec<Seen>>,
    script: Mutex<Option<Script>>,
}

type Script = Arc<dyn Fn(&Seen) -> Vec<Step> + Send + Sync>;

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Gate {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets one more pass.
    pub(super) fn open(&self) {
        self.0.add_permits(1);
    }
}

impl Seen {
    /// The values of the header `name`, which is in lower case.
    pub(super) fn values(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(each, _)| each.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    /// All headers, names in lower case, sorted.
    pub(super) fn headers(&self) -> Vec<String> {
        let lines = self.head.trim_end().lines().skip(1).filter_map(|line| line.split_once(": "));
        let mut lines: Vec<_> =
            lines.map(|(name, value)| format!("{}: {value}", name.to_lowercase())).collect();
        lines.sort();
        lines
    }

    /// Method, path and query.
    pub(super) fn asked(&self) -> &str {
        self.head.lines().next().and_then(|line| line.strip_suffix(" HTTP/1.1")).unwrap_or("")
    }

    /// The body as JSON.
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Provider {
    /// One that answers everything with `{}`, if not told otherwise.
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let serving = Arc::clone(&shared);
        #[expect(clippy::disallowed_methods, reason = "aborted when the provider is dropped")]
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            for connection in 0.. {
                let (wire, _) = listener.accept().await.unwrap();
                wire.set_nodelay(true).unwrap();
                connections.spawn(serve(Arc::clone(&serving), wire, connection));
            }
        });
        Self { address, shared, _server: AbortOnDropHandle::new(server) }
    }

    /// From now on does with each whole request what `script` says.
    pub(super) fn script(&self, script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) {
        *self.shared.script.lock() = Some(Arc::new(script));
    }

    /// From now on answers with exactly `bytes`.
    pub(super) fn answer(&self, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.script(move |_| vec![Step::Send(bytes.clone())]);
    }

    /// The requests that came so far, also those that are not whole.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.borrow().clone()
    }

    /// How many whole requests came so far.
    pub(super) fn whole(&self) -> usize {
        whole(&self.shared.seen.borrow())
    }

    /// The only request that came.
    pub(super) fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert!(seen[0].is_whole, "{seen:?}");
        seen.remove(0)
    }

    /// Waits until what came so far `is_enough`.
    pub(super) async fn until(&self, is_enough: impl FnMut(&Vec<Seen>) -> bool) {
        let mut seen = self.shared.seen.subscribe();
        let enough = timeout(GUARD, seen.wait_for(is_enough)).await.map(drop);
        assert!(enough.is_ok(), "{:?}", self.seen());
    }

    /// Waits until `number` whole requests came.
    pub(super) async fn until_whole(&self, number: usize) {
        self.until(|seen| whole(seen) >= number).await;
    }
}

fn whole(seen: &[Seen]) -> usize {
    seen.iter().filter(|seen| seen.is_whole).count()
}

async fn serve(shared: Arc<Shared>, wire: TcpStream, connection: usize) {
    let mut wire = BufStream::new(wire);
    loop {
        let Some(head) = head(&mut wire).await else { return };
        let mut number = 0;
        shared.seen.send_modify(|seen| {
            number = seen.len();
            seen.push(Seen { connection, head, ..Seen::default() });
        });
        if body(&shared, &mut wire, number).await.is_none() {
            return;
        }
        // What it does is decided, and counted if it counts, before anybody hears of the request.
        let script = shared.script.lock().clone();
        let whole = shared.seen.borrow()[number].clone();
        let steps = script.map_or_else(|| vec![Step::Send(EMPTY.into())], |script| script(&whole));
        shared.seen.send_modify(|seen| seen[number].is_whole = true);
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    if wire.write_all(&bytes).await.is_err() || wire.flush().await.is_err() {
                        shared.seen.send_modify(|seen| seen[number].is_cut = true);
                        return;
                    }
                    tokio::task::yield_now().await;
                }
                Step::Wait(gate) => gate.0.acquire().await.unwrap().forget(),
                Step::AwaitEnd => {
                    while wire.read_u8().await.is_ok() {}
                    shared.seen.send_modify(|seen| seen[number].is_cut = true);
                    return;
                }
                Step::HangUp => return,
            }
        }
        shared.seen.send_modify(|seen| seen[number].is_answered = true);
    }
}

async fn head(wire: &mut BufStream<TcpStream>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if wire.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

/// Reads a body as it comes; `None` when it ends too early.
async fn body(shared: &Shared, wire: &mut BufStream<TcpStream>, number: usize) -> Option<()> {
    let (length, is_chunked) = {
        let seen = &shared.seen.borrow()[number];
        let length = seen.values("content-length").first().map_or(0, |text| text.parse().unwrap());
        (length, !seen.values("transfer-encoding").is_empty())
    };
    if !is_chunked {
        return read(shared, wire, number, length).await;
    }
    loop {
        let mut line = String::new();
        wire.read_line(&mut line).await.ok()?;
        let size = usize::from_str_radix(line.trim_end(), 16).ok()?;
        read(shared, wire, number, size).await?;
        line.clear();
        wire.read_line(&mut line).await.ok()?;
        assert!(line.is_empty() || line == "\r\n", "a trailer: {line}");
        if size == 0 {
            return line.ends_with('\n').then_some(());
        }
    }
}

async fn read(
    shared: &Shared,
    wire: &mut BufStream<TcpStream>,
    number: usize,
    mut length: usize,
) -> Option<()> {
    while length > 0 {
        let piece = wire.fill_buf().await.ok().filter(|piece| !piece.is_empty())?;
        let size = piece.len().min(length);
        shared.seen.send_modify(|seen| seen[number].body.extend_from_slice(&piece[..size]));
        wire.consume(size);
        length -= size;
    }
    Some(())
}

const EMPTY: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
