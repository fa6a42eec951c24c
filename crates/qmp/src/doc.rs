//! The schema as pages for people: an index of commands and events, and for each a page with all that the table knows.
//!
//! ```text
//! cxl-add-dynamic-capacity (command, unstable)
//!
//! Offers dynamic capacity to the host …
//!
//! Arguments:
//!   path: string, optional
//!       QOM path of the device …
//! ```
//!
//! Deliberately absent: texts of its own. What a page should say is said in the table.

use std::fmt;

use crate::schema::{
    Argument, CommandSchema, EnumSchema, EventSchema, Kind, Presence, StructSchema, UnionSchema, discriminator,
};

/// No line of a page is longer, except by a word that is.
pub const WIDTH_CHARACTERS: usize = 100;

/// How much further in than its name the text of a member begins.
const TEXT_INDENT: usize = 4;

/// A name that is neither a command nor an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct UnknownName {
    /// What was asked.
    pub name: String,
    /// The name that it is most like, if there is any.
    pub nearest: Option<&'static str>,
}

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no command or event '{}'", self.name)?;
        self.nearest.map_or(Ok(()), |nearest| write!(f, "; the nearest is '{nearest}'"))
    }
}

/// All commands, then all events, one line each.
pub fn index(commands: &[CommandSchema], events: &[EventSchema]) -> String {
    let commands = commands.iter().map(|command| (command.name, command.doc)).collect();
    let events = events.iter().map(|event| (event.name, event.doc)).collect();
    let mut page = Page::default();
    page.line(0, "Commands:");
    page.list(2, commands);
    page.blank();
    page.line(0, "Events:");
    page.list(2, events);
    page.text
}

/// The page of one command or event.
///
/// # Errors
///
/// There is none of this name; the error has the nearest one.
pub fn page(
    commands: &'static [CommandSchema],
    events: &'static [EventSchema],
    name: &str,
) -> Result<String, UnknownName> {
    if let Some(command) = commands.iter().find(|command| command.name == name) {
        return Ok(command_page(command, events));
    }
    if let Some(event) = events.iter().find(|event| event.name == name) {
        return Ok(event_page(event, commands));
    }
    let mut names = commands.iter().map(|command| command.name).chain(events.iter().map(|event| event.name));
    Err(UnknownName { name: name.to_owned(), nearest: nearest(&mut names, name) })
}

fn command_page(command: &CommandSchema, events: &'static [EventSchema]) -> String {
    let mut page = Page::default();
    page.head(command.name, "command", command.features, command.doc);
    page.members("Arguments", command.arguments);
    page.returns(&command.returns);
    let of_command = events.iter().filter(|event| mentions(command, event.name));
    let of_command: Vec<_> = of_command.map(|event| (event.name, event.doc)).collect();
    if !of_command.is_empty() {
        page.blank();
        page.line(0, "Events:");
        page.list(2, of_command);
    }
    page.text
}

fn event_page(event: &EventSchema, commands: &'static [CommandSchema]) -> String {
    let mut page = Page::default();
    page.head(event.name, "event", event.features, event.doc);
    page.members("Data", event.data);
    let causes = commands.iter().filter(|command| mentions(command, event.name));
    let causes: Vec<_> = causes.map(|command| (command.name, command.doc)).collect();
    if !causes.is_empty() {
        page.blank();
        page.line(0, "Commands that lead to it:");
        page.list(2, causes);
    }
    page.text
}

/// Whether the texts of a command name an event: that is how the table says which events follow a command.
pub fn mentions(command: &CommandSchema, event: &str) -> bool {
    let texts = std::iter::once(command.doc).chain(command.arguments.iter().map(|argument| argument.doc));
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    texts.flat_map(|text| text.split(|letter| !is_letter(letter))).any(|word| word == event)
}

/// What a value may be, in words.
fn kind_words(kind: &Kind) -> String {
    match kind {
        Kind::Str => "string".to_owned(),
        Kind::Bool => "boolean".to_owned(),
        Kind::U8 => "integer, 0 to 255".to_owned(),
        Kind::U16 => "integer, 0 to 65535".to_owned(),
        Kind::U32 => "integer, 0 to 2^32 - 1".to_owned(),
        Kind::U64 => "integer, 0 to 2^64 - 1".to_owned(),
        Kind::Size => "bytes, an integer, 0 to 2^64 - 1".to_owned(),
        Kind::Int => "integer".to_owned(),
        Kind::Number => "number".to_owned(),
        Kind::Enum(_) | Kind::Discriminator(_) => "one of the words below".to_owned(),
        Kind::Object(_) => "object".to_owned(),
        Kind::List(element) => format!("list, each: {}", kind_words(element)),
        Kind::Any => "anything".to_owned(),
    }
}

