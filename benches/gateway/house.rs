//! A gateway as the program puts it together, on a loopback port and threads of its own, in front
//! of the stub.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use open_persona::{
    config::{self, Live},
    gateway::{Gateway, connection::Guarded},
    serve,
};
use pingora_core::{apps::ServerApp, protocols::l4::stream::Stream};
use pingora_proxy::http_proxy;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::watch,
};

/// A running gateway; it ends when dropped.
pub(crate) struct House {
    pub(crate) address: SocketAddr,
    threads: String,
    _runtime: Runtime,
    _files: tempfile::TempDir,
}

impl House {
    /// Opens a gateway whose users all have `runner`, which speaks `dialect`. One worker thread
    /// does all of its work but what waits for disks.
    pub(crate) fn open(dialect: &str, runner: SocketAddr) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        let text = format!(
            "
identity: {{ body_user: true }}
models: {{ main: mock/m1 }}
providers: {{ mock: {{ npm: '@ai-sdk/openai-compatible', base_url: 'http://127.0.0.1:9/v1', models: {{ m1: {{}} }} }} }}
state: {files}/state
workspaces: {{ root: {files}/workspaces }}
personas: {{ directory: {root}/conf/personas }}
runners: {{ launcher: static, dialect: {dialect}, static: {{ url: 'http://{runner}' }} }}
limits: {{ idle: 10m }}
",
            files = files.path().display(),
            root = env!("CARGO_MANIFEST_DIR"),
        );
        let mut config = config::parse(Path::new("bench.yaml"), &text, &|_| None)
            .unwrap_or_else(|error| panic!("{error}; {}", error.hint()));
        config.listen.address = (Ipv4Addr::LOCALHOST, 0).into();
        let live = Live::new(config);
        let gateway = serve::assemble(&live).expect("a gateway").gateway;
        let conf = Arc::new(serve::server_conf(&live.now()));
        let app = Arc::new(Guarded::new(http_proxy(&conf, gateway), live));
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(dialect)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        runtime.spawn(accept(listener, app));
        Self { address, threads: dialect.to_owned(), _runtime: runtime, _files: files }
    }

    /// Nanoseconds its threads have run so far, as the scheduler counts them. `None` where Linux
    /// does not say.
    pub(crate) fn cpu(&self) -> Option<u64> {
        let tasks = fs::read_dir("/proc/self/task").ok()?;
        let mut total = None;
        for task in tasks.flatten() {
            let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            if read("comm").trim() == self.threads {
                let spent: u64 = read("schedstat").split(' ').next()?.parse().ok()?;
                total = Some(total.unwrap_or(0) + spent);
            }
        }
        total
    }
}

/// As Pingora's listener does.
async fn accept(listener: TcpListener, app: Arc<Guarded<Gateway>>) {
    let stop = watch::Sender::new(false);
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut stream = Stream::from(stream);
        stream.set_nodelay().expect("TCP");
        let (app, shutdown) = (Arc::clone(&app), stop.subscribe());
        #[expect(clippy::disallowed_methods, reason = "ends with the gateway's runtime")]
        tokio::spawn(async move { app.process_new(Box::new(stream), &shutdown).await });
    }
}
