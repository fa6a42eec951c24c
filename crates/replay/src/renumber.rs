//! A record in another place: the sequences that it names are those of the journal in which it then stands.

use std::collections::BTreeMap;

use device::operation::{Fact, Reply};
use device::{Seq, Stamp, VmTime, extents};
use journal::record::{Origin, Record, RecordedReply};

/// The record where its own place is in `places`, with every record that it names where that one is now. A record that is
/// not there any more keeps its number.
pub(crate) fn renumber(mut record: Record, time: Option<VmTime>, places: &BTreeMap<Seq, Seq>) -> Record {
    let place = |seq: &mut Seq| {
        if let Some(now) = places.get(seq) {
            *seq = *now;
        }
    };
    let Stamp { seq, time: now } = &mut record.stamp;
    place(seq);
    *now = time.unwrap_or(*now);
    place(&mut record.operation);
    if let Origin::CausedBy(cause) = &mut record.origin {
        place(cause);
    }
    record.facts.iter_mut().filter_map(offer).for_each(place);
    let prepared = record.answers.backends.iter_mut().filter_map(|answer| answer.as_mut().err());
    let prepared = prepared.chain(record.answers.windows.iter_mut().filter_map(|answer| answer.as_mut().err()));
    prepared.filter_map(|refusal| refusal.by_mut()).for_each(place);
    if let RecordedReply::Whole(Reply::Refused(refusal)) = &mut record.reply {
        refusal.by_mut().into_iter().for_each(place);
    }
    record
}

/// The offer that a fact names.
fn offer(fact: &mut Fact) -> Option<&mut Seq> {
    match fact {
        Fact::Extents(
            extents::Fact::Accepted { offer, .. }
            | extents::Fact::Rejected { offer, .. }
            | extents::Fact::Died { offer, .. }
            | extents::Fact::DeadAnswered { offer }
            | extents::Fact::Retired { offer },
        ) => Some(offer),
        Fact::Extents(_) | Fact::Mailbox(_) | Fact::Backends(_) | Fact::Windows(_) => None,
    }
}
