//! The whole program: configuration in, a running Pingora server out.

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
    let listen = live.now().listen.clone();
    check_address(&listen)?;
    let gateway = assemble(&live)?;

    let mut server = Server::new_with_opt_and_conf(None, server_conf(&live.now()));
    server.bootstrap();
    let mut proxy = service(gateway.clone(), live.clone(), &server.configuration);
    proxy.add_tcp(&listen.address.to_string());
    server.add_service(proxy);
    let pool = Arc::clone(&gateway.means().pool);
    server.add_service(background_service("reaper", Reaper(pool)));
    server.add_service(background_service("reload", Reloader(reload)));
    log::info!("listening on http://{} (point an OpenAI client at /v1)", listen.address);
    server.run(RunArgs { shutdown_signal: Box::new(Stop { gateway, live }) });
    log::info!("stopped");
    Ok(())
}

/// The gateway `live` describes, with its state opened and what an earlier one left swept away.
pub fn assemble(live: &Live) -> Result<Gateway, ServeError> {
    let config = live.now();
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

/// Pingora panics on an address it cannot bind, so it is tried first.
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

/// Ends the program in order: requests first, then runners, then the server. Pingora's own
/// graceful stop sleeps its whole grace period even when idle.
struct Stop {
    gateway: Gateway,
    live: Live,
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
