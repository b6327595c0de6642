//! The whole program: configuration in, a running Pingora server out. Its pieces also mount the
//! gateway in a Pingora server of somebody else's.

use std::{io, net::TcpListener, path::Path, sync::Arc};

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
    config::{self, Config, Listen, Live},
    gateway::{Gateway, connection::Guarded},
    launcher,
    pool::Pool,
    reload::Reload,
    state::{State, StateError},
    turn::Means,
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
    /// The address is taken or not ours.
    #[error(
        "cannot listen on {address}: {source}; stop what listens there or change `listen.address`"
    )]
    Listen {
        /// The configured address.
        address: std::net::SocketAddr,
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
    let gateway = assemble(&live)?;
    let mut server = Server::new_with_opt_and_conf(None, server_conf(&live.now()));
    server.bootstrap();
    mount(&mut server, &gateway, reload);
    log::info!("listening on http://{} (point an OpenAI client at /v1)", live.now().listen.address);
    server.run(RunArgs { shutdown_signal: Box::new(Stop::new(gateway, live)) });
    log::info!("stopped");
    Ok(())
}

/// The gateway `live` describes, with its state opened and what an earlier one left swept away.
/// To be called outside of any Tokio runtime.
///
/// # Errors
///
/// The configured address, the state or the workspaces directory cannot be used. Then nothing was
/// swept: whoever holds the address may be another gateway with this state.
pub fn assemble(live: &Live) -> Result<Gateway, ServeError> {
    let config = live.now();
    check_address(&config.listen)?;
    let state = State::open(&config.state)?;
    let path = config::environment("PATH").unwrap_or_default();
    let launcher = launcher::of(&config.runners.launcher, path.into(), state.clone())?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(launcher.sweep());
    let means = Means {
        workspaces: Arc::new(Workspaces::open(&config.workspaces.root, state.clone())?),
        pool: Pool::new(launcher, live.clone()),
        chats: Arc::new(Chats::new(state)),
    };
    Ok(Gateway::new(live.clone(), Arc::new(means)))
}

/// Adds what makes up a gateway to `server`: the listener of `reload`'s configuration, the reaper
/// of idle runners, and the reloads themselves. `server` was made with [`server_conf`] or settings
/// that agree with it, and bootstrapped. It is to be run with a [`Stop`].
pub fn mount(server: &mut Server, gateway: &Gateway, reload: Arc<Reload>) {
    let live = reload.live().clone();
    let address = live.now().listen.address;
    let mut proxy = service(gateway.clone(), live, &server.configuration);
    proxy.add_tcp(&address.to_string());
    server.add_service(proxy);
    let pool = Arc::clone(&gateway.means().pool);
    server.add_service(background_service("reaper", Reaper(pool)));
    server.add_service(background_service("reload", Reloader(reload)));
}

/// A Pingora service that answers with `gateway`, its connections guarded. Add an address to it.
pub fn service(gateway: Gateway, live: Live, conf: &Arc<ServerConf>) -> Service<Guarded> {
    let proxy = http_proxy(conf, gateway);
    Service::new("gateway".to_owned(), Guarded::new(proxy, live))
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
fn check_address(listen: &Listen) -> Result<(), ServeError> {
    let address = listen.address;
    TcpListener::bind(address).map(drop).map_err(|source| ServeError::Listen { address, source })
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
/// requests end first, for as long as `listen.drain` allows; then runners; then the server. A
/// second signal ends the wait.
///
/// Pingora's own graceful stop knows nothing of runners, and sleeps its whole grace period even
/// when idle.
#[derive(Debug)]
pub struct Stop {
    gateway: Gateway,
    live: Live,
}

impl Stop {
    /// Ends the server that `gateway`, with the configuration `live`, is mounted in.
    pub fn new(gateway: Gateway, live: Live) -> Self {
        Self { gateway, live }
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
        let (drain, patience) = (self.gateway.drain(), self.live.now().listen.drain);
        log::info!("stopping in_flight={} (again: at once)", drain.in_flight());
        tokio::select! {
            _ = timeout(patience, drain.close_and_wait()) => {}
            () = either(&mut terminate, &mut interrupt) => {}
        }
        self.gateway.means().pool.stop().await;
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
