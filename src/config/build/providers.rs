//! `providers:` and `integrations:` what runners may reach.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::super::{
    AuthStyle, BaseUrl, Integration, LauncherKind, Model, Provider, Runners, Tls, default,
    error::Problem,
    file::{self, Text},
    value::{Reader, authority, is_plain_name, not_of},
};
use crate::usage::{Price, per_million};

/// Reads the model providers.
pub(super) fn providers(
    reader: &Reader<'_>,
    written: &file::Entries<file::Provider>,
    runners: &Runners,
) -> Result<BTreeMap<String, Provider>, Problem> {
    let mut providers = BTreeMap::new();
    for (name, section) in &written.0 {
        providers.insert(plain_name(name)?, provider(reader, name, section, runners)?);
    }
    Ok(providers)
}

fn provider(
    reader: &Reader<'_>,
    name: &Text,
    written: &file::Provider,
    runners: &Runners,
) -> Result<Provider, Problem> {
    let npm = npm(reader, &written.npm)?;
    let known = KNOWN.iter().find(|known| known.npm == npm);
    let base_url = match written.base_url.as_ref().map(|text| url(reader, text)).transpose()? {
        Some(Some(url)) => Some(url),
        _ => known.map(|known| known.base_url.to_owned()),
    };
    // A shared server reaches its providers by itself.
    let is_ours = matches!(runners.launcher, LauncherKind::Process { .. });
    if base_url.is_none() && is_ours {
        return Err(Problem::at(
            written.base_url.as_ref().unwrap_or(name),
            format!("nobody knows where the provider `{}` is", name.written),
            "add `base_url: https://…/v1`",
        ));
    }
    let auth = match (known, &written.key) {
        (Some(known), _) => known.auth,
        (None, Some(_)) => AuthStyle::Bearer,
        (None, None) => AuthStyle::None,
    };
    let form = "`bearer`, `x-api-key`, `api-key` or `none`";
    let styles = [AuthStyle::Bearer, AuthStyle::XApiKey, AuthStyle::ApiKey, AuthStyle::None];
    Ok(Provider {
        npm,
        name: reader.text(written.name.as_ref())?.unwrap_or_else(|| name.written.clone()),
        base_url: base_url.as_deref().and_then(parts),
        key: reader.secret(written.key.as_ref())?,
        auth: reader.parsed(written.auth.as_ref(), auth, form, |value| {
            styles.into_iter().find(|style| style.as_str() == value)
        })?,
        paths: paths(reader, written.paths.as_ref())?,
        connect_timeout: reader
            .duration(written.connect_timeout.as_ref(), default::CONNECT_TIMEOUT)?,
        idle_timeout: reader.duration(written.idle_timeout.as_ref(), default::IDLE_TIMEOUT)?,
        tls: tls(reader, written.tls.as_ref())?,
        models: written.models.as_ref().map_or(Ok(BTreeMap::new()), |m| models(reader, m))?,
    })
}

/// What may be asked of a provider: paths of plain segments, so that none leads elsewhere.
fn paths(reader: &Reader<'_>, written: Option<&Vec<Text>>) -> Result<Vec<String>, Problem> {
    let Some(written) = written else {
        return Ok(default::PATHS.iter().map(|path| (*path).to_owned()).collect());
    };
    let form = "a path below `base_url` such as `chat/completions`";
    let plain = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    };
    let path = |text: &Text| {
        let path = reader.required(text)?;
        if path.split('/').all(plain) { Ok(path) } else { Err(not_of(text, form)) }
    };
    written.iter().map(path).collect()
}

fn tls(reader: &Reader<'_>, written: Option<&file::Tls>) -> Result<Tls, Problem> {
    let empty = file::Tls::default();
    let written = written.unwrap_or(&empty);
    let verify = reader.flag(written.verify.as_ref(), true)?;
    let path = reader.text(written.ca.as_ref())?.map(PathBuf::from);
    let (Some(path), Some(text)) = (path, &written.ca) else { return Ok(Tls { verify, ca: None }) };
    reader.secret_files.borrow_mut().push(path.clone());
    let refused = |what: String| {
        let hint = "name a file of certificates in PEM, `-----BEGIN CERTIFICATE-----`";
        Problem::at(text, format!("the file of authorities {} {what}", path.display()), hint)
    };
    let pem = std::fs::read(&path).map_err(|e| refused(format!("cannot be read: {e}")))?;
    let certificates: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(&pem)
        .map(|certificate| certificate.map(|certificate| certificate.to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|e| refused(format!("is not PEM: {e}")))?;
    if certificates.is_empty() {
        return Err(refused("holds no certificate".to_owned()));
    }
    if certificates.iter().any(|der| X509Certificate::from_der(der).is_err()) {
        return Err(refused("holds a certificate that cannot be read".to_owned()));
    }
    Ok(Tls { verify, ca: Some((path, Arc::from(certificates))) })
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
                .and_then(|url| parts(&url))
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
            price: section.prices.as_ref().map(|it| price(reader, it)).transpose()?,
        };
        models.insert(id.written.clone(), model);
    }
    Ok(models)
}

/// A model's prices. Who says nothing of its cache pays for what is in there like for the rest.
fn price(reader: &Reader<'_>, written: &file::Prices) -> Result<Price, Problem> {
    let form = "dollars for a million tokens, such as `1.25`";
    let price = |text: Option<&Text>, or| reader.parsed(text, or, form, per_million);
    let input = price(written.input.as_ref(), 0)?;
    Ok(Price {
        input,
        cached: price(written.cached.as_ref(), input)?,
        cache_write: price(written.cache_write.as_ref(), input)?,
        output: price(written.output.as_ref(), 0)?,
    })
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

/// The parts of a URL that was checked.
fn parts(url: &str) -> Option<BaseUrl> {
    let uri: http::Uri = url.parse().ok()?;
    let authority = authority(&uri, true).ok()?;
    let tls = uri.scheme_str() == Some("https");
    Some(BaseUrl {
        tls,
        host: authority.host().trim_matches(['[', ']']).to_owned(),
        port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
        authority: authority.as_str().to_owned(),
        path: uri.path().to_owned(),
        query: uri.query().map(str::to_owned),
    })
}

/// A package that always goes to the same place.
struct Known {
    npm: &'static str,
    base_url: &'static str,
    auth: AuthStyle,
}

/// The packages' own base URLs, as in their sources.
const KNOWN: &[Known] = &[
    Known { npm: "@ai-sdk/openai", base_url: "https://api.openai.com/v1", auth: AuthStyle::Bearer },
    Known {
        npm: "@ai-sdk/anthropic",
        base_url: "https://api.anthropic.com/v1",
        auth: AuthStyle::XApiKey,
    },
    Known {
        npm: "@openrouter/ai-sdk-provider",
        base_url: "https://openrouter.ai/api/v1",
        auth: AuthStyle::Bearer,
    },
];
