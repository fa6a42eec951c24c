//! JSON Schema: it accepts the requests that the program accepts, and no others.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use qmp::schema::{Argument, CommandSchema, EnumSchema, Kind, Presence, discriminator};
use qmp::{COMMANDS, EVENTS, check, json_schema};
use serde_json::{Map, Value, json};

use crate::validator::validate;

/// A value of a kind, or sometimes one that is not.
fn value(kind: Kind) -> BoxedStrategy<Value> {
    let wrong = select(vec![json!(null), json!(-1), json!(0.5), json!("x"), json!(true), json!([]), json!({})]);
    prop_oneof![12 => right_value(kind), 1 => wrong].boxed()
}

fn right_value(kind: Kind) -> BoxedStrategy<Value> {
    let unsigned = |max: u64| prop_oneof![Just(0), Just(max), 0..=max].prop_map(Value::from).boxed();
    match kind {
        Kind::Str => "[a-z]{0,4}".prop_map(Value::from).boxed(),
        Kind::Bool => any::<bool>().prop_map(Value::from).boxed(),
        Kind::U8 => unsigned(256),
        Kind::U16 => unsigned(65536),
        Kind::U32 => unsigned(1 << 32),
        Kind::U64 | Kind::Size => unsigned(u64::MAX),
        Kind::Int => any::<i64>().prop_map(Value::from).boxed(),
        Kind::Number => any::<i32>().prop_map(Value::from).boxed(),
        Kind::Any => Just(json!({"any": []})).boxed(),
        Kind::Enum(words) => word(words),
        Kind::Discriminator(union) => word(union.tag),
        Kind::Object(object) => object_of(object.members),
        Kind::List(element) => vec(value(*element), 0..3).prop_map(Value::from).boxed(),
    }
}

fn word(words: &'static EnumSchema) -> BoxedStrategy<Value> {
    let known: Vec<_> = words.values.iter().map(|(word, _)| *word).chain(["unknown"]).collect();
    select(known).prop_map(Value::from).boxed()
}

/// An object with most of its required members, some of the optional ones, and sometimes one of a branch that may not be its.
fn object_of(members: &'static [Argument]) -> BoxedStrategy<Value> {
    let branches = discriminator(members).map_or(&[][..], |(_, union)| union.branches);
    let further = branches.iter().flat_map(|(_, branch)| branch.members);
    let all: Vec<BoxedStrategy<Option<(String, Value)>>> = members.iter().chain(further).map(member).collect();
    let stranger = prop::option::weighted(0.05, Just(("stranger".to_owned(), json!(1))));
    (all, stranger).prop_map(|(members, stranger)| members.into_iter().flatten().chain(stranger).collect()).boxed()
}

fn member(member: &'static Argument) -> BoxedStrategy<Option<(String, Value)>> {
    let presence = if member.presence == Presence::Required { 0.95 } else { 0.2 };
    let named = value(member.kind).prop_map(|value| (member.name.to_owned(), value));
    prop::option::weighted(presence, named).boxed()
}

fn request() -> impl Strategy<Value = (&'static CommandSchema, Map<String, Value>)> {
    select(COMMANDS.iter().collect::<Vec<_>>()).prop_flat_map(|command: &'static CommandSchema| {
        let object = |value: Value| value.as_object().cloned().unwrap_or_default();
        object_of(command.arguments).prop_map(move |arguments| (command, object(arguments)))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_schema_and_the_program_accept_the_same((command, arguments) in request()) {
        let schema = json_schema::requests(COMMANDS);
        let message = json!({"execute": command.name, "arguments": arguments});
        let accepted = check(command, &arguments).map(drop);
        let valid = validate(&schema, &schema, &message);
        prop_assert_eq!(accepted.is_ok(), valid.is_ok(), "{}: {:?} and {:?}", message, accepted, valid);
    }
}

#[test]
fn a_request_needs_arguments_only_where_one_is_required() {
    let schema = json_schema::requests(COMMANDS);
    let is_valid = |request: Value| validate(&schema, &schema, &request).is_ok();
    assert!(is_valid(json!({"execute": "query-version"})));
    assert!(is_valid(json!({"execute": "query-version", "arguments": {}, "id": [1, null]})));
    assert!(!is_valid(json!({"execute": "object-del"})));
    assert!(!is_valid(json!({"execute": "no-such"})));
    assert!(!is_valid(json!({"exec-oob": "query-version"})));
}

#[test]
fn events_have_a_time_and_their_data() {
    let schema = json_schema::events(EVENTS);
    let timestamp = json!({"seconds": 1, "microseconds": 2});
    let is_valid = |event: &str, data: Value| {
        let mut message = json!({"event": event, "timestamp": timestamp});
        if !data.is_null() {
            message["data"] = data;
        }
        validate(&schema, &schema, &message).is_ok()
    };
    assert!(is_valid("STOP", Value::Null));
    assert!(!is_valid("STOP", json!({"reason": "x"})));
    assert!(is_valid("SHUTDOWN", json!({"guest": false, "reason": "host-qmp-quit"})));
    assert!(!is_valid("SHUTDOWN", Value::Null));
    assert!(!is_valid("NO_SUCH", Value::Null));
}

/// Every reference of a schema leads somewhere.
#[test]
fn references_lead_somewhere() {
    fn walk(document: &Value, value: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                    let pointer = reference.strip_prefix('#').expect("within the document");
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                }
                members.values().for_each(|member| walk(document, member));
            }
            Value::Array(elements) => elements.iter().for_each(|element| walk(document, element)),
            _ => {}
        }
    }
    for schema in [json_schema::requests(COMMANDS), json_schema::events(EVENTS)] {
        walk(&schema, &schema);
        assert_eq!(schema["$schema"], json_schema::DIALECT);
    }
}
