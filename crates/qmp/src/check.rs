//! Holds the arguments of a request against the schema of its command.
//!
//! ```text
//! {"extents": [{"offset": 0, "len": "4k"}]}   ──▶   Invalid parameter type for 'extents[0].len', expected: integer
//! ```
//!
//! Members are looked at in the order of the schema, those of a union's branch after those that all branches have; what the
//! schema does not know is refused last. Deliberately absent: what arguments mean together otherwise, which is for commands to
//! say.

use std::fmt;

use serde_json::{Map, Value};

use crate::error::QmpError;
use crate::schema::{Argument, CommandSchema, EnumSchema, Kind, Presence, discriminator};

/// Arguments that fit their schema, and so need no second look at their types.
#[derive(Clone, Copy, Debug)]
pub struct Checked<'a> {
    arguments: &'a Map<String, Value>,
}

impl<'a> Checked<'a> {
    /// All of them.
    #[must_use]
    pub const fn arguments(self) -> &'a Map<String, Value> {
        self.arguments
    }

    /// A string or the word of an enum; `None` if it was left out.
    #[must_use]
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.arguments.get(name)?.as_str()
    }

    /// An integer without sign; `None` if it was left out.
    #[must_use]
    pub fn number(self, name: &str) -> Option<u64> {
        self.arguments.get(name)?.as_u64()
    }

    /// A boolean; `None` if it was left out.
    #[must_use]
    pub fn boolean(self, name: &str) -> Option<bool> {
        self.arguments.get(name)?.as_bool()
    }

    /// An array; `None` if it was left out.
    #[must_use]
    pub fn list(self, name: &str) -> Option<&'a [Value]> {
        self.arguments.get(name)?.as_array().map(Vec::as_slice)
    }
}

/// Checks the arguments of a request for `command`.
///
/// # Errors
///
/// Names the first argument that is missing, of the wrong type, out of its range or unknown.
pub fn check<'a>(command: &CommandSchema, arguments: &'a Map<String, Value>) -> Result<Checked<'a>, QmpError> {
    check_members(command.arguments, arguments, &Place::Top)?;
    Ok(Checked { arguments })
}

