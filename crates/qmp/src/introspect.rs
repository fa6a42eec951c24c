//! What `query-qmp-schema` returns: the schema, in the form that QEMU's clients read.
//!
//! ```text
//! {"name": "object-add", "meta-type": "command", "arg-type": "12", "ret-type": "3"}
//!                                                      │                    └──▶ {"name": "3", "meta-type": "object", "members": []}
//!                                                      └──▶ {"name": "12", "meta-type": "object", "members": […], "tag": …, "variants": […]}
//! ```
//!
//! As in QEMU, commands and events keep their names, types that JSON has are called by it, an array is `[element]`, all other
//! types are numbers in the order in which they are first named, and integers are all `int`. Clients find a type by its
//! reference, so that a type may be renamed. Deliberately absent: texts and ranges, which the documentation has.

use std::collections::{BTreeSet, HashMap, VecDeque};

use serde_json::{Map, Value, json};

use crate::schema::{
    Argument, CommandSchema, EMPTY, EnumSchema, EventSchema, Kind, Presence, StructSchema, UnionSchema, discriminator,
};

/// The `SchemaInfo` of all commands and events and of every type that they name.
pub fn introspect(commands: &[CommandSchema], events: &[EventSchema]) -> Value {
    let mut types = Types::default();
    let mut infos = Vec::new();
    for command in commands {
        let arguments = types.members(format!("{}-arg", command.name), command.arguments);
        let returns = types.reference(&command.returns);
        let info = json!({"name": command.name, "meta-type": "command", "arg-type": arguments, "ret-type": returns});
        infos.push(with_features(info, command.features));
    }
    for event in events {
        let data = types.members(format!("{}-arg", event.name), event.data);
        let info = json!({"name": event.name, "meta-type": "event", "arg-type": data});
        infos.push(with_features(info, event.features));
    }
    while let Some(definition) = types.to_define.pop_front() {
        infos.push(types.define(definition));
    }
    infos.into()
}

fn with_features(mut info: Value, features: &[&str]) -> Value {
    if !features.is_empty() {
        info["features"] = features.into();
    }
    info
}

/// Types by their names, and those whose definition is still to be given.
#[derive(Default)]
struct Types {
    /// The numbers of the types that JSON does not have, by their names in the schema.
    numbers: HashMap<String, usize>,
    /// The names of the others that were referred to.
    others: BTreeSet<String>,
    to_define: VecDeque<Definition>,
}

/// A type: the name by which it is referred to, and what it is.
struct Definition {
    name: String,
    shape: Shape,
}

enum Shape {
    Builtin(&'static str),
    Array(String),
    Enum(&'static EnumSchema),
    Object(&'static [Argument]),
}

impl Types {
    /// The name of a kind; its definition will follow.
    fn reference(&mut self, kind: &Kind) -> String {
        match kind {
            Kind::Str => self.builtin("str", "string"),
            Kind::Bool => self.builtin("bool", "boolean"),
            Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64 | Kind::Size | Kind::Int => self.builtin("int", "int"),
            Kind::Number => self.builtin("number", "number"),
            Kind::Any => self.builtin("any", "value"),
            Kind::Enum(words) => self.words(words),
            Kind::Discriminator(union) => self.words(union.tag),
            Kind::Object(object) => self.object(object),
            Kind::List(element) => {
                let element = self.reference(element);
                self.other(format!("[{element}]"), Shape::Array(element))
            }
        }
    }

    fn builtin(&mut self, name: &str, json_type: &'static str) -> String {
        self.other(name.to_owned(), Shape::Builtin(json_type))
    }

    fn words(&mut self, words: &'static EnumSchema) -> String {
        self.numbered(words.name.to_owned(), Shape::Enum(words))
    }

    fn object(&mut self, object: &'static StructSchema) -> String {
        self.numbered(object.name.to_owned(), Shape::Object(object.members))
    }

    /// The object of a command's arguments or of an event's data, which has no name of its own.
    fn members(&mut self, name: String, members: &'static [Argument]) -> String {
        if members.is_empty() { self.object(&EMPTY) } else { self.numbered(name, Shape::Object(members)) }
    }

    fn numbered(&mut self, schema_name: String, shape: Shape) -> String {
        let next = self.numbers.len();
        if let Some(number) = self.numbers.get(&schema_name) {
            return number.to_string();
        }
        self.numbers.insert(schema_name, next);
        self.to_define.push_back(Definition { name: next.to_string(), shape });
        next.to_string()
    }

    fn other(&mut self, name: String, shape: Shape) -> String {
        if self.others.insert(name.clone()) {
            self.to_define.push_back(Definition { name: name.clone(), shape });
        }
        name
    }

    fn define(&mut self, definition: Definition) -> Value {
        let Definition { name, shape } = definition;
        match shape {
            Shape::Builtin(json_type) => json!({"name": name, "meta-type": "builtin", "json-type": json_type}),
            Shape::Array(element) => json!({"name": name, "meta-type": "array", "element-type": element}),
            Shape::Enum(words) => {
                let members: Value = words.values.iter().map(|(word, _)| json!({"name": word})).collect();
                let values: Value = words.values.iter().map(|(word, _)| *word).collect();
                json!({"name": name, "meta-type": "enum", "members": members, "values": values})
            }
            Shape::Object(members) => self.define_object(name, members),
        }
    }

    fn define_object(&mut self, name: String, members: &'static [Argument]) -> Value {
        let listed: Value = members.iter().map(|member| self.define_member(member)).collect();
        let mut info = json!({"name": name, "meta-type": "object", "members": listed});
        if let Some((tag, union)) = discriminator(members) {
            info["tag"] = tag.name.into();
            info["variants"] = self.variants(union);
        }
        info
    }

    fn define_member(&mut self, member: &Argument) -> Value {
        let mut info = Map::new();
        info.insert("name".into(), member.name.into());
        info.insert("type".into(), self.reference(&member.kind).into());
        if member.presence == Presence::Optional {
            // What a member is taken to be where it is left out is told by its text only, as in QEMU.
            info.insert("default".into(), Value::Null);
        }
        info.into()
    }

    fn variants(&mut self, union: &'static UnionSchema) -> Value {
        let words = union.tag.values.iter().map(|(word, _)| *word);
        words.map(|word| json!({"case": word, "type": self.object(union.branch(word))})).collect()
    }
}
