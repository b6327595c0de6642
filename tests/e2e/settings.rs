//! What a stand's gateway is told: the shipped development config, or one written here.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::stand::OPEN_PERSONA;

/// The key of the front end that every written config has.
pub(crate) const FRONT_END_KEY: &str = "front-end-key-for-tests";
/// The key of the front end that signs who its users are.
pub(crate) const JWT_FRONT_END_KEY: &str = "jwt-front-end-key-for-tests";
/// The secret that front end signs with.
pub(crate) const JWT_SECRET: &str = "a-secret-for-tests-that-is-long-enough-0123456789";
/// Where the gateway finds that secret.
const JWT_VARIABLE: &str = "JWT_SECRET_FOR_TESTS";
/// Twenty starts at once on two busy cores, each of which takes seconds on one that is free.
const PATIENCE: &str = "  max_starting: 4
  start_timeout: 10m
  queue_timeout: 10m
limits:
  idle: 10m
  first_byte: 10m
";

/// What a gateway is told.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The provider's base URL. Empty until the demo model has a port.
    pub(crate) model_url: String,
    /// The demo model's pause between two words.
    pub(crate) demo_delay_ms: u64,
    written: Option<Written>,
}

/// What varies in a written config.
#[derive(Debug, Clone)]
struct Written {
    dialect: &'static str,
    command: String,
    keys: Vec<(String, String)>,
    insecure: bool,
    linger: &'static str,
    environment: Vec<(String, String)>,
    /// The model in use; the demo model unless it is set.
    main: Option<String>,
    /// Providers besides the demo model, one a line.
    providers: String,
    extra: String,
    /// Sections after all others.
    sections: String,
}

impl Settings {
    /// The shipped `conf/gateway.yaml`, steered by the environment alone.
    pub(crate) fn shipped() -> Self {
        Self { model_url: String::new(), demo_delay_ms: 5, written: None }
    }

    /// A config with two front ends and no development identity.
    pub(crate) fn strict() -> Self {
        let written = Written {
            dialect: "opencode",
            command: "[opencode]".to_owned(),
            keys: Vec::new(),
            insecure: false,
            linger: "2m",
            environment: Vec::new(),
            main: None,
            providers: String::new(),
            extra: String::new(),
            sections: String::new(),
        };
        Self { written: Some(written), ..Self::shipped() }
    }

    /// Lets the body's `user` name the user, and anybody in without one.
    pub(crate) fn with_development_identities(mut self) -> Self {
        self.writing().insecure = true;
        self
    }

    /// Has answers cut that nobody waits for any more.
    pub(crate) fn without_linger(mut self) -> Self {
        self.writing().linger = "0s";
        self
    }

    /// Adds an API key for `user`.
    pub(crate) fn with_key(mut self, user: &str, key: &str) -> Self {
        self.writing().keys.push((user.to_owned(), key.to_owned()));
        self
    }

    /// Runners that speak OpenAI: the demo model, one for each workspace.
    pub(crate) fn with_openai_runners(mut self) -> Self {
        let written = self.writing();
        written.dialect = "openai";
        written.command = format!(
            r#"["{OPEN_PERSONA}", demo-model, --listen, "127.0.0.1:{{port}}", --delay, 0ms]"#
        );
        self
    }

    /// Starts runners with another command, written in YAML.
    pub(crate) fn with_command(mut self, command: &str) -> Self {
        command.clone_into(&mut self.writing().command);
        self
    }

    /// Uses another provider than the demo model.
    pub(crate) fn with_model(mut self, url: &str) -> Self {
        url.clone_into(&mut self.model_url);
        self
    }

    /// Adds a provider, written in YAML's braces.
    pub(crate) fn with_provider(mut self, id: &str, provider: &str) -> Self {
        writeln!(self.writing().providers, "  {id}: {provider}").expect("text");
        self
    }

    /// Has everybody use this model of an added provider, and starts no demo model.
    pub(crate) fn with_main(mut self, model: &str) -> Self {
        self.writing().main = Some(model.to_owned());
        self
    }

