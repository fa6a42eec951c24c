//! `query-qmp-schema`: the schema of the command, which describes the form of all schemas.
//!
//! Deliberately absent: the answer, which `introspect` makes of the tables.

use crate::schema::{CommandSchema, EnumSchema, Kind, StructSchema, UnionSchema, optional, required};

static META_TYPE: EnumSchema = EnumSchema {
    name: "SchemaMetaType",
    doc: "What an entity is.",
    values: &[
        ("builtin", "A type of JSON."),
        ("enum", "One of a list of words."),
        ("array", "An array of one type."),
        ("object", "An object with known members."),
        ("alternate", "Any of several types. Not used."),
        ("command", "A command."),
        ("event", "An event."),
    ],
};

static JSON_TYPE: EnumSchema = EnumSchema {
    name: "JSONType",
    doc: "The types of JSON, with integers apart.",
    values: &[
        ("string", "A string."),
        ("number", "Any number."),
        ("int", "An integer."),
        ("boolean", "`true` or `false`."),
        ("null", "`null`."),
        ("object", "An object."),
        ("array", "An array."),
        ("value", "Anything."),
    ],
};

static BUILTIN: StructSchema = StructSchema {
    name: "SchemaInfoBuiltin",
    doc: "A type of JSON.",
    members: &[required("json-type", Kind::Enum(&JSON_TYPE), "Which.")],
};

static ENUM_MEMBER: StructSchema =
    StructSchema { name: "SchemaInfoEnumMember", doc: "A word.", members: &[required("name", Kind::Str, "The word.")] };

static ENUM: StructSchema = StructSchema {
    name: "SchemaInfoEnum",
    doc: "A list of words.",
    members: &[
        required("members", Kind::List(&Kind::Object(&ENUM_MEMBER)), "The words."),
        required("values", Kind::List(&Kind::Str), "The words, for older clients."),
    ],
};

static ARRAY: StructSchema = StructSchema {
    name: "SchemaInfoArray",
    doc: "An array.",
    members: &[required("element-type", Kind::Str, "Name of the type of its elements.")],
};

static OBJECT_MEMBER: StructSchema = StructSchema {
    name: "SchemaInfoObjectMember",
    doc: "A member of an object.",
    members: &[
        required("name", Kind::Str, "Its name."),
        required("type", Kind::Str, "Name of its type."),
        optional("default", Kind::Any, "There (and `null`) where the member may be left out of a request."),
    ],
};

static OBJECT_VARIANT: StructSchema = StructSchema {
    name: "SchemaInfoObjectVariant",
    doc: "What further members a word of the tag brings.",
    members: &[
        required("case", Kind::Str, "The word."),
        required("type", Kind::Str, "Name of the object type that has the members."),
    ],
};

static OBJECT: StructSchema = StructSchema {
    name: "SchemaInfoObject",
    doc: "An object.",
    members: &[
        required("members", Kind::List(&Kind::Object(&OBJECT_MEMBER)), "The members that it always has."),
        optional("tag", Kind::Str, "The member whose word decides what others there are."),
        optional(
            "variants",
            Kind::List(&Kind::Object(&OBJECT_VARIANT)),
            "What each word brings; there where `tag` is.",
        ),
    ],
};

static ALTERNATE_MEMBER: StructSchema = StructSchema {
    name: "SchemaInfoAlternateMember",
    doc: "One of several types.",
    members: &[required("type", Kind::Str, "Name of the type.")],
};

static ALTERNATE: StructSchema = StructSchema {
    name: "SchemaInfoAlternate",
    doc: "Any of several types.",
    members: &[required("members", Kind::List(&Kind::Object(&ALTERNATE_MEMBER)), "The types.")],
};

static COMMAND: StructSchema = StructSchema {
    name: "SchemaInfoCommand",
    doc: "A command.",
    members: &[
        required("arg-type", Kind::Str, "Name of the object type of its arguments."),
        required("ret-type", Kind::Str, "Name of the type that it returns."),
    ],
};

static EVENT: StructSchema = StructSchema {
    name: "SchemaInfoEvent",
    doc: "An event.",
    members: &[required("arg-type", Kind::Str, "Name of the object type of its data.")],
};

static SCHEMA_INFO_BRANCHES: UnionSchema = UnionSchema {
    name: "SchemaInfoBranches",
    doc: "What an entity has besides its name.",
    tag: &META_TYPE,
    branches: &[
        ("builtin", &BUILTIN),
        ("enum", &ENUM),
        ("array", &ARRAY),
        ("object", &OBJECT),
        ("alternate", &ALTERNATE),
        ("command", &COMMAND),
        ("event", &EVENT),
    ],
};

static SCHEMA_INFO: StructSchema = StructSchema {
    name: "SchemaInfo",
    doc: "A command, an event or a type.",
    members: &[
        required("name", Kind::Str, "Its name; of a type a number without meaning, by which others refer to it."),
        required("meta-type", Kind::Discriminator(&SCHEMA_INFO_BRANCHES), "What it is."),
        optional("features", Kind::List(&Kind::Str), "Such as `unstable`."),
    ],
};

pub(super) const QUERY_QMP_SCHEMA: CommandSchema = CommandSchema {
    name: "query-qmp-schema",
    doc: "Returns the schema: what commands and events there are, with the types of arguments, answers and data, for programs \
          that ask whether a command has an argument, or an argument a word. People read `dcd qmp-doc`.",
    arguments: &[],
    returns: Kind::List(&Kind::Object(&SCHEMA_INFO)),
    features: &[],
};
