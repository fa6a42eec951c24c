//! `dcd journal verify`: whether a journal is what was written.

use std::path::PathBuf;

use anyhow::ensure;
use journal::record::Record;

use crate::journal_verb::Opened;
use crate::print_line;
use crate::reading::{Reading, archived};

/// Read a journal whole and check every frame, its place in the row, its link and its body.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd journal verify ~/.local/state/dcd/journal\n\n\
                        The exit code is 0 only if all of it is what was written. What was cut off behind \
                        the last record without a trace is not seen: compare the last link with one that was written down.")]
pub(crate) struct Verify {
    /// The journal, a directory or a file; default: that of the latest bare `dcd run`.
    journal: Option<PathBuf>,
}

impl Verify {
    /// Verifies.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let reading = Reading::open(self.journal.as_deref())?;
        let Opened { genesis, records, .. } = reading.decode()?;
        check_places(&reading, &records)?;
        let (place, last) = (reading.place.display(), reading.recovered.last);
        print_line(&format!("{place}: {} records by {}, {}", records.len(), genesis.build, span(&records)))?;
        for (name, text) in reading.about.iter().flat_map(|about| &about.0) {
            print_line(&format!("  {name}: {text}"))?;
        }
        if let Some(torn) = reading.recovered.torn {
            print_line(&format!(
                "a torn group from {} on ({} parts) is left out: it was not durable, and nobody was told of it",
                torn.first, torn.parts
            ))?;
        }
        let keyframes = archived(&reading.place)?.0.check_keyframes()?;
        if keyframes > 0 {
            print_line(&format!("{keyframes} keyframes are the states that the records before them make"))?;
        }
        print_line(&format!("{last} is the last record, its link is {}", reading.recovered.link()))?;
        print_line("every frame, its place in the row, its link and its body are right")
    }
}

/// The time that records span.
pub(crate) fn span(records: &[Record]) -> String {
    let ns = |record: Option<&Record>| record.map_or(0, |record| record.stamp.time.0);
    format!("{:.3} ms of the VM clock", ns(records.last()).saturating_sub(ns(records.first())) as f64 / 1e6)
}

/// A record says its sequence too, and time does not go back.
fn check_places(reading: &Reading, records: &[Record]) -> anyhow::Result<()> {
    let mut before = device::VmTime(0);
    for (stored, record) in reading.recovered.records.iter().zip(records) {
        let (seq, time) = (stored.seq, record.stamp.time);
        ensure!(record.stamp.seq == seq, "{seq}: the frame's body says that it is {}", record.stamp.seq);
        ensure!(time >= before, "{seq}: its time is {} ns and that of the record before it {} ns", time.0, before.0);
        before = time;
    }
    Ok(())
}
