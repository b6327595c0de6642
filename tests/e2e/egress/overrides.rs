//! A runner's own files do not lead it past the egress.

use std::path::{Path, PathBuf};

use super::{
    ADMIN_KEY,
    evil::{Evil, poison, put},
    front_end, runner, settings,
};
use crate::{
    client::prompt,
    provider::{Provider, Style},
    settings::workspace_id,
    stand::Stand,
};

/// A runner's home, and its opencode's directories of every kind.
fn own_directories(pid: i32) -> Vec<PathBuf> {
    let environment = runner::environment(pid);
    let of = |name: &str| environment.get(name).map(PathBuf::from);
    let home = of("HOME").expect("a home");
    let xdg = ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"];
    let mut all: Vec<PathBuf> =
        xdg.into_iter().filter_map(of).map(|directory| directory.join("opencode")).collect();
    all.extend([".opencode", ".config/opencode", ".local/share/opencode"].map(|it| home.join(it)));
    all.push(home);
    all
}

async fn stays_on_the_way(stand: &Stand, provider: &Provider, evil: &Evil, style: Style) {
    runner::kill(stand, style).await;
    let before = provider.ledger().told;
    let ask = prompt("[[delegate run echo still here]]");
    let answer = front_end(stand, "alice").ask(&ask).await;
    assert!(answer.text().contains("still here"), "{style:?}: {answer:?}");
    let ledger = provider.ledger();
    assert_eq!(ledger.told - before, 4, "{style:?}: {ledger:?}");
    assert_eq!(ledger.of(ADMIN_KEY, "m1").calls, ledger.told, "{style:?}: {ledger:?}");
    assert_eq!(elsewhere(evil), [""; 0], "{style:?}: the runner went elsewhere");
}

/// What went to the evil server, but for plugins: opencode 1.18 downloads those that a workspace's file
/// names, although that file counts for nothing else, and then runs none of them (which would show).
fn elsewhere(evil: &Evil) -> Vec<String> {
    let mut visits = evil.visits();
    visits.retain(|visit| !visit.starts_with("GET /plugin/") || visit.contains("opr-"));
    visits
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_runner_writes_into_its_workspace_it_stays_on_the_way_to_the_egress() {
    for style in Style::ALL {
        let (provider, evil) = (Provider::start().await, Evil::start().await);
        let stand = Stand::start(settings(style, &provider));
        front_end(&stand, "alice").ask(&prompt("Hello")).await.text();
        poison(&stand.path("workspaces").join(workspace_id("alice")), &evil, style);
        stays_on_the_way(&stand, &provider, &evil, style).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_runner_writes_into_its_own_home_it_stays_on_the_way_to_the_egress() {
    let (style, provider, evil) = (Style::Chat, Provider::start().await, Evil::start().await);
    let stand = Stand::start(settings(style, &provider));
    front_end(&stand, "alice").ask(&prompt("Hello")).await.text();
    let pid = runner::only(&stand);
    let config = runner::environment(pid).remove("OPENCODE_CONFIG");
    for directory in own_directories(pid) {
        poison(&directory, &evil, style);
    }
    if let Some(config) = config {
        put(Path::new(&config), &evil.config(style, "OPENCODE_CONFIG"));
    }
    // Above all workspaces, where opencode looks as well.
    poison(&stand.path("workspaces"), &evil, style);
    stays_on_the_way(&stand, &provider, &evil, style).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_runner_that_is_told_of_another_provider_stays_on_the_way_to_the_egress() {
    let (style, provider, evil) = (Style::Chat, Provider::start().await, Evil::start().await);
    let stand = Stand::start(settings(style, &provider));
    front_end(&stand, "alice").ask(&prompt("Hello")).await.text();
    poison(&stand.path("workspaces").join(workspace_id("alice")), &evil, style);
    let answer = front_end(&stand, "alice").ask(&prompt("[[echo still here]]")).await;
    assert!(answer.text().contains("still here"), "{answer:?}");
    assert_eq!((elsewhere(&evil).len(), provider.ledger().told), (0, 2));
}
