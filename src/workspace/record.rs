//! `openwebui.config`: who a workspace belongs to, written for people and for other programs.
//!
//! It is output. A runner can write what it likes there, so nothing is decided by what it says;
//! only the two members that mean nothing to us, `createdAt` and `notes`, are carried over.

use serde::Serialize;
use serde_json::Value;

use super::WorkspaceId;
use crate::gateway::identity::{Identity, Source};

/// Its name in a workspace.
pub(super) const NAME: &str = "openwebui.config";

#[derive(Serialize)]
struct Record<'a> {
    openwebui_user: User<'a>,
    workspace: Dates<'a>,
    notes: Value,
}

#[derive(Serialize)]
struct User<'a> {
    id: &'a str,
    username: Option<&'a str>,
    email: Option<&'a str>,
    source: &'static str,
    is_admin: Option<bool>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dates<'a> {
    hash: &'a str,
    created_at: i64,
    updated_at: i64,
}

/// The text that should replace `old`, or `None` when `old` already says all of it.
///
/// `created` is when the owner was recorded and stands in when `old` names no time of its own.
/// Times are Unix milliseconds.
pub(super) fn next(
    old: Option<&str>,
    identity: &Identity,
    id: &WorkspaceId,
    created: i64,
    now: i64,
) -> Option<String> {
    let old = old.and_then(|text| serde_json::from_str::<Value>(text).ok()).unwrap_or_default();
    let time = |name: &str| old["workspace"][name].as_i64().filter(|time| *time >= 0);
    let mut record = Record {
        openwebui_user: User {
            id: &identity.user,
            username: identity.name.as_deref(),
            email: identity.email.as_deref(),
            source: word(identity.source),
            is_admin: identity.is_admin(),
        },
        workspace: Dates {
            hash: id.as_str(),
            created_at: time("createdAt").unwrap_or(created),
            updated_at: time("updatedAt").unwrap_or(now),
        },
        notes: old["notes"].clone(),
    };
    if serde_json::to_value(&record).is_ok_and(|new| new == old) {
        return None;
    }
    record.workspace.updated_at = now;
    let mut text = serde_json::to_string_pretty(&record).ok()?;
    text.push('\n');
    Some(text)
}

/// The user that a record names, in the shape of today or the older one. Never to be trusted.
pub(super) fn named(text: &str) -> Option<String> {
    let record = serde_json::from_str::<Value>(text).ok()?;
    let user = &record["openwebui_user"];
    user.as_str().or_else(|| user["id"].as_str()).map(str::to_owned)
}

fn word(source: Source) -> &'static str {
    match source {
        Source::Jwt => "jwt",
        Source::Header => "header",
        Source::ApiKey => "api_key",
        Source::Body => "body",
        Source::Anonymous => "anonymous",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> Identity {
        Identity {
            user: "u-1".into(),
            source: Source::Jwt,
            name: Some("Ann".into()),
            email: None,
            role: Some("user".to_owned()),
        }
    }

    fn after(old: Option<&str>, now: i64) -> Option<String> {
        next(old, &ann(), &WorkspaceId::of("u-1"), 1000, now)
    }

    const FRESH: &str = r#"{
  "openwebui_user": {
    "id": "u-1",
    "username": "Ann",
    "email": null,
    "source": "jwt",
    "is_admin": false
  },
  "workspace": {
    "hash": "a24a7f55f278dd49",
    "createdAt": 1000,
    "updatedAt": 2000
  },
  "notes": null
}
"#;

    #[test]
    fn a_new_record_has_every_member_in_order() {
        assert_eq!(after(None, 2000).unwrap(), FRESH);
    }

    #[test]
    fn a_record_that_says_the_same_is_not_rewritten() {
        assert_eq!(after(Some(FRESH), 9000), None);
    }

    #[test]
    fn notes_and_the_creation_time_survive_a_rewrite() {
        let old = FRESH
            .replace("\"notes\": null", "\"notes\": {\"mine\": [1.0]}")
            .replace("1000", "77")
            .replace("Ann", "Anna");
        let new: Value = serde_json::from_str(&after(Some(&old), 9000).unwrap()).unwrap();
        assert_eq!(new["notes"], serde_json::json!({"mine": [1.0]}));
        assert_eq!(new["workspace"]["createdAt"], 77);
        assert_eq!(new["workspace"]["updatedAt"], 9000);
        assert_eq!(new["openwebui_user"]["username"], "Ann");
    }

    #[test]
    fn the_older_shape_is_upgraded() {
        let new = after(Some(r#"{"openwebui_user":"u-1"}"#), 2000).unwrap();
        assert_eq!(new, FRESH);
    }

    #[test]
    fn garbage_and_another_users_record_are_replaced() {
        let deep = "[".repeat(100_000);
        let odd = r#"{"openwebui_user":7,"workspace":{"createdAt":-1,"updatedAt":"x"}}"#;
        for old in ["", "not json", "[]", "null", "\"x\"", deep.as_str(), odd] {
            assert_eq!(after(Some(old), 2000).unwrap(), FRESH, "{}", &old[..old.len().min(40)]);
        }
        assert!(after(Some(&FRESH.replace("u-1", "u-2")), 2000).unwrap().contains("\"u-1\""));
        assert!(after(Some(&FRESH.replace("null,", "null, \"extra\": 1,")), 2000).is_some());
    }

    #[test]
    fn both_shapes_name_their_user() {
        assert_eq!(named(FRESH).as_deref(), Some("u-1"));
        assert_eq!(named(r#"{"openwebui_user":"u-1"}"#).as_deref(), Some("u-1"));
        assert_eq!(named("[]"), None);
    }
}
