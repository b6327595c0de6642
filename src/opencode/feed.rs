//! One event subscription for each runner, fanned out by session.
//!
//! opencode's `/event` has no replay, so a listener is registered before it prompts, and told
//! when the stream broke. A listener that reads slowly neither holds up the others nor fills
//! memory: past a bound nothing more is queued for it, and it is told so.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    client::{ClientError, Wire},
    event::{Frames, slim},
};

/// The subscription of one runner. Connects when first listened to, and again when it is listened
/// to after it broke; ends when dropped.
#[derive(Debug)]
pub(super) struct Feed {
    hub: Arc<Hub>,
    _pump: AbortOnDropHandle<()>,
}

/// What a listener hears.
#[derive(Debug)]
pub enum Said {
    /// An event of its session or of a session that one spawned: JSON, as opencode wrote it.
    Event(Bytes),
    /// Nothing more will come, and something may be missing.
    Lost(Loss),
}

/// Why a listener hears nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The stream ended: the runner ended, or disposed of its instance.
    Closed,
    /// Not even a heartbeat came.
    Silent,
    /// The listener was too slow.
    Lagged,
}

/// Hears one session and its children, from registration to drop.
#[derive(Debug)]
pub struct Listener {
    key: u64,
    hub: Arc<Hub>,
    queue: mpsc::UnboundedReceiver<Said>,
    queued: Arc<Queued>,
}

/// What waits for a listener.
#[derive(Debug, Default)]
struct Queued {
    bytes: AtomicUsize,
    /// Whether more than [`QUEUE`] waited, so that something was left out.
    lagged: AtomicBool,
}

impl Listener {
    /// The next thing said. Cancel-safe. After [`Said::Lost`] it says that for ever.
    pub async fn next(&mut self) -> Said {
        match self.queue.recv().await {
            Some(Said::Event(event)) => {
                self.queued.bytes.fetch_sub(event.len(), Ordering::Relaxed);
                Said::Event(event)
            }
            Some(lost) => lost,
            // The end of the queue makes the flag visible: it is set before the sender is dropped.
            None if self.queued.lagged.load(Ordering::Relaxed) => Said::Lost(Loss::Lagged),
            None => Said::Lost(Loss::Closed),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.hub.routes.lock().remove(self.key);
    }
}

impl Feed {
    /// A feed over `wire`. Not even a heartbeat for `silence` counts as broken; opencode sends
    /// one every 10 s.
    pub(super) fn new(wire: Wire, silence: Duration) -> Self {
        let hub = Arc::new(Hub {
            routes: Mutex::default(),
            wanted: Notify::new(),
            phase: watch::Sender::new(Phase::default()),
        });
        #[expect(clippy::disallowed_methods, reason = "aborted when the feed is dropped")]
        let pump = tokio::spawn(pump(Arc::clone(&hub), wire, silence));
        Self { hub, _pump: AbortOnDropHandle::new(pump) }
    }

    /// Listens to `session`. Returns once the stream is up: all that is said from now on is heard.
    pub(super) async fn listen(&self, session: &str) -> Result<Listener, ClientError> {
        let mut phase = self.hub.phase.subscribe();
        let failures = phase.borrow_and_update().failures;
        let mut listener = self.hub.register(session);
        self.hub.wanted.notify_one();
        loop {
            {
                let now = phase.borrow_and_update();
                if now.up && self.hub.routes.lock().outlets.contains_key(&listener.key) {
                    return Ok(listener);
                }
                if let Some(error) = now.error.as_ref().filter(|_| now.failures > failures) {
                    return Err(error.clone());
                }
            }
            if phase.changed().await.is_err() {
                return Err(ClientError::Unreachable("the event feed has ended".to_owned()));
            }
            // The stream broke between registering and now: what was registered is lost with it.
            if !self.hub.routes.lock().outlets.contains_key(&listener.key) {
                listener = self.hub.register(session);
                self.hub.wanted.notify_one();
            }
        }
    }
}

#[derive(Debug)]
struct Hub {
    routes: Mutex<Routes>,
    wanted: Notify,
    phase: watch::Sender<Phase>,
}

/// How the connection is.
#[derive(Debug, Default)]
struct Phase {
    up: bool,
    /// Connections that failed so far.
    failures: u64,
    error: Option<ClientError>,
}

#[derive(Debug, Default)]
struct Routes {
    last_key: u64,
    sessions: HashMap<String, u64>,
    outlets: HashMap<u64, Outlet>,
}

#[derive(Debug)]
struct Outlet {
    sender: mpsc::UnboundedSender<Said>,
    queued: Arc<Queued>,
}

impl Hub {
    fn register(self: &Arc<Self>, session: &str) -> Listener {
        let (sender, queue) = mpsc::unbounded_channel();
        let queued = Arc::<Queued>::default();
        let mut routes = self.routes.lock();
        routes.last_key += 1;
        let key = routes.last_key;
        routes.sessions.insert(session.to_owned(), key);
        routes.outlets.insert(key, Outlet { sender, queued: Arc::clone(&queued) });
        Listener { key, hub: Arc::clone(self), queue, queued }
    }
}

impl Routes {
    fn remove(&mut self, key: u64) {
        self.outlets.remove(&key);
        self.sessions.retain(|_, listener| *listener != key);
    }

