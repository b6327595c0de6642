//! Requests whose end two servers could see in different places: each is followed by a second
//! request on the same connection, which must never be answered nor reach a runner.

use crate::stub;

/// The second request.
pub(crate) const SECOND: &str = "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n\
    Content-Type: application/json\r\nContent-Length: 58\r\n\r\n\
    {\"model\":\"open-persona/build\",\"user\":\"smuggled\",\"n\":123456}";

const BODY: &str = r#"{"model":"open-persona/build","user":"first","messages":[]}"#;

/// A request with `headers` in place of its framing.
fn with(headers: &str, body: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n\
         {headers}\r\n\r\n{body}"
    )
}

/// `body` as one chunk, with its end.
fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

/// Sends `first` and the second request at once. Gives the status of the only answer, if any.
async fn answered(first: &str) -> Option<u16> {
    let (world, stub) = stub::world().await;
    let all = world.raw_to_end(format!("{first}{SECOND}").as_bytes()).await;
    let answers: Vec<_> = all.matches("HTTP/1.1 ").collect();
    assert!(answers.len() <= 1, "{first:?} got {all}");
    for seen in stub.seen() {
        assert!(!seen.body.contains("smuggled"), "{first:?} let pass {seen:?}");
        assert!(seen.head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{seen:?}");
        assert!(seen.trailers == "\r\n", "{seen:?}");
    }
    all.strip_prefix("HTTP/1.1 ").map(|rest| rest[..3].parse().unwrap())
}

/// Requests whose framing two servers could read differently.
pub(crate) fn ambiguous() -> Vec<String> {
    let length = BODY.len();
    let chunked = chunked(BODY);
    let long_name = format!("{}: x\r\nContent-Length: {length}", "n".repeat(70_000));
    vec![
        with(&format!("Content-Length: {length}\r\nContent-Length: 6"), BODY),
        with(&format!("Content-Length: 6\r\nContent-Length: {length}"), BODY),
        with(&format!("Content-Length: {length}, 6"), BODY),
        with(&format!("Content-Length: +{length}"), BODY),
        with(&format!("Content-Length: -{length}"), BODY),
        with(&format!("Content-Length: 0x{length:x}"), BODY),
        with(&format!("Content-Length: {length} 6"), BODY),
        with(&format!("Content-Length: {length}.0"), BODY),
        with("Content-Length: 99999999999999999999999999", BODY),
        with("Content-Length:", BODY),
        with(&format!("Content-Length : {length}"), BODY),
        with(&format!(" Content-Length: {length}"), BODY),
        with(&format!("X: y\r\n Content-Length: {length}"), BODY),
        with(&format!("X: y\r\n\tContent-Length: {length}"), BODY),
        with("Transfer-Encoding: chunked, identity", &chunked),
        with("Transfer-Encoding: identity", &chunked),
        with("Transfer-Encoding: xchunked", &chunked),
        with("Transfer-Encoding: chunked\x0b", &chunked),
        with("Transfer-Encoding : chunked", &chunked),
        with("Transfer-Encoding\t: chunked", &chunked),
        with("X: y\r\n Transfer-Encoding: chunked", &chunked),
        with("Transfer-Encoding:\r\n chunked", &chunked),
        with("Transfer-Encoding: \"chunked\"", &chunked),
        with("Transfer-Encoding: gzip", &chunked),
        with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", &chunked),
        with("Transfer-Encoding: chunked;q=1", &chunked),
        with("Transfer-Encoding: chunked\0", &chunked),
        with("Trans\0fer-Encoding: chunked", &chunked),
        with("X: a\rb", BODY),
        with("X\rY: a", BODY),
        with("X: a\0b", BODY),
        with("No colon here", BODY),
        with(": no name", BODY),
        with("Na me: x", BODY),
        with("N\u{e4}me: x", BODY),
        with("Host: other", BODY),
        with("Transfer-Encoding: chunked", &chunked).replace("HTTP/1.1", "HTTP/1.0"),
        with(&long_name, BODY),
        with(&format!("Content-Length: {length}"), BODY).replace("HTTP/1.1", "HTTP/2.0"),
        with(&format!("Content-Length: {length}"), BODY).replace("HTTP/1.1", "HTTP/1.2"),
        with(&format!("Content-Length: {length}"), BODY).replace("HTTP/1.1", "HTTP/0.9"),
        with(&format!("Content-Length: {length}"), BODY).replace("POST ", "POST\t"),
    ]
}

/// Requests with a chunked body that is broken.
pub(crate) fn broken_chunks() -> Vec<String> {
    let length = BODY.len();
    let bodies = [
        format!("{length:x}\n{BODY}\r\n0\r\n\r\n"),
        format!("{length:x}\r\n{BODY}XX0\r\n\r\n"),
        format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", length - 1),
        format!("-{length:x}\r\n{BODY}\r\n0\r\n\r\n"),
        format!("+{length:x}\r\n{BODY}\r\n0\r\n\r\n"),
        format!("0x{length:x}\r\n{BODY}\r\n0\r\n\r\n"),
        format!("g\r\n{BODY}\r\n0\r\n\r\n"),
        format!("\r\n{BODY}\r\n0\r\n\r\n"),
        format!("ffffffffffffffff{length:x}\r\n{BODY}\r\n0\r\n\r\n"),
        format!("10000000000000000{length:x}\r\n{BODY}\r\n0\r\n\r\n"),
        format!("{length:x};{}\r\n{BODY}\r\n0\r\n\r\n", "e".repeat(1 << 20)),
        format!("{length:x}\r{BODY}\r\n0\r\n\r\n"),
    ];
    bodies.iter().map(|body| with("Transfer-Encoding: chunked", body)).collect()
}

/// Requests that are framed oddly, but plainly.
pub(crate) fn odd() -> Vec<String> {
    let length = BODY.len();
    let chunked = chunked(BODY);
    vec![
        // Both framings: the chunks count, and the connection ends.
        with(&format!("Content-Length: {length}\r\nTransfer-Encoding: chunked"), &chunked),
        with("Transfer-Encoding: chunked\r\nContent-Length: 3", &chunked),
        with("Content-Length: 3\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        with("Transfer-Encoding: Chunked", &chunked),
        with(&format!("Content-Length: {length}\r\nContent-Length: {length}"), BODY),
        with(&format!("Content-Length: {length}"), BODY).replace("\r\n", "\n"),
        with(&format!("Content-Length: {length}"), BODY).replace("HTTP/1.1", "HTTP/1.0"),
        with(&format!("Content-Length: {length}"), &format!("{BODY}\r\n")),
        with("Transfer-Encoding: chunked", &chunked.replacen("\r\n", ";a\nb\r\n", 1)),
        with("Transfer-Encoding: chunked", &chunked.replacen("\r\n", ";a=\"b\"\r\n", 1)),
        with("Connection: close\r\nTransfer-Encoding: chunked", &chunked),
        // Without any framing there is no body.
        with("X: y", BODY),
        with("Content-Length: 0", BODY),
        // A target of two words is escaped, and unknown.
        with(&format!("Content-Length: {length}"), BODY).replace("POST ", "PO ST "),
        // An answer that needs no body, and a body all the same.
        format!(
            "GET /v1/models HTTP/1.1\r\nHost: gateway\r\nContent-Length: {length}\r\n\r\n{BODY}"
        ),
        format!(
            "GET /nowhere HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"
        ),
        format!(
            "HEAD /v1/models HTTP/1.1\r\nHost: gateway\r\nContent-Length: {length}\r\n\r\n{BODY}"
        ),
    ]
}

#[tokio::test]
async fn framing_that_two_servers_could_read_differently_is_400() {
    for case in ambiguous() {
        let status = answered(&case).await;
        assert!(matches!(status, Some(400 | 431)), "{status:?} for {case:.200?}");
    }
}

#[tokio::test]
async fn a_broken_chunked_body_is_refused() {
    for case in broken_chunks() {
        let status = answered(&case).await;
        // Nothing, where the connection is cut instead.
        assert!(matches!(status, None | Some(400..=499)), "{status:?} for {case:.200?}");
    }
}

#[tokio::test]
async fn what_is_framed_oddly_but_plainly_is_answered_once_at_most() {
    for case in odd() {
        answered(&case).await;
    }
}

#[tokio::test]
async fn a_trailer_is_never_a_header() {
    let (world, stub) = stub::world().await;
    let body = format!(
        "{:x}\r\n{BODY}\r\n0\r\nX-OpenWebUI-User-Id: mallory\r\nAuthorization: Bearer mallory\r\n\
         X-Kept: mallory\r\n\r\n",
        BODY.len()
    );
    let request = with("Trailer: X-OpenWebUI-User-Id\r\nTransfer-Encoding: chunked", &body);
    drop(world.raw_to_end(request.replace("Host:", "Connection: close\r\nHost:").as_bytes()).await);
    for seen in stub.seen() {
        assert!(!format!("{seen:?}").contains("mallory"), "{seen:?}");
        assert_eq!(seen.values("x-openpersona-user-id"), ["first"]);
    }
}
