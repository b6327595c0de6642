use std::path::Path;

use super::*;

const DEVELOPMENT: &str =
    "identity: {anonymous: true}\nproviders: {openai: {npm: '@ai-sdk/openai'}}\n";
const CANARY: &str = "canary-0123456789abcdef-0123456789abcdef";

fn nothing_set(_: &str) -> Option<String> {
    None
}

fn read(text: &str) -> Result<Config, ConfigError> {
    parse(Path::new("conf/x.yaml"), text, &nothing_set)
}

/// The development file with more in it.
fn with(more: &str) -> Result<Config, ConfigError> {
    read(&format!("{DEVELOPMENT}{more}"))
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name)
}

#[test]
fn the_shipped_file_shows_the_defaults_of_the_code() {
    let shipped = load(&shipped("gateway.yaml"), &nothing_set).unwrap();
    let mut built_in =
        read("identity: {anonymous: true, body_user: true}\nproviders: {openai: {npm: '@ai-sdk/openai'}}")
            .unwrap();
    assert!(shipped.providers.contains_key("demo"));
    // Providers have no default.
    built_in.providers.clone_from(&shipped.providers);
    built_in.personas.clone_from(&shipped.personas);
    assert_eq!(shipped.to_yaml(), built_in.to_yaml());
    let strict = read("identity: {api_keys: [{user: a, key: 'env?:X'}]}").unwrap_err();
    assert_eq!(strict.position(), Some((1, 38)), "development identities are off by default");
}

#[test]
fn the_shipped_file_names_every_key() {
    let text = std::fs::read_to_string(shipped("gateway.yaml")).unwrap();
    let environment = |name: &str| Some(format!("{CANARY}-{name}"));
    let yaml = parse(Path::new("x"), EVERYTHING, &environment).unwrap().to_yaml();
    let users_own = ["bash", "x-key", "crm", "openai", "m", "r", "a"];
    let keys = yaml
        .lines()
        .filter_map(|line| line.trim_start_matches([' ', '-']).split_once(':'))
        .map(|(key, _)| key.trim_matches('"'))
        .filter(|key| !key.starts_with('#') && !users_own.contains(key));
    let named = |key: &str| {
        text.lines().any(|line| {
            let mut words = line.split([' ', '#', '{', '(', '-', ',']);
            words.any(|word| word.strip_suffix(':').is_some_and(|word| word == key))
                // A model's members are in the comment above the first models.
                || line.contains(&format!(" {key} (")) || line.contains(&format!(" {key}: "))
        })
    };
    let mut count = 0;
    for key in keys {
        assert!(named(key), "`{key}` is not in conf/gateway.yaml");
        count += 1;
    }
    assert!(count > 60, "only {count} keys were looked for");
    assert!(named("directory") && named("static") && !named("nosuchkey"));
}

/// Every key that is not in what is shown of an empty file.
const EVERYTHING: &str = "
identity:
  front_ends:
    - {name: w, key: env:A, networks: [10.0.0.0/8], user: jwt, jwt: {secrets: [env:B]}}
  api_keys: [{user: a, key: env:D, role: r}]
roles: {r: {models: ['*'], budget: {day: {tokens: 1M, money: 0.5}}}}
users: {a: {role: r, models: [], budget: {month: {tokens: 5}}}}
providers:
  openai: {npm: x, base_url: 'http://x', key: env:C, models: {m: {prices: {input: 1.25}}}}
models: {main: gpt-5, small: openai/gpt-5-mini, unknown: open-persona/build}
workspaces: {template: ae5deb822e0d7199}
integrations: {crm: {url: 'https://x/', headers: {X-Key: 'plain:a'}}}
turns: {permissions: {bash: ask}}
";

#[test]
fn what_is_shown_can_be_read_again() {
    let environment = |name: &str| Some(format!("{CANARY}-{name}"));
    let read = |text: &str| parse(Path::new("x"), text, &environment).unwrap();
    let yaml = read(EVERYTHING).to_yaml();
    assert!(yaml.contains("***") && !yaml.contains("canary"));
    let again = (0..yaml.matches("***").count())
        .fold(yaml.clone(), |text, n| text.replacen("***", &format!("env:SECRET_{n}"), 1));
    assert_eq!(read(&again).to_yaml(), yaml);
}

