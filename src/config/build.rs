//! From [`File`] to [`Config`]: every value checked, then the whole.

mod egress;
mod identity;
mod providers;
mod runners;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    Config, Dialect, Integration, LauncherKind, Limits, Listen, Log, ModelRef, Models,
    PermissionPolicy, ToolStyle, Turns, Workspaces, default,
    error::{Problem, short},
    file::{self, File, Text},
    value::{Reader, is_plain_name, not_of},
};
use crate::{
    persona::{self, Personas},
    workspace::WorkspaceId,
};

/// What a configuration was read from beside its own file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sources {
    pub(crate) personas: PathBuf,
    pub(crate) secrets: Vec<PathBuf>,
}

/// Builds the configuration. `beside` is the directory that relative persona directories start at.
pub(super) fn build(
    file: &File,
    reader: &Reader<'_>,
    beside: &Path,
) -> Result<(Config, Sources), Problem> {
    let listen = listen(reader, file.listen.as_ref().unwrap_or(&file::Listen::default()))?;
    let turns = turns(reader, file.turns.as_ref().unwrap_or(&file::Turns::default()))?;
    let state = PathBuf::from(
        reader.text(file.state.as_ref())?.unwrap_or_else(|| default::STATE.to_owned()),
    );
    let runners = file.runners.as_ref();
    let runners = runners::runners(reader, runners.unwrap_or(&file::Runners::default()), &state)?;
    let workspaces = file.workspaces.as_ref();
    let workspaces = workspaces_of(reader, workspaces.unwrap_or(&file::Workspaces::default()))?;
    let egress = file.egress.as_ref();
    let egress =
        egress::egress(reader, egress.unwrap_or(&file::Egress::default()), &listen, &state)?;
    let policies = egress::policies(reader, file.roles.as_ref(), file.users.as_ref())?;
    let providers = file.providers.as_ref();
    let providers = providers
        .map_or(Ok(BTreeMap::new()), |p| self::providers::providers(reader, p, &runners))?;
    let integrations = file.integrations.as_ref();
    let integrations =
        integrations.map_or(Ok(BTreeMap::new()), |i| self::providers::integrations(reader, i))?;
    let (personas, directory) = personas(reader, file, beside, &integrations)?;
    let models = file.models.as_ref();
    let models = models_of(reader, models.unwrap_or(&file::Models::default()), &personas)?;
    let limits = limits(reader, file.limits.as_ref().unwrap_or(&file::Limits::default()))?;
    let log = log(reader, file.log.as_ref().unwrap_or(&file::Log::default()))?;
    let config = Config {
        identity: identity::identity(reader, file.identity.as_ref(), &listen, turns.tools)?,
        listen,
        workspaces,
        state,
        egress,
        policies,
        models,
        providers,
        personas,
        integrations,
        runners,
        turns,
        limits,
        log,
    };
    directories_apart(&config, file)?;
    models_have_providers(&config, file)?;
    Ok((config, Sources { personas: directory, secrets: reader.secret_files.take() }))
}

fn listen(reader: &Reader<'_>, written: &file::Listen) -> Result<Listen, Problem> {
    let default: SocketAddr = default::ADDRESS.parse().expect("the default address parses");
    let form = "an IP address and a port such as `127.0.0.1:8000` or `[::]:8000`";
    let address = reader.parsed(written.address.as_ref(), default, form, |value| {
        value.parse().ok().filter(|address: &SocketAddr| address.port() != 0)
    })?;
    let form = "`auto` for one per core, or a whole number from 1 to 1024";
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = reader.parsed(written.threads.as_ref(), cores, form, |value| match value {
        "auto" => Some(cores),
        number => number.parse().ok().filter(|threads| (1..=1024).contains(threads)),
    })?;
    Ok(Listen {
        address,
        threads,
        drain: reader.duration_or_zero(written.drain.as_ref(), default::DRAIN)?,
    })
}

fn workspaces_of(reader: &Reader<'_>, written: &file::Workspaces) -> Result<Workspaces, Problem> {
    let root = reader.text(written.root.as_ref())?;
    let form = "a workspace's id: the 16 hex digits `open-persona workspace id <user>` prints";
    Ok(Workspaces {
        root: root.unwrap_or_else(|| default::WORKSPACES.to_owned()).into(),
        template: reader.optional(written.template.as_ref(), form, WorkspaceId::parse)?,
    })
}

fn models_of(
    reader: &Reader<'_>,
    written: &file::Models,
    personas: &Personas,
) -> Result<Models, Problem> {
    let form = "a model as `provider/model`, or `gpt-…` alone";
    let ours = |id: &str| {
        let name = id.strip_prefix("open-persona/")?;
        let name = name.strip_suffix("__plan").unwrap_or(name);
        let known = matches!(name, "build" | "plan") || personas.0.iter().any(|p| p.name == name);
        known.then(|| id.to_owned())
    };
    let form_of_ours = "`open-persona/build`, `open-persona/plan` or `open-persona/<persona>`";
    Ok(Models {
        main: reader.optional(written.main.as_ref(), form, ModelRef::parse)?,
        small: reader.optional(written.small.as_ref(), form, ModelRef::parse)?,
        unknown: reader.optional(written.unknown.as_ref(), form_of_ours, ours)?,
    })
}

