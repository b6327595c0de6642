//! A gateway as the program puts it together, on a loopback port and threads of its own, in front
//! of the stub.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
};

use open_persona::{
    config::{self, Live},
    gateway::connection::Guarded,
    serve,
};
use pingora_proxy::http_proxy;

use crate::worker::Worker;

/// A running gateway; it ends when dropped.
pub(crate) struct House {
    pub(crate) address: SocketAddr,
    worker: Worker,
    _files: tempfile::TempDir,
}

impl House {
    /// Opens a gateway whose users all have `runner`, which speaks `dialect`. One worker thread
    /// does all of its work but what waits for disks.
    pub(crate) fn open(dialect: &'static str, runner: SocketAddr) -> Self {
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
        let app = Guarded::new(http_proxy(&conf, gateway), live);
        let worker = Worker::start(dialect);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        worker.serve(listener, app);
        Self { address, worker, _files: files }
    }

    /// Nanoseconds its threads have run so far. `None` where Linux does not say.
    pub(crate) fn cpu(&self) -> Option<u64> {
        self.worker.cpu()
    }
}
