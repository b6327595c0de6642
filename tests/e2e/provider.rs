//! A model provider inside the test. It speaks the three styles of API, answers as the prompt or
//! the test tells it to, writes down all it receives, and counts for itself what was used.

mod act;
mod asked;
mod ledger;
mod script;
mod seen;
mod server;
mod shape;
mod sound;
mod steps;
mod style;
mod tls;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet, time::sleep};

pub(crate) use self::{
    act::{Act, Reply},
    asked::Asked,
    ledger::{Ledger, Used},
    seen::Seen,
    style::Style,
    tls::Authority,
};

/// What a call of a tool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// The tool.
    pub(crate) name: String,
    /// Its arguments, as JSON.
    pub(crate) arguments: String,
}

/// Decides what a call is answered with.
type Director = Arc<dyn Fn(&Asked) -> Act + Send + Sync>;

/// The provider. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Provider {
    /// Its URL, without a path: every path that ends as a style's does is answered.
    pub(crate) url: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    desk: Arc<Desk>,
    _serving: JoinSet<()>,
}

/// What all connections share.
struct Desk {
    director: Director,
    seen: Mutex<Vec<Seen>>,
    ledger: Mutex<Ledger>,
    connections: AtomicUsize,
    /// The keys that are good; anything is while there are none.
    keys: Mutex<BTreeSet<String>>,
    /// Those who wait at the gate, and what lets them through.
    waiting: AtomicUsize,
    gate: Semaphore,
}

impl Provider {
    /// Starts it on a free port, without TLS. [`script`] says what it answers.
    pub(crate) async fn start() -> Self {
        Self::serve(None, Arc::new(script::act)).await
    }

    /// As [`Provider::start`], with TLS and a certificate of `authority`'s. Whether it offers
    /// HTTP/2 is `authority`'s to say.
    pub(crate) async fn start_tls(authority: &Authority) -> Self {
        Self::serve(Some(authority), Arc::new(script::act)).await
    }

    /// Starts it on a free port, with answers of the test's own.
    pub(crate) async fn directed(director: impl Fn(&Asked) -> Act + Send + Sync + 'static) -> Self {
        Self::serve(None, Arc::new(director)).await
    }

    async fn serve(authority: Option<&Authority>, director: Director) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let scheme = if authority.is_some() { "https" } else { "http" };
        let desk = Arc::new(Desk::of(director));
        let mut serving = JoinSet::new();
        serving.spawn(server::serve(
            listener,
            authority.map(Authority::acceptor),
            Arc::clone(&desk),
        ));
        Self { url: format!("{scheme}://{address}"), address, desk, _serving: serving }
    }

    /// From now on only these keys are good; all others get the style's own 401.
    pub(crate) fn accept_only(&self, keys: &[&str]) {
        *self.desk.keys.lock() = keys.iter().map(|key| (*key).to_owned()).collect();
    }

    /// All requests so far, in the order they came.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.desk.seen.lock().clone()
    }

    /// Its books as they stand.
    pub(crate) fn ledger(&self) -> Ledger {
        self.desk.ledger.lock().clone()
    }

    /// How many connections it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.desk.connections.load(Ordering::SeqCst)
    }

    /// Waits until exactly `count` replies are held at the gate.
    pub(crate) async fn holds(&self, count: usize, patience: Duration) {
        let waiting = || self.desk.waiting.load(Ordering::SeqCst);
        self.until(|| waiting() == count, &format!("{count} replies held"), patience).await;
    }

    /// Lets `count` held replies go on, or as many future ones.
    pub(crate) fn release(&self, count: usize) {
        self.desk.gate.add_permits(count);
    }

    /// Waits until every call that was begun has come to an end of some kind.
    pub(crate) async fn settles(&self, patience: Duration) {
        self.until(|| self.ledger().open() == 0, "no open call", patience).await;
    }

    async fn until(&self, reached: impl Fn() -> bool, what: &str, patience: Duration) {
        let reached = async {
            while !reached() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let done = tokio::time::timeout(patience, reached).await.is_ok();
        assert!(done, "not within {patience:?}: {what}; {:?}", self.desk);
    }
}

impl Desk {
    fn of(director: Director) -> Self {
        Self {
            director,
            seen: Mutex::default(),
            ledger: Mutex::default(),
            connections: AtomicUsize::new(0),
            keys: Mutex::default(),
            waiting: AtomicUsize::new(0),
            gate: Semaphore::new(0),
        }
    }

    fn is_good(&self, key: Option<&str>) -> bool {
        let keys = self.keys.lock();
        keys.is_empty() || key.is_some_and(|key| keys.contains(key))
    }
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk")
            .field("ledger", &self.ledger)
            .field("connections", &self.connections)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}