fn personas(
    reader: &Reader<'_>,
    file: &File,
    beside: &Path,
    integrations: &BTreeMap<String, Integration>,
) -> Result<(Personas, PathBuf), Problem> {
    let written = file.personas.as_ref().and_then(|section| section.directory.as_ref());
    let named = reader.text(written)?;
    let directory = beside.join(named.as_deref().unwrap_or(default::PERSONAS));
    if named.is_none() && !directory.exists() {
        return Ok((Personas::default(), directory));
    }
    let refused = |message: String, hint: String| {
        let at = written.map_or((0, 0), Text::position);
        Problem::new(message, hint).in_place(at)
    };
    let personas = persona::load(&directory).map_err(|e| {
        let hint = format!("look into the personas directory {}", directory.display());
        refused(in_full(&e), hint)
    })?;
    for persona in &personas.0 {
        let unknown = persona.integrations.iter().find(|name| !integrations.contains_key(*name));
        if let Some(name) = unknown {
            return Err(refused(
                format!("the persona `{}` turns on an unknown `{}`", persona.name, short(name)),
                format!("add it to `integrations`, or remove it from {}.md", persona.name),
            ));
        }
    }
    Ok((personas, directory))
}

fn turns(reader: &Reader<'_>, written: &file::Turns) -> Result<Turns, Problem> {
    let mut permissions = BTreeMap::new();
    for (tool, text) in written.permissions.iter().flat_map(|entries| &entries.0) {
        if !is_plain_name(&tool.written.replace('*', "_")) {
            return Err(not_of(tool, "a tool's name such as `bash`, or `*`"));
        }
        let rule = reader.optional(Some(text), "`allow`, `ask` or `deny`", |value| {
            matches!(value, "allow" | "ask" | "deny").then(|| value.to_owned())
        })?;
        if let Some(rule) = rule {
            permissions.insert(tool.written.clone(), rule);
        }
    }
    let reject = PermissionPolicy::Reject;
    Ok(Turns {
        permission: reader.parsed(
            written.permission.as_ref(),
            reject,
            "`reject` or `allow`",
            |value| match value {
                "reject" => Some(reject),
                "allow" => Some(PermissionPolicy::Allow),
                _ => None,
            },
        )?,
        permissions,
        tools: identity::tool_style(reader, written.tools.as_ref(), ToolStyle::default())?,
        keep_alive: reader.duration(written.keep_alive.as_ref(), default::KEEP_ALIVE)?,
        memory: reader.flag(written.memory.as_ref(), default::MEMORY)?,
        max_chats: reader.count(written.max_chats.as_ref(), default::MAX_CHATS, 1_000_000)?,
    })
}

fn limits(reader: &Reader<'_>, written: &file::Limits) -> Result<Limits, Problem> {
    let deadline = |text: &Option<Text>, default| reader.duration(text.as_ref(), default);
    Ok(Limits {
        body: reader.size(written.body.as_ref(), default::BODY, 1 << 30)?,
        json_depth: reader.count(written.json_depth.as_ref(), default::JSON_DEPTH, 127)?,
        headers: reader.size(written.headers.as_ref(), default::HEADERS, 1 << 20)?,
        header_deadline: deadline(&written.header_deadline, default::HEADER_DEADLINE)?,
        body_deadline: deadline(&written.body_deadline, default::BODY_DEADLINE)?,
        turn: deadline(&written.turn, default::TURN)?,
        idle: deadline(&written.idle, default::IDLE)?,
        first_byte: deadline(&written.first_byte, default::FIRST_BYTE)?,
    })
}

fn log(reader: &Reader<'_>, written: &file::Log) -> Result<Log, Problem> {
    Ok(Log { workspace_routing: reader.flag(written.workspace_routing.as_ref(), false)? })
}

/// Users' agents write below the workspaces' root: nothing of ours may be there.
fn directories_apart(config: &Config, file: &File) -> Result<(), Problem> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let root = absolute(&config.workspaces.root);
    let process = file.runners.as_ref().and_then(|runners| runners.process.as_ref());
    let data = match &config.runners.launcher {
        LauncherKind::Process { data, .. } => data,
        LauncherKind::Static { .. } => &config.state,
    };
    let written = [
        (&config.state, file.state.as_ref()),
        (data, process.and_then(|process| process.data.as_ref())),
    ];
    for (path, text) in written {
        if absolute(path).starts_with(&root) {
            let problem = Problem::new(
                format!("{} is within the workspaces' root {}", path.display(), root.display()),
                "keep the two apart: users' agents can write to the second",
            );
            return Err(problem.in_place(text.map_or((0, 0), Text::position)));
        }
    }
    Ok(())
}

/// A model of a provider that is not there would fail every turn. A shared server or a runner that
/// speaks OpenAI has its own providers.
fn models_have_providers(config: &Config, file: &File) -> Result<(), Problem> {
    let ours = matches!(config.runners.launcher, LauncherKind::Process { .. })
        && config.runners.dialect == Dialect::Opencode;
    let models = file.models.as_ref();
    let main = config.models.main.clone().unwrap_or_else(Models::built_in);
    let named = [
        (Some(main), models.and_then(|models| models.main.as_ref())),
        (config.models.small.clone(), models.and_then(|models| models.small.as_ref())),
    ];
    for (model, text) in named {
        let Some(model) = model.filter(|m| ours && !config.providers.contains_key(&m.provider))
        else {
            continue;
        };
        // What a variable held is not repeated.
        let name = match text {
            Some(text) if text.written.contains('$') => short(&text.written),
            _ => short(&model.to_string()),
        };
        let known: Vec<_> = config.providers.keys().map(String::as_str).collect();
        let problem = Problem::new(
            format!("the model `{name}` is of a provider that is not in `providers`"),
            format!("add the provider, or choose a model of one of: {}", known.join(", ")),
        );
        return Err(problem.in_place(text.map_or((0, 0), Text::position)));
    }
    Ok(())
}

/// An error with its causes, on one line.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
