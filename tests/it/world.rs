//! A gateway in a world of its own: no port of its own, scripted runners, exact bytes in and out.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use open_persona::{
    chats::Chats,
    config::{self, Address, Config, Dialect, Live},
    egress::grant::Start,
    gateway::{Gateway, connection::Guarded},
    keys::Keys,
    launcher::{LaunchError, Launcher, Spec},
    opencode::Client,
    pool::Pool,
    runner::{Backend, Runner},
    secret::Secret,
    serve,
    state::State,
    turn::Means,
    usage::Usage,
    workspace::Workspaces,
};
use parking_lot::Mutex;
use pingora_core::apps::ServerApp;
use pingora_proxy::http_proxy;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::opencode::Opencode;

/// Development identities, for tests that do not say who may call.
pub(crate) const DEVELOPMENT: &str = "identity: { body_user: true, anonymous: true }";

/// A front end whose plain headers are believed; its key is `front-end`.
pub(crate) const FRONT_END: &str = "
identity:
  front_ends:
    - { name: webui, user: headers,
        key: 'sha256:46e8bf80dc1bb1ebb813333e660908956fca9080f88de7cde94cbacc156fe2ca' }
";

/// The headers of that front end's request for alice, and `more`.
pub(crate) fn front_end<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut headers = vec![("Authorization", "Bearer front-end"), ("X-OpenWebUI-User-Id", "alice")];
    headers.extend_from_slice(more);
    headers
}

/// What every test's configuration has.
const BASE: &str = "
models: { main: mock/m1 }
providers: { mock: { npm: '@ai-sdk/openai-compatible', base_url: 'http://127.0.0.1:9/v1', models: { m1: {} } } }
";

/// A gateway, its runners and its files.
pub(crate) struct World {
    pub(crate) opencode: Opencode,
    pub(crate) launcher: Arc<Scripted>,
    pub(crate) gateway: Gateway,
    pub(crate) files: tempfile::TempDir,
    app: Arc<Guarded<Gateway>>,
    stop: watch::Sender<bool>,
}

impl World {
    /// A world with development identities.
    pub(crate) async fn new() -> Self {
        Self::with(DEVELOPMENT, |_| {}).await
    }

    /// A world whose configuration has `yaml` appended and is then changed by `change`.
    pub(crate) async fn with(yaml: &str, change: impl FnOnce(&mut Config)) -> Self {
        let files = tempfile::tempdir().unwrap();
        let personas = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conf/personas");
        let text = format!(
            "{BASE}\nstate: {0}/state\nworkspaces: {{ root: {0}/workspaces }}\npersonas: {{ directory: {1} }}\n{yaml}",
            files.path().display(),
            personas.display(),
        );
        let path = files.path().join("gateway.yaml");
        std::fs::write(&path, text).unwrap();
        let mut config =
            config::load(&path, &environment).unwrap_or_else(|error| panic!("{error}"));
        change(&mut config);
        let opencode = Opencode::start().await;
        let launcher = Arc::new(Scripted::of(&opencode, config.runners.dialect));
        let live = Live::new(config);
        let config = live.now();
        let state = State::in_memory().unwrap();
        let means = Means {
            workspaces: Arc::new(Workspaces::open(&config.workspaces.root, state.clone()).unwrap()),
            pool: Pool::new(
                Arc::clone(&launcher) as Arc<dyn Launcher>,
                live.clone(),
                Arc::default(),
            ),
            chats: Arc::new(Chats::new(state.clone())),
            keys: Arc::new(Keys::in_memory().unwrap()),
            usage: Arc::new(Usage::new(state)),
        };
        let gateway = Gateway::new(live.clone(), Arc::new(means));
        let conf = Arc::new(serve::server_conf(&config));
        let app = Arc::new(Guarded::new(http_proxy(&conf, gateway.clone()), live));
        Self { opencode, launcher, gateway, files, app, stop: watch::Sender::new(false) }
    }

    /// Connects to the gateway.
    pub(crate) fn connect(&self) -> Connection {
        self.connect_through(1 << 20)
    }

