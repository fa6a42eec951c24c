//! What may come of a damaged journal.

use std::path::Path;

use device::Seq;
use journal::{Damage, DamageCause, OpenError, Recovered, remains};

/// How a damaged journal was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// All of it: the damage was where nothing is.
    Whole,
    /// An error that names the intact prefix and the command.
    Refused,
    /// An error too: the database ends early, and the raw bytes show that there are more.
    Forgotten,
    /// Fewer records, and nothing shows that there were more: what is gone is the end itself.
    Ended,
}

/// Reads what is at `place`, checks that no other record is given than were written, and says how it went.
pub(crate) fn outcome(place: &Path, whole: &Recovered, what: &str) -> Outcome {
    let found = remains::find(place).unwrap_or_else(|error| panic!("{what}: {error}"));
    let prefix = found.prefix.as_ref();
    if let Some(prefix) = prefix {
        is_prefix(prefix, whole, what);
    }
    for stored in found.beyond.iter().flatten() {
        assert_eq!(Some(stored), whole.records.get(stored.seq.0 as usize - 1), "{what}: beyond");
    }
    let read = match place.is_file() {
        true => journal::portable::read_file(place).map(|(recovered, _)| recovered),
        false => journal::read(place),
    };
    match read {
        Ok(read) => {
            is_prefix(&read, whole, what);
            let seen = prefix.map(|prefix| prefix.last).filter(|_| found.whole.is_some());
            assert!(seen >= Some(read.last), "{what}: found up to {seen:?}, read up to {}", read.last);
            if read.last == whole.last { Outcome::Whole } else { Outcome::Ended }
        }
        Err(OpenError::Damaged { damage: Damage { cause: DamageCause::Forgotten { from, to }, intact }, .. }) => {
            let seen = prefix.is_some_and(|prefix| prefix.last >= to)
                || found.beyond.iter().flatten().any(|stored| stored.seq == to);
            assert!(Some(from) > intact && seen, "{what}: {from} to {to} behind {intact:?}");
            Outcome::Forgotten
        }
        Err(error) => {
            names_what_is_left(&error, place, prefix.map(|prefix| prefix.last), what);
            Outcome::Refused
        }
    }
}

fn is_prefix(read: &Recovered, whole: &Recovered, what: &str) {
    assert_eq!((&read.genesis, read.genesis_version), (&whole.genesis, whole.genesis_version), "{what}: genesis");
    assert!(read.records.len() <= whole.records.len(), "{what}: {} records", read.records.len());
    assert_eq!(read.records[..], whole.records[..read.records.len()], "{what}");
}

fn names_what_is_left(error: &OpenError, place: &Path, found: Option<Seq>, what: &str) {
    let (text, command) = (error.to_string(), format!("dcd journal salvage {} OUT", place.display()));
    match error {
        OpenError::Damaged { damage, .. } => {
            assert!(text.contains("intact") && text.contains(&command), "{what}: {text}");
            assert!(found >= damage.intact, "{what}: found {found:?}, intact {:?}", damage.intact);
        }
        OpenError::Unopenable { .. } => assert!(text.contains(&command), "{what}: {text}"),
        // It says that no record is lost: none may be there but the genesis.
        OpenError::Unfinished { .. } => assert!(found.is_none_or(|last| last == Seq(0)), "{what}: {found:?}"),
        other => panic!("{what}: {other}"),
    }
}
