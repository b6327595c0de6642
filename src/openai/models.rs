//! The answers of `GET /v1/models` and `GET /v1/models/{id}`.

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use crate::error::Refusal;

/// The list of all models. `created` is in seconds since 1970; OpenAI's clients want some number.
pub fn list<S: AsRef<str>>(ids: &[S], created: u64) -> Bytes {
    let data: Vec<Value> = ids.iter().map(|id| model(id.as_ref(), created)).collect();
    Bytes::from(json!({"object": "list", "data": data}).to_string())
}

/// The model `id`, or the refusal for one that is not among `ids`.
pub fn one<S: AsRef<str>>(ids: &[S], id: &str, created: u64) -> Result<Bytes, Refusal> {
    let known = ids.iter().any(|known| known.as_ref() == id);
    if known { Ok(Bytes::from(model(id, created).to_string())) } else { Err(not_found(id)) }
}

/// A 404 in OpenAI's words. The id comes back without control characters and cut to length.
pub fn not_found(id: &str) -> Refusal {
    let id: String = id.chars().filter(|char| !char.is_control()).take(100).collect();
    let message = format!(
        "The model `{id}` does not exist or you do not have access to it. \
         GET /v1/models lists those you can use."
    );
    Refusal::new(StatusCode::NOT_FOUND, "model_not_found", message).param("model")
}

/// A 400 for a request that names no model.
pub fn missing() -> Refusal {
    Refusal::bad_request("missing_member", "The request needs `model`.").param("model")
}

fn model(id: &str, created: u64) -> Value {
    json!({"id": id, "object": "model", "created": created, "owned_by": "open-persona"})
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [&str; 2] = ["open-persona/build", "open-persona/plan"];

    #[test]
    fn the_list_is_openais() {
        let list: Value = serde_json::from_slice(&list(&IDS, 7)).unwrap();
        assert_eq!(
            list,
            json!({"object": "list", "data": [
                {"id": "open-persona/build", "object": "model", "created": 7, "owned_by": "open-persona"},
                {"id": "open-persona/plan", "object": "model", "created": 7, "owned_by": "open-persona"},
            ]})
        );
    }

    #[test]
    fn a_model_is_found_by_its_exact_id() {
        let found: Value = serde_json::from_slice(&one(&IDS, IDS[1], 7).unwrap()).unwrap();
        assert_eq!(found["id"], "open-persona/plan");
        for id in ["open-persona/Plan", "plan", "", "open-persona/plan "] {
            let refusal = one(&IDS, id, 7).unwrap_err();
            assert_eq!((refusal.status.as_u16(), refusal.code), (404, "model_not_found"));
        }
    }

    #[test]
    fn a_strange_id_does_not_come_back_whole() {
        let refusal = not_found(&format!("a\r\n\u{1b}{}", "x".repeat(10_000)));
        assert!(refusal.message.starts_with("The model `axxx") && refusal.message.len() < 300);
        assert!(!refusal.message.contains(char::is_control));
    }
}
