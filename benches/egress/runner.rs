//! A runner's calls, by whatever way they go.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::BodyExt;

use crate::{
    clock::{ages, now},
    connection::Connection,
    provider::{Order, Pace, Provider},
    worker::Worker,
};

/// A way to the provider.
pub(crate) struct Way<'a> {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// What comes before `/v1`.
    pub(crate) prefix: &'static str,
    pub(crate) token: &'a str,
    /// Who does the work on it.
    pub(crate) worker: Option<&'a Worker>,
}

impl Way<'_> {
    /// Nanoseconds that the proxy on it has run so far, with what it does after an answer.
    pub(crate) async fn cpu(&self) -> Option<u64> {
        tokio::time::sleep(tokio::time::Duration::from_millis(10)).await;
        self.worker?.cpu()
    }
}

/// A call, again and again.
pub(crate) struct Call<'a> {
    pub(crate) order: Order,
    pub(crate) body: Bytes,
    pub(crate) provider: &'a Provider,
}

/// What a call saw, in nanoseconds since it was sent.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    pub(crate) head: u64,
    pub(crate) first: u64,
    pub(crate) whole: u64,
    /// How old each piece was.
    pub(crate) ages: Vec<u64>,
}

/// A runner with a kept connection.
pub(crate) struct Runner<'a> {
    connection: Connection,
    way: &'a Way<'a>,
}

impl<'a> Runner<'a> {
    pub(crate) async fn of(way: &'a Way<'a>) -> Self {
        Self { connection: Connection::open(way.address).await, way }
    }

    pub(crate) async fn call(&mut self, call: &Call<'_>) -> Sample {
        let Call { order, body, provider } = call;
        let request = Request::post(format!("{}/v1/{}", self.way.prefix, order.style.endpoint()))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.way.token))
            .header(header::USER_AGENT, "ai-sdk/openai-compatible/1.0.22 runtime/bun/1.3.1")
            .header(header::ACCEPT, "*/*")
            .header(header::ACCEPT_ENCODING, "gzip, deflate, br, zstd")
            .header("x-session-affinity", SESSION);
        let is_asked = matches!(order.pace, Pace::Asked);
        let (mut sample, mut text) = (Sample::default(), Vec::new());
        let begun = now();
        if is_asked {
            provider.go_on();
        }
        let mut answer = self.connection.send(request, body.clone()).await.into_body();
        sample.head = now() - begun;
        while let Some(frame) = answer.frame().await {
            text.extend_from_slice(&frame.expect("a whole answer").into_data().unwrap_or_default());
            // A stamp may be cut, a line that is complete has all of its own.
            let end = memchr::memrchr(b'\n', &text).unwrap_or_default();
            let before = sample.ages.len();
            sample.ages.extend(ages(&text[..end]));
            text.drain(..end);
            if sample.ages.len() == before {
                continue;
            }
            if before == 0 {
                sample.first = now() - begun;
            }
            if is_asked && sample.ages.len() < order.pieces as usize {
                provider.go_on();
            }
        }
        sample.whole = now() - begun;
        assert_eq!(sample.ages.len(), order.pieces as usize);
        sample
    }
}

/// The session that all calls belong to.
pub(crate) const SESSION: &str = "ses_3f0c6d0e5b6a4d7c8f9e0a1b2c";