/// The first clause of a text, for a line in a list.
fn first_clause(text: &str) -> &str {
    let end = [". ", ": ", "; "].iter().filter_map(|end| text.find(end)).min();
    end.map_or(text, |end| &text[..end]).trim_end_matches('.')
}

/// A page that grows line by line.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn blank(&mut self) {
        self.text.push('\n');
    }

    /// Words from `indent` on, in as many lines as it takes.
    fn line(&mut self, indent: usize, words: &str) {
        let mut column = 0;
        for word in words.split_whitespace() {
            let len = word.chars().count();
            if column > 0 && column + 1 + len > WIDTH_CHARACTERS {
                self.blank();
                column = 0;
            }
            let gap = if column == 0 { indent } else { 1 };
            self.text.extend(std::iter::repeat_n(' ', gap));
            self.text.push_str(word);
            column += gap + len;
        }
        self.blank();
    }

    /// Names and the beginnings of their texts, in two columns.
    fn list(&mut self, indent: usize, entries: Vec<(&str, &str)>) {
        let widest = entries.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, text) in entries {
            let line = format!("{:indent$}{name:widest$}  {}\n", "", first_clause(text));
            self.text.push_str(&line);
        }
    }

    fn head(&mut self, name: &str, what: &str, features: &[&str], doc: &str) {
        let features: String = features.iter().map(|feature| format!(", {feature}")).collect();
        self.line(0, &format!("{name} ({what}{features})"));
        self.blank();
        self.line(0, doc);
    }

    fn members(&mut self, title: &str, members: &'static [Argument]) {
        self.blank();
        if members.is_empty() {
            self.line(0, &format!("{title}: none."));
            return;
        }
        self.line(0, &format!("{title}:"));
        self.member_list(2, members);
    }

    fn member_list(&mut self, indent: usize, members: &'static [Argument]) {
        members.iter().for_each(|member| self.member(indent, member));
        if let Some((tag, union)) = discriminator(members) {
            self.branches(indent, tag.name, union);
        }
    }

    fn member(&mut self, indent: usize, member: &Argument) {
        let presence = if member.presence == Presence::Optional { ", optional" } else { "" };
        self.line(indent, &format!("{}: {}{presence}", member.name, kind_words(&member.kind)));
        self.line(indent + TEXT_INDENT, member.doc);
        self.inside(indent + TEXT_INDENT, &member.kind);
    }

    /// What there is to say of a type itself: words and members.
    fn inside(&mut self, indent: usize, kind: &Kind) {
        match kind {
            Kind::Enum(words) => self.words(indent, words),
            Kind::Discriminator(union) => self.words(indent, union.tag),
            Kind::Object(object) => self.member_list(indent, object.members),
            Kind::List(element) => self.inside(indent, element),
            _ => {}
        }
    }

    fn words(&mut self, indent: usize, words: &EnumSchema) {
        words.values.iter().for_each(|(word, meaning)| self.line(indent, &format!("{word}: {meaning}")));
    }

    fn branches(&mut self, indent: usize, tag: &str, union: &UnionSchema) {
        for (word, branch) in union.branches {
            self.line(indent, &format!("Where {tag} is {word}, also:"));
            self.member_list(indent + TEXT_INDENT, branch.members);
        }
    }

    fn returns(&mut self, kind: &Kind) {
        self.blank();
        match kind {
            Kind::Object(StructSchema { members: [], doc, .. }) => self.line(0, &format!("Returns: {{}}. {doc}")),
            _ => {
                self.line(0, &format!("Returns: {}.", kind_words(kind)));
                self.inside(2, kind);
            }
        }
    }
}

