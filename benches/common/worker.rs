//! A thread of its own for a proxy, so that the time it runs can be told.

use std::{fs, net::TcpListener, sync::Arc};

use pingora_core::{apps::ServerApp, protocols::l4::listener::Listener};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    time::Duration,
};

/// A runtime with one worker thread, and others for what waits for disks. It ends when dropped.
pub(crate) struct Worker {
    name: &'static str,
    runtime: Runtime,
}

impl Worker {
    /// Starts one, with a name that no other has, of at most 15 characters.
    pub(crate) fn start(name: &'static str) -> Self {
        let mut builder = Builder::new_multi_thread();
        // A thread that ended would take the time it ran with it.
        let builder = builder.worker_threads(1).thread_keep_alive(Duration::from_hours(1));
        let runtime = builder.thread_name(name).enable_all().build().expect("a runtime");
        Self { name, runtime }
    }

    /// Has it serve `app`.
    pub(crate) fn serve<A: ServerApp + Send + Sync + 'static>(
        &self,
        listener: TcpListener,
        app: A,
    ) {
        self.runtime.spawn(accept(listener, Arc::new(app)));
    }

    /// Nanoseconds its threads have run so far, as the scheduler counts them. `None` where Linux
    /// does not say.
    pub(crate) fn cpu(&self) -> Option<u64> {
        let tasks = fs::read_dir("/proc/self/task").ok()?;
        let mut total = None;
        for task in tasks.flatten() {
            let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            if read("comm").trim() == self.name {
                let spent: u64 = read("schedstat").split(' ').next()?.parse().ok()?;
                total = Some(total.unwrap_or(0) + spent);
            }
        }
        total
    }
}

/// As Pingora's listener does.
async fn accept<A: ServerApp + Send + Sync + 'static>(listener: TcpListener, app: Arc<A>) {
    listener.set_nonblocking(true).expect("TCP");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
    let listener = Listener::from(listener);
    let stop = watch::Sender::new(false);
    loop {
        let mut stream = listener.accept().await.expect("a connection");
        stream.set_nodelay().expect("TCP");
        let (app, shutdown) = (Arc::clone(&app), stop.subscribe());
        #[expect(clippy::disallowed_methods, reason = "ends with the runtime")]
        tokio::spawn(async move { app.process_new(Box::new(stream), &shutdown).await });
    }
}