#[test]
fn the_older_environment_names_still_work() {
    let environment = |name: &str| {
        let value = match name {
            "PORT" => "9000",
            "RUNNER_MODE" => "shared",
            "OPENCODE_BASE_URL" => "http://opencode:5000",
            "WORKSPACE_ROOT" => "/srv/unused",
            "WORKSPACES_DIR" => "/srv/workspaces",
            "DEFAULT_MAIN_MODEL" => "gpt-5-mini",
            "DEFAULT_SUBAGENT_MODEL" => "anthropic/claude-haiku-4-5",
            "TEMPLATE_WORKSPACE_HASH" => "ae5deb822e0d7199",
            "OPEN_PERSONA_DEFAULT_ANTHROPIC_API_KEY" => CANARY,
            "LOG_WORKSPACE_ROUTING" => "1",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let config = load(&shipped("gateway.yaml"), &environment).unwrap();
    assert_eq!(config.listen.address.to_string(), "127.0.0.1:9000");
    let address = Address::Tcp("opencode:5000".to_owned());
    assert_eq!(config.runners.launcher, LauncherKind::Static { address, password: None });
    assert_eq!(config.workspaces.root, Path::new("/srv/workspaces"));
    assert_eq!(config.workspaces.template, WorkspaceId::parse("ae5deb822e0d7199"));
    assert_eq!(config.models.main, ModelRef::parse("openai/gpt-5-mini"));
    assert_eq!(config.models.small, ModelRef::parse("anthropic/claude-haiku-4-5"));
    assert_eq!(config.providers["anthropic"].key, Some(Secret::new(CANARY)));
    assert_eq!(config.providers["openai"].key, None);
    assert!(config.log.workspace_routing);
    assert!(!config.to_yaml().contains("canary"));

    let containers = |name: &str| (name == "RUNNER_MODE").then(|| "container".to_owned());
    let refused = load(&shipped("gateway.yaml"), &containers).unwrap_err();
    assert!(refused.to_string().ends_with("does not start runners in containers yet"), "{refused}");
}

#[test]
fn the_strict_file_starts_once_its_secrets_are_set() {
    let refused = load(&shipped("production.yaml"), &nothing_set).unwrap_err();
    assert!(refused.to_string().contains("`OPEN_PERSONA_KEY` is not set"), "{refused}");
    let config = load(&shipped("production.yaml"), &|name| match name {
        "OPEN_PERSONA_KEY" | "FORWARD_USER_INFO_HEADER_JWT_SECRET" => Some(CANARY.to_owned()),
        _ => None,
    })
    .unwrap();
    assert!(!config.listen.address.ip().is_loopback());
    assert!(!config.identity.is_development());
    let UserClaim::Jwt { secrets, issuer, .. } = &config.identity.front_ends[0].user else {
        panic!("{config:?}")
    };
    assert_eq!((secrets.len(), issuer.as_str()), (1, "open-webui"));
    assert!(!config.to_yaml().contains("canary") && !format!("{config:?}").contains("canary"));
}

#[test]
fn strangers_are_not_let_in_by_accident() {
    for address in ["0.0.0.0:8000", "'[::]:8000'", "192.168.0.1:8000"] {
        let refused = with(&format!("listen: {{address: {address}}}")).unwrap_err();
        assert_eq!(refused.position(), Some((1, 23)));
        assert!(refused.hint().contains("identity.allow_insecure: true"), "{}", refused.hint());
    }
    for address in ["127.0.0.1:8000", "127.9.9.9:1", "'[::1]:8000'", "'[::ffff:127.0.0.1]:8000'"] {
        with(&format!("listen: {{address: {address}}}")).unwrap();
    }
    read(
        "identity: {body_user: true, allow_insecure: true}\nlisten: {address: 0.0.0.0:1}\n\
         providers: {openai: {npm: '@ai-sdk/openai'}}",
    )
    .unwrap();
    for nobody in ["", "{}", "---\n", "# only a comment", "identity: {}", "listen: {}"] {
        let refused = read(nobody).unwrap_err().to_string();
        assert!(refused.contains("nobody could call") || refused.contains("expected"), "{refused}");
    }
}

/// What is wrong is told with its place, and what to do; nothing of what is secret is.
#[test]
fn mistakes_are_told_with_their_place() {
    for (text, position, message) in [
        ("listen: {adress: 1}", (1, 10), "unknown key `adress`"),
        ("limits:\n  turn: 5 minuts\n", (2, 9), "`5 minuts` is not what belongs here"),
        ("limits:\n  body: 0\n", (2, 9), "`0` is not what belongs here"),
        ("limits: {body: 2GiB}", (1, 16), "`2GiB` is not what belongs here"),
        ("limits: {json_depth: 128}", (1, 22), "`128` is not what belongs here"),
        ("runners: {max_running: 0}", (1, 24), "`0` is not what belongs here"),
        ("listen: {threads: 0}", (1, 19), "`0` is not what belongs here"),
        ("listen: {address: localhost}", (1, 19), "`localhost` is not what belongs here"),
        ("log: {}\nlog: {}\n", (2, 1), "`log` is there twice"),
        ("listen: [1]", (1, 9), ""),
        ("listen: canary", (1, 9), ""),
        ("listen:\n\taddress: x", (2, 2), "not YAML: "),
        ("listen: {threads: [canary]}", (1, 19), ""),
        ("listen: {threads: !canary 1}", (1, 27), "YAML tags are not supported"),
        ("state: *canary", (1, 8), ""),
        ("state: \"a\\nb\"", (1, 8), "the value holds a line break"),
        ("state: ${HOME", (1, 8), "a `${` without its `}`"),
        ("state: ${HOME}", (1, 8), "the environment variable `HOME` is not set"),
        ("a: 1\n---\nb: 2\n", (1, 1), "unknown key `a`"),
        ("state: x\n---\nstate: y\n", (3, 1), "more than one YAML document"),
        ("log: {}\nstate: a\0b", (2, 9), "a NUL byte"),
        ("identity: {front_ends: [{name: x, user: headers}]}", (1, 35), "`key` is missing"),
        (
            "identity: {front_ends: [{name: x, key: canary, user: headers}]}",
            (1, 40),
            "a secret stands here in plain text",
        ),
        (
            "identity: {api_keys: [{user: x, key: 'sha256:canary'}]}",
            (1, 38),
            "`sha256:` is not followed",
        ),
        ("models: {main: gpt}", (1, 16), "`gpt` is not what belongs here"),
        ("models: {unknown: open-persona/none}", (1, 19), "`open-persona/none` is not"),
        ("workspaces: {template: '../../etc'}", (1, 24), "`../../etc` is not"),
        ("providers: {Open AI: {npm: x}}", (1, 13), "`Open AI` is not"),
        ("providers: {x: {npm: ../canary}}", (1, 22), "`../canary` is not"),
        (
            "providers: {x: {npm: x, base_url: 'http://x', key: canary}}",
            (1, 52),
            "a secret stands here in plain text",
        ),
        ("providers: {x: {npm: x}}", (1, 13), "nobody knows where the provider `x` is"),
        ("providers: {x: {npm: x, base_url: 'http://x', auth: basic}}", (1, 53), "`basic` is not"),
        ("providers: {x: {npm: x, base_url: 'http://x', paths: [../v2]}}", (1, 55), "`../v2` is"),
        (
            "providers: {x: {npm: x, base_url: 'http://x', tls: {ca: /no/such/file}}}",
            (1, 57),
            "the file of authorities /no/such/file cannot be read",
        ),
        (
            "providers: {x: {npm: x, base_url: 'http://x', models: {m: {prices: {input: free}}}}}",
            (1, 76),
            "`free` is not",
        ),
        ("egress: {address: '127.0.0.1:8000'}", (1, 19), "port 8000 is already that of"),
        ("egress: {address: '0.0.0.0:8002'}", (1, 19), "runners cannot connect to 0.0.0.0:8002"),
        ("egress: {url: 'http://x/y'}", (1, 15), "`http://x/y` is not"),
        ("roles: {a: {models: ['*/gpt']}}", (1, 22), "`*/gpt` is not"),
        ("roles: {a: {budget: {day: {tokens: lots}}}}", (1, 36), "`lots` is not"),
        ("users: {a: {role: admin}}", (1, 19), "`admin` is not"),
        ("providers: {x: {npm: x, base_url: 'http://canary@x/'}}", (1, 35), "a URL with a user"),
        ("integrations: {x: {url: 'file:///etc/passwd'}}", (1, 25), "this is not an http://"),
        ("integrations: {x: {url: 'http://x', headers: {A: canary}}}", (1, 50), "a secret stands"),
        (
            "runners: {launcher: docker}",
            (1, 21),
            "this version does not start runners in containers",
        ),
        (
            "runners: {launcher: static, static: {url: 'https://x'}}",
            (1, 43),
            "runners are spoken to without TLS",
        ),
        ("turns: {permission: ask}", (1, 21), "`ask` is not"),
        ("turns: {permissions: {bash: maybe}}", (1, 29), "`maybe` is not"),
    ] {
        let refused = read(text).expect_err(text);
        let told = refused.to_string();
        let (line, column) = position;
        let place = format!("conf/x.yaml:{line}:{column}: ");
        assert!(told.starts_with(&format!("{place}{message}")), "{text:?}\n{told}");
        assert!(told.len() > place.len() && !refused.hint().is_empty(), "{text:?}");
        let may_name = text.contains("../canary");
        assert!(may_name || !format!("{told}{}", refused.hint()).contains("canary"), "{told}");
    }
}

#[test]
fn front_ends_are_checked_as_a_whole() {
    let environment = |name: &str| match name {
        "KEY" => Some(CANARY.to_owned()),
        "SHORT" => Some("canary-of-31-bytes-0123456789ab".to_owned()),
        _ => None,
    };
    let read = |text: &str| parse(Path::new("x"), text, &environment);
    let front_end =
        |more: &str| format!("identity: {{front_ends: [{{name: w, key: env:KEY, {more}}}]}}");
    let launcher = "\nrunners: {launcher: static}";
    read(&(front_end("user: headers, networks: [10.0.0.0/8, '::1']") + launcher)).unwrap();
    read(&(front_end("user: jwt, jwt: {secrets: [env:KEY, env?:OLD]}") + launcher)).unwrap();
    for (more, message) in [
        ("user: jwt", "needs the secret that signs"),
        ("user: jwt, jwt: {secrets: []}", "there is no JWT secret"),
        ("user: jwt, jwt: {secrets: [env?:OLD]}", "there is no JWT secret"),
        ("user: jwt, jwt: {secrets: [env:SHORT]}", "shorter than 32 bytes"),
        ("user: headers, jwt: {secrets: [env:KEY]}", "plain headers would win"),
        ("user: body", "`body` is not what belongs here"),
        ("user: headers, networks: [everywhere]", "`everywhere` is not"),
        ("user: headers, tools: loud", "`loud` is not"),
        ("user: headers}, {name: w, user: headers, key: 'env:KEY'", "a second front end named `w`"),
        ("user: headers}, {name: v, user: headers, key: 'env:KEY'", "already another entry's"),
    ] {
        let refused = read(&front_end(more)).expect_err(more);
        assert!(refused.to_string().contains(message), "{more}: {refused}");
        assert!(refused.position().is_some() && !refused.to_string().contains("canary"));
    }
}

#[test]
fn a_variable_cannot_change_the_structure() {
    let hostile = [
        "x\nidentity: {allow_insecure: true}",
        "x\"}\nidentity: {anonymous: true}",
        "*anchor",
        "{a: b}",
        "[a]",
        "!!binary eA==",
        "${SECRET}",
        "null",
        "# comment",
        "'",
        "\u{2028}",
    ];
    for value in hostile {
        let environment = |name: &str| (name == "VALUE").then(|| value.to_owned());
        for quote in ["", "'", "\""] {
            let text = format!("{DEVELOPMENT}state: {quote}${{VALUE}}{quote}\n");
            match parse(Path::new("x"), &text, &environment) {
                Ok(config) => assert_eq!(config.state, Path::new(value)),
                Err(e) => assert!(value.contains('\n') && e.to_string().contains("line break")),
            }
        }
    }
}

#[test]
fn what_a_variable_holds_is_not_told() {
    let environment = |_: &str| Some("canary:/@?{".to_owned());
    for (key, place) in [
        ("listen: {address: ${S}}", "address"),
        ("listen: {threads: ${S}}", "threads"),
        ("limits: {body: ${S}}", "size"),
        ("models: {main: ${S}}", "model"),
        ("workspaces: {template: ${S}}", "template"),
        ("runners: {launcher: ${S}}", "launcher"),
        ("runners: {launcher: static, static: {url: ${S}}}", "url"),
        ("providers: {x: {npm: ${S}}}", "npm"),
        ("providers: {x: {npm: x, base_url: ${S}}}", "base_url"),
        ("providers: {x: {npm: x, key: ${S}}}", "key"),
        ("turns: {permissions: {bash: ${S}}}", "rule"),
    ] {
        let text = key.replace("${S}", "'${S}'");
        let refused = parse(Path::new("x"), &text, &environment).expect_err(place);
        let told = format!("{refused} {} {refused:?}", refused.hint());
        assert!(!told.contains("canary"), "{told}");
    }
}

#[test]
fn a_model_without_its_provider_is_refused_where_runners_are_ours() {
    let text = "identity: {anonymous: true}\nmodels: {main: acme/a}\nproviders: {openai: {npm: '@ai-sdk/openai'}}\n";
    assert_eq!(read(text).unwrap_err().position(), Some((2, 16)));
    read(&format!("{text}runners: {{launcher: static}}")).unwrap();
    assert!(read("identity: {anonymous: true}").unwrap_err().to_string().contains("openai/gpt-5"));
}

#[test]
fn our_own_files_are_kept_out_of_users_reach() {
    for text in [
        "state: ./workspaces/state",
        "state: workspaces",
        "runners: {process: {data: ./workspaces/x}}",
        "workspaces: {root: .}",
        "workspaces: {root: /}",
    ] {
        let refused = with(text).expect_err(text);
        assert!(refused.to_string().contains("within the workspaces' root"), "{refused}");
    }
}

#[test]
fn a_program_that_speaks_openai_needs_its_command() {
    assert!(with("runners: {dialect: openai}").is_err());
    let config =
        with("runners: {dialect: openai, process: {command: [./agent, '{port}']}}").unwrap();
    let LauncherKind::Process { command, .. } = config.runners.launcher else { panic!() };
    assert_eq!(command, ["./agent", "{port}"]);
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |content: &[u8]| {
        let path = directory.path().join("x.yaml");
        std::fs::write(&path, content).unwrap();
        load(&path, &nothing_set).unwrap_err().to_string()
    };
    assert!(refused(&vec![b'#'; (1 << 20) + 1]).ends_with("the file is larger than 1 MiB"));
    assert!(refused(b"log: {}\nst\xff").contains("x.yaml:2:3: a byte that is not UTF-8"));
    assert!(refused(b"\xff\xfel\0o\0g\0").contains("x.yaml:1:1: "));
    assert!(refused(b"%PDF-1.7\n").contains("x.yaml:"));
    let at = |path: &Path| load(path, &nothing_set).unwrap_err().to_string();
    assert!(at(directory.path()).ends_with(": this is a directory"));
    assert!(at(&directory.path().join("none")).contains("the file cannot be read: No such file"));
    assert!(at(Path::new("/dev/zero")).ends_with("the file is larger than 1 MiB"));
}

#[test]
fn bombs_are_refused_before_they_go_off() {
    let repeats = "the file is too deep, too long or repeats too much through aliases";
    let nested = |levels: usize| {
        let level =
            |n: usize| format!("&a{n} [{}]", [format!("*a{}", n - 1).as_str(); 9].join(","));
        let levels: Vec<_> = (1..levels).map(level).collect();
        format!("log: [&a0 [x], {}]", levels.join(","))
    };
    let long =
        format!("state: &s {}\nrunners: {{process: {{command: [*s]}}}}", "x".repeat(500_000));
    let command = |words: &str, times: usize| {
        format!("runners: {{process: {{command: [&s x, {}]}}}}", words.repeat(times))
    };
    for (bomb, message) in [
        (nested(12), ""),
        (format!("state: {}{}", "[".repeat(100_000), "]".repeat(100_000)), ""),
        (format!("turns: {{permissions: {{{}}}}}", "a: deny, ".repeat(100_000)), "`a` is there"),
        ("identity: &i {<<: *i}".to_owned(), ""),
        (long, "this is not what belongs here"),
        (command("*s, ", 100_000), repeats),
        (command("x, ", 100_000), repeats),
    ] {
        let told = read(&bomb).expect_err("a bomb").to_string();
        assert!(told.contains(message), "{told}");
    }
}

#[test]
fn a_secret_in_a_url_is_not_shown() {
    let config = with("integrations: {x: {url: 'https://x/mcp?key=canary'}}").unwrap();
    assert_eq!(config.integrations["x"].url.to_string(), "https://x/mcp?key=canary");
    assert!(!config.to_yaml().contains("canary"));
    assert!(config.to_yaml().contains("https://x/mcp?***"));
}

#[test]
fn the_personas_directory_is_beside_the_file_and_must_be_there_when_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.yaml");
    let text = format!("{DEVELOPMENT}personas:\n  directory: mine\n");
    let refused = parse(&path, &text, &nothing_set).unwrap_err();
    assert_eq!(refused.position(), Some((4, 14)));
    std::fs::create_dir(directory.path().join("mine")).unwrap();
    parse(&path, &text, &nothing_set).unwrap();
}
