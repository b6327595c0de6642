//! `egress:`, `roles:` and `users:` the way to the providers, and who may use what of them.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::super::{
    Egress, Listen, ModelPattern, Policies, Policy, default,
    error::Problem,
    file::{self, Entries, Text},
    policy::UserPolicy,
    value::{Reader, authority, not_of},
};
use crate::usage::{Allowance, Budget, Money, parse_tokens};

/// Reads the section. `state` is where the key file goes unless it says otherwise.
pub(super) fn egress(
    reader: &Reader<'_>,
    written: &file::Egress,
    listen: &Listen,
    state: &Path,
) -> Result<Egress, Problem> {
    let default: SocketAddr = default::EGRESS_ADDRESS.parse().expect("the default address parses");
    let form = "an IP address and a port such as `127.0.0.1:8002`";
    let address = reader.parsed(written.address.as_ref(), default, form, |value| {
        value.parse().ok().filter(|address: &SocketAddr| address.port() != 0)
    })?;
    if address.port() == listen.address.port() {
        return Err(Problem::new(
            format!("port {} is already that of `listen.address`", address.port()),
            "give runners a port of their own in `egress.address`",
        )
        .in_place(written.address.as_ref().map_or((0, 0), Text::position)));
    }
    let form = "what runners reach it by, `http://host:port`";
    let url = reader.optional(written.url.as_ref(), form, |value| {
        let uri: http::Uri = value.parse().ok()?;
        let authority = authority(&uri, false).ok()?;
        matches!(uri.path(), "" | "/").then(|| format!("http://{authority}"))
    })?;
    if url.is_none() && address.ip().is_unspecified() {
        return Err(Problem::new(
            format!("runners cannot connect to {address}"),
            "add `egress.url`, what they reach it by, such as `http://gateway:8002`",
        )
        .in_place(written.address.as_ref().map_or((0, 0), Text::position)));
    }
    let key_file = reader.text(written.key_file.as_ref())?;
    let key_help = reader.text(written.key_help.as_ref())?;
    Ok(Egress {
        address,
        url: url.unwrap_or_else(|| format!("http://{address}")),
        body: reader.size(written.body.as_ref(), default::EGRESS_BODY, 1 << 30)?,
        linger: reader.duration_or_zero(written.linger.as_ref(), default::LINGER)?,
        key_file: key_file.map_or_else(|| state.join(default::KEY_FILE), PathBuf::from),
        keep_keys: reader.duration(written.keep_keys.as_ref(), default::KEEP_KEYS)?,
        key_help: key_help.unwrap_or_else(|| default::KEY_HELP.to_owned()),
    })
}

/// Reads who may use what.
pub(super) fn policies(
    reader: &Reader<'_>,
    roles: Option<&Entries<Option<file::Role>>>,
    users: Option<&Entries<Option<file::User>>>,
) -> Result<Policies, Problem> {
    let mut policies = Policies::default();
    for (name, role) in roles.iter().flat_map(|roles| &roles.0) {
        let empty = file::Role::default();
        let role = role.as_ref().unwrap_or(&empty);
        let policy = Policy {
            models: patterns(reader, role.models.as_ref())?,
            budget: budget(reader, role.budget.as_ref())?.unwrap_or_default(),
        };
        policies.roles.insert(named(name)?, policy);
    }
    for (id, user) in users.iter().flat_map(|users| &users.0) {
        let empty = file::User::default();
        let user = user.as_ref().unwrap_or(&empty);
        let form = "a role that is in `roles`";
        let role = reader.optional(user.role.as_ref(), form, |role| {
            policies.roles.contains_key(role).then(|| role.to_owned())
        })?;
        let policy = UserPolicy {
            role,
            models: patterns(reader, user.models.as_ref())?,
            budget: budget(reader, user.budget.as_ref())?,
        };
        policies.users.insert(named(id)?, policy);
    }
    Ok(policies)
}

fn named(name: &Text) -> Result<String, Problem> {
    let fits = (1..=512).contains(&name.written.len()) && name.written.trim() == name.written;
    if fits && !name.written.chars().any(char::is_control) {
        Ok(name.written.clone())
    } else {
        Err(not_of(name, "a name of 1 to 512 bytes"))
    }
}

fn patterns(
    reader: &Reader<'_>,
    written: Option<&Vec<Text>>,
) -> Result<Option<Vec<ModelPattern>>, Problem> {
    let form = "a model as `provider/model`, or the beginning of one followed by `*`";
    let pattern = |text: &Text| {
        reader.optional(Some(text), form, ModelPattern::parse)?.ok_or_else(|| not_of(text, form))
    };
    written.map(|patterns| patterns.iter().map(pattern).collect()).transpose()
}

fn budget(reader: &Reader<'_>, written: Option<&file::Budget>) -> Result<Option<Budget>, Problem> {
    let allowance = |written: Option<&file::Allowance>| {
        let Some(written) = written else { return Ok(Allowance::default()) };
        let tokens = "a number of tokens such as `2000000`, `500k` or `2M`";
        let money = "an amount in US dollars such as `5` or `0.50`";
        Ok(Allowance {
            tokens: reader.optional(written.tokens.as_ref(), tokens, parse_tokens)?,
            money: reader.optional(written.money.as_ref(), money, Money::parse)?,
        })
    };
    let read = |budget: &file::Budget| {
        Ok(Budget {
            day: allowance(budget.day.as_ref())?,
            month: allowance(budget.month.as_ref())?,
        })
    };
    written.map(read).transpose()
}

/// Reads a role that a key of ours gives its user.
pub(super) fn role(reader: &Reader<'_>, text: Option<&Text>) -> Result<Option<String>, Problem> {
    let form = "a role's name of at most 256 characters, such as `admin`";
    reader.optional(text, form, |role| (role.len() <= 256).then(|| role.to_owned()))
}
