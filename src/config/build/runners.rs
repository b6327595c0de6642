//! `runners:` how they come to be and how many there may be.

use std::path::{Path, PathBuf};

use super::super::{
    Address, Dialect, LauncherKind, Runners, default,
    error::Problem,
    file,
    substitute::is_name,
    value::{Reader, authority, not_of},
};

/// Reads the section. `state` is where runners' own files go unless it says otherwise.
pub(super) fn runners(
    reader: &Reader<'_>,
    written: &file::Runners,
    state: &Path,
) -> Result<Runners, Problem> {
    let dialect = reader.parsed(
        written.dialect.as_ref(),
        Dialect::Opencode,
        "`opencode` or `openai`",
        |value| match value {
            "opencode" => Some(Dialect::Opencode),
            "openai" => Some(Dialect::OpenAi),
            _ => None,
        },
    )?;
    let max_running =
        reader.count(written.max_running.as_ref(), default::MAX_RUNNING, MOST_RUNNERS)?;
    let max_starting =
        reader.count(written.max_starting.as_ref(), default::MAX_STARTING, MOST_RUNNERS)?;
    Ok(Runners {
        launcher: launcher(reader, written, dialect, state)?,
        dialect,
        max_running,
        max_starting,
        start_timeout: reader.duration(written.start_timeout.as_ref(), default::START_TIMEOUT)?,
        queue_timeout: reader.duration(written.queue_timeout.as_ref(), default::QUEUE_TIMEOUT)?,
        idle_after: reader.duration(written.idle_after.as_ref(), default::IDLE_AFTER)?,
        stop_timeout: reader.duration(written.stop_timeout.as_ref(), default::STOP_TIMEOUT)?,
    })
}

fn launcher(
    reader: &Reader<'_>,
    written: &file::Runners,
    dialect: Dialect,
    state: &Path,
) -> Result<LauncherKind, Problem> {
    let kind = reader.text(written.launcher.as_ref())?;
    match (kind.as_deref(), written.launcher.as_ref()) {
        // `shared` and `container` are what RUNNER_MODE was set to in older set-ups.
        (None | Some("process"), _) => process(reader, written, dialect, state),
        (Some("static" | "shared"), _) => fixed(reader, written),
        (Some("docker" | "container"), Some(text)) => Err(Problem::at(
            text,
            "this version does not start runners in containers yet",
            "write `process`, or `static` for a server of your own",
        )),
        (_, Some(text)) => Err(not_of(text, "`process` or `static`")),
        (_, None) => unreachable!("what was read is there"),
    }
}

fn process(
    reader: &Reader<'_>,
    written: &file::Runners,
    dialect: Dialect,
    state: &Path,
) -> Result<LauncherKind, Problem> {
    let empty = file::Process::default();
    let process = written.process.as_ref().unwrap_or(&empty);
    let command: Vec<String> = match &process.command {
        Some(words) => words.iter().map(|word| reader.required(word)).collect::<Result<_, _>>()?,
        None => vec![default::COMMAND.to_owned()],
    };
    if command.is_empty() || (dialect == Dialect::OpenAi && process.command.is_none()) {
        return Err(Problem::new(
            "`runners.process.command` is missing or empty",
            "write the program and its arguments as a list; `{port}` stands for the port",
        ));
    }
    let mut environment = std::collections::BTreeMap::new();
    for (name, text) in process.environment.iter().flat_map(|entries| &entries.0) {
        if !is_name(&name.written) {
            return Err(not_of(name, "a variable's name"));
        }
        if let Some(value) = reader.secret_or_plain(text)? {
            environment.insert(name.written.clone(), value);
        }
    }
    let data = reader.text(process.data.as_ref())?;
    Ok(LauncherKind::Process {
        command,
        data: data.map_or_else(|| state.join(default::RUNNER_DATA), PathBuf::from),
        environment,
    })
}

fn fixed(reader: &Reader<'_>, written: &file::Runners) -> Result<LauncherKind, Problem> {
    let empty = file::Static::default();
    let section = written.fixed.as_ref().unwrap_or(&empty);
    let url = reader.text(section.url.as_ref())?;
    let url = url.as_deref().unwrap_or(default::OPENCODE_URL);
    let address = match (address(url), &section.url) {
        (Ok(address), _) => address,
        (Err((message, hint)), Some(text)) => return Err(Problem::at(text, message, hint)),
        (Err((message, hint)), None) => return Err(Problem::new(message, hint)),
    };
    Ok(LauncherKind::Static { address, password: reader.secret(section.password.as_ref())? })
}

/// Reads `http://host:port` or `unix:/path`. The error does not repeat the URL, which may hold a
/// password.
fn address(url: &str) -> Result<Address, (&'static str, &'static str)> {
    let form = "write `http://host:port` or `unix:/path/of/the/socket`";
    if let Some(path) = url.strip_prefix("unix:") {
        let path = PathBuf::from(path);
        let fits = path.is_absolute() && path.as_os_str().len() <= LONGEST_SOCKET_PATH;
        return fits
            .then_some(Address::Unix(path))
            .ok_or(("a socket's path is absolute and at most 107 bytes long", form));
    }
    if url.starts_with("https:") {
        return Err((
            "runners are spoken to without TLS",
            "write `http://host:port`, with a TLS-ending proxy beside the gateway if need be",
        ));
    }
    let uri: http::Uri = url.parse().map_err(|_| ("this is not a URL", form))?;
    let authority = authority(&uri, false).map_err(|has_password| {
        if has_password {
            ("a URL with a user or a password in it", "write the password in `password`")
        } else {
            ("this is not an http:// URL with a host", form)
        }
    })?;
    if !matches!(uri.path_and_query().map_or("/", |path| path.as_str()), "" | "/") {
        return Err(("a URL with a path", form));
    }
    Ok(Address::Tcp(format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80))))
}

const MOST_RUNNERS: usize = 10_000;
/// `sun_path` holds 108 bytes with its final NUL (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runner_addresses_are_plain_http_or_a_socket() {
        let tcp = |text: &str| Ok(Address::Tcp(text.to_owned()));
        assert_eq!(address("http://127.0.0.1:4096"), tcp("127.0.0.1:4096"));
        assert_eq!(address("http://opencode/"), tcp("opencode:80"));
        assert_eq!(address("http://[::1]:4096"), tcp("[::1]:4096"));
        assert_eq!(address("unix:/run/oc.sock"), Ok(Address::Unix("/run/oc.sock".into())));
        for bad in [
            "https://opencode:4096",
            "opencode:4096",
            "http://",
            "http://user:canary@opencode:4096",
            "http://opencode:4096/v1",
            "http://opencode:0",
            "http://opencode:99999",
            "ftp://opencode",
            "unix:relative.sock",
            "unix:",
        ] {
            let (message, _) = address(bad).expect_err(bad);
            assert!(!message.contains("canary"));
        }
    }
}
