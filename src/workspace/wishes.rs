//! `opencode.jsonc`: the user's wishes and, for a shared runner, our entries, in one readable file.
//!
//! An entry of ours stands behind [`MARK`]. It is kept up to date and is not a wish of the user's;
//! whoever removes the mark makes it theirs. Text in, text out: no files here.

use jsonc_parser::{
    ParseOptions,
    cst::{CstComment, CstInputValue, CstNode, CstObject, CstObjectProp, CstRootNode},
};
use serde_json::{Map, Value};

use super::entries::Entry;

/// Its name in a workspace.
pub(super) const NAME: &str = "opencode.jsonc";

/// The file of a workspace that has none. It pins no model, so that a later default takes effect.
pub(super) const FRESH: &str = r#"// Settings of the agent in this workspace, see https://opencode.ai/docs/config
// What is set here comes before the gateway's defaults; what is not set follows them.
// An entry behind /* open-persona */ is the gateway's, which keeps it up to date. Remove that
// comment to make the entry yours.
{
  "$schema": "https://opencode.ai/config.json",

  // The model that answers, and a small one for side work:
  // "model": "openai/gpt-5",
  // "small_model": "openai/gpt-5-mini",
}
"#;

const SCHEMA: &str = "https://opencode.ai/config.json";
const MARK: &str = "/* open-persona */";
/// The objects at the top in which we keep entries.
const SECTIONS: [&str; 3] = ["agent", "mcp", "tools"];
/// Entries without a use that are removed in one go; a hostile file may hold very many.
const MOST_REMOVED: usize = 64;

/// Reads the user's wishes as plain JSON, without our entries. `Err` says what is wrong and where,
/// and quotes nothing.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let (_root, top) = parse(text)?;
    let mut wishes = Map::new();
    for (name, member) in theirs(&top) {
        let section = if SECTIONS.contains(&name.as_str()) { member.object_value() } else { None };
        let value = match section {
            Some(section) => {
                let members = theirs(&section);
                Some(members.filter_map(|(name, it)| Some((name, plain(&it)?))).collect())
            }
            None => plain(&member),
        };
        wishes.extend(value.map(|value| (name, value)));
    }
    Ok(wishes.into())
}

fn theirs(object: &CstObject) -> impl Iterator<Item = (String, CstObjectProp)> {
    members(object).into_iter().filter_map(|(name, it, mark)| mark.is_none().then_some((name, it)))
}

/// Adds what is missing to `text`, brings our entries up to date and keeps all else as it is
/// written. `None` when there is nothing to do.
pub(super) fn edit(text: &str, entries: &[Entry]) -> Option<String> {
    let (root, top) = parse(text).ok()?;
    if top.get("$schema").is_none() {
        top.insert(0, "$schema", SCHEMA.into());
    }
    let mut added = Vec::new();
    for section in std::iter::once(None).chain(SECTIONS.map(Some)) {
        let ours: Vec<_> = entries.iter().filter(|entry| entry.section == section).collect();
        let object = match section {
            None => top.clone(),
            // Nothing is made that stays empty, and what is not an object is the user's affair.
            Some(name) if ours.is_empty() && top.get(name).is_none() => continue,
            Some(name) => match top.object_value_or_create(name) {
                Some(object) => object,
                None => continue,
            },
        };
        // Without entries at all, runners do not read this file: there is nothing to tidy.
        if !entries.is_empty() {
            remove_unused(&object, &ours);
        }
        added.extend(ours.iter().filter_map(|entry| put(&object, entry)));
    }
    // Last, because the tree can no longer tell the name of a member behind a mark.
    added.iter().for_each(mark);
    let edited = root.to_string();
    (edited != text && parse(&edited).is_ok()).then_some(edited)
}

/// Brings `entry` up to date, unless it is the user's own. Returns it when it is new.
fn put(object: &CstObject, entry: &Entry) -> Option<CstObjectProp> {
    match members(object).into_iter().find(|(name, ..)| *name == entry.name) {
        None => return Some(object.append(&entry.name, input(&entry.value))),
        Some((_, member, Some(_))) if plain(&member).as_ref() != Some(&entry.value) => {
            member.set_value(input(&entry.value));
        }
        Some(_) => {}
    }
    None
}

fn mark(member: &CstObjectProp) {
    if let Some(name) = member.name().and_then(|name| name.as_string_lit()) {
        name.set_raw_value(format!("{MARK} {}", name.raw_value()));
    }
}

fn remove_unused(object: &CstObject, ours: &[&Entry]) {
    let unused = members(object).into_iter().filter_map(|(name, member, mark)| {
        let used = ours.iter().any(|entry| entry.name == name);
        (!used).then_some((member, mark?))
    });
    for (member, mark) in unused.take(MOST_REMOVED) {
        mark.remove();
        member.remove();
    }
}

/// The object's members in order, each with our mark if it stands behind one. One pass: asking
/// each member for its siblings would take a time that grows with the square of their number.
fn members(object: &CstObject) -> Vec<(String, CstObjectProp, Option<CstComment>)> {
    let mut found = Vec::new();
    let mut mark = None;
    for child in object.children() {
        if let Some(member) = child.as_object_prop() {
            let mark = mark.take();
            found.extend(member.decoded_name().map(|name| (name, member, mark)));
        } else if let Some(comment) = child.as_comment() {
            mark = (comment.raw_value() == MARK).then_some(comment);
        } else if !child.is_whitespace() {
            mark = None;
        }
    }
    found
}

