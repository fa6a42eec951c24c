//! The schema as JSON Schema (draft 2020-12), for editors, validators and generators of clients.
//!
//! ```text
//! Argument, Kind ──▶ {"properties": …, "required": …}       EnumSchema, StructSchema ──▶ "$defs", by name
//! ```
//!
//! A flat union is `oneOf` its branches, each with all of its members, so that a member of another branch is refused as by the
//! program. Deliberately absent: what members mean together otherwise, which their descriptions say.

use serde_json::{Map, Value, json};

use crate::schema::{
    Argument, CommandSchema, EnumSchema, EventSchema, Kind, Presence, StructSchema, UnionSchema, discriminator,
};

/// The dialect of what is made here.
pub const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// How numbers of bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeForm {
    /// As an integer: in QMP.
    Bytes,
    /// As an integer, or as text with a unit (`"4G"`): in files for people.
    BytesOrText,
}

/// A schema of every request that a connection may send after its negotiation, and of the negotiation itself.
pub fn requests(commands: &[CommandSchema]) -> Value {
    let mut definitions = Definitions::new(SizeForm::Bytes);
    let mut requests = Vec::new();
    for command in commands {
        requests.push(reference(command.name));
        let request = definitions.request(command);
        definitions.named.insert(command.name.to_owned(), request);
    }
    definitions.document("QMP requests", json!({"oneOf": requests}))
}

/// A schema of every event that a connection may receive.
pub fn events(events: &[EventSchema]) -> Value {
    let mut definitions = Definitions::new(SizeForm::Bytes);
    let mut listed = Vec::new();
    for event in events {
        listed.push(reference(event.name));
        let message = definitions.event(event);
        definitions.named.insert(event.name.to_owned(), message);
    }
    definitions.document("QMP events", json!({"oneOf": listed}))
}

/// A schema of one object, such as a configuration.
pub fn object(object: &StructSchema, sizes: SizeForm) -> Value {
    let mut definitions = Definitions::new(sizes);
    let schema = definitions.members(object.members, object.doc);
    definitions.document(object.name, schema)
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

/// The definitions that others refer to, by name.
struct Definitions {
    sizes: SizeForm,
    named: Map<String, Value>,
}

impl Definitions {
    fn new(sizes: SizeForm) -> Self {
        Self { sizes, named: Map::new() }
    }

    fn document(self, title: &str, mut schema: Value) -> Value {
        schema["$schema"] = DIALECT.into();
        schema["title"] = title.into();
        if !self.named.is_empty() {
            schema["$defs"] = self.named.into();
        }
        schema
    }

    fn request(&mut self, command: &CommandSchema) -> Value {
        let arguments = self.members(command.arguments, "What the command is told.");
        let is_needed = command.arguments.iter().any(|argument| argument.presence == Presence::Required);
        let required = if is_needed { json!(["execute", "arguments"]) } else { json!(["execute"]) };
        json!({
            "description": command.doc,
            "type": "object",
            "properties": {
                "execute": {"const": command.name},
                "arguments": arguments,
                "id": {"description": "Anything; the answer has the same."},
            },
            "required": required,
            "additionalProperties": false,
        })
    }

    fn event(&mut self, event: &EventSchema) -> Value {
        let whole = json!({"type": "integer"});
        let timestamp = json!({
            "description": "When it was sent, by the host's clock, since 1970.",
            "type": "object",
            "properties": {"seconds": whole, "microseconds": whole},
            "required": ["seconds", "microseconds"],
            "additionalProperties": false,
        });
        let mut message = json!({
            "description": event.doc,
            "type": "object",
            "properties": {"event": {"const": event.name}, "timestamp": timestamp},
            "required": ["event", "timestamp"],
            "additionalProperties": false,
        });
        if !event.data.is_empty() {
            message["properties"]["data"] = self.members(event.data, "What happened.");
            message["required"] = json!(["event", "timestamp", "data"]);
        }
        message
    }

    /// An object with these members; of a union, one of its branches.
    fn members(&mut self, members: &'static [Argument], doc: &str) -> Value {
        let mut schema = match discriminator(members) {
            None => self.branch(members, &[], None),
            Some((tag, union)) => json!({"oneOf": self.branches(members, tag, union)}),
        };
        schema["description"] = doc.into();
        schema
    }

    fn branches(&mut self, members: &'static [Argument], tag: &Argument, union: &UnionSchema) -> Vec<Value> {
        let words = union.tag.values.iter();
        words.map(|(word, _)| self.branch(members, union.branch(word).members, Some((tag.name, word)))).collect()
    }

    /// An object with the members of one branch; `chosen` is the discriminator and its word.
    fn branch(&mut self, members: &[Argument], further: &[Argument], chosen: Option<(&str, &str)>) -> Value {
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for member in members.iter().chain(further) {
            let mut schema = match chosen {
                Some((tag, word)) if tag == member.name => json!({"const": word}),
                _ => self.kind(&member.kind),
            };
            schema["description"] = member.doc.into();
            properties.insert(member.name.to_owned(), schema);
            if member.presence == Presence::Required {
                required.push(member.name);
            }
        }
        let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        schema
    }

    fn kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::Str => json!({"type": "string"}),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::U8 => unsigned(u8::MAX.into()),
            Kind::U16 => unsigned(u16::MAX.into()),
            Kind::U32 => unsigned(u32::MAX.into()),
            Kind::U64 => unsigned(u64::MAX),
            Kind::Size if self.sizes == SizeForm::Bytes => unsigned(u64::MAX),
            Kind::Size => {
                let text = json!({"type": "string", "pattern": "^[0-9]+[KMGTkmgt]?$"});
                json!({"oneOf": [unsigned(u64::MAX), text]})
            }
            Kind::Int => json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX}),
            Kind::Number => json!({"type": "number"}),
            Kind::Any => json!({}),
            Kind::Enum(words) => self.words(words),
            Kind::Discriminator(union) => self.words(union.tag),
            Kind::Object(object) => {
                if !self.named.contains_key(object.name) {
                    let definition = self.members(object.members, object.doc);
                    self.named.insert(object.name.to_owned(), definition);
                }
                reference(object.name)
            }
            Kind::List(element) => json!({"type": "array", "items": self.kind(element)}),
        }
    }

    fn words(&mut self, words: &EnumSchema) -> Value {
        let alternatives = words.values.iter().map(|(word, meaning)| json!({"const": word, "description": meaning}));
        let definition = json!({"description": words.doc, "oneOf": alternatives.collect::<Value>()});
        self.named.insert(words.name.to_owned(), definition);
        reference(words.name)
    }
}

fn unsigned(max: u64) -> Value {
    json!({"type": "integer", "minimum": 0, "maximum": max})
}
