//! What README says, word for word, and what the command line promises.

use std::{fs, net::TcpListener, path::Path, process::Output};

use crate::{
    settings::{JWT_SECRET, Settings, workspace_id},
    stand::{OPEN_PERSONA, Stand, free_port},
};

const SECRET: &str = "a-provider-key-that-must-never-be-printed";
/// What README's pieces of a config are added to.
const PROVIDER: &str = "models: { main: demo/demo }
providers:
  demo:
    npm: '@ai-sdk/openai-compatible'
    base_url: http://127.0.0.1:8001/v1
    models: { demo: {} }
";

/// README from `heading` on.
fn readme_from(heading: &str) -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).expect("README.md");
    readme.split_once(heading).expect("the heading").1.to_owned()
}

/// The first block of `language` in `text`.
fn block_of(text: &str, language: &str) -> String {
    let block = text.split_once(&format!("```{language}\n")).expect("a block").1;
    block.split_once("```").expect("the block's end").0.to_owned()
}

/// The commands of the first block after `heading` in README.
fn readme_commands(heading: &str) -> Vec<String> {
    let block = block_of(&readme_from(heading), "sh").replace("\\\n", "");
    block.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

fn output_of(stand: &Stand, command: &str) -> String {
    let output = stand.command("bash").args(["-c", command]).output().expect("bash");
    assert!(output.status.success(), "{command}\n{}", everything(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn everything(output: &Output) -> String {
    let (said, complained) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(said), String::from_utf8_lossy(complained))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_commands_do_what_it_says() {
    // The commands name port 8000. Where somebody has it, only that number is changed.
    let taken = TcpListener::bind(("127.0.0.1", 8000)).is_err();
    let port = if taken { free_port() } else { 8000 };
    let stand = Stand::start_on(port, Settings::shipped());
    let run = |command: &str| output_of(&stand, &command.replace(":8000", &format!(":{port}")));

    let commands = readme_commands("## See for yourself");
    let [chat, hash, about] = &commands[..] else { panic!("three commands, not {commands:?}") };
    assert!(chat.contains("http://127.0.0.1:8000/v1/chat/completions"), "{chat}");
    assert!(chat.contains(r#""user":"testuser""#), "{chat}");
    assert!(run(chat).contains("chat.completion"));
    assert_eq!(hash, "echo -n testuser | sha256sum | cut -c1-16");
    let id = run(hash);
    assert_eq!(id.trim(), workspace_id("testuser"));
    assert_eq!(*about, format!("cat workspaces/{}/openwebui.config", id.trim()));
    let about: serde_json::Value = serde_json::from_str(&run(about)).unwrap();
    assert_eq!(about["openwebui_user"]["id"], "testuser");
    assert_eq!(about["openwebui_user"]["source"], "body");
    assert_eq!(about["workspace"]["hash"], id.trim());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_settings_are_accepted() {
    let stand = Stand::start(Settings::shipped());
    for heading in ["### From Open WebUI", "### From an OpenAI SDK"] {
        let settings = block_of(&readme_from(heading), "yaml") + PROVIDER;
        fs::write(stand.path("conf/readme.yaml"), &settings).unwrap();
        let mut check = stand.command(OPEN_PERSONA);
        check.args(["check", "--config", "conf/readme.yaml"]);
        for name in ["OPEN_PERSONA_KEY", "FORWARD_USER_INFO_HEADER_JWT_SECRET"] {
            check.env(name, JWT_SECRET);
        }
        let output = check.output().expect("it runs");
        assert!(output.status.success(), "{settings}\n{}", everything(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_workspace_id_is_the_start_of_the_users_digest() {
    let stand = Stand::start(Settings::shipped());
    let id = output_of(&stand, &format!("{OPEN_PERSONA} workspace id testuser"));
    assert_eq!(id.trim(), workspace_id("testuser"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checked_config_is_printed_without_its_secrets() {
    let settings = Settings::strict()
        .with_key("alice", "alice-key")
        .with_variable("SOME_SECRET", SECRET)
        .with_runner_secret("SOME_SECRET");
    let stand = Stand::start(settings);
    let printed = output_of(&stand, &format!("{OPEN_PERSONA} check --config conf/gateway.yaml"));
    assert!(printed.contains("***"), "{printed}");
    assert!(printed.contains("127.0.0.1"), "{printed}");
    for secret in [SECRET, JWT_SECRET] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_config_is_refused_with_its_place() {
    let stand = Stand::start(Settings::shipped());
    let check = |text: &str| {
        fs::write(stand.path("conf/wrong.yaml"), text).unwrap();
        let mut command = stand.command(OPEN_PERSONA);
        let output = command.args(["check", "--config", "conf/wrong.yaml"]).output().unwrap();
        (output.status.code(), everything(&output))
    };
    let good = fs::read_to_string(stand.config()).unwrap();
    let lines = good.lines().count();
    let (code, said) = check(&format!("{good}\nno_such_key: 1\n"));
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("no_such_key"), "{said}");
    assert!(said.contains(&(lines + 2).to_string()), "the line {} is named: {said}", lines + 2);

    let output = stand.command(OPEN_PERSONA).args(["serve", "--no-such-flag"]).output().unwrap();
    assert_ne!(output.status.code(), Some(0));
    assert!(everything(&output).contains("--no-such-flag"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_has_a_help_text() {
    let stand = Stand::start(Settings::shipped());
    for command in ["", "serve", "check", "workspace", "workspace id", "usage", "demo-model"] {
        let text = output_of(&stand, &format!("{OPEN_PERSONA} {command} --help"));
        assert!(text.contains("Usage: open-persona"), "{command}: {text}");
        assert!(text.lines().count() >= 5, "{command}: {text}");
    }
}