    /// Connects to the gateway and sends a chat completion.
    pub(crate) async fn post(&self, body: &serde_json::Value) -> Connection {
        let mut connection = self.connect();
        connection.post(&[], body.to_string().as_bytes()).await;
        connection
    }

    /// Connects to the gateway through a pipe that holds `room` bytes in each direction.
    pub(crate) fn connect_through(&self, room: usize) -> Connection {
        let (ours, theirs) = tokio::io::duplex(room);
        let (app, stop) = (Arc::clone(&self.app), self.stop.subscribe());
        #[expect(clippy::disallowed_methods, reason = "aborted when the connection is dropped")]
        let task = tokio::spawn(async move {
            app.process_new(Box::new(theirs), &stop).await;
        });
        Connection { pipe: ours, read: Vec::new(), _task: AbortOnDropHandle::new(task) }
    }

    /// Sends one chat completion and reads the whole answer.
    pub(crate) async fn chat(&self, body: &serde_json::Value) -> Answer {
        self.chat_with(&[], body).await
    }

    /// Sends one chat completion with further headers and reads the whole answer.
    pub(crate) async fn chat_with(
        &self,
        headers: &[(&str, &str)],
        body: &serde_json::Value,
    ) -> Answer {
        let mut connection = self.connect();
        connection.post(headers, body.to_string().as_bytes()).await;
        connection.answer().await
    }

    /// Sends exactly `bytes` on a connection of their own, and gives everything that comes back
    /// until the gateway closes it.
    pub(crate) async fn raw_to_end(&self, bytes: &[u8]) -> String {
        let mut connection = self.connect();
        // A gateway that has closed already need not read the rest.
        drop(connection.pipe.write_all(bytes).await);
        connection.rest().await
    }

    /// Sends exactly `bytes` on a connection of their own and reads the whole answer.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Answer {
        let mut connection = self.connect();
        connection.pipe.write_all(bytes).await.unwrap();
        connection.answer().await
    }
}

/// A client's connection.
pub(crate) struct Connection {
    pub(crate) pipe: DuplexStream,
    read: Vec<u8>,
    _task: AbortOnDropHandle<()>,
}

impl Connection {
    /// Sends a chat completion.
    pub(crate) async fn post(&mut self, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
            .to_owned();
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.extend(["Content-Length: ", &body.len().to_string(), "\r\n\r\n"]);
        self.pipe.write_all(head.as_bytes()).await.unwrap();
        self.pipe.write_all(body).await.unwrap();
    }

    /// Sends exactly `bytes`.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.pipe.write_all(bytes).await.unwrap();
    }

    /// Reads until `text` has come.
    pub(crate) async fn read_until(&mut self, text: &str) -> String {
        loop {
            let so_far = String::from_utf8_lossy(&self.read).into_owned();
            if so_far.contains(text) {
                return so_far;
            }
            assert!(self.read_some().await, "the connection ended without {text:?}: {so_far}");
        }
    }

    /// Reads until the gateway closes the connection.
    pub(crate) async fn rest(&mut self) -> String {
        while self.read_some().await {}
        String::from_utf8_lossy(&self.read).into_owned()
    }

    async fn read_some(&mut self) -> bool {
        let read = tokio::time::timeout(GUARD, self.pipe.read_buf(&mut self.read)).await;
        read.unwrap_or_else(|_| panic!("nothing came: {}", String::from_utf8_lossy(&self.read)))
            .is_ok_and(|count| count > 0)
    }

    /// Reads one whole answer.
    pub(crate) async fn answer(&mut self) -> Answer {
        loop {
            if let Some((answer, used)) = Answer::parse(&self.read) {
                self.read.drain(..used);
                return answer;
            }
            let more = self.read_some().await;
            assert!(more, "the connection ended early: {}", String::from_utf8_lossy(&self.read));
        }
    }
}