    /// Adds lines that begin sections no other setting writes.
    pub(crate) fn with_section(mut self, section: &str) -> Self {
        writeln!(self.writing().sections, "{section}").expect("text");
        self
    }

    /// Waits for runners' starts as long as the slowest machine takes for many at once.
    pub(crate) fn with_patience(mut self) -> Self {
        self.writing().extra.push_str(PATIENCE);
        self
    }

    /// Makes the demo model pause between two words.
    pub(crate) fn with_demo_delay_ms(mut self, delay: u64) -> Self {
        self.demo_delay_ms = delay;
        self
    }

    /// Gives every runner a secret, taken from the gateway's environment.
    pub(crate) fn with_runner_secret(mut self, name: &str) -> Self {
        writeln!(self.writing().extra, "    environment: {{ {name}: env:{name} }}").expect("text");
        self
    }

    /// Adds a variable to the gateway's environment.
    pub(crate) fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.writing().environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Whether there is a provider already.
    pub(crate) fn has_model(&self) -> bool {
        !self.model_url.is_empty()
            || self.written.as_ref().is_some_and(|written| written.main.is_some())
    }

    /// The gateway's environment.
    pub(crate) fn environment(&self, port: u16, egress: u16) -> Vec<(String, String)> {
        let mut all = vec![
            ("PORT".to_owned(), port.to_string()),
            ("EGRESS_PORT".to_owned(), egress.to_string()),
            ("DEFAULT_MAIN_MODEL".to_owned(), "demo/demo".to_owned()),
            ("DEMO_MODEL_URL".to_owned(), self.model_url.clone()),
            (JWT_VARIABLE.to_owned(), JWT_SECRET.to_owned()),
        ];
        all.extend(self.written.iter().flat_map(|written| written.environment.clone()));
        all
    }

    /// The config file, unless the shipped one is used.
    pub(crate) fn yaml(&self, port: u16, egress: u16) -> Option<String> {
        let Written { dialect, command, keys, insecure, linger, extra, sections, .. } =
            self.written.as_ref()?;
        let (main, providers) = self.models()?;
        let mut api_keys = String::new();
        for (user, key) in keys {
            write!(api_keys, "\n    - {{ user: {user}, key: \"{}\" }}", digest(key)).expect("text");
        }
        if keys.is_empty() {
            api_keys.push_str(" []");
        }
        Some(format!(
            r#"listen:
  address: 127.0.0.1:{port}
egress:
  address: 127.0.0.1:{egress}
  linger: {linger}
identity:
  front_ends:
    - name: plain
      key: "{plain}"
      user: headers
    - name: signed
      key: "{signed}"
      user: jwt
      jwt:
        secrets: [env:{JWT_VARIABLE}]
  api_keys:{api_keys}
  body_user: {insecure}
  anonymous: {insecure}
workspaces:
  root: ./workspaces
state: ./state
models:
  main: {main}
providers:
{providers}runners:
  dialect: {dialect}
  launcher: process
  process:
    command: {command}
{extra}{sections}"#,
            plain = digest(FRONT_END_KEY),
            signed = digest(JWT_FRONT_END_KEY),
        ))
    }

    /// The main model and the providers.
    fn models(&self) -> Option<(&str, String)> {
        let Written { main, providers, .. } = self.written.as_ref()?;
        if let Some(main) = main {
            return Some((main, providers.clone()));
        }
        let demo = format!(
            "  demo: {{ npm: \"@ai-sdk/openai-compatible\", base_url: \"{}\", models: {{ demo: {{}} }} }}\n",
            self.model_url
        );
        Some(("demo/demo", demo + providers))
    }

    fn writing(&mut self) -> &mut Written {
        self.written.as_mut().expect("the shipped config is not changed")
    }
}

/// How a key is stored.
fn digest(key: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(key)))
}

/// The id of a user's workspace.
pub(crate) fn workspace_id(user: &str) -> String {
    hex::encode(Sha256::digest(user))[..16].to_owned()
}
