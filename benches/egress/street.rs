//! The provider and the proxies before it: a bare one, and the egress as the program mounts it.

use std::{
    fs::File,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
};

use async_trait::async_trait;
use env_logger::Target;
use log::LevelFilter;
use open_persona::{
    cli,
    config::{self, Config, Live},
    egress::{
        Egress,
        grant::{Grants, Start},
        tab::Tab,
    },
    gateway::identity::{Identity, Source},
    keys::Keys,
    scrub, serve,
    state::State,
    usage::Usage,
    workspace::WorkspaceId,
};
use pingora_core::{Result, upstreams::peer::HttpPeer};
use pingora_proxy::{ProxyHttp, Session, http_proxy};
use tempfile::TempDir;

use crate::{
    provider::Provider,
    runner::{SESSION, Way},
    worker::Worker,
};

/// All that is measured.
pub(crate) struct Street {
    pub(crate) provider: Provider,
    bare: (SocketAddr, Worker),
    egress: (SocketAddr, Worker),
    /// With no budget, and with one.
    runners: [(Start, Arc<Tab>); 2],
    _files: TempDir,
}

impl Street {
    pub(crate) fn open() -> Self {
        let provider = Provider::start();
        let files = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let config = Live::new(config(files.path(), address, provider.address));
        let grants = Arc::<Grants>::default();
        let egress = egress(&config, Arc::clone(&grants));
        let conf = Arc::new(serve::server_conf(&config.now()));
        let worker = Worker::start("egress");
        // As `serve::egress_service` does.
        let guarded = open_persona::gateway::connection::Guarded::new;
        worker.serve(listener, guarded(http_proxy(&conf, egress), config));
        let bare = Worker::start("pingora");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let bare_address = listener.local_addr().expect("an address");
        bare.serve(listener, http_proxy(&conf, Bare(provider.address)));
        let runners = ["free", "limited"].map(|user| runner(&grants, user));
        let (bare, egress) = ((bare_address, bare), (address, worker));
        Self { provider, bare, egress, runners, _files: files }
    }

    /// The ways to the provider.
    pub(crate) fn ways(&self) -> [Way<'_>; 4] {
        let provider = self.provider.address;
        let (bare, bare_worker) = (self.bare.0, Some(&self.bare.1));
        let (egress, worker) = (self.egress.0, Some(&self.egress.1));
        let [free, limited] = self.runners.each_ref().map(|(start, _)| start.token.expose());
        let way =
            |name, address, prefix, token, worker| Way { name, address, prefix, token, worker };
        [
            way("direct", provider, "", KEY, None),
            way("pingora", bare, "", KEY, bare_worker),
            way("egress", egress, "/mock", free, worker),
            way("budget", egress, "/mock", limited, worker),
        ]
    }
}

/// The least that Pingora does for a proxy.
struct Bare(SocketAddr);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    #[expect(clippy::disallowed_methods, reason = "it is an address")]
    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

fn config(files: &Path, address: SocketAddr, provider: SocketAddr) -> Config {
    let text = format!(
        "
identity: {{ body_user: true }}
models: {{ main: mock/m1 }}
providers:
  mock:
    npm: '@ai-sdk/openai-compatible'
    base_url: 'http://{provider}/v1'
    key: env:KEY
    models: {{ m1: {{ prices: {{ input: 1.25, cached: 0.125, output: 10 }} }} }}
roles:
  default: {{ models: ['openai/*', 'anthropic/*', 'mock/*'] }}
  limited:
    models: ['openai/*', 'anthropic/*', 'mock/*']
    budget: {{ day: {{ tokens: 900000M, money: 1000000 }}, month: {{ money: 10000000 }} }}
state: {files}/state
egress: {{ key_file: {files}/key }}
workspaces: {{ root: {files}/workspaces }}
personas: {{ directory: {root}/conf/personas }}
",
        files = files.display(),
        root = env!("CARGO_MANIFEST_DIR"),
    );
    let mut config = config::parse(Path::new("bench.yaml"), &text, &|_| Some(KEY.to_owned()))
        .unwrap_or_else(|error| panic!("{error}; {}", error.hint()));
    config.egress.url = format!("http://{address}");
    config
}

/// An egress with its state on a disk.
fn egress(live: &Live, grants: Arc<Grants>) -> Egress {
    let config = live.now();
    let state = State::open(&config.state).expect("a state");
    let keys = Keys::open(state.clone(), &config.egress.key_file).expect("a key file");
    Egress::new(live.clone(), grants, Arc::new(keys), Arc::new(Usage::new(state)))
}

/// A runner that works on a turn of `user`, whose role has the same name.
fn runner(grants: &Arc<Grants>, user: &str) -> (Start, Arc<Tab>) {
    let start = grants.start(&WorkspaceId::of(user), 1);
    start.grant.bind(IpAddr::V4(Ipv4Addr::LOCALHOST));
    start.grant.work_for(&Identity {
        user: user.to_owned(),
        source: Source::Jwt,
        name: None,
        email: None,
        role: Some(user.to_owned()),
    });
    let tab = start.grant.open_tab(SESSION);
    (start, tab)
}

/// The log is written as always and read by nobody, unless `RUST_LOG` says what is to be seen.
pub(crate) fn start_log() {
    if let Some(filter) = config::environment("RUST_LOG") {
        return cli::log::start(Some(&filter));
    }
    let nowhere = Box::new(File::create("/dev/null").expect("it is there"));
    let mut log = env_logger::Builder::new();
    log.filter_level(LevelFilter::Info).target(Target::Pipe(nowhere));
    log.format(|out, record| {
        let time = out.timestamp_millis();
        writeln!(out, "{time} {}", scrub::known(&record.args().to_string()))
    });
    log.init();
}

/// As long as the longest that are in use.
const KEY: &str = "sk-proj-3f0c6d0e5b6a4d7c8f9e0a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6e7f8a9b0c1d2e3f4a5b6c7d\
    8e9f0a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6e7f8a9b0c1d2e3f4a5b6c7d8e9f0a1b2c3d4e5f6a7b";