    /// Passes `event` on to whoever listens to its session, or to the parent of a new one.
    fn pass(&mut self, event: Bytes) {
        let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(&event) else { return };
        let Some(properties) = envelope.properties else { return };
        let Some(session) = properties.session_id.as_deref() else { return };
        if !self.sessions.contains_key(session) {
            let parent = properties.info.and_then(|info| info.parent_id);
            let Some(key) = parent.and_then(|parent| self.sessions.get(parent.as_ref()).copied())
            else {
                return;
            };
            self.sessions.insert(session.to_owned(), key);
        }
        let Some(key) = self.sessions.get(session).copied() else { return };
        let Some(outlet) = self.outlets.get(&key) else { return };
        // What waits already decides, not the event's own size: one event may be that large, such
        // as a tool's output with its attachments. A failed send means that the listener is being
        // dropped.
        let lags = outlet.queued.bytes.fetch_add(event.len(), Ordering::Relaxed) > QUEUE;
        outlet.queued.lagged.store(lags, Ordering::Relaxed);
        if lags || outlet.sender.send(Said::Event(event)).is_err() {
            self.remove(key);
        }
    }

    /// Tells everybody that nothing more will come.
    fn lose(&mut self, loss: Loss) {
        for (_, outlet) in self.outlets.drain() {
            // A failed send means that the listener is being dropped.
            drop(outlet.sender.send(Said::Lost(loss)));
        }
        self.sessions.clear();
    }
}

/// What routing needs of an event.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    properties: Option<Properties<'a>>,
}

#[derive(Deserialize)]
struct Properties<'a> {
    #[serde(borrow, rename = "sessionID")]
    session_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    info: Option<Parent<'a>>,
}

#[derive(Deserialize)]
struct Parent<'a> {
    #[serde(borrow, rename = "parentID")]
    parent_id: Option<Cow<'a, str>>,
}

async fn pump(hub: Arc<Hub>, wire: Wire, silence: Duration) {
    loop {
        hub.wanted.notified().await;
        match connect(&wire, silence).await {
            Ok((mut frames, mut body)) => {
                hub.phase.send_modify(|phase| phase.up = true);
                let loss = drain(&hub, &mut frames, &mut body, silence).await;
                hub.phase.send_modify(|phase| phase.up = false);
                log::debug!("event feed ended loss={loss:?}");
                hub.routes.lock().lose(loss);
            }
            Err(error) => hub.phase.send_modify(|phase| {
                phase.failures += 1;
                phase.error = Some(error);
            }),
        }
    }
}

/// Opens the stream and waits for its `server.connected`, before which nothing is delivered.
async fn connect(wire: &Wire, silence: Duration) -> Result<(Frames, Incoming), ClientError> {
    let mut body = wire.events().await?;
    let mut frames = Frames::default();
    while frames.is_empty() {
        if let Err(loss) = fill(&mut frames, &mut body, silence).await {
            return Err(ClientError::Unreachable(format!("the event stream is {loss:?}")));
        }
    }
    Ok((frames, body))
}

async fn drain(hub: &Hub, frames: &mut Frames, body: &mut Incoming, silence: Duration) -> Loss {
    loop {
        loop {
            match frames.next_frame() {
                Ok(Some(event)) => {
                    let event = slim(event);
                    hub.routes.lock().pass(event);
                }
                Ok(None) => break,
                Err(_) => return Loss::Closed,
            }
        }
        if let Err(loss) = fill(frames, body, silence).await {
            return loss;
        }
    }
}

/// Reads once.
async fn fill(frames: &mut Frames, body: &mut Incoming, silence: Duration) -> Result<(), Loss> {
    match timeout(silence, body.frame()).await {
        Err(_) => Err(Loss::Silent),
        Ok(Some(Ok(frame))) => {
            if let Ok(bytes) = frame.into_data() {
                frames.push(&bytes);
            }
            Ok(())
        }
        Ok(Some(Err(_)) | None) => Err(Loss::Closed),
    }
}

/// Bytes of events that may wait for one listener. A delta is some 250 bytes, so this is about
/// thirty thousand of them.
const QUEUE: usize = 8 << 20;