/// The name that somebody may have meant: one that begins with what was written, else one that has it inside, else the one with
/// the fewest letters to change. Case and the sort of dash do not matter.
fn nearest(names: &mut dyn Iterator<Item = &'static str>, written: &str) -> Option<&'static str> {
    let plain = |name: &str| name.to_lowercase().replace('_', "-");
    let written = plain(written);
    names.min_by_key(|name| {
        let name = plain(name);
        (!name.starts_with(&written), !name.contains(&written), distance(&name, &written))
    })
}

/// How many letters must be put in, left out or changed to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::schema::{EMPTY, UNSTABLE, optional, required};

    static FLAVOUR: EnumSchema = EnumSchema {
        name: "Flavour",
        doc: "A flavour.",
        values: &[("plain", "Nothing added."), ("nut", "With nuts.")],
    };
    static NUTS: StructSchema =
        StructSchema { name: "Nuts", doc: "Nuts.", members: &[required("count", Kind::U8, "How many nuts.")] };
    static CAKE: UnionSchema = UnionSchema { name: "Cake", doc: "A cake.", tag: &FLAVOUR, branches: &[("nut", &NUTS)] };
    static SLICE: StructSchema = StructSchema {
        name: "Slice",
        doc: "A slice.",
        members: &[required("len", Kind::Size, "Its length in bytes.")],
    };

    static COMMANDS: &[CommandSchema] = &[
        CommandSchema {
            name: "bake",
            doc: "Bakes a cake: BAKED tells when it is done. A text that is long enough to need a second line is broken \
                  between two words, never inside of one.",
            arguments: &[
                required("flavour", Kind::Discriminator(&CAKE), "Its flavour."),
                optional("slices", Kind::List(&Kind::Object(&SLICE)), "How it is cut. Default: not at all."),
            ],
            returns: Kind::Object(&EMPTY),
            features: &[UNSTABLE],
        },
        CommandSchema {
            name: "query-cake",
            doc: "Returns a slice.",
            arguments: &[],
            returns: Kind::Object(&SLICE),
            features: &[],
        },
    ];
    static EVENTS: &[EventSchema] = &[EventSchema { name: "BAKED", doc: "It is done.", data: &[], features: &[] }];

    #[test]
    fn pages_have_all_that_the_table_has() {
        let all = [index(COMMANDS, EVENTS)].into_iter();
        let pages = ["bake", "query-cake", "BAKED"].map(|name| page(COMMANDS, EVENTS, name).expect("a page"));
        let text: Vec<_> = all.chain(pages).collect();
        expect![[r#"
            Commands:
              bake        Bakes a cake
              query-cake  Returns a slice

            Events:
              BAKED  It is done
            ---
            bake (command, unstable)

            Bakes a cake: BAKED tells when it is done. A text that is long enough to need a second line is
            broken between two words, never inside of one.

            Arguments:
              flavour: one of the words below
                  Its flavour.
                  plain: Nothing added.
                  nut: With nuts.
              slices: list, each: object, optional
                  How it is cut. Default: not at all.
                  len: bytes, an integer, 0 to 2^64 - 1
                      Its length in bytes.
              Where flavour is nut, also:
                  count: integer, 0 to 255
                      How many nuts.

            Returns: {}. Nothing: the command succeeded.

            Events:
              BAKED  It is done
            ---
            query-cake (command)

            Returns a slice.

            Arguments: none.

            Returns: object.
              len: bytes, an integer, 0 to 2^64 - 1
                  Its length in bytes.
            ---
            BAKED (event)

            It is done.

            Data: none.

            Commands that lead to it:
              bake  Bakes a cake
        "#]]
        .assert_eq(&text.join("---\n"));
    }

    #[test]
    fn who_misspells_is_told_the_nearest() {
        let unknown = |name| page(COMMANDS, EVENTS, name).expect_err("no page").to_string();
        assert_eq!(unknown("query_cakes"), "there is no command or event 'query_cakes'; the nearest is 'query-cake'");
        assert_eq!(unknown("baked"), "there is no command or event 'baked'; the nearest is 'BAKED'");
        assert_eq!(unknown("cake"), "there is no command or event 'cake'; the nearest is 'query-cake'");
        assert_eq!(unknown("Query_"), "there is no command or event 'Query_'; the nearest is 'query-cake'");
        assert_eq!(page(&[], &[], "x").expect_err("no page").to_string(), "there is no command or event 'x'");
    }

    #[test]
    fn distances() {
        for (one, other, far) in
            [("", "", 0), ("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!((distance(one, other), distance(other, one)), (far, far), "{one} {other}");
        }
    }
}
