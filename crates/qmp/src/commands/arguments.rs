//! Arguments that fit their schema, read by name.

use serde_json::{Map, Value};
use wire::Tag;

use crate::error::QmpError;

/// The arguments of a request.
pub(super) type Arguments = Map<String, Value>;

/// A string or the word of an enum.
pub(super) fn text<'a>(arguments: &'a Arguments, name: &str) -> Option<&'a str> {
    arguments.get(name).and_then(Value::as_str)
}

/// A string that the schema requires.
pub(super) fn required_text<'a>(arguments: &'a Arguments, name: &str) -> Result<&'a str, QmpError> {
    text(arguments, name).ok_or_else(|| QmpError::generic(format!("Parameter '{name}' is missing")))
}

/// An integer whose range the schema has checked; 0 where it is left out.
pub(super) fn number(arguments: &Arguments, name: &str) -> u64 {
    arguments.get(name).and_then(Value::as_u64).unwrap_or_default()
}

/// An integer of the schema's `U8` or `U16`.
pub(super) fn small<T: TryFrom<u64>>(arguments: &Arguments, name: &str) -> Result<T, QmpError> {
    let value = number(arguments, name);
    T::try_from(value).map_err(|_| QmpError::generic(format!("Parameter '{name}' is out of range: {value}")))
}

/// A boolean; `false` where it is left out.
pub(super) fn flag(arguments: &Arguments, name: &str) -> bool {
    arguments.get(name).and_then(Value::as_bool).unwrap_or_default()
}

/// A tag; none where it is left out.
pub(super) fn tag(arguments: &Arguments) -> Result<Tag, QmpError> {
    let text = text(arguments, "tag").unwrap_or_default();
    Tag::parse(text)
        .map_err(|error| QmpError::generic(format!("Parameter 'tag' does not accept value '{text}': {error}")))
}
