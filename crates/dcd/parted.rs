//! Where two things part that look alike: the first field of their JSON that differs, and of bytes the first of them.
//!
//! Deliberately absent: all the other differences.

use serde_json::{Value as Json, json};

/// So many bytes of a payload are shown from the first that differs.
const BYTES_SHOWN: usize = 8;

/// The first difference.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parted {
    /// The field, and the byte of a payload.
    pub(crate) path: String,
    /// What the first has there.
    pub(crate) first: String,
    /// What the second has.
    pub(crate) second: String,
}

impl Parted {
    /// The first difference between two JSON values, if there is one.
    pub(crate) fn of(first: &Json, second: &Json) -> Option<Self> {
        Self::below("", first, second)
    }

    /// For programs.
    pub(crate) fn json(&self) -> Json {
        json!({"path": self.path, "first": self.first, "second": self.second})
    }

    fn below(path: &str, first: &Json, second: &Json) -> Option<Self> {
        if first == second {
            return None;
        }
        match (first, second) {
            (Json::Object(one), Json::Object(other)) => {
                let keys = one.keys().chain(other.keys().filter(|key| !one.contains_key(*key)));
                let side = |object: &serde_json::Map<_, _>, key: &str| object.get(key).cloned().unwrap_or(Json::Null);
                let mut parts = keys.filter_map(|key| {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    Self::below(&path, &side(one, key), &side(other, key))
                });
                parts.next()
            }
            (Json::Array(one), Json::Array(other)) => {
                let len = one.len().max(other.len());
                let side = |array: &Vec<Json>, at: usize| array.get(at).cloned().unwrap_or(Json::Null);
                (0..len).find_map(|at| Self::below(&format!("{path}[{at}]"), &side(one, at), &side(other, at)))
            }
            (Json::String(one), Json::String(other)) if is_payload(one) && is_payload(other) => {
                Some(Self::of_payloads(path, one, other))
            }
            (first, second) => Some(Self { path: path.to_owned(), first: told(first), second: told(second) }),
        }
    }

    fn of_payloads(path: &str, first: &str, second: &str) -> Self {
        let (one, other) = (first.as_bytes().chunks(2), second.as_bytes().chunks(2));
        let at = one.zip(other).take_while(|(one, other)| one == other).count();
        let shown = |text: &str| match text.get(at * 2..) {
            None | Some("") => format!("it ends after {} bytes", text.len() / 2),
            Some(rest) => rest.chars().take(BYTES_SHOWN * 2).collect(),
        };
        Self { path: format!("{path} from byte {at} on"), first: shown(first), second: shown(second) }
    }
}

/// Whether a text is bytes in hexadecimal: long, and two digits each.
fn is_payload(text: &str) -> bool {
    text.len().is_multiple_of(2) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn told(value: &Json) -> String {
    match value {
        Json::Null => "nothing".to_owned(),
        Json::String(text) => text.clone(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parted(first: Json, second: Json) -> Option<(String, String, String)> {
        Parted::of(&first, &second).map(|Parted { path, first, second }| (path, first, second))
    }

    #[test]
    fn the_first_field_that_differs_is_named() {
        let of = |path: &str, first: &str, second: &str| Some((path.into(), first.into(), second.into()));
        assert_eq!(parted(json!({"a": [1, 2]}), json!({"a": [1, 2]})), None);
        assert_eq!(parted(json!({"a": [1, {"b": 2}]}), json!({"a": [1, {"b": 3}]})), of("a[1].b", "2", "3"));
        assert_eq!(parted(json!({"a": 1}), json!({"c": 1})), of("a", "1", "nothing"));
        assert_eq!(parted(json!({"tag": "x"}), json!({"tag": null})), of("tag", "x", "nothing"));
        let payload = |text: &str| json!({"payload": text});
        assert_eq!(parted(payload("0001ff"), payload("000200")), of("payload from byte 1 on", "01ff", "0200"));
        assert_eq!(parted(payload("0001"), payload("")), of("payload from byte 0 on", "0001", "it ends after 0 bytes"));
    }
}
