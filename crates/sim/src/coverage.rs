//! What a run has come across: every kind of input with what was answered, and every kind of fact.
//!
//! Names are the device's own, so that a new kind appears here on its own and a test can ask whether it ever came.
//! Deliberately absent: which line of the device ran.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Write};

use device::operation::{Fact, Input, Reply};
use device::{extents, mailbox};
use journal::record::{Record, RecordedReply};

/// How often each of them came: `extents Add`, `extents Add: TagHeld`, `extents Command 4802h: Success`, `extents fact
/// Accepted`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<String, u64>);

impl Coverage {
    /// How often something came.
    pub fn count(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }

    /// How often any input was answered so: a [`Refusal`](device::Refusal), a return code, `done`.
    pub fn answered(&self, answer: &str) -> u64 {
        let is_it = |what: &&String| what.split_once(": ").is_some_and(|(_, other)| other == answer);
        self.0.iter().filter(|(what, _)| is_it(what)).map(|(_, count)| count).sum()
    }

    /// All that came, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(what, count)| (what.as_str(), *count))
    }

    /// Takes a record in.
    pub(crate) fn take(&mut self, record: &Record) {
        let input = input(&record.input);
        for fact in &record.facts {
            self.add(of_fact(fact));
        }
        self.add(format!("{input}: {}", answer(&record.reply)));
        self.add(input);
    }

    fn add(&mut self, what: String) {
        *self.0.entry(what).or_default() += 1;
    }
}

impl std::ops::AddAssign for Coverage {
    fn add_assign(&mut self, other: Self) {
        other.0.into_iter().for_each(|(what, count)| *self.0.entry(what).or_default() += count);
    }
}

fn input(input: &Input) -> String {
    match input {
        Input::Extents(extents::Input::Command { opcode, .. }) => format!("extents Command {:04x}h", opcode.0),
        Input::Extents(extents::Input::Release(request)) => {
            format!("extents Release {:?} {:?}", request.policy, request.removal)
        }
        Input::Extents(extents::Input::Unplug { removal, .. }) => format!("extents Unplug {removal:?}"),
        Input::Extents(input) => format!("extents {}", kind(input)),
        Input::Backends(input) => format!("backends {}", kind(input)),
        Input::Mailbox(mailbox::Input::Doorbell { opcode, .. }) => format!("mailbox Doorbell {:04x}h", opcode.0),
        Input::Mailbox(input) => format!("mailbox {}", kind(input)),
        Input::Windows(input) => format!("windows {}", kind(input)),
    }
}

fn answer(reply: &RecordedReply) -> String {
    match reply {
        RecordedReply::Whole(Reply::Done) => "done".to_owned(),
        RecordedReply::Whole(Reply::Refused(refusal)) => kind(refusal),
        RecordedReply::Whole(Reply::Command(reply)) => kind(&reply.return_code),
        RecordedReply::Digest { return_code, .. } => kind(return_code),
        RecordedReply::Panicked(_) => "panicked".to_owned(),
    }
}

fn of_fact(fact: &Fact) -> String {
    match fact {
        Fact::Mailbox(fact) => format!("mailbox fact {}", kind(fact)),
        Fact::Extents(fact) => format!("extents fact {}", kind(fact)),
        Fact::Backends(fact) => format!("backends fact {}", kind(fact)),
        Fact::Windows(fact) => format!("windows fact {}", kind(fact)),
    }
}

/// The name of an enum's variant: the first word of what it shows of itself.
fn kind(value: &impl Debug) -> String {
    let mut word = FirstWord(String::new());
    // The end of the word is an error, which spares writing the rest.
    write!(word, "{value:?}").ok();
    word.0
}

struct FirstWord(String);

impl Write for FirstWord {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let word: String = text.chars().take_while(char::is_ascii_alphanumeric).collect();
        self.0.push_str(&word);
        if word.len() < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use device::Refusal;

    use super::*;

    #[test]
    fn a_kind_is_the_name_of_its_variant() {
        assert_eq!(kind(&Refusal::NoExtents), "NoExtents");
        assert_eq!(kind(&Refusal::Host { host_id: 3 }), "Host");
        let delete = device::backends::Input::ObjectDel { id: "tm0".into() };
        assert_eq!(input(&Input::Backends(delete)), "backends ObjectDel");
    }
}
