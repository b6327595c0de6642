//! What must be watched per connection, outside of Pingora: a whole head within its deadline, and on
//! request that a client's departure goes unnoticed.
//!
//! Pingora's own read timeout is per read (`protocols/http/v1/server.rs`, `read_request_buf`), so
//! a client that sends a byte every few seconds could hold a connection for ever. And a proxied
//! request ends when its client leaves (`proxy_h1.rs`), although somebody may still want to read the
//! upstream's answer to its end.

mod stay;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::{
    apps::{HttpServerApp, ReusedHttpStream, ServerApp},
    protocols::{
        GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
        Stream, TimingDigest, UniqueID, UniqueIDType, http::ServerSession,
        raw_connect::ProxyDigest,
    },
    server::ShutdownWatch,
};
use pingora_proxy::{HttpProxy, ProxyHttp};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

pub(crate) use self::stay::Stay;
use crate::config::Live;

/// A proxy behind its connection guard, as a Pingora application.
pub struct Guarded<P> {
    proxy: Arc<HttpProxy<P>>,
    config: Live,
}

impl<P> Guarded<P> {
    /// Guards the connections of `proxy`.
    pub fn new(proxy: HttpProxy<P>, config: Live) -> Self {
        Self { proxy: Arc::new(proxy), config }
    }
}

impl<P> std::fmt::Debug for Guarded<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guarded").finish_non_exhaustive()
    }
}

tokio::task_local! {
    /// The connection whose request is being answered: Pingora makes a request's context without
    /// saying where the request comes from, but on the task of its connection.
    static STAY: Arc<Stay>;
}

/// The switch of the connection that the current task answers; none outside of a guarded proxy.
pub(crate) fn current_stay() -> Option<Arc<Stay>> {
    STAY.try_with(Arc::clone).ok()
}

#[async_trait]
impl<P> ServerApp for Guarded<P>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    // As `apps/mod.rs` does for an `HttpServerApp` on plain HTTP/1, with a new head for each
    // request.
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let head = Arc::new(Mutex::new(Head::Done));
        let stay = Arc::<Stay>::default();
        let (watched, staying) = (Arc::clone(&head), Arc::clone(&stay));
        let stream: Stream = Box::new(GuardedStream { stream, head: watched, stay: staying });
        let expect_head = || {
            *head.lock() = Head::Expected(self.config.now().limits.header_deadline);
        };
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive((!*shutdown.borrow()).then_some(KEEP_ALIVE));
        expect_head();
        let answer = |session| {
            let answered = self.proxy.process_new_http(session, shutdown);
            STAY.scope(Arc::clone(&stay), answered)
        };
        let mut reused = answer(session).await;
        while let Some((stream, settings)) = reused.map(ReusedHttpStream::consume) {
            let mut session = ServerSession::new_http1(stream);
            if let Some(settings) = settings {
                settings.apply_to_session(&mut session);
            }
            expect_head();
            reused = answer(session).await;
        }
        None
    }

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

/// Where a connection is with its next request head.
#[derive(Debug)]
enum Head {
    /// None of it has come. The wait for its first byte is Pingora's keep-alive timeout.
    Expected(std::time::Duration),
    /// Some of it has come; the rest must before `deadline`.
    Started { deadline: Pin<Box<Sleep>>, line_is_empty: bool, begun: bool },
    /// It is complete; what follows is a body, watched elsewhere.
    Done,
}

impl Head {
    /// Follows the bytes of a head up to its empty line.
    fn advance(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if let Self::Expected(limit) = self {
            let deadline = Box::pin(sleep_until(Instant::now() + *limit));
            *self = Self::Started { deadline, line_is_empty: false, begun: false };
        }
        let Self::Started { line_is_empty, begun, .. } = self else { return };
        for byte in bytes {
            match byte {
                // Empty lines before the request line do not end a head (RFC 9112, 2.2).
                b'\n' if *line_is_empty && *begun => {
                    *self = Self::Done;
                    return;
                }
                b'\n' => *line_is_empty = true,
                b'\r' => {}
                _ => {
                    *begun = true;
                    *line_is_empty = false;
                }
            }
        }
    }

    /// Whether the deadline has passed.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Started { deadline, .. } => deadline.as_mut().poll(cx).is_ready(),
            Self::Expected(_) | Self::Done => false,
        }
    }
}

/// A connection that fails to read once a request head is late, and that hides its client's
/// departure while it is to stay.
#[derive(Debug)]
struct GuardedStream {
    stream: Stream,
    head: Arc<Mutex<Head>>,
    stay: Arc<Stay>,
}

impl AsyncRead for GuardedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = if self.stay.is_gone() {
            Poll::Ready(Ok(()))
        } else {
            Pin::new(&mut self.stream).poll_read(cx, buf)
        };
        let read = self.stay.after_read(read, buf.filled().len() > before, cx);
        let mut head = self.head.lock();
        match read {
            Poll::Pending if head.is_late(cx) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
            Poll::Ready(read) => {
                head.advance(&buf.filled()[before..]);
                // A steady drip is never pending for long: look at the clock here as well.
                if head.is_late(cx) {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Ready(read)
            }
        }
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.stay.is_gone() {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.stay.after_write(written, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = || bufs.iter().map(|buf| buf.len()).sum();
        if self.stay.is_gone() {
            return Poll::Ready(Ok(all()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.stay.after_write(written, all())
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.stay.is_gone() {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.stay.after_write(flushed, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for GuardedStream {
    async fn shutdown(&mut self) {
        self.stream.shutdown().await;
    }
}

impl UniqueID for GuardedStream {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl Ssl for GuardedStream {}

impl GetTimingDigest for GuardedStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }
}

impl GetProxyDigest for GuardedStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.get_proxy_digest()
    }
}

impl GetSocketDigest for GuardedStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }
}

impl Peek for GuardedStream {}

/// Seconds a connection may be idle between requests; Pingora's own default.
const KEEP_ALIVE: u64 = 60;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn guarded() -> (GuardedStream, tokio::io::DuplexStream) {
        let (client, server) = tokio::io::duplex(1024);
        let head = Arc::new(Mutex::new(Head::Expected(Duration::from_secs(10))));
        (GuardedStream { stream: Box::new(server), head, stay: Arc::default() }, client)
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_drips_is_cut_at_its_deadline() {
        let (mut guarded, mut client) = guarded();
        let drip = async {
            for byte in b"GET / HTTP/1.1\r\nx: yyyyyyyyyyyyyyy" {
                client.write_all(&[*byte]).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let start = Instant::now();
        let mut read = Vec::new();
        let ((), error) = tokio::join!(drip, async { guarded.read_to_end(&mut read).await });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(read.len() <= 11, "read {} bytes", read.len());
        assert!(start.elapsed() >= Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn empty_lines_first_do_not_stop_the_clock() {
        let (mut guarded, mut client) = guarded();
        client.write_all(b"\r\n\r\n\n\nGET / HTTP/1.1\r\n").await.unwrap();
        let error = guarded.read_to_end(&mut Vec::new()).await;
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_take_longer_than_a_head() {
        let (mut guarded, mut client) = guarded();
        client.write_all(b"POST / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut read = [0; 19];
        guarded.read_exact(&mut read).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        client.write_all(b"body").await.unwrap();
        guarded.read_exact(&mut read[..4]).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_not_late() {
        let (mut guarded, mut client) = guarded();
        tokio::time::sleep(Duration::from_secs(30)).await;
        client.write_all(b"G").await.unwrap();
        assert_eq!(guarded.read_u8().await.unwrap(), b'G');
    }
}
