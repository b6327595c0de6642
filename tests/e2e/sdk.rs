//! OpenAI's own clients read what the gateway says.

use std::{path::Path, process::Command};

use crate::{settings::Settings, stand::Stand};

const KEY: &str = "alice-key-for-the-sdk-tests";

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_understands_every_kind_of_reply() {
    understands("target/tools/python/bin/python", "sdk.py");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_sdk_understands_every_kind_of_reply() {
    understands("node", "sdk.mjs");
}

fn understands(program: &str, script: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sdk = root.join("target/tools/sdk/node_modules/openai");
    let python = root.join("target/tools/python/bin/python");
    assert!(sdk.exists() && python.exists(), "OpenAI's SDKs are not installed: run `make deps`");

    let stand = Stand::start(Settings::strict().with_key("alice", KEY).with_demo_delay_ms(20));
    let output = Command::new(program)
        .current_dir(root)
        .arg(root.join("tests/e2e").join(script))
        .env("BASE_URL", format!("{}/v1", stand.url))
        .env("KEY", KEY)
        .env("NODE_SDK", sdk)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} failed:\n{said}{complained}");
    assert_eq!(said.trim_end(), "streaming, whole, models, errors: understood");
}
