//! The whole program: configuration in, a running Pingora server out. Its pieces also mount the
//! gateway in a Pingora server of somebody else's.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
};

use async_trait::async_trait;
use pingora_core::{
    server::{
        RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch,
        configuration::ServerConf,
    },
    services::{
        background::{BackgroundService, background_service},
        listening::Service,
    },
};
use pingora_proxy::http_proxy;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Duration, timeout},
};

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
    keys.expire(config.egress.keep_keys)?;
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
        let mut proxy = egress_service(egress.clone(), live, &server.configuration);
        proxy.add_tcp(&config.egress.address.to_string());
        server.add_service(proxy);
    }
    let pool = Arc::clone(&gateway.means().pool);
    server.add_service(background_service("reaper", Reaper(pool)));
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

/// Ends a server with a gateway in it, as [`RunArgs::shutdown_signal`]: on SIGTERM or SIGINT
/// requests end first, for as long as `listen.drain` allows; then runners; then, within the same
/// time, the answers that are only read on to be counted; then the server. A
/// second signal ends the wait.
///
/// Pingora's own graceful stop knows nothing of runners, and sleeps its whole grace period even
/// when idle.
#[derive(Debug)]
pub struct Stop {
    assembly: Assembly,
    live: Live,
}

impl Stop {
    /// Ends the server that `assembly`, with the configuration `live`, is mounted in.
    pub fn new(assembly: Assembly, live: Live) -> Self {
        Self { assembly, live }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Stop {
    async fn recv(&self) -> ShutdownSignal {
        let asked = signals();
        let Ok((mut terminate, mut interrupt)) = asked else {
            log::error!("signals cannot be received; stop the gateway with SIGKILL");
            std::future::pending::<()>().await;
            return ShutdownSignal::FastShutdown;
        };
        either(&mut terminate, &mut interrupt).await;
        let Assembly { gateway, egress } = &self.assembly;
        let (drain, patience) = (gateway.drain(), self.live.now().listen.drain);
        log::info!("stopping in_flight={} (again: at once)", drain.in_flight());
        tokio::select! {
            _ = timeout(patience, drain.close_and_wait()) => {}
            () = either(&mut terminate, &mut interrupt) => {}
        }
        gateway.means().pool.stop().await;
        tokio::select! {
            _ = timeout(patience, egress.drain().close_and_wait()) => {}
            () = either(&mut terminate, &mut interrupt) => {}
        }
        // Turns whose runner is gone tell their callers so.
        drop(timeout(LAST_WORDS, drain.close_and_wait()).await);
        ShutdownSignal::FastShutdown
    }
}

fn signals() -> io::Result<(Signal, Signal)> {
    Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// For error events on streams that a stop cuts.
const LAST_WORDS: Duration = Duration::from_secs(1);
