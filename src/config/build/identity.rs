//! `identity:` who may call, and who they are.

use std::{collections::BTreeSet, sync::Arc};

use serde_saphyr::Spanned;

use super::super::{
    ApiKey, FrontEnd, IdentityRules, Listen, ToolStyle, UserClaim, default,
    error::{Problem, short},
    file,
    value::{Reader, not_of},
};

/// Reads the section and refuses one that lets nobody in, or strangers.
pub(super) fn identity(
    reader: &Reader<'_>,
    written: Option<&Spanned<file::Identity>>,
    listen: &Listen,
    tools: ToolStyle,
) -> Result<IdentityRules, Problem> {
    let empty = file::Identity::default();
    let section = written.map_or(&empty, |spanned| &spanned.value);
    let rules = IdentityRules {
        front_ends: section
            .front_ends
            .iter()
            .flatten()
            .map(|front_end| self::front_end(reader, front_end, tools).map(Arc::new))
            .collect::<Result<_, _>>()?,
        api_keys: section
            .api_keys
            .iter()
            .flatten()
            .map(|api_key| self::api_key(reader, api_key, tools))
            .collect::<Result<_, _>>()?,
        body_user: reader.flag(section.body_user.as_ref(), false)?,
        anonymous: reader.flag(section.anonymous.as_ref(), false)?,
        allow_insecure: reader.flag(section.allow_insecure.as_ref(), false)?,
    };
    refuse_twins(&rules, section)?;
    if rules.front_ends.is_empty() && rules.api_keys.is_empty() && !rules.is_development() {
        let at = written.map_or((1, 1), |at| (at.referenced.line(), at.referenced.column()));
        return Err(Problem::new(
            "nobody could call: there is no front end, no API key and no development identity",
            "add an entry to `identity.front_ends` or `identity.api_keys`",
        )
        .in_place(at));
    }
    if rules.lets_strangers_in(listen) {
        let allowed = if rules.body_user { &section.body_user } else { &section.anonymous };
        let problem = Problem::new(
            format!("anyone who reaches {} could be any user", listen.address),
            "set `identity.body_user` and `identity.anonymous` to false, or listen on 127.0.0.1; \
             `identity.allow_insecure: true` if you really mean it",
        );
        return Err(problem.in_place(allowed.as_ref().map_or((0, 0), file::Text::position)));
    }
    Ok(rules)
}

/// How tool activity is shown.
pub(super) fn tool_style(
    reader: &Reader<'_>,
    text: Option<&file::Text>,
    default: ToolStyle,
) -> Result<ToolStyle, Problem> {
    reader.parsed(text, default, "`plain`, `native` or `none`", |value| match value {
        "plain" => Some(ToolStyle::Plain),
        "native" => Some(ToolStyle::Native),
        "none" => Some(ToolStyle::None),
        _ => None,
    })
}

fn front_end(
    reader: &Reader<'_>,
    written: &file::FrontEnd,
    tools: ToolStyle,
) -> Result<FrontEnd, Problem> {
    let claim = reader.required(&written.user)?;
    let networks = written.networks.iter().flatten();
    Ok(FrontEnd {
        name: reader.required(&written.name)?,
        key: reader.key(&written.key)?,
        networks: networks.map(|text| network(reader, text)).collect::<Result<_, _>>()?,
        user: match (claim.as_str(), &written.jwt) {
            ("jwt", Some(jwt)) => self::jwt(reader, jwt)?,
            ("jwt", None) => {
                return Err(Problem::at(
                    &written.user,
                    "`user: jwt` needs the secret that signs the tokens",
                    "add `jwt: {secrets: [env:NAME]}` beside it",
                ));
            }
            ("headers", None) => UserClaim::Headers,
            ("headers", Some(_)) => {
                return Err(Problem::at(
                    &written.user,
                    "`user: headers` and a `jwt` section: plain headers would win over signed ones",
                    "remove `jwt`, or write `user: jwt`",
                ));
            }
            _ => return Err(not_of(&written.user, "`jwt` or `headers`")),
        },
        tools: tool_style(reader, written.tools.as_ref(), tools)?,
        meta_headers: reader.flag(written.meta_headers.as_ref(), false)?,
        key_headers: reader.flag(written.key_headers.as_ref(), true)?,
    })
}

fn jwt(reader: &Reader<'_>, written: &Spanned<file::Jwt>) -> Result<UserClaim, Problem> {
    let mut secrets = Vec::new();
    for text in &written.value.secrets {
        let Some(secret) = reader.secret(Some(text))? else { continue };
        if secret.expose().len() < SHORTEST_JWT_SECRET {
            return Err(Problem::at(
                text,
                format!("the JWT secret is shorter than {SHORTEST_JWT_SECRET} bytes"),
                "make a random one, here and in the front end: openssl rand -hex 32",
            ));
        }
        secrets.push(secret);
    }
    if secrets.is_empty() {
        let at = (written.referenced.line(), written.referenced.column());
        return Err(
            Problem::new("there is no JWT secret", "add `secrets: [env:NAME]`").in_place(at)
        );
    }
    let issuer = reader.text(written.value.issuer.as_ref())?;
    Ok(UserClaim::Jwt {
        secrets,
        issuer: issuer.unwrap_or_else(|| default::ISSUER.to_owned()),
        leeway: reader.duration_or_zero(written.value.leeway.as_ref(), default::LEEWAY)?,
    })
}

fn network(reader: &Reader<'_>, text: &file::Text) -> Result<ipnet::IpNet, Problem> {
    let value = reader.required(text)?;
    let host = || value.parse().ok().map(|address: std::net::IpAddr| address.into());
    value
        .parse()
        .ok()
        .or_else(host)
        .ok_or_else(|| not_of(text, "a network such as `10.0.0.0/8` or one address"))
}

fn api_key(
    reader: &Reader<'_>,
    written: &file::ApiKey,
    tools: ToolStyle,
) -> Result<ApiKey, Problem> {
    let user = reader.required(&written.user)?;
    if user.len() > LONGEST_USER {
        return Err(not_of(&written.user, "a user id of at most 512 bytes"));
    }
    Ok(ApiKey {
        user,
        key: reader.key(&written.key)?,
        role: super::egress::role(reader, written.role.as_ref())?,
        tools: tool_style(reader, written.tools.as_ref(), tools)?,
    })
}

/// A key says who calls: two entries with one key, or one name, are a mistake.
fn refuse_twins(rules: &IdentityRules, section: &file::Identity) -> Result<(), Problem> {
    let mut keys = BTreeSet::new();
    let mut names = BTreeSet::new();
    let front_ends = rules.front_ends.iter().zip(section.front_ends.iter().flatten());
    for (front_end, written) in front_ends {
        if !names.insert(&front_end.name) {
            let message = format!("a second front end named `{}`", short(&front_end.name));
            return Err(Problem::at(&written.name, message, "give each its own name"));
        }
        if !keys.insert(front_end.key.0) {
            return Err(Problem::at(&written.key, TWIN, TWIN_HINT));
        }
    }
    for (api_key, written) in rules.api_keys.iter().zip(section.api_keys.iter().flatten()) {
        if !keys.insert(api_key.key.0) {
            return Err(Problem::at(&written.key, TWIN, TWIN_HINT));
        }
    }
    Ok(())
}

const TWIN: &str = "this key is already another entry's";
const TWIN_HINT: &str = "give each caller its own key: openssl rand -hex 32";
/// HS256 wants a key as long as its output (RFC 7518, section 3.2).
const SHORTEST_JWT_SECRET: usize = 32;
const LONGEST_USER: usize = 512;
