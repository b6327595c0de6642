//! The whole program: configuration in, a running Pingora server out. Its pieces also mount the
//! gateway in a Pingora server of somebody else's.

mod stop;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
};

use async_trait::async_trait;
use pingora_core::{
    server::{RunArgs, Server, ShutdownWatch, configuration::ServerConf},
    services::{
        background::{BackgroundService, background_service},
        listening::Service,
    },
};
use pingora_proxy::http_proxy;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::{
    task::spawn_blocking,
    time::{Duration, sleep},
};

pub use self::stop::Stop;
use crate::{
    chats::Chats,
    config::{self, Config, Live},
    egress::{Egress, grant::Grants},
    gateway::{Gateway, connection::Guarded},
    keys::{Keys, KeysError},
    launcher,
    pool::Pool,
    reload::Reload,
    state::{State, StateError},
    turn::Means,
    usage::Usage,
    workspace::{WorkspaceError, Workspaces},
};

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The state cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The workspaces directory cannot be used.
    #[error(transparent)]
    Workspaces(#[from] WorkspaceError),
    /// Users' own keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}; stop what listens there or change `{setting}`")]
    Listen {
        /// The configured address.
        address: std::net::SocketAddr,
        /// What configures it.
        setting: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused a thread or a signal handler.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Runs the gateway configured in the file at `path` until SIGTERM or SIGINT. When it returns, no
/// runner it started is left.
pub fn run(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let reload = Reload::load(path.to_owned(), config::environment)?;
    let live = reload.live().clone();
    keep_memory_private();
    let assembly = assemble(&live)?;
    let mut server = Server::new_with_opt_and_conf(None, server_conf(&live.now()));
    server.bootstrap();
    mount(&mut server, &assembly, reload);
    log::info!("listening on http://{} (point an OpenAI client at /v1)", live.now().listen.address);
    server.run(RunArgs { shutdown_signal: Box::new(Stop::new(assembly, live)) });
    log::info!("stopped");
    Ok(())
}

/// The two proxies that make up a gateway.
#[derive(Debug, Clone)]
pub struct Assembly {
    /// Callers' way in.
    pub gateway: Gateway,
    /// Runners' way out.
    pub egress: Egress,
}

/// The gateway `live` describes, with its state opened and what an earlier one left swept away.
/// To be called outside of any Tokio runtime.
///
/// # Errors
///
/// A configured address, the state or the workspaces directory cannot be used. Then nothing was
/// swept: whoever holds the address may be another gateway with this state.
pub fn assemble(live: &Live) -> Result<Assembly, ServeError> {
    let config = live.now();
    check_address(config.listen.address, "listen.address")?;
    if config.runners.need_egress() {
        check_address(config.egress.address, "egress.address")?;
    }
    let state = State::open(&config.state)?;
    let path = config::environment("PATH").unwrap_or_default();
    let launcher = launcher::of(&config.runners.launcher, path.into(), state.clone())?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(launcher.sweep());
    let (grants, usage) = (Arc::<Grants>::default(), Arc::new(Usage::new(state.clone())));
    let keys = Arc::new(Keys::open(state.clone(), &config.egress.key_file)?);
    let egress =
        Egress::new(live.clone(), Arc::clone(&grants), Arc::clone(&keys), Arc::clone(&usage));
    let means = Means {
        workspaces: Arc::new(Workspaces::open(&config.workspaces.root, state.clone())?),
        pool: Pool::new(launcher, live.clone(), grants),
        chats: Arc::new(Chats::new(state)),
        keys,
        usage,
    };
    Ok(Assembly { gateway: Gateway::new(live.clone(), Arc::new(means)), egress })
}

/// Adds what makes up a gateway to `server`: the listeners of `reload`'s configuration, the reaper
/// of idle runners, and the reloads themselves. `server` was made with [`server_conf`] or settings
/// that agree with it, and bootstrapped. It is to be run with a [`Stop`].
pub fn mount(server: &mut Server, assembly: &Assembly, reload: Arc<Reload>) {
    let Assembly { gateway, egress } = assembly;
    let live = reload.live().clone();
    let config = live.now();
    let mut proxy = service(gateway.clone(), live.clone(), &server.configuration);
    proxy.add_tcp(&config.listen.address.to_string());
    server.add_service(proxy);
    if config.runners.need_egress() {
        let mut proxy = egress_service(egress.clone(), live.clone(), &server.configuration);
        proxy.add_tcp(&config.egress.address.to_string());
        server.add_service(proxy);
    }
    let pool = Arc::clone(&gateway.means().pool);
    server.add_service(background_service("reaper", Reaper(pool)));
    let forgetter = Forgetter { keys: Arc::clone(&gateway.means().keys), live: live.clone() };
    server.add_service(background_service("keys", forgetter));
    server.add_service(background_service("reload", Reloader(reload)));
}

/// A Pingora service that answers with `gateway`, its connections guarded. Add an address to it.
pub fn service(gateway: Gateway, live: Live, conf: &Arc<ServerConf>) -> Service<Guarded<Gateway>> {
    let proxy = http_proxy(conf, gateway);
    Service::new("gateway".to_owned(), Guarded::new(proxy, live))
}

/// A Pingora service that is `egress`, its connections guarded. Add `egress.address` to it.
pub fn egress_service(
    egress: Egress,
    live: Live,
    conf: &Arc<ServerConf>,
) -> Service<Guarded<Egress>> {
    let proxy = http_proxy(conf, egress);
    Service::new("egress".to_owned(), Guarded::new(proxy, live))
}

/// Pingora's own settings, as the gateway needs them.
pub fn server_conf(config: &Config) -> ServerConf {
    ServerConf {
        threads: config.listen.threads,
        // A turn is carried out once.
        max_retries: 1,
        ..ServerConf::default()
    }
}

/// Keys are in this process's memory and environment, and runners may be processes of the same
/// user: other processes may read neither, and neither gets into a core file.
fn keep_memory_private() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        log::warn!("other processes of this user can read the gateway's memory cause={error}");
    }
}

