//! Where log lines go, and which do not: no library may print what a caller sent.

use std::{borrow::Cow, io::Write};

use env_logger::fmt::Formatter;
use log::{Level, Record};

/// Starts logging to stderr. `filter` is what `RUST_LOG` holds; without one, `info`.
pub fn start(filter: Option<&str>) {
    env_logger::Builder::new().parse_filters(filter.unwrap_or("info")).format(write).init();
}

fn write(out: &mut Formatter, record: &Record<'_>) -> std::io::Result<()> {
    let Some(message) = shown(record.target(), record.level(), record.args().to_string().into())
    else {
        return Ok(());
    };
    let level = record.level();
    let style = out.default_level_style(level);
    let time = out.timestamp_millis();
    writeln!(out, "{time} {style}{level:5}{style:#} {} {message}", record.target())
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

#[cfg(test)]
mod tests {
    use super::*;

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