/// Where a value stands among the arguments. Written out only when it is needed for an error.
enum Place<'a> {
    Top,
    Member(&'a Place<'a>, &'a str),
    Element(&'a Place<'a>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top => Ok(()),
            Self::Member(Place::Top, name) => f.write_str(name),
            Self::Member(parent, name) => write!(f, "{parent}.{name}"),
            Self::Element(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

fn check_members(members: &'static [Argument], given: &Map<String, Value>, place: &Place<'_>) -> Result<(), QmpError> {
    let mut known = check_known(members, given, place)?;
    let branch = branch_members(members, given);
    known += check_known(branch, given, place)?;
    if known == given.len() {
        return Ok(());
    }
    let is_unknown = |name: &str| members.iter().chain(branch).all(|member| member.name != name);
    given.keys().find(|name| is_unknown(name)).map_or(Ok(()), |name| {
        let here = Place::Member(place, name);
        Err(QmpError::generic(format!("Parameter '{here}' is unexpected")))
    })
}

/// The members that the word of a union adds to `members`.
fn branch_members(members: &'static [Argument], given: &Map<String, Value>) -> &'static [Argument] {
    discriminator(members).map_or(&[], |(tag, union)| {
        let word = given.get(tag.name).and_then(Value::as_str);
        word.map_or(&[], |word| union.branch(word).members)
    })
}

/// Checks the members that are there; how many they are.
fn check_known(members: &[Argument], given: &Map<String, Value>, place: &Place<'_>) -> Result<usize, QmpError> {
    let mut known = 0;
    for member in members {
        let here = Place::Member(place, member.name);
        match (given.get(member.name), member.presence) {
            (Some(value), _) => {
                known += 1;
                check_value(&member.kind, value, &here)?;
            }
            (None, Presence::Required) => return Err(QmpError::generic(format!("Parameter '{here}' is missing"))),
            (None, Presence::Optional) => {}
        }
    }
    Ok(known)
}

fn check_value(kind: &Kind, value: &Value, place: &Place<'_>) -> Result<(), QmpError> {
    match kind {
        Kind::Any => Ok(()),
        Kind::Str if value.is_string() => Ok(()),
        Kind::Str => Err(wrong_type(place, "string")),
        Kind::Bool if value.is_boolean() => Ok(()),
        Kind::Bool => Err(wrong_type(place, "boolean")),
        Kind::Number if value.is_number() => Ok(()),
        Kind::Number => Err(wrong_type(place, "number")),
        Kind::Int if value.is_i64() => Ok(()),
        Kind::Int => Err(wrong_type(place, "integer")),
        Kind::U8 => check_unsigned(value, u8::MAX.into(), "uint8_t", place),
        Kind::U16 => check_unsigned(value, u16::MAX.into(), "uint16_t", place),
        Kind::U32 => check_unsigned(value, u32::MAX.into(), "uint32_t", place),
        Kind::U64 | Kind::Size => check_unsigned(value, u64::MAX, "uint64", place),
        Kind::Enum(words) => check_word(words, value, place),
        Kind::Discriminator(union) => check_word(union.tag, value, place),
        Kind::Object(object) => {
            let members = value.as_object().ok_or_else(|| wrong_type(place, "object"))?;
            check_members(object.members, members, place)
        }
        Kind::List(element) => {
            let elements = value.as_array().ok_or_else(|| wrong_type(place, "array"))?;
            elements
                .iter()
                .enumerate()
                .try_for_each(|(index, value)| check_value(element, value, &Place::Element(place, index)))
        }
    }
}

fn check_word(words: &EnumSchema, value: &Value, place: &Place<'_>) -> Result<(), QmpError> {
    let word = value.as_str().ok_or_else(|| wrong_type(place, "string"))?;
    if words.values.iter().any(|(known, _)| *known == word) {
        return Ok(());
    }
    Err(QmpError::generic(format!("Parameter '{place}' does not accept value '{word}'")))
}

fn check_unsigned(value: &Value, max: u64, range: &str, place: &Place<'_>) -> Result<(), QmpError> {
    if !value.is_number() {
        return Err(wrong_type(place, "integer"));
    }
    match value.as_u64() {
        Some(number) if number <= max => Ok(()),
        _ => Err(QmpError::generic(format!("Parameter '{place}' expects {range}"))),
    }
}

fn wrong_type(place: &Place<'_>, expected: &str) -> QmpError {
    QmpError::generic(format!("Invalid parameter type for '{place}', expected: {expected}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::{EMPTY, StructSchema, UnionSchema};

    const fn argument(name: &'static str, kind: Kind, presence: Presence) -> Argument {
        Argument { name, kind, presence, doc: "" }
    }

    static POLICY: EnumSchema =
        EnumSchema { name: "Policy", doc: "", values: &[("tag-based", ""), ("prescriptive", "")] };
    static EXTENT: StructSchema = StructSchema {
        name: "Extent",
        doc: "",
        members: &[
            argument("offset", Kind::U64, Presence::Required),
            argument("len", Kind::Size, Presence::Required),
            argument("note", Kind::Str, Presence::Optional),
        ],
    };
    static RELEASE: CommandSchema = CommandSchema {
        name: "release",
        doc: "",
        arguments: &[
            argument("path", Kind::Str, Presence::Required),
            argument("host-id", Kind::U16, Presence::Required),
            argument("removal-policy", Kind::Enum(&POLICY), Presence::Optional),
            argument("force", Kind::Bool, Presence::Optional),
            argument("extents", Kind::List(&Kind::Object(&EXTENT)), Presence::Optional),
            argument("shift", Kind::Int, Presence::Optional),
            argument("share", Kind::Number, Presence::Optional),
            argument("note", Kind::Any, Presence::Optional),
        ],
        returns: Kind::Object(&EMPTY),
        features: &[],
    };

    static BACKEND: EnumSchema =
        EnumSchema { name: "Backend", doc: "", values: &[("ram", ""), ("memfd", ""), ("file", "")] };
    static MEMFD: StructSchema =
        StructSchema { name: "Memfd", doc: "", members: &[argument("seal", Kind::Bool, Presence::Optional)] };
    static FILE: StructSchema =
        StructSchema { name: "File", doc: "", members: &[argument("mem-path", Kind::Str, Presence::Required)] };
    static OPTIONS: UnionSchema =
        UnionSchema { name: "Options", doc: "", tag: &BACKEND, branches: &[("memfd", &MEMFD), ("file", &FILE)] };
    const ADD: CommandSchema = CommandSchema {
        name: "add",
        doc: "",
        arguments: &[
            argument("id", Kind::Str, Presence::Required),
            argument("type", Kind::Discriminator(&OPTIONS), Presence::Required),
        ],
        returns: Kind::Object(&EMPTY),
        features: &[],
    };

    #[test]
    fn the_word_of_a_union_decides_what_else_there_is() {
        for (given, words) in [
            (json!({"id": "a", "type": "ram"}), "fits"),
            (json!({"id": "a", "type": "memfd"}), "fits"),
            (json!({"id": "a", "type": "memfd", "seal": false}), "fits"),
            (json!({"id": "a", "type": "file", "mem-path": "x"}), "fits"),
            (json!({"id": "a", "type": "file"}), "Parameter 'mem-path' is missing"),
            (json!({"id": "a", "type": "file", "mem-path": "x", "seal": true}), "Parameter 'seal' is unexpected"),
            (json!({"id": "a", "type": "ram", "seal": true}), "Parameter 'seal' is unexpected"),
            (json!({"id": "a", "type": "memfd", "seal": 1}), "Invalid parameter type for 'seal', expected: boolean"),
            (json!({"id": "a", "type": "rom", "seal": 1}), "Parameter 'type' does not accept value 'rom'"),
            (json!({"id": "a", "seal": true}), "Parameter 'type' is missing"),
        ] {
            let outcome = check(&ADD, given.as_object().expect("object"));
            assert_eq!(outcome.map_or_else(|error| error.description, |_| "fits".to_owned()), words, "{given}");
        }
    }

    /// Checks a good request with `changes` made to it.
    fn outcome(changes: Value) -> String {
        let mut arguments = json!({"path": "/x", "host-id": 0});
        let (members, changes) = (arguments.as_object_mut().expect("object"), changes);
        members.extend(changes.as_object().expect("object").clone());
        check(&RELEASE, members).map_or_else(|error| error.description, |_| "fits".to_owned())
    }

    #[test]
    fn what_fits_can_be_asked_for() {
        let arguments =
            json!({"path": "/x", "host-id": 65535, "force": true, "extents": [{"offset": 0, "len": u64::MAX}]});
        let checked = check(&RELEASE, arguments.as_object().expect("object")).expect("fits");
        assert_eq!(checked.text("path"), Some("/x"));
        assert_eq!(checked.number("host-id"), Some(65535));
        assert_eq!(checked.boolean("force"), Some(true));
        assert_eq!(checked.list("extents").map(<[_]>::len), Some(1));
        assert_eq!(checked.text("removal-policy"), None);
        assert_eq!(outcome(json!({"shift": -1, "share": 0.5, "note": null})), "fits");
    }

    #[test]
    fn refusals_have_the_usual_words() {
        let incomplete = json!({"path": "/x"});
        let missing = check(&RELEASE, incomplete.as_object().expect("object"));
        assert_eq!(missing.expect_err("refused").description, "Parameter 'host-id' is missing");
        for (changes, words) in [
            (json!({"path": 1}), "Invalid parameter type for 'path', expected: string"),
            (json!({"path": null}), "Invalid parameter type for 'path', expected: string"),
            (json!({"host-id": "0"}), "Invalid parameter type for 'host-id', expected: integer"),
            (json!({"host-id": 65536}), "Parameter 'host-id' expects uint16_t"),
            (json!({"host-id": -1}), "Parameter 'host-id' expects uint16_t"),
            (json!({"host-id": 1.0}), "Parameter 'host-id' expects uint16_t"),
            (json!({"force": 1}), "Invalid parameter type for 'force', expected: boolean"),
            (json!({"removal-policy": "foo"}), "Parameter 'removal-policy' does not accept value 'foo'"),
            (json!({"removal-policy": 1}), "Invalid parameter type for 'removal-policy', expected: string"),
            (json!({"extents": {}}), "Invalid parameter type for 'extents', expected: array"),
            (json!({"extents": [1]}), "Invalid parameter type for 'extents[0]', expected: object"),
            (json!({"extents": [{"offset": 0}]}), "Parameter 'extents[0].len' is missing"),
            (json!({"extents": [{"offset": 0, "len": -1}]}), "Parameter 'extents[0].len' expects uint64"),
            (json!({"extents": [{"offset": 0, "len": 1, "tag": ""}]}), "Parameter 'extents[0].tag' is unexpected"),
            (json!({"shift": 0.5}), "Invalid parameter type for 'shift', expected: integer"),
            (json!({"share": "1"}), "Invalid parameter type for 'share', expected: number"),
            (json!({"x": 1}), "Parameter 'x' is unexpected"),
        ] {
            assert_eq!(outcome(changes), words);
        }
    }
}
