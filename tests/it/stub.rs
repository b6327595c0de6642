//! A runner that speaks `OpenAI` itself, byte for byte: it keeps what it is sent and answers with
//! what it is told.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use open_persona::config::{Address, Config, Dialect};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    sync::Notify,
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use crate::world::{DEVELOPMENT, World};

/// What the stub sends back, and whether it hangs up afterwards.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// Each is written and flushed by itself.
    pub(crate) pieces: Vec<Vec<u8>>,
    pub(crate) hang_up: bool,
}

/// One whole request, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Which connection it came on, counted from zero.
    pub(crate) connection: usize,
    /// Request line and headers, with their line ends.
    pub(crate) head: String,
    /// The body, unchunked.
    pub(crate) body: String,
    /// What follows the last chunk: trailers and an empty line.
    pub(crate) trailers: String,
}

impl Seen {
    /// The values of the header `name`, whose spelling may be any that a server could fold to it.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let fold = |text: &str| text.to_ascii_lowercase().replace(['_', '.'], "-");
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(each, _)| fold(each) == name).map(|(_, value)| value.trim()).collect()
    }
}

/// A running stub.
#[derive(Debug)]
pub(crate) struct Stub {
    pub(crate) address: Address,
    shared: Arc<Shared>,
    _server: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    connections: AtomicUsize,
    replies: Mutex<VecDeque<Reply>>,
    seen: Mutex<Vec<Seen>>,
    came: Notify,
}

impl Reply {
    /// A reply in one piece, after which the connection stays open.
    pub(crate) fn of(bytes: impl Into<Vec<u8>>) -> Self {
        Self { pieces: vec![bytes.into()], hang_up: false }
    }

    /// A small JSON answer.
    pub(crate) fn ok() -> Self {
        Self::json("{\"ok\":true}")
    }

    /// A JSON answer with its length.
    pub(crate) fn json(body: &str) -> Self {
        let length = body.len();
        Self::of(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    }

    /// A chunked event stream, its bytes cut into chunks of `size`.
    pub(crate) fn stream(body: &[u8], size: usize) -> Self {
        let mut pieces = vec![STREAM.as_bytes().to_vec()];
        for part in body.chunks(size) {
            pieces.push(chunk(part));
        }
        pieces.push(b"0\r\n\r\n".to_vec());
        Self { pieces, hang_up: false }
    }

    /// Hangs up after it.
    pub(crate) fn then_hang_up(mut self) -> Self {
        self.hang_up = true;
        self
    }
}

/// `part` as one chunk.
pub(crate) fn chunk(part: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat()
}

/// The head of a chunked event stream.
pub(crate) const STREAM: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

impl Stub {
    /// One that listens on a free loopback port.
    pub(crate) async fn tcp() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().to_string());
        Self::at(address, Door::Tcp(listener))
    }

    /// One that listens on a Unix socket at `path`.
    pub(crate) fn unix(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        Self::at(Address::Unix(path.to_owned()), Door::Unix(listener))
    }

    fn at(address: Address, door: Door) -> Self {
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        #[expect(clippy::disallowed_methods, reason = "aborted when the stub is dropped")]
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let wire = door.next().await;
                let number = serving.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(serve(Arc::clone(&serving), wire, number));
            }
        });
        Self { address, shared, _server: AbortOnDropHandle::new(server) }
    }

    /// Queues the answer to a later request; without one it is [`Reply::ok`].
    pub(crate) fn reply(&self, reply: Reply) {
        self.shared.replies.lock().push_back(reply);
    }

    /// The whole requests that came so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().clone()
    }

    /// The only request that came.
    pub(crate) fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }

    /// Connections opened so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits until a whole request has come.
    pub(crate) async fn wait_for_request(&self) {
        loop {
            let came = self.shared.came.notified();
            if !self.seen().is_empty() {
                return;
            }
            came.await;
        }
    }
}

/// A world with development identities whose runners are one stub that listens on TCP.
pub(crate) async fn world() -> (World, Stub) {
    world_with(DEVELOPMENT, |_| {}).await
}

/// As [`world`], with other configuration.
pub(crate) async fn world_with(yaml: &str, change: impl FnOnce(&mut Config)) -> (World, Stub) {
    let world = World::with(yaml, |config| {
        config.runners.dialect = Dialect::OpenAi;
        change(config);
    });
    let (world, stub) = tokio::join!(world, Stub::tcp());
    world.launcher.aim(stub.address.clone(), None);
    (world, stub)
}

enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

impl Door {
    async fn next(&self) -> Box<dyn Wire> {
        match self {
            Self::Tcp(listener) => Box::new(listener.accept().await.unwrap().0),
            Self::Unix(listener) => Box::new(listener.accept().await.unwrap().0),
        }
    }
}

async fn serve(shared: Arc<Shared>, mut wire: Box<dyn Wire>, connection: usize) {
    let mut read = Vec::new();
    while let Some(seen) = request(&mut wire, &mut read, connection).await {
        shared.seen.lock().push(seen);
        shared.came.notify_waiters();
        let reply = shared.replies.lock().pop_front().unwrap_or_else(Reply::ok);
        for piece in &reply.pieces {
            // Whoever leaves early is the one under test.
            if wire.write_all(piece).await.is_err() || wire.flush().await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        if reply.hang_up {
            return;
        }
    }
}

/// Reads one whole request, or `None` when the connection ends before it is whole.
async fn request(
    wire: &mut Box<dyn Wire>,
    read: &mut Vec<u8>,
    connection: usize,
) -> Option<Seen> {
    loop {
        if let Some((seen, used)) = parse(read, connection) {
            read.drain(..used);
            return Some(seen);
        }
        if wire.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
}

fn parse(bytes: &[u8], connection: usize) -> Option<(Seen, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut seen = Seen {
        connection,
        head: text(&bytes[..end]),
        body: String::new(),
        trailers: String::new(),
    };
    if seen.values("transfer-encoding").is_empty() {
        let length = seen.values("content-length").first().map_or(0, |text| text.parse().unwrap());
        seen.body = text(bytes.get(end..end + length)?);
        return Some((seen, end + length));
    }
    let (mut at, mut body) = (end, Vec::new());
    loop {
        let line = at + bytes[at..].windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..line]).ok()?, 16).ok()?;
        at = line + 2;
        if size == 0 {
            let empty = bytes[line..].windows(4).position(|window| window == b"\r\n\r\n")?;
            seen.body = text(&body);
            seen.trailers = text(&bytes[at..line + empty + 4]);
            return Some((seen, line + empty + 4));
        }
        body.extend_from_slice(bytes.get(at..at + size)?);
        at += size + 2;
        bytes.get(..at)?;
    }
}
