//! The configuration as it is written: [`File`] mirrors the YAML, every value is still text.

use std::{fmt, io::Read, path::Path};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use serde_saphyr::Spanned;

use super::error::Problem;

/// The whole file.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) listen: Option<Listen>,
    pub(super) identity: Option<Spanned<Identity>>,
    pub(super) workspaces: Option<Workspaces>,
    pub(super) state: Option<Text>,
    pub(super) models: Option<Models>,
    pub(super) providers: Option<Entries<Provider>>,
    #[serde(skip_serializing)]
    pub(super) personas: Option<Personas>,
    pub(super) integrations: Option<Entries<Integration>>,
    pub(super) runners: Option<Runners>,
    pub(super) turns: Option<Turns>,
    pub(super) limits: Option<Limits>,
    pub(super) log: Option<Log>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listen {
    pub(super) address: Option<Text>,
    pub(super) threads: Option<Text>,
    pub(super) drain: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    pub(super) front_ends: Option<Vec<FrontEnd>>,
    pub(super) api_keys: Option<Vec<ApiKey>>,
    pub(super) body_user: Option<Text>,
    pub(super) anonymous: Option<Text>,
    pub(super) allow_insecure: Option<Text>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FrontEnd {
    pub(super) name: Text,
    pub(super) key: Text,
    pub(super) networks: Option<Vec<Text>>,
    pub(super) user: Text,
    pub(super) jwt: Option<Spanned<Jwt>>,
    pub(super) tools: Option<Text>,
    pub(super) meta_headers: Option<Text>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Jwt {
    pub(super) secrets: Vec<Text>,
    pub(super) issuer: Option<Text>,
    pub(super) leeway: Option<Text>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApiKey {
    pub(super) user: Text,
    pub(super) key: Text,
    pub(super) tools: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Workspaces {
    pub(super) root: Option<Text>,
    pub(super) template: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Models {
    pub(super) main: Option<Text>,
    pub(super) small: Option<Text>,
    pub(super) unknown: Option<Text>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Provider {
    pub(super) npm: Text,
    pub(super) name: Option<Text>,
    pub(super) base_url: Option<Text>,
    pub(super) key: Option<Text>,
    pub(super) models: Option<Entries<Option<Model>>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    pub(super) name: Option<Text>,
    pub(super) context: Option<Text>,
    pub(super) output: Option<Text>,
    pub(super) tools: Option<Text>,
    pub(super) reasoning: Option<Text>,
    pub(super) images: Option<Text>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Personas {
    pub(super) directory: Option<Text>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Integration {
    pub(super) url: Text,
    pub(super) headers: Option<Entries<Text>>,
    pub(super) timeout: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Runners {
    pub(super) launcher: Option<Text>,
    pub(super) dialect: Option<Text>,
    pub(super) process: Option<Process>,
    #[serde(rename = "static")]
    pub(super) fixed: Option<Static>,
    pub(super) max_running: Option<Text>,
    pub(super) max_starting: Option<Text>,
    pub(super) start_timeout: Option<Text>,
    pub(super) queue_timeout: Option<Text>,
    pub(super) idle_after: Option<Text>,
    pub(super) stop_timeout: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Process {
    pub(super) command: Option<Vec<Text>>,
    pub(super) data: Option<Text>,
    pub(super) environment: Option<Entries<Text>>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Static {
    pub(super) url: Option<Text>,
    pub(super) password: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Turns {
    pub(super) permission: Option<Text>,
    pub(super) permissions: Option<Entries<Text>>,
    pub(super) tools: Option<Text>,
    pub(super) keep_alive: Option<Text>,
    pub(super) memory: Option<Text>,
    pub(super) max_chats: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) body: Option<Text>,
    pub(super) json_depth: Option<Text>,
    pub(super) headers: Option<Text>,
    pub(super) header_deadline: Option<Text>,
    pub(super) body_deadline: Option<Text>,
    pub(super) turn: Option<Text>,
    pub(super) idle: Option<Text>,
    pub(super) first_byte: Option<Text>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) workspace_routing: Option<Text>,
}

/// A scalar as written, before anything is substituted, and where it stands.
#[derive(Clone)]
pub(super) struct Text {
    pub(super) written: String,
    line: u64,
    column: u64,
}

impl Text {
    /// A value that stands nowhere, for showing.
    pub(super) fn new(written: impl Into<String>) -> Self {
        Self { written: written.into(), line: 0, column: 0 }
    }

    /// Line and column, from 1.
    pub(super) fn position(&self) -> (u64, u64) {
        (self.line, self.column)
    }
}

/// It may be a secret in the wrong place.
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<text at {}:{}>", self.line, self.column)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<String>::deserialize(deserializer)?;
        if value.len() > LONGEST {
            return Err(serde::de::Error::custom("the value is longer than 64 KiB"));
        }
        Ok(Self { written: value, line: referenced.line(), column: referenced.column() })
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.written.as_str(), self.written.parse::<u64>()) {
            ("true", _) => serializer.serialize_bool(true),
            ("false", _) => serializer.serialize_bool(false),
            (text, Ok(number)) if number.to_string() == text => serializer.serialize_u64(number),
            (text, _) => serializer.serialize_str(text),
        }
    }
}

/// A mapping whose keys the user chose, in the order they are written.
#[derive(Debug)]
pub(super) struct Entries<T>(pub(super) Vec<(Text, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(InOrder(std::marker::PhantomData))
    }
}

impl<T: Serialize> Serialize for Entries<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (&key.written, value)))
    }
}

impl File {
    /// Reads YAML that may come from anywhere, within the budgets below.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        if let Some(nul) = text.find('\0') {
            let before = &text[..nul];
            let line = before.matches('\n').count() as u64 + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u64 + 1;
            return Err(Problem::new("a NUL byte", "save the file as plain UTF-8 text")
                .in_place((line, column)));
        }
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_events: 100_000,
                max_nodes: 50_000,
                max_depth: 32,
                flow_nesting_limit: 32,
                max_documents: 2,
                max_anchors: 100,
                max_aliases: 100,
                max_recorded_anchor_bytes: MAX_SIZE,
                max_total_scalar_bytes: 4 * MAX_SIZE,
            },
            alias_limits: serde_saphyr::alias_limits! {
                max_total_replayed_events: 10_000,
                max_replay_stack_depth: 8,
            },
            reject_unsupported_tags: true,
            // A snippet would show the lines around, and with them secrets in the wrong place.
            with_snippet: false,
        };
        serde_saphyr::from_str_with_options(text, options).map_err(|e| Problem::of_yaml(&e))
    }
}

/// Reads the text of the file at `path`, which may be no larger than [`MAX_SIZE`].
pub(super) fn read(path: &Path) -> Result<String, Problem> {
    let failed = |hint: &str, e: std::io::Error| {
        Problem::new(format!("the file cannot be read: {e}"), hint.to_owned())
    };
    let file = std::fs::File::open(path)
        .map_err(|e| failed("name the configuration file with --config", e))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Problem::new("this is a directory", "name the file in it"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_SIZE as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| failed("check the file and its permissions", e))?;
    if bytes.len() > MAX_SIZE {
        return Err(Problem::new(
            "the file is larger than 1 MiB",
            "is this the configuration? conf/gateway.yaml is one",
        ));
    }
    String::from_utf8(bytes).map_err(|e| {
        let before = String::from_utf8_lossy(&e.as_bytes()[..e.utf8_error().valid_up_to()]);
        let line = before.matches('\n').count() as u64 + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u64 + 1;
        Problem::new("a byte that is not UTF-8", "save the file as plain UTF-8 text")
            .in_place((line, column))
    })
}

/// The largest file that is read.
pub(super) const MAX_SIZE: usize = 1 << 20;
/// The longest value; aliases may repeat it.
const LONGEST: usize = 64 << 10;
