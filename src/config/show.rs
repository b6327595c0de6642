//! The effective configuration as YAML of the same shape as the file, with `***` for every secret.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Address, Config, Dialect, LauncherKind, Model, ModelPattern, PermissionPolicy, ToolStyle,
    UserClaim,
    file::{self, Entries, Text},
    value::shown,
};
use crate::{
    secret::Secret,
    usage::{Allowance, Budget},
};

/// Writes `config` as YAML.
pub(super) fn yaml(config: &Config) -> String {
    let yaml = serde_saphyr::to_string(&file(config))
        .expect("a file of texts and mappings with text keys serializes");
    let personas: Vec<_> = config.personas.0.iter().map(|p| p.name.as_str()).collect();
    let personas = if personas.is_empty() { "none".to_owned() } else { personas.join(", ") };
    yaml + "# personas found: " + &personas + "\n"
}

fn file(config: &Config) -> file::File {
    file::File {
        listen: Some(file::Listen {
            address: text(&config.listen.address),
            threads: text(&config.listen.threads),
            drain: duration(config.listen.drain),
        }),
        identity: Some(spanned(identity(config))),
        workspaces: Some(file::Workspaces {
            root: text(&config.workspaces.root.display()),
            template: config.workspaces.template.as_ref().and_then(text),
        }),
        state: text(&config.state.display()),
        egress: Some(file::Egress {
            address: text(&config.egress.address),
            url: text(&config.egress.url),
            body: text(&shown(config.egress.body)),
            linger: duration(config.egress.linger),
            key_file: text(&config.egress.key_file.display()),
            keep_keys: duration(config.egress.keep_keys),
            key_help: text(&config.egress.key_help),
        }),
        roles: Some(entries(&config.policies.roles, |role| {
            Some(file::Role {
                models: patterns(role.models.as_ref()),
                budget: Some(budget(&role.budget)),
            })
        })),
        users: Some(entries(&config.policies.users, |user| {
            Some(file::User {
                role: user.role.as_ref().and_then(text),
                models: patterns(user.models.as_ref()),
                budget: user.budget.as_ref().map(budget),
            })
        })),
        models: Some(file::Models {
            main: config.models.main.as_ref().and_then(text),
            small: config.models.small.as_ref().and_then(text),
            unknown: config.models.unknown.as_ref().and_then(text),
        }),
        providers: Some(providers(config)),
        personas: None,
        integrations: Some(integrations(config)),
        runners: Some(runners(config)),
        turns: Some(turns(config)),
        limits: Some(file::Limits {
            body: text(&shown(config.limits.body)),
            json_depth: text(&config.limits.json_depth),
            headers: text(&shown(config.limits.headers)),
            header_deadline: duration(config.limits.header_deadline),
            body_deadline: duration(config.limits.body_deadline),
            turn: duration(config.limits.turn),
            idle: duration(config.limits.idle),
            first_byte: duration(config.limits.first_byte),
        }),
        log: Some(file::Log { workspace_routing: text(&config.log.workspace_routing) }),
    }
}

fn identity(config: &Config) -> file::Identity {
    let front_ends = config.identity.front_ends.iter().map(|front_end| file::FrontEnd {
        name: Text::new(&front_end.name),
        key: Text::new(HIDDEN),
        networks: Some(front_end.networks.iter().map(|n| Text::new(n.to_string())).collect()),
        user: Text::new(match front_end.user {
            UserClaim::Jwt { .. } => "jwt",
            UserClaim::Headers => "headers",
        }),
        jwt: match &front_end.user {
            UserClaim::Jwt { secrets, issuer, leeway } => Some(spanned(file::Jwt {
                secrets: secrets.iter().map(|_| Text::new(HIDDEN)).collect(),
                issuer: text(&issuer),
                leeway: duration(*leeway),
            })),
            UserClaim::Headers => None,
        },
        tools: tools(front_end.tools),
        meta_headers: text(&front_end.meta_headers),
        key_headers: text(&front_end.key_headers),
    });
    let api_keys = config.identity.api_keys.iter().map(|api_key| file::ApiKey {
        user: Text::new(&api_key.user),
        key: Text::new(HIDDEN),
        role: api_key.role.as_ref().and_then(text),
        tools: tools(api_key.tools),
    });
    file::Identity {
        front_ends: Some(front_ends.collect()),
        api_keys: Some(api_keys.collect()),
        body_user: text(&config.identity.body_user),
        anonymous: text(&config.identity.anonymous),
        allow_insecure: text(&config.identity.allow_insecure),
    }
}

fn providers(config: &Config) -> Entries<file::Provider> {
    entries(&config.providers, |provider| file::Provider {
        npm: Text::new(&provider.npm),
        name: text(&provider.name),
        base_url: provider.base_url.as_ref().and_then(|base| url(&base.to_string())),
        key: provider.key.as_ref().map(|_| Text::new(HIDDEN)),
        auth: text(provider.auth.as_str()),
        paths: Some(provider.paths.iter().map(Text::new).collect()),
        connect_timeout: duration(provider.connect_timeout),
        idle_timeout: duration(provider.idle_timeout),
        tls: Some(file::Tls {
            verify: text(&provider.tls.verify),
            ca: provider.tls.ca.as_ref().and_then(|(path, _)| text(&path.display())),
        }),
        models: Some(entries(&provider.models, |model| Some(self::model(model)))),
    })
}

