//! Texts: everything has one, and it has what a reader needs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use qmp::doc::{self, mentions};
use qmp::schema::{Argument, Kind, Presence, discriminator};
use qmp::{COMMANDS, EVENTS};

/// Calls `visit` with the path and the text of everything that the table describes.
fn texts(visit: &mut dyn FnMut(&str, &str)) {
    for command in COMMANDS {
        visit(command.name, command.doc);
        of_members(command.name, command.arguments, visit);
        of_kind(&format!("{} returns", command.name), &command.returns, visit);
    }
    for event in EVENTS {
        visit(event.name, event.doc);
        of_members(event.name, event.data, visit);
    }
}

fn of_members(path: &str, members: &'static [Argument], visit: &mut dyn FnMut(&str, &str)) {
    for member in members {
        let path = format!("{path} {}", member.name);
        visit(&path, member.doc);
        of_kind(&path, &member.kind, visit);
    }
    if let Some((_, union)) = discriminator(members) {
        visit(union.name, union.doc);
        union.branches.iter().for_each(|(word, branch)| of_members(&format!("{path} {word}"), branch.members, visit));
    }
}

fn of_kind(path: &str, kind: &Kind, visit: &mut dyn FnMut(&str, &str)) {
    match kind {
        Kind::Enum(words) => {
            visit(words.name, words.doc);
            words.values.iter().for_each(|(word, meaning)| visit(&format!("{path} {word}"), meaning));
        }
        Kind::Discriminator(union) => of_kind(path, &Kind::Enum(union.tag), visit),
        Kind::Object(object) => {
            visit(object.name, object.doc);
            of_members(path, object.members, visit);
        }
        Kind::List(element) => of_kind(path, element, visit),
        _ => {}
    }
}

/// All arguments of commands, those of branches too, each with the name of its command.
fn arguments() -> Vec<(&'static str, &'static Argument)> {
    let mut all = Vec::new();
    for command in COMMANDS {
        let branches = discriminator(command.arguments).map_or(&[][..], |(_, union)| union.branches);
        let further = branches.iter().flat_map(|(_, branch)| branch.members);
        all.extend(command.arguments.iter().chain(further).map(|argument| (command.name, argument)));
    }
    all
}

#[test]
fn everything_has_a_text() {
    let mut seen = 0;
    texts(&mut |path, text| {
        seen += 1;
        let is_sentence = text.len() > 3 && text.ends_with('.') && !text.contains("  ") && !text.contains('\n');
        assert!(is_sentence, "{path}: '{text}'");
    });
    assert!(seen > 200, "the test found only {seen} texts");
}

#[test]
fn who_may_leave_an_argument_out_is_told_what_it_is_then() {
    for (command, argument) in arguments() {
        let is_told = argument.doc.contains("Default: ") || argument.doc.contains("Exactly one of ");
        assert_eq!(argument.presence == Presence::Optional, is_told, "{command} {}: {}", argument.name, argument.doc);
    }
}

#[test]
fn lengths_have_their_unit() {
    for (command, argument) in arguments() {
        if matches!(argument.kind, Kind::Size) {
            assert!(argument.doc.contains("bytes"), "{command} {}: {}", argument.name, argument.doc);
        }
    }
}

#[test]
fn capacity_has_its_section_of_the_standard() {
    let commands = COMMANDS.iter().map(|command| (command.name, command.doc));
    let events = EVENTS.iter().map(|event| (event.name, event.doc));
    for (name, doc) in commands.chain(events).filter(|(name, _)| name.to_lowercase().contains("cxl")) {
        assert!(doc.contains("(CXL r4.0 "), "{name}: {doc}");
    }
    let page = doc::page(COMMANDS, EVENTS, "cxl-add-dynamic-capacity").expect("a page");
    let words: Vec<_> = page.split_whitespace().collect();
    assert!(words.join(" ").contains("written as a hyphenated UUID because"), "why a tag is a UUID: {page}");
}

#[test]
fn every_event_has_a_command_that_leads_to_it() {
    for event in EVENTS {
        assert!(COMMANDS.iter().any(|command| mentions(command, event.name)), "{}", event.name);
    }
}

#[test]
fn every_name_has_a_page_and_a_line() {
    let index = doc::index(COMMANDS, EVENTS);
    let names = COMMANDS.iter().map(|command| command.name).chain(EVENTS.iter().map(|event| event.name));
    for name in names {
        assert!(index.lines().any(|line| line.split_whitespace().next() == Some(name)), "{name}");
        let page = doc::page(COMMANDS, EVENTS, name).expect("a page");
        assert!(page.starts_with(&format!("{name} (")), "{page}");
        let too_long =
            page.lines().find(|line| line.chars().count() > doc::WIDTH_CHARACTERS && !line.starts_with("  "));
        assert_eq!(too_long, None, "{name}");
    }
    assert!(index.lines().all(|line| line.chars().count() <= 140), "{index}");
}

/// A command or event that somebody declares and forgets to list would be neither callable nor documented.
#[test]
fn what_is_declared_is_listed() {
    let mut declared = BTreeMap::from([("CommandSchema", 0), ("EventSchema", 0)]);
    count(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/commands"), &mut declared);
    // The connections' own command is declared elsewhere.
    assert_eq!(declared["CommandSchema"], COMMANDS.len() - 1, "commands");
    assert_eq!(declared["EventSchema"], EVENTS.len(), "events");
}

fn count(folder: &Path, declared: &mut BTreeMap<&str, usize>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            count(&path, declared);
            continue;
        }
        let text = fs::read_to_string(&path).expect("a file");
        let is_declaration = |line: &str, kind: &str| line.contains("const ") && line.contains(&format!(": {kind} ="));
        for (kind, seen) in &mut *declared {
            *seen += text.lines().filter(|line| is_declaration(line, kind)).count();
        }
    }
}
