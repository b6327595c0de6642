//! The requests whose end two servers could see in different places, as the gateway gets them: each
//! is followed by a second one on the same connection, which must never be answered nor reach a
//! provider.

use super::world::World;
use crate::smuggling::{SECOND, ambiguous, broken_chunks, odd};

/// Sends `first` and the second request at once. Gives the status of the only answer, if any.
async fn answered(world: &World, token: &str, first: &str) -> Option<u16> {
    let ours = |text: &str| {
        let host = format!("Host: {}\r\nx-api-key: {token}", world.authority);
        text.replace("/v1/chat/completions", "/chat/v1/chat/completions")
            .replace("/v1/models", "/chat/v1/models")
            .replacen("Host: gateway", &host, 1)
    };
    let number = world.provider.seen().len();
    let all = world.raw_to_end(format!("{}{}", ours(first), ours(SECOND))).await;
    let answers = all.matches("HTTP/1.1 ").count();
    assert!(answers <= 1, "{first:?} got {all}");
    for seen in &world.provider.seen()[number..] {
        let body = String::from_utf8_lossy(&seen.body);
        assert!(!body.contains("smuggled"), "{first:?} let pass {seen:?}");
        assert!(seen.head.contains(" /chat/api/"), "{seen:?}");
        assert!(!seen.head.contains("smuggled") && !seen.head.contains(token), "{seen:?}");
    }
    all.strip_prefix("HTTP/1.1 ").map(|rest| rest[..3].parse().unwrap())
}

#[tokio::test]
async fn framing_that_two_servers_could_read_differently_is_400() {
    let world = World::new().await;
    let runner = world.runner("alice");
    for case in ambiguous() {
        let status = answered(&world, &runner.token, &case).await;
        assert!(matches!(status, Some(400 | 431)), "{status:?} for {case:.200?}");
    }
    assert!(world.provider.seen().is_empty(), "{:?}", world.provider.seen());
}

#[tokio::test]
async fn a_broken_chunked_body_is_refused() {
    let world = World::new().await;
    let runner = world.runner("alice");
    for case in broken_chunks() {
        let status = answered(&world, &runner.token, &case).await;
        // Nothing, where the connection is cut instead.
        assert!(matches!(status, None | Some(400..=499)), "{status:?} for {case:.200?}");
    }
    assert_eq!(world.provider.whole(), 0, "{:?}", world.provider.seen());
}

#[tokio::test]
async fn what_is_framed_oddly_but_plainly_is_answered_once_at_most() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let mut statuses = Vec::new();
    for case in odd() {
        statuses.push(answered(&world, &runner.token, &case).await);
    }
    assert!(statuses.contains(&Some(200)), "{statuses:?}");
}

#[tokio::test]
async fn a_trailer_is_never_a_header() {
    let world = World::new().await;
    let runner = world.runner("alice");
    let request = format!(
        "POST /chat/v1/chat/completions HTTP/1.1\r\nHost: {}\r\nTrailer: Authorization\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\nx-api-key: {}\r\n\r\n\
         e\r\n{{\"model\":\"m1\"}}\r\n0\r\nAuthorization: Bearer mallory\r\nX-Kept: mallory\r\n\r\n",
        world.authority, runner.token
    );
    drop(world.raw_to_end(request).await);
    for seen in world.provider.seen() {
        assert!(!format!("{seen:?}").contains("mallory"), "{seen:?}");
        assert_eq!(seen.values("authorization"), ["Bearer sk-admin-chat"]);
    }
}
