//! A turn as an ordinary Pingora upstream: an HTTP/1 service on one end of a pipe, Pingora on the
//! other.
//!
//! `connect` returns at once; whatever the turn waits for, it waits for where Pingora watches the
//! client. Dropping Pingora's end ends the turn.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use async_trait::async_trait;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use pingora_core::{
    Error, ErrorType,
    connectors::l4::Connect,
    protocols::l4::{
        socket::SocketAddr,
        stream::Stream,
        virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream},
    },
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio_util::task::AbortOnDropHandle;

use crate::turn::Turn;

/// Connects to one turn, once.
#[derive(Debug)]
pub(super) struct TurnConnector(Mutex<Option<Turn>>);

impl TurnConnector {
    pub(super) fn new(turn: Turn) -> Self {
        Self(Mutex::new(Some(turn)))
    }
}

#[async_trait]
impl Connect for TurnConnector {
    async fn connect(&self, _: &SocketAddr) -> pingora_core::Result<Stream> {
        let turn = self.0.lock().take();
        let turn = turn.ok_or_else(|| {
            Error::explain(ErrorType::ConnectError, "a turn is carried out once and not retried")
        })?;
        let (ours, theirs) = tokio::io::duplex(PIPE);
        #[expect(
            clippy::disallowed_methods,
            reason = "ends when Pingora drops its end of the pipe"
        )]
        let task = AbortOnDropHandle::new(tokio::spawn(serve(turn, ours)));
        let socket = TurnSocket { pipe: theirs, _task: task };
        Ok(Stream::from(VirtualSocketStream::new(Box::new(socket))))
    }
}

async fn serve(turn: Turn, pipe: DuplexStream) {
    let turn = Mutex::new(Some(turn));
    let service = service_fn(move |request| {
        let turn = turn.lock().take();
        async move {
            let turn = turn.expect("without keep-alive a connection carries one request");
            Ok::<_, Infallible>(turn.answer(request).await)
        }
    });
    let served = http1::Builder::new()
        // One connection, one turn: a virtual stream must never reach Pingora's pool.
        .keep_alive(false)
        .max_buf_size(PIPE)
        .serve_connection(TokioIo::new(pipe), service)
        .await;
    if let Err(error) = served {
        // Pingora went away, or a body broke off: both are told where they happen.
        log::debug!("turn connection ended cause={error:?}");
    }
}

/// Pingora's end of the pipe. Dropping it aborts the turn's task.
#[derive(Debug)]
struct TurnSocket {
    pipe: DuplexStream,
    _task: AbortOnDropHandle<()>,
}

impl VirtualSocket for TurnSocket {
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for TurnSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

impl AsyncWrite for TurnSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// Bytes in flight in each direction.
const PIPE: usize = 64 << 10;
