//! The one description of commands, their arguments and the events: requests are checked against it, clients introspect it, and
//! documentation and JSON Schema are made from it.
//!
//! ```text
//! CommandSchema ── arguments ──▶ Argument ── kind ──▶ Kind ─┬─▶ EnumSchema
//!       └───────── returns ──────────────────────▶ Kind     ├─▶ StructSchema ── members ──▶ Argument …
//! EventSchema ──── data ────────▶ Argument …                ├─▶ List(Kind)
//!                                                           └─▶ UnionSchema ── branches ──▶ StructSchema …
//! ```
//!
//! Members with a [`Kind::Discriminator`] among them are a flat union: its word decides what other members there are.
//! Deliberately absent: what members mean together otherwise (of `path` and `qom-path` exactly one), which their texts say and
//! commands check.

/// Name of the feature of commands that may still change.
pub const UNSTABLE: &str = "unstable";

/// One command.
#[derive(Debug)]
pub struct CommandSchema {
    /// What a request executes.
    pub name: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// What it may be told.
    pub arguments: &'static [Argument],
    /// What it returns if it succeeds.
    pub returns: Kind,
    /// Such as [`UNSTABLE`].
    pub features: &'static [&'static str],
}

/// One argument of a command, or one member of an object.
#[derive(Debug)]
pub struct Argument {
    /// Its name in JSON.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Whether it may be left out.
    pub presence: Presence,
    /// What it means, with its default if it has one.
    pub doc: &'static str,
}

/// An argument that must be there.
pub const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Argument {
    Argument { name, kind, presence: Presence::Required, doc }
}

/// An argument that may be left out.
pub const fn optional(name: &'static str, kind: Kind, doc: &'static str) -> Argument {
    Argument { name, kind, presence: Presence::Optional, doc }
}

/// Whether an argument may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It must be there.
    Required,
    /// It may be left out. `null` is not the same as leaving it out.
    Optional,
}

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any string.
    Str,
    /// `true` or `false`.
    Bool,
    /// An integer of 8 bits without sign.
    U8,
    /// An integer of 16 bits without sign.
    U16,
    /// An integer of 32 bits without sign.
    U32,
    /// An integer of 64 bits without sign.
    U64,
    /// A number of bytes, 64 bits without sign.
    Size,
    /// An integer of 64 bits with sign.
    Int,
    /// Any number.
    Number,
    /// One of a list of words.
    Enum(&'static EnumSchema),
    /// An object with known members.
    Object(&'static StructSchema),
    /// One of a list of words, which decides what other members stand beside it.
    Discriminator(&'static UnionSchema),
    /// An array of one kind of value.
    List(&'static Kind),
    /// Anything.
    Any,
}

/// A list of words.
#[derive(Debug)]
pub struct EnumSchema {
    /// The type's name.
    pub name: &'static str,
    /// What it is about.
    pub doc: &'static str,
    /// Each word and what it means.
    pub values: &'static [(&'static str, &'static str)],
}

/// An object with known members.
#[derive(Debug)]
pub struct StructSchema {
    /// The type's name.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Its members.
    pub members: &'static [Argument],
}

/// Members that a word decides about.
#[derive(Debug)]
pub struct UnionSchema {
    /// The type's name.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// The words.
    pub tag: &'static EnumSchema,
    /// The further members of a word; a word that is not here has none.
    pub branches: &'static [(&'static str, &'static StructSchema)],
}

impl UnionSchema {
    /// The further members that `word` has.
    #[must_use]
    pub fn branch(&self, word: &str) -> &'static StructSchema {
        self.branches.iter().find(|(name, _)| *name == word).map_or(&EMPTY, |(_, branch)| branch)
    }
}

/// The member that decides what other members there are, where there is one.
pub fn discriminator(members: &'static [Argument]) -> Option<(&'static Argument, &'static UnionSchema)> {
    members.iter().find_map(|member| match member.kind {
        Kind::Discriminator(union) => Some((member, union)),
        _ => None,
    })
}

/// One event.
#[derive(Debug)]
pub struct EventSchema {
    /// Its name.
    pub name: &'static str,
    /// What happened.
    pub doc: &'static str,
    /// The members of its data.
    pub data: &'static [Argument],
    /// Such as [`UNSTABLE`].
    pub features: &'static [&'static str],
}

/// What a command returns that has nothing to say: `{}`.
pub static EMPTY: StructSchema = StructSchema { name: "Empty", doc: "Nothing: the command succeeded.", members: &[] };

/// What a server can be asked to do beyond the basic protocol.
pub static QMP_CAPABILITY: EnumSchema = EnumSchema {
    name: "QMPCapability",
    doc: "What a connection may enable beyond the basic protocol.",
    values: &[("oob", "Execution out of band. Known for the sake of its name; never offered.")],
};

/// The one command that connections answer by themselves. A service lists it among its commands to have it documented; a listed
/// command of this name is never called.
pub const QMP_CAPABILITIES: CommandSchema = CommandSchema {
    name: "qmp_capabilities",
    doc: "Ends the negotiation of capabilities. Has to be the first command of a connection, and only that.",
    arguments: &[Argument {
        name: "enable",
        kind: Kind::List(&Kind::Enum(&QMP_CAPABILITY)),
        presence: Presence::Optional,
        doc: "Capabilities to enable, of those that the greeting offers. Default: none.",
    }],
    returns: Kind::Object(&EMPTY),
    features: &[],
};