/// Pingora panics on an address it cannot bind, so it is tried before.
fn check_address(address: SocketAddr, setting: &'static str) -> Result<(), ServeError> {
    let bound = TcpListener::bind(address).map(drop);
    bound.map_err(|source| ServeError::Listen { address, setting, source })
}

struct Reaper(Arc<Pool>);

#[async_trait]
impl BackgroundService for Reaper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            () = Arc::clone(&self.0).run_reaper() => {}
            _ = shutdown.changed() => {}
        }
    }
}

/// Forgets users' own keys that nobody has sent for long.
struct Forgetter {
    keys: Arc<Keys>,
    live: Live,
}

#[async_trait]
impl BackgroundService for Forgetter {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        loop {
            let (keys, age) = (Arc::clone(&self.keys), self.live.now().egress.keep_keys);
            match spawn_blocking(move || keys.expire(age)).await {
                Ok(Ok(0)) => {}
                Ok(Ok(gone)) => log::info!("keys forgotten={gone} unused_for={age:?}"),
                Ok(Err(error)) => log::error!("keys not forgotten cause={error}"),
                Err(error) => log::error!("keys not forgotten cause={error}"),
            }
            tokio::select! {
                () = sleep(FORGET_EVERY) => {}
                _ = shutdown.changed() => return,
            }
        }
    }
}

struct Reloader(Arc<Reload>);

#[async_trait]
impl BackgroundService for Reloader {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut watch = match self.0.watch() {
            Ok(watch) => watch,
            Err(error) => {
                log::error!("changes of the configuration need a restart cause={error}");
                return;
            }
        };
        tokio::select! {
            () = watch.run() => {}
            _ = shutdown.changed() => {}
        }
    }
}

/// Keys are kept for days.
const FORGET_EVERY: Duration = Duration::from_hours(1);
