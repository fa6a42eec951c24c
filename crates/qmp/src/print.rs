//! JSON as QMP clients are used to seeing it: one line, a space after every `:` and `,`.
//!
//! ```text
//! {"return": {}, "id": 1}
//! ```
//!
//! Scripts match answers as text, so the spaces are part of the contract. Deliberately absent: pretty printing.

use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

use crate::error::QmpError;

/// What ends every answer and event.
const LINE_END: &[u8] = b"\r\n";

/// The spacing.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// Appends `value` to `out`.
pub(crate) fn value(value: &Value, out: &mut Vec<u8>) {
    let printed = value.serialize(&mut Serializer::with_formatter(out, Spaced));
    // A tree of JSON values has string keys only and memory takes every byte, so there is nothing that could fail.
    debug_assert!(printed.is_ok());
}

/// Appends the greeting, around the object that says which program and version this is.
pub(crate) fn greeting(version: &Value, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"QMP\": {\"version\": ");
    value(version, out);
    // No `oob`: requests of one connection are answered in order, always.
    out.extend_from_slice(b", \"capabilities\": []}}");
    out.extend_from_slice(LINE_END);
}

/// Appends the answer to one request, with the id the client gave it.
pub(crate) fn answer(result: &Result<Value, QmpError>, id: Option<&Value>, out: &mut Vec<u8>) {
    match result {
        Ok(returned) => {
            out.extend_from_slice(b"{\"return\": ");
            value(returned, out);
        }
        Err(error) => {
            out.extend_from_slice(b"{\"error\": ");
            value(&error.to_value(), out);
        }
    }
    if let Some(id) = id {
        out.extend_from_slice(b", \"id\": ");
        value(id, out);
    }
    out.push(b'}');
    out.extend_from_slice(LINE_END);
}

/// Appends an event that happened `seconds` and `microseconds` after the epoch. Null data is left out.
pub(crate) fn event(name: &str, data: &Value, seconds: u64, microseconds: u32, out: &mut Vec<u8>) {
    let timestamp =
        format!("{{\"timestamp\": {{\"seconds\": {seconds}, \"microseconds\": {microseconds}}}, \"event\": ");
    out.extend_from_slice(timestamp.as_bytes());
    value(&Value::from(name), out);
    if !data.is_null() {
        out.extend_from_slice(b", \"data\": ");
        value(data, out);
    }
    out.push(b'}');
    out.extend_from_slice(LINE_END);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(print: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        print(&mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn spaces_follow_colons_and_commas() {
        assert_eq!(
            text(|out| value(&json!({"a": [1, {}, []], "b": "x:,y"}), out)),
            r#"{"a": [1, {}, []], "b": "x:,y"}"#
        );
    }

    #[test]
    fn answers_and_events_are_lines() {
        let refused = Err(QmpError::command_not_found("foo"));
        assert_eq!(text(|out| answer(&Ok(json!({})), Some(&json!(1)), out)), "{\"return\": {}, \"id\": 1}\r\n");
        assert_eq!(
            text(|out| answer(&refused, None, out)),
            "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The command foo has not been found\"}}\r\n"
        );
        assert_eq!(
            text(|out| event("STOP", &Value::Null, 5, 7, out)),
            "{\"timestamp\": {\"seconds\": 5, \"microseconds\": 7}, \"event\": \"STOP\"}\r\n"
        );
    }
}
