//! Where log lines go, and which do not: no library may print what a caller sent, and no line has
//! a secret in it.

use std::{borrow::Cow, io::Write, panic::PanicHookInfo};

use env_logger::fmt::Formatter;
use log::{Level, Record};

use crate::scrub;

/// Starts logging to stderr, panics included. `filter` is what `RUST_LOG` holds; without one,
/// `info`.
pub fn start(filter: Option<&str>) {
    env_logger::Builder::new().parse_filters(filter.unwrap_or("info")).format(write).init();
    std::panic::set_hook(Box::new(|panic| log::error!("{}", told(panic))));
}

fn write(out: &mut Formatter, record: &Record<'_>) -> std::io::Result<()> {
    let Some(message) = shown(record.target(), record.level(), record.args().to_string().into())
    else {
        return Ok(());
    };
    let level = record.level();
    let style = out.default_level_style(level);
    let time = out.timestamp_millis();
    let message = scrub::known(&message);
    writeln!(out, "{time} {style}{level:5}{style:#} {} {message}", record.target())
}

/// A panic in one line. What follows one stays as it is: the thread unwinds.
fn told(panic: &PanicHookInfo<'_>) -> String {
    let place = panic.location().map_or_else(|| "?".to_owned(), ToString::to_string);
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("?");
    format!("panic at={place} thread={thread:?} cause={}", cause(panic.payload_as_str()))
}

/// The message of a panic. Secrets are taken out before it is cut, or a part of one would stay.
fn cause(message: Option<&str>) -> String {
    let message = scrub::known(message.unwrap_or("?"));
    format!("{:?}", &message[..message.floor_char_boundary(LONGEST_CAUSE)])
}

/// The message as it may be printed, or nothing.
///
/// The libraries that see requests print their headers below `warn`: pingora-proxy 0.9.1 traces
/// every request header (lib.rs:375). Above, the parser's error carries the bytes it could not
/// read after `buf: ` (pingora-core 0.9.1, protocols/http/v1/server.rs:460), and a key may be
/// among them.
fn shown<'a>(target: &str, level: Level, message: Cow<'a, str>) -> Option<Cow<'a, str>> {
    if !SEE_REQUESTS.iter().any(|library| target.starts_with(library)) {
        return Some(message);
    }
    if level > Level::Warn {
        return None;
    }
    match message.find("buf:") {
        Some(at) => Some(format!("{}…", &message[..at]).into()),
        None => Some(message),
    }
}

const SEE_REQUESTS: &[&str] = &["pingora", "h2", "hyper", "httparse"];
/// In bytes.
const LONGEST_CAUSE: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_one_short_line_without_a_secret() {
        let secret = crate::secret::Secret::new("canary-in-a-panic");
        let message = format!("{}{} in\n\"it\"", "☂".repeat(160), secret.expose());
        let told = cause(Some(&message));
        assert!(told.ends_with(r#"☂*** in\n\"it\"""#), "{told}");
        assert_eq!(cause(Some(&"☂".repeat(500))).chars().count(), 500 / 3 + 2);
    }

    #[test]
    fn what_a_caller_sent_is_not_printed_by_a_library() {
        let of = |target, level, text: &'static str| {
            shown(target, level, text.into()).map(Cow::into_owned)
        };
        let raw = "Fail to proxy: InvalidHTTPHeader context: buf: Authorization: Bearer canary";
        assert_eq!(
            of("pingora_proxy", Level::Error, raw).as_deref(),
            Some("Fail to proxy: InvalidHTTPHeader context: …")
        );
        assert_eq!(of("pingora_proxy", Level::Trace, "Request header: canary"), None);
        assert_eq!(of("hyper_util::client", Level::Debug, "canary"), None);
        assert_eq!(of("pingora_core::server", Level::Warn, "slow").as_deref(), Some("slow"));
        assert_eq!(
            of("open_persona::pool", Level::Debug, "buf: ours").as_deref(),
            Some("buf: ours")
        );
    }
}
