//! `providers:` and `integrations:` what runners may reach.

use std::collections::BTreeMap;

use super::super::{
    Integration, Model, Provider, default,
    error::Problem,
    file::{self, Text},
    value::{Reader, authority, is_plain_name, not_of},
};

/// Reads the model providers.
pub(super) fn providers(
    reader: &Reader<'_>,
    written: &file::Entries<file::Provider>,
) -> Result<BTreeMap<String, Provider>, Problem> {
    let mut providers = BTreeMap::new();
    for (name, section) in &written.0 {
        let provider = Provider {
            npm: npm(reader, &section.npm)?,
            name: reader.text(section.name.as_ref())?.unwrap_or_else(|| name.written.clone()),
            base_url: section.base_url.as_ref().map_or(Ok(None), |text| url(reader, text))?,
            key: reader.secret(section.key.as_ref())?,
            models: section.models.as_ref().map_or(Ok(BTreeMap::new()), |m| models(reader, m))?,
        };
        providers.insert(plain_name(name)?, provider);
    }
    Ok(providers)
}

/// Reads the MCP servers.
pub(super) fn integrations(
    reader: &Reader<'_>,
    written: &file::Entries<file::Integration>,
) -> Result<BTreeMap<String, Integration>, Problem> {
    let mut integrations = BTreeMap::new();
    for (name, section) in &written.0 {
        let mut headers = BTreeMap::new();
        for (header, text) in section.headers.iter().flat_map(|entries| &entries.0) {
            if http::HeaderName::from_bytes(header.written.as_bytes()).is_err() {
                return Err(not_of(header, "a header's name"));
            }
            let Some(value) = reader.secret_or_plain(text)? else { continue };
            let name = header.written.to_ascii_lowercase();
            if headers.insert(name, value).is_some() {
                return Err(Problem::at(header, "this header is there twice", "keep one of them"));
            }
        }
        let integration = Integration {
            url: url(reader, &section.url)?
                .ok_or_else(|| Problem::at(&section.url, "the URL is empty", "write one"))?,
            headers,
            timeout: reader.duration(section.timeout.as_ref(), default::INTEGRATION_TIMEOUT)?,
        };
        integrations.insert(plain_name(name)?, integration);
    }
    Ok(integrations)
}

fn models(
    reader: &Reader<'_>,
    written: &file::Entries<Option<file::Model>>,
) -> Result<BTreeMap<String, Model>, Problem> {
    let empty = file::Model::default();
    let mut models = BTreeMap::new();
    for (id, section) in &written.0 {
        let printable = |c: char| !c.is_whitespace() && !c.is_control();
        if id.written.is_empty() || id.written.len() > 256 || !id.written.chars().all(printable) {
            return Err(not_of(id, "the model's id as its provider knows it"));
        }
        let section = section.as_ref().unwrap_or(&empty);
        let model = Model {
            name: reader.text(section.name.as_ref())?.unwrap_or_else(|| id.written.clone()),
            context: tokens(reader, section.context.as_ref(), default::CONTEXT)?,
            output: tokens(reader, section.output.as_ref(), default::OUTPUT)?,
            tools: reader.flag(section.tools.as_ref(), true)?,
            reasoning: reader.flag(section.reasoning.as_ref(), false)?,
            images: reader.flag(section.images.as_ref(), false)?,
        };
        models.insert(id.written.clone(), model);
    }
    Ok(models)
}

fn tokens(reader: &Reader<'_>, text: Option<&Text>, default: usize) -> Result<u64, Problem> {
    reader.count(text, default, 100_000_000).map(|count| count as u64)
}

fn plain_name(name: &Text) -> Result<String, Problem> {
    if is_plain_name(&name.written) {
        Ok(name.written.clone())
    } else {
        Err(not_of(name, "a name of lower-case letters, digits, `_` and `-`, at most 64"))
    }
}

/// An npm package by its name. Never a path or a URL: opencode would install code from there.
fn npm(reader: &Reader<'_>, text: &Text) -> Result<String, Problem> {
    let name = reader.required(text)?;
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let (scope, package) = match name.strip_prefix('@').map(|rest| rest.split_once('/')) {
        Some(Some((scope, package))) => (scope, package),
        Some(None) => ("", ""),
        None => ("none", name.as_str()),
    };
    if part(scope) && part(package) {
        Ok(name)
    } else {
        Err(not_of(text, "an npm package's name such as \"@ai-sdk/openai-compatible\""))
    }
}

/// An `http` or `https` URL with a host, without a user or a password, or none.
fn url(reader: &Reader<'_>, text: &Text) -> Result<Option<String>, Problem> {
    let Some(url) = reader.text(Some(text))? else { return Ok(None) };
    let uri: Result<http::Uri, _> = url.parse();
    let message = match uri.as_ref().map(|uri| authority(uri, true)) {
        Ok(Ok(_)) => return Ok(Some(url)),
        Ok(Err(true)) => "a URL with a user or a password in it",
        Ok(Err(false)) | Err(_) => "this is not an http:// or https:// URL with a host",
    };
    Err(Problem::at(text, message, "write `https://host/path`; a key has its own place"))
}