/// An answer, its body unchunked.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The `data:` payloads of the body, as text.
    pub(crate) fn events(&self) -> Vec<&str> {
        self.body.split("\n\n").filter_map(|frame| frame.strip_prefix("data: ")).collect()
    }

    /// The answer's text, put together from its deltas.
    pub(crate) fn text(&self) -> String {
        self.events()
            .iter()
            .filter_map(|event| serde_json::from_str::<serde_json::Value>(event).ok())
            .filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
            .collect()
    }

    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let mut headers = BTreeMap::new();
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            let name = name.to_ascii_lowercase();
            assert!(ALLOWED.contains(&name.as_str()), "unexpected response header {name}: {value}");
            assert!(headers.insert(name, value.to_owned()).is_none(), "twice in {head}");
        }
        let (body, used) = if headers.contains_key("transfer-encoding") {
            unchunk(&bytes[end..])?
        } else {
            let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
            (bytes.get(end..end + length)?.to_vec(), length)
        };
        let body = String::from_utf8(body).expect("the body is text");
        Some((Self { status, headers, body }, end + used))
    }
}

fn unchunk(mut bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (whole, mut body) = (bytes.len(), Vec::new());
    loop {
        let line = bytes.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).ok()?, 16).ok()?;
        bytes = &bytes[line + 2..];
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size + 2..)?;
        if size == 0 {
            return Some((body, whole - bytes.len()));
        }
    }
}

/// Every header an answer may carry.
const ALLOWED: &[&str] = &[
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "date",
    "retry-after",
    "transfer-encoding",
    "x-accel-buffering",
    "x-request-id",
    "allow",
];
/// A failure, not a measure: only a test that hangs meets it.
const GUARD: Duration = Duration::from_secs(60);

/// A launcher whose runners are all the same server: the scripted opencode, if not told otherwise.
#[derive(Debug)]
pub(crate) struct Scripted {
    address: Mutex<Address>,
    credential: Mutex<Option<Secret>>,
    dialect: Dialect,
    pub(crate) launches: AtomicUsize,
    pub(crate) runners: Mutex<Vec<Arc<Runner>>>,
    pub(crate) next_failure: Mutex<Option<LaunchError>>,
}

impl Scripted {
    fn of(opencode: &Opencode, dialect: Dialect) -> Self {
        Self {
            address: Mutex::new(Address::Tcp(opencode.address.to_string())),
            credential: Mutex::default(),
            dialect,
            launches: AtomicUsize::new(0),
            runners: Mutex::default(),
            next_failure: Mutex::default(),
        }
    }

    /// Further runners are at `address` and ask for `credential`.
    pub(crate) fn aim(&self, address: Address, credential: Option<&str>) {
        *self.address.lock() = address;
        *self.credential.lock() = credential.map(Secret::new);
    }
}

#[async_trait]
impl Launcher for Scripted {
    async fn launch(&self, spec: &Spec, start: &Start) -> Result<Arc<Runner>, LaunchError> {
        self.launches.fetch_add(1, Ordering::SeqCst);
        if let Some(failure) = self.next_failure.lock().take() {
            return Err(failure);
        }
        let (address, credential) = (self.address.lock().clone(), self.credential.lock().clone());
        let backend = match self.dialect {
            Dialect::Opencode => Backend::Opencode(Arc::new(Client::new(
                address.clone(),
                credential.clone(),
                &spec.directory,
            ))),
            Dialect::OpenAi => Backend::OpenAi,
        };
        let runner = Arc::new(Runner {
            workspace: spec.workspace.clone(),
            epoch: start.epoch,
            address,
            credential,
            directory: spec.directory.clone(),
            backend,
            grant: Some(Arc::clone(&start.grant)),
            ended: CancellationToken::new(),
        });
        self.runners.lock().push(Arc::clone(&runner));
        Ok(runner)
    }

    async fn stop(&self, runner: &Runner) {
        runner.ended.cancel();
    }

    async fn sweep(&self) {}

    async fn close(&self) {}

    async fn check(&self) -> Result<(), LaunchError> {
        Ok(())
    }
}

/// The environment that configurations see.
fn environment(name: &str) -> Option<String> {
    (name == "JWT_SECRET").then(|| "a secret of thirty-two bytes or more".to_owned())
}
