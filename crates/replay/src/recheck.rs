//! Deciding again: the recorded input through today's code, on the state before it.
//!
//! What other actors prepared is computed again and compared; what came of host work is taken as recorded.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use device::Seq;
use device::operation::{Reply, decide};
use device::vm::Vm;
use journal::record::{REPLY_WHOLE_LEN_BYTES_MAX, Record, RecordedReply};
use thiserror::Error;

/// What differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// What the other actors prepared.
    Answers,
    /// What happened.
    Facts,
    /// What the asker got back.
    Reply,
}

/// A record that today's build decides otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{seq}: the {difference} differ\n  recorded: {recorded}\n  decided:  {decided}")]
pub struct Divergence {
    /// The record.
    pub seq: Seq,
    /// What differs.
    pub difference: Difference,
    /// As recorded.
    pub recorded: String,
    /// As decided now.
    pub decided: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answers => "answers",
            Self::Facts => "facts",
            Self::Reply => "replies",
        })
    }
}

/// Decides a record's input again on the state before it.
///
/// # Errors
/// The first difference, with both sides.
pub fn recheck(vm: &Vm, record: &Record) -> Result<(), Divergence> {
    let again = || decide(vm, record.device, record.stamp, &record.input, &record.outcomes);
    let decided = match catch_unwind(AssertUnwindSafe(again)) {
        Ok(Some(decided)) => decided,
        Ok(None) => return differ(record, Difference::Reply, &record.reply, &"there is no such device"),
        Err(panic) => {
            let now = RecordedReply::Panicked(panic_message(&*panic));
            return if now == record.reply { Ok(()) } else { differ(record, Difference::Reply, &record.reply, &now) };
        }
    };
    let (answers, decision) = decided;
    if answers != record.answers {
        return differ(record, Difference::Answers, &record.answers, &answers);
    }
    if decision.facts != record.facts {
        // What both begin with says nothing.
        let alike =
            record.facts.iter().zip(&decision.facts).take_while(|(recorded, decided)| recorded == decided).count();
        return differ(record, Difference::Facts, &&record.facts[alike..], &&decision.facts[alike..]);
    }
    if is_recorded(&record.reply, &decision.reply) {
        return Ok(());
    }
    differ(record, Difference::Reply, &record.reply, &RecordedReply::of(&decision.reply))
}

/// Whether a reply is kept as this. Most are kept whole, and need no copy to be compared.
fn is_recorded(recorded: &RecordedReply, reply: &Reply) -> bool {
    let is_long = matches!(reply, Reply::Command(command) if command.payload.len() > REPLY_WHOLE_LEN_BYTES_MAX);
    match recorded {
        RecordedReply::Whole(recorded) if !is_long => recorded == reply,
        recorded => *recorded == RecordedReply::of(reply),
    }
}

/// The message of a caught panic.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message").to_owned()
}

fn differ(
    record: &Record,
    difference: Difference,
    recorded: &dyn fmt::Debug,
    decided: &dyn fmt::Debug,
) -> Result<(), Divergence> {
    let (recorded, decided) = (format!("{recorded:?}"), format!("{decided:?}"));
    Err(Divergence { seq: record.stamp.seq, difference, recorded, decided })
}
