//! The gateway in a Pingora server of your own, beside a service of your own.
//!
//! ```sh
//! cargo run --example embed -- conf/gateway.yaml
//! curl http://127.0.0.1:8080/          # your service: what the gateway is doing
//! curl http://127.0.0.1:8000/v1/models # the gateway
//! ```
//!
//! Ctrl-C ends requests, then runners, then the server. `docs/embedding.md` says what to keep when
//! you change this.

use std::{env, error::Error, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use http::{Response, header};
use open_persona::{
    cli, config,
    gateway::Gateway,
    pool::RunnerStatus,
    reload::Reload,
    serve::{self, Stop},
};
use pingora_core::{
    apps::http_app::ServeHttp,
    protocols::http::ServerSession,
    server::{RunArgs, Server},
    services::listening::Service,
};

fn main() -> Result<(), Box<dyn Error>> {
    // Or a logger of your own, with the same filter: Pingora's error lines may quote the bytes of a
    // request's head, and a caller's key may be among them.
    cli::log::start(config::environment("RUST_LOG").as_deref());
    let path: PathBuf = env::args_os().nth(1).ok_or("usage: embed <gateway.yaml>")?.into();

    // The configuration, and the gateway it describes. This is where everything that can be wrong
    // is: the file, the address, the state, the workspaces. Nothing has been started yet, and there
    // must be no Tokio runtime around it.
    let reload = Reload::load(path, config::environment)?;
    let live = reload.live().clone();
    let assembly = serve::assemble(&live)?;

    // Your server. Start from these settings and change what you need: `max_retries` has to stay 1,
    // because a turn is carried out once, and connects must not be offloaded to other threads.
    let mut server = Server::new_with_opt_and_conf(None, serve::server_conf(&live.now()));
    server.bootstrap();

    // The gateway: its guarded listener, the one that runners reach providers through, the reaper of
    // idle runners, and the reloads.
    serve::mount(&mut server, &assembly, reload);

    // Your service. A `Gateway` is a handle: clones share everything.
    let mut status = Service::new("status".to_owned(), Status(assembly.gateway.clone()));
    status.add_tcp("127.0.0.1:8080");
    server.add_service(status);

    // Runners are processes. With `Stop` none is left when `run` returns; with a shutdown signal of
    // your own, wait for `gateway.drain().close_and_wait()`, then for
    // `gateway.means().pool.stop()`, and for `egress.drain().close_and_wait()` before you answer it.
    server.run(RunArgs { shutdown_signal: Box::new(Stop::new(assembly, live)) });
    Ok(())
}

/// Says what the gateway is doing. Workspace ids are digests of user ids: keep this to yourself.
struct Status(Gateway);

#[async_trait]
impl ServeHttp for Status {
    async fn response(&self, _: &mut ServerSession) -> Response<Vec<u8>> {
        let pool = Arc::clone(&self.0.means().pool);
        let mut text = format!("requests in flight: {}\n", self.0.drain().in_flight());
        for runner in pool.runners() {
            let RunnerStatus { workspace, state, leases, .. } = runner;
            text.extend([format!("{workspace} {state:?} leases={leases}\n")]);
        }
        let mut response = Response::new(text.into_bytes());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
        response
    }
}
