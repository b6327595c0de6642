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
    let mut wishes = Map::new();
    for (name, member, _) in
        members(&parse(text)?).into_iter().filter(|(_, _, mark)| mark.is_none())
    {
        let section = SECTIONS.contains(&name.as_str()).then(|| member.object_value()).flatten();
        let value = match section {
            Some(section) => members(&section)
                .into_iter()
                .filter(|(_, _, mark)| mark.is_none())
                .filter_map(|(name, member, _)| Some((name, plain(&member)?)))
                .collect::<Map<_, _>>()
                .into(),
            None => match plain(&member) {
                Some(value) => value,
                None => continue,
            },
        };
        wishes.insert(name, value);
    }
    Ok(wishes.into())
}

/// Adds what is missing to `text`, brings our entries up to date and keeps all else as it is
/// written. `None` when there is nothing to do.
pub(super) fn edit(text: &str, entries: &[Entry]) -> Option<String> {
    let top = parse(text).ok()?;
    if top.get("$schema").is_none() {
        top.insert(0, "$schema", SCHEMA.into());
    }
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
        ours.iter().for_each(|entry| put(&object, entry));
    }
    let root = top.root_node()?.to_string();
    (root != text && parse(&root).is_ok()).then_some(root)
}

fn put(object: &CstObject, entry: &Entry) {
    let found = members(object).into_iter().find(|(name, ..)| *name == entry.name);
    match found {
        None => {
            let member = object.append(&entry.name, input(&entry.value));
            if let Some(name) = member.name().and_then(|name| name.as_string_lit()) {
                name.set_raw_value(format!("{MARK} {}", name.raw_value()));
            }
        }
        Some((_, member, Some(_))) if plain(&member).as_ref() != Some(&entry.value) => {
            member.set_value(input(&entry.value));
        }
        Some(_) => {}
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
fn parse(text: &str) -> Result<CstObject, String> {
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
    root.object_value().ok_or_else(|| "it does not hold an object".to_owned())
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
        let text = "{\n  // mine\n  \"model\": \"openai/x\", // because\n}\n";
        assert_eq!(edit(text, &[]).unwrap(), "");
    }

    #[test]
    fn ours_are_added_behind_a_mark_and_the_rest_stays() {
        let text = r#"// top
{
  "$schema": "x",
  /* why */ "theme": "dark", // nice
  "agent": {
    "mine": { "prompt": "p" } // keep
  }
  // end
}
"#;
        assert_eq!(edit(text, &entries()).unwrap(), "");
    }
}