/// Only what opencode itself reads: JSON with comments and trailing commas.
///
/// The tree ends with its root, so that the object must not be used without it.
fn parse(text: &str) -> Result<(CstRootNode, CstObject), String> {
    let options = ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let root = CstRootNode::parse(text, &options).map_err(|error| {
        let line = error.line_display();
        let column = error.column_display();
        format!("{} on line {line} column {column}", error.kind())
    })?;
    match root.object_value() {
        Some(object) => Ok((root, object)),
        None => Err("it does not hold an object".to_owned()),
    }
}

fn plain(member: &CstObjectProp) -> Option<Value> {
    member.value().as_ref().and_then(CstNode::to_serde_value)
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(it) => CstInputValue::Bool(*it),
        Value::Number(it) => CstInputValue::Number(it.to_string()),
        Value::String(it) => CstInputValue::String(it.clone()),
        Value::Array(it) => CstInputValue::Array(it.iter().map(input).collect()),
        Value::Object(it) => {
            CstInputValue::Object(it.iter().map(|(name, it)| (name.clone(), input(it))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entries() -> Vec<Entry> {
        let entry = |section, name: &str, value| Entry { section, name: name.into(), value };
        vec![
            entry(None, "model", json!("openai/gpt-5")),
            entry(Some("agent"), "izzy", json!({"prompt": "Be \"kind\".\n"})),
            entry(Some("tools"), "grants*", json!(false)),
        ]
    }

    #[test]
    fn a_hand_written_file_only_gains_the_schema() {
        let text = r#"{
  // mine
  "model": "openai/x", // because
}
"#;
        let edited = r#"{
  "$schema": "https://opencode.ai/config.json",
  // mine
  "model": "openai/x", // because
}
"#;
        assert_eq!(edit(text, &[]).unwrap(), edited);
        assert_eq!(edit(edited, &[]), None);
    }

    const THEIRS: &str = r#"// top
{
  "$schema": "x",
  /* why */ "theme": "dark", // nice
  "agent": {
    "mine": { "prompt": "p" } // keep
  }
  // end
}
"#;

    const BOTH: &str = r#"// top
{
  "$schema": "x",
  /* why */ "theme": "dark", // nice
  "agent": {
    "mine": { "prompt": "p" }, // keep
    /* open-persona */ "izzy": {
      "prompt": "Be \"kind\".\n"
    }
  },
  /* open-persona */ "model": "openai/gpt-5",
  "tools": {
    /* open-persona */ "grants*": false
  }
  // end
}
"#;

    #[test]
    fn ours_are_added_behind_a_mark_and_the_rest_stays() {
        assert_eq!(edit(THEIRS, &entries()).unwrap(), BOTH);
        assert_eq!(edit(BOTH, &entries()), None);
    }

    #[test]
    fn ours_are_no_wishes() {
        let wishes = json!({
            "$schema": "x",
            "theme": "dark",
            "agent": {"mine": {"prompt": "p"}},
            "tools": {},
        });
        assert_eq!(read(BOTH).unwrap(), wishes);
    }

    #[test]
    fn ours_are_kept_up_to_date_and_removed_when_nobody_needs_them() {
        let mut entries = entries();
        entries[0].value = json!("openai/later");
        entries.remove(1);
        let edited = r#"// top
{
  "$schema": "x",
  /* why */ "theme": "dark", // nice
  "agent": {
    "mine": { "prompt": "p" } // keep
  },
  /* open-persona */ "model": "openai/later",
  "tools": {
    /* open-persona */ "grants*": false
  }
  // end
}
"#;
        assert_eq!(edit(BOTH, &entries).unwrap(), edited);
    }

    #[test]
    fn an_entry_without_the_mark_is_the_users_and_stays() {
        let text = BOTH.replace("/* open-persona */ ", "").replace("gpt-5", "theirs");
        assert_eq!(edit(&text, &entries()), None);
        assert_eq!(read(&text).unwrap()["model"], "openai/theirs");
        let odd = r#"{"$schema": "", "agent": 7, "model": null, "tools": []}"#;
        assert_eq!(edit(odd, &entries()), None);
    }

    #[test]
    fn a_file_on_one_line_and_one_with_crlf_keep_parsing() {
        for text in ["{}", "{ \"theme\": \"dark\" } // x", "{\r\n  \"theme\": \"dark\"\r\n}\r\n"] {
            let edited = edit(text, &entries()).unwrap();
            assert_eq!(edit(&edited, &entries()), None, "{edited}");
            assert_eq!(read(&edited).unwrap().get("theme"), read(text).unwrap().get("theme"));
            let crlf = |text: &str| text.contains("\r\n");
            assert_eq!(crlf(&edited), crlf(text));
        }
    }

    #[test]
    fn the_fresh_file_pins_no_model_and_may_be_uncommented_as_it_is() {
        assert_eq!(read(FRESH).unwrap(), json!({"$schema": SCHEMA}));
        assert_eq!(edit(FRESH, &[]), None);
        let chosen = FRESH.replace("// \"", "\"");
        assert_eq!(read(&chosen).unwrap()["small_model"], "openai/gpt-5-mini");
    }

    #[test]
    fn a_file_full_of_false_entries_loses_some_at_a_time() {
        let many: Vec<_> = (0..200).map(|n| format!("{MARK} \"a{n}\": 1")).collect();
        let edited = edit(&format!("{{{}}}", many.join(",\n")), &entries()).unwrap();
        assert_eq!(edited.matches(MARK).count(), 200 - MOST_REMOVED + entries().len());
    }
}