fn model(model: &Model) -> file::Model {
    file::Model {
        name: text(&model.name),
        context: text(&model.context),
        output: text(&model.output),
        tools: text(&model.tools),
        reasoning: text(&model.reasoning),
        images: text(&model.images),
        prices: model.price.map(|price| file::Prices {
            input: Some(decimal(price.input, 6)),
            cached: Some(decimal(price.cached, 6)),
            cache_write: Some(decimal(price.cache_write, 6)),
            output: Some(decimal(price.output, 6)),
        }),
    }
}

fn patterns(patterns: Option<&Vec<ModelPattern>>) -> Option<Vec<Text>> {
    patterns.map(|patterns| patterns.iter().map(|it| Text::new(it.as_str())).collect())
}

fn budget(budget: &Budget) -> file::Budget {
    let allowance = |it: &Allowance| file::Allowance {
        tokens: it.tokens.as_ref().and_then(text),
        money: it.money.map(|money| decimal(money.0, 9)),
    };
    file::Budget { day: Some(allowance(&budget.day)), month: Some(allowance(&budget.month)) }
}

/// `value` divided by ten to the power of `digits`, without zeros at the end.
fn decimal(value: u64, digits: usize) -> Text {
    let padded = format!("{value:0width$}", width = digits + 1);
    let (whole, rest) = padded.split_at(padded.len() - digits);
    let rest = rest.trim_end_matches('0');
    Text::new(if rest.is_empty() { whole.to_owned() } else { format!("{whole}.{rest}") })
}

fn integrations(config: &Config) -> Entries<file::Integration> {
    entries(&config.integrations, |integration| file::Integration {
        url: url(&integration.url.to_string()).unwrap_or_else(|| Text::new("")),
        headers: Some(hidden(&integration.headers)),
        timeout: duration(integration.timeout),
    })
}

fn runners(config: &Config) -> file::Runners {
    let runners = &config.runners;
    let (launcher, process, fixed) = match &runners.launcher {
        LauncherKind::Process { command, data, environment } => {
            let process = file::Process {
                command: Some(command.iter().map(Text::new).collect()),
                data: text(&data.display()),
                environment: Some(hidden(environment)),
            };
            ("process", Some(process), None)
        }
        LauncherKind::Static { address, password } => {
            let fixed = file::Static {
                url: match address {
                    Address::Tcp(address) => text(&format!("http://{address}")),
                    Address::Unix(path) => text(&format!("unix:{}", path.display())),
                },
                password: password.as_ref().map(|_| Text::new(HIDDEN)),
            };
            ("static", None, Some(fixed))
        }
    };
    file::Runners {
        launcher: text(&launcher),
        dialect: text(&match runners.dialect {
            Dialect::Opencode => "opencode",
            Dialect::OpenAi => "openai",
        }),
        process,
        fixed,
        max_running: text(&runners.max_running),
        max_starting: text(&runners.max_starting),
        start_timeout: duration(runners.start_timeout),
        queue_timeout: duration(runners.queue_timeout),
        idle_after: duration(runners.idle_after),
        stop_timeout: duration(runners.stop_timeout),
    }
}

fn turns(config: &Config) -> file::Turns {
    let turns = &config.turns;
    file::Turns {
        permission: text(&match turns.permission {
            PermissionPolicy::Reject => "reject",
            PermissionPolicy::Allow => "allow",
        }),
        permissions: Some(entries(&turns.permissions, Text::new)),
        tools: tools(turns.tools),
        keep_alive: duration(turns.keep_alive),
        memory: text(&turns.memory),
        max_chats: text(&turns.max_chats),
    }
}

fn tools(style: ToolStyle) -> Option<Text> {
    text(&match style {
        ToolStyle::Plain => "plain",
        ToolStyle::Native => "native",
        ToolStyle::None => "none",
    })
}

/// A `$` in a value would be read as a reference's start.
#[expect(clippy::unnecessary_wraps, reason = "every key of the file is optional")]
fn text(value: &(impl ToString + ?Sized)) -> Option<Text> {
    Some(Text::new(value.to_string().replace('$', "$$")))
}

fn duration(value: Duration) -> Option<Text> {
    text(&humantime::format_duration(value))
}

/// A URL without its query, where some services put a key.
fn url(url: &str) -> Option<Text> {
    match url.split_once('?') {
        Some((path, _)) => text(&format!("{path}?{HIDDEN}")),
        None => text(&url),
    }
}

fn hidden(secrets: &BTreeMap<String, Secret>) -> Entries<Text> {
    entries(secrets, |_| Text::new(HIDDEN))
}

fn entries<'a, V, T>(map: &'a BTreeMap<String, V>, show: impl Fn(&'a V) -> T) -> Entries<T> {
    Entries(map.iter().map(|(key, value)| (Text::new(key), show(value))).collect())
}

fn spanned<T>(value: T) -> serde_saphyr::Spanned<T> {
    let nowhere = serde_saphyr::Location::UNKNOWN;
    serde_saphyr::Spanned::new(value, nowhere, nowhere)
}

const HIDDEN: &str = "***";
