//! A request as it arrives: which command to execute, with which arguments, under which id.
//!
//! ```text
//! {"execute": "query-status", "arguments": {...}, "id": <anything>}
//! ```
//!
//! Deliberately absent: out-of-band execution (`exec-oob`), which is refused; no capability offers it.

use serde_json::{Map, Value};

use crate::error::QmpError;

/// One request, its shape checked, its command and arguments not yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The command's name.
    pub execute: String,
    /// Its arguments; empty if the request has none.
    pub arguments: Map<String, Value>,
    /// What the answer has to carry, if the client gave anything.
    pub id: Option<Value>,
}

/// Why a value is not a request, and the id under which its client is told so.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// What is wrong.
    pub error: QmpError,
    /// What the answer has to carry, if the client gave anything.
    pub id: Option<Value>,
}

impl Request {
    /// Reads a request from any JSON value.
    ///
    /// # Errors
    ///
    /// Refuses what is not an object, has members that QMP does not know, or lacks `execute`.
    pub fn read(value: Value) -> Result<Self, Refused> {
        let Value::Object(mut members) = value else {
            return Err(Refused { error: QmpError::generic("QMP input must be a JSON object"), id: None });
        };
        let id = members.remove("id");
        match read_members(members) {
            Ok((execute, arguments)) => Ok(Self { execute, arguments, id }),
            Err(error) => Err(Refused { error, id }),
        }
    }
}

fn read_members(members: Map<String, Value>) -> Result<(String, Map<String, Value>), QmpError> {
    let mut execute = None;
    let mut arguments = Map::new();
    for (name, member) in members {
        match (name.as_str(), member) {
            ("execute", Value::String(command)) => execute = Some(command),
            ("execute", _) => return Err(QmpError::generic("QMP input member 'execute' must be a string")),
            ("arguments", Value::Object(given)) => arguments = given,
            ("arguments", _) => return Err(QmpError::generic("QMP input member 'arguments' must be an object")),
            ("exec-oob", _) => {
                let sentence =
                    "QMP input member 'exec-oob' is unexpected: capability 'oob' is not offered, use 'execute'";
                return Err(QmpError::generic(sentence));
            }
            _ => return Err(QmpError::generic(format!("QMP input member '{name}' is unexpected"))),
        }
    }
    match execute {
        Some(execute) => Ok((execute, arguments)),
        None => Err(QmpError::generic("QMP input lacks member 'execute'")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(value: Value) -> String {
        Request::read(value).expect_err("refused").error.description
    }

    #[test]
    fn arguments_and_id_are_optional() {
        let request = Request::read(json!({"execute": "stop"})).expect("a request");
        assert_eq!(request, Request { execute: "stop".into(), arguments: Map::new(), id: None });
        let request =
            Request::read(json!({"execute": "stop", "id": {"any": [1]}, "arguments": {"a": 1}})).expect("one");
        assert_eq!(request.id, Some(json!({"any": [1]})));
        assert_eq!(request.arguments["a"], json!(1));
    }

    #[test]
    fn an_id_of_null_is_an_id() {
        assert_eq!(Request::read(json!({"execute": "stop", "id": null})).expect("one").id, Some(Value::Null));
    }

    #[test]
    fn refusals_have_the_usual_words_and_keep_the_id() {
        assert_eq!(refusal(json!([])), "QMP input must be a JSON object");
        assert_eq!(refusal(json!({})), "QMP input lacks member 'execute'");
        assert_eq!(refusal(json!({"execute": 1})), "QMP input member 'execute' must be a string");
        assert_eq!(refusal(json!({"execute": "a", "arguments": []})), "QMP input member 'arguments' must be an object");
        assert_eq!(refusal(json!({"execute": "a", "x": 1})), "QMP input member 'x' is unexpected");
        assert!(refusal(json!({"exec-oob": "a"})).contains("'oob' is not offered"));
        assert_eq!(Request::read(json!({"x": 1, "id": 7})).expect_err("refused").id, Some(json!(7)));
    }
}
